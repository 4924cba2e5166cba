/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether an image may be believed, and the lookup of a block in it. Both worlds: the core asks image_header_check before it
 * maps an image's code, and image_find for each address it has not met; tests ask image_check.
 */
#include "cachedb/image.h"
#include "include/internal/core_string.h"
#include "include/internal/error.h"

#include <stdbool.h>

#define PAGE 4096u

static uint64_t header_checksum(const struct image_header *h)
{
    struct image_header copy;
    memcpy(&copy, h, sizeof copy);
    copy.head_checksum = 0;
    uint64_t hash = 0xcbf29ce484222325ull;
    const uint8_t *p = (const uint8_t *)&copy;
    for (size_t i = 0; i < sizeof copy; i++) {
        hash = (hash ^ p[i]) * 0x100000001b3ull;
    }
    return hash;
}

/* COUNT items of SIZE bytes from OFFSET on lie between the header and the code. */
static bool table_fits(const struct image_header *h, uint32_t offset, uint64_t count, uint32_t size, uint32_t align)
{
    return offset >= sizeof *h && offset % align == 0 && offset <= h->code_offset && count * size <= h->code_offset - offset;
}

static bool code_fits(const struct image_header *h)
{
    uint64_t end = h->code_offset + image_code_pages(h);
    return h->code_bytes > 0 && (IMAGE_VALUE_OFFSET + (uint64_t)h->code_offset) % PAGE == 0 && end == h->image_bytes;
}

int image_header_check(const void *value, size_t bytes)
{
    const struct image_header *h = value;
    if (bytes < sizeof *h || h->magic != IMAGE_MAGIC || h->version != IMAGE_VERSION || h->image_bytes != bytes ||
        h->head_checksum != header_checksum(h)) {
        return -BDBI_EFORMAT;
    }
    bool good = code_fits(h) && h->linked <= 1 && h->code_distance > 0 && h->code_distance % PAGE == 0 &&
                h->fixed_base % PAGE == 0 && h->constants_start <= h->constants_end && h->constants_end <= h->span_bytes &&
                h->relro_start <= h->relro_end && h->relro_end <= h->span_bytes &&
                (h->relro_start < h->relro_end) == (h->nlinks > 0) &&
                (uint64_t)h->nlinks * sizeof(struct image_link) <= h->code_bytes &&
                (h->nlinks == 0 || image_links_offset(h) % 4 == 0) &&
                h->nbuckets == ((uint64_t)h->span_bytes + (1u << IMAGE_BUCKET_SHIFT) - 1) >> IMAGE_BUCKET_SHIFT &&
                table_fits(h, h->buckets_offset, (uint64_t)h->nbuckets + 1, 4, 4) &&
                table_fits(h, h->blocks_offset, h->nblocks, sizeof(struct image_block), 4) &&
                table_fits(h, h->counters_offset, (uint64_t)h->ncounters + h->nmarks,
                           sizeof(struct image_counter) + sizeof(uint32_t), 8) &&
                (uint64_t)h->data_address + 8ull * h->ncounters + h->nmarks <= INT32_MAX && h->ran_counters <= h->ncounters &&
                h->ran_marks <= h->nmarks && table_fits(h, image_order_offset(h), h->nran ? h->nblocks : 0, 4, 4) &&
                table_fits(h, h->map_offset, h->map_bytes, 1, 1);
    return good ? 0 : -BDBI_EFORMAT;
}

static const uint32_t *buckets_of(const struct image_header *h)
{
    return (const uint32_t *)((const uint8_t *)h + h->buckets_offset);
}

static const struct image_block *blocks_of(const struct image_header *h)
{
    return (const struct image_block *)((const uint8_t *)h + h->blocks_offset);
}

const struct image_block *image_find(const struct image_header *h, uint32_t app_offset)
{
    uint32_t bucket = app_offset >> IMAGE_BUCKET_SHIFT;
    if (bucket >= h->nbuckets) {
        return NULL;
    }
    const struct image_block *blocks = blocks_of(h);
    uint32_t i = buckets_of(h)[bucket], end = buckets_of(h)[bucket + 1];
    if (end > h->nblocks) {
        return NULL;
    }
    for (; i < end; i++) {
        if (blocks[i].app_offset == app_offset) {
            return blocks[i].code_offset < h->code_bytes ? &blocks[i] : NULL;
        }
    }
    return NULL;
}

/* ---- all of it ---- */

static bool blocks_good(const struct image_header *h)
{
    const struct image_block *b = blocks_of(h);
    for (uint32_t i = 0; i < h->nblocks; i++) {
        if (b[i].app_offset >= h->span_bytes || b[i].code_offset >= h->code_bytes || image_map_offset(&b[i]) >= h->map_bytes) {
            return false;
        }
        if (i > 0 && b[i].app_offset <= b[i - 1].app_offset) {
            return false;
        }
    }
    return true;
}

/* Code offsets ascend in the order of the list. */
static bool order_good(const struct image_header *h)
{
    const struct image_block *b = blocks_of(h);
    const uint32_t *order = (const uint32_t *)((const uint8_t *)h + image_order_offset(h));
    for (uint32_t i = 0, last = 0; i < h->nblocks; i++) {
        uint32_t block = h->nran ? order[i] : i;
        if (block >= h->nblocks || (i > 0 && b[block].code_offset < b[last].code_offset)) {
            return false;
        }
        last = block;
    }
    return true;
}

/* Bucket I is the index of the first block at or after I << IMAGE_BUCKET_SHIFT. */
static bool buckets_good(const struct image_header *h)
{
    const struct image_block *b = blocks_of(h);
    uint32_t block = 0;
    for (uint64_t i = 0; i <= h->nbuckets; i++) {
        while (block < h->nblocks && b[block].app_offset < i << IMAGE_BUCKET_SHIFT) {
            block++;
        }
        if (buckets_of(h)[i] != block) {
            return false;
        }
    }
    return true;
}

/* Length of the map entry at P, of which LEFT bytes are there; 0: none such. */
static uint32_t map_entry(const uint8_t *p, uint32_t left)
{
    if (p[0] >= MAP_PIECE && p[0] < 2 * MAP_PIECE) {
        uint32_t bytes = p[0] & MAP_OTHER ? 3 : 2;
        return (p[0] & 0x30) == 0 && bytes <= left ? bytes : 0;
    }
    bool advance = p[0] > MAP_ADVANCE && p[0] <= (MAP_ADVANCE | MAP_COPY_MAX);
    return p[0] <= MAP_COPY_MAX || advance ? 1 : 0;
}

static bool maps_good(const struct image_header *h)
{
    const struct image_block *b = blocks_of(h);
    const uint8_t *map = (const uint8_t *)h + h->map_offset;
    for (uint32_t i = 0; i < h->nblocks; i++) {
        uint32_t at = image_map_offset(&b[i]);
        while (at < h->map_bytes && map[at] != MAP_END) {
            uint32_t bytes = map_entry(map + at, h->map_bytes - at);
            if (bytes == 0) {
                return false;
            }
            at += bytes;
        }
        if (at >= h->map_bytes) {
            return false;
        }
    }
    return true;
}

static bool owners_good(const struct image_header *h)
{
    const uint32_t *owners = (const uint32_t *)((const uint8_t *)h + image_owners_offset(h));
    for (uint64_t i = 0; i < (uint64_t)h->ncounters + h->nmarks; i++) {
        if (owners[i] >= h->nblocks) {
            return false;
        }
    }
    return true;
}

static bool links_good(const struct image_header *h)
{
    const struct image_link *l = (const struct image_link *)((const uint8_t *)h + image_links_offset(h));
    for (uint32_t i = 0; i < h->nlinks; i++) {
        if (l[i].at + 4ull > h->code_bytes || (i > 0 && l[i].at < l[i - 1].at + 4ull) || l[i].pointer < h->relro_start ||
            l[i].pointer + 8ull > h->relro_end) {
            return false;
        }
    }
    return true;
}

static bool pad_good(const struct image_header *h)
{
    const uint8_t *code = (const uint8_t *)h + h->code_offset;
    for (uint64_t i = h->code_bytes; i < image_code_pages(h); i++) {
        if (code[i] != 0xcc) {
            return false;
        }
    }
    return true;
}

int image_check(const void *value, size_t bytes)
{
    int rc = image_header_check(value, bytes);
    if (rc) {
        return rc;
    }
    return blocks_good(value) && buckets_good(value) && order_good(value) && maps_good(value) && owners_good(value) &&
                   links_good(value) && pad_good(value)
               ? 0
               : -BDBI_EFORMAT;
}
