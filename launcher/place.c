/* SPDX-License-Identifier: Apache-2.0
 *
 * What of ours is where in the guest's address space, and what becomes of it when the guest wants the place.
 *
 *      bdbi itself, thread blocks, memory of the core      stays: the guest is refused
 *      code of images, of dropped ones too                 goes: the module runs by JIT
 *      the JIT's arenas                                    go by the granule, and grow elsewhere
 *
 * Threads that are still in code whose memory has gone find their way by its tables, which stay (address_map.c).
 */
#include "launcher/core.h"

#define MAX_OWN 4096

/* An entry with start 0 is free. Entries are taken without a lock: threads map memory at any time. */
static struct {
    uint64_t start, end;
} own[MAX_OWN] __attribute__((section(".bss.LAST")));
static uint32_t own_count; /* entries from here on have never been used */

void own_add(uint64_t start, uint64_t bytes)
{
    for (uint32_t i = 0; i < MAX_OWN; i++) {
        uint64_t free = 0;
        if (!__atomic_compare_exchange_n(&own[i].start, &free, start, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            continue;
        own[i].end = start + PAGE_UP(bytes);
        uint32_t seen = own_count;
        while (seen < i + 1 &&
               !__atomic_compare_exchange_n(&own_count, &seen, i + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
        return;
    }
}

void own_remove(uint64_t start)
{
    for (uint32_t i = 0; i < own_count; i++)
        if (own[i].start == start) {
            own[i].end = 0;
            __atomic_store_n(&own[i].start, 0, __ATOMIC_RELEASE);
            return;
        }
}

/* The first of what was offered that overlaps [start, end). */
struct search {
    uint64_t start, end;
    struct place found; /* start UINT64_MAX: none yet */
};

static void offer(struct search *s, uint64_t start, uint64_t end)
{
    if (start < s->end && s->start < end && start < s->found.start)
        s->found = (struct place){start, end};
}

static void offer_staying(struct search *s)
{
    offer(s, BDBI_IMAGE_BASE, BDBI_IMAGE_END);
    for (struct thread_ctx *t = threads; t; t = t->next)
        offer(s, (uint64_t)t, (uint64_t)t + THREAD_BLOCK_BYTES);
    for (uint32_t i = 0; i < own_count; i++)
        if (own[i].start)
            offer(s, own[i].start, own[i].end);
}

static void offer_code(struct search *s)
{
    struct place granule;
    for (struct module *m = modules; m; m = m->next)
        for (uint32_t i = 0; (!m->dropped || m->kept) && i < m->npieces; i++)
            offer(s, m->pieces[i].start, m->pieces[i].end);
    if (jit_granule(s->start, s->end, &granule))
        offer(s, granule.start, granule.end);
}

bool place_ours(uint64_t start, uint64_t end, struct place *out)
{
    struct search s = {start, end, {UINT64_MAX, 0}};
    offer_staying(&s);
    offer_code(&s);
    *out = s.found;
    return s.found.end != 0;
}

bool place_stays(uint64_t start, uint64_t end)
{
    struct search s = {start, end, {UINT64_MAX, 0}};
    offer_staying(&s);
    return s.found.end != 0;
}

void place_make_way(uint64_t start, uint64_t end)
{
    for (struct module *m = modules; m; m = m->next)
        if (!module_has_code(m, start, end))
            continue;
        else if (m->dropped && m->kept)
            module_unmap_code(m);
        else if (!m->dropped)
            module_detach(m); /* its double comes next */
    jit_make_way(start, end);
}
