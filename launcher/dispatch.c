/* SPDX-License-Identifier: Apache-2.0
 *
 * From an app pc to code: the images' block tables, then JIT code, then the translator.
 */
#include "launcher/core.h"

struct core_stats stats;

/* Empties the target cache: it may name code that has gone. */
static void targets_reset(struct thread_ctx *ctx)
{
    uint64_t *slot = thread_piece(ctx, CTX_TARGETS), n = BDBI_TARGET_BYTES / 8;
    __asm__ volatile("rep stosq" : "+D"(slot), "+c"(n) : "a"(core_target_lost) : "memory");
}

/* CTX looks its code up: from now on it knows of what was dropped before. */
static void see_drops(struct thread_ctx *ctx)
{
    if (ctx->seen_drops != drop_generation)
        targets_reset(ctx);
    ctx->seen_drops = drop_generation;
}

void dispatch_init(struct thread_ctx *ctx)
{
    ibl_point(ctx);
    thread_populate_targets(ctx, 0);
    targets_reset(ctx);
    ctx->seen_drops = drop_generation;
    ctx->entry_other = (uint64_t)core_target_other;
    ctx->entry_cpuid = (uint64_t)core_entry_cpuid;
    ctx->entry_direct = (uint64_t)core_entry_direct;
    ctx->entry_syscall = (uint64_t)core_entry_syscall;
    ctx->entry_event = (uint64_t)core_entry_event;
}

/* ---- images ---- */

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
            return (code_pc){piece->start + blocks[i].code_offset, blocks[i].map_offset & IMAGE_LANDING};
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
    struct module *m = region->module;
    if (m && m->vdso_waits && !m->dropped)
        cache_attach_vdso(m);
    if (m && !m->dropped)
        code = module_lookup(m, pc);
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

/* Where a thread meets the fault of going to PC, which the guest cannot execute: at PC, unless code of ours is there. */
static uint64_t fault_of(uint64_t pc)
{
    bool ours = (pc >= BDBI_IMAGE_BASE && pc < BDBI_IMAGE_END) || code_state_at(pc).known;
    return ours ? (uint64_t)core_fetch_trap : pc;
}

/* Brings the pages that a translation at ctx->pc reads, before the lock is taken: the thread that serves them may need it. */
static void bring_pages(const struct thread_ctx *ctx)
{
    uint64_t next = PAGE_DOWN(ctx->pc) + PAGE_BYTES;
    char byte;
    lock_take(&core_lock);
    bool here = exec_find(ctx->pc), more = ctx->crosses == ctx->pc && exec_find(next);
    lock_drop(&core_lock);
    if (here)
        copy_guest(&byte, (void *)ctx->pc, 1);
    if (more)
        copy_guest(&byte, (void *)next, 1);
}

code_pc dispatch_resume(struct thread_ctx *ctx)
{
    if (faults_served)
        bring_pages(ctx);
    lock_take(&core_lock);
    ctx->in_core = 0;
    see_drops(ctx);
    bool kept = !ctx->one_shot;
    code_pc code = code_lookup(ctx, (app_pc){ctx->pc});
    if (code.value && kept)
        ibl_fill(ctx, ctx->pc, code);
    lock_drop(&core_lock);
    /* Not executable: going there natively faults as it must, and the signal is the guest's. */
    ctx->resume = code.value ? code.value : fault_of(ctx->pc);
    return code;
}

void dispatch_start(struct thread_ctx *ctx, const struct module *m)
{
    code_pc code = hot_code(m, ctx->pc);
    ctx->in_core = 0;
    ctx->resume = code.value;
    if (!code.value)
        hot_note(ctx->pc, dispatch_resume(ctx));
}

void core_miss_indirect(struct thread_ctx *ctx);
void core_miss_indirect(struct thread_ctx *ctx)
{
    if (ctx->direct == ctx->pc)
        ctx->stats.direct_misses++;
    else
        ctx->stats.ibl_misses++;
    ctx->direct = 0;
    hot_note(ctx->pc, dispatch_resume(ctx));
}

void core_redispatch(struct thread_ctx *ctx);
void core_redispatch(struct thread_ctx *ctx)
{
    ctx->stats.enter_fault++;
    dispatch_resume(ctx);
}

/* Going on where a signal interrupted: usually inside a block, whose code is there already. Its counters have counted. */
void dispatch_resume_inside(struct thread_ctx *ctx)
{
    lock_take(&core_lock);
    const struct exec_region *region = exec_find(ctx->pc);
    code_pc code = region ? code_inside(region, ctx->pc) : (code_pc){0};
    ctx->in_core = 0;
    see_drops(ctx);
    lock_drop(&core_lock);
    if (code.value)
        ctx->resume = code.value;
    else
        dispatch_resume(ctx);
}
