/* SPDX-License-Identifier: Apache-2.0
 *
 * bbcov: which basic blocks ran, as drcov files say it (version 2), which coverage viewers read.
 *
 *   DRCOV VERSION: 2
 *   DRCOV FLAVOR: drcov-64
 *   Module Table: version 2, count N
 *   Columns: id, base, end, entry, path
 *     0, 0x..., 0x..., 0x..., /path
 *   BB Table: N bbs
 *   binary: { uint32_t start; uint16_t size; uint16_t module; } each, start from the module's base
 *   text:   module id, start, size:
 *           module[  0]: 0x0000000000001000,  12
 *
 * One store a block. Blocks that overlap or that one run cut in two are written as they are: which bytes ran does not depend on
 * it. Code without a file is in no module, and is left out.
 */
#include <bdbi/tool.h>
#include <string.h>

#define MOST_BYTES 0xffff   /* that an entry can say */
#define MOST_MODULES 0xffff /* the same */
#define BYTES_BITS 20       /* a block has 65,536 instructions at most */

static void weave(struct bdbi_block *block)
{
    bdbi_block_mark(block, bdbi_block_offset(block) << BYTES_BITS | bdbi_block_bytes(block));
}

struct cursor {
    struct bdbi_run *run;
    uint64_t entries;
    bool text;
};

static size_t length(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

static size_t put_string(char *out, const char *s)
{
    size_t n = length(s);
    memcpy(out, s, n);
    return n;
}

/* VALUE in at least WIDTH digits, FILL before it. */
static size_t put_number(char *out, uint64_t value, unsigned base, unsigned width, char fill)
{
    char digits[24];
    size_t n = 0, used = 0;
    do
        digits[n++] = "0123456789abcdef"[value % base];
    while ((value /= base) && n < sizeof digits);
    while (n < width && n < sizeof digits)
        digits[n++] = fill;
    while (n > 0)
        out[used++] = digits[--n];
    return used;
}

static size_t put_address(char *out, uint64_t value)
{
    size_t n = put_string(out, "0x");
    return n + put_number(out + n, value, 16, 16, '0');
}

static void write_module(const struct bdbi_module *m, void *user)
{
    struct cursor *c = user;
    char line[128];
    size_t n = put_number(line, m->index, 10, 3, ' ');
    if (m->index >= MOST_MODULES)
        return;
    n += put_string(line + n, ", ");
    n += put_address(line + n, m->start);
    n += put_string(line + n, ", ");
    n += put_address(line + n, m->end);
    n += put_string(line + n, ", ");
    n += put_address(line + n, 0);
    n += put_string(line + n, ", ");
    bdbi_run_write(c->run, line, n);
    bdbi_run_write(c->run, m->path, length(m->path));
    bdbi_run_write(c->run, "\n", 1);
}

static void write_entry(struct cursor *c, uint32_t module, uint64_t start, uint32_t bytes)
{
    struct {
        uint32_t start;
        uint16_t bytes, module;
    } entry = {(uint32_t)start, (uint16_t)bytes, (uint16_t)module};
    char line[64];
    size_t n;
    if (!c->text) {
        bdbi_run_write(c->run, (const char *)&entry, sizeof entry);
        return;
    }
    n = put_string(line, "module[");
    n += put_number(line + n, module, 10, 3, ' ');
    n += put_string(line + n, "]: ");
    n += put_address(line + n, start);
    n += put_string(line + n, ", ");
    n += put_number(line + n, bytes, 10, 3, ' ');
    line[n++] = '\n';
    bdbi_run_write(c->run, line, n);
}

static uint32_t entries_of(const struct bdbi_mark *m)
{
    uint32_t bytes = m->info & ((1u << BYTES_BITS) - 1);
    return m->module_index < MOST_MODULES ? (bytes + MOST_BYTES - 1) / MOST_BYTES : 0;
}

static void count_entries(const struct bdbi_mark *m, void *user)
{
    struct cursor *c = user;
    c->entries += entries_of(m);
}

static void write_mark(const struct bdbi_mark *m, void *user)
{
    uint64_t start = m->info >> BYTES_BITS;
    uint32_t bytes = m->info & ((1u << BYTES_BITS) - 1);
    for (uint32_t n = entries_of(m); n > 0; n--) {
        uint32_t part = bytes < MOST_BYTES ? bytes : MOST_BYTES;
        write_entry(user, m->module_index, start, part);
        start += part;
        bytes -= part;
    }
}

static void write_heading(struct cursor *c, const char *before, uint64_t number, const char *after)
{
    char line[128];
    size_t n = put_string(line, before);
    n += put_number(line + n, number, 10, 1, ' ');
    n += put_string(line + n, after);
    bdbi_run_write(c->run, line, n);
}

static bool wants_text(const struct bdbi_run *run)
{
    size_t bytes;
    const char *format = bdbi_run_option(run, "format", &bytes);
    if (format)
        return bytes == 4 && memcmp(format, "text", 4) == 0;
    return !bdbi_run_option(run, "out", &bytes); /* a terminal */
}

static void report(struct bdbi_run *run)
{
    struct cursor c = {.run = run, .text = wants_text(run)};
    uint32_t modules = bdbi_run_modules(run, NULL, NULL);
    bdbi_run_marks(run, count_entries, &c);
    write_heading(&c, "DRCOV VERSION: 2\nDRCOV FLAVOR: drcov-64\nModule Table: version 2, count ",
                  modules < MOST_MODULES ? modules : MOST_MODULES, "\nColumns: id, base, end, entry, path\n");
    bdbi_run_modules(run, write_module, &c);
    write_heading(&c, "BB Table: ", c.entries, c.text ? " bbs\nmodule id, start, size:\n" : " bbs\n");
    bdbi_run_marks(run, write_mark, &c);
}

const struct bdbi_tool bdbi_tool_main = {
    .abi = BDBI_TOOL_ABI,
    .version = 1,
    .name = "bbcov",
    .help = "executed basic blocks, as a drcov file; format=text|binary",
    .report_options = "format",
    .weave = weave,
    .report = report,
};
