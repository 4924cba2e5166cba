/* SPDX-License-Identifier: Apache-2.0
 *
 * Counters and marks of all threads, for tools' reports; those of modules that have gone; and what of them the learner is told.
 *
 * An image has its counters in the order of its blocks, but those of blocks that earlier runs have run come first: a run
 * touches few pages of them then. A process that has touched many others says at its end which blocks they are of
 * (counts_learn).
 */
#include "launcher/core.h"

/* Most pages of a big module's counters are never touched. Asking the kernel which ones are is a tenth of the time it takes to
 * read them all, each for the first time. */
#define WINDOW_PAGES 512
#define WORTH_ASKING 4 /* pages */

static int pagemap;
static bool pagemap_open;

static void open_pagemap(void)
{
    pagemap = (int)sys4(__NR_openat, AT_FDCWD_, "/proc/self/pagemap", O_RDONLY_ | O_CLOEXEC_, 0);
    pagemap_open = pagemap >= 0;
}

static void close_pagemap(void)
{
    if (pagemap_open)
        sys1(__NR_close, pagemap);
    pagemap_open = false;
}

/* Some of N counters or marks, WIDTH bytes each from ADDRESS on (gs-based). */
struct data_range {
    uint64_t address;
    uint32_t width, n;
    uint32_t module_index;
    const char *module;
    const struct image_counter *info; /* what the tool registered for each */
    const void *kept;                 /* the values, when they are not with the threads */
    struct code_piece *piece;         /* whose they are; NULL: no image's, or no matter */
    const struct jit_chunk *chunk;    /* the same */
    uint32_t ran;                     /* how many of PIECE's, from ADDRESS on, are of blocks that had run before */
};

/* The counters and marks of an image, summed over the threads, that was at a place that is or may be another's now. */
struct kept_counts {
    struct kept_counts *next;
    const struct image_header *image;
    uint64_t counters[]; /* and marks behind them */
};

/* Calls FN for all parts of R, of a page each, that some thread may have touched. */
static void each_touched(const struct data_range *r, void (*fn)(void *user, const struct data_range *part), void *user)
{
    static bool touched[WINDOW_PAGES] CORE_LARGE;
    for (uint32_t i = 0; i < r->n;) {
        uint64_t start = PAGE_DOWN(r->address + (uint64_t)r->width * i),
                 pages = (PAGE_UP(r->address + (uint64_t)r->width * r->n) - start) / PAGE_BYTES;
        bool asked = pages >= WORTH_ASKING && pagemap_open;
        pages = pages < WINDOW_PAGES ? pages : WINDOW_PAGES;
        asked = asked && thread_counters_touched(start, (uint32_t)pages, pagemap, touched);
        for (uint64_t page = 0; page < pages; page++) {
            uint64_t after = (start + (page + 1) * PAGE_BYTES - r->address) / r->width;
            uint32_t last = after < r->n ? (uint32_t)after : r->n;
            struct data_range part = *r;
            part.address += (uint64_t)r->width * i;
            part.info += i;
            part.n = last - i;
            if (!asked || touched[page])
                fn(user, &part);
            if (asked && touched[page] && r->piece && i >= r->ran)
                r->piece->strays++;
            i = last;
        }
    }
}

static void one_table(uint64_t start, uint32_t ncounters, uint32_t nmarks, const struct image_counter *info,
                      struct data_range *r, void (*fn)(void *user, const struct data_range *r), void *user)
{
    bool marks = r->width == 1;
    r->address = start + (marks ? 8ull * ncounters : 0);
    r->info = info + (marks ? ncounters : 0);
    r->n = marks ? nmarks : ncounters;
    if (r->n)
        fn(user, r);
}

static void piece_table(struct code_piece *p, struct data_range *r, void (*fn)(void *user, const struct data_range *r),
                        void *user)
{
    r->piece = p;
    r->ran = r->width == 1 ? p->data.ran_marks : p->data.ran_counters;
    one_table(piece_data(p), p->data.ncounters, p->data.nmarks, image_part(p->image, p->data.counters_offset), r, fn, user);
    r->piece = NULL;
}

static void chunk_tables(const struct module *m, struct data_range *r, void (*fn)(void *user, const struct data_range *r),
                         void *user)
{
    for (int dropped = 0; dropped < 2; dropped++)
        for (struct jit_chunk *k = dropped ? jit_dropped : jit_chunks; k; k = k->next)
            if (k->module == m) {
                r->chunk = k;
                one_table(k->start, k->ncounters, k->nmarks, k->counters, r, fn, user);
            }
    r->chunk = NULL;
}

static void kept_table(const struct kept_counts *k, struct data_range *r, void (*fn)(void *user, const struct data_range *r),
                       void *user)
{
    const struct image_header *image = k->image;
    r->kept = r->width == 1 ? (const void *)(k->counters + image->ncounters) : k->counters;
    one_table(0, image->ncounters, image->nmarks, image_part(image, image->counters_offset), r, fn, user);
    r->kept = NULL;
}

static const char *path_of(const struct module *m)
{
    return m->path && m->path[0] ? m->path : "[unknown]";
}

/* Calls FN for the counters (WIDTH 8) or marks (1) of each image and each chunk, module by module in order of loading. */
static void each_table(uint32_t width, void (*fn)(void *user, const struct data_range *r), void *user)
{
    struct data_range r = {.width = width};
    for (struct module *m = modules_loaded; m; m = m->loaded_next) {
        r.module = path_of(m);
        for (uint32_t i = 0; i < m->npieces; i++)
            piece_table(&m->pieces[i], &r, fn, user);
        for (const struct kept_counts *k = m->counts; k; k = k->next)
            kept_table(k, &r, fn, user);
        if (m->jit_blocks)
            chunk_tables(m, &r, fn, user);
        r.module_index++;
    }
    r.module = "[anon]";
    r.module_index = UINT32_MAX;
    chunk_tables(NULL, &r, fn, user);
}

/* ---- counters ---- */

struct counter_visit {
    void (*fn)(const struct bdbi_counter *c, void *user);
    void *user;
};

static void visit_counters(void *user, const struct data_range *r)
{
    static uint64_t sums[PAGE_BYTES / 8] CORE_LARGE;
    const struct counter_visit *v = user;
    struct bdbi_counter c = {.module = r->module, .module_index = r->module_index};
    const uint64_t *counts = r->kept ? r->kept : thread_sum_counters(r->address, r->n, sums);
    for (uint32_t i = 0; i < r->n; i++) {
        uint64_t count = counts[i];
        if (!count) /* most are */
            continue;
        c.count = count;
        c.info = r->info[i].info;
        v->fn(&c, v->user);
    }
}

static void visit_table(void *user, const struct data_range *r)
{
    if (r->kept)
        visit_counters(user, r);
    else
        each_touched(r, visit_counters, user);
}

void bdbi_run_counters(struct bdbi_run *run, void (*fn)(const struct bdbi_counter *c, void *user), void *user)
{
    struct counter_visit v = {fn, user};
    (void)run;
    open_pagemap();
    each_table(8, visit_table, &v);
    close_pagemap();
}

/* ---- marks ---- */

/* All marks of all threads on pages that any has touched, in the order of each_table, as they were when the report first
 * asked: one of these after the other. */
struct marks_part {
    struct data_range of;
    uint8_t set[]; /* OF.n, then to a multiple of 8 */
};

static struct {
    char *start, *end; /* NULL: not taken */
    uint64_t bytes;
} marks;

static uint64_t part_bytes(uint64_t n)
{
    return sizeof(struct marks_part) + (n + 7) / 8 * 8;
}

static void add_bytes(void *user, const struct data_range *r)
{
    *(uint64_t *)user += part_bytes(r->n) + (r->n / PAGE_BYTES + 1) * part_bytes(8);
}

static void merge_part(void *user, const struct data_range *r)
{
    struct marks_part *part = (struct marks_part *)marks.end;
    (void)user;
    part->of = *r;
    if (r->kept)
        memcpy(part->set, r->kept, r->n);
    else
        thread_merge_marks(r->address, r->n, part->set);
    marks.end += part_bytes(r->n);
}

static void merge_table(void *user, const struct data_range *r)
{
    if (r->kept)
        merge_part(user, r);
    else
        each_touched(r, merge_part, user);
}

static void take_marks(void)
{
    each_table(1, add_bytes, &marks.bytes);
    if (!marks.bytes)
        return;
    long p = core_mmap(0, marks.bytes, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_, -1, 0);
    if (sys_failed(p)) {
        warn("no memory for a copy of the marks");
        return;
    }
    marks.start = marks.end = (char *)p;
    open_pagemap();
    each_table(1, merge_table, NULL);
    close_pagemap();
}

static uint64_t visit_part(const struct marks_part *part, void (*fn)(const struct bdbi_mark *m, void *user), void *user)
{
    uint64_t set = 0;
    for (uint32_t i = 0; i < part->of.n; i++) {
        uint64_t eight;
        memcpy(&eight, part->set + i / 8 * 8, 8);
        if (i % 8 == 0 && !eight) { /* most are */
            i += 7;
            continue;
        }
        struct bdbi_mark mark = {.module_index = part->of.module_index, .info = part->of.info[i].info};
        if (!part->set[i])
            continue;
        set++;
        if (fn)
            fn(&mark, user);
    }
    return set;
}

uint64_t bdbi_run_marks(struct bdbi_run *run, void (*fn)(const struct bdbi_mark *m, void *user), void *user)
{
    uint64_t set = 0;
    (void)run;
    if (!marks.start)
        take_marks();
    for (const char *at = marks.start; at < marks.end;) {
        const struct marks_part *part = (const struct marks_part *)at;
        set += visit_part(part, fn, user);
        at += part_bytes(part->of.n);
    }
    return set;
}

void counts_done(void)
{
    if (marks.start)
        unmap_own(marks.start, marks.bytes);
    memset(&marks, 0, sizeof marks);
}

uint32_t bdbi_run_modules(struct bdbi_run *run, void (*fn)(const struct bdbi_module *m, void *user), void *user)
{
    uint32_t n = 0;
    (void)run;
    for (struct module *m = modules_loaded; m; m = m->loaded_next) {
        struct bdbi_module module = {.path = path_of(m), .index = n++, .start = m->base, .end = m->end};
        if (fn)
            fn(&module, user);
    }
    return n;
}

/* ---- of modules that have gone ---- */

/* Where the counts of IMAGE are kept: with the first module that had it, or from now on with M. */
static struct kept_counts *keeper_of(struct module *m, const struct image_header *image)
{
    for (struct module *other = modules_loaded; other; other = other->loaded_next)
        for (struct kept_counts *k = other->counts; k; k = k->next)
            if (k->image == image)
                return k;
    struct kept_counts *k = map_or_die(0, sizeof *k + 8ull * image->ncounters + image->nmarks, PROT_READ_ | PROT_WRITE_,
                                       MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_);
    *k = (struct kept_counts){.next = m->counts, .image = image};
    return m->counts = k;
}

struct keeping {
    uint64_t table;
    uint64_t *counters;
    uint8_t *marks;
};

static void keep_part(void *user, const struct data_range *r)
{
    const struct keeping *k = user;
    uint64_t first = (r->address - k->table) / r->width;
    if (r->width == 1)
        thread_merge_marks(r->address, r->n, k->marks + first);
    else {
        static uint64_t sums[PAGE_BYTES / 8] CORE_LARGE;
        const uint64_t *counts = thread_sum_counters(r->address, r->n, sums);
        for (uint32_t i = 0; i < r->n; i++)
            if (counts[i])
                k->counters[first + i] += counts[i];
    }
}

static void keep_table(void *user, const struct data_range *r)
{
    struct keeping *k = user;
    k->table = r->address;
    each_touched(r, keep_part, k);
}

void counts_keep(struct module *m)
{
    for (uint32_t i = 0; i < m->npieces; i++) {
        const struct image_header *image = m->pieces[i].image;
        uint64_t start = piece_data(&m->pieces[i]), bytes = 8ull * image->ncounters + image->nmarks;
        if (!bytes)
            continue;
        struct kept_counts *kept = keeper_of(m, image);
        struct keeping k = {.counters = kept->counters, .marks = (uint8_t *)(kept->counters + image->ncounters)};
        open_pagemap();
        for (uint32_t width = 1; width <= 8; width += 7) {
            struct data_range r = {.width = width};
            one_table(start, image->ncounters, image->nmarks, image_part(image, image->counters_offset), &r, keep_table, &k);
        }
        close_pagemap();
        thread_clear_counters(start, PAGE_UP(start + bytes));
    }
}

void counts_forget(void)
{
    for (struct module *m = modules_loaded; m; m = m->loaded_next)
        for (struct kept_counts *k = m->counts; k; k = k->next)
            memset(k->counters, 0, 8ull * k->image->ncounters + k->image->nmarks);
}

/* ---- what the learner is told ---- */

#define FEW_STRAYS 4 /* pages: fewer are not worth another image */

struct telling {
    struct module *m;
    struct misslog_record *record;
    uint32_t *offsets, room, n;
    bool strays, told;
};

/* Appends what has been noted, and makes room for more. */
static void tell(struct telling *t)
{
    if (t->n > 1u + t->strays)
        t->told |= log_end(t->record, t->offsets, t->n);
    t->n = 0;
    t->offsets = log_begin(t->m, &t->record, &t->room);
    if (t->offsets && t->strays)
        t->offsets[t->n++] = MISSLOG_STRAYS;
    if (t->offsets)
        t->offsets[t->n++] = MISSLOG_RAN;
}

/* Where what counters and marks are of is written down. */
struct owned {
    const struct image_counter *counters;
    const uint32_t *owners;
    const struct image_block *blocks;
    uint32_t nblocks;
};

static struct owned owned_by(const struct data_range *r)
{
    const struct jit_chunk *k = r->chunk;
    if (k)
        return (struct owned){k->counters, k->owners, k->blocks, k->nblocks};
    const struct image_header *image = r->piece->image;
    return (struct owned){image_part(image, image->counters_offset), image_part(image, image_owners_offset(image)),
                          image_part(image, image->blocks_offset), image->nblocks};
}

static void tell_part(void *user, const struct data_range *r)
{
    static uint64_t values[PAGE_BYTES / 8] CORE_LARGE;
    struct telling *t = user;
    struct owned of = owned_by(r);
    const uint32_t *owners = of.owners + (r->info - of.counters);
    const uint64_t *counts = values;
    const uint8_t *set = (const uint8_t *)values;
    if (r->width == 1) {
        memset(values, 0, sizeof values);
        thread_merge_marks(r->address, r->n, (uint8_t *)values);
    } else
        counts = thread_sum_counters(r->address, r->n, values);
    for (uint32_t i = 0; i < r->n; i++) {
        if (!(r->width == 1 ? set[i] : counts[i] != 0) || owners[i] >= of.nblocks) /* the store is not trusted */
            continue;
        if (t->n == t->room)
            tell(t);
        if (t->offsets)
            t->offsets[t->n++] = of.blocks[owners[i]].app_offset;
    }
}

static void tell_table(void *user, const struct data_range *r)
{
    each_touched(r, tell_part, user);
}

/* Tells which blocks of T's module ran: of its base image (extents are small) if that is worth it, and of the JIT's chunks. */
static void tell_module(struct telling *t)
{
    struct code_piece *p = t->m->pieces;
    uint32_t ran = (p->data.ran_counters * 8 + p->data.ran_marks) / PAGE_BYTES;
    bool strays = t->m->npieces && p->strays > FEW_STRAYS + ran / 4;
    p->strays = 0;
    if (t->m->dropped || (!strays && !t->m->jit_blocks))
        return;
    t->strays = strays || options.train;
    tell(t);
    open_pagemap();
    for (uint32_t width = 1; width <= 8; width += 7) {
        struct data_range r = {.width = width};
        if (strays)
            piece_table(p, &r, tell_table, t);
        if (t->m->jit_blocks)
            chunk_tables(t->m, &r, tell_table, t);
    }
    close_pagemap();
    tell(t);
    t->n = 0;
}

bool counts_learn(void)
{
    struct telling t = {0};
    if (!options.tool || options.no_learn || !options.cache)
        return false;
    for (t.m = modules; t.m; t.m = t.m->next)
        tell_module(&t);
    return t.told;
}
