/* SPDX-License-Identifier: Apache-2.0
 *
 * Synchronous signals (SEGV, BUS, ILL, FPE, TRAP) that somebody sends while the guest has them blocked.
 *
 * They are never really blocked, because faults of ours use them, so the kernel delivers them. The thread holds them here
 * instead: sigpending shows them, sigtimedwait takes them. When the guest unblocks one it is blocked for real, sent again with
 * its value, and the change of mask that the guest made does the rest: it arrives at a clean place in the guest's code.
 */
#include "launcher/core.h"

/* 4 ILL, 5 TRAP, 7 BUS, 8 FPE, 11 SEGV */
static uint32_t slot_of(int sig)
{
    return sig == SIG_SEGV ? 4 : sig >= 7 ? (uint32_t)sig - 5 : (uint32_t)sig - 4;
}

void held_add(struct thread_ctx *ctx, const struct kernel_siginfo *info)
{
    uint64_t bit = SIG_BIT(info->signo);
    if (ctx->held_sync & bit)
        return; /* as the kernel: a second one is lost */
    explain("signal %d was sent while it is blocked: this thread keeps it, signalfd does not see it", info->signo);
    ctx->held[slot_of(info->signo)] = *info;
    ctx->held_sync |= bit;
}

void held_discard(int sig)
{
    lock_take(&core_lock);
    for (struct thread_ctx *t = threads; t; t = t->next)
        __atomic_and_fetch(&t->held_sync, ~SIG_BIT(sig), __ATOMIC_SEQ_CST);
    lock_drop(&core_lock);
}

void held_send(const struct kernel_siginfo *info)
{
    struct kernel_siginfo copy = *info;
    long pid = sys0(__NR_getpid), tid = sys0(__NR_gettid);
    if (sys4(__NR_rt_tgsigqueueinfo, pid, tid, copy.signo, &copy) < 0)
        sys3(__NR_tgkill, pid, tid, copy.signo);
}

/* Sends what is held and in SET again. It is blocked until the caller sets the thread's mask. */
void held_release(struct thread_ctx *ctx, uint64_t set)
{
    sys4(__NR_rt_sigprocmask, SIG_BLOCK_, &set, 0, 8);
    for (int sig = SIG_ILL; sig <= SIG_SEGV; sig++)
        if (ctx->held_sync & set & SIG_BIT(sig)) {
            ctx->held_sync &= ~SIG_BIT(sig);
            held_send(&ctx->held[slot_of(sig)]);
        }
}

long sys_sigpending_guest(struct thread_ctx *ctx)
{
    long result = guest_syscall(ctx);
    uint64_t set = 0, bytes = ctx->gpr[RSI]; /* at most 8: the kernel has checked */
    if (result < 0 || !ctx->held_sync || copy_guest(&set, (void *)ctx->gpr[RDI], bytes))
        return result;
    set |= ctx->held_sync;
    return copy_guest((void *)ctx->gpr[RDI], &set, bytes) ? -E_FAULT : result;
}

long sys_sigtimedwait_guest(struct thread_ctx *ctx)
{
    uint64_t set;
    if (!ctx->held_sync || ctx->gpr[R10] != 8 || copy_guest(&set, (void *)ctx->gpr[RDI], 8) || !(set & ctx->held_sync))
        return guest_syscall(ctx);
    for (int sig = SIG_ILL; sig <= SIG_SEGV; sig++)
        if (set & ctx->held_sync & SIG_BIT(sig)) {
            ctx->held_sync &= ~SIG_BIT(sig);
            if (ctx->gpr[RSI] && copy_guest((void *)ctx->gpr[RSI], &ctx->held[slot_of(sig)], sizeof ctx->held[0]))
                return -E_FAULT;
            return sig;
        }
    return guest_syscall(ctx);
}

/* A call that waits with the mask at MASK: that is the mask, not the thread's, that says what is held. */
long sys_wait_masked_guest(struct thread_ctx *ctx, uint64_t mask)
{
    uint64_t set;
    if (!mask || copy_guest(&set, (void *)mask, 8))
        return guest_syscall(ctx);
    ctx->wait_mask = set & ~(SIG_BIT(SIG_KILL) | SIG_BIT(SIG_STOP));
    ctx->waits = WAITS_IN_KERNEL;
    long result;
    if (ctx->held_sync & ~set) { /* pending and no longer blocked: the call ends at once */
        ctx->waits = WAITS_ENDED;
        uint64_t bits = ctx->held_sync & ~set;
        held_release(ctx, bits);
        sys4(__NR_rt_sigprocmask, SIG_UNBLOCK_, &bits, 0, 8);
        result = -E_INTR;
    } else
        result = guest_syscall(ctx);
    ctx->waits = WAITS_NOT;
    return result;
}
