/* SPDX-License-Identifier: Apache-2.0
 *
 * The indirect-branch lookup table that entry.S reads.
 *
 * Entry { -pc, code } is at index(pc) or in the first free slot after it. A slot belongs to one pc for ever: its key is written
 * once, after its code, and only the code changes later (one word). Code that has gone is replaced by core_ibl_stale, which
 * leads to the dispatcher. A table that is filling up is replaced by the next size; the old one is kept, since a thread may be
 * reading it. Written under core_lock.
 */
#include "launcher/core.h"

enum ibl_size { IBL_MICRO, IBL_TINY, IBL_SMALL, IBL_BIG, IBL_HUGE, IBL_SIZES };
#define IBL_TAIL 64 /* slots after the highest index; the last stays free, so that every search ends */

static struct {
    struct ibl_entry *entries;
    uint32_t size; /* enum ibl_size */
    uint32_t used;
} ibl;
static struct ibl_entry *old_tables[IBL_SIZES];

static const uint32_t ibl_entries[IBL_SIZES] = {
    255 + 255 * 4 + IBL_TAIL, 255 + 255 * 16 + IBL_TAIL,     255 + 255 * 64 + IBL_TAIL,
    65535 + IBL_TAIL,         65535 + 255 * 1024 + IBL_TAIL,
};

static uint32_t ibl_index(uint32_t size, uint64_t pc)
{
    uint64_t h = 0;
    __asm__("crc32q %1, %0" : "+r"(h) : "r"(pc));
    switch (size) {
    case IBL_MICRO:
        return (uint32_t)((h & 0xff) + 4 * ((h >> 8) & 0xff));
    case IBL_TINY:
        return (uint32_t)((h & 0xff) + 16 * ((h >> 8) & 0xff));
    case IBL_SMALL:
        return (uint32_t)((h & 0xff) + 64 * ((h >> 8) & 0xff));
    case IBL_BIG:
        return (uint32_t)(h & 0xffff);
    default:
        return (uint32_t)((h & 0xffff) + 1024 * ((h >> 16) & 0xff));
    }
}

/* CTX uses the current table from now on. */
void ibl_point(struct thread_ctx *ctx)
{
    static char *const routine[2][IBL_SIZES] = {
        {core_ibl_micro, core_ibl_tiny, core_ibl_small, core_ibl_big, core_ibl_huge},
        {core_ibl_micro_count, core_ibl_tiny_count, core_ibl_small_count, core_ibl_big_count, core_ibl_huge_count},
    };
    uint64_t entry = (uint64_t)routine[options.stats][ibl.size];
    /* The table first: a small index is right in a bigger table's memory, not the other way round. */
    __atomic_store_n(&ctx->ibl, ibl.entries, __ATOMIC_RELEASE);
    ctx->entry_jmp = entry;
}

/* The hash spreads entries over every page: one populating call is cheaper than a fault for each. */
static struct ibl_entry *ibl_allocate(uint32_t size)
{
    return map_or_die(0, PAGE_UP(ibl_entries[size] * sizeof(struct ibl_entry)), PROT_READ_ | PROT_WRITE_,
                      MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_ | MAP_POPULATE_);
}

/* PC's slot, or the free one where it would be. */
static struct ibl_entry *ibl_slot(struct ibl_entry *entries, uint32_t size, uint64_t pc)
{
    struct ibl_entry *e = entries + ibl_index(size, pc);
    while (e->negated_pc && e->negated_pc != -pc)
        e++;
    return e;
}

/* False: no room, or soon none. */
static bool ibl_put(uint64_t pc, uint64_t code)
{
    struct ibl_entry *e = ibl_slot(ibl.entries, ibl.size, pc);
    bool fresh = !e->negated_pc;
    if (fresh && (e == ibl.entries + ibl_entries[ibl.size] - 1 || ibl.used > ibl_entries[ibl.size] / 5 * 3))
        return false;
    ibl.used += fresh;
    __atomic_store_n(&e->code, code, __ATOMIC_RELEASE);
    __atomic_store_n(&e->negated_pc, -pc, __ATOMIC_RELEASE);
    return true;
}

/* The next size, with what the old table has. Other threads change over at their next miss. */
static void ibl_grow(void)
{
    struct ibl_entry *old = ibl.entries, *bigger = ibl_allocate(ibl.size + 1);
    uint32_t n = ibl_entries[ibl.size];
    old_tables[ibl.size] = old;
    ibl.entries = bigger;
    ibl.size++;
    ibl.used = 0;
    for (uint32_t i = 0; i < n; i++)
        if (old[i].negated_pc)
            ibl_put(-old[i].negated_pc, old[i].code);
}

static void forget_slot(struct ibl_entry *e)
{
    if (e->negated_pc)
        __atomic_store_n(&e->code, (uint64_t)core_ibl_stale, __ATOMIC_RELEASE);
}

/* PC's code has gone. Older tables may still be some thread's. */
void ibl_forget(uint64_t pc)
{
    for (uint32_t size = 0; size < ibl.size; size++)
        if (old_tables[size])
            forget_slot(ibl_slot(old_tables[size], size, pc));
    if (ibl.entries)
        forget_slot(ibl_slot(ibl.entries, ibl.size, pc));
}

static void forget_range(struct ibl_entry *entries, uint32_t size, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < ibl_entries[size]; i++)
        if (-entries[i].negated_pc >= start && -entries[i].negated_pc < end)
            forget_slot(&entries[i]);
}

void ibl_purge(uint64_t start, uint64_t end)
{
    for (uint32_t size = 0; size < ibl.size; size++)
        if (old_tables[size])
            forget_range(old_tables[size], size, start, end);
    if (ibl.entries)
        forget_range(ibl.entries, ibl.size, start, end);
}

static uint64_t code_word(code_pc code)
{
    return code.value | (code.landing ? IBL_LANDING : 0);
}

void ibl_fill(struct thread_ctx *ctx, uint64_t pc, code_pc code)
{
    if (!ibl_put(pc, code_word(code)) && ibl.size + 1 < IBL_SIZES) {
        ibl_grow();
        ibl_put(pc, code_word(code));
    }
    if (ctx->ibl != ibl.entries)
        ibl_point(ctx);
}

/* Twice as many slots as pairs: what the run adds has room before the table must grow. */
void ibl_open(uint32_t pairs)
{
    ibl.size = pairs < 500     ? IBL_MICRO
               : pairs < 1600  ? IBL_TINY
               : pairs < 6500  ? IBL_SMALL
               : pairs < 26000 ? IBL_BIG
                               : IBL_HUGE;
    ibl.entries = thread_first_table(PAGE_UP(ibl_entries[ibl.size] * sizeof(struct ibl_entry)));
    if (!ibl.entries)
        ibl.entries = ibl_allocate(ibl.size);
}

void ibl_prefill(uint64_t pc, code_pc code)
{
    ibl_put(pc, code_word(code));
}

uint64_t ibl_find(uint64_t pc)
{
    const struct ibl_entry *e = ibl_slot(ibl.entries, ibl.size, pc);
    return e->negated_pc && e->code != (uint64_t)core_ibl_stale ? e->code & ~IBL_LANDING : 0;
}

void ibl_visit(void (*fn)(void *user, uint64_t pc, code_pc code), void *user)
{
    for (uint32_t i = 0; i < ibl_entries[ibl.size]; i++)
        if (ibl.entries[i].negated_pc)
            fn(user, -ibl.entries[i].negated_pc,
               (code_pc){ibl.entries[i].code & ~IBL_LANDING, ibl.entries[i].code & IBL_LANDING});
}
