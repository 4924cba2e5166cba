/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening an ELF file: map it, check the header, check the segments, take what the loader and the closure need.
 *
 *     file  |Ehdr|Phdr...|  text  | data |  (section headers are optional and never needed)
 *                           |        |
 *     PT_LOAD: file_offset, file_bytes -> vaddr, mem_bytes;  module offset = vaddr - base_vaddr
 *
 * After elf_module_open the program header table and every PT_LOAD's bytes are known to be inside the file, segments ascend and
 * do not overlap, and the module spans less than 4 GB, so that module offsets are 32 bits wide. Everything else in the file is
 * still untrusted (elf_view.h).
 *
 * libelf is not used: it wants section headers for most of its answers, and what is read here is a few fixed structures.
 */
#include "analyzer/elf_view.h"
#include "internal/error.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, MAX_HEADER_BYTES = 65536 /* as the kernel */ };

struct opening {
    struct elf_module *m;
    char *message;
    size_t message_bytes;
};

__attribute__((format(printf, 3, 4))) static int fail(struct opening *o, int error, const char *format, ...)
{
    char what[200];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (o->message_bytes)
        snprintf(o->message, o->message_bytes, "%s: %s", o->m->path, what);
    return -error;
}

static const char *machine_name(unsigned machine)
{
    static const struct {
        unsigned machine;
        const char *name;
    } names[] = {
        {EM_386, "i386"},    {EM_ARM, "ARM"},          {EM_AARCH64, "AArch64"},     {EM_RISCV, "RISC-V"},
        {EM_PPC, "PowerPC"}, {EM_PPC64, "PPC64"},      {EM_S390, "S/390"},          {EM_MIPS, "MIPS"},
        {EM_SPARC, "SPARC"}, {EM_SPARCV9, "SPARC V9"}, {EM_IA_64, "IA-64"},         {EM_68K, "m68k"},
        {EM_ALPHA, "Alpha"}, {EM_PARISC, "PA-RISC"},   {EM_LOONGARCH, "LoongArch"}, {EM_BPF, "BPF"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].machine == machine)
            return names[i].name;
    return "another machine";
}

static int check_ident(struct opening *o)
{
    const uint8_t *ident = o->m->file;
    if (o->m->file_bytes < 4 || memcmp(ident, ELFMAG, SELFMAG) != 0)
        return fail(o, BDBI_EFORMAT, "not an ELF file");
    if (o->m->file_bytes < EI_NIDENT + 4)
        return fail(o, BDBI_EFORMAT, "truncated: %zu bytes, the ELF header has 64", o->m->file_bytes);
    unsigned machine = load16(ident + EI_NIDENT + 2);
    if (ident[EI_DATA] == ELFDATA2MSB)
        return fail(o, BDBI_EARCH, "big-endian ELF");
    if (ident[EI_CLASS] == ELFCLASS32 && (machine == EM_386 || machine == EM_X86_64))
        return fail(o, BDBI_EARCH, "32-bit ELF");
    if (machine != EM_X86_64)
        return fail(o, BDBI_EARCH, "ELF for %s", machine_name(machine));
    if (ident[EI_CLASS] != ELFCLASS64 || ident[EI_DATA] != ELFDATA2LSB || ident[EI_VERSION] != EV_CURRENT)
        return fail(o, BDBI_EFORMAT, "malformed ELF identification");
    return 0;
}

static int check_header(struct opening *o, Elf64_Ehdr *header)
{
    int error = check_ident(o);
    if (error)
        return error;
    if (o->m->file_bytes < sizeof *header)
        return fail(o, BDBI_EFORMAT, "truncated: %zu bytes, the ELF header has 64", o->m->file_bytes);
    memcpy(header, o->m->file, sizeof *header);
    if (header->e_type == ET_REL)
        return fail(o, BDBI_EFORMAT, "a relocatable object, not an executable or shared object");
    if (header->e_type == ET_CORE)
        return fail(o, BDBI_EFORMAT, "a core dump, not an executable or shared object");
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return fail(o, BDBI_EFORMAT, "not an executable or shared object (ELF type %u)", header->e_type);
    if (header->e_phnum == 0)
        return fail(o, BDBI_EFORMAT, "no program headers");
    if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum * sizeof(Elf64_Phdr) > MAX_HEADER_BYTES)
        return fail(o, BDBI_EFORMAT, "malformed program header table");
    if (!elf_file_at(o->m, header->e_phoff, header->e_phnum * sizeof(Elf64_Phdr)))
        return fail(o, BDBI_EFORMAT, "truncated: the program headers are behind the end of the file");
    return 0;
}

static int add_segment(struct opening *o, const Elf64_Phdr *p)
{
    struct elf_module *m = o->m;
    if (p->p_filesz > p->p_memsz || p->p_vaddr + p->p_memsz < p->p_vaddr || p->p_vaddr + p->p_memsz > UINT64_MAX - PAGE_BYTES)
        return fail(o, BDBI_EFORMAT, "malformed segment at 0x%llx", (unsigned long long)p->p_vaddr);
    if (p->p_filesz && !elf_file_at(m, p->p_offset, p->p_filesz))
        return fail(o, BDBI_EFORMAT, "truncated: the segment at 0x%llx is behind the end of the file",
                    (unsigned long long)p->p_vaddr);
    if (p->p_filesz && (p->p_offset ^ p->p_vaddr) % PAGE_BYTES)
        return fail(o, BDBI_EFORMAT, "the segment at 0x%llx is not aligned to pages", (unsigned long long)p->p_vaddr);
    struct elf_segment s = {.vaddr = p->p_vaddr,
                            .file_offset = p->p_filesz ? p->p_offset : 0,
                            .file_bytes = p->p_filesz,
                            .mem_bytes = p->p_memsz,
                            .flags = p->p_flags};
    if (p->p_align > m->align && (p->p_align & (p->p_align - 1)) == 0)
        m->align = p->p_align;
    uint32_t i = m->nsegments++;
    for (; i > 0 && m->segments[i - 1].vaddr > s.vaddr; i--)
        m->segments[i] = m->segments[i - 1];
    m->segments[i] = s;
    return 0;
}

/* Order and extent of all segments together. */
static int check_segments(struct opening *o)
{
    struct elf_module *m = o->m;
    if (!m->nsegments)
        return fail(o, BDBI_EFORMAT, "no loadable segments");
    for (uint32_t i = 1; i < m->nsegments; i++)
        if (m->segments[i - 1].vaddr + m->segments[i - 1].mem_bytes > m->segments[i].vaddr)
            return fail(o, BDBI_EFORMAT, "segments overlap at 0x%llx", (unsigned long long)m->segments[i].vaddr);
    const struct elf_segment *last = &m->segments[m->nsegments - 1];
    m->base_vaddr = m->segments[0].vaddr & -(uint64_t)PAGE_BYTES;
    m->span_bytes = ((last->vaddr + last->mem_bytes + PAGE_BYTES - 1) & -(uint64_t)PAGE_BYTES) - m->base_vaddr;
    if (m->span_bytes >= UINT32_MAX)
        return fail(o, BDBI_ETOOBIG, "spans more than 4 GB");
    return 0;
}

static int read_segments(struct opening *o, const Elf64_Ehdr *header)
{
    struct elf_module *m = o->m;
    m->segments = calloc(header->e_phnum, sizeof *m->segments);
    m->spans = calloc(header->e_phnum, sizeof *m->spans);
    m->constants = calloc(header->e_phnum, sizeof *m->constants);
    if (!m->segments || !m->spans || !m->constants)
        return fail(o, BDBI_ENOMEM, "out of memory");
    for (unsigned i = 0; i < header->e_phnum; i++) {
        Elf64_Phdr p;
        memcpy(&p, m->file + header->e_phoff + i * sizeof p, sizeof p);
        int error = p.p_type == PT_LOAD && p.p_memsz ? add_segment(o, &p) : 0;
        if (error)
            return error;
    }
    int error = check_segments(o);
    if (error)
        return error;
    for (uint32_t i = 0; i < m->nsegments; i++) {
        const struct elf_segment *s = &m->segments[i];
        uint32_t start = (uint32_t)(s->vaddr - m->base_vaddr);
        struct text_span bytes = {.start = start, .end = start + (uint32_t)s->file_bytes, .bytes = m->file + s->file_offset};
        if ((s->flags & PF_X) && s->file_bytes)
            m->spans[m->nspans++] = bytes;
        if ((s->flags & (PF_R | PF_W)) == PF_R && s->file_bytes && s->file_offset == start)
            m->constants[m->nconstants++] = bytes;
    }
    return 0;
}

static int read_interp(struct opening *o)
{
    Elf64_Phdr p;
    if (!elf_find_phdr(o->m, PT_INTERP, &p))
        return 0;
    const uint8_t *text = elf_file_at(o->m, p.p_offset, p.p_filesz);
    if (!text)
        return fail(o, BDBI_EFORMAT, "truncated: the interpreter's name is behind the end of the file");
    if (p.p_filesz < 2 || p.p_filesz > 4096 || text[p.p_filesz - 1])
        return fail(o, BDBI_EFORMAT, "malformed interpreter name");
    o->m->interp = strdup((const char *)text);
    return o->m->interp ? 0 : fail(o, BDBI_ENOMEM, "out of memory");
}

static char **string_place(struct elf_module *m, int64_t tag)
{
    switch (tag) {
    case DT_NEEDED:
        return &m->needed[m->nneeded];
    case DT_SONAME:
        return &m->soname;
    case DT_RPATH:
        return &m->rpath;
    case DT_RUNPATH:
        return &m->runpath;
    default:
        return NULL;
    }
}

static int read_dynamic(struct opening *o)
{
    struct elf_module *m = o->m;
    Elf64_Dyn entry;
    uint32_t count = 0;
    for (uint32_t i = 0; elf_dynamic_entry(m, i, &entry); i++)
        count += entry.d_tag == DT_NEEDED;
    m->needed = calloc(count + 1, sizeof *m->needed);
    if (!m->needed)
        return fail(o, BDBI_ENOMEM, "out of memory");
    for (uint32_t i = 0; elf_dynamic_entry(m, i, &entry); i++) {
        char **place = string_place(m, entry.d_tag);
        if (!place || *place)
            continue;
        const char *text = elf_dynamic_string(m, entry.d_un.d_val);
        if (!text)
            return fail(o, BDBI_EFORMAT, "malformed dynamic section: a name outside of the string table");
        *place = strdup(text);
        if (!*place)
            return fail(o, BDBI_ENOMEM, "out of memory");
        m->nneeded += entry.d_tag == DT_NEEDED;
    }
    return 0;
}

/* All symbols are bound at the start: then PT_GNU_RELRO has the procedure linkage table's pointers too. */
static bool binds_now(const struct elf_module *m)
{
    uint64_t flags;
    return elf_dynamic_value(m, DT_BIND_NOW, &flags) || (elf_dynamic_value(m, DT_FLAGS, &flags) && flags & DF_BIND_NOW) ||
           (elf_dynamic_value(m, DT_FLAGS_1, &flags) && flags & DF_1_NOW);
}

/* PT_GNU_RELRO of such a module, rounded as ld.so does: down at both ends. */
static void read_relro(struct elf_module *m)
{
    Elf64_Phdr p;
    if (!binds_now(m) || !elf_find_phdr(m, PT_GNU_RELRO, &p) || p.p_vaddr < m->base_vaddr || p.p_memsz > m->span_bytes ||
        p.p_vaddr - m->base_vaddr > m->span_bytes - p.p_memsz)
        return;
    uint64_t start = p.p_vaddr - m->base_vaddr;
    m->relro_start = (uint32_t)(start & -(uint64_t)PAGE_BYTES);
    m->relro_end = (uint32_t)((start + p.p_memsz) & -(uint64_t)PAGE_BYTES);
}

static int read_module(struct opening *o)
{
    Elf64_Ehdr header;
    int error = check_header(o, &header);
    if (error)
        return error;
    o->m->is_exec = header.e_type == ET_EXEC;
    o->m->align = PAGE_BYTES;
    o->m->entry = header.e_entry;
    error = read_segments(o, &header);
    if (!error)
        error = read_interp(o);
    if (!error)
        error = read_dynamic(o);
    if (!error)
        read_relro(o->m);
    return error;
}

static int system_error(struct opening *o, int number)
{
    int error = number == ENOENT || number == ENOTDIR  ? BDBI_ENOENT
                : number == EACCES || number == EPERM  ? BDBI_EACCES
                : number == ENOMEM || number == EMFILE ? BDBI_ENOMEM
                                                       : BDBI_EIO;
    return fail(o, error, "%s", strerror(number));
}

/* Maps the file at o->m->path whole. */
static int map_file(struct opening *o)
{
    int fd = open(o->m->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return system_error(o, errno);
    struct stat st;
    int error = 0;
    if (fstat(fd, &st) != 0)
        error = system_error(o, errno);
    else if (S_ISDIR(st.st_mode))
        error = fail(o, BDBI_EINVAL, "a directory");
    else if (!S_ISREG(st.st_mode))
        error = fail(o, BDBI_EFORMAT, "not a regular file");
    else if (st.st_size == 0)
        error = fail(o, BDBI_EFORMAT, "not an ELF file (empty)");
    if (!error) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            error = system_error(o, errno);
        } else {
            o->m->file = p;
            o->m->file_bytes = (size_t)st.st_size;
        }
    }
    close(fd);
    return error;
}

static int copy_image(struct opening *o, const void *bytes, size_t nbytes)
{
    if (!nbytes)
        return fail(o, BDBI_EFORMAT, "not an ELF file (empty)");
    void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return system_error(o, errno);
    memcpy(p, bytes, nbytes);
    o->m->file = p;
    o->m->file_bytes = nbytes;
    return 0;
}

static int open_common(const char *name, const void *bytes, size_t nbytes, struct elf_module **out, char *message,
                       size_t message_bytes)
{
    struct opening o = {.message = message, .message_bytes = message_bytes};
    *out = NULL;
    if (message_bytes)
        message[0] = 0;
    o.m = calloc(1, sizeof *o.m);
    if (o.m)
        o.m->path = strdup(name);
    if (!o.m || !o.m->path) {
        free(o.m);
        return -BDBI_ENOMEM;
    }
    int error = bytes ? copy_image(&o, bytes, nbytes) : map_file(&o);
    if (!error)
        error = read_module(&o);
    if (error) {
        elf_module_close(o.m);
        return error;
    }
    *out = o.m;
    return 0;
}

int elf_module_open(const char *path, struct elf_module **out, char *message, size_t message_bytes)
{
    return open_common(path, NULL, 0, out, message, message_bytes);
}

int elf_module_from_memory(const char *name, const void *bytes, size_t nbytes, struct elf_module **out, char *message,
                           size_t message_bytes)
{
    return open_common(name, bytes ? bytes : "", bytes ? nbytes : 0, out, message, message_bytes);
}

void elf_module_close(struct elf_module *m)
{
    if (!m)
        return;
    if (m->file)
        munmap((void *)m->file, m->file_bytes);
    for (uint32_t i = 0; i < m->nneeded; i++)
        free(m->needed[i]);
    free(m->needed);
    free(m->soname);
    free(m->rpath);
    free(m->runpath);
    free(m->interp);
    free(m->segments);
    free(m->spans);
    free(m->constants);
    free(m->path);
    free(m);
}
