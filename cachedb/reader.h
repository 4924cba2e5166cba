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

#include "cachedb/lmdb_format.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CACHE_READER_KEY_MAX 511  /* LMDB's limit */
#define CACHE_READER_HEAD_MAX 208 /* of a value: see cache_reader_seek_head */

/* Pages by reading the file instead of touching the mapping: a tenth of the time where each page of the walk would be the first
 * of its 2 MB. One thread, one reader. What a batch has found counts when cache_reader_end says so. */
struct cache_file {
    /* Copies BYTES from OFFSET of the file, all of them. */
    bool (*read)(const struct cache_file *f, uint64_t offset, void *to, size_t bytes);
    int fd;         /* for read */
    uint8_t *pages; /* room for two */
    /* The reader's own: */
    uint64_t numbers[2]; /* of the pages in there, 0: none: the root, and another */
    bool batch, fresh;   /* fresh: the meta page is that of cache_reader_init */
    unsigned which;      /* the batch's meta page */
    struct lmdb_meta meta;
    uint8_t big[sizeof(struct lmdb_page) + CACHE_READER_HEAD_MAX]; /* the start of a large value */
};

struct cache_reader {
    const uint8_t *map; /* data.mdb from offset 0 */
    size_t bytes;
    struct cache_file *file; /* NULL: everything is read in the mapping */
};

/* 0, or -BDBI_EFORMAT when MAP is not an LMDB data file of this machine's format. FILE: may be NULL. */
int cache_reader_init(struct cache_reader *r, const void *map, size_t bytes, struct cache_file *file);

/* With a file: the questions from here to cache_reader_end are answered from one transaction, with two reads fewer for each.
 * False: there is none to read. */
bool cache_reader_begin(struct cache_reader *r);
/* False: writers may have used pages again meanwhile, and what was found does not count. */
bool cache_reader_end(struct cache_reader *r);

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

/* The same for the keys that have KEY's first PREFIX_BYTES, and copies the value's first HEAD_BYTES (at most
 * CACHE_READER_HEAD_MAX; what a shorter value does not have stays as it is): with a file the value itself is not touched. */
const void *cache_reader_seek_head(const struct cache_reader *r, const void *key, size_t key_bytes, size_t prefix_bytes,
                                   void *found_key, size_t key_cap, size_t *found_key_bytes, void *head, size_t head_bytes,
                                   size_t *value_bytes);

/* The same as cache_reader_seek, and copies the value as cache_reader_fetch does: for small values. */
int cache_reader_seek_fetch(const struct cache_reader *r, const void *key, size_t key_bytes, void *found_key, size_t key_cap,
                            size_t *found_key_bytes, void *value, size_t value_cap, size_t *value_bytes);

#endif
