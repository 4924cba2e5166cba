/* SPDX-License-Identifier: Apache-2.0
 *
 * The guest's signal frames: as arch/x86/kernel/signal_64.c lays them out, built from the kernel's own frame with app state put
 * in. A handler is entered, and returned from, through a real rt_sigreturn of ours: mask, FPU state, registers and code address
 * change at once.
 */
#include "launcher/signal.h"

void sigreturn_with(struct kernel_sigframe *frame) __attribute__((noreturn));
void core_deliver(struct thread_ctx *ctx) __attribute__((noreturn));

/* ---- the alternate stack ---- */

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

void frame_state_from(struct thread_ctx *ctx, const struct kernel_mcontext *mc)
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
    frame.uc.stack = signal_own_stack(ctx);
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

/* ---- delivery ---- */

/* The guest's frame below TOP. 0: it does not fit (fault). */
static uint64_t build_frame(struct thread_ctx *ctx, const struct kernel_sigaction *act, uint64_t top, uint64_t old_sp)
{
    struct kernel_sigframe frame = *signal_noted(ctx);
    uint64_t fp = 0, sp = top;
    if (ctx->pending_bytes) {
        fpu_correct_frame(signal_noted_fpstate(ctx));
        sp = (sp - ctx->pending_bytes) & ~63ull;
        fp = sp;
        if (copy_guest((void *)fp, signal_noted_fpstate(ctx), ctx->pending_bytes))
            return 0;
    }
    sp = ((sp - sizeof frame) & ~15ull) - 8;
    if (on_altstack(ctx, old_sp) ? !on_altstack(ctx, sp) : top != old_sp - 128 && sp < ctx->altstack_sp)
        return 0; /* past the end of the alternate stack */
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
    signal_block_sync(ctx, mask & SYNC_SIGNALS);
    return mask & ~SYNC_SIGNALS;
}

static void explain_flags(void)
{
    static bool said;
    if (options.tool && !said)
        explain("signals with a tool: a frame's arithmetic flags may be a counter's where the program does not use them");
    said = true;
}

/* Enters the handler of the noted signal. Every signal is blocked; app state is in CTX. */
void core_deliver(struct thread_ctx *ctx)
{
    int sig = signal_noted(ctx)->info.signo;
    struct kernel_sigaction act = ctx->signals->act[sig - 1];
    uint64_t handler = act.handler;
    ctx->stats.enter_signal++;
    ctx->delivers = true;
    if (ctx->stepping) {
        ctx->stepping = 0;
        ctx->flags &= ~(uint64_t)EFLAGS_TF;
    }
    if (act.handler <= SIG_IGNORE) { /* changed since: let the kernel do what it says now */
        if (act.handler == SIG_DEFAULT && signal_is_ours(sig))
            signal_die_of(ctx, sig);
        if (!signal_is_ours(sig))
            signal_requeue(ctx);
        ctx->pending = 0;
        dispatch_resume(ctx);
        enter_by_sigreturn(ctx, mask_split(ctx, ctx->saved_mask), ctx->pending_bytes ? signal_noted_fpstate(ctx) : NULL);
    }
    explain_flags();
    uint64_t sp = build_frame(ctx, &act, frame_stack(ctx, &act), ctx->gpr[RSP]);
    if (!sp)
        signal_die_of(ctx, SIG_SEGV);
    if (act.flags & SA_RESETHAND_) {
        ctx->signals->act[sig - 1].handler = SIG_DEFAULT;
        if (!signal_is_ours(sig)) {
            act.handler = SIG_DEFAULT;
            sys4(__NR_rt_sigaction, sig, &act, 0, 8);
            act.handler = handler;
        }
    }
    if (ctx->altstack_flags & SS_AUTODISARM_) {
        ctx->altstack_flags = SS_DISABLE_;
        ctx->altstack_sp = ctx->altstack_size = 0;
    }
    uint64_t mask = ctx->entry_mask | act.mask | (act.flags & SA_NODEFER_ ? 0 : SIG_BIT(sig));
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
        signal_requeue(ctx);
    if (copy_guest(&uc, (void *)ctx->gpr[RSP], sizeof uc))
        signal_die_of(ctx, SIG_SEGV);
    frame_state_from(ctx, &uc.mc);
    ctx->flags = (ctx->flags & EFLAGS_GUEST) | 0x202;
    uint64_t mask = mask_split(ctx, uc.sigmask);
    if (!on_altstack(ctx, ctx->gpr[RSP]))
        altstack_set(ctx, &uc.stack, ctx->gpr[RSP]);
    dispatch_resume_inside(ctx);
    enter_by_sigreturn(ctx, mask, (void *)uc.mc.fpstate);
}
