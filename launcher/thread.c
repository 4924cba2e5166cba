/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads and processes: thread blocks, clone in all its forms, exit.
 *
 * A thread block (layout.h) sits at the thread's gs base. A child that shares memory starts in child_start on the core stack of
 * its own block with every signal blocked, sets gs and its signal stack, and leaves the core as if returning from the system
 * call. A child with its own memory is a copy and simply returns.
 */
#include "launcher/core.h"
#include <asm/prctl.h>
#include <linux/sched.h>

#define CLONE_CLEAR_SIGHAND_ 0x100000000ull
#define MAX_THREADS 32768
#define MAX_TOOL_THREADS 6000 /* counter copies must stay below the top of the address space */

struct thread_ctx *threads;
bool descriptors_shared;
extern bool have_fsgsbase;

static uint64_t first_used, *more_used; /* a bit for each number, those from 64 on in the second */
static uint32_t highest_index;

long clone_raw(long nr, const uint64_t *args, void (*fn)(void *), void *argument);

void thread_set_gs(struct thread_ctx *ctx)
{
    if (have_fsgsbase)
        __asm__ volatile("wrgsbase %0" : : "r"(ctx));
    else
        sys2(__NR_arch_prctl, ARCH_SET_GS, ctx);
}

static uint64_t block_address(uint32_t index)
{
    return options.tool ? BDBI_COUNTING_BASE + index * BDBI_COUNTING_STRIDE : BDBI_THREAD_BASE + index * BDBI_THREAD_STRIDE;
}

/* A thread's copy of all counters: the code ranges of both windows, shifted by its gs base. Kept when the thread ends: the next
 * thread of this number goes on counting in it, and the report sums all. */
static void map_counters(uint32_t index)
{
    uint64_t base = block_address(index);
    int flags = MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_ | MAP_FIXED_NOREPLACE_;
    if (index < highest_index)
        return;
    map_or_die(base + window_base + BDBI_CODE_DISTANCE, BDBI_WINDOW_BYTES - BDBI_CODE_DISTANCE, PROT_READ_ | PROT_WRITE_,
               flags);
    map_or_die(base + BDBI_CODE_DISTANCE, BDBI_WINDOW_BYTES - BDBI_CODE_DISTANCE, PROT_READ_ | PROT_WRITE_, flags);
    highest_index = index + 1;
}

void thread_map_counters(struct thread_ctx *ctx)
{
    if (options.tool)
        map_counters(ctx->index);
}

const uint64_t *thread_sum_counters(uint64_t address, uint32_t n, uint64_t *sums)
{
    if (highest_index == 1) /* most programs: nothing to add up */
        return (const uint64_t *)(address + block_address(0));
    memset(sums, 0, n * sizeof *sums);
    for (uint32_t i = 0; i < highest_index; i++) {
        const uint64_t *counters = (const uint64_t *)(address + block_address(i));
        for (uint32_t k = 0; k < n; k++)
            sums[k] += counters[k];
    }
    return sums;
}

void thread_merge_marks(uint64_t address, uint32_t n, uint8_t *out)
{
    for (uint32_t i = 0; i < highest_index; i++) {
        const uint8_t *marks = (const uint8_t *)(address + block_address(i));
        for (uint32_t k = 0; k < n; k++)
            if (marks[k])
                out[k] = 1;
    }
}

bool thread_counters_touched(uint64_t address, uint32_t pages, int pagemap, bool *touched)
{
    uint64_t words[64];
    memset(touched, 0, pages);
    for (uint32_t i = 0; i < highest_index; i++) {
        uint64_t first = (address + block_address(i)) / PAGE_BYTES;
        for (uint32_t at = 0; at < pages;) {
            uint32_t n = pages - at < 64 ? pages - at : 64;
            if (sys4(__NR_pread64, pagemap, words, n * 8, (first + at) * 8) != n * 8)
                return false;
            for (uint32_t k = 0; k < n; k++, at++)
                touched[at] |= words[k] >> 62 != 0; /* present, or in swap */
        }
    }
    return true;
}

void thread_clear_counters(uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < highest_index; i++)
        sys3(__NR_madvise, block_address(i) + start, end - start, 4 /* MADV_DONTNEED */);
}

static void clear_counters(void)
{
    counts_forget();
    for (uint32_t i = 0; i < highest_index; i++) {
        uint64_t low = block_address(i) + BDBI_CODE_DISTANCE, bytes = BDBI_WINDOW_BYTES - BDBI_CODE_DISTANCE;
        sys3(__NR_madvise, low, bytes, 4 /* MADV_DONTNEED */);
        sys3(__NR_madvise, low + window_base, bytes, 4);
    }
}

static uint64_t *used_word(uint32_t index)
{
    uint32_t word = index / 64;
    if (word < 1)
        return &first_used;
    if (!more_used)
        more_used = heap_alloc(MAX_THREADS / 8);
    return &more_used[word];
}

static struct thread_ctx *block_init(uint64_t address, uint32_t index)
{
    struct thread_ctx *ctx = (struct thread_ctx *)address;
    *used_word(index) |= 1ull << (index % 64);
    ctx->self = ctx;
    ctx->index = index;
    ctx->core_sp = address + THREAD_CORE_STACK_TOP;
    ctx->altstack_flags = 2;
    return ctx;
}

/* Thread 0's block comes with the program. With a tool it will not do: counters need the gs base of the number. */
static char first_block[THREAD_BLOCK_BYTES + FIRST_TABLE_BYTES] CORE_LARGE __attribute__((aligned(4096)));

struct thread_ctx *thread_first(void)
{
    threads = block_init((uint64_t)first_block, 0);
    thread_set_gs(threads);
    return threads;
}

struct thread_ctx *thread_first_for_tool(void)
{
    *used_word(0) = 0;
    threads = thread_new();
    if (!threads)
        die(125, "no memory for the first thread");
    thread_set_gs(threads);
    return threads;
}

void *thread_first_table(size_t bytes)
{
    if (threads != (struct thread_ctx *)first_block || bytes > FIRST_TABLE_BYTES)
        return NULL;
    thread_populate_targets(threads, bytes);
    return first_block + THREAD_BLOCK_BYTES;
}

void thread_populate_targets(struct thread_ctx *ctx, size_t more)
{
    if (!ctx->targets_there)
        sys3(__NR_madvise, thread_piece(ctx, CTX_TARGETS), BDBI_TARGET_BYTES + more,
             23 /* MADV_POPULATE_WRITE: one call, no faults */);
    ctx->targets_there = true;
}

/* Under core_lock (or alone). */
struct thread_ctx *thread_new(void)
{
    uint32_t limit = options.tool ? MAX_TOOL_THREADS : MAX_THREADS;
    for (uint32_t index = 0; index < limit; index++) {
        if (*used_word(index) & (1ull << (index % 64)))
            continue;
        uint64_t address = block_address(index);
        long p = core_mmap(address, THREAD_BLOCK_BYTES, PROT_READ_ | PROT_WRITE_,
                           MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_ | MAP_FIXED_NOREPLACE_, -1, 0);
        if (p == -E_EXIST) /* a thread that is just ending, or the guest */
            continue;
        if (sys_failed(p))
            return NULL;
        return block_init(address, index);
    }
    return NULL;
}

static void unlink_thread(struct thread_ctx *ctx)
{
    for (struct thread_ctx **at = &threads; *at; at = &(*at)->next)
        if (*at == ctx) {
            *at = ctx->next;
            break;
        }
    *used_word(ctx->index) &= ~(1ull << (ctx->index % 64));
}

/* Under core_lock; not the running thread's. */
void thread_free(struct thread_ctx *ctx)
{
    unlink_thread(ctx);
    if (ctx->owns_signals)
        signals_free_copy(ctx->signals);
    sys2(__NR_munmap, ctx, THREAD_BLOCK_BYTES);
}

/* Frees the blocks of processes in our memory (CLONE_VM, neither thread nor vfork) that have ended and been waited for. Under
 * core_lock. */
static void free_ended(void)
{
    for (struct thread_ctx *t = threads, *next; t; t = next) {
        next = t->next;
        if (t->process && sys3(__NR_tgkill, t->process, t->process, 0) == -E_SRCH)
            thread_free(t);
    }
}

static bool only_thread(const struct thread_ctx *ctx)
{
    for (const struct thread_ctx *t = threads; t; t = t->next)
        if (t != ctx && !t->vfork_parent)
            return false;
    return true;
}

void thread_exit_guest(struct thread_ctx *ctx, int status)
{
    uint64_t old;
    if (jit_guards && ctx->clear_child_tid) /* the kernel writes there at the end */
        jit_open_argument(ctx->clear_child_tid);
    signals_block_really_all(&old);
    if (ctx->vfork_parent) /* a process of its own in our memory: others free its block */
        for (;;)
            sys1(__NR_exit, status);
    lock_take(&core_lock);
    if (only_thread(ctx)) {
        lock_drop(&core_lock);
        core_finish(ctx, true);
        for (;;)
            sys1(__NR_exit, status);
    }
    unlink_thread(ctx);
    if (ctx->owns_signals)
        signals_free_copy(ctx->signals);
    lock_drop(&core_lock);
    /* From here without a stack: the block goes, then the thread. */
    register uint64_t bytes __asm__("rsi") = THREAD_BLOCK_BYTES;
    __asm__ volatile("syscall\n\tmov %1, %%edi\n\tmov %2, %%eax\n\tsyscall\n\tud2"
                     :
                     : "a"(__NR_munmap), "r"(status), "i"(__NR_exit), "D"(ctx), "r"(bytes)
                     : "rcx", "r11", "memory");
    __builtin_unreachable();
}

/* ---- clone ---- */

struct clone_request {
    uint64_t flags, parent_tid, child_tid, tls, stack, exit_signal;
    bool clears_handlers;
};

static int read_request(struct thread_ctx *ctx, bool is_clone3, bool is_vfork, struct clone_request *r, struct clone_args *args)
{
    const uint64_t *g = ctx->gpr;
    memset(r, 0, sizeof *r);
    if (is_vfork) {
        r->flags = CLONE_VM | CLONE_VFORK;
        r->exit_signal = SIG_CHLD;
    } else if (is_clone3) {
        if (g[RSI] < CLONE_ARGS_SIZE_VER0 || g[RSI] > PAGE_BYTES)
            return -E_INVAL;
        memset(args, 0, sizeof *args);
        if (copy_guest(args, (void *)g[RDI], g[RSI] < sizeof *args ? g[RSI] : sizeof *args))
            return -E_FAULT;
        if (!args->stack != !args->stack_size)
            return -E_INVAL;
        for (uint64_t at = sizeof *args; at < g[RSI]; at++) { /* of a kernel that is newer than we are: must be 0 */
            char byte;
            if (copy_guest(&byte, (void *)(g[RDI] + at), 1))
                return -E_FAULT;
            if (byte)
                return -E_2BIG;
        }
        r->clears_handlers = args->flags & CLONE_CLEAR_SIGHAND_;
        args->flags &= ~CLONE_CLEAR_SIGHAND_; /* ours among them, which must stay */
        if (r->clears_handlers && args->flags & CLONE_SIGHAND)
            return -E_INVAL;
        r->flags = args->flags;
        r->stack = args->stack ? args->stack + args->stack_size : 0;
        r->exit_signal = args->exit_signal;
    } else if ((uint32_t)g[RAX] == __NR_fork)
        r->exit_signal = SIG_CHLD;
    else {
        r->flags = g[RDI] & ~0xffull;
        r->exit_signal = g[RDI] & 0xff;
        r->stack = g[RSI];
        r->parent_tid = g[RDX];
        r->child_tid = g[R10];
        r->tls = g[R8];
    }
    return 0;
}

/* The system call itself, with the child on STACK (0: the parent's, for a copy). */
static long make_clone(struct thread_ctx *ctx, bool is_clone3, const struct clone_request *r, struct clone_args *args,
                       uint64_t stack, void (*fn)(void *), void *argument)
{
    if (is_clone3) {
        args->stack = stack ? stack - 4096 : 0;
        args->stack_size = stack ? 4096 : 0;
        uint64_t raw[5] = {(uint64_t)args, ctx->gpr[RSI] < sizeof *args ? ctx->gpr[RSI] : sizeof *args};
        return clone_raw(NR_CLONE3_, raw, fn, argument);
    }
    uint64_t raw[5] = {r->flags | r->exit_signal, stack, r->parent_tid, r->child_tid, r->tls};
    return clone_raw(__NR_clone, raw, fn, argument);
}

static long raw_fork(struct thread_ctx *ctx, bool is_clone3, const struct clone_request *r, struct clone_args *args)
{
    if (is_clone3) {
        args->stack = args->stack_size = 0;
        return sys2(NR_CLONE3_, args, ctx->gpr[RSI] < sizeof *args ? ctx->gpr[RSI] : sizeof *args);
    }
    return sys5(__NR_clone, r->flags | r->exit_signal, 0, r->parent_tid, r->child_tid, r->tls);
}

/* A child with a copy of the memory: it has one thread, and counts from zero. Locks are held across it. */
static long clone_copy(struct thread_ctx *ctx, bool is_clone3, const struct clone_request *r, struct clone_args *args)
{
    uint64_t mask;
    signals_block_really_all(&mask);
    if (ctx->pending) /* a signal came first: it is delivered, then the call is made again */
        return INT64_MIN;
    lock_take(&core_lock);
    alias_leaves();
    long result = raw_fork(ctx, is_clone3, r, args);
    if (result == 0) {
        lock_inherit(&core_lock);
        for (struct thread_ctx *t = threads, *next; t; t = next) {
            next = t->next;
            if (t != ctx)
                thread_free(t);
        }
        ctx->vfork_parent = NULL;
        ctx->held_sync = 0;
        if (r->clears_handlers)
            signals_clear(ctx);
        if (r->stack)
            ctx->gpr[RSP] = r->stack;
        clear_counters();
        marks_forget();
        memset(&ctx->stats, 0, sizeof ctx->stats);
        ctx->ibl_hits = 0;
        core_forked();
        mem_forked();
    }
    lock_drop(&core_lock);
    signals_restore(mask);
    return result;
}

static void child_start(void *argument)
{
    struct thread_ctx *ctx = argument;
    thread_set_gs(ctx);
    signals_init(ctx);
    if (ctx->clears_handlers)
        signals_clear(ctx);
    signals_restore(ctx->suspend_mask);
    core_exit();
}

static void fill_child(struct thread_ctx *child, const struct thread_ctx *ctx, const struct clone_request *r, uint64_t mask)
{
    memcpy(child->gpr, ctx->gpr, sizeof child->gpr);
    child->gpr[RAX] = 0;
    if (r->stack)
        child->gpr[RSP] = r->stack;
    child->pc = ctx->pc;
    child->flags = ctx->flags;
    child->resume = ctx->resume;
    child->blocked_sync = ctx->blocked_sync;
    child->reads_execute = ctx->reads_execute;
    child->suspend_mask = mask;
    child->clears_handlers = r->clears_handlers;
    child->signals = ctx->signals;
    if (!(r->flags & CLONE_SIGHAND)) {
        child->signals = signals_copy(ctx->signals);
        child->owns_signals = true;
    }
    if (r->flags & CLONE_CHILD_CLEARTID)
        child->clear_child_tid = r->child_tid;
    if (!(r->flags & CLONE_THREAD))
        child->vfork_parent = (struct thread_ctx *)ctx;
}

/* A child that shares the memory: a thread, or vfork's. */
static long clone_shared(struct thread_ctx *ctx, bool is_clone3, const struct clone_request *r, struct clone_args *args)
{
    uint64_t mask;
    signals_block_really_all(&mask);
    if (ctx->pending)
        return INT64_MIN;
    lock_take(&core_lock);
    free_ended();
    struct thread_ctx *child = thread_new();
    if (child) {
        dispatch_init(child);
        fill_child(child, ctx, r, mask);
        if (is_clone3 && r->flags & CLONE_CHILD_CLEARTID)
            child->clear_child_tid = args->child_tid;
        thread_map_counters(child);
        child->next = threads->next; /* the first stays first */
        threads->next = child;
    }
    lock_drop(&core_lock);
    long result = child ? make_clone(ctx, is_clone3, r, args, child->core_sp, child_start, child) : -E_AGAIN;
    if (child && (result < 0 || r->flags & CLONE_VFORK)) {
        lock_abandon(&core_lock, child); /* it may have been killed at any moment */
        lock_take(&core_lock);
        thread_free(child);
        lock_drop(&core_lock);
    } else if (child && !(r->flags & CLONE_THREAD))
        child->process = (int32_t)result;
    signals_restore(mask);
    return result;
}

long sys_clone_guest(struct thread_ctx *ctx, bool is_clone3, bool is_vfork)
{
    struct clone_request r;
    struct clone_args args;
    int error = read_request(ctx, is_clone3, is_vfork, &r, &args);
    if (error)
        return error;
    descriptors_shared |= r.flags & CLONE_FILES && !(r.flags & CLONE_THREAD);
    return r.flags & CLONE_VM ? clone_shared(ctx, is_clone3, &r, &args) : clone_copy(ctx, is_clone3, &r, &args);
}
