/* SPDX-License-Identifier: Apache-2.0
 *
 * Images: built and found whole again, every lookup right; damaged in one bit of header or table and found out, or harmless.
 */
#include "cachedb/cachedb.h"
#include "include/internal/error.h"
#include "jit/jit.h"
#include "tests/cachedb/test.h"

#define SPAN 70000
#define RELRO_START 0x8000
#define RELRO_END 0x9000

/* Behind the blocks' code, which ends anywhere where there are no links. */
static void make_links(struct jit_output *o)
{
    struct image_link *links = (struct image_link *)(o->code + o->code_bytes) - o->nlinks;
    for (uint32_t i = 0; i < o->nlinks; i++)
        links[i] = (struct image_link){20 * i + 7, RELRO_END - 8 * (i + 1)};
    o->relro_start = RELRO_START;
    o->relro_end = RELRO_END;
}

static void make_code(struct jit_output *o, uint32_t nblocks, uint64_t *state)
{
    static const uint8_t map[] = {0x03, 0x01, MAP_PIECE | MAP_RCX, 9,      MAP_PIECE | MAP_OTHER | MAP_FORWARD,
                                  5,    0x60, MAP_ADVANCE | 5,     MAP_END};
    uint32_t at = (uint32_t)(test_random(state) % 300);
    memset(o, 0, sizeof *o);
    o->nblocks = nblocks;
    o->blocks = calloc(nblocks, sizeof *o->blocks);
    o->map_bytes = sizeof map * nblocks;
    o->map = malloc(o->map_bytes);
    o->nlinks = nblocks % 3 == 2 ? nblocks / 4 : 0;
    o->code_bytes = 20 * nblocks + (o->nlinks ? 20 * nblocks % 8 + 8 * o->nlinks : 3);
    o->code = malloc(o->code_bytes);
    o->ncounters = nblocks / 2;
    o->nmarks = nblocks / 3;
    o->counters = calloc(o->ncounters + o->nmarks + 1, sizeof *o->counters);
    o->nran = nblocks % 2 ? 0 : nblocks / 2;
    o->order = calloc(nblocks, sizeof *o->order);
    o->owners = calloc(o->ncounters + o->nmarks + 1, sizeof *o->owners);
    CHECK(o->blocks && o->map && o->code && o->counters && o->owners && o->order);
    memset(o->code, 0x90, o->code_bytes);
    if (o->nlinks)
        make_links(o);
    for (uint32_t i = 0; i < nblocks; i++) {
        CHECK(at < SPAN);
        uint32_t place = o->nran ? (i + nblocks / 3) % nblocks : i; /* in the code */
        o->order[place] = i;
        o->blocks[i] = (struct image_block){at, 20 * place, (uint32_t)(sizeof map * i)};
        memcpy(o->map + sizeof map * i, map, sizeof map);
        at += 1 + (uint32_t)(test_random(state) % (i % 50 ? 20 : 700));
    }
    for (uint32_t i = 0; i < o->ncounters + o->nmarks; i++) {
        o->counters[i].info = test_random(state);
        o->owners[i] = (uint32_t)(test_random(state) % nblocks);
    }
}

static void free_code(struct jit_output *o)
{
    free(o->blocks);
    free(o->map);
    free(o->code);
    free(o->counters);
    free(o->owners);
    free(o->order);
}

static void check_round_trip(uint32_t nblocks, uint64_t *state, uint64_t fixed_base)
{
    struct jit_output code;
    uint8_t content[32];
    void *value;
    size_t bytes;
    memset(content, (int)nblocks, sizeof content);
    make_code(&code, nblocks, state);
    CHECK(image_build(&code, content, 0x40000000, fixed_base, SPAN, 3, &value, &bytes) == 0);
    const struct image_header *h = value;
    CHECK(image_header_check(value, bytes) == 0 && image_check(value, bytes) == 0);
    CHECK(memcmp(h->content_hash, content, 32) == 0 && h->extent == 3 && h->fixed_base == fixed_base && h->nblocks == nblocks);
    CHECK((h->code_offset + IMAGE_VALUE_OFFSET) % 4096 == 0 && (IMAGE_VALUE_OFFSET + bytes) % 4096 == 0);
    CHECK(memcmp((uint8_t *)value + h->code_offset, code.code, code.code_bytes) == 0);
    CHECK(memcmp((uint8_t *)value + h->map_offset, code.map, code.map_bytes) == 0);
    CHECK(memcmp((uint8_t *)value + h->counters_offset, code.counters, (code.ncounters + code.nmarks) * 8) == 0);
    CHECK(image_code_end(h) == (int64_t)(0x40000000 + (code.code_bytes + 4095) / 4096 * 4096));
    for (uint32_t offset = 0, next = 0; offset < SPAN + 600; offset++) {
        const struct image_block *b = image_find(h, offset);
        bool is_block = next < nblocks && code.blocks[next].app_offset == offset;
        CHECK((b != NULL) == is_block);
        CHECK(!b || memcmp(b, &code.blocks[next], sizeof *b) == 0);
        next += is_block;
    }
    CHECK(image_find(h, UINT32_MAX) == NULL);
    CHECK(image_header_check(value, bytes - 1) != 0 && image_header_check(value, 0) != 0);
    free(value);
    free_code(&code);
}

/* Each single bit of the header is covered by the checksum; one in a table is found by image_check, or changes nothing else. */
static void check_flips(uint64_t *state)
{
    struct jit_output code;
    uint8_t content[32] = {1}, *value;
    size_t bytes;
    make_code(&code, 500, state);
    CHECK(image_build(&code, content, 0x40000000, 0, SPAN, 0, (void **)&value, &bytes) == 0);
    for (size_t bit = 0; bit < 8 * sizeof(struct image_header); bit++) {
        value[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(image_header_check(value, bytes) == -BDBI_EFORMAT);
        value[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    const struct image_header *h = (void *)value;
    for (size_t i = 0; i < 4 * (size_t)(h->nbuckets + 1); i++) {
        value[h->buckets_offset + i] ^= 0x10;
        CHECK(image_header_check(value, bytes) == 0 && image_check(value, bytes) == -BDBI_EFORMAT);
        for (uint32_t offset = 0; offset < SPAN; offset += 97) {
            image_find(h, offset); /* stays inside, which ASAN sees */
        }
        value[h->buckets_offset + i] ^= 0x10;
    }
    struct image_link *links = (struct image_link *)(value + image_links_offset(h)), good = links[1];
    const struct image_link bad[] = {{h->code_bytes - 3, good.pointer},
                                     {links[0].at + 3, good.pointer},
                                     {good.at, RELRO_END - 7},
                                     {good.at, RELRO_START - 1}};
    CHECK(h->nlinks > 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        links[1] = bad[i];
        CHECK(image_check(value, bytes) == -BDBI_EFORMAT);
    }
    links[1] = good;
    uint32_t *owners = (uint32_t *)(value + image_owners_offset(h)), owner = owners[3];
    owners[3] = h->nblocks;
    CHECK(image_check(value, bytes) == -BDBI_EFORMAT);
    owners[3] = owner;
    uint32_t *order = (uint32_t *)(value + image_order_offset(h)), first = order[0];
    CHECK(h->nran > 0);
    order[0] = order[1];
    order[1] = first;
    CHECK(image_check(value, bytes) == -BDBI_EFORMAT);
    order[1] = order[0];
    order[0] = h->nblocks;
    CHECK(image_check(value, bytes) == -BDBI_EFORMAT);
    order[0] = first;
    for (unsigned i = 0; i < 3000; i++) {
        size_t at = sizeof *h + test_random(state) % (bytes - sizeof *h);
        value[at] ^= 0x80;
        image_check(value, bytes);
        CHECK(image_check_digest(value, bytes) == -BDBI_EFORMAT);
        value[at] ^= 0x80;
    }
    CHECK(image_check(value, bytes) == 0 && image_check_digest(value, bytes) == 0);
    free(value);
    free_code(&code);
}

static void check_limits(void)
{
    struct jit_output code = {.code_bytes = 5ull << 30, .code = (uint8_t *)"", .map_bytes = 1, .map = (uint8_t *)""};
    uint8_t content[32] = {0};
    void *value;
    size_t bytes;
    CHECK(image_build(&code, content, 0x40000000, 0, SPAN, 0, &value, &bytes) == -BDBI_ETOOBIG);
}

int main(void)
{
    uint64_t state = 42;
    for (uint32_t nblocks = 1; nblocks < 2000; nblocks += 1 + nblocks / 2) {
        check_round_trip(nblocks, &state, nblocks % 2 ? 0 : 0x400000);
    }
    check_flips(&state);
    check_limits();
    return 0;
}
