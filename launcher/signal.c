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
 * order. Frames are in frame.c, actions and masks in disposition.c, synchronous signals that are sent in held.c.
 */
#include "launcher/signal.h"

static bool after_guest_syscall(uint64_t rip)
{
    return rip == (uint64_t)guest_syscall_insn + 2;
}

static uint64_t fpstate_bytes(const char *fpstate)
{
    const uint32_t *sw = (const uint32_t *)(fpstate + FP_SW_OFFSET);
    return sw[0] == FP_XSTATE_MAGIC1 ? sw[1] : 512;
}

/* The signal ends a call like sigsuspend: the handler starts with the mask that the call waited with. */
static bool ended_wait(const struct thread_ctx *ctx, const struct kernel_ucontext *uc)
{
    return ctx->waits == WAITS_ENDED || (ctx->waits && after_guest_syscall(uc->mc.rip) && uc->mc.rax == (uint64_t)-E_INTR);
}

/* Keeps the signal for core_deliver. From here on every signal is blocked in the interrupted context. */
static void note(struct thread_ctx *ctx, const struct kernel_siginfo *info, struct kernel_ucontext *uc)
{
    struct kernel_sigframe *frame = signal_noted(ctx);
    frame->uc = *uc;
    frame->info = *info;
    ctx->pending_bytes = 0;
    if (uc->mc.fpstate) {
        uint64_t bytes = fpstate_bytes((char *)uc->mc.fpstate);
        if (bytes > THREAD_FRAME_BYTES - 512)
            die(125, "this CPU's extended state (%u bytes) is larger than bdbi can keep for a signal", bytes);
        memcpy(signal_noted_fpstate(ctx), (void *)uc->mc.fpstate, bytes);
        ctx->pending_bytes = (uint32_t)bytes;
    }
    ctx->saved_mask = (uc->sigmask & ASYNC_SIGNALS) | ctx->blocked_sync;
    ctx->entry_mask = ended_wait(ctx, uc) ? ctx->wait_mask : ctx->saved_mask;
    ctx->pending = 1;
    uc->sigmask = ASYNC_SIGNALS;
}

bool signal_of_filter(const struct thread_ctx *ctx)
{
    const struct kernel_siginfo *info = &signal_noted(ctx)->info;
    return info->signo == SIG_SYS && info->code == FILTER_TRAP;
}

/* Gives a noted signal back to the kernel, which keeps it until it is unblocked. */
void signal_requeue(struct thread_ctx *ctx)
{
    ctx->pending = 0;
    held_send(&signal_noted(ctx)->info);
}

/* The first process of a namespace is not ended by what it sends itself, but by a fault. */
static void fault_with(int sig)
{
    switch (sig) {
    case SIG_SEGV:
        __asm__ volatile("movb $0, 0");
        break;
    case SIG_ILL:
        __asm__ volatile("ud2");
        break;
    case SIG_TRAP:
        __asm__ volatile("int3");
        break;
    case SIG_FPE:
        __asm__ volatile("xor %%ecx, %%ecx\n\tdiv %%ecx" ::: "rax", "rcx", "rdx", "cc");
        break;
    case SIG_BUS: /* alignment check */
        __asm__ volatile("pushfq\n\torq $0x40000, (%%rsp)\n\tpopfq\n\tmov 1(%%rsp), %%rax" ::: "rax", "cc", "memory");
        break;
    }
}

_Noreturn void signal_die_of(struct thread_ctx *ctx, int sig)
{
    struct kernel_sigaction act = {.handler = SIG_DEFAULT, .flags = SA_RESTORER_, .restorer = (uint64_t)core_signal_return};
    uint64_t unblocked = ~SIG_BIT(sig);
    core_finish(ctx, true);
    sys4(__NR_rt_sigaction, sig, &act, 0, 8);
    sys3(__NR_tgkill, sys0(__NR_getpid), sys0(__NR_gettid), sig);
    sys4(__NR_rt_sigprocmask, SIG_SETMASK_, &unblocked, 0, 8);
    fault_with(sig);
    for (;;)
        sys1(__NR_exit_group, 128 + sig);
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
        signal_requeue(ctx);
        uc->sigmask = ctx->saved_mask & ~SYNC_SIGNALS;
        ctx->stepping = 0;
        uc->mc.eflags &= ~(uint64_t)EFLAGS_TF;
    }
    frame_state_from(ctx, &uc->mc);
    if (act->handler <= SIG_IGNORE || ctx->blocked_sync & SIG_BIT(sig))
        signal_die_of(ctx, sig);
    note(ctx, info, uc);
    go_to(ctx, uc, core_deliver_entry);
}

static void redispatch(struct thread_ctx *ctx, struct kernel_ucontext *uc)
{
    frame_state_from(ctx, &uc->mc);
    go_to(ctx, uc, core_redispatch_entry);
}

_Noreturn static void internal_error(struct thread_ctx *ctx, int sig, uint64_t rip, uint64_t address)
{
    warn("internal error: signal %d at %x, address %x%s: please report it", sig, rip, address,
         ctx->in_translator ? ", in the translator" : "");
    if (ctx->vfork_parent)
        lock_abandon(&core_lock, ctx);
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
        signal_install(SIG_TRAP, 0, NULL);
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

/* Where the target cache leads for PC. */
static uint64_t landing_of(const struct thread_ctx *ctx, uint64_t pc)
{
    return *(const uint64_t *)thread_piece(ctx, CTX_TARGET(pc));
}

static void handle_sync(struct thread_ctx *ctx, int sig, struct kernel_siginfo *info, struct kernel_ucontext *uc)
{
    uint64_t rip = uc->mc.rip;
    if (ctx->in_tool)
        tool_crashed(ctx, sig, rip, info->address);
    if (within(rip, core_ibl_begin, core_ibl_end) && uc->mc.trapno == TRAP_DEBUG)
        return; /* the guest's own trap flag: the step ends at the target */
    if (within(rip, core_copy_begin, core_copy_end)) {
        if (sig == SIG_SEGV && uc->mc.err & 2 && jit_guards && jit_write_fault(ctx, info->address, 0))
            return;
        uc->mc.rip = (uint64_t)core_copy_fault;
        return;
    }
    if (sig == SIG_TRAP && within(rip, core_exit_restart, core_exit_end))
        undo_spills(ctx, 0xffff, &uc->mc); /* the guest is single-stepping itself; it is about to be there */
    if (rip == (uint64_t)core_ill_trap || rip == (uint64_t)core_protection_trap ||
        within(rip, core_exit_restart, core_exit_end)) {
        if (sig == SIG_SEGV && within(rip, core_exit_restart, core_exit_end))
            explain("a branch to 0x%x, no canonical address: the signal's frame is of after it, not before", ctx->pc);
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
    if (rip == (uint64_t)core_cpuid_insn) { /* the guest has made it fault (ARCH_SET_CPUID) */
        undo_spills(ctx, 0xffff, &uc->mc);
        uc->mc.eflags = ctx->flags;
        uc->mc.rip = code_state_at(ctx->resume - 1).app;
        deliver_sync(ctx, sig, info, uc);
        return;
    }
    if (in_core(rip))
        internal_error(ctx, sig, rip, info->address);
    struct code_state state = code_state_at(rip);
    if (state.known && !state.first && uc->mc.trapno == TRAP_DEBUG && uc->mc.eflags & EFLAGS_TF)
        return; /* one of several instructions for one of the guest's */
    bool fetch = sig == SIG_SEGV && info->address == rip;
    if (!state.known) {
        if (ctx->fetch_fault && rip == ctx->fetch_fault)
            uc->mc.rip = ctx->pc;
        ctx->fetch_fault = 0;
        if (fetch && info->code != SEGV_MAPERR_ && exec_find(rip)) /* guest text is mapped without execute permission */
            redispatch(ctx, uc);
        else
            deliver_sync(ctx, sig, info, uc);
        return;
    }
    if (fetch && rip == landing_of(ctx, uc->mc.rcx)) { /* from the target cache, to code that has gone */
        state = (struct code_state){.app = uc->mc.rcx, .clean = true, .known = true, .homes = 1u << RDX | 1u << RCX};
    }
    if (!state.clean && fetch && jit_open_dropped(ctx, rip)) { /* another thread dropped the code under this one */
        step(ctx, uc);
        return;
    }
    if (!state.clean && fetch) /* not even there any more (place_make_way) */
        die(125, "the program maps memory over code that another of its threads is in the middle of: not supported");
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
    frame_state_from(ctx, &uc->mc);
    go_to(ctx, uc, core_deliver_entry);
}

/* A synchronous signal that was sent and cannot be delivered now: it is held, or, on the way through a sigreturn, left to that.
 */
static bool put_off(struct thread_ctx *ctx, const struct kernel_siginfo *info, struct kernel_ucontext *uc)
{
    uint64_t bit = SIG_BIT(info->signo), blocked = ctx->waits ? ctx->wait_mask : ctx->blocked_sync;
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
    if (signal_is_synchronous(sig) && put_off(ctx, info, uc))
        return;
    uint64_t handler = ctx->signals->act[sig - 1].handler;
    /* Sent, not raised. The first process of a namespace has no default actions. */
    if (signal_is_ours(sig) && (handler == SIG_IGNORE || (handler == SIG_DEFAULT && sys0(__NR_getpid) == 1)))
        return;
    if (sig == SIG_SYS && info->code == FILTER_TRAP && in_core(info->address)) /* made for the guest's syscall instruction */
        info->address = ctx->pc;
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
    } else if (signal_is_synchronous(sig) && info->code > 0 && !after_guest_syscall(uc->mc.rip)) /* there the guest sent it */
        handle_sync(ctx, sig, info, uc);
    else
        handle_async(ctx, info, uc);
}
