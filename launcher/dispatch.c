/* SPDX-License-Identifier: Apache-2.0
 *
 * From an app pc to code: the images' block tables, JIT code, the indirect-branch lookup table that entry.S reads.
 *
 * The table: entry { -pc, code } at index(pc) or up to three after it. A slot belongs to one pc for ever: its key is written once, after its code, and
 * only the code changes later (one word). Code that has gone is replaced by core_ibl_stale, which leads to the dispatcher. A full
 * neighbourhood makes the table grow to the next size; the old one is kept, since a thread may be reading it.
 */
#include "launcher/core.h"

struct core_stats stats;

enum ibl_size { IBL_TINY, IBL_SMALL, IBL_BIG, IBL_HUGE, IBL_SIZES };
#define IBL_PROBES 4

static struct {
    struct ibl_entry *entries;
    uint32_t size; /* enum ibl_size */
} ibl;
static struct ibl_entry *old_tables[IBL_SIZES];

static const uint32_t ibl_entries[IBL_SIZES] = {
    255 + 255 * 16 + IBL_PROBES,
    255 + 255 * 64 + IBL_PROBES,
    65535 + IBL_PROBES,
    65535 + 255 * 1024 + IBL_PROBES,
};

static uint32_t ibl_index(uint32_t size, uint64_t pc)
{
    uint64_t h = 0;
    __asm__("crc32q %1, %0" : "+r"(h) : "r"(pc));
    switch (size) {
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

static void ibl_point(struct thread_ctx *ctx)
{
    static char *const routine[2][IBL_SIZES] = {
        {core_ibl_tiny, core_ibl_small, core_ibl_big, core_ibl_huge},
        {core_ibl_tiny_count, core_ibl_small_count, core_ibl_big_count, core_ibl_huge_count},
    };
    uint64_t entry = (uint64_t)routine[options.stats][ibl.size];
    /* The table first: a small index is right in a bigger table's memory, not the other way round. */
    __atomic_store_n(&ctx->ibl, ibl.entries, __ATOMIC_RELEASE);
    ctx->entry_jmp = ctx->entry_call = ctx->entry_ret = ctx->entry_direct = entry;
}

/* The hash spreads entries over every page: one populating call is cheaper than a fault for each. */
static struct ibl_entry *ibl_allocate(uint32_t size)
{
    return map_or_die(0, PAGE_UP(ibl_entries[size] * sizeof(struct ibl_entry)), PROT_READ_ | PROT_WRITE_,
                      MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_ | MAP_POPULATE_);
}

static struct ibl_entry *ibl_slot(struct ibl_entry *entries, uint32_t size, uint64_t pc)
{
    struct ibl_entry *e = entries + ibl_index(size, pc);
    for (int probe = 0; probe < IBL_PROBES; probe++)
        if (e[probe].negated_pc == -pc)
            return &e[probe];
    return NULL;
}

static bool ibl_put(struct ibl_entry *entries, uint32_t size, uint64_t pc, uint64_t code)
{
    struct ibl_entry *e = ibl_slot(entries, size, pc);
    if (!e) {
        e = entries + ibl_index(size, pc);
        struct ibl_entry *end = e + IBL_PROBES;
        while (e < end && e->negated_pc)
            e++;
        if (e == end)
            return false;
    }
    __atomic_store_n(&e->code, code, __ATOMIC_RELEASE);
    __atomic_store_n(&e->negated_pc, -pc, __ATOMIC_RELEASE);
    return true;
}

/* The next size, with what the old table has. Other threads change over at their next miss. */
static void ibl_grow(void)
{
    struct ibl_entry *entries = ibl_allocate(ibl.size + 1);
    for (uint32_t i = 0; i < ibl_entries[ibl.size]; i++)
        if (ibl.entries[i].negated_pc)
            ibl_put(entries, ibl.size + 1, -ibl.entries[i].negated_pc, ibl.entries[i].code);
    old_tables[ibl.size] = ibl.entries;
    ibl.entries = entries;
    ibl.size++;
}

static void forget_slot(struct ibl_entry *e)
{
    if (e && e->negated_pc)
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

static void ibl_fill(struct thread_ctx *ctx, uint64_t pc, uint64_t code)
{
    if (!ibl_put(ibl.entries, ibl.size, pc, code) && ibl.size + 1 < IBL_SIZES) {
        ibl_grow();
        ibl_put(ibl.entries, ibl.size, pc, code);
    }
    if (ctx->ibl != ibl.entries)
        ibl_point(ctx);
}

/* Where the size below starts to overflow: four probes fail for about one of n pairs at n^5 = 5 * entries^4. */
void ibl_open(uint32_t pairs)
{
    ibl.size = pairs < 900 ? IBL_TINY : pairs < 2700 ? IBL_SMALL : pairs < 8000 ? IBL_BIG : IBL_HUGE;
    ibl.entries = ibl_allocate(ibl.size);
}

void ibl_prefill(uint64_t pc, uint64_t code)
{
    ibl_put(ibl.entries, ibl.size, pc, code);
}

void ibl_visit(void (*fn)(void *user, uint64_t pc, uint64_t code), void *user)
{
    for (uint32_t i = 0; i < ibl_entries[ibl.size]; i++)
        if (ibl.entries[i].negated_pc)
            fn(user, -ibl.entries[i].negated_pc, ibl.entries[i].code);
}

void dispatch_init(struct thread_ctx *ctx)
{
    ibl_point(ctx);
    ctx->entry_syscall = (uint64_t)core_entry_syscall;
    ctx->entry_event = (uint64_t)core_entry_event;
}

/* ---- images ---- */

static const void *image_part(const struct image_header *image, uint32_t offset)
{
    return (const char *)image + offset;
}

static code_pc piece_lookup(const struct code_piece *piece, uint32_t offset)
{
    const struct image_header *image = piece->image;
    const uint32_t *buckets = image_part(image, image->buckets_offset);
    const struct image_block *blocks = image_part(image, image->blocks_offset);
    uint32_t bucket = offset >> IMAGE_BUCKET_SHIFT;
    if (bucket >= image->nbuckets)
        return (code_pc){0};
    uint32_t last = buckets[bucket + 1];
    if (last > image->nblocks)
        last = image->nblocks;
    for (uint32_t i = buckets[bucket]; i < last; i++)
        if (blocks[i].app_offset == offset && blocks[i].code_offset < image->code_bytes)
            return (code_pc){piece->start + blocks[i].code_offset};
    return (code_pc){0};
}

static code_pc module_lookup(const struct module *m, uint64_t pc)
{
    for (uint32_t i = 0; i < m->npieces; i++) {
        code_pc code = piece_lookup(&m->pieces[i], (uint32_t)(pc - m->base));
        if (code.value)
            return code;
    }
    return (code_pc){0};
}

/* Under core_lock. The code for PC if there is any already. */
static code_pc known_code(uint64_t pc, const struct exec_region *region)
{
    code_pc code = {0};
    if (region->module && !region->module->dropped)
        code = module_lookup(region->module, pc);
    if (!code.value)
        code = jit_lookup(pc);
    return code;
}

code_pc code_known_for_module(const struct module *m, uint64_t pc)
{
    code_pc code = {0};
    if (m && !m->dropped)
        code = module_lookup(m, pc);
    return code.value ? code : jit_lookup(pc);
}

code_pc code_lookup(struct thread_ctx *ctx, app_pc pc)
{
    const struct exec_region *region = exec_find(pc.value);
    if (!region)
        return (code_pc){0};
    code_pc code = {0};
    if (!ctx->one_shot)
        code = known_code(pc.value, region);
    if (!code.value)
        code = jit_miss(ctx, pc.value, region);
    return code;
}

void dispatch_resume(struct thread_ctx *ctx)
{
    lock_take(&core_lock);
    ctx->in_core = 0;
    ctx->seen_drops = drop_generation;
    bool kept = !ctx->one_shot;
    code_pc code = code_lookup(ctx, (app_pc){ctx->pc});
    if (code.value && kept)
        ibl_fill(ctx, ctx->pc, code.value);
    lock_drop(&core_lock);
    /* Not executable: going there natively faults as it must, and the signal is the guest's. */
    ctx->resume = code.value ? code.value : ctx->pc;
}

void core_miss_indirect(struct thread_ctx *ctx);
void core_miss_indirect(struct thread_ctx *ctx)
{
    ctx->stats.ibl_misses++;
    dispatch_resume(ctx);
}

void core_redispatch(struct thread_ctx *ctx);
void core_redispatch(struct thread_ctx *ctx)
{
    ctx->stats.enter_fault++;
    dispatch_resume(ctx);
}

/* ---- code pc -> app state ---- */

/* Walks the address map of the block that CODE_OFFSET is in. */
static struct code_state walk_map(const struct image_block *blocks, uint32_t nblocks, const uint8_t *map, uint32_t map_bytes,
                                  uint64_t base, uint32_t code_offset)
{
    struct code_state state = {.known = true};
    uint32_t low = 0, high = nblocks;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (blocks[middle].code_offset <= code_offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return state;
    const struct image_block *block = &blocks[low - 1];
    uint64_t app = base + block->app_offset;
    uint32_t code = block->code_offset;
    for (uint32_t i = block->map_offset; i < map_bytes && map[i] != MAP_END;) {
        uint8_t item = map[i++];
        if (item <= MAP_COPY_MAX) {
            if (code_offset < code + item) {
                state.app = app;
                state.clean = code_offset == code; /* inside an instruction: not a place to be */
                return state;
            }
            code += item;
            app += item;
        } else if (item < MAP_PIECE) {
            app += item & 0x1f;
        } else {
            uint8_t length = i < map_bytes ? map[i++] : 0;
            uint32_t other = item & MAP_OTHER && i < map_bytes ? map[i++] >> 4 : 16;
            if (code_offset < code + length) {
                state.app = app;
                state.clean = !(item & MAP_FORWARD);
                state.homes = (item & MAP_RAX ? 1u << RAX : 0) | (item & MAP_RCX ? 1u << RCX : 0) | (other < 16 ? 1u << other : 0);
                return state;
            }
            code += length;
        }
    }
    return state;
}

/* Code of dropped modules and chunks is unmapped but its tables are kept: stragglers find their way back through them. */
/* The other way: the code of the app instruction at APP_OFFSET, which may be inside a block. */
static uint32_t walk_map_to(const struct image_block *blocks, uint32_t nblocks, const uint8_t *map, uint32_t map_bytes,
                            uint32_t app_offset)
{
    uint32_t low = 0, high = nblocks;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (blocks[middle].app_offset <= app_offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return UINT32_MAX;
    const struct image_block *block = &blocks[low - 1];
    uint32_t app = block->app_offset, code = block->code_offset;
    for (uint32_t i = block->map_offset; i < map_bytes && map[i] != MAP_END && app <= app_offset;) {
        uint8_t item = map[i++];
        if (app == app_offset && (item <= MAP_COPY_MAX || item >= MAP_PIECE))
            return code;
        if (item <= MAP_COPY_MAX)
            code += item, app += item;
        else if (item < MAP_PIECE)
            app += item & 0x1f;
        else {
            code += i < map_bytes ? map[i++] : 0;
            i += item & MAP_OTHER ? 1 : 0;
        }
    }
    return UINT32_MAX;
}

static code_pc code_inside(const struct exec_region *region, uint64_t pc)
{
    const struct module *m = region->module;
    for (uint32_t i = 0; m && !m->dropped && i < m->npieces; i++) {
        const struct image_header *image = m->pieces[i].image;
        uint32_t offset = walk_map_to(image_part(image, image->blocks_offset), image->nblocks, image_part(image, image->map_offset),
                                      image->map_bytes, (uint32_t)(pc - m->base));
        if (offset < image->code_bytes)
            return (code_pc){m->pieces[i].start + offset};
    }
    for (struct jit_chunk *c = jit_chunks; c; c = c->next) {
        if (pc < c->app_start || pc >= c->app_end)
            continue;
        uint32_t offset = walk_map_to(c->blocks, c->nblocks, c->map, c->map_bytes, (uint32_t)(pc - c->base));
        if (offset < c->end - c->start)
            return (code_pc){c->start + offset};
    }
    return (code_pc){0};
}

/* Going on where a signal interrupted: usually inside a block, whose code is there already. Its counters have counted. */
void dispatch_resume_inside(struct thread_ctx *ctx)
{
    lock_take(&core_lock);
    const struct exec_region *region = exec_find(ctx->pc);
    code_pc code = region ? code_inside(region, ctx->pc) : (code_pc){0};
    ctx->in_core = 0;
    ctx->seen_drops = drop_generation;
    lock_drop(&core_lock);
    if (code.value)
        ctx->resume = code.value;
    else
        dispatch_resume(ctx);
}

static bool state_in_modules(uint64_t code, bool dropped, struct code_state *out)
{
    for (struct module *m = modules; m; m = m->next)
        for (uint32_t i = 0; m->dropped == dropped && i < m->npieces; i++)
            if (code >= m->pieces[i].start && code < m->pieces[i].end) {
                const struct image_header *image = m->pieces[i].image;
                *out = walk_map(image_part(image, image->blocks_offset), image->nblocks, image_part(image, image->map_offset),
                                image->map_bytes, m->base, (uint32_t)(code - m->pieces[i].start));
                return true;
            }
    return false;
}

struct code_state code_state_at(uint64_t code)
{
    struct code_state state;
    if (state_in_modules(code, false, &state) || state_in_modules(code, true, &state))
        return state;
    for (int dropped = 0; dropped < 2; dropped++)
        for (struct jit_chunk *c = dropped ? jit_dropped : jit_chunks; c; c = c->next)
            if (code >= c->start && code < c->end)
                return walk_map(c->blocks, c->nblocks, c->map, c->map_bytes, c->base, (uint32_t)(code - c->start));
    return (struct code_state){.known = false};
}
