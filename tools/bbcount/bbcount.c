/* SPDX-License-Identifier: Apache-2.0
 *
 * bbcount: executed basic blocks and instructions, total and by module.
 *
 * One counter a block. A block that ends only because the next instruction is a branch target is not a basic block of its own:
 * its instructions count, the block does not, so the totals do not depend on how the program was cut (ahead of time, JIT,
 * learned).
 */
#include <bdbi/tool.h>

#define ENDS_IN_TRANSFER (1ull << 63)

static void weave(struct bdbi_block *block)
{
    uint64_t info = bdbi_block_instructions(block);
    if (bdbi_block_ends_in_transfer(block))
        info |= ENDS_IN_TRANSFER;
    if (info)
        bdbi_block_count(block, info);
}

struct totals {
    struct bdbi_run *run;
    uint64_t blocks, instructions;
    uint64_t module_blocks, module_instructions;
    uint32_t module_index;
    bool any;
    char module[512];
};

static size_t put_string(char *out, const char *s, size_t room)
{
    size_t n = 0;
    for (; s[n] && n < room; n++)
        out[n] = s[n];
    return n;
}

static size_t put_number(char *out, uint64_t value)
{
    char digits[24];
    size_t n = 0, length = 0;
    do
        digits[n++] = (char)('0' + value % 10);
    while ((value /= 10));
    while (n > 0)
        out[length++] = digits[--n];
    return length;
}

static void write_line(struct bdbi_run *run, const char *module, uint64_t blocks, uint64_t instructions)
{
    char line[640];
    size_t n = 0;
    if (module) {
        n += put_string(line + n, "module ", 8);
        n += put_string(line + n, module, 512);
        n += put_string(line + n, " ", 2);
    }
    n += put_string(line + n, "blocks ", 8);
    n += put_number(line + n, blocks);
    n += put_string(line + n, module ? " " : "\n", 2);
    n += put_string(line + n, "instructions ", 14);
    n += put_number(line + n, instructions);
    line[n++] = '\n';
    bdbi_run_write(run, line, n);
}

static void flush_module(struct totals *t)
{
    if (t->any)
        write_line(t->run, t->module, t->module_blocks, t->module_instructions);
    t->module_blocks = t->module_instructions = 0;
}

static void add(const struct bdbi_counter *c, void *user)
{
    struct totals *t = user;
    if (!t->any || t->module_index != c->module_index) {
        flush_module(t);
        t->module[put_string(t->module, c->module, sizeof t->module - 1)] = 0;
        t->module_index = c->module_index;
        t->any = true;
    }
    uint64_t instructions = c->count * (c->info & ~ENDS_IN_TRANSFER);
    uint64_t blocks = c->info & ENDS_IN_TRANSFER ? c->count : 0;
    t->module_instructions += instructions;
    t->module_blocks += blocks;
    t->instructions += instructions;
    t->blocks += blocks;
}

/* One pass: other threads may still be counting, and the totals must be the sum of what was written. */
static void report(struct bdbi_run *run)
{
    struct totals t = {.run = run};
    bdbi_run_counters(run, add, &t);
    flush_module(&t);
    write_line(run, NULL, t.blocks, t.instructions);
}

const struct bdbi_tool bdbi_tool_main = {
    .abi = BDBI_TOOL_ABI,
    .version = 1,
    .name = "bbcount",
    .help = "executed basic blocks and instructions, total and by module",
    .weave = weave,
    .report = report,
};
