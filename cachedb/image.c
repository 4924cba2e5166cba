/* SPDX-License-Identifier: Apache-2.0
 *
 * Builds the value that image.h describes from a translation:
 *
 *   header | buckets | blocks | counters | owners | order | map | int3 ... | code | int3 to the page's end
 *                                                                          ^ 16 bytes into the value's first file page
 *                                                                            + code_offset: page start
 */
#include "cachedb/cachedb.h"
#include "include/internal/error.h"
#include "jit/jit.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define INT3 0xcc

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* Places the tables; every offset fits in 32 bits or the image is too big. */
static int lay_out(const struct jit_output *code, struct image_header *h)
{
    uint64_t buckets = sizeof *h;
    uint64_t blocks = buckets + 4 * ((uint64_t)h->nbuckets + 1);
    uint64_t counters = round_up(blocks + (uint64_t)code->nblocks * sizeof(struct image_block), 8);
    uint64_t map = counters + ((uint64_t)code->ncounters + code->nmarks) * (sizeof(struct image_counter) + sizeof(uint32_t));
    map += code->nran ? (uint64_t)code->nblocks * sizeof(uint32_t) : 0;
    uint64_t text = round_up(IMAGE_VALUE_OFFSET + map + code->map_bytes, PAGE) - IMAGE_VALUE_OFFSET;
    uint64_t end = text + round_up(code->code_bytes, PAGE);
    if (code->map_bytes > UINT32_MAX || code->code_bytes > UINT32_MAX || end > UINT32_MAX) {
        return -BDBI_ETOOBIG;
    }
    h->buckets_offset = (uint32_t)buckets;
    h->blocks_offset = (uint32_t)blocks;
    h->nblocks = code->nblocks;
    h->counters_offset = (uint32_t)counters;
    h->ncounters = code->ncounters;
    h->nmarks = code->nmarks;
    h->ran_counters = code->ran_counters;
    h->ran_marks = code->ran_marks;
    h->map_offset = (uint32_t)map;
    h->map_bytes = (uint32_t)code->map_bytes;
    h->code_offset = (uint32_t)text;
    h->code_bytes = (uint32_t)code->code_bytes;
    h->image_bytes = end;
    return 0;
}

static void fill_buckets(uint32_t *buckets, const struct image_header *h, const struct image_block *blocks)
{
    uint32_t block = 0;
    for (uint64_t i = 0; i <= h->nbuckets; i++) {
        while (block < h->nblocks && blocks[block].app_offset < i << IMAGE_BUCKET_SHIFT) {
            block++;
        }
        buckets[i] = block;
    }
}

static uint64_t checksum(const struct image_header *h)
{
    const uint8_t *p = (const uint8_t *)h;
    uint64_t hash = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < sizeof *h; i++) {
        hash = (hash ^ p[i]) * 0x100000001b3ull;
    }
    return hash;
}

static void copy_table(uint8_t *to, const void *from, size_t bytes)
{
    if (bytes > 0) { /* an empty table may be NULL */
        memcpy(to, from, bytes);
    }
}

static void fill(uint8_t *value, const struct image_header *h, const struct jit_output *code)
{
    fill_buckets((uint32_t *)(value + h->buckets_offset), h, code->blocks);
    copy_table(value + h->blocks_offset, code->blocks, h->nblocks * sizeof(struct image_block));
    copy_table(value + h->counters_offset, code->counters, ((size_t)h->ncounters + h->nmarks) * sizeof(struct image_counter));
    copy_table(value + image_owners_offset(h), code->owners, ((size_t)h->ncounters + h->nmarks) * sizeof(uint32_t));
    copy_table(value + image_order_offset(h), code->order, h->nran ? h->nblocks * sizeof(uint32_t) : 0);
    copy_table(value + h->map_offset, code->map, h->map_bytes);
    uint32_t map_end = h->map_offset + h->map_bytes;
    memset(value + map_end, INT3, h->code_offset - map_end);
    memcpy(value + h->code_offset, code->code, h->code_bytes);
    uint64_t code_end = (uint64_t)h->code_offset + h->code_bytes;
    memset(value + code_end, INT3, h->image_bytes - code_end);
}

int image_build(const struct jit_output *code, const uint8_t content[32], int64_t code_distance, uint64_t fixed_base,
                uint32_t span_bytes, uint32_t extent, void **value, size_t *value_bytes)
{
    struct image_header h = {
        .magic = IMAGE_MAGIC,
        .version = IMAGE_VERSION,
        .linked = code->linked,
        .fixed_base = fixed_base,
        .code_distance = code_distance,
        .nbuckets = (uint32_t)(((uint64_t)span_bytes + (1u << IMAGE_BUCKET_SHIFT) - 1) >> IMAGE_BUCKET_SHIFT),
        .span_bytes = span_bytes,
        .extent = extent,
        .constants_start = code->constants_start,
        .constants_end = code->constants_end,
        .nlinks = code->nlinks,
        .relro_start = code->relro_start,
        .relro_end = code->relro_end,
        .data_address = code->data_address,
        .nran = code->nran,
    };
    memcpy(h.content_hash, content, sizeof h.content_hash);
    int rc = lay_out(code, &h);
    if (rc) {
        return rc;
    }
    uint8_t *bytes = calloc(1, h.image_bytes);
    if (!bytes) {
        return -BDBI_ENOMEM;
    }
    fill(bytes, &h, code);
    content_hash(bytes + sizeof h, h.image_bytes - sizeof h, h.digest);
    h.head_checksum = checksum(&h);
    memcpy(bytes, &h, sizeof h);
    *value = bytes;
    *value_bytes = h.image_bytes;
    return 0;
}

int image_check_digest(const void *value, size_t bytes)
{
    const struct image_header *h = value;
    uint8_t digest[32];
    int rc = image_header_check(value, bytes);
    if (rc) {
        return rc;
    }
    content_hash(h + 1, bytes - sizeof *h, digest);
    return memcmp(digest, h->digest, sizeof digest) == 0 ? 0 : -BDBI_EFORMAT;
}
