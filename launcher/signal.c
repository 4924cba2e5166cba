/* SPDX-License-Identifier: Apache-2.0
 *
 * Signals. The guest's handlers run translated, on frames that look as the kernel's do and hold only app state.
 *
 * For each signal the guest handles, the kernel calls core_signal_handler with every signal blocked, on the thread's own signal
 * stack. Where the thread was decides:
 *
 *   clean app boundary in code    its app state goes to the context; core_deliver builds the guest's frame
 *   elsewhere in code, in lookups single-step (TF) to a clean boundary, or into the core, whichever comes first
 *   in the core                   noted; core_exit, which restarts if it was already leaving, calls core_deliver
 *   at the guest's syscall        before it: the call is abandoned and made again after the handler. After: it has its result
 *
 * While one is noted, all signals stay blocked, so one slot (the copy of the kernel's frame) is enough and the kernel keeps the
 * order. The guest's mask is the thread's real mask, except that synchronous signals are never really blocked: held.c has those
 * that are sent.
 */
#include "launcher/core.h"

#define SYNC_SIGNALS (SIG_BIT(SIG_SEGV) | SIG_BIT(SIG_BUS) | SIG_BIT(SIG_ILL) | SIG_BIT(SIG_FPE) | SIG_BIT(SIG_TRAP))
#define ALL_SIGNALS (~0ull)
#define ASYNC_SIGNALS (~SYNC_SIGNALS)
#define KERNEL_ONLY (SIG_BIT(SIG_KILL) | SIG_BIT(SIG_STOP)) /* never in a mask */
#define EFLAGS_TF 0x100
#define EFLAGS_DF 0x400
#define EFLAGS_RF 0x10000
#define EFLAGS_GUEST 0x50dd5ull /* what sigreturn may set: CF PF AF ZF SF TF DF OF RF AC, as the kernel's FIX_EFLAGS */
#define SEGV_MAPERR_ 1
#define TRAP_PAGE_FAULT 14
#define PAGE_FAULT_USER_FETCH 0x14
#define UC_FP_XSTATE 1ull
#define UC_SS_FLAGS 6ull /* UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS */
#define FP_SW_OFFSET 464 /* struct _fpx_sw_bytes in the FXSAVE area */
#define FP_XSTATE_MAGIC1 0x46505853

struct signal_state {
    struct kernel_sigaction act[64];
};

static struct signal_state initial_state;

/* Handled from the start, since faults of ours use them. The other synchronous ones only if the guest handles them, a thread
 * must be stepped, or there is something to report when they end the process: otherwise the kernel's default is right. */
static uint64_t our_signals;

void sigreturn_with(struct kernel_sigframe *frame) __attribute__((noreturn));
void core_deliver(struct thread_ctx *ctx) __attribute__((noreturn));

static bool is_ours(int sig)
{
    return sig > 0 && sig <= 64 && (SIG_BIT(sig) & our_signals);
}

static bool is_synchronous(int sig)
{
    return sig > 0 && sig <= 64 && (SIG_BIT(sig) & SYNC_SIGNALS);
}

void signals_block_all(uint64_t *old)
{
    uint64_t asynchronous = ASYNC_SIGNALS;
    sys4(__NR_rt_sigprocmask, SIG_SETMASK_, &asynchronous, old, 8);
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

static struct kernel_stack own_stack(const struct thread_ctx *ctx)
{
    return (struct kernel_stack){(uint64_t)thread_piece(ctx, THREAD_SIGNAL_STACK), 0, 0,
                                 THREAD_BLOCK_BYTES - THREAD_SIGNAL_STACK};
}

static long install(int sig, uint64_t guest_flags, struct kernel_sigaction *old)
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
        if (!(bits & SIG_BIT(sig)) || install(sig, slot->flags, &old) < 0)
            continue;
        if (old.handler != (uint64_t)core_signal_handler)
            *slot = old;
        our_signals |= SIG_BIT(sig);
    }
}

static void set_blocked_sync(struct thread_ctx *ctx, uint64_t bits)
{
    if (bits & ~our_signals)
        own_synchronous(ctx, bits);
    ctx->blocked_sync = bits;
}

void signals_init(struct thread_ctx *ctx)
{
    struct kernel_stack stack = own_stack(ctx);
    sys2(__NR_sigaltstack, &stack, 0);
    ctx->altstack_flags = SS_DISABLE_;
    if (ctx->signals)
        return;
    ctx->signals = &initial_state;
    our_signals = options.tool || options.stats ? SYNC_SIGNALS : SIG_BIT(SIG_SEGV) | SIG_BIT(SIG_BUS);
    for (int sig = 1; sig <= SIG_SEGV; sig++)
        if (is_ours(sig))
            install(sig, 0, &initial_state.act[sig - 1]);
    if (options.blocked_sync)
        set_blocked_sync(ctx, options.blocked_sync);
}

void signals_for_exec(const struct thread_ctx *ctx, bool failed)
{
    const struct kernel_sigaction ignore = {
        .handler = SIG_IGNORE, .flags = SA_RESTORER_, .restorer = (uint64_t)core_signal_return};
    for (int sig = SIG_ILL; sig <= SIG_SEGV; sig++)
        if (is_synchronous(sig) && is_ours(sig) && ctx->signals->act[sig - 1].handler == SIG_IGNORE) {
            if (failed)
                install(sig, 0, NULL);
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

void signals_free_copy(struct signal_state *copy)
{
    unmap_own(copy, PAGE_UP(sizeof *copy));
}

/* ---- system calls ---- */

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
        act.mask &= ~(SIG_BIT(SIG_KILL) | SIG_BIT(SIG_STOP));
        bool handled = act.handler > SIG_IGNORE;
        *slot = act;
        if (handled || is_ours(sig))
            result = install(sig, act.flags, &kernel_old);
        else
            result = sys4(__NR_rt_sigaction, sig, &act, &kernel_old, 8);
        if (result < 0)
            *slot = previous;
    } else if (!is_ours(sig))
        result = sys4(__NR_rt_sigaction, sig, 0, &kernel_old, 8);
    if (result < 0)
        return result;
    /* What nobody has set here yet was inherited: the kernel knows it. */
    if (!is_ours(sig) && kernel_old.handler != (uint64_t)core_signal_handler)
        previous = kernel_old;
    if (old && copy_guest(old, &previous, sizeof previous))
        return -E_FAULT;
    return 0;
}

/* The synchronous half of a change of mask. A signal noted since the kernel made the other half returns to the new mask. */
static void change_blocked_sync(struct thread_ctx *ctx, int how, uint64_t bits)
{
    uint64_t sync = ctx->blocked_sync;
    set_blocked_sync(ctx, how == SIG_BLOCK_ ? sync | bits : how == SIG_UNBLOCK_ ? sync & ~bits : bits);
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

static bool on_altstack(const struct thread_ctx *ctx, uint64_t sp)
{
    return !(ctx->altstack_flags & (SS_DISABLE_ | SS_AUTODISARM_)) && sp > ctx->altstack_sp &&
           sp - ctx->altstack_sp <= ctx->altstack_size;
}

static struct kernel_stack altstack_get(const struct thread_ctx *ctx, uint64_t sp)
{
    struct kernel_stack stack = {ctx->altstack_sp, ctx->altstack_flags, 0, ctx->altstack_size};
    if (on_altstack(ctx, sp))
        stack.flags |= SS_ONSTACK_;
    return stack;
}

static long altstack_set(struct thread_ctx *ctx, const struct kernel_stack *stack, uint64_t sp)
{
    if (on_altstack(ctx, sp))
        return -E_PERM;
    uint32_t mode = stack->flags & ~SS_AUTODISARM_;
    if (mode != SS_DISABLE_ && mode != SS_ONSTACK_ && mode != 0)
        return -E_INVAL;
    if (mode == SS_DISABLE_) {
        ctx->altstack_sp = ctx->altstack_size = 0;
        ctx->altstack_flags = stack->flags;
        return 0;
    }
    if (stack->size < 2048)
        return -E_NOMEM;
    ctx->altstack_sp = stack->sp;
    ctx->altstack_size = stack->size;
    ctx->altstack_flags = stack->flags & SS_AUTODISARM_;
    return 0;
}

long sys_sigaltstack_guest(struct thread_ctx *ctx)
{
    struct kernel_stack new, old = altstack_get(ctx, ctx->gpr[RSP]);
    if (ctx->gpr[RDI]) {
        if (copy_guest(&new, (void *)ctx->gpr[RDI], sizeof new))
            return -E_FAULT;
        long result = altstack_set(ctx, &new, ctx->gpr[RSP]);
        if (result < 0)
            return result;
    }
    if (ctx->gpr[RSI] && copy_guest((void *)ctx->gpr[RSI], &old, sizeof old))
        return -E_FAULT;
    return 0;
}

/* ---- state to and from the kernel's frames ---- */

static void state_from(struct thread_ctx *ctx, const struct kernel_mcontext *mc)
{
    const uint64_t gpr[16] = {mc->rax, mc->rcx, mc->rdx, mc->rbx, mc->rsp, mc->rbp, mc->rsi, mc->rdi,
                              mc->r8,  mc->r9,  mc->r10, mc->r11, mc->r12, mc->r13, mc->r14, mc->r15};
    for (int i = 0; i < 16; i++)
        ctx->gpr[i] = gpr[i];
    ctx->pc = mc->rip;
    ctx->flags = mc->eflags;
}

static void state_to(const struct thread_ctx *ctx, struct kernel_mcontext *mc)
{
    const uint64_t *g = ctx->gpr;
    mc->rax = g[RAX], mc->rcx = g[RCX], mc->rdx = g[RDX], mc->rbx = g[RBX];
    mc->rsp = g[RSP], mc->rbp = g[RBP], mc->rsi = g[RSI], mc->rdi = g[RDI];
    mc->r8 = g[R8], mc->r9 = g[R9], mc->r10 = g[R10], mc->r11 = g[R11];
    mc->r12 = g[R12], mc->r13 = g[R13], mc->r14 = g[R14], mc->r15 = g[R15];
    mc->eflags = ctx->flags;
}

void enter_by_sigreturn(struct thread_ctx *ctx, uint64_t mask, void *fpstate)
{
    struct kernel_sigframe frame = {.restorer = 0};
    frame.uc.flags = UC_SS_FLAGS | (fpstate ? UC_FP_XSTATE : 0);
    frame.uc.stack = own_stack(ctx);
    state_to(ctx, &frame.uc.mc);
    frame.uc.mc.rip = ctx->resume;
    frame.uc.mc.cs = 0x33;
    frame.uc.mc.ss = 0x2b;
    frame.uc.mc.fpstate = (uint64_t)fpstate;
    frame.uc.sigmask = mask;
    if (ctx->held_sync & ~ctx->blocked_sync)
        held_release(ctx, ctx->held_sync & ~ctx->blocked_sync);
    sigreturn_with(&frame);
}

static uint64_t fpstate_bytes(const char *fpstate)
{
    const uint32_t *sw = (const uint32_t *)(fpstate + FP_SW_OFFSET);
    return sw[0] == FP_XSTATE_MAGIC1 ? sw[1] : 512;
}

static struct kernel_sigframe *noted(const struct thread_ctx *ctx)
{
    return thread_piece(ctx, THREAD_FRAME_OFFSET);
}

static char *noted_fpstate(const struct thread_ctx *ctx)
{
    return (char *)thread_piece(ctx, THREAD_FRAME_OFFSET) + 512;
}

/* Keeps the signal for core_deliver. From here on every signal is blocked in the interrupted context. */
static void note(struct thread_ctx *ctx, const struct kernel_siginfo *info, struct kernel_ucontext *uc)
{
    struct kernel_sigframe *frame = noted(ctx);
    frame->uc = *uc;
    frame->info = *info;
    ctx->pending_bytes = 0;
    if (uc->mc.fpstate) {
        uint64_t bytes = fpstate_bytes((char *)uc->mc.fpstate);
        if (bytes > THREAD_FRAME_BYTES - 512)
            die(125, "this CPU's extended state (%u bytes) is larger than bdbi can keep for a signal", bytes);
        memcpy(noted_fpstate(ctx), (void *)uc->mc.fpstate, bytes);
        ctx->pending_bytes = (uint32_t)bytes;
    }
    ctx->saved_mask = (uc->sigmask & ASYNC_SIGNALS) | ctx->blocked_sync;
    ctx->pending = 1;
    uc->sigmask = ASYNC_SIGNALS;
}

/* Gives a noted signal back to the kernel, which keeps it until it is unblocked. */
static void requeue(struct thread_ctx *ctx)
{
    ctx->pending = 0;
    held_send(&noted(ctx)->info);
}

_Noreturn static void die_of(struct thread_ctx *ctx, int sig)
{
    struct kernel_sigaction act = {.handler = SIG_DEFAULT, .flags = SA_RESTORER_, .restorer = (uint64_t)core_signal_return};
    uint64_t unblocked = ~SIG_BIT(sig);
    core_finish(ctx, true);
    sys4(__NR_rt_sigaction, sig, &act, 0, 8);
    sys3(__NR_tgkill, sys0(__NR_getpid), sys0(__NR_gettid), sig);
    sys4(__NR_rt_sigprocmask, SIG_SETMASK_, &unblocked, 0, 8);
    for (;;)
        sys1(__NR_exit_group, 128 + sig);
}

/* ---- delivery ---- */

/* The guest's frame below SP, as arch/x86/kernel/signal_64.c lays it out. 0: it does not fit (fault). */
static uint64_t build_frame(struct thread_ctx *ctx, const struct kernel_sigaction *act, uint64_t sp, uint64_t old_sp)
{
    struct kernel_sigframe frame = *noted(ctx);
    uint64_t fp = 0;
    if (ctx->pending_bytes) {
        sp = (sp - ctx->pending_bytes) & ~63ull;
        fp = sp;
        if (copy_guest((void *)fp, noted_fpstate(ctx), ctx->pending_bytes))
            return 0;
    }
    sp = ((sp - sizeof frame) & ~15ull) - 8;
    frame.restorer = act->restorer;
    frame.uc.link = 0;
    frame.uc.stack = altstack_get(ctx, old_sp);
    frame.uc.stack.flags &= ~SS_ONSTACK_;
    if (on_altstack(ctx, old_sp))
        frame.uc.stack.flags |= SS_ONSTACK_;
    state_to(ctx, &frame.uc.mc);
    frame.uc.mc.rip = ctx->pc;
    frame.uc.mc.oldmask = ctx->saved_mask;
    frame.uc.mc.fpstate = fp;
    frame.uc.sigmask = ctx->saved_mask;
    return copy_guest((void *)sp, &frame, sizeof frame) ? 0 : sp;
}

static uint64_t frame_stack(const struct thread_ctx *ctx, const struct kernel_sigaction *act)
{
    uint64_t sp = ctx->gpr[RSP];
    if (act->flags & SA_ONSTACK_ && !(ctx->altstack_flags & SS_DISABLE_) && !on_altstack(ctx, sp) && ctx->altstack_size)
        return ctx->altstack_sp + ctx->altstack_size;
    return sp - 128;
}

static uint64_t mask_split(struct thread_ctx *ctx, uint64_t mask)
{
    mask &= ~(SIG_BIT(SIG_KILL) | SIG_BIT(SIG_STOP));
    set_blocked_sync(ctx, mask & SYNC_SIGNALS);
    return mask & ~SYNC_SIGNALS;
}

/* Enters the handler of the noted signal. Every signal is blocked; app state is in CTX. */
void core_deliver(struct thread_ctx *ctx)
{
    int sig = noted(ctx)->info.signo;
    struct kernel_sigaction act = ctx->signals->act[sig - 1];
    ctx->stats.enter_signal++;
    ctx->delivers = true;
    if (ctx->stepping) {
        ctx->stepping = 0;
        ctx->flags &= ~(uint64_t)EFLAGS_TF;
    }
    if (act.handler <= SIG_IGNORE) { /* changed since: let the kernel do what it says now */
        if (!is_ours(sig))
            requeue(ctx);
        ctx->pending = 0;
        dispatch_resume(ctx);
        enter_by_sigreturn(ctx, mask_split(ctx, ctx->saved_mask), ctx->pending_bytes ? noted_fpstate(ctx) : NULL);
    }
    uint64_t sp = build_frame(ctx, &act, frame_stack(ctx, &act), ctx->gpr[RSP]);
    if (!sp)
        die_of(ctx, SIG_SEGV);
    if (act.flags & SA_RESETHAND_) {
        ctx->signals->act[sig - 1].handler = SIG_DEFAULT;
        if (!is_ours(sig)) {
            struct kernel_sigaction normal = {.flags = SA_RESTORER_, .restorer = (uint64_t)core_signal_return};
            sys4(__NR_rt_sigaction, sig, &normal, 0, 8);
        }
    }
    if (ctx->altstack_flags & SS_AUTODISARM_) {
        ctx->altstack_flags = SS_DISABLE_;
        ctx->altstack_sp = ctx->altstack_size = 0;
    }
    uint64_t mask = ctx->saved_mask | act.mask | (act.flags & SA_NODEFER_ ? 0 : SIG_BIT(sig));
    ctx->gpr[RAX] = 0;
    ctx->gpr[RDI] = (uint64_t)sig;
    ctx->gpr[RSI] = sp + offsetof(struct kernel_sigframe, info);
    ctx->gpr[RDX] = sp + offsetof(struct kernel_sigframe, uc);
    ctx->gpr[RSP] = sp;
    ctx->pc = act.handler;
    ctx->flags &= ~(uint64_t)(EFLAGS_TF | EFLAGS_DF | EFLAGS_RF);
    ctx->pending = 0;
    dispatch_resume(ctx);
    enter_by_sigreturn(ctx, mask_split(ctx, mask), NULL);
}

void sys_sigreturn_guest(struct thread_ctx *ctx)
{
    struct kernel_ucontext uc;
    uint64_t old;
    signals_block_all(&old);
    ctx->delivers = true;
    if (ctx->pending)
        requeue(ctx);
    if (copy_guest(&uc, (void *)ctx->gpr[RSP], sizeof uc))
        die_of(ctx, SIG_SEGV);
    state_from(ctx, &uc.mc);
    ctx->flags = (ctx->flags & EFLAGS_GUEST) | 0x202;
    uint64_t mask = mask_split(ctx, uc.sigmask);
    if (!on_altstack(ctx, ctx->gpr[RSP]))
        altstack_set(ctx, &uc.stack, ctx->gpr[RSP]);
    dispatch_resume_inside(ctx);
    enter_by_sigreturn(ctx, mask, (void *)uc.mc.fpstate);
}

/* ---- the kernel's call ---- */

static bool within(uint64_t pc, const char *from, const char *to)
{
    return pc >= (uint64_t)from && pc < (uint64_t)to;
}

static bool in_core(uint64_t pc)
{
    return pc >= BDBI_IMAGE_BASE && pc < BDBI_IMAGE_END;
}

/* Registers that emitted code holds in their homes go back where the app has them. */
static void undo_spills(const struct thread_ctx *ctx, uint32_t homes, struct kernel_mcontext *mc)
{
    uint64_t *const at[16] = {&mc->rax, &mc->rcx, &mc->rdx, &mc->rbx, &mc->rsp, &mc->rbp, &mc->rsi, &mc->rdi,
                              &mc->r8,  &mc->r9,  &mc->r10, &mc->r11, &mc->r12, &mc->r13, &mc->r14, &mc->r15};
    for (int i = 0; i < 16; i++)
        if (homes & (1u << i))
            *at[i] = ctx->gpr[i];
}

static void go_to(struct thread_ctx *ctx, struct kernel_ucontext *uc, const char *entry)
{
    uc->mc.rip = (uint64_t)entry;
    uc->mc.rsp = ctx->core_sp;
    uc->mc.eflags = 0x202;
}

/* A synchronous signal of the guest, whose app state UC now holds. */
static void deliver_sync(struct thread_ctx *ctx, int sig, struct kernel_siginfo *info, struct kernel_ucontext *uc)
{
    const struct kernel_sigaction *act = &ctx->signals->act[sig - 1];
    if (ctx->pending) { /* it came while an asynchronous one was being stepped to a clean point */
        requeue(ctx);
        uc->sigmask = ctx->saved_mask & ~SYNC_SIGNALS;
        ctx->stepping = 0;
        uc->mc.eflags &= ~(uint64_t)EFLAGS_TF;
    }
    state_from(ctx, &uc->mc);
    if (act->handler <= SIG_IGNORE || ctx->blocked_sync & SIG_BIT(sig))
        die_of(ctx, sig);
    note(ctx, info, uc);
    go_to(ctx, uc, core_deliver_entry);
}

static void redispatch(struct thread_ctx *ctx, struct kernel_ucontext *uc)
{
    state_from(ctx, &uc->mc);
    go_to(ctx, uc, core_redispatch_entry);
}

_Noreturn static void internal_error(struct thread_ctx *ctx, int sig, uint64_t rip, uint64_t address)
{
    warn("internal error: signal %d at %x, address %x%s: please report it", sig, rip, address,
         ctx->in_translator ? ", in the translator" : "");
    struct kernel_sigaction act = {.handler = SIG_DEFAULT, .flags = SA_RESTORER_, .restorer = (uint64_t)core_signal_return};
    uint64_t unblocked = ~SIG_BIT(sig);
    sys4(__NR_rt_sigaction, sig, &act, 0, 8);
    sys3(__NR_tgkill, sys0(__NR_getpid), sys0(__NR_gettid), sig);
    sys4(__NR_rt_sigprocmask, SIG_SETMASK_, &unblocked, 0, 8);
    for (;;)
        sys1(__NR_exit_group, 125);
}

static void step(struct thread_ctx *ctx, struct kernel_ucontext *uc)
{
    if (!ctx->stepping && ctx->signals->act[SIG_TRAP - 1].handler <= SIG_IGNORE)
        install(SIG_TRAP, 0, NULL);
    ctx->stepping = 1;
    uc->mc.eflags |= EFLAGS_TF;
}

/* The frame of a fetch from ctx->pc as it is where nothing is mapped. */
static void make_fetch_fault(struct thread_ctx *ctx, struct kernel_siginfo *info, struct kernel_ucontext *uc)
{
    info->code = SEGV_MAPERR_;
    info->address = uc->mc.cr2 = uc->mc.rip = ctx->pc;
    uc->mc.trapno = TRAP_PAGE_FAULT;
    uc->mc.err = PAGE_FAULT_USER_FETCH;
}

static void handle_sync(struct thread_ctx *ctx, int sig, struct kernel_siginfo *info, struct kernel_ucontext *uc)
{
    uint64_t rip = uc->mc.rip;
    if (ctx->in_tool)
        tool_crashed(ctx, sig, rip, info->address);
    if (within(rip, core_copy_begin, core_copy_end)) {
        if (sig == SIG_SEGV && uc->mc.err & 2 && jit_guards && jit_write_fault(ctx, info->address, 0))
            return;
        uc->mc.rip = (uint64_t)core_copy_fault;
        return;
    }
    if (rip == (uint64_t)core_ill_trap || within(rip, core_exit_restart, core_exit_end)) {
        uc->mc.rip = ctx->pc; /* an undecodable instruction; or a jump to a non-canonical address */
        if (sig == SIG_ILL)
            info->address = ctx->pc;
        deliver_sync(ctx, sig, info, uc);
        return;
    }
    if (rip == (uint64_t)core_fetch_trap) {
        make_fetch_fault(ctx, info, uc);
        deliver_sync(ctx, sig, info, uc);
        return;
    }
    if (in_core(rip))
        internal_error(ctx, sig, rip, info->address);
    struct code_state state = code_state_at(rip);
    bool fetch = sig == SIG_SEGV && info->address == rip;
    if (!state.known) {
        if (ctx->fetch_fault && rip == ctx->fetch_fault)
            uc->mc.rip = ctx->pc;
        ctx->fetch_fault = 0;
        if (fetch && exec_find(rip)) /* guest text is mapped without execute permission */
            redispatch(ctx, uc);
        else
            deliver_sync(ctx, sig, info, uc);
        return;
    }
    if (!state.clean && fetch && jit_open_dropped(ctx, rip)) { /* another thread dropped the code under this one */
        step(ctx, uc);
        return;
    }
    if (!state.clean && sig != SIG_TRAP)
        internal_error(ctx, sig, rip, info->address);
    undo_spills(ctx, state.homes, &uc->mc);
    uc->mc.rip = state.app;
    if (fetch || (sig == SIG_SEGV && uc->mc.err & 2 && jit_write_fault(ctx, info->address, state.app))) {
        redispatch(ctx, uc);
        return;
    }
    if (info->address == rip)
        info->address = state.app; /* SIGILL, SIGFPE, SIGTRAP name the instruction */
    deliver_sync(ctx, sig, info, uc);
}

/* Puts a thread that was in translated code at PC on its way to core_deliver. The signal is noted. */
static void leave_code(struct thread_ctx *ctx, struct kernel_ucontext *uc)
{
    struct code_state state = {.known = false};
    if (!within(uc->mc.rip, core_ibl_begin, core_ibl_end))
        state = code_state_at(uc->mc.rip);
    if (!state.known && !in_core(uc->mc.rip)) { /* about to fetch where nothing is: that address is the app's */
        state.app = uc->mc.rip;
        state.clean = true;
    }
    if (!state.clean) {
        step(ctx, uc);
        return;
    }
    undo_spills(ctx, state.homes, &uc->mc);
    uc->mc.rip = state.app;
    uc->mc.eflags &= ~(uint64_t)EFLAGS_TF;
    ctx->stepping = 0;
    state_from(ctx, &uc->mc);
    go_to(ctx, uc, core_deliver_entry);
}

/* A synchronous signal that was sent and cannot be delivered now: it is held, or, on the way through a sigreturn, left to that.
 */
static bool put_off(struct thread_ctx *ctx, const struct kernel_siginfo *info, struct kernel_ucontext *uc)
{
    uint64_t bit = SIG_BIT(info->signo), blocked = ctx->waits_masked ? ctx->wait_sync : ctx->blocked_sync;
    if (ctx->pending || blocked & bit) {
        held_add(ctx, info);
        return true;
    }
    bool delivering = ctx->delivers && in_core(uc->mc.rip) && (~uc->sigmask & ASYNC_SIGNALS & ~KERNEL_ONLY) == 0;
    if (delivering) {
        uc->sigmask |= bit;
        held_send(info);
    }
    return delivering;
}

static void handle_async(struct thread_ctx *ctx, struct kernel_siginfo *info, struct kernel_ucontext *uc)
{
    uint64_t rip = uc->mc.rip;
    int sig = info->signo;
    if (is_synchronous(sig) && put_off(ctx, info, uc))
        return;
    if (is_ours(sig) && ctx->signals->act[sig - 1].handler <= SIG_IGNORE) { /* sent, not raised: these are always ours */
        if (ctx->signals->act[sig - 1].handler == SIG_DEFAULT)
            die_of(ctx, sig);
        return;
    }
    note(ctx, info, uc);
    if (within(rip, core_exit_restart, core_exit_end))
        uc->mc.rip = (uint64_t)core_exit_restart;
    else if (rip >= (uint64_t)guest_syscall_check && rip <= (uint64_t)guest_syscall_insn)
        uc->mc.rip = (uint64_t)guest_syscall_aborted;
    else if (!in_core(rip) || within(rip, core_ibl_begin, core_ibl_end))
        leave_code(ctx, uc);
}

void core_signal_handler(int sig, void *siginfo, void *context)
{
    struct thread_ctx *ctx = ctx_self();
    struct kernel_siginfo *info = siginfo;
    struct kernel_ucontext *uc = context;
    if (ctx->opened)
        jit_close_dropped(ctx);
    if (sig == SIG_TRAP && ctx->stepping && info->code > 0) {
        uint64_t rip = uc->mc.rip;
        if (!ctx->pending) { /* out of dropped code; if not, it faults again */
            uc->mc.eflags &= ~(uint64_t)EFLAGS_TF;
            ctx->stepping = 0;
        } else if (in_core(rip) && !within(rip, core_ibl_begin, core_ibl_end)) {
            uc->mc.eflags &= ~(uint64_t)EFLAGS_TF; /* the core will see that a signal is noted */
            if (within(rip, core_exit_restart, core_exit_end))
                uc->mc.rip = (uint64_t)core_exit_restart;
        } else
            leave_code(ctx, uc);
    } else if (is_synchronous(sig) && info->code > 0)
        handle_sync(ctx, sig, info, uc);
    else
        handle_async(ctx, info, uc);
}
