/* SPDX-License-Identifier: Apache-2.0
 *
 * Marks that are set need not be set again: in a process that has run for a while, and again whenever it has run for twice as
 * long, the stores of marks that any thread has set become instructions of the same length that do nothing.
 *
 *     65 c6 05 <distance> 01   mov byte ptr gs:[rip -> mark], 1      0f 1f 84 00 00 00 00 00   nop
 *
 * As for links (links.c), whole pages are replaced in one call each by private copies, since other threads may run in them.
 * Pages with few such marks stay as they are. A forked child begins without marks, so it gets the cache's code back.
 */
#include "launcher/core.h"

#define FIRST_NS 100000000 /* of CPU time */
#define MARKS_PER_PAGE 8   /* fewer are not worth a copy of the page */
#define RUN_MARKS 2048     /* most in a run of pages */
#define RUN_GAP PAGE_BYTES /* pages without any that a run goes on over */
#define MARK_BYTES 8       /* of the store */
#define MARKS_AT_ONCE 4096

bool marks_wait;
static uint64_t settled_at; /* CPU time when that was done last */

/* Stores to take out, by their distance from the code's first byte, on pages that follow each other. */
struct run {
    uint32_t at[RUN_MARKS];
    uint32_t n;
};

/* Whether the code at AT is the store of the mark at MARK, both from the code's first byte. */
static bool is_store(const struct code_piece *p, uint32_t at, uint64_t mark)
{
    const uint8_t *code = (const uint8_t *)p->start + at;
    int32_t distance;
    if ((uint64_t)at + MARK_BYTES > p->image->code_bytes || code[0] != 0x65 || code[1] != 0xc6 || code[2] != 0x05 ||
        code[7] != 1)
        return false;
    memcpy(&distance, code + 3, sizeof distance);
    return at + MARK_BYTES + (uint64_t)(int64_t)distance == mark;
}

/* False: there is no memory for that. */
static bool put_run(const struct code_piece *p, struct run *r)
{
    static const uint8_t nop[MARK_BYTES] = {0x0f, 0x1f, 0x84};
    uint64_t first = r->n ? PAGE_DOWN(r->at[0]) : 0, bytes = r->n ? PAGE_UP(r->at[r->n - 1] + MARK_BYTES) - first : 0;
    uint32_t n = r->n;
    r->n = 0;
    if ((uint64_t)n * PAGE_BYTES < MARKS_PER_PAGE * bytes || n == 0)
        return true;
    char *pages = code_copy((const void *)(p->start + first), bytes);
    if (!pages)
        return false;
    for (uint32_t i = 0; i < n; i++)
        memcpy(pages + (r->at[i] - first), nop, sizeof nop);
    stats.settled += n;
    return code_replace(p->start + first, pages, bytes);
}

/* The stores of the set ones among N marks from FIRST on: the first mark of each block. */
static bool settle_some(const struct code_piece *p, uint32_t first, uint32_t n, struct run *r)
{
    static uint8_t set[MARKS_AT_ONCE] CORE_LARGE;
    const struct image_header *h = p->image;
    const struct image_block *blocks = image_part(h, h->blocks_offset);
    const uint32_t *owners = (const uint32_t *)image_part(h, image_owners_offset(h)) + h->ncounters;
    uint64_t marks = 8ull * h->ncounters; /* from the code's first byte */
    memset(set, 0, n);
    thread_merge_marks(p->start + marks + first, n, set);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t owner = set[i] ? owners[first + i] : h->nblocks;
        if (owner >= h->nblocks) /* the store is not trusted */
            continue;
        uint32_t at = blocks[owner].code_offset;
        if (!is_store(p, at, marks + first + i))
            continue;
        bool apart = r->n && (at < r->at[r->n - 1] || at > PAGE_UP(r->at[r->n - 1] + MARK_BYTES) + RUN_GAP);
        if ((apart || r->n == RUN_MARKS) && !put_run(p, r))
            return false;
        r->at[r->n++] = at;
    }
    return true;
}

static bool settle_piece(const struct code_piece *p)
{
    static struct run r CORE_LARGE;
    r.n = 0;
    for (uint32_t i = 0; i < p->image->nmarks && !p->data.address;
         i += MARKS_AT_ONCE) { /* the vdso's stores have another form */
        uint32_t left = p->image->nmarks - i;
        if (!settle_some(p, i, left < MARKS_AT_ONCE ? left : MARKS_AT_ONCE, &r))
            return false;
    }
    return put_run(p, &r);
}

void marks_settle(void)
{
    uint64_t now = process_cpu_ns();
    if (now < FIRST_NS || now < 2 * settled_at)
        return;
    settled_at = now;
    lock_take(&core_lock);
    for (struct module *m = modules; m && marks_wait; m = m->next)
        for (uint32_t i = 0; i < m->npieces && !m->dropped; i++) {
            m->settled = true;
            marks_wait = marks_wait && settle_piece(&m->pieces[i]);
        }
    lock_drop(&core_lock);
}

void marks_forget(void)
{
    if (!settled_at) /* nothing has been taken out: most processes */
        return;
    settled_at = 0;
    for (struct module *m = modules; m; m = m->next) {
        if (!m->settled || m->dropped)
            continue;
        for (uint32_t i = 0; i < m->npieces; i++)
            if (!cache_restore(&m->pieces[i]))
                die(125, "out of memory for the code of %s", m->path);
        m->settled = false;
        links_restore(m);
    }
}
