/* SPDX-License-Identifier: Apache-2.0
 *
 * Links: cached jumps through pointers that ld.so makes read-only after relocation, which is the procedure linkage table of
 * what is linked with -z now.
 *
 *     app:  jmp [rip -> pointer]     emitted:  jmp rel32 -> 1f           linked:  jmp rel32 -> target's code
 *                                          1:  mov home(rcx), rcx             1:  mov home(rcx), rcx
 *                                              mov rcx, [rip -> pointer]          mov rcx, [rip -> pointer]
 *                                              ...                                ...
 *
 * A module is sealed from when the guest makes its pointers read-only until anything may change them. Linking it takes some
 * microseconds, which short runs do not earn back: it is done when the process has used some CPU time, for all that is
 * sealed then, and from then on at once. What is linked is what the lookup table knows and an image has; the code of the JIT
 * may go at any time. Whole pages are replaced in one call each, by private copies that differ in nothing but the links, since
 * other threads may run in them.
 */
#include "launcher/core.h"

#define LONG_RUN_NS 30000000 /* of CPU time */
#define LINKS_PER_PAGE 8     /* fewer are not worth a copy of the page */

bool links_wait;
static bool linking; /* the process has run for so long */

/* The links [first, end) of P, whose pages follow each other. */
struct run {
    uint32_t first, end;
    uint64_t start, bytes; /* their pages, from the code's first byte */
};

static const struct image_link *links_of(const struct code_piece *p)
{
    return image_part(p->image, image_links_offset(p->image));
}

/* The next run from R->end on that is worth it. A list that is not in order ends there: it is read from the store unchecked. */
static bool next_run(const struct code_piece *p, struct run *r)
{
    const struct image_link *links = links_of(p);
    uint32_t n = p->image->nlinks;
    do {
        r->first = r->end;
        if (r->first >= n)
            return false;
        while (++r->end < n && links[r->end].at - links[r->end - 1].at < PAGE_BYTES)
            ;
        if (links[r->end - 1].at < links[r->first].at || links[r->end - 1].at + 4ull > p->image->code_bytes)
            return false;
        r->start = PAGE_DOWN(links[r->first].at);
        r->bytes = PAGE_UP(links[r->end - 1].at + 4) - r->start;
    } while ((uint64_t)(r->end - r->first) * PAGE_BYTES < LINKS_PER_PAGE * r->bytes);
    return true;
}

/* A window's images; the JIT's code is behind them or elsewhere. */
static bool is_image_code(uint64_t code)
{
    uint64_t place = code < BDBI_WINDOW_BYTES ? code : code - window_base;
    return place >= BDBI_CODE_DISTANCE && place < BDBI_JIT_OFFSET;
}

/* The code that LINK of M leads to; 0: it is not known, or too far from AFTER, where the jump ends. */
static uint64_t find_target(const struct module *m, const struct image_link *link, uint64_t after)
{
    uint64_t target;
    if (copy_guest(&target, (const void *)(m->base + link->pointer), sizeof target))
        return 0;
    uint64_t code = ibl_find(target);
    return code && is_image_code(code) && (int64_t)(code - after) == (int32_t)(code - after) ? code : 0;
}

/* New pages for R: as in the cache, then linked if LINK. False: there is no memory for that. */
static bool put_run(const struct module *m, const struct code_piece *p, const struct run *r, bool link)
{
    const struct image_link *links = links_of(p);
    char *pages = code_copy((const char *)image_part(p->image, p->image->code_offset) + r->start, r->bytes);
    if (!pages)
        return false;
    for (uint32_t i = r->first; link && i < r->end; i++) {
        uint64_t after = p->start + links[i].at + 4, code = find_target(m, &links[i], after);
        uint32_t distance = (uint32_t)(code - after);
        if (code)
            memcpy(pages + (links[i].at - r->start), &distance, 4);
        stats.links += code != 0;
    }
    return code_replace(p->start + r->start, pages, r->bytes);
}

/* Links M, or takes its links back. */
static void put_links(struct module *m, bool link)
{
    bool done = true;
    link = link && !faults_served; /* reading a pointer could wait for one of the guest's threads */
    for (uint32_t i = 0; i < m->npieces; i++)
        for (struct run r = {0}; done && next_run(&m->pieces[i], &r);)
            done = put_run(m, &m->pieces[i], &r, link);
    if (!done && m->linked)
        die(125, "out of memory for the procedure linkage table of %s", m->path);
    m->linked = link;
}

static bool is_relro(const struct module *m, uint64_t start, uint64_t end)
{
    return m->npieces && m->relro_start < m->relro_end && start < m->base + m->relro_end && end > m->base + m->relro_start;
}

void links_seal(uint64_t start, uint64_t end)
{
    for (struct module *m = module_from(start); m && m->base < end; m = m->next)
        if (!m->dropped && is_relro(m, start, end) && start <= m->base + m->relro_start && end >= m->base + m->relro_end) {
            m->sealed = true;
            links_wait = !linking;
            if (linking && !m->linked)
                put_links(m, true);
        }
}

void links_restore(struct module *m)
{
    if (m->linked)
        put_links(m, true);
}

void links_make(void)
{
    if (process_cpu_ns() < LONG_RUN_NS)
        return;
    lock_take(&core_lock);
    links_wait = false;
    linking = true;
    for (struct module *m = modules; m; m = m->next)
        if (!m->dropped && m->sealed && !m->linked)
            put_links(m, true);
    lock_drop(&core_lock);
}

void links_unseal(uint64_t start, uint64_t bytes)
{
    for (struct module *m = module_from(start); m && m->base < start + bytes; m = m->next)
        if (m->sealed && is_relro(m, start, start + bytes)) {
            m->sealed = false;
            if (m->linked)
                put_links(m, false);
        }
}

void links_refuse(uint64_t start, uint64_t bytes)
{
    links_unseal(start, bytes);
    for (struct module *m = module_from(start); m && m->base < start + bytes; m = m->next)
        if (is_relro(m, start, start + bytes))
            m->relro_end = m->relro_start;
}

/* Whether any of M's links leads to GONE's code. */
static bool leads_to(const struct module *m, const struct module *gone)
{
    for (uint32_t i = 0; i < m->npieces; i++)
        for (struct run r = {0}; next_run(&m->pieces[i], &r);)
            for (uint32_t k = r.first; k < r.end; k++) {
                const int32_t *field = (const int32_t *)(m->pieces[i].start + links_of(&m->pieces[i])[k].at);
                uint64_t code = (uint64_t)(field + 1) + (uint64_t)(int64_t)*field;
                if (module_has_code(gone, code, code + 1))
                    return true;
            }
    return false;
}

void links_forget(struct module *gone)
{
    gone->sealed = false;
    if (gone->linked)
        put_links(gone, false);
    for (struct module *m = modules; m; m = m->next)
        if (m->linked && leads_to(m, gone))
            put_links(m, true);
}
