/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz [rounds]: random bytes, prefix-heavy bytes and mutated code through the decoder, jit_explore and jit_translate, with
 * random spans, leaders, bases and distances. Nothing may crash (build with BDBI_ASAN for the rest), blocks and maps must be
 * well formed, and every instruction the decoder accepts must have parts inside its length.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdbi/tool.h"
#include "launcher/context.h"
#include "support.h"

#define MAX_BYTES 600

static uint64_t seed = 42;
static unsigned failures;

static uint32_t below(uint32_t n)
{
    return (uint32_t)(next_random(&seed) % n);
}

static void fail(const char *what)
{
    if (failures++ < 20)
        printf("FAIL: %s\n", what);
}

static void random_bytes(uint8_t *bytes, size_t n)
{
    static const uint8_t common[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x3e, 0x64, 0x65, 0x48, 0x41, 0x4f, 0x0f, 0xc4,
                                     0xc5, 0x62, 0x8f, 0xe8, 0xe9, 0xeb, 0x74, 0xe3, 0xff, 0x15, 0x25, 0x05, 0xc3, 0xc7,
                                     0xf8, 0x8d, 0x38, 0x3a, 0x90, 0xcc, 0xd5, 0x00, 0xff, 0x80, 0x0b, 0xcd, 0xb1};

    for (size_t i = 0; i < n; i++)
        bytes[i] = below(3) ? common[below(sizeof(common))] : (uint8_t)next_random(&seed);
}

/* What compilers make: short branches over some copied instructions, padding, calls. LEADERS gets instructions' starts, from
 * OFFSET on; returns how many. */
static uint32_t plausible_code(uint8_t *bytes, uint32_t n, uint32_t offset, uint32_t *leaders)
{
    static const struct {
        uint8_t length, bytes[8];
    } menu[] = {{2, {0x89, 0xc8}},
                {3, {0x48, 0x01, 0xc8}},
                {4, {0x48, 0x8b, 0x43, 0x10}},
                {7, {0x48, 0x8d, 0x05, 0x10, 0x20, 0x00, 0x00}},
                {2, {0x74, 0}},
                {2, {0x75, 0}},
                {2, {0x7c, 0}},
                {2, {0xeb, 0}},
                {5, {0xe9, 0x40, 0x00, 0x00, 0x00}},
                {5, {0xe9, 0x00, 0x10, 0x00, 0x00}},
                {6, {0x0f, 0x84, 0x00, 0x10, 0x00, 0x00}},
                {5, {0xe8, 0x00, 0x10, 0x00, 0x00}},
                {1, {0xc3}},
                {2, {0xff, 0xe0}},
                {1, {0x90}},
                {4, {0x0f, 0x1f, 0x40, 0x00}},
                {7, {0xff, 0x24, 0xc5, 0x00, 0x10, 0x00, 0x00}}};
    uint32_t at = 0, count = 0, often = 1 + below(6), plain = below(20);

    while (at < n) {
        unsigned k = below(plain + 1) ? below(4) : below(sizeof(menu) / sizeof(menu[0]));
        uint32_t length = menu[k].length < n - at ? menu[k].length : n - at;
        memcpy(bytes + at, menu[k].bytes, length);
        if (length == 2 && menu[k].bytes[0] >= 0x70)
            bytes[at + 1] = (uint8_t)(below(4) ? below(100) : next_random(&seed));
        if (below(often) == 0)
            leaders[count++] = offset + at;
        at += length;
    }
    return count;
}

static void check_insn(const struct insn *i, size_t left)
{
    if (i->length == 0 || i->length > 15 || i->length > left)
        fail("length");
    if (i->class != INSN_UNSUPPORTED && i->modrm_offset >= i->length)
        fail("modrm_offset");
    if (i->rip_relative && (i->disp_offset != i->modrm_offset + 1 || i->disp_offset + 4 > i->length))
        fail("disp_offset");
    if (i->class > INSN_UNSUPPORTED || (i->class == INSN_UNSUPPORTED) != (i->event != 0))
        fail("class");
}

static void fuzz_decoder(struct decoder *d)
{
    size_t n = 1 + below(16);
    uint8_t *bytes = malloc(n); /* just so large: AddressSanitizer sees a read past it */
    struct insn i;
    char text[64];

    random_bytes(bytes, n);
    if (insn_decode(d, bytes, n, next_random(&seed), &i) == 0)
        check_insn(&i, n);
    insn_format(d, bytes, n, 0, text, 1 + below(sizeof(text)));
    free(bytes);
}

static void weave(struct bdbi_block *block)
{
    for (uint64_t n = bdbi_block_offset(block) % 3; n; n--)
        bdbi_block_count(block, bdbi_block_instructions(block) + bdbi_block_ends_in_transfer(block));
}

static const struct bdbi_tool tool = {.name = "fuzz", .weave = weave};

static int64_t resolve(void *user, uint32_t offset)
{
    (void)user;
    return offset % 5 ? 0 : (int64_t)(int32_t)(offset * 2654435761u);
}

static void check_output(const struct jit_unit *unit, const struct jit_output *out)
{
    if (out->nblocks != unit->nleaders)
        fail("number of blocks");
    for (uint32_t n = 0; n < out->nblocks; n++) {
        size_t code = out->blocks[n].code_offset, map = image_map_offset(&out->blocks[n]);
        size_t end = n + 1 < out->nblocks ? out->blocks[n + 1].code_offset : out->code_bytes;
        size_t map_end = n + 1 < out->nblocks ? image_map_offset(&out->blocks[n + 1]) : out->map_bytes;
        bool landing = n + 1 < out->nblocks && out->blocks[n + 1].map_offset & IMAGE_LANDING;

        while (map < map_end && out->map[map] != MAP_END) {
            uint8_t entry = out->map[map++];
            if (entry & MAP_PIECE) {
                code += out->map[map++];
                map += (entry & MAP_OTHER) != 0;
            } else if (!(entry & MAP_ADVANCE)) {
                code += entry;
            }
        }
        if (map + 1 != map_end)
            fail("a block's map does not end where the next begins");
        if (landing && code + BDBI_LANDING_BYTES <= end) {
            end -= BDBI_LANDING_BYTES;
            while (end > code && out->code[end - 1] == 0xcc) /* a function is aligned */
                end--;
        }
        /* The last block may have exits behind it. */
        if (code > end || (n + 1 < out->nblocks && code != end))
            fail("a block's map does not cover its code");
    }
}

static void fuzz_unit(struct jit *j)
{
    struct text_span spans[3];
    uint32_t leaders[MAX_BYTES * 3], nleaders = 0, at = below(0x1000);
    struct jit_unit unit = {.spans = spans, .nspans = 1 + below(3), .leaders = leaders};
    struct jit_output out;

    for (uint32_t i = 0; i < unit.nspans; i++) {
        uint32_t n = 1 + below(below(4) ? MAX_BYTES : 20);
        uint8_t *bytes = malloc(n);

        at += below(2) ? 0 : below(100);
        spans[i] = (struct text_span){at, at + n, bytes};
        if (below(2)) {
            nleaders += plausible_code(bytes, n, at, leaders + nleaders);
        } else {
            random_bytes(bytes, n);
            for (uint32_t k = 0; k < n; k++)
                if (below(20) == 0)
                    leaders[nleaders++] = at + k;
        }
        at += n;
    }
    unit.nleaders = nleaders;
    unit.fixed_base = below(2) ? 0 : next_random(&seed) >> (17 + below(30)) & ~0xfffull;
    unit.code_distance =
        below(2) ? BDBI_CODE_DISTANCE : (int64_t)next_random(&seed) >> ((unit.fixed_base ? 8 : 32) + below(20));
    unit.data_distance = (uint64_t)unit.code_distance + below(0x1000);
    unit.linked = unit.fixed_base && below(2);
    unit.anonymous = below(2);
    unit.tool = below(2) ? &tool : NULL;
    unit.resolve = below(2) ? resolve : NULL;
    if (jit_translate(j, &unit, &out) != 0) {
        fail("jit_translate");
    } else {
        check_output(&unit, &out);
        jit_output_free(&out);
    }
    if (nleaders) {
        uint32_t found[32], max = 1 + below(32);
        uint32_t n = jit_explore(j, spans, unit.nspans, leaders[0], max, unit.resolve, NULL, found);
        bool has_start = false;

        for (uint32_t i = 0; i < n; i++) {
            has_start |= found[i] == leaders[0];
            if (i && found[i] <= found[i - 1])
                fail("jit_explore does not ascend");
        }
        if (n < 1 || n > max || !has_start)
            fail("jit_explore");
    }
    for (uint32_t i = 0; i < unit.nspans; i++)
        free((void *)spans[i].bytes);
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 20000;
    struct jit *j = jit_new();

    if (!j)
        return 2;
    for (unsigned i = 0; i < rounds && failures < 100; i++) {
        for (unsigned k = 0; k < 40; k++)
            fuzz_decoder(jit_decoder(j));
        fuzz_unit(j);
    }
    printf("%u rounds, %u failures\n", rounds, failures);
    jit_free(j);
    return failures ? 1 : 0;
}
