/* SPDX-License-Identifier: Apache-2.0
 *
 * A read-only LMDB reader for the core: freestanding, no allocation, no system calls, works on a mapping of data.mdb.
 * It trusts nothing it reads: depth, page numbers, node offsets and sizes are checked against the mapping; what does
 * not hold is "not found". A writer may commit meanwhile: every function below answers from one stable transaction, trying a
 * few times; when writers are faster than that, the answer is "not found" too (slower, not wrong).
 *
 * The mapping must not be longer than the file (a touch behind its end is a SIGBUS). What was committed after it was made may
 * lie behind its end: not found.
 *
 * Any thread, any number at once.
 */
#ifndef BDBI_CACHE_READER_H
#define BDBI_CACHE_READER_H

#include <stddef.h>
#include <stdint.h>

struct cache_reader {
    const uint8_t *map; /* data.mdb from offset 0 */
    size_t bytes;
};

#define CACHE_READER_KEY_MAX 511 /* LMDB's limit */

/* 0, or -BDBI_EFORMAT when MAP is not an LMDB data file of this machine's format. */
int cache_reader_init(struct cache_reader *r, const void *map, size_t bytes);

/* The value of KEY, in place, or NULL; *VALUE_BYTES its size. (const uint8_t *)value - r->map is its offset in the file. Values
 * in overflow pages (everything over 2 KB, so every image and vdso record) stay valid for ever; a smaller one is in a B-tree
 * page that a later commit may reuse: use cache_reader_copy or cache_reader_fetch for those. */
const void *cache_reader_get(const struct cache_reader *r, const void *key, size_t key_bytes, size_t *value_bytes);

/* Copies a value of exactly VALUE_BYTES. 0 or -BDBI_ENOENT (also when its size is another). */
int cache_reader_copy(const struct cache_reader *r, const void *key, size_t key_bytes, void *value, size_t value_bytes);

/* Copies a value of at most VALUE_CAP bytes; *VALUE_BYTES: its size. 0, -BDBI_ENOENT, or -BDBI_ETOOBIG (nothing copied). */
int cache_reader_fetch(const struct cache_reader *r, const void *key, size_t key_bytes, void *value, size_t value_cap,
                       size_t *value_bytes);

/* Smallest key >= KEY: copies it (the first KEY_CAP bytes of it; *FOUND_KEY_BYTES is its whole size) and returns the value as
 * cache_reader_get does, or NULL at the end. */
const void *cache_reader_seek(const struct cache_reader *r, const void *key, size_t key_bytes, void *found_key, size_t key_cap,
                              size_t *found_key_bytes, size_t *value_bytes);

/* The same, and copies the value as cache_reader_fetch does: for small values. */
int cache_reader_seek_fetch(const struct cache_reader *r, const void *key, size_t key_bytes, void *found_key, size_t key_cap,
                            size_t *found_key_bytes, void *value, size_t value_cap, size_t *value_bytes);

#endif
