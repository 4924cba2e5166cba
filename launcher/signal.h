/* SPDX-License-Identifier: Apache-2.0
 *
 * What the three files about signals share: dispositions and masks (disposition.c), the guest's frames (frame.c), the kernel's
 * call (signal.c).
 */
#ifndef BDBI_SIGNAL_H
#define BDBI_SIGNAL_H

#include "launcher/core.h"

#define SYNC_SIGNALS (SIG_BIT(SIG_SEGV) | SIG_BIT(SIG_BUS) | SIG_BIT(SIG_ILL) | SIG_BIT(SIG_FPE) | SIG_BIT(SIG_TRAP))
#define ALL_SIGNALS (~0ull)
#define ASYNC_SIGNALS (~SYNC_SIGNALS)
#define KERNEL_ONLY (SIG_BIT(SIG_KILL) | SIG_BIT(SIG_STOP)) /* never in a mask */
#define SA_KNOWN 0xdc000807ull                              /* the kernel clears all others */
#define SEGV_MAPERR_ 1
#define FILTER_TRAP 1 /* SYS_SECCOMP */
#define TRAP_PAGE_FAULT 14
#define PAGE_FAULT_USER_FETCH 0x14
#define TRAP_DEBUG 1 /* the CPU's number of the single-step trap */
#define EFLAGS_TF 0x100
#define EFLAGS_DF 0x400
#define EFLAGS_RF 0x10000
#define EFLAGS_GUEST 0x50dd5ull /* what sigreturn may set: CF PF AF ZF SF TF DF OF RF AC, as the kernel's FIX_EFLAGS */
#define UC_FP_XSTATE 1ull
#define UC_SS_FLAGS 6ull /* UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS */
#define FP_SW_OFFSET 464 /* struct _fpx_sw_bytes in the FXSAVE area */
#define FP_XSTATE_MAGIC1 0x46505853

struct signal_state {
    struct kernel_sigaction act[64];
};

/* ---- disposition.c ---- */

/* Signal SIG has our handler whatever the guest wants of it. */
bool signal_is_ours(int sig);
long signal_install(int sig, uint64_t guest_flags, struct kernel_sigaction *old);
/* The synchronous half of a mask. */
void signal_block_sync(struct thread_ctx *ctx, uint64_t bits);
struct kernel_stack signal_own_stack(const struct thread_ctx *ctx);

static inline bool signal_is_synchronous(int sig)
{
    return sig > 0 && sig <= 64 && (SIG_BIT(sig) & SYNC_SIGNALS);
}

/* ---- signal.c ---- */

static inline struct kernel_sigframe *signal_noted(const struct thread_ctx *ctx)
{
    return thread_piece(ctx, THREAD_FRAME_OFFSET);
}

static inline char *signal_noted_fpstate(const struct thread_ctx *ctx)
{
    return (char *)thread_piece(ctx, THREAD_FRAME_OFFSET) + 512;
}

/* Gives a noted signal back to the kernel, which keeps it until it is unblocked. */
void signal_requeue(struct thread_ctx *ctx);
/* The process ends as by the kernel's default action for SIG. */
_Noreturn void signal_die_of(struct thread_ctx *ctx, int sig);

/* ---- frame.c ---- */

/* Registers, pc and flags of MC become the guest's. */
void frame_state_from(struct thread_ctx *ctx, const struct kernel_mcontext *mc);

#endif
