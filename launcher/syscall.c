/* SPDX-License-Identifier: Apache-2.0
 *
 * The guest's system calls. Most go to the kernel as they are; those that would show the guest, or cost us, what bdbi is are
 * handled.
 */
#include "launcher/core.h"
#include <asm/prctl.h>
#include <linux/prctl.h>

#define RESTART INT64_MIN /* guest_syscall: abandoned before it started */
#define NR_READLINKAT 267
#define LOCK_CURRENT 1 /* mlockall: MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT */
#define LOCK_FUTURE 2
#define LOCK_ON_FAULT 4
#define NR_STATX 332
#define TRUNCATE 01000 /* O_TRUNC */
#define NR_COPY_FILE_RANGE 326
#define NR_PWRITEV2 328
#define NR_CLONE3 435
#define NR_OPENAT2 437
#define NR_RSEQ 334
#define NR_EPOLL_PWAIT2 441
#define NR_MEMFD_CREATE 319
#define NR_IO_URING_SETUP 425
#define NR_IO_URING_ENTER 426
#define NR_LANDLOCK_RESTRICT_SELF 446
#define NR_MSEAL 462
#define SET_DISPATCH 59        /* PR_SET_SYSCALL_USER_DISPATCH */
#define SET_MDWE 65            /* PR_SET_MDWE */
#define NEW_USERFAULTFD 0xaa00 /* ioctl of /dev/userfaultfd */
#define READ_IMPLIES_EXEC 0x400000

/* The kernel's link names the file itself, not the symbolic links that led to it. */
static void resolve_exe(void)
{
    static bool done;
    char link[40];
    long fd = done ? -1 : sys4(__NR_openat, AT_FDCWD_, guest_exe, O_PATH_ | O_CLOEXEC_, 0);
    done = true;
    if (fd < 0)
        return;
    format(link, sizeof link, "/proc/self/fd/%d", (int)fd);
    char real[4096];
    long n = sys4(__NR_readlinkat, AT_FDCWD_, link, real, sizeof real - 1);
    if (n > 0) {
        real[n] = 0;
        guest_exe = heap_string(real);
    }
    sys1(__NR_close, fd);
}

static long read_exe_link(char *out, uint64_t bytes)
{
    resolve_exe();
    size_t n = core_strlen(guest_exe);
    if ((int64_t)bytes <= 0)
        return -E_INVAL;
    if (n > bytes)
        n = bytes;
    return copy_guest(out, guest_exe, n) ? -E_FAULT : (long)n;
}

/* Calls that take a path in argument register REG: /proc/self/exe means the guest's program. */
static long with_exe_path(struct thread_ctx *ctx, enum gpr reg)
{
    uint64_t path = ctx->gpr[reg];
    if (!options.native && procfs_is_exe((const char *)path)) {
        ctx->gpr[reg] = (uint64_t)guest_exe;
        long result = guest_syscall(ctx);
        if (result == -E_NOENT)
            explain("/proc/self/exe cannot be opened: the program's file, %s, has no name any more", guest_exe);
        ctx->gpr[reg] = path;
        return result;
    }
    return guest_syscall(ctx);
}

/* Two options would hit the core and the translator, which make system calls and executable memory in the same process:
 * refused, as by kernels that do not know them. */
static long sys_prctl(struct thread_ctx *ctx)
{
    switch ((uint32_t)ctx->gpr[RDI]) {
    case PR_SET_SECCOMP:
        return sys_prctl_seccomp_guest(ctx);
    case SET_DISPATCH:
    case SET_MDWE:
        if (!ctx->gpr[RSI] || options.native)
            return guest_syscall(ctx);
        explain("prctl(%s) gives EINVAL", (uint32_t)ctx->gpr[RDI] == SET_MDWE ? "PR_SET_MDWE" : "PR_SET_SYSCALL_USER_DISPATCH");
        return -E_INVAL;
    default:
        return guest_syscall(ctx);
    }
}

/* The kernel would make what the guest maps to read executable for real. It need not know: memory.c goes by `reads_execute`. */
static long sys_personality(struct thread_ctx *ctx)
{
    uint64_t value = ctx->gpr[RDI], was = ctx->reads_execute ? READ_IMPLIES_EXEC : 0;
    bool asked = (uint32_t)value == 0xffffffff;
    if (options.native)
        return guest_syscall(ctx);
    if (!asked)
        ctx->gpr[RDI] = value & ~(uint64_t)READ_IMPLIES_EXEC;
    long result = guest_syscall(ctx);
    ctx->gpr[RDI] = value;
    if (result < 0)
        return result;
    if (!asked)
        ctx->reads_execute = value & READ_IMPLIES_EXEC;
    return result | (long)was;
}

bool faults_served;

static long sys_memfd_create(struct thread_ctx *ctx)
{
    long fd = guest_syscall(ctx);
    if (fd >= 0 && !options.native)
        alias_made((int)fd);
    return fd;
}

/* A message may carry descriptors. */
static long sys_send(struct thread_ctx *ctx)
{
    uint64_t message[6]; /* of struct msghdr: the last word is msg_controllen */
    bool one = (uint32_t)ctx->gpr[RAX] == __NR_sendmsg;
    if (alias_made_count && !(one && !copy_guest(message, (void *)ctx->gpr[RSI], sizeof message) && !message[5])) {
        lock_take(&core_lock);
        alias_leaves();
        lock_drop(&core_lock);
    }
    return guest_syscall(ctx);
}

static long sys_reads_later(struct thread_ctx *ctx)
{
    reads_later = true;
    return guest_syscall(ctx);
}

/* A thread of the guest may bring its pages from now on. */
static long sys_userfaultfd(struct thread_ctx *ctx)
{
    faults_served = true;
    return guest_syscall(ctx);
}

static long sys_arch_prctl(struct thread_ctx *ctx)
{
    if (ctx->gpr[RDI] == ARCH_SET_GS)
        die(125, "the program sets its gs base (arch_prctl), which bdbi needs for itself: not supported");
    if (ctx->gpr[RDI] == ARCH_GET_GS) {
        uint64_t zero = 0;
        return copy_guest((void *)ctx->gpr[RSI], &zero, 8) ? -E_FAULT : 0;
    }
    long result = guest_syscall(ctx);
    if (ctx->gpr[RDI] == ARCH_SET_CPUID && result == 0)
        cpuid_forget();
    return result;
}

/* Its last argument points to the mask's address and size. */
static long sys_pselect(struct thread_ctx *ctx)
{
    uint64_t mask = 0;
    if (ctx->gpr[R9] && copy_guest(&mask, (void *)ctx->gpr[R9], 8))
        mask = 0;
    return sys_wait_masked_guest(ctx, mask);
}

static bool memory_opened; /* some process's /proc/PID/mem has been */

/* A write to the file FD in register REG, which may be one that code is mapped from, or a process's memory. */
static long sys_write(struct thread_ctx *ctx, enum gpr reg)
{
    int fd = (int)ctx->gpr[reg];
    long result = guest_syscall(ctx);
    if (result < 0)
        return result;
    if (alias_executable)
        alias_file_written(fd);
    int pid = memory_opened && result > 0 ? procfs_mem_open_at(fd) : 0;
    if (pid) {
        bool at = (uint32_t)ctx->gpr[RAX] == __NR_pwrite64 || (uint32_t)ctx->gpr[RAX] == __NR_pwritev;
        uint64_t start = at ? ctx->gpr[R10] : (uint64_t)(sys3(__NR_lseek, fd, 0, 1 /* SEEK_CUR */) - result);
        remote_written(pid, start, (uint64_t)result);
    }
    return result;
}

/* A call has opened the file RESULT with FLAGS: it may be one that code is mapped from, and be empty now. */
static long opened(struct thread_ctx *ctx, long result, uint64_t flags)
{
    if (result >= 0)
        ctx->last_open = (int)result;
    if (alias_executable && result >= 0 && flags & TRUNCATE)
        alias_file_written((int)result);
    return result;
}

/* The kernel guards the file of a running program against being opened for writing: to it the program is bdbi. -ETXTBSY, or the
 * error that comes before that; 0: nobody runs the file. */
static long refuse_running(uint64_t dirfd, uint64_t path, uint64_t flags)
{
    struct kernel_stat st;
    bool writes = (flags & (O_WRONLY_ | O_RDWR_ | TRUNCATE)) && !(flags & O_PATH_);
    if (!writes || sys4(__NR_newfstatat, dirfd, path, &st, 0) < 0 || (st.st_mode & 0170000) != 0100000)
        return 0;
    bool own = st.st_ino == program_file.inode && st.st_dev == program_file.device;
    if (!own && (!(st.st_mode & 0111) || !remote_runs(st.st_dev, st.st_ino)))
        return 0;
    long fd = sys4(__NR_openat, dirfd, path, (flags & ~(uint64_t)TRUNCATE) | O_CLOEXEC_, 0);
    if (fd < 0)
        return fd;
    sys1(__NR_close, fd);
    return -E_TXTBSY;
}

/* A call that opens the file named in REG, from the folder DIRFD, with FLAGS. */
static long sys_open(struct thread_ctx *ctx, uint64_t dirfd, enum gpr reg, uint64_t flags)
{
    uint64_t path = ctx->gpr[reg];
    memory_opened |= procfs_mem_of((const char *)path);
    if (options.verbose)
        procfs_explain((const char *)path);
    if (procfs_is_maps((const char *)path))
        return procfs_open_maps((int)flags);
    long refused = refuse_running(dirfd, procfs_is_exe((const char *)path) ? (uint64_t)guest_exe : path, flags);
    return refused ? refused : opened(ctx, with_exe_path(ctx, reg), flags);
}

/* Its third argument begins with the flags. */
static long sys_openat2(struct thread_ctx *ctx)
{
    uint64_t flags;
    long refused =
        copy_guest(&flags, (void *)ctx->gpr[RDX], sizeof flags) ? 0 : refuse_running(ctx->gpr[RDI], ctx->gpr[RSI], flags);
    return refused ? refused : guest_syscall(ctx);
}

static long sys_truncate(struct thread_ctx *ctx)
{
    struct kernel_stat st;
    long refused = refuse_running((uint64_t)AT_FDCWD_, ctx->gpr[RDI], O_WRONLY_);
    if (refused)
        return refused;
    long result = guest_syscall(ctx);
    if (alias_executable && result == 0 && sys4(__NR_newfstatat, AT_FDCWD_, ctx->gpr[RDI], &st, 0) == 0)
        alias_written(&st);
    return result;
}

/* With a tool there are gigabytes of address space for counters, most of it never touched: it must not all be filled. */
static long sys_mlockall(struct thread_ctx *ctx)
{
    uint64_t flags = ctx->gpr[RDI];
    if (options.tool && (flags & (LOCK_CURRENT | LOCK_FUTURE)) && !(flags & ~7ull)) {
        explain("mlockall: pages are locked when they are first used");
        ctx->gpr[RDI] |= LOCK_ON_FAULT;
    }
    long result = guest_syscall(ctx);
    ctx->gpr[RDI] = flags;
    return result;
}

/* The cache's name means something else then: nothing is learned any more. */
static long sys_change_root(struct thread_ctx *ctx)
{
    exec_keep_self();
    long result = guest_syscall(ctx);
    if (result == 0)
        explain("the root directory has changed: nothing is learned any more");
    options.no_learn |= result == 0;
    return result;
}

/* The kernel would look for the program's critical sections where translated code does not run. */
static long sys_rseq(struct thread_ctx *ctx)
{
    static bool said;
    if (options.native)
        return guest_syscall(ctx);
    if (!options.child && !said) /* every program with a glibc asks */
        explain("rseq gives ENOSYS: restartable sequences are not offered");
    said = true;
    return -E_NOSYS;
}

static long sys_exec(struct thread_ctx *ctx, bool at)
{
    const uint64_t *g = ctx->gpr;
    if (at)
        return sys_execve_guest(ctx, (int)g[RDI], (const char *)g[RSI], (char **)g[RDX], (char **)g[R10], (int)g[R8]);
    return sys_execve_guest(ctx, AT_FDCWD_, (const char *)g[RDI], (char **)g[RSI], (char **)g[RDX], 0);
}

/* A signal that the program sends itself and that will end it: the last moment to report. */
static void before_kill(struct thread_ctx *ctx, uint64_t pid, uint64_t sig)
{
    const uint64_t harmless = SIG_BIT(SIG_CHLD) | SIG_BIT(SIG_CONT) | SIG_BIT(SIG_URG) | SIG_BIT(SIG_WINCH) |
                              SIG_BIT(SIG_STOP) | SIG_BIT(20) | SIG_BIT(21) | SIG_BIT(22);
    if (!(options.tool || options.stats) || sig < 1 || sig > 64 || (SIG_BIT(sig) & harmless) || (int)pid != sys0(__NR_getpid))
        return;
    struct kernel_sigaction act;
    uint64_t mask;
    if (sys4(__NR_rt_sigaction, sig, 0, &act, 8) < 0 || act.handler != SIG_DEFAULT)
        return;
    if (sys4(__NR_rt_sigprocmask, SIG_BLOCK_, 0, &mask, 8) == 0 && !(mask & SIG_BIT(sig)))
        core_finish(ctx, true);
}

static long dispatch_syscall(struct thread_ctx *ctx)
{
    switch ((uint32_t)ctx->gpr[RAX]) {
    case __NR_mmap:
        return mem_mmap(ctx);
    case __NR_munmap:
        return mem_munmap(ctx);
    case __NR_mprotect:
    case __NR_pkey_mprotect:
        return mem_mprotect(ctx);
    case __NR_mremap:
        return mem_mremap(ctx);
    case __NR_madvise:
        return mem_madvise(ctx);
    case __NR_shmat:
        return mem_shmat(ctx);
    case __NR_shmdt:
        return mem_shmdt(ctx);
    case NR_MSEAL:
        return mem_mseal(ctx);
    case __NR_brk:
        return mem_brk(ctx);
    case __NR_rt_sigaction:
        return sys_sigaction_guest(ctx);
    case __NR_rt_sigprocmask:
        return sys_sigprocmask_guest(ctx);
    case __NR_sigaltstack:
        return sys_sigaltstack_guest(ctx);
    case __NR_rt_sigreturn:
        sys_sigreturn_guest(ctx);
    case __NR_rt_sigpending:
        return sys_sigpending_guest(ctx);
    case __NR_rt_sigtimedwait:
        return sys_sigtimedwait_guest(ctx);
    case __NR_rt_sigsuspend:
        return sys_wait_masked_guest(ctx, ctx->gpr[RDI]);
    case __NR_ppoll:
        return sys_wait_masked_guest(ctx, ctx->gpr[R10]);
    case __NR_epoll_pwait:
    case NR_EPOLL_PWAIT2:
        return sys_wait_masked_guest(ctx, ctx->gpr[R8]);
    case __NR_pselect6:
        return sys_pselect(ctx);
    case __NR_clone:
        return sys_clone_guest(ctx, false, false);
    case NR_CLONE3:
        return sys_clone_guest(ctx, true, false);
    case __NR_vfork:
        return sys_clone_guest(ctx, false, true);
    case __NR_fork:
        return sys_clone_guest(ctx, false, false);
    case __NR_execve:
        return sys_exec(ctx, false);
    case __NR_execveat:
        return sys_exec(ctx, true);
    case __NR_exit:
        thread_exit_guest(ctx, (int)ctx->gpr[RDI]);
    case __NR_exit_group:
        core_finish(ctx, true);
        return guest_syscall(ctx);
    case __NR_kill:
    case __NR_tkill:
        before_kill(ctx, ctx->gpr[RDI], ctx->gpr[RSI]);
        return guest_syscall(ctx);
    case __NR_tgkill:
        before_kill(ctx, ctx->gpr[RDI], ctx->gpr[RDX]);
        return guest_syscall(ctx);
    case __NR_ptrace:
        return sys_ptrace_guest(ctx);
    case __NR_process_vm_writev:
        return sys_process_vm_writev_guest(ctx);
    case NR_RSEQ:
        return sys_rseq(ctx);
    case __NR_chroot:
    case __NR_pivot_root:
        return sys_change_root(ctx);
    case __NR_prctl:
        return sys_prctl(ctx);
    case __NR_personality:
        return sys_personality(ctx);
    case NR_LANDLOCK_RESTRICT_SELF:
        return sys_landlock_guest(ctx);
    case NR_MEMFD_CREATE:
        return sys_memfd_create(ctx);
    case __NR_sendmsg:
    case __NR_sendmmsg:
        return sys_send(ctx);
    case NR_IO_URING_SETUP:
    case __NR_io_setup:
        return sys_reads_later(ctx);
    case __NR_userfaultfd:
        return sys_userfaultfd(ctx);
    case __NR_ioctl:
        return (uint32_t)ctx->gpr[RSI] == NEW_USERFAULTFD ? sys_userfaultfd(ctx) : guest_syscall(ctx);
    case __NR_seccomp:
        return sys_seccomp_guest(ctx);
    case __NR_arch_prctl:
        return sys_arch_prctl(ctx);
    case __NR_set_tid_address:
        ctx->clear_child_tid = ctx->gpr[RDI];
        return guest_syscall(ctx);
    case __NR_set_robust_list:
        ctx->robust_list = ctx->gpr[RDI];
        ctx->robust_list_len = ctx->gpr[RSI];
        return guest_syscall(ctx);
    case __NR_readlink:
        if (procfs_is_exe((const char *)ctx->gpr[RDI]))
            return read_exe_link((char *)ctx->gpr[RSI], ctx->gpr[RDX]);
        return guest_syscall(ctx);
    case NR_READLINKAT:
        if (procfs_is_exe((const char *)ctx->gpr[RSI]))
            return read_exe_link((char *)ctx->gpr[RDX], ctx->gpr[R10]);
        return guest_syscall(ctx);
    case __NR_write:
    case __NR_writev:
    case __NR_pwrite64:
    case __NR_pwritev:
    case NR_PWRITEV2:
    case __NR_sendfile:
    case __NR_ftruncate:
    case __NR_fallocate:
        return sys_write(ctx, RDI);
    case __NR_truncate:
        return sys_truncate(ctx);
    case __NR_creat:
        return sys_open(ctx, (uint64_t)AT_FDCWD_, RDI, O_WRONLY_ | O_CREAT_ | TRUNCATE);
    case __NR_mlockall:
        return sys_mlockall(ctx);
    case __NR_splice:
    case NR_COPY_FILE_RANGE:
        return sys_write(ctx, RDX);
    case __NR_open:
        return sys_open(ctx, (uint64_t)AT_FDCWD_, RDI, ctx->gpr[RSI]);
    case __NR_stat:
    case __NR_lstat:
    case __NR_access:
        return with_exe_path(ctx, RDI);
    case __NR_openat:
        return sys_open(ctx, ctx->gpr[RDI], RSI, ctx->gpr[RDX]);
    case NR_OPENAT2:
        return sys_openat2(ctx);
    case __NR_newfstatat:
    case __NR_faccessat:
    case NR_STATX:
        return with_exe_path(ctx, RSI);
    default:
        return guest_syscall(ctx);
    }
}

/* Where code is made from pages that the guest may write too, these are write-protected: the kernel must not run into that. */
static long guarded_syscall(struct thread_ctx *ctx)
{
    static const enum gpr arguments[] = {RDI, RSI, RDX, R10, R8, R9};
    for (int i = 0; i < 6; i++)
        jit_open_argument(ctx->gpr[arguments[i]]);
    uint32_t number = (uint32_t)ctx->gpr[RAX];
    if (number == NR_IO_URING_ENTER || number == __NR_io_submit) /* the addresses are in memory */
        jit_open_all();
    long result = dispatch_syscall(ctx);
    return result == -E_FAULT && jit_open_all() ? dispatch_syscall(ctx) : result;
}

void core_syscall(struct thread_ctx *ctx);
void core_syscall(struct thread_ctx *ctx)
{
    uint64_t next = ctx->pc;
    ctx->stats.enter_syscall++;
    ctx->gpr[R11] = ctx->flags;
    __atomic_store_n(&ctx->in_core, 1, __ATOMIC_SEQ_CST);
    ctx->trapped = false;
    if (links_wait && ctx->stats.enter_syscall % 16 == 0)
        links_make();
    if (marks_wait && ctx->stats.enter_syscall % 4 == 0)
        marks_settle();
    long result = jit_guards ? guarded_syscall(ctx) : dispatch_syscall(ctx);
    if (ctx->trapped)
        result = (uint32_t)ctx->gpr[RAX];
    if (result == RESTART) { /* the handler runs as if before it, then it is made again */
        ctx->pc = next - 2;
        core_leave(ctx);
        return;
    }
    ctx->pc = next;
    ctx->gpr[RAX] = (uint64_t)result;
    core_leave(ctx);
}

static bool is_prefix(char byte)
{
    static const char prefixes[] = "\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3";
    for (size_t i = 0; i < sizeof prefixes - 1; i++)
        if (byte == prefixes[i])
            return true;
    return (byte & 0xf0) == 0x40;
}

/* Whether the bytes from PC to END, though not a whole instruction, are an invalid one to the CPU. */
static bool invalid_already(uint64_t pc, uint64_t end)
{
    static const char invalid[] = "\x06\x07\x0e\x16\x17\x1e\x1f\x27\x2f\x37\x3f\x60\x61\x82\x9a\xd4\xd5\xd6\xea";
    for (; pc < end; pc++) {
        char byte;
        if (copy_guest(&byte, (void *)pc, 1))
            return false;
        for (size_t i = 0; i < sizeof invalid - 1; i++)
            if (byte == invalid[i])
                return true;
        if (!is_prefix(byte))
            return false;
    }
    return false;
}

/* Where fetching the instruction at PC runs into a page the guest cannot execute; 0: it does not. */
static uint64_t missing_page(uint64_t pc)
{
    uint64_t next = PAGE_DOWN(pc) + PAGE_BYTES;
    char byte;
    if (next - pc >= 15 || invalid_already(pc, next))
        return 0;
    return !exec_find(next) || copy_guest(&byte, (void *)next, 1) /* or behind the end of a file */ ? next : 0;
}

/* Where the guest serves its pages a translation ends with a page: the instruction at ctx->pc may only have been cut off. True:
 * it is translated once more, with the next page. */
static bool goes_on(struct thread_ctx *ctx)
{
    if (!faults_served || ctx->crosses == ctx->pc || PAGE_DOWN(ctx->pc) + PAGE_BYTES - ctx->pc >= 15)
        return false;
    ctx->crosses = ctx->pc;
    lock_take(&core_lock);
    jit_drop(ctx->pc, ctx->pc + 1);
    lock_drop(&core_lock);
    dispatch_resume(ctx);
    return true;
}

/* What the translator put an event exit for. */
void core_event(struct thread_ctx *ctx, uint64_t event);
void core_event(struct thread_ctx *ctx, uint64_t event)
{
    static const char *const why[] = {
        [BDBI_EVENT_GS] = "uses the gs segment, which bdbi needs for itself",
        [BDBI_EVENT_FAR] = "makes a far transfer of control to other segments",
        [BDBI_EVENT_INT80] = "makes a 32-bit system call",
        [BDBI_EVENT_OPERAND16] = "makes a near branch with a 16-bit operand",
    };
    ctx->stats.enter_event++;
    if ((event & BDBI_EVENT_MASK) == BDBI_EVENT_FPU_SAVED) {
        fpu_saved(ctx, event);
        return;
    }
    if (event == BDBI_EVENT_CHANGED) {
        lock_take(&core_lock);
        jit_drop(ctx->pc, ctx->pc + 1);
        lock_drop(&core_lock);
        dispatch_resume(ctx);
        return;
    }
    if (event == BDBI_EVENT_UNDECODABLE || event == BDBI_EVENT_TOO_LONG) {
        ctx->fetch_fault = missing_page(ctx->pc);
        if (!ctx->fetch_fault && goes_on(ctx))
            return;
        ctx->resume = ctx->fetch_fault               ? ctx->fetch_fault
                      : !exec_find(ctx->pc)          ? ctx->pc
                      : event == BDBI_EVENT_TOO_LONG ? (uint64_t)core_protection_trap
                                                     : (uint64_t)core_ill_trap;
        return;
    }
    if (event == BDBI_EVENT_FAR && far_return(ctx))
        return;
    const struct module *m = module_find(ctx->pc);
    die(125, "%s at %s+0x%x %s: not supported", guest_exe, m && m->path ? m->path : "address", m ? ctx->pc - m->base : ctx->pc,
        event < sizeof why / sizeof *why && why[event] ? why[event] : "does something unknown");
}
