/* SPDX-License-Identifier: Apache-2.0
 *
 * LMDB 0.9's data file (64 bit, little endian, 4 KB pages), as reader.c and check.c read it.
 *
 *   page 0, 1: header | struct lmdb_meta   transaction t writes page t & 1; the higher txnid is the newer
 *   branch:    header | uint16_t node offsets[] -> ... <- nodes (key, child page; the first key counts as smallest)
 *   leaf:      header | uint16_t node offsets[] -> ... <- nodes (key, value or the page where the value is)
 *   overflow:  header | value over this and the following pages
 *
 * Pages are copy on write. What transaction t freed is used again by transaction t + 2 at the earliest when no reader is
 * registered, so the pages of snapshot s are whole until s + 3 starts, which is after s + 2 has replaced s's meta page:
 * a walk is good if the meta page that it started from is unchanged after it.
 */
#ifndef BDBI_LMDB_FORMAT_H
#define BDBI_LMDB_FORMAT_H

#include <stdint.h>

#define LMDB_PAGE 4096
#define LMDB_MAGIC 0xbeefc0de
#define LMDB_VERSION 1
#define LMDB_NO_PAGE UINT64_MAX
#define LMDB_DEPTH_MAX 32 /* LMDB's own CURSOR_STACK */

enum lmdb_page_flags {
    LMDB_BRANCH = 0x01,
    LMDB_LEAF = 0x02,
    LMDB_OVERFLOW = 0x04,
    LMDB_META = 0x08,
    LMDB_KIND = 0x2f, /* the above and LEAF2, which unnamed plain databases do not have */
};

enum lmdb_node_flags { LMDB_BIGDATA = 0x01 };

struct lmdb_page {
    uint64_t pgno;
    uint16_t pad, flags;
    union {
        struct {
            uint16_t lower, upper; /* free space between offsets and nodes */
        };
        uint32_t pages; /* overflow: how many in a row */
    };
};
_Static_assert(sizeof(struct lmdb_page) == 16, "LMDB page header");

struct lmdb_node {
    uint16_t lo, hi;    /* leaf: value size; branch: low 32 bits of the child's page number */
    uint16_t flags;     /* branch: the page number's next 16 bits */
    uint16_t key_bytes; /* the key follows, then (leaf) the value or its page number */
};
_Static_assert(sizeof(struct lmdb_node) == 8, "LMDB node header");

struct lmdb_db {
    uint32_t pad; /* of the first: the page size */
    uint16_t flags, depth;
    uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
};
_Static_assert(sizeof(struct lmdb_db) == 48, "LMDB database record");

struct lmdb_meta {
    uint32_t magic, version;
    uint64_t address, map_bytes;
    struct lmdb_db free_db, main_db;
    uint64_t last_page, txnid;
};
_Static_assert(sizeof(struct lmdb_meta) == 136, "LMDB meta page");

#endif
