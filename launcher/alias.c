/* SPDX-License-Identifier: Apache-2.0
 *
 * A file mapped shared at two places, one to write code at, one to run it from: what a JIT does that wants no page writable and
 * executable (.NET, libffi on hardened systems).
 *
 *      memfd page n  -->  view A, writable           a write here must drop the code made from view B
 *                    -->  view B, executable         its translation write-protects page n in view A
 *
 * All under core_lock. Writes through the file itself are seen by the calls that make them (alias_file_written). What other
 * processes may write, who have the memory too, is checked each time a block runs (alias_view).
 */
#include "launcher/core.h"

#define SEGMENTS UINT64_MAX /* the device of System V segments; their inodes are their numbers */

struct view {
    uint64_t start, end, offset; /* in the file */
    uint64_t device, inode;
    bool writable, executable;
};

#define ANONYMOUS (UINT64_MAX - 1) /* and of shared memory without a file */

/* Memory files, and shared memory from `own_anonymous` on, that this process has made: nobody else has them until they leave
 * it, by a fork or in a message. */
static struct place_of_file made[16];
uint32_t alias_made_count;
static uint64_t own_anonymous, next_anonymous;

static struct view *views;
static uint32_t count, capacity;
bool alias_executable;

static bool is_own(uint64_t device, uint64_t inode)
{
    bool own = device == ANONYMOUS && inode >= own_anonymous;
    for (uint32_t i = 0; i < alias_made_count && !own; i++)
        own = made[i].device == device && made[i].inode == inode;
    return own;
}

static void add(uint64_t start, uint64_t bytes, uint64_t device, uint64_t inode, uint64_t offset, int prot)
{
    if (count == capacity) {
        struct view *bigger = heap_alloc((capacity = capacity ? 2 * capacity : 32) * sizeof *bigger);
        if (count)
            memcpy(bigger, views, count * sizeof *bigger);
        views = bigger;
    }
    alias_executable |= prot & PROT_EXEC_;
    views[count++] = (struct view){start, start + PAGE_UP(bytes), offset, device, inode, prot & PROT_WRITE_, prot & PROT_EXEC_};
}

void alias_add(uint64_t start, uint64_t bytes, int fd, uint64_t offset, int prot)
{
    struct kernel_stat st;
    if (prot != PROT_READ_ && sys2(__NR_fstat, fd, &st) == 0)
        add(start, bytes, st.st_dev, st.st_ino, offset, prot);
}

void alias_add_segment(uint64_t start, uint64_t bytes, int id, int prot)
{
    add(start, bytes, SEGMENTS, (uint64_t)id, 0, prot);
}

void alias_add_anonymous(uint64_t start, uint64_t bytes, int prot)
{
    add(start, bytes, ANONYMOUS, next_anonymous++, 0, prot);
}

uint64_t alias_segment_bytes(uint64_t start)
{
    for (uint32_t i = 0; i < count; i++)
        if (views[i].device == SEGMENTS && views[i].start == start)
            return views[i].end - start;
    return 0;
}

/* The guest takes [start, end) away. A view that loses its middle keeps its lower part only. */
void alias_forget(uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < count;) {
        struct view *v = &views[i];
        if (start <= v->start && end > v->start) {
            uint64_t cut = end < v->end ? end - v->start : v->end - v->start;
            v->start += cut;
            v->offset += cut;
        } else if (start < v->end && start > v->start)
            v->end = start;
        if (v->start == v->end)
            *v = views[--count];
        else
            i++;
    }
}

void alias_move(uint64_t start, uint64_t old_bytes, uint64_t to, uint64_t bytes)
{
    for (uint32_t i = 0; i < count; i++) {
        struct view v = views[i];
        if (start < v.start || start >= v.end)
            continue;
        if (old_bytes) /* none: the mapping stays and is made once more */
            alias_forget(start, start + old_bytes);
        int prot = (v.writable ? PROT_WRITE_ : 0) | (v.executable ? PROT_EXEC_ : 0);
        add(to, bytes, v.device, v.inode, v.offset + (start - v.start), prot);
        return;
    }
}

static const struct view *view_at(uint64_t address, bool executable)
{
    for (uint32_t i = 0; i < count; i++)
        if (address >= views[i].start && address < views[i].end && (executable ? views[i].executable : views[i].writable))
            return &views[i];
    return NULL;
}

/* The part of V that shows the same bytes of the file as [start, end) of FROM. Empty: start == end. */
static void same_bytes(const struct view *v, const struct view *from, uint64_t *start, uint64_t *end)
{
    uint64_t low = from->offset + (*start - from->start), high = low + (*end - *start),
             v_high = v->offset + (v->end - v->start);
    *start = *end = 0;
    if (v == from || v->device != from->device || v->inode != from->inode || low >= v_high || high <= v->offset)
        return;
    *start = v->start + (low > v->offset ? low - v->offset : 0);
    *end = v->start + ((high < v_high ? high : v_high) - v->offset);
}

/* Code is about to be made from [start, end): its writable views are write-protected. True: there are some. */
bool alias_protect(uint64_t start, uint64_t end)
{
    const struct view *from = view_at(start, true);
    bool any = false;
    for (uint32_t i = 0; from && i < count; i++) {
        uint64_t low = start, high = end < from->end ? end : from->end;
        same_bytes(&views[i], from, &low, &high);
        if (low == high || !views[i].writable)
            continue;
        jit_protect(&low, &high, views[i].start, views[i].end, PROT_READ_);
        any = true;
    }
    return any;
}

enum alias_kind alias_view(uint64_t address)
{
    const struct view *v = view_at(address, true);
    return !v ? ALIAS_NONE : is_own(v->device, v->inode) ? ALIAS_OWN : ALIAS_OTHERS;
}

void alias_made(int fd)
{
    struct kernel_stat st;
    if (sys2(__NR_fstat, fd, &st) < 0)
        return;
    lock_take(&core_lock);
    if (alias_made_count < sizeof made / sizeof *made)
        made[alias_made_count++] = (struct place_of_file){.device = st.st_dev, .inode = st.st_ino};
    lock_drop(&core_lock);
}

void alias_leaves(void)
{
    for (uint32_t i = 0; i < count; i++)
        if (views[i].executable && is_own(views[i].device, views[i].inode))
            jit_drop(views[i].start, views[i].end); /* it is not checked */
    alias_made_count = 0;
    own_anonymous = next_anonymous;
}

/* Drops the code made from the executable views of what [start, end) of FROM shows. */
static void drop_code(uint64_t start, uint64_t end, const struct view *from)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t low = start, high = end;
        same_bytes(&views[i], from, &low, &high);
        if (low != high && views[i].executable)
            jit_drop(low, high);
    }
}

/* The guest writes to [start, end): the code made from its executable views goes, the pages open. True: it is such a view. */
bool alias_open(uint64_t start, uint64_t end)
{
    const struct view *from = view_at(start, false);
    if (!from)
        return false;
    if (end > from->end)
        end = from->end;
    drop_code(start, end, from);
    if (core_mprotect(start, end - start, PROT_READ_ | PROT_WRITE_) == -E_INVAL) { /* a part of a huge page */
        drop_code(from->start, from->end, from);
        jit_protect(&start, &end, from->start, from->end, PROT_READ_ | PROT_WRITE_);
    }
    return true;
}

void alias_change(uint64_t start, uint64_t end, int prot)
{
    for (uint32_t i = 0, n = count; i < n; i++) {
        struct view v = views[i];
        uint64_t low = start > v.start ? start : v.start, high = end < v.end ? end : v.end;
        int was = (v.writable ? PROT_WRITE_ : 0) | (v.executable ? PROT_EXEC_ : 0);
        if (low >= high || was == (prot & (PROT_WRITE_ | PROT_EXEC_)))
            continue;
        views[i] =
            (struct view){low, high, v.offset + (low - v.start), v.device, v.inode, prot & PROT_WRITE_, prot & PROT_EXEC_};
        alias_executable |= prot & PROT_EXEC_;
        if (v.start < low)
            add(v.start, low - v.start, v.device, v.inode, v.offset, was);
        if (high < v.end)
            add(high, v.end - high, v.device, v.inode, v.offset + (high - v.start), was);
        if (prot & PROT_WRITE_ && !v.writable) /* nothing made from its bytes has write-protected it */
            drop_code(low, high, &views[i]);
    }
}

/* Opens every writable view. True: there are some with an executable one. */
bool alias_open_all(void)
{
    bool any = false;
    uint64_t before = drop_generation;
    for (uint32_t i = 0; i < count; i++)
        if (views[i].writable)
            any |= alias_open(views[i].start, views[i].end);
    return any && drop_generation != before;
}

/* The guest has written to the file FD: the code made from shared views of it goes. Takes the lock. */
void alias_file_written(int fd)
{
    struct kernel_stat st;
    if (sys2(__NR_fstat, fd, &st) == 0)
        alias_written(&st);
}

void alias_written(const struct kernel_stat *st)
{
    lock_take(&core_lock);
    for (uint32_t i = 0; i < count; i++)
        if (views[i].executable && views[i].device == st->st_dev && views[i].inode == st->st_ino)
            jit_drop(views[i].start, views[i].end);
    lock_drop(&core_lock);
}
