/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a tool's shared object (System V ABI, AMD64 supplement).
 *
 *   file     | headers, .dynsym, .rela.dyn | .text | .rodata | .dynamic, .got, .data |
 *   memory   | R                           | R X   | R       | R W                   | .bss |
 *
 * All tables are read from the file's bytes through the segments that hold them; only relocation writes to memory, and only
 * inside writable segments. What a tool cannot have here - thread-local variables, indirect functions, text relocations -
 * is refused with a phrase for the user.
 */
#include "tools/object.h"
#include "include/internal/core_string.h"

#include <elf.h>

#define PAGE 4096ull
#define PAGE_OF(x) ((x) & ~(PAGE - 1))
#define TAG_RELR 36 /* DT_RELR: newer than Debian 12's elf.h */

static bool fail(struct tool_object *o, const char *why, const char *about)
{
    o->why = why;
    o->about = about;
    return false;
}

static bool corrupt(struct tool_object *o)
{
    return fail(o, "truncated or corrupt shared object", "");
}

/* ---- bytes ---- */

/* The BYTES at ADDRESS, all in one segment's part of the file, or NULL. */
static const uint8_t *at(const struct tool_object *o, uint64_t address, uint64_t bytes)
{
    for (unsigned i = 0; i < o->nsegments; i++) {
        const struct object_segment *s = &o->segments[i];
        if (address >= s->address && address - s->address <= s->file_bytes && bytes <= s->file_bytes - (address - s->address))
            return o->file + s->offset + (address - s->address);
    }
    return NULL;
}

static bool read_at(const struct tool_object *o, uint64_t address, void *out, size_t bytes)
{
    const uint8_t *p = at(o, address, bytes);
    if (p)
        memcpy(out, p, bytes);
    return p;
}

/* The segment whose memory holds [address, address + bytes), or NULL. */
static const struct object_segment *segment_at(const struct tool_object *o, uint64_t address, uint64_t bytes)
{
    for (unsigned i = 0; i < o->nsegments; i++) {
        const struct object_segment *s = &o->segments[i];
        if (address >= s->address && address - s->address <= s->memory_bytes &&
            bytes <= s->memory_bytes - (address - s->address))
            return s;
    }
    return NULL;
}

static bool same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* String INDEX of the dynamic string table, or NULL. */
static const char *string_at(const struct tool_object *o, uint64_t index)
{
    if (index >= o->string_bytes)
        return NULL;
    const uint8_t *p = at(o, o->strings + index, o->string_bytes - index);
    for (uint64_t i = 0; p && i < o->string_bytes - index; i++)
        if (!p[i])
            return (const char *)p;
    return NULL;
}

uint64_t object_hash(const void *file, size_t bytes)
{
    const uint8_t *p = file;
    uint64_t hash = bytes ^ 0x9e3779b97f4a7c15ull;
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = 0;
        memcpy(&word, p + i, bytes - i < 8 ? bytes - i : 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdull;
        hash ^= hash >> 32;
    }
    return hash ? hash : 1;
}

/* ---- symbols by name ---- */

static bool symbol_at(const struct tool_object *o, uint64_t index, Elf64_Sym *symbol, const char **name)
{
    if (index > UINT32_MAX || !read_at(o, o->symbols + index * sizeof *symbol, symbol, sizeof *symbol))
        return false;
    return (*name = string_at(o, symbol->st_name));
}

static bool is_symbol(const struct tool_object *o, uint64_t index, const char *wanted, Elf64_Sym *symbol)
{
    const char *name;
    return symbol_at(o, index, symbol, &name) && symbol->st_shndx != SHN_UNDEF && same(name, wanted);
}

/* DT_GNU_HASH: header, bloom filter (not used), buckets, chains of hashes whose last has bit 0 set. */
static bool find_gnu(const struct tool_object *o, const char *wanted, Elf64_Sym *symbol)
{
    uint32_t head[4], hash = 5381, index, chained; /* buckets, first symbol, words of bloom filter, its shift */
    if (!read_at(o, o->gnu_hash, head, sizeof head) || head[0] == 0)
        return false;
    for (const char *p = wanted; *p; p++)
        hash = hash * 33 + (uint8_t)*p;
    uint64_t buckets = o->gnu_hash + sizeof head + 8ull * head[2], chains = buckets + 4ull * head[0];
    if (!read_at(o, buckets + 4ull * (hash % head[0]), &index, sizeof index) || index < head[1])
        return false;
    for (;; index++) {
        if (!read_at(o, chains + 4ull * (index - head[1]), &chained, sizeof chained))
            return false;
        if ((chained | 1) == (hash | 1) && is_symbol(o, index, wanted, symbol))
            return true;
        if (chained & 1)
            return false;
    }
}

/* DT_HASH says how many symbols there are. */
static bool find_sysv(const struct tool_object *o, const char *wanted, Elf64_Sym *symbol)
{
    uint32_t head[2]; /* buckets, symbols */
    if (!o->hash || !read_at(o, o->hash, head, sizeof head))
        return false;
    for (uint32_t i = 1; i < head[1] && at(o, o->symbols + i * sizeof *symbol, sizeof *symbol); i++)
        if (is_symbol(o, i, wanted, symbol))
            return true;
    return false;
}

static bool find_main(struct tool_object *o)
{
    Elf64_Sym symbol;
    if (!(o->gnu_hash ? find_gnu(o, "bdbi_tool_main", &symbol) : find_sysv(o, "bdbi_tool_main", &symbol)))
        return fail(o, "it does not define bdbi_tool_main: see include/bdbi/tool.h", "");
    o->main = symbol.st_value;
    if (o->main % _Alignof(struct bdbi_tool) || !segment_at(o, o->main, sizeof(uint32_t)))
        return corrupt(o);
    return true;
}

/* ---- headers ---- */

static bool add_segment(struct tool_object *o, const Elf64_Phdr *ph)
{
    if (ph->p_memsz == 0)
        return true;
    if (o->nsegments == OBJECT_MAX_SEGMENTS)
        return fail(o, "too many segments", "");
    if (ph->p_filesz > ph->p_memsz || ph->p_offset > o->bytes || ph->p_filesz > o->bytes - ph->p_offset ||
        (ph->p_offset ^ ph->p_vaddr) % PAGE)
        return corrupt(o);
    if (ph->p_vaddr > OBJECT_MAX_SPAN || ph->p_memsz > OBJECT_MAX_SPAN - ph->p_vaddr)
        return fail(o, "more than 16 MB in memory", "");
    if (PAGE_OF(ph->p_vaddr) < PAGE_OF(o->span + PAGE - 1))
        return fail(o, "segments that share a page or do not ascend", "");
    struct object_segment s = {ph->p_vaddr, ph->p_memsz, ph->p_offset, ph->p_filesz, ph->p_flags & PF_W, ph->p_flags & PF_X};
    if (s.writable && s.executable)
        return fail(o, "a segment that is writable and executable", "");
    if (s.memory_bytes > s.file_bytes && !s.writable)
        return corrupt(o);
    o->segments[o->nsegments++] = s;
    o->span = s.address + s.memory_bytes;
    return true;
}

static bool take_dynamic(struct tool_object *o, int64_t tag, uint64_t value)
{
    switch (tag) {
    case DT_STRTAB:
        o->strings = value;
        return true;
    case DT_STRSZ:
        o->string_bytes = value;
        return true;
    case DT_SYMTAB:
        o->symbols = value;
        return true;
    case DT_HASH:
        o->hash = value;
        return true;
    case DT_GNU_HASH:
        o->gnu_hash = value;
        return true;
    case DT_RELA:
        o->rela = value;
        return true;
    case DT_RELASZ:
        o->rela_bytes = value;
        return true;
    case DT_JMPREL:
        o->plt_rela = value;
        return true;
    case DT_PLTRELSZ:
        o->plt_rela_bytes = value;
        return true;
    case DT_INIT:
        o->init = value;
        return true;
    case DT_INIT_ARRAY:
        o->init_array = value;
        return true;
    case DT_INIT_ARRAYSZ:
        o->init_array_bytes = value;
        return true;
    case DT_SYMENT:
        return value == sizeof(Elf64_Sym) || corrupt(o);
    case DT_RELAENT:
        return value == sizeof(Elf64_Rela) || corrupt(o);
    case DT_PLTREL:
        return value == DT_RELA || corrupt(o);
    case DT_REL:
        return corrupt(o);
    case DT_TEXTREL:
        return fail(o, "relocations in its code: compile it with -fPIC", "");
    case TAG_RELR:
        return fail(o, "packed relocations: link it with -z nopack-relative-relocs", "");
    default:
        return true;
    }
}

static bool read_dynamic(struct tool_object *o, uint64_t address, uint64_t bytes)
{
    Elf64_Dyn d;
    for (uint64_t i = 0; i + sizeof d <= bytes; i += sizeof d) {
        if (!read_at(o, address + i, &d, sizeof d))
            return corrupt(o);
        if (d.d_tag == DT_NULL)
            break;
        if (!take_dynamic(o, d.d_tag, d.d_un.d_val))
            return false;
    }
    bool tables = o->symbols && at(o, o->strings, o->string_bytes) && (!o->rela_bytes || at(o, o->rela, o->rela_bytes)) &&
                  (!o->plt_rela_bytes || at(o, o->plt_rela, o->plt_rela_bytes));
    bool inits = o->init_array_bytes == 0 ||
                 (o->init_array % 8 == 0 && o->init_array_bytes % 8 == 0 && segment_at(o, o->init_array, o->init_array_bytes));
    return tables && inits ? find_main(o) : corrupt(o);
}

static bool read_segments(struct tool_object *o, const Elf64_Ehdr *e)
{
    Elf64_Phdr ph, dynamic = {.p_type = PT_NULL};
    if (e->e_phentsize != sizeof ph || e->e_phoff > o->bytes || e->e_phnum > (o->bytes - e->e_phoff) / sizeof ph)
        return corrupt(o);
    for (unsigned i = 0; i < e->e_phnum; i++) {
        memcpy(&ph, o->file + e->e_phoff + i * sizeof ph, sizeof ph);
        if (ph.p_type == PT_TLS && ph.p_memsz)
            return fail(o, "thread-local variables, which tools cannot have", "");
        if (ph.p_type == PT_LOAD && !add_segment(o, &ph))
            return false;
        if (ph.p_type == PT_DYNAMIC)
            dynamic = ph;
    }
    if (o->nsegments == 0 || dynamic.p_type != PT_DYNAMIC)
        return fail(o, "not a shared object", "");
    return read_dynamic(o, dynamic.p_vaddr, dynamic.p_filesz);
}

bool object_open(struct tool_object *o, const void *file, size_t bytes)
{
    Elf64_Ehdr e;
    memset(o, 0, sizeof *o);
    o->file = file;
    o->bytes = bytes;
    if (bytes < SELFMAG || memcmp(file, ELFMAG, SELFMAG) != 0)
        return fail(o, "not a shared object", "");
    if (bytes < sizeof e)
        return corrupt(o);
    memcpy(&e, file, sizeof e);
    if (e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_ident[EI_DATA] != ELFDATA2LSB || e.e_machine != EM_X86_64)
        return fail(o, "a shared object for another architecture: tools are x86-64", "");
    if (e.e_type != ET_DYN)
        return fail(o, "not a shared object: link it with -shared", "");
    return read_segments(o, &e);
}

/* ---- relocation ---- */

static bool symbol_value(struct tool_object *o, uint64_t index, const uint8_t *memory, void *(*resolve)(const char *),
                         uint64_t *value)
{
    Elf64_Sym symbol;
    const char *name;
    *value = 0;
    if (index == 0)
        return true;
    if (!symbol_at(o, index, &symbol, &name))
        return corrupt(o);
    unsigned type = ELF64_ST_TYPE(symbol.st_info);
    if (type == STT_GNU_IFUNC || type == STT_TLS)
        return fail(o, "an indirect function or thread-local variable, which tools cannot have: ", name);
    if (symbol.st_shndx == SHN_ABS)
        *value = symbol.st_value;
    else if (symbol.st_shndx != SHN_UNDEF) {
        if (symbol.st_value > o->span)
            return corrupt(o);
        *value = (uint64_t)memory + symbol.st_value;
    } else {
        *value = (uint64_t)resolve(name);
        if (!*value && ELF64_ST_BIND(symbol.st_info) != STB_WEAK)
            return fail(o, "it needs what bdbi does not offer to tools: ", name);
    }
    return true;
}

static bool relocate_one(struct tool_object *o, const Elf64_Rela *r, uint8_t *memory, void *(*resolve)(const char *))
{
    uint64_t value;
    switch (ELF64_R_TYPE(r->r_info)) {
    case R_X86_64_NONE:
        return true;
    case R_X86_64_RELATIVE:
        value = (uint64_t)memory;
        break;
    case R_X86_64_64:
    case R_X86_64_GLOB_DAT:
    case R_X86_64_JUMP_SLOT:
        if (!symbol_value(o, ELF64_R_SYM(r->r_info), memory, resolve, &value))
            return false;
        break;
    case R_X86_64_IRELATIVE:
        return fail(o, "an indirect function, which tools cannot have", "");
    case R_X86_64_DTPMOD64:
    case R_X86_64_DTPOFF64:
    case R_X86_64_TPOFF64:
    case R_X86_64_TLSDESC:
        return fail(o, "thread-local variables, which tools cannot have", "");
    default:
        return fail(o, "a relocation that bdbi does not know", "");
    }
    const struct object_segment *s = segment_at(o, r->r_offset, sizeof value);
    if (!s)
        return corrupt(o);
    if (!s->writable)
        return fail(o, "relocations in its code: compile it with -fPIC", "");
    value += (uint64_t)r->r_addend;
    memcpy(memory + r->r_offset, &value, sizeof value);
    return true;
}

static bool relocate_table(struct tool_object *o, uint64_t address, uint64_t bytes, uint8_t *memory,
                           void *(*resolve)(const char *))
{
    Elf64_Rela r;
    for (uint64_t i = 0; i + sizeof r <= bytes; i += sizeof r)
        if (!read_at(o, address + i, &r, sizeof r) || !relocate_one(o, &r, memory, resolve))
            return o->why ? false : corrupt(o);
    return true;
}

static bool is_code(const struct tool_object *o, const uint8_t *memory, uint64_t pointer)
{
    const struct object_segment *s = segment_at(o, pointer - (uint64_t)memory, 1);
    return s && s->executable;
}

uint64_t object_init(const struct tool_object *o, const uint8_t *memory, unsigned n)
{
    uint64_t function;
    if (o->init && n-- == 0)
        return (uint64_t)memory + o->init;
    if (n >= o->init_array_bytes / 8)
        return 0;
    memcpy(&function, memory + o->init_array + 8ull * n, sizeof function);
    return function;
}

bool object_relocate(struct tool_object *o, uint8_t *memory, void *(*resolve)(const char *name))
{
    if (!relocate_table(o, o->rela, o->rela_bytes, memory, resolve) ||
        !relocate_table(o, o->plt_rela, o->plt_rela_bytes, memory, resolve))
        return false;
    unsigned inits = (unsigned)(o->init_array_bytes / 8) + (o->init != 0);
    for (unsigned i = 0; i < inits; i++)
        if (!is_code(o, memory, object_init(o, memory, i)))
            return corrupt(o);
    return true;
}

/* ---- the tool ---- */

static bool is_string(const struct tool_object *o, const uint8_t *memory, const char *text)
{
    uint64_t address = (uint64_t)text - (uint64_t)memory;
    const struct object_segment *s = segment_at(o, address, 1);
    for (; s && address < s->address + s->memory_bytes; address++)
        if (!memory[address])
            return true;
    return false;
}

const struct bdbi_tool *object_tool(struct tool_object *o, uint8_t *memory)
{
    const struct bdbi_tool *tool = (const void *)(memory + o->main);
    if (tool->abi != BDBI_TOOL_ABI) {
        fail(o, "built for another version of bdbi: build it again with this one's include/bdbi/tool.h", "");
        return NULL;
    }
    if (!segment_at(o, o->main, sizeof *tool) || !is_string(o, memory, tool->name) || !is_string(o, memory, tool->help) ||
        (tool->weave_options && !is_string(o, memory, tool->weave_options)) ||
        (tool->report_options && !is_string(o, memory, tool->report_options)) || !is_code(o, memory, (uint64_t)tool->weave) ||
        (tool->report && !is_code(o, memory, (uint64_t)tool->report))) {
        fail(o, "its bdbi_tool_main is incomplete: name, help and weave must be set", "");
        return NULL;
    }
    return tool;
}
