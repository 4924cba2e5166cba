/* SPDX-License-Identifier: Apache-2.0
 *
 * golden OBJECT EXPECTED [update]: translates the .text of an object file and compares a dump of the result with a text file.
 *
 * The input is assembly (tests/jit/golden/NAME.s), the expectation a disassembly with the address map beside it (NAME.txt).
 * What is not instructions is said by symbols of the input: any label in .text   a leader (.text is at module offset 0x1000)
 *   .set base, N         unit.fixed_base          .set distance, N   unit.code_distance
 *   .set linked, 1       unit.linked               .set anonymous, 1 unit.anonymous
 *   .set tool, 1         a tool counts each block .set known_X, N    the block at offset X is translated, at distance N
 *   .set tool, 2         a tool counts it twice, by its bytes, and marks it twice
 *   .set gap, N          the text's last N bytes are not there
 *   .set checked, 1      others may write the text
 *   .set constants, 1    .text is constant: jumps through tables in it
 *   .set relro, N        pointers from offset N on, a page of them, stay as ld.so leaves them: jumps through them can be linked
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdbi/tool.h"
#include "launcher/context.h"
#include "support.h"

#define TEXT_OFFSET 0x1000
#define MAX_SYMBOLS 64

struct known {
    uint32_t offset;
    int64_t distance;
};

struct input {
    struct text_span span;
    uint32_t leaders[MAX_SYMBOLS];
    uint32_t nleaders;
    struct known known[MAX_SYMBOLS];
    uint32_t nknown;
    uint64_t base;
    int64_t distance;
    uint64_t tool, linked, anonymous;
    uint32_t gap;
    bool constants, checked;
    uint32_t relro;
    uint32_t ran[MAX_SYMBOLS], nran, data;
};

static void weave(struct bdbi_block *block)
{
    bdbi_block_count(block, bdbi_block_instructions(block) << 1 | bdbi_block_ends_in_transfer(block));
}

static void weave_marks(struct bdbi_block *block)
{
    bdbi_block_mark(block, bdbi_block_offset(block));
    bdbi_block_count(block, bdbi_block_bytes(block));
    bdbi_block_mark(block, 1);
    bdbi_block_count(block, 2);
}

static const struct bdbi_tool marking = {.name = "golden", .weave = weave_marks};
static const struct bdbi_tool counting = {.name = "golden", .weave = weave};

static int64_t resolve(void *user, uint32_t offset)
{
    const struct input *in = user;

    for (uint32_t i = 0; i < in->nknown; i++)
        if (in->known[i].offset == offset)
            return in->known[i].distance;
    return 0;
}

static void read_setting(struct input *in, const char *name, uint64_t value)
{
    if (!strcmp(name, "base"))
        in->base = value;
    else if (!strcmp(name, "distance"))
        in->distance = (int64_t)value;
    else if (!strcmp(name, "tool"))
        in->tool = value;
    else if (!strcmp(name, "constants"))
        in->constants = value;
    else if (!strcmp(name, "linked"))
        in->linked = value;
    else if (!strcmp(name, "anonymous"))
        in->anonymous = value;
    else if (!strcmp(name, "checked"))
        in->checked = value;
    else if (!strcmp(name, "relro"))
        in->relro = (uint32_t)value;
    else if (!strcmp(name, "gap"))
        in->gap = (uint32_t)value;
    else if (!strcmp(name, "data"))
        in->data = (uint32_t)value;
    else if (!strncmp(name, "ran_", 4))
        in->ran[in->nran++] = (uint32_t)value;
    else if (!strncmp(name, "known_", 6))
        in->known[in->nknown++] = (struct known){(uint32_t)strtoul(name + 6, NULL, 16), (int64_t)value};
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void read_input(struct input *in, const char *path)
{
    static struct module m;
    const Elf64_Ehdr *eh;
    const Elf64_Shdr *sh, *symtab = NULL, *text = NULL;
    const char *names;

    module_read(&m, path);
    eh = (const Elf64_Ehdr *)m.file;
    sh = (const Elf64_Shdr *)(m.file + eh->e_shoff);
    names = (const char *)m.file + sh[eh->e_shstrndx].sh_offset;
    for (unsigned i = 0; i < eh->e_shnum; i++) {
        if (sh[i].sh_type == SHT_SYMTAB)
            symtab = &sh[i];
        if (!strcmp(names + sh[i].sh_name, ".text"))
            text = &sh[i];
    }
    *in = (struct input){.distance = BDBI_CODE_DISTANCE};
    for (size_t i = 1; symtab && i < symtab->sh_size / sizeof(Elf64_Sym); i++) {
        const Elf64_Sym *s = (const Elf64_Sym *)(m.file + symtab->sh_offset) + i;
        const char *name = (const char *)m.file + sh[symtab->sh_link].sh_offset + s->st_name;
        if (ELF64_ST_TYPE(s->st_info) == STT_SECTION || ELF64_ST_TYPE(s->st_info) == STT_FILE)
            continue;
        if (s->st_shndx == SHN_ABS)
            read_setting(in, name, s->st_value);
        else if (s->st_shndx == text - sh)
            in->leaders[in->nleaders++] = TEXT_OFFSET + (uint32_t)s->st_value;
    }
    qsort(in->leaders, in->nleaders, sizeof(in->leaders[0]), by_value);
    in->span = (struct text_span){TEXT_OFFSET, TEXT_OFFSET + (uint32_t)text->sh_size - in->gap, m.file + text->sh_offset};
}

/* Addresses in a dump: of code, from its start; of the app, from the module's base. */
static void print_address(FILE *f, const struct input *in, const struct jit_output *out, int64_t address)
{
    int64_t offset = (int64_t)((uint64_t)address - in->base), code = offset - in->distance;

    if (code >= 0 && code < (int64_t)out->code_bytes)
        fprintf(f, "  -> code+%llx", (unsigned long long)code);
    else
        fprintf(f, "  -> %s%llx", offset < 0 ? "-" : "", (unsigned long long)(offset < 0 ? -offset : offset));
}

/* One instruction of code; returns its length. */
static unsigned print_insn(FILE *f, struct decoder *d, const struct input *in, const struct jit_output *out, size_t at,
                           const char *what)
{
    uint64_t pc = in->base + (uint64_t)in->distance + at;
    struct insn i;
    char text[128];

    if (insn_decode(d, out->code + at, out->code_bytes - at, pc, &i) != 0 && at < out->code_bytes) {
        fprintf(f, "  %3zx  %-16s  (bad)\n", at, what);
        return 1;
    }
    /* gs is what rules use, and an event for app code: the bytes are fine all the same. */
    insn_format(d, out->code + at, out->code_bytes - at, pc, text, sizeof(text));
    fprintf(f, "  %3zx  %-16s  %s", at, what, text);
    if (i.target)
        print_address(f, in, out, i.target);
    else if (i.rip_relative)
        print_address(f, in, out, i.rip_target);
    fputc('\n', f);
    return i.length;
}

/* What is in no block's map, [AT, END): padding on one line. */
static void print_out_of_line(FILE *f, struct decoder *d, const struct input *in, const struct jit_output *out, size_t at,
                              size_t end)
{
    while (at < end) {
        size_t padding = at;

        while (padding < end && out->code[padding] == 0xcc)
            padding++;
        if (padding > at + 1) {
            fprintf(f, "  %3zx  %-16s  int3, %zu times\n", at, "out of line", padding - at);
            at = padding;
        } else {
            at += print_insn(f, d, in, out, at, "out of line");
        }
    }
}

static void describe_state(const uint8_t *entry, char *text)
{
    sprintf(text, "piece%s%s", *entry & MAP_RAX ? " rax" : "", *entry & MAP_RCX ? " rcx" : "");
    if (*entry & MAP_OTHER)
        sprintf(text + strlen(text), " r%u", entry[2] >> 4);
    if (*entry & MAP_FORWARD)
        strcat(text, " fwd");
}

static void print_block(FILE *f, struct decoder *d, const struct input *in, const struct jit_output *out, uint32_t n)
{
    size_t at = out->blocks[n].code_offset;
    size_t end = out->tables_offset;
    const uint8_t *map = out->map + image_map_offset(&out->blocks[n]);
    char what[64];

    for (uint32_t i = 0; i < out->nblocks; i++)
        if (out->blocks[i].code_offset > at && out->blocks[i].code_offset < end)
            end = out->blocks[i].code_offset;
    fprintf(f, "block %x%s\n", out->blocks[n].app_offset, out->blocks[n].map_offset & IMAGE_LANDING ? " landing" : "");
    while (*map != MAP_END) {
        if (*map & MAP_PIECE) {
            size_t piece_end = at + map[1];
            describe_state(map, what);
            while (at < piece_end)
                at += print_insn(f, d, in, out, at, what);
            if (at != piece_end)
                fprintf(f, "  piece ends inside an instruction\n");
            map += *map & MAP_OTHER ? 3 : 2;
        } else if (*map & MAP_ADVANCE) {
            fprintf(f, "       advance %u\n", *map++ & 0xf);
        } else {
            sprintf(what, "copy %u", *map);
            print_insn(f, d, in, out, at, what);
            at += *map++;
        }
    }
    print_out_of_line(f, d, in, out, at, end);
}

static void print_output(FILE *f, struct decoder *d, const struct input *in, const struct jit_output *out)
{
    if (out->nblocks)
        print_out_of_line(f, d, in, out, 0, out->blocks[out->order ? out->order[0] : 0].code_offset);
    for (uint32_t i = 0; i < out->nblocks; i++)
        print_block(f, d, in, out, out->order ? out->order[i] : i);
    for (size_t at = out->tables_offset; at + 4 <= out->code_bytes - out->nlinks * sizeof(struct image_link); at += 4) {
        uint32_t value;
        memcpy(&value, out->code + at, 4);
        fprintf(f, "  %3zx  %-16s  %08x\n", at, "table", value);
    }
    for (uint32_t i = 0; i < out->nlinks; i++) {
        struct image_link link;
        memcpy(&link, out->code + out->code_bytes - (out->nlinks - i) * sizeof link, sizeof link);
        fprintf(f, "link at %x: pointer %x\n", link.at, link.pointer);
    }
    if (out->relro_start != out->relro_end)
        fprintf(f, "relro %x to %x\n", out->relro_start, out->relro_end);
    if (out->constants_start != out->constants_end)
        fprintf(f, "constants %x to %x\n", out->constants_start, out->constants_end);
    for (uint32_t i = 0; i < out->nunresolved; i++)
        fprintf(f, "unresolved %x\n", out->unresolved[i]);
    for (uint32_t i = 0; i < out->ncounters; i++)
        fprintf(f, "counter %u: %llu\n", i, (unsigned long long)out->counters[i].info);
    for (uint32_t i = 0; i < out->nmarks; i++)
        fprintf(f, "mark %u: %llx\n", i, (unsigned long long)out->counters[out->ncounters + i].info);
    if (out->order)
        fprintf(f, "the first %u counters and %u marks have run\n", out->ran_counters, out->ran_marks);
    fprintf(f, "%u instructions, %u undecodable\n", out->ninsns, out->nundecodable);
}

/* Compares line by line and shows the first difference. */
static int compare(const char *got, const char *path)
{
    FILE *f = fopen(path, "r");
    char line[512];
    unsigned number = 0;

    if (!f) {
        printf("%s: no such file; got:\n%s", path, got);
        return 1;
    }
    while (fgets(line, sizeof(line), f)) {
        size_t n = strlen(line);
        number++;
        if (strncmp(got, line, n) != 0) {
            printf("%s:%u: expected %sgot %.*s\n", path, number, line, (int)strcspn(got, "\n"), got);
            fclose(f);
            return 1;
        }
        got += n;
    }
    fclose(f);
    if (*got)
        printf("%s: more than expected: %s", path, got);
    return *got != 0;
}

int main(int argc, char **argv)
{
    struct jit *j = jit_new();
    struct input in;
    struct jit_unit unit;
    struct jit_output out;
    char *text;
    size_t text_bytes;
    FILE *f;
    int result = 0;

    if (argc < 3 || !j)
        return 2;
    read_input(&in, argv[1]);
    unit = (struct jit_unit){.spans = &in.span,
                             .nspans = 1,
                             .leaders = in.leaders,
                             .nleaders = in.nleaders,
                             .checked = in.checked,
                             .constants = in.constants ? &in.span : NULL,
                             .nconstants = in.constants,
                             .relro_start = in.relro,
                             .relro_end = in.relro ? in.relro + 0x1000 : 0,
                             .code_distance = in.distance,
                             .data_distance = (uint64_t)in.distance,
                             .data_address = in.data,
                             .ran = in.ran,
                             .nran = in.nran,
                             .fixed_base = in.base,
                             .linked = in.linked,
                             .anonymous = in.anonymous,
                             .resolve = resolve,
                             .user = &in,
                             .tool = in.tool == 2 ? &marking
                                     : in.tool    ? &counting
                                                  : NULL};
    if (jit_translate(j, &unit, &out) != 0)
        return 2;
    f = open_memstream(&text, &text_bytes);
    print_output(f, jit_decoder(j), &in, &out);
    fclose(f);
    if (argc > 3) {
        f = fopen(argv[2], "w");
        if (!f || fputs(text, f) < 0 || fclose(f) != 0)
            return 2;
    } else {
        result = compare(text, argv[2]);
    }
    free(text);
    jit_output_free(&out);
    jit_free(j);
    return result;
}
