/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds a key in a mapped LMDB data file (lmdb_format.h), in both worlds.
 *
 *   meta (copied until two copies agree) -> root -> branch ... -> leaf -> value
 *   then: is the meta page still what was copied? No: writers were here, again.
 *
 * Pages are looked at in the mapping, or read from the file (struct cache_file).
 *
 * The file may be damaged, or change while it is read: every offset is checked where it is used, from values read once into
 * locals, and the depth bounds the walk. A wrong answer from a page in change is possible only in a walk that is thrown away.
 */
#include "cachedb/reader.h"
#include "cachedb/lmdb_format.h"
#include "include/internal/core_string.h"
#include "include/internal/error.h"

#include <stdbool.h>

#define TRIES 8

struct node {
    const uint8_t *key;
    size_t key_bytes;
    const uint8_t *value; /* leaf: where the value is in the mapping, and its size */
    size_t value_bytes;
    const uint8_t *copy; /* with a file: its first bytes */
    size_t copy_bytes;
    uint64_t child; /* branch: the child's page */
};

struct question {
    const uint8_t *key;
    size_t key_bytes;
    bool exact; /* only this key, not the next greater one */
    void *found_key;
    size_t key_cap;
    void *value; /* copy the value here, or NULL */
    size_t value_cap;
    size_t prefix_bytes; /* of the key, which must be found */
    void *head;          /* copy the value's first bytes here */
    size_t head_bytes;
};

struct answer {
    bool found;
    size_t key_bytes;
    const uint8_t *value;
    size_t value_bytes;
};

static inline void barrier(void)
{
    __asm__ volatile("" ::: "memory");
}

/* Unaligned loads that the compiler does once. */
static inline uint16_t load16(const uint8_t *p)
{
    struct __attribute__((packed, may_alias)) unaligned {
        uint16_t v;
    };
    return ((const volatile struct unaligned *)p)->v;
}

static inline uint32_t load32(const uint8_t *p)
{
    struct __attribute__((packed, may_alias)) unaligned {
        uint32_t v;
    };
    return ((const volatile struct unaligned *)p)->v;
}

static inline uint64_t load64(const uint8_t *p)
{
    struct __attribute__((packed, may_alias)) unaligned {
        uint64_t v;
    };
    return ((const volatile struct unaligned *)p)->v;
}

/* ---- meta pages ---- */

static const uint8_t *meta_at(const struct cache_reader *r, unsigned which)
{
    return r->map + which * LMDB_PAGE + sizeof(struct lmdb_page);
}

static bool meta_same(const struct cache_reader *r, unsigned which, const struct lmdb_meta *copy)
{
    barrier();
    bool same = memcmp(meta_at(r, which), copy, sizeof *copy) == 0;
    barrier();
    return same;
}

/* P: the page's header. */
static bool meta_good(const uint8_t *p, const struct lmdb_meta *m)
{
    return (load16(p + 10) & LMDB_META) != 0 && m->magic == LMDB_MAGIC && m->version == LMDB_VERSION &&
           m->free_db.pad == LMDB_PAGE && m->main_db.flags == 0 && m->main_db.depth <= LMDB_DEPTH_MAX;
}

/* A copy of meta page WHICH that was not being written. */
static bool meta_copy(const struct cache_reader *r, unsigned which, struct lmdb_meta *m)
{
    for (int i = 0; i < TRIES; i++) {
        memcpy(m, meta_at(r, which), sizeof *m);
        if (meta_same(r, which, m)) {
            return meta_good(r->map + which * LMDB_PAGE, m);
        }
    }
    return false;
}

/* The newer one; *WHICH: its page. */
static bool meta_newest(const struct cache_reader *r, struct lmdb_meta *m, unsigned *which)
{
    struct lmdb_meta other;
    bool first = meta_copy(r, 0, m);
    bool second = meta_copy(r, 1, &other);
    *which = 0;
    if (second && (!first || other.txnid > m->txnid)) {
        *m = other;
        *which = 1;
    }
    return first || second;
}

/* Both meta pages in one read. One that was being written is found out afterwards (file_meta_same). */
static bool file_meta_newest(struct cache_file *f)
{
    struct lmdb_meta metas[2];
    bool good[2];
    f->numbers[0] = f->numbers[1] = 0;
    if (!f->read(f, 0, f->pages, LMDB_PAGE + sizeof(struct lmdb_page) + sizeof *metas)) {
        return false;
    }
    for (unsigned i = 0; i < 2; i++) {
        memcpy(&metas[i], f->pages + i * LMDB_PAGE + sizeof(struct lmdb_page), sizeof *metas);
        good[i] = meta_good(f->pages + i * LMDB_PAGE, &metas[i]);
    }
    f->which = good[1] && (!good[0] || metas[1].txnid > metas[0].txnid);
    f->meta = metas[f->which];
    return good[0] || good[1];
}

static bool file_meta_same(const struct cache_file *f)
{
    struct lmdb_meta now;
    return f->read(f, f->which * LMDB_PAGE + sizeof(struct lmdb_page), &now, sizeof now) &&
           memcmp(&now, &f->meta, sizeof now) == 0;
}

static bool any_meta(struct cache_reader *r)
{
    struct lmdb_meta m;
    unsigned which;
    return r->file ? (r->file->fresh = file_meta_newest(r->file)) : meta_newest(r, &m, &which);
}

int cache_reader_init(struct cache_reader *r, const void *map, size_t bytes, struct cache_file *file)
{
    *r = (struct cache_reader){map, bytes, file};
    if (!map || bytes < 2 * LMDB_PAGE || !any_meta(r)) {
        *r = (struct cache_reader){0};
        return -BDBI_EFORMAT;
    }
    return 0;
}

bool cache_reader_begin(struct cache_reader *r)
{
    struct cache_file *f = r->file;
    if (!f) {
        return false;
    }
    f->batch = f->fresh || file_meta_newest(f);
    f->fresh = false;
    return f->batch;
}

bool cache_reader_end(struct cache_reader *r)
{
    bool was = r->file && r->file->batch;
    if (was) {
        r->file->batch = false;
    }
    return was && file_meta_same(r->file);
}

/* ---- pages and nodes ---- */

/* The first page that a transaction is asked for is its root, and stays. */
static const uint8_t *file_page(struct cache_file *f, uint64_t pgno)
{
    unsigned i = f->numbers[0] && f->numbers[0] != pgno;
    uint8_t *p = f->pages + i * LMDB_PAGE;
    if (f->numbers[i] == pgno) {
        return p;
    }
    f->numbers[i] = 0;
    if (!f->read(f, pgno * LMDB_PAGE, p, LMDB_PAGE)) {
        return NULL;
    }
    f->numbers[i] = pgno;
    return p;
}

/* Page PGNO if it is inside the file and a branch or leaf (KIND) of the B-tree; *NKEYS: its number of nodes. */
static const uint8_t *page_at(const struct cache_reader *r, uint64_t pgno, unsigned kind, unsigned *nkeys)
{
    if (pgno < 2 || pgno >= r->bytes / LMDB_PAGE) {
        return NULL;
    }
    const uint8_t *p = r->file ? file_page(r->file, pgno) : r->map + pgno * LMDB_PAGE;
    unsigned lower = p ? load16(p + 12) : 0;
    if (!p || load64(p) != pgno || (load16(p + 10) & LMDB_KIND) != kind || lower < sizeof(struct lmdb_page) ||
        lower > LMDB_PAGE) {
        return NULL;
    }
    *nkeys = (lower - sizeof(struct lmdb_page)) / 2;
    return p;
}

/* Node I (< nkeys) of page P: header and key inside the page, *REST the bytes after the key. */
static const uint8_t *node_at(const uint8_t *p, unsigned i, struct node *n, size_t *rest)
{
    size_t offset = load16(p + sizeof(struct lmdb_page) + 2 * i);
    if (offset < sizeof(struct lmdb_page) || offset + sizeof(struct lmdb_node) > LMDB_PAGE) {
        return NULL;
    }
    const uint8_t *at = p + offset;
    n->key_bytes = load16(at + 6);
    n->key = at + sizeof(struct lmdb_node);
    size_t end = offset + sizeof(struct lmdb_node) + n->key_bytes;
    if (n->key_bytes > CACHE_READER_KEY_MAX || end > LMDB_PAGE) {
        return NULL;
    }
    *rest = LMDB_PAGE - end;
    return at;
}

static bool branch_node(const uint8_t *p, unsigned i, struct node *n)
{
    size_t rest;
    const uint8_t *at = node_at(p, i, n, &rest);
    if (!at) {
        return false;
    }
    n->child = load32(at) | (uint64_t)load16(at + 4) << 32;
    return true;
}

/* A value over pages of its own: page number -> its bytes. With a file, if only its start is wanted, it is not touched. */
static bool big_value(const struct cache_reader *r, uint64_t pgno, bool start_only, struct node *n)
{
    if (pgno < 2 || pgno >= r->bytes / LMDB_PAGE) {
        return false;
    }
    const uint8_t *place = r->map + pgno * LMDB_PAGE, *p = start_only ? r->file->big : place;
    if (start_only && !r->file->read(r->file, pgno * LMDB_PAGE, r->file->big, sizeof r->file->big)) {
        return false;
    }
    uint64_t left = r->bytes - pgno * LMDB_PAGE;
    uint64_t pages = load32(p + 12);
    if (load64(p) != pgno || (load16(p + 10) & LMDB_KIND) != LMDB_OVERFLOW || pages * LMDB_PAGE > left ||
        sizeof(struct lmdb_page) + n->value_bytes > pages * LMDB_PAGE) {
        return false;
    }
    n->value = place + sizeof(struct lmdb_page);
    n->copy = p + sizeof(struct lmdb_page);
    n->copy_bytes = start_only && n->value_bytes > CACHE_READER_HEAD_MAX ? CACHE_READER_HEAD_MAX : n->value_bytes;
    return true;
}

static bool leaf_node(const struct cache_reader *r, const uint8_t *p, unsigned i, const struct question *q, struct node *n)
{
    size_t rest;
    const uint8_t *at = node_at(p, i, n, &rest);
    if (!at || n->key_bytes < q->prefix_bytes || memcmp(n->key, q->key, q->prefix_bytes)) {
        return false;
    }
    unsigned flags = load16(at + 4);
    n->value_bytes = n->copy_bytes = load32(at);
    n->copy = n->key + n->key_bytes;
    n->value = r->file ? r->map + load64(p) * LMDB_PAGE + (n->copy - p) : n->copy;
    if (flags == LMDB_BIGDATA) {
        return rest >= 8 && big_value(r, load64(n->copy), r->file && q->head, n);
    }
    return flags == 0 && n->value_bytes <= rest;
}

static int key_compare(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

/* ---- the walk ---- */

/* Branch P: the last node whose key is <= KEY; node 0's key counts as smaller than all. */
static bool branch_pick(const uint8_t *p, unsigned nkeys, const struct question *q, unsigned *pick)
{
    unsigned low = 1, high = nkeys; /* the first node above the key is in [low, high] */
    while (low < high) {
        unsigned middle = (low + high) / 2;
        struct node n;
        size_t rest;
        if (!node_at(p, middle, &n, &rest)) {
            return false;
        }
        if (key_compare(n.key, n.key_bytes, q->key, q->key_bytes) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *pick = low - 1;
    return true;
}

/* Leaf P: the first node whose key is >= KEY, NKEYS if there is none. */
static bool leaf_pick(const uint8_t *p, unsigned nkeys, const struct question *q, unsigned *pick)
{
    unsigned low = 0, high = nkeys;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        struct node n;
        size_t rest;
        if (!node_at(p, middle, &n, &rest)) {
            return false;
        }
        if (key_compare(n.key, n.key_bytes, q->key, q->key_bytes) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *pick = low;
    return true;
}

/* First key of the subtree PGNO, which has DEPTH levels. */
static bool leftmost(const struct cache_reader *r, uint64_t pgno, unsigned depth, const struct question *q, struct node *n)
{
    unsigned nkeys;
    const uint8_t *p;
    for (; depth > 1; depth--, pgno = n->child) {
        p = page_at(r, pgno, LMDB_BRANCH, &nkeys);
        if (!p || nkeys == 0 || !branch_node(p, 0, n)) {
            return false;
        }
    }
    p = page_at(r, pgno, LMDB_LEAF, &nkeys);
    return p && nkeys > 0 && leaf_node(r, p, 0, q, n);
}

/* The smallest key >= the question's in the tree of M. */
static bool walk(const struct cache_reader *r, const struct lmdb_meta *m, const struct question *q, struct node *n)
{
    uint64_t pgno = m->main_db.root, right = 0;
    unsigned depth = m->main_db.depth, right_depth = 0, nkeys, i;
    const uint8_t *p;
    if (pgno == LMDB_NO_PAGE || depth == 0) {
        return false;
    }
    for (; depth > 1; depth--, pgno = n->child) {
        p = page_at(r, pgno, LMDB_BRANCH, &nkeys);
        if (!p || nkeys == 0 || !branch_pick(p, nkeys, q, &i)) {
            return false;
        }
        if (i + 1 < nkeys) { /* where the search goes on if the leaf has nothing */
            if (!branch_node(p, i + 1, n)) {
                return false;
            }
            right = n->child;
            right_depth = depth - 1;
        }
        if (!branch_node(p, i, n)) {
            return false;
        }
    }
    p = page_at(r, pgno, LMDB_LEAF, &nkeys);
    if (!p || !leaf_pick(p, nkeys, q, &i)) {
        return false;
    }
    if (i < nkeys) {
        return leaf_node(r, p, i, q, n);
    }
    return right != 0 && !q->exact && leftmost(r, right, right_depth, q, n);
}

/* One attempt; what it copied counts only if the meta page is unchanged afterwards. */
static void attempt(const struct cache_reader *r, const struct lmdb_meta *m, const struct question *q, struct answer *a)
{
    struct node n;
    a->found = walk(r, m, q, &n) && (!q->exact || key_compare(n.key, n.key_bytes, q->key, q->key_bytes) == 0);
    if (!a->found) {
        return;
    }
    a->key_bytes = n.key_bytes;
    a->value = n.value;
    a->value_bytes = n.value_bytes;
    if (q->found_key) {
        memcpy(q->found_key, n.key, n.key_bytes < q->key_cap ? n.key_bytes : q->key_cap);
    }
    if (q->value && n.value_bytes <= q->value_cap) {
        memcpy(q->value, n.copy, n.value_bytes);
    }
    if (q->head) {
        memcpy(q->head, n.copy, n.copy_bytes < q->head_bytes ? n.copy_bytes : q->head_bytes);
    }
}

/* In a batch, or a batch of this question alone. */
static struct answer ask_file(const struct cache_reader *r, const struct question *q)
{
    const struct answer nothing = {0};
    struct cache_file *f = r->file;
    struct answer a = {0};
    if (f->batch) {
        attempt(r, &f->meta, q, &a);
        return a;
    }
    f->fresh = false;
    for (int i = 0; i < TRIES && file_meta_newest(f); i++) {
        attempt(r, &f->meta, q, &a);
        if (file_meta_same(f)) {
            return a;
        }
    }
    return nothing;
}

static struct answer ask(const struct cache_reader *r, const struct question *q)
{
    const struct answer nothing = {0};
    struct answer a = {0};
    struct lmdb_meta m;
    unsigned which;
    if (!r->map || q->key_bytes > CACHE_READER_KEY_MAX) {
        return nothing;
    }
    if (r->file) {
        return ask_file(r, q);
    }
    for (int i = 0; i < TRIES && meta_newest(r, &m, &which); i++) {
        attempt(r, &m, q, &a);
        if (meta_same(r, which, &m)) {
            return a;
        }
    }
    return nothing;
}

/* ---- the interface ---- */

const void *cache_reader_get(const struct cache_reader *r, const void *key, size_t key_bytes, size_t *value_bytes)
{
    struct question q = {.key = key, .key_bytes = key_bytes, .exact = true};
    struct answer a = ask(r, &q);
    *value_bytes = a.found ? a.value_bytes : 0;
    return a.found ? a.value : NULL;
}

int cache_reader_copy(const struct cache_reader *r, const void *key, size_t key_bytes, void *value, size_t value_bytes)
{
    struct question q = {.key = key, .key_bytes = key_bytes, .exact = true, .value = value, .value_cap = value_bytes};
    struct answer a = ask(r, &q);
    return a.found && a.value_bytes == value_bytes ? 0 : -BDBI_ENOENT;
}

int cache_reader_fetch(const struct cache_reader *r, const void *key, size_t key_bytes, void *value, size_t value_cap,
                       size_t *value_bytes)
{
    struct question q = {.key = key, .key_bytes = key_bytes, .exact = true, .value = value, .value_cap = value_cap};
    struct answer a = ask(r, &q);
    *value_bytes = a.found ? a.value_bytes : 0;
    if (!a.found) {
        return -BDBI_ENOENT;
    }
    return a.value_bytes <= value_cap ? 0 : -BDBI_ETOOBIG;
}

const void *cache_reader_seek_head(const struct cache_reader *r, const void *key, size_t key_bytes, size_t prefix_bytes,
                                   void *found_key, size_t key_cap, size_t *found_key_bytes, void *head, size_t head_bytes,
                                   size_t *value_bytes)
{
    struct question q = {.key = key,
                         .key_bytes = key_bytes,
                         .prefix_bytes = prefix_bytes,
                         .found_key = found_key,
                         .key_cap = key_cap,
                         .head = head,
                         .head_bytes = head_bytes};
    struct answer a = ask(r, &q);
    *found_key_bytes = a.found ? a.key_bytes : 0;
    *value_bytes = a.found ? a.value_bytes : 0;
    return a.found ? a.value : NULL;
}

const void *cache_reader_seek(const struct cache_reader *r, const void *key, size_t key_bytes, void *found_key, size_t key_cap,
                              size_t *found_key_bytes, size_t *value_bytes)
{
    return cache_reader_seek_head(r, key, key_bytes, 0, found_key, key_cap, found_key_bytes, NULL, 0, value_bytes);
}

int cache_reader_seek_fetch(const struct cache_reader *r, const void *key, size_t key_bytes, void *found_key, size_t key_cap,
                            size_t *found_key_bytes, void *value, size_t value_cap, size_t *value_bytes)
{
    struct question q = {
        .key = key, .key_bytes = key_bytes, .found_key = found_key, .key_cap = key_cap, .value = value, .value_cap = value_cap};
    struct answer a = ask(r, &q);
    *found_key_bytes = a.found ? a.key_bytes : 0;
    *value_bytes = a.found ? a.value_bytes : 0;
    if (!a.found) {
        return -BDBI_ENOENT;
    }
    return a.value_bytes <= value_cap ? 0 : -BDBI_ETOOBIG;
}
