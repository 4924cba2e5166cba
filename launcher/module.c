/* SPDX-License-Identifier: Apache-2.0
 *
 * What the guest has mapped that can be executed: modules (files placed in a window), executable regions, window placement.
 *
 * All under core_lock once there is more than one thread.
 */
#include "launcher/core.h"

struct module *modules, *modules_loaded;
static struct module **loaded_end, *unused_modules; /* the end of modules_loaded; NULL: it is empty */
/* Where the last look-up ended: calls that concern a library follow each other. Not dropped, so those before it in the list end
 * before it. */
static struct module *near;
uint64_t window_base;
bool window_shared;

static struct exec_region *regions; /* ascending, disjoint */
static uint32_t region_count, region_capacity;

void window_init(uint64_t entropy)
{
    /* The kernel's PIE range: 2/3 of the address space, 28 bits of pages. */
    window_base = 0x555555554000ull + ((entropy & 0xfffffff) << 12);
}

static bool in_window(uint64_t address)
{
    return address >= window_base && address < window_base + BDBI_MODULES_BYTES;
}

void window_note(uint64_t start, uint64_t bytes)
{
    uint64_t low = BDBI_CODE_DISTANCE, code = window_base + low, end = BDBI_WINDOW_BYTES - low;
    if ((start < code + end && code < start + bytes) || (start < low + end && low < start + bytes))
        window_shared = true;
}

struct module *module_from(uint64_t address)
{
    struct module *m = near && near->base <= address ? near : modules;
    while (m && (m->end <= address || m->dropped))
        m = m->next;
    if (m)
        near = m;
    return m;
}

struct module *module_find(uint64_t address)
{
    struct module *m = module_from(address);
    return m && m->base <= address ? m : NULL;
}

void module_void(struct module *m)
{
    m->dropped = true;
    if (near == m)
        near = NULL;
}

void module_set_path(struct module *m, const char *path)
{
    m->path = heap_string(path);
}

struct module *module_add(uint64_t base, uint64_t span, const struct file_id *id, const char *path)
{
    struct module *m = unused_modules;
    if (m)
        unused_modules = m->next;
    else
        m = heap_alloc(sizeof *m);
    *m = (struct module){.base = base};
    m->end = base + span;
    m->reserved = span;
    m->code_end = base + BDBI_CODE_DISTANCE;
    if (id)
        m->id = *id;
    if (path)
        module_set_path(m, path);
    struct module **at = near && near->base < base ? &near->next : &modules;
    while (*at && (*at)->base < base)
        at = &(*at)->next;
    m->next = *at;
    *at = m;
    *(loaded_end ? loaded_end : &modules_loaded) = m;
    loaded_end = &m->loaded_next;
    stats.modules++;
    return m;
}

/* A module that never ran (a library that somebody only reads), or is over: nothing refers to it. */
static void module_recycle(struct module *m)
{
    struct module **at = &modules;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    for (at = &modules_loaded; *at != m;)
        at = &(*at)->loaded_next;
    *at = m->loaded_next;
    if (!*at)
        loaded_end = at;
    m->next = unused_modules;
    unused_modules = m;
}

/* No thread can be in the dropped module's code any more: its place may be another's. M may be recycled. */
static void module_leave(struct module *m)
{
    if (m->kept)
        module_unmap_code(m);
    if (options.tool)
        counts_keep(m);
    m->npieces = 0;
    if (m->jit_blocks == 0 && !m->counts && !exec_of_module(m, 0))
        module_recycle(m);
}

static uint64_t room_for(uint64_t span, uint64_t code)
{
    return PAGE_UP(span > code ? span : code) + PAGE_BYTES;
}

/* The module that is where one at BASE, with SPAN bytes and CODE bytes of code, would be; NULL: none. */
static const struct module *window_taken(uint64_t base, uint64_t span, uint64_t code)
{
    uint64_t end = base + room_for(span, code);
    for (struct module *m = modules, *next; m && m->base < end; m = next) {
        next = m->next;
        if (base >= m->base + PAGE_UP(m->reserved) + PAGE_BYTES)
            continue;
        if (!m->dropped || !code_reusable(m->dropped_at))
            return m;
        module_leave(m);
    }
    return NULL;
}

/* First fit between the modules of the window, which the list has in ascending order. A dropped one is in the way for as long
 * as a target cache may name its code. The window's start is the vdso's. */
static uint64_t window_place(uint64_t span, uint64_t code, uint64_t align)
{
    uint64_t need = room_for(span, code);
    if (align < BDBI_MODULE_ALIGN)
        align = BDBI_MODULE_ALIGN;
    uint64_t at = (window_base + VDSO_ROOM + align - 1) & ~(align - 1);
    for (struct module *m = modules, *next; m; m = next) {
        bool over = m->dropped && code_reusable(m->dropped_at);
        next = m->next;
        if (over)
            module_leave(m);
        if (over || !in_window(m->base))
            continue;
        if (at + need <= m->base)
            break;
        uint64_t after = m->base + PAGE_UP(m->reserved) + PAGE_BYTES;
        if (after > at)
            at = (after + align - 1) & ~(align - 1);
    }
    return at + need <= window_base + BDBI_MODULES_BYTES ? at : 0;
}

uint64_t module_place(const struct cached_images *images, const uint8_t content[32], uint64_t span, uint64_t align,
                      bool *displaced)
{
    uint64_t place = images->fixed_base % align == 0 ? images->fixed_base : 0;
    const struct module *there = place ? window_taken(place, span, images->code_bytes) : NULL;
    *displaced = there && memcmp(there->content, content, sizeof there->content);
    return place && !there ? place : window_place(span, images->code_bytes, align);
}

char *code_copy(const void *from, uint64_t bytes)
{
    long pages = core_mmap(0, bytes, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_POPULATE_, -1, 0);
    if (sys_failed(pages))
        return NULL;
    memcpy((void *)pages, from, bytes);
    return (char *)pages;
}

bool code_replace(uint64_t start, char *pages, uint64_t bytes)
{
    bool done = core_mprotect((uint64_t)pages, bytes, PROT_READ_ | PROT_EXEC_) >= 0 &&
                !sys_failed(sys5(__NR_mremap, pages, bytes, bytes, 3 /* MAYMOVE | FIXED */, start));
    if (!done)
        sys2(__NR_munmap, pages, bytes);
    return done;
}

uint64_t process_cpu_ns(void)
{
    struct kernel_timespec used;
    if (sys2(__NR_clock_gettime, 2 /* CLOCK_PROCESS_CPUTIME_ID */, &used) < 0)
        return 0;
    return (uint64_t)used.sec * 1000000000 + (uint64_t)used.nsec;
}

bool module_has_code(const struct module *m, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; start < m->code_end && m->base + BDBI_CODE_DISTANCE < end && i < m->npieces; i++)
        if (m->pieces[i].start < end && start < m->pieces[i].end)
            return true;
    return false;
}

void module_unmap_code(struct module *m)
{
    for (uint32_t i = 0; i < m->npieces; i++)
        sys2(__NR_munmap, m->pieces[i].start, m->pieces[i].end - m->pieces[i].start);
    m->kept = false;
}

static void keep_dropped(struct module *m)
{
    if (m->npieces) {
        ibl_purge(m->base, m->end);
        links_forget(m);
    }
    for (uint32_t i = 0; i < m->npieces; i++)
        core_mprotect(m->pieces[i].start, m->pieces[i].end - m->pieces[i].start, PROT_READ_);
    m->kept = m->npieces != 0;
    module_void(m);
    m->dropped_at = __atomic_add_fetch(&drop_generation, 1, __ATOMIC_SEQ_CST);
}

/* M may be recycled: do not go on from it. The guest's text has changed or gone: no translation made from it may run again.
 * Stragglers fault and are re-dispatched, those in the middle of an instruction's code after that (jit_open_dropped), so
 * the code is kept until none can be there. */
void module_drop(struct module *m)
{
    keep_dropped(m);
    if (m->npieces == 0 && m->jit_blocks == 0 && !exec_of_module(m, 0)) {
        module_recycle(m);
        return;
    }
    jit_drop(m->base, m->end);
}

void module_detach(struct module *m)
{
    struct module *old = heap_alloc(sizeof *old);
    *old = *m;
    old->jit_blocks = 0;
    m->next = m->loaded_next = old;
    if (loaded_end == &m->loaded_next)
        loaded_end = &old->loaded_next;
    m->npieces = 0;
    m->sealed = m->linked = false;
    keep_dropped(old);
    jit_drop(m->base, m->end); /* it may go on in the image */
}

/* ---- executable regions ---- */

static uint32_t region_after(uint64_t address)
{
    uint32_t low = 0, high = region_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (regions[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct exec_region *exec_find(uint64_t address)
{
    uint32_t i = region_after(address);
    return i < region_count && regions[i].start <= address ? &regions[i] : NULL;
}

uint64_t exec_next(uint64_t address)
{
    uint32_t i = region_after(address);
    return i < region_count ? regions[i].start : UINT64_MAX;
}

bool exec_overlaps(uint64_t start, uint64_t end)
{
    uint32_t i = region_after(start);
    return i < region_count && regions[i].start < end;
}

bool exec_overlaps_in(int pid, uint64_t start, uint64_t end, bool writable)
{
    const struct exec_region *there;
    struct exec_region some[64];
    uint32_t n, k;
    if (!remote_read(pid, &there, &regions, sizeof there) || !remote_read(pid, &n, &region_count, sizeof n))
        return true;
    for (uint32_t i = 0; i < n; i += k) {
        k = n - i < 64 ? n - i : 64;
        if (!remote_read(pid, some, there + i, k * sizeof *some))
            return true;
        for (uint32_t j = 0; j < k; j++)
            if (some[j].start < end && some[j].end > start && (some[j].writable || !writable))
                return true;
    }
    return false;
}

bool constants_overlap_in(int pid, uint64_t start, uint64_t end)
{
    const struct module *there;
    struct module m;
    bool known = remote_read(pid, &there, &modules, sizeof there);
    for (; known && there; there = m.next) {
        known = remote_read(pid, &m, there, sizeof m);
        if (known && !m.dropped && m.constants_start < m.constants_end && start < m.base + m.constants_end &&
            end > m.base + m.constants_start)
            return true;
        if (known && m.sealed && start < m.base + m.relro_end && end > m.base + m.relro_start)
            return true;
    }
    return !known;
}

/* The Nth executable range of the module, in ascending order. */
const struct exec_region *exec_of_module(const struct module *m, uint32_t n)
{
    for (uint32_t i = 0; i < region_count; i++)
        if (regions[i].module == m && n-- == 0)
            return &regions[i];
    return NULL;
}

static void region_insert(uint32_t at, struct exec_region region)
{
    if (region_count == region_capacity) {
        uint32_t capacity = region_capacity ? region_capacity * 2 : 16;
        struct exec_region *bigger = heap_alloc(capacity * sizeof *bigger);
        if (region_count)
            memcpy(bigger, regions, region_count * sizeof *bigger);
        regions = bigger;
        region_capacity = capacity;
    }
    memmove(regions + at + 1, regions + at, (region_count - at) * sizeof *regions);
    regions[at] = region;
    region_count++;
}

static void region_delete(uint32_t at)
{
    region_count--;
    memmove(regions + at, regions + at + 1, (region_count - at) * sizeof *regions);
}

void exec_remove(uint64_t start, uint64_t end)
{
    uint32_t i = region_after(start);
    bool any = false;
    while (i < region_count && regions[i].start < end) {
        struct exec_region old = regions[i];
        struct module *m = old.module;
        any = true;
        region_delete(i);
        if (old.start < start)
            region_insert(i++, (struct exec_region){old.start, start, m, old.writable});
        if (old.end > end)
            region_insert(i, (struct exec_region){end, old.end, m, old.writable});
        if (m && !m->dropped)
            module_drop(m);
    }
    if (any)
        jit_drop(start, end);
}

void exec_add(uint64_t start, uint64_t end, struct module *m, bool writable)
{
    uint32_t i = region_after(start);
    if (i > 0 && regions[i - 1].end == start && regions[i - 1].module == m && regions[i - 1].writable == writable &&
        (i == region_count || regions[i].start >= end)) {
        regions[i - 1].end = end;
        return;
    }
    region_insert(i, (struct exec_region){start, end, m, writable});
}
