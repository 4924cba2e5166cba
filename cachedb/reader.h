/* SPDX-License-Identifier: Apache-2.0
 *
 * A read-only LMDB reader for the core: freestanding, no allocation, no system calls, works on a mapping of data.mdb.
 * It trusts nothing it reads: depth, page numbers, node offsets and sizes are checked against the mapping; what does
 * not hold is "not found". A writer may commit meanwhile: see cache_reader_get.
 */
#ifndef BDBI_CACHE_READER_H
#define BDBI_CACHE_READER_H

#include <stddef.h>
#include <stdint.h>

struct cache_reader {
    const uint8_t *map; /* data.mdb from offset 0 */
    size_t bytes;
};

/* 0, or -BDBI_EFORMAT when MAP is not an LMDB data file of this machine's format. */
int cache_reader_init(struct cache_reader *r, const void *map, size_t bytes);

/* The value of KEY, in place, or NULL; *VALUE_BYTES its size. (const uint8_t *)value - r->map is its offset in the file. Values in overflow
 * pages (everything over 2 KB) stay valid for ever; a smaller one is in a B-tree page that a later commit may reuse: it is
 * valid if cache_reader_stable says so after it was copied out. */
const void *cache_reader_get(const struct cache_reader *r, const void *key, size_t key_bytes, size_t *value_bytes);

/* Copies a value of exactly VALUE_BYTES, retrying until it was read under one stable transaction (at most a few times).
 * 0 or -BDBI_ENOENT. */
int cache_reader_copy(const struct cache_reader *r, const void *key, size_t key_bytes, void *value, size_t value_bytes);

/* Smallest key >= KEY: copies it (at most KEY_CAP bytes) and returns the value as cache_reader_get does, or NULL at the end. */
const void *cache_reader_seek(const struct cache_reader *r, const void *key, size_t key_bytes, void *found_key, size_t key_cap,
                              size_t *found_key_bytes, size_t *value_bytes);

#endif
