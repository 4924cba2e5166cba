/* SPDX-License-Identifier: Apache-2.0
 *
 * What the guest has said about signals: actions and masks. For what it handles the kernel has our handler; the guest's own
 * action is kept here and shown to it. The guest's mask is the thread's real mask but for synchronous signals, which are never
 * really blocked (held.c).
 */
#include "launcher/signal.h"

static struct signal_state initial_state;

/* Handled from the start, since faults of ours use them. The other synchronous ones only if the guest handles them, a thread
 * must be stepped, or there is something to report when they end the process: otherwise the kernel's default is right. */
static uint64_t our_signals;

bool signal_is_ours(int sig)
{
    return sig > 0 && sig <= 64 && (SIG_BIT(sig) & our_signals);
}

void signals_block_all(uint64_t *old)
{
    uint64_t asynchronous = ASYNC_SIGNALS;
    sys4(__NR_rt_sigprocmask, SIG_SETMASK_, &asynchronous, old, 8);
}

void signals_block_really_all(uint64_t *old)
{
    uint64_t all = ALL_SIGNALS;
    sys4(__NR_rt_sigprocmask, SIG_SETMASK_, &all, old, 8);
}

void signals_restore(uint64_t mask)
{
    sys4(__NR_rt_sigprocmask, SIG_SETMASK_, &mask, 0, 8);
}

void signals_allow_faults(uint64_t *old)
{
    uint64_t synchronous = SYNC_SIGNALS;
    sys4(__NR_rt_sigprocmask, SIG_UNBLOCK_, &synchronous, old, 8);
}

struct kernel_stack signal_own_stack(const struct thread_ctx *ctx)
{
    return (struct kernel_stack){(uint64_t)thread_piece(ctx, THREAD_SIGNAL_STACK), 0, 0,
                                 THREAD_SIGNAL_STACK_END - THREAD_SIGNAL_STACK};
}

long signal_install(int sig, uint64_t guest_flags, struct kernel_sigaction *old)
{
    struct kernel_sigaction act = {
        .handler = (uint64_t)core_signal_handler,
        .flags = SA_SIGINFO_ | SA_ONSTACK_ | SA_RESTORER_ | (guest_flags & (SA_RESTART_ | SA_NOCLDSTOP_ | SA_NOCLDWAIT_)),
        .restorer = (uint64_t)core_signal_return,
        .mask = ALL_SIGNALS,
    };
    return sys4(__NR_rt_sigaction, sig, &act, old, 8);
}

/* Synchronous signals the guest blocks must come to us, so that they can be held when somebody sends them. */
static void own_synchronous(struct thread_ctx *ctx, uint64_t bits)
{
    bits &= SYNC_SIGNALS & ~our_signals;
    for (int sig = SIG_ILL; bits && !ctx->owns_signals && sig <= SIG_SEGV; sig++) {
        struct kernel_sigaction old, *slot = &ctx->signals->act[sig - 1];
        if (!(bits & SIG_BIT(sig)) || signal_install(sig, slot->handler > SIG_IGNORE ? slot->flags : SA_RESTART_, &old) < 0)
            continue;
        if (old.handler != (uint64_t)core_signal_handler)
            *slot = old;
        our_signals |= SIG_BIT(sig);
    }
}

void signal_block_sync(struct thread_ctx *ctx, uint64_t bits)
{
    if (bits & ~our_signals)
        own_synchronous(ctx, bits);
    ctx->blocked_sync = bits;
}

/* Whoever started `bdbi run` may have blocked synchronous signals: the guest has them blocked then, the thread has not. */
static void take_blocked(struct thread_ctx *ctx)
{
    uint64_t mask = 0;
    sys4(__NR_rt_sigprocmask, SIG_BLOCK_, 0, &mask, 8);
    if (!(mask &= SYNC_SIGNALS))
        return;
    signal_block_sync(ctx, mask);
    sys4(__NR_rt_sigprocmask, SIG_UNBLOCK_, &mask, 0, 8); /* what is pending is held from now on */
}

void signals_init(struct thread_ctx *ctx)
{
    struct kernel_stack stack = signal_own_stack(ctx);
    sys2(__NR_sigaltstack, &stack, 0);
    ctx->altstack_flags = SS_DISABLE_;
    if (ctx->signals)
        return;
    ctx->signals = &initial_state;
    our_signals = options.tool || options.stats ? SYNC_SIGNALS : SIG_BIT(SIG_SEGV) | SIG_BIT(SIG_BUS);
    for (int sig = 1; sig <= SIG_SEGV; sig++)
        if (signal_is_ours(sig))
            signal_install(sig, SA_RESTART_, &initial_state.act[sig - 1]);
    if (!options.child)
        take_blocked(ctx);
    if (options.blocked_sync)
        signal_block_sync(ctx, options.blocked_sync);
}

void signals_for_exec(const struct thread_ctx *ctx, bool failed)
{
    const struct kernel_sigaction ignore = {
        .handler = SIG_IGNORE, .flags = SA_RESTORER_, .restorer = (uint64_t)core_signal_return};
    for (int sig = SIG_ILL; sig <= SIG_SEGV; sig++)
        if (signal_is_synchronous(sig) && signal_is_ours(sig) && ctx->signals->act[sig - 1].handler == SIG_IGNORE) {
            if (failed)
                signal_install(sig, 0, NULL);
            else
                sys4(__NR_rt_sigaction, sig, &ignore, 0, 8);
        }
}

struct signal_state *signals_copy(const struct signal_state *from)
{
    struct signal_state *copy = map_or_die(0, PAGE_UP(sizeof *copy), PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_);
    *copy = *from;
    return copy;
}

void signals_clear(struct thread_ctx *ctx)
{
    for (int sig = 1; sig <= 64; sig++) {
        struct kernel_sigaction *slot = &ctx->signals->act[sig - 1], fresh = {.handler = slot->handler};
        bool handled = slot->handler > SIG_IGNORE;
        if (handled)
            fresh.handler = SIG_DEFAULT;
        *slot = fresh;
        if (handled && !signal_is_ours(sig))
            sys4(__NR_rt_sigaction, sig, &fresh, 0, 8);
    }
}

void signals_free_copy(struct signal_state *copy)
{
    unmap_own(copy, PAGE_UP(sizeof *copy));
}

long sys_sigaction_guest(struct thread_ctx *ctx)
{
    int sig = (int)ctx->gpr[RDI];
    const void *new = (const void *)ctx->gpr[RSI];
    void *old = (void *)ctx->gpr[RDX];
    struct kernel_sigaction act, previous = {0}, kernel_old;
    if (ctx->gpr[R10] != 8 || sig < 1 || sig > 64 || ((sig == SIG_KILL || sig == SIG_STOP) && new))
        return -E_INVAL;
    if (new &&copy_guest(&act, new, sizeof act))
        return -E_FAULT;
    struct kernel_sigaction *slot = &ctx->signals->act[sig - 1];
    previous = *slot;
    long result = 0;
    if (new) {
        act.mask &= ~KERNEL_ONLY;
        act.flags &= SA_KNOWN;
        bool handled = act.handler > SIG_IGNORE;
        *slot = act;
        if (handled || signal_is_ours(sig)) /* what is ignored interrupts as little as it can */
            result = signal_install(sig, handled ? act.flags : SA_RESTART_, &kernel_old);
        else
            result = sys4(__NR_rt_sigaction, sig, &act, &kernel_old, 8);
        if (result < 0)
            *slot = previous;
        else if (act.handler == SIG_IGNORE && signal_is_synchronous(sig))
            held_discard(sig);
    } else if (!signal_is_ours(sig))
        result = sys4(__NR_rt_sigaction, sig, 0, &kernel_old, 8);
    if (result < 0)
        return result;
    /* What nobody has set here yet was inherited: the kernel knows it. */
    if (!signal_is_ours(sig) && kernel_old.handler != (uint64_t)core_signal_handler)
        previous = kernel_old;
    if (old && copy_guest(old, &previous, sizeof previous))
        return -E_FAULT;
    return 0;
}

/* The synchronous half of a change of mask. A signal noted since the kernel made the other half returns to the new mask. */
static void change_blocked_sync(struct thread_ctx *ctx, int how, uint64_t bits)
{
    uint64_t sync = ctx->blocked_sync;
    signal_block_sync(ctx, how == SIG_BLOCK_ ? sync | bits : how == SIG_UNBLOCK_ ? sync & ~bits : bits);
    uint64_t unblocked = ctx->held_sync & ~ctx->blocked_sync;
    if (ctx->pending)
        ctx->saved_mask = (ctx->saved_mask & ASYNC_SIGNALS) | ctx->blocked_sync;
    else if (unblocked) {
        held_release(ctx, unblocked);
        sys4(__NR_rt_sigprocmask, SIG_UNBLOCK_, &unblocked, 0, 8);
    }
}

long sys_sigprocmask_guest(struct thread_ctx *ctx)
{
    const void *new = (const void *)ctx->gpr[RSI];
    void *old = (void *)ctx->gpr[RDX];
    int how = (int)ctx->gpr[RDI];
    uint64_t set = 0, previous, sync = ctx->blocked_sync;
    if (ctx->gpr[R10] != 8)
        return -E_INVAL;
    if (new &&copy_guest(&set, new, 8))
        return -E_FAULT;
    if (new && (how < SIG_BLOCK_ || how > SIG_SETMASK_))
        return -E_INVAL;
    uint64_t real = set & ~SYNC_SIGNALS, arguments[2] = {ctx->gpr[RSI], ctx->gpr[RDX]};
    ctx->gpr[RSI] = new ? (uint64_t)&real : 0;
    ctx->gpr[RDX] = (uint64_t)&previous;
    long result =
        guest_syscall(ctx); /* not made if a signal was noted before it: what is restored later is then the mask of now */
    ctx->gpr[RSI] = arguments[0];
    ctx->gpr[RDX] = arguments[1];
    if (result < 0)
        return result;
    if (new)
        change_blocked_sync(ctx, how, set & SYNC_SIGNALS);
    previous |= sync;
    if (old && copy_guest(old, &previous, 8))
        return -E_FAULT;
    return 0;
}
