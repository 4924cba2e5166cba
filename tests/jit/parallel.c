/* SPDX-License-Identifier: Apache-2.0
 *
 * parallel LIBRARY: one thread and several give the same bytes, with and without a tool; prints how long one takes.
 */
#include <stdio.h>
#include <string.h>

#include "bdbi/tool.h"
#include "support.h"

static void weave(struct bdbi_block *block)
{
    bdbi_block_count(block, bdbi_block_offset(block) << 16 | bdbi_block_instructions(block));
    if (bdbi_block_bytes(block) % 3)
        bdbi_block_mark(block, bdbi_block_bytes(block));
}

static const struct bdbi_tool counting = {.name = "test", .weave = weave};

static bool same(const char *what, const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    if (a_bytes == b_bytes && memcmp(a, b, a_bytes) == 0)
        return true;
    printf("FAIL: %s differ (%zu and %zu bytes)\n", what, a_bytes, b_bytes);
    return false;
}

static bool same_output(const struct jit_output *a, const struct jit_output *b)
{
    return same("code", a->code, a->code_bytes, b->code, b->code_bytes) &
           same("map", a->map, a->map_bytes, b->map, b->map_bytes) &
           same("blocks", a->blocks, a->nblocks * sizeof(*a->blocks), b->blocks, b->nblocks * sizeof(*b->blocks)) &
           same("counters and marks", a->counters, (a->ncounters + a->nmarks) * sizeof(*a->counters), b->counters,
                (b->ncounters + b->nmarks) * sizeof(*b->counters)) &
           same("unresolved", a->unresolved, a->nunresolved * sizeof(*a->unresolved), b->unresolved,
                b->nunresolved * sizeof(*b->unresolved)) &
           (a->ninsns == b->ninsns) & (a->nundecodable == b->nundecodable);
}

int main(int argc, char **argv)
{
    struct jit *j = jit_new();
    struct module m;
    bool ok = argc == 2 && j;

    if (!ok)
        return 2;
    module_read(&m, argv[1]);
    module_sweep(&m, jit_decoder(j));
    for (int with_tool = 0; with_tool < 2 && ok; with_tool++) {
        struct jit_unit unit = module_unit(&m);
        struct jit_output one, many;
        double t0, t1, t2;

        unit.tool = with_tool ? &counting : NULL;
        t0 = seconds_now();
        if (jit_translate(j, &unit, &one) != 0)
            return 1;
        t1 = seconds_now();
        if (jit_translate_parallel(&unit, 3, &many) != 0)
            return 1;
        t2 = seconds_now();
        printf("%s: %u leaders, %u instructions, %u undecodable, %zu bytes of code, %zu of map, %u counters; %.3f s, 3 threads "
               "%.3f s\n",
               with_tool ? "tool" : "no tool", one.nblocks, one.ninsns, one.nundecodable, one.code_bytes, one.map_bytes,
               one.ncounters, t1 - t0, t2 - t1);
        ok = same_output(&one, &many) && one.nblocks == m.nleaders;
        jit_output_free(&one);
        jit_output_free(&many);
    }
    module_free(&m);
    jit_free(j);
    return ok ? 0 : 1;
}
