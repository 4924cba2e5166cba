/* SPDX-License-Identifier: Apache-2.0
 *
 * seccomp filters that the guest installs. The core and the translator live in the guest's process, so a filter judges their
 * system calls too. Each one gets a prefix that lets calls of ours pass, told by the address they are made from:
 *
 *      high half of the instruction pointer is not the image's, or the low half is past it   -> the guest's filter
 *      it is one of the two places where the guest's own calls are made                      -> the guest's filter
 *      the number is in own_calls                                                            -> allowed
 *      otherwise (clone, execve: always the guest's)                                         -> the guest's filter
 *
 * Strict mode becomes such a filter.
 */
#include "launcher/core.h"
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>

#define AT_NUMBER 0 /* offsets in struct seccomp_data */
#define AT_POINTER_LOW 8
#define AT_POINTER_HIGH 12
#define MAX_FILTER 4096

#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)

/* What running, translating, reporting and noting misses need. */
static const uint32_t own_calls[] = {
    __NR_mmap,
    __NR_munmap,
    __NR_mprotect,
    __NR_madvise,
    __NR_mremap,
    __NR_brk,
    __NR_rt_sigprocmask,
    __NR_futex,
    __NR_gettid,
    __NR_rt_sigaction,
    __NR_sigaltstack,
    __NR_getpid,
    __NR_tgkill,
    __NR_rt_sigreturn,
    __NR_write,
    __NR_openat,
    __NR_close,
    __NR_fstat,
    __NR_pread64,
    __NR_lseek,
    __NR_rt_tgsigqueueinfo,
    __NR_read,
    __NR_fcntl,
    __NR_readlinkat,
    __NR_exit,
    __NR_newfstatat,
    __NR_prlimit64,
    __NR_set_tid_address,
    __NR_flock,
    __NR_getcwd,
    __NR_exit_group,
    __NR_arch_prctl,
    __NR_clock_gettime,
    __NR_set_robust_list,
    __NR_shmctl,
    __NR_fstatfs,
    __NR_process_vm_readv,
    __NR_process_vm_writev,
};
#define OWN_CALLS (sizeof own_calls / sizeof *own_calls)

static size_t put_prefix(struct sock_filter *out)
{
    const uint32_t low = (uint32_t)(BDBI_IMAGE_END & 0xffffffff), high = (uint32_t)(BDBI_IMAGE_BASE >> 32);
    const uint32_t plain = (uint32_t)(uint64_t)guest_syscall_insn + 2, memory = (uint32_t)(uint64_t)guest_pass_end;
    const uint8_t rest = OWN_CALLS + 2; /* from before LOAD(AT_NUMBER) to the guest's filter */
    const struct sock_filter head[] = {
        LOAD(AT_POINTER_HIGH),     EQUAL(high, 0, rest + 4),
        LOAD(AT_POINTER_LOW),      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, low, rest + 2, 0),
        EQUAL(plain, rest + 1, 0), EQUAL(memory, rest, 0),
        LOAD(AT_NUMBER),
    };
    size_t n = sizeof head / sizeof *head;
    memcpy(out, head, sizeof head);
    for (uint32_t i = 0; i < OWN_CALLS; i++) {
        uint8_t to_allow = (uint8_t)(OWN_CALLS - 1 - i);
        out[n++] = (struct sock_filter)EQUAL(own_calls[i], to_allow, i + 1 == OWN_CALLS);
    }
    out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_IMM, 0); /* a filter starts with 0 loaded */
    return n;
}

static size_t put_strict(struct sock_filter *out)
{
    const struct sock_filter strict[] = {
        LOAD(AT_NUMBER),
        EQUAL(__NR_read, 4, 0),
        EQUAL(__NR_write, 3, 0),
        EQUAL(__NR_exit, 2, 0),
        EQUAL(__NR_rt_sigreturn, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    memcpy(out, strict, sizeof strict);
    return sizeof strict / sizeof *strict;
}

/* The guest's filter at PROGRAM (0: strict mode) behind our prefix. Its length, or -errno. */
static long build(struct sock_filter *out, uint64_t program)
{
    struct sock_fprog guest;
    size_t n = put_prefix(out);
    if (!program)
        return (long)(n + put_strict(out + n));
    if (copy_guest(&guest, (void *)program, sizeof guest))
        return -E_FAULT;
    if (guest.len > MAX_FILTER - n)
        explain("a seccomp filter of %u instructions gives EINVAL: bdbi adds %u to it", (uint64_t)guest.len, (uint64_t)n);
    if (guest.len == 0 || guest.len > MAX_FILTER - n)
        return -E_INVAL;
    return copy_guest(out + n, guest.filter, guest.len * sizeof *out) ? -E_FAULT : (long)(n + guest.len);
}

static long install(uint64_t program, uint64_t flags)
{
    uint64_t bytes = MAX_FILTER * sizeof(struct sock_filter);
    struct sock_filter *out = map_or_die(0, bytes, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_);
    long n = build(out, program);
    struct sock_fprog whole = {.len = (unsigned short)n, .filter = out};
    if (!program) /* strict mode needs no privilege, and nothing after it could tell */
        sys5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    explain("seccomp: nothing is learned any more%s", program ? "" : "; strict mode ends the program with SIGSYS, not SIGKILL");
    options.no_learn = true; /* what it would start may be forbidden */
    if (n > 0)
        n = sys3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, &whole);
    unmap_own(out, bytes);
    return n;
}

long sys_seccomp_guest(struct thread_ctx *ctx)
{
    const uint64_t *g = ctx->gpr;
    bool strict = g[RDI] == SECCOMP_SET_MODE_STRICT && !g[RSI] && !g[RDX];
    if (options.native || (!strict && (g[RDI] != SECCOMP_SET_MODE_FILTER || !g[RDX])))
        return guest_syscall(ctx);
    return install(strict ? 0 : g[RDX], g[RSI]);
}

/* prctl(PR_SET_SECCOMP, ...), the older way. */
long sys_prctl_seccomp_guest(struct thread_ctx *ctx)
{
    const uint64_t *g = ctx->gpr;
    bool strict = g[RSI] == SECCOMP_MODE_STRICT;
    if (options.native || (!strict && (g[RSI] != SECCOMP_MODE_FILTER || !g[RDX])))
        return guest_syscall(ctx);
    return install(strict ? 0 : g[RDX], 0);
}
