/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether an LMDB data file is whole. liblmdb believes every page it reads: a flipped bit in one can crash it or make it
 * overwrite a page in use. So the file is read here first, page by page as far as the two B-trees (values, free pages) reach:
 *
 *   each page is inside the file, says its own number and kind, and is used once (a bitmap), by a tree or by the free list
 *   offsets, nodes and keys are inside their page, keys ascend
 *   the trees' depth and page counts are what the meta page says
 *
 * Values are not read, so this costs a few pages for gigabytes of images. A writer may commit meanwhile: as in reader.c, the
 * verdict counts if the meta page is unchanged afterwards. Both meta pages must be good: LMDB starts from either.
 */
#include "cachedb/cachedb.h"
#include "cachedb/lmdb_format.h"
#include "cachedb/reader.h"
#include "include/internal/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 20

struct file {
    const uint8_t *map;
    size_t bytes;
    uint64_t last_page;
    uint8_t *used; /* bit per page */
    bool numbers;  /* the tree in hand is the free list: keys are transaction ids, values lists of pages */
    uint64_t txnid;
};

struct tree {
    uint64_t branch_pages, leaf_pages, overflow_pages, entries;
    const uint8_t *last_key; /* greatest so far: keys ascend over the whole tree, leaves and separators alike */
    size_t last_key_bytes;
    bool last_separates; /* it is a separator: the next key may equal it */
};

static uint16_t load16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Marks COUNT pages from PGNO on as used; false if one is out of range or used already. */
static bool take_pages(struct file *f, uint64_t pgno, uint64_t count)
{
    if (pgno < 2 || count == 0 || pgno > f->last_page || count > f->last_page - pgno + 1) {
        return false;
    }
    for (uint64_t p = pgno; p < pgno + count; p++) {
        if (f->used[p / 8] & 1 << p % 8) {
            return false;
        }
        f->used[p / 8] |= (uint8_t)(1 << p % 8);
    }
    return true;
}

static const uint8_t *take_page(struct file *f, uint64_t pgno, unsigned kind)
{
    if (pgno >= f->bytes / LMDB_PAGE || !take_pages(f, pgno, 1)) {
        return NULL;
    }
    const uint8_t *p = f->map + pgno * LMDB_PAGE;
    unsigned lower = load16(p + 12), upper = load16(p + 14);
    bool good = load64(p) == pgno && load16(p + 10) == kind && lower >= sizeof(struct lmdb_page) && lower <= upper &&
                upper <= LMDB_PAGE && lower % 2 == 0;
    return good ? p : NULL;
}

/* A value over pages of its own. */
static const uint8_t *take_big(struct file *f, struct tree *t, uint64_t pgno, size_t value_bytes)
{
    if (pgno >= f->bytes / LMDB_PAGE) {
        return NULL;
    }
    const uint8_t *p = f->map + pgno * LMDB_PAGE;
    uint64_t pages = load32(p + 12);
    if (load64(p) != pgno || load16(p + 10) != LMDB_OVERFLOW || !take_pages(f, pgno, pages) ||
        pages > f->bytes / LMDB_PAGE - pgno || sizeof(struct lmdb_page) + value_bytes > pages * LMDB_PAGE) {
        return NULL;
    }
    t->overflow_pages += pages;
    return p + sizeof(struct lmdb_page);
}

/* A free-list record: a count, then that many page numbers, descending. */
static bool take_free_list(struct file *f, const uint8_t *key, size_t key_bytes, const uint8_t *value, size_t value_bytes)
{
    if (key_bytes != 8 || load64(key) == 0 || load64(key) > f->txnid || value_bytes < 8) {
        return false;
    }
    uint64_t count = load64(value);
    if (count > value_bytes / 8 - 1) {
        return false;
    }
    for (uint64_t i = 1; i <= count; i++) {
        if (!take_pages(f, load64(value + 8 * i), 1) || (i > 1 && load64(value + 8 * i) >= load64(value + 8 * (i - 1)))) {
            return false;
        }
    }
    return true;
}

static int key_compare(const struct file *f, const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes)
{
    if (f->numbers && a_bytes == 8 && b_bytes == 8) {
        return (load64(a) > load64(b)) - (load64(a) < load64(b));
    }
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static bool key_ascends(const struct file *f, struct tree *t, const uint8_t *key, size_t key_bytes, bool separates)
{
    int order = t->last_key ? key_compare(f, t->last_key, t->last_key_bytes, key, key_bytes) : -1;
    bool good = key_bytes > 0 && (order < 0 || (order == 0 && t->last_separates && !separates));
    t->last_key = key;
    t->last_key_bytes = key_bytes;
    t->last_separates = separates;
    return good;
}

static bool leaf_node(struct file *f, struct tree *t, const uint8_t *at, size_t rest)
{
    size_t key_bytes = load16(at + 6), value_bytes = load32(at);
    const uint8_t *key = at + sizeof(struct lmdb_node), *value = key + key_bytes;
    unsigned flags = load16(at + 4);
    if (!key_ascends(f, t, key, key_bytes, false)) {
        return false;
    }
    t->entries++;
    if (flags == LMDB_BIGDATA) {
        value = rest >= 8 ? take_big(f, t, load64(value), value_bytes) : NULL;
        if (!value) {
            return false;
        }
    } else if (flags != 0 || value_bytes > rest) {
        return false;
    }
    return !f->numbers || take_free_list(f, key, key_bytes, value, value_bytes);
}

static bool take_tree(struct file *f, struct tree *t, uint64_t pgno, unsigned depth);

/* A branch's first key is not looked at: it counts as smaller than all. */
static bool branch_node(struct file *f, struct tree *t, const uint8_t *at, unsigned i, unsigned depth)
{
    uint64_t child = load32(at) | (uint64_t)load16(at + 4) << 32;
    return (i == 0 || key_ascends(f, t, at + sizeof(struct lmdb_node), load16(at + 6), true)) &&
           take_tree(f, t, child, depth - 1);
}

static bool take_node(struct file *f, struct tree *t, const uint8_t *p, unsigned i, unsigned depth)
{
    size_t offset = load16(p + sizeof(struct lmdb_page) + 2 * i);
    if (offset < load16(p + 14) || offset % 2 != 0 || offset + sizeof(struct lmdb_node) > LMDB_PAGE) {
        return false;
    }
    size_t key_bytes = load16(p + offset + 6), key_end = offset + sizeof(struct lmdb_node) + key_bytes;
    if (key_bytes > CACHE_READER_KEY_MAX || key_end > LMDB_PAGE) {
        return false;
    }
    return depth > 1 ? branch_node(f, t, p + offset, i, depth) : leaf_node(f, t, p + offset, LMDB_PAGE - key_end);
}

static bool take_tree(struct file *f, struct tree *t, uint64_t pgno, unsigned depth)
{
    const uint8_t *p = take_page(f, pgno, depth > 1 ? LMDB_BRANCH : LMDB_LEAF);
    if (!p) {
        return false;
    }
    *(depth > 1 ? &t->branch_pages : &t->leaf_pages) += 1;
    unsigned nkeys = (load16(p + 12) - (unsigned)sizeof(struct lmdb_page)) / 2;
    for (unsigned i = 0; i < nkeys; i++) {
        if (!take_node(f, t, p, i, depth)) {
            return false;
        }
    }
    return nkeys > (depth > 1 && !f->numbers ? 1u : 0u); /* what liblmdb asserts */
}

static bool db_good(struct file *f, const struct lmdb_db *db, bool numbers)
{
    struct tree t = {0};
    f->numbers = numbers;
    if (db->root == LMDB_NO_PAGE) {
        return db->depth == 0 && db->entries == 0;
    }
    return db->depth > 0 && db->depth <= LMDB_DEPTH_MAX && take_tree(f, &t, db->root, db->depth) &&
           t.branch_pages == db->branch_pages && t.leaf_pages == db->leaf_pages && t.overflow_pages == db->overflow_pages &&
           t.entries == db->entries;
}

/* ---- the file ---- */

enum { MDB_INTEGERKEY_FLAG = 0x08 };

static bool meta_good(const struct file *f, unsigned which, const struct lmdb_meta *m)
{
    const uint8_t *page = f->map + which * LMDB_PAGE;
    return load64(page) == which && load16(page + 10) == LMDB_META && m->magic == LMDB_MAGIC && m->version == LMDB_VERSION &&
           m->free_db.pad == LMDB_PAGE && m->free_db.flags == MDB_INTEGERKEY_FLAG && m->main_db.flags == 0 &&
           m->last_page >= 1 && m->last_page < f->bytes / LMDB_PAGE + UINT32_MAX / LMDB_PAGE;
}

static void metas_copy(const struct file *f, struct lmdb_meta m[2])
{
    for (unsigned i = 0; i < 2; i++) {
        memcpy(&m[i], f->map + i * LMDB_PAGE + sizeof(struct lmdb_page), sizeof m[i]);
    }
}

/* 0, -BDBI_EFORMAT, -BDBI_ENOMEM, or -BDBI_EBUSY: it changed meanwhile. */
static int file_good(struct file *f)
{
    struct lmdb_meta m[2], after[2];
    metas_copy(f, m);
    const struct lmdb_meta *newest = &m[m[1].txnid > m[0].txnid];
    bool good = meta_good(f, 0, &m[0]) && meta_good(f, 1, &m[1]);
    if (good) {
        f->last_page = newest->last_page;
        f->txnid = newest->txnid;
        f->used = calloc(1, f->last_page / 8 + 1);
        if (!f->used) {
            return -BDBI_ENOMEM;
        }
        good = db_good(f, &newest->main_db, false) && db_good(f, &newest->free_db, true);
        free(f->used);
    }
    __asm__ volatile("" ::: "memory");
    metas_copy(f, after);
    if (good) {
        return 0;
    }
    return memcmp(m, after, sizeof m) == 0 ? -BDBI_EFORMAT : -BDBI_EBUSY;
}

static int check_once(int fd)
{
    struct stat st, after;
    struct file f = {0};
    if (fstat(fd, &st) != 0) {
        return -BDBI_EIO;
    }
    if (st.st_size < 2 * LMDB_PAGE) {
        return -BDBI_EFORMAT;
    }
    f.bytes = (size_t)st.st_size;
    void *map = mmap(NULL, f.bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return errno == ENOMEM ? -BDBI_ENOMEM : -BDBI_EIO;
    }
    f.map = map;
    int rc = file_good(&f);
    munmap(map, f.bytes);
    if (rc == -BDBI_EFORMAT && fstat(fd, &after) == 0 && after.st_size != st.st_size) {
        return -BDBI_EBUSY; /* its meta page was read after a commit that went on behind the end that was known */
    }
    return rc;
}

int cachedb_check_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = -BDBI_EBUSY;
    if (fd < 0) {
        return errno == EACCES ? -BDBI_EACCES : errno == ENOENT ? -BDBI_ENOENT : -BDBI_EIO;
    }
    for (int i = 0; i < TRIES && rc == -BDBI_EBUSY; i++) {
        rc = check_once(fd);
    }
    close(fd);
    return rc == -BDBI_EBUSY ? 0 : rc; /* writers that busy have a good file */
}
