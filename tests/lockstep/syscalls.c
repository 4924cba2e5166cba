/* SPDX-License-Identifier: Apache-2.0
 *
 * System calls. two makes the call first; what one does about it is in a table:
 *
 *   REAL    one makes it too; the results must agree, and so must what the kernel has written
 *   SAME    one makes it too, then takes result and output from two (its own process has another identity)
 *   ONCE    one does not make it: it takes result and output from two. Everything with an effect outside the process,
 * everything that reads the outside, children included PLACE   memory calls: one is told to map where two has mapped OPEN one
 * opens too, without creating or truncating: its descriptors must exist for mmap
 *
 * A call that is not in the table is REAL without output.
 */
#include "tests/lockstep/lockstep.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <string.h>
#include <sys/mman.h>

enum action { REAL, SAME, ONCE, PLACE, OPEN };
enum size { NONE, FIXED, RESULT, ARGUMENT, IOVEC }; /* n bytes; result * n; argument n; over an array of argument-2 iovecs */

struct output {
    uint8_t argument; /* 1..6: pointer */
    uint8_t size;     /* enum size */
    uint16_t n;
};

struct rule {
    uint16_t number;
    uint8_t action;
    struct output out[4];
};

#define F(argument, bytes)                                                                                                     \
    {                                                                                                                          \
        argument, FIXED, bytes                                                                                                 \
    }
#define R(argument)                                                                                                            \
    {                                                                                                                          \
        argument, RESULT, 1                                                                                                    \
    }
#define NR(name) __NR_##name

static const struct rule rules[] = {
    {NR(mmap), PLACE, {{0}}},
    {NR(mremap), PLACE, {{0}}},
    {NR(open), OPEN, {{0}}},
    {NR(openat), OPEN, {{0}}},
    {NR(creat), OPEN, {{0}}},
    {NR(pipe), SAME, {F(1, 8)}},
    {NR(pipe2), SAME, {F(1, 8)}},
    {NR(socketpair), SAME, {F(4, 8)}},
    {NR(set_tid_address), SAME, {{0}}},
    {NR(rt_sigaction), REAL, {F(3, 32)}},
    {NR(rt_sigprocmask), REAL, {F(3, 8)}},
    {NR(sigaltstack), REAL, {F(2, 24)}},
    {NR(prlimit64), REAL, {F(4, 16)}},
    {NR(getrlimit), REAL, {F(2, 16)}},
    {NR(arch_prctl), REAL, {{0}}},
    {NR(read), ONCE, {R(2)}},
    {NR(pread64), ONCE, {R(2)}},
    {NR(readv), ONCE, {{2, IOVEC, 0}}},
    {NR(write), ONCE, {{0}}},
    {NR(pwrite64), ONCE, {{0}}},
    {NR(writev), ONCE, {{0}}},
    {NR(sendfile), ONCE, {F(3, 8)}},
    {NR(copy_file_range), ONCE, {F(2, 8), F(4, 8)}},
    {NR(lseek), ONCE, {{0}}},
    {NR(stat), ONCE, {F(2, 144)}},
    {NR(lstat), ONCE, {F(2, 144)}},
    {NR(fstat), ONCE, {F(2, 144)}},
    {NR(newfstatat), ONCE, {F(3, 144)}},
    {NR(statx), ONCE, {F(5, 256)}},
    {NR(statfs), ONCE, {F(2, 120)}},
    {NR(fstatfs), ONCE, {F(2, 120)}},
    {NR(access), ONCE, {{0}}},
    {NR(faccessat), ONCE, {{0}}},
    {NR(faccessat2), ONCE, {{0}}},
    {NR(getcwd), ONCE, {R(1)}},
    {NR(readlink), ONCE, {R(2)}},
    {NR(readlinkat), ONCE, {R(3)}},
    {NR(getdents64), ONCE, {R(2)}},
    {NR(getxattr), ONCE, {R(3)}},
    {NR(lgetxattr), ONCE, {R(3)}},
    {NR(fgetxattr), ONCE, {R(3)}},
    {NR(listxattr), ONCE, {R(2)}},
    {NR(truncate), ONCE, {{0}}},
    {NR(fallocate), ONCE, {{0}}},
    {NR(fsync), ONCE, {{0}}},
    {NR(fdatasync), ONCE, {{0}}},
    {NR(flock), ONCE, {{0}}},
    {NR(unlink), ONCE, {{0}}},
    {NR(unlinkat), ONCE, {{0}}},
    {NR(rename), ONCE, {{0}}},
    {NR(renameat), ONCE, {{0}}},
    {NR(renameat2), ONCE, {{0}}},
    {NR(mkdir), ONCE, {{0}}},
    {NR(mkdirat), ONCE, {{0}}},
    {NR(rmdir), ONCE, {{0}}},
    {NR(link), ONCE, {{0}}},
    {NR(linkat), ONCE, {{0}}},
    {NR(symlink), ONCE, {{0}}},
    {NR(symlinkat), ONCE, {{0}}},
    {NR(chmod), ONCE, {{0}}},
    {NR(fchmod), ONCE, {{0}}},
    {NR(fchmodat), ONCE, {{0}}},
    {NR(chown), ONCE, {{0}}},
    {NR(fchown), ONCE, {{0}}},
    {NR(fchownat), ONCE, {{0}}},
    {NR(utimensat), ONCE, {{0}}},
    {NR(getpid), ONCE, {{0}}},
    {NR(gettid), ONCE, {{0}}},
    {NR(getppid), ONCE, {{0}}},
    {NR(getpgrp), ONCE, {{0}}},
    {NR(getpgid), ONCE, {{0}}},
    {NR(getsid), ONCE, {{0}}},
    {NR(setpgid), ONCE, {{0}}},
    {NR(setsid), ONCE, {{0}}},
    {NR(time), ONCE, {F(1, 8)}},
    {NR(times), ONCE, {F(1, 32)}},
    {NR(gettimeofday), ONCE, {F(1, 16), F(2, 8)}},
    {NR(clock_gettime), ONCE, {F(2, 16)}},
    {NR(clock_getres), ONCE, {F(2, 16)}},
    {NR(nanosleep), ONCE, {F(2, 16)}},
    {NR(clock_nanosleep), ONCE, {F(4, 16)}},
    {NR(getrusage), ONCE, {F(2, 144)}},
    {NR(sysinfo), ONCE, {F(1, 112)}},
    {NR(uname), ONCE, {F(1, 390)}},
    {NR(getrandom), ONCE, {R(1)}},
    {NR(sched_getaffinity), ONCE, {R(3)}},
    {NR(getcpu), ONCE, {F(1, 4), F(2, 4)}},
    {NR(getgroups), ONCE, {{2, RESULT, 4}}},
    {NR(fork), ONCE, {{0}}},
    {NR(vfork), ONCE, {{0}}},
    {NR(clone), ONCE, {F(3, 4)}},
    {NR(clone3), ONCE, {{0}}},
    {NR(wait4), ONCE, {F(2, 4), F(4, 144)}},
    {NR(waitid), ONCE, {F(3, 128), F(5, 144)}},
    {NR(kill), ONCE, {{0}}},
    {NR(futex), ONCE, {{0}}},
    {NR(poll), ONCE, {{1, ARGUMENT, 0x800 | 2}}},
    {NR(ppoll), ONCE, {{1, ARGUMENT, 0x800 | 2}}},
    {NR(select), ONCE, {F(2, 128), F(3, 128), F(4, 128), F(5, 16)}},
    {NR(pselect6), ONCE, {F(2, 128), F(3, 128), F(4, 128), F(5, 16)}},
    {NR(setitimer), ONCE, {F(3, 32)}},
    {NR(getitimer), ONCE, {F(2, 32)}},
    {NR(alarm), ONCE, {{0}}},
    {NR(connect), ONCE, {{0}}},
    {NR(bind), ONCE, {{0}}},
    {NR(sendto), ONCE, {{0}}},
    {NR(recvfrom), ONCE, {R(2)}},
};

static const struct rule *rule_of(uint64_t number)
{
    static const struct rule other = {0, REAL, {{0}}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].number == number)
            return &rules[i];
    return &other;
}

struct call {
    uint64_t number, pc, argument[7], result;
    struct user_regs_struct before;
};

static bool failed(uint64_t result)
{
    return result > (uint64_t)-4096;
}

/* ---- output ---- */

static uint64_t output_bytes(const struct call *c, const struct output *o)
{
    switch (o->size) {
    case FIXED:
        return o->n;
    case RESULT:
        return c->result * o->n;
    case ARGUMENT:
        return c->argument[o->n & 7] * (o->n & 0x800 ? 8 : 1);
    default:
        return 0;
    }
}

/* Makes BYTES at AT in one what they are in two; with COMPARE they must be so already. */
static void bring(struct lockstep *l, uint64_t at, uint64_t bytes, bool compare)
{
    uint8_t a[4096], b[4096];
    while (bytes) {
        size_t n = bytes < sizeof a ? bytes : sizeof a;
        if (process_read(&l->two, at, a, n) != n)
            return;
        if (compare && (process_read(&l->one, at, b, n) != n || memcmp(a, b, n)))
            diverged(l, "what a system call has written");
        if (!compare)
            process_write(&l->one, at, a, n);
        at += n;
        bytes -= n;
    }
}

static void bring_vector(struct lockstep *l, const struct call *c, uint64_t vector, uint64_t count)
{
    uint64_t left = c->result;
    for (uint64_t i = 0; i < count && left; i++) {
        uint64_t at = process_word(&l->two, vector + 16 * i), bytes = process_word(&l->two, vector + 16 * i + 8);
        bytes = bytes < left ? bytes : left;
        bring(l, at, bytes, false);
        left -= bytes;
    }
}

static void outputs(struct lockstep *l, const struct call *c, const struct rule *rule, bool compare)
{
    for (unsigned i = 0; i < 4 && rule->out[i].argument && !failed(c->result); i++) {
        const struct output *o = &rule->out[i];
        if (o->size == IOVEC)
            bring_vector(l, c, c->argument[2], c->argument[3]);
        else if (c->argument[o->argument])
            bring(l, c->argument[o->argument], output_bytes(c, o), compare);
    }
}

/* Sizes of what ioctl writes are in its number, but for the terminal's. */
static void ioctl_output(struct lockstep *l, const struct call *c)
{
    uint64_t request = c->argument[2], bytes = request >> 31 & 1 ? request >> 16 & 0x3fff : 0;
    if (request == 0x5401 /* TCGETS */)
        bytes = 36;
    else if (request == 0x5413 /* TIOCGWINSZ */)
        bytes = 8;
    else if (request == 0x540f /* TIOCGPGRP */ || request == 0x541b /* FIONREAD */)
        bytes = 4;
    if (!failed(c->result))
        bring(l, c->argument[3], bytes, false);
}

/* ---- what one does ---- */

static void one_returns(struct lockstep *l, const struct call *c)
{
    struct process *p = &l->one;
    uint64_t result = p->regs.rax;
    p->regs = c->before;
    p->regs.rax = result;
    p->regs.rip = c->pc + 2;
    p->regs.rcx = c->pc + 2;
    p->regs.r11 = c->before.eflags & ~(FLAG_TF | 0x10000);
    p->regs.orig_rax = (unsigned long long)-1;
    p->dirty = true;
}

static void one_makes_it(struct lockstep *l, const struct call *c)
{
    process_go(&l->one, RESUME_STEP, 0);
    if (l->one.stop == STOP_TRAP && c->number == __NR_arch_prctl) { /* the segment bases are not for us to put back */
        uint64_t fs = l->one.regs.fs_base;
        one_returns(l, c);
        l->one.regs.fs_base = fs;
    } else if (l->one.stop == STOP_TRAP && c->number != __NR_rt_sigreturn)
        one_returns(l, c);
}

static void one_is_told(struct lockstep *l, const struct call *c)
{
    l->one.regs.rax = c->result;
    one_returns(l, c);
}

static void one_places(struct lockstep *l, const struct call *c)
{
    struct user_regs_struct *r = &l->one.regs;
    if (failed(c->result)) {
        one_is_told(l, c);
        return;
    }
    if (c->number == __NR_mmap) {
        r->rdi = c->result;
        r->r10 = (r->r10 & ~(uint64_t)MAP_FIXED_NOREPLACE) | MAP_FIXED;
    } else if (c->result != c->argument[1]) {
        r->r10 |= MREMAP_MAYMOVE | MREMAP_FIXED;
        r->r8 = c->result;
    }
    l->one.dirty = true;
    one_makes_it(l, c);
}

static void one_opens(struct lockstep *l, const struct call *c)
{
    struct user_regs_struct *r = &l->one.regs;
    if (c->number == __NR_creat) {
        r->rax = __NR_open;
        r->rsi = O_WRONLY;
    } else if (c->number == __NR_open)
        r->rsi &= ~(uint64_t)(O_CREAT | O_EXCL | O_TRUNC);
    else
        r->rdx &= ~(uint64_t)(O_CREAT | O_EXCL | O_TRUNC);
    l->one.dirty = true;
    one_makes_it(l, c);
}

static void one_acts(struct lockstep *l, const struct call *c, const struct rule *rule)
{
    switch (rule->action) {
    case ONCE:
        one_is_told(l, c);
        outputs(l, c, rule, false);
        break;
    case PLACE:
        one_places(l, c);
        break;
    case OPEN:
        one_opens(l, c);
        break;
    case SAME:
        one_makes_it(l, c);
        l->one.regs.rax = c->result;
        outputs(l, c, rule, false);
        break;
    default:
        one_makes_it(l, c);
        outputs(l, c, rule, true);
    }
}

static bool maps(uint64_t number)
{
    return number == __NR_mmap || number == __NR_munmap || number == __NR_mprotect || number == __NR_mremap;
}

void syscall_both(struct lockstep *l, uint64_t pc)
{
    const struct user_regs_struct *r = &l->one.regs;
    struct call c = {.number = r->rax, .pc = pc, .argument = {0, r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9}, .before = *r};
    const struct rule *rule = rule_of(c.number);
    l->syscalls++;
    l->two_returned = false;
    for (int i = 0; i < 16 && l->two.stop == STOP_TRAP && !in_core(&l->map, l->two.regs.rip); i++)
        process_go(&l->two, RESUME_STEP, 0);
    two_leave_core(l, maps(c.number));
    c.result = l->two.regs.rax;
    if (l->verbose)
        fprintf(stderr, "lockstep: call %lu(0x%lx, 0x%lx, 0x%lx) = 0x%lx\n", (unsigned long)c.number,
                (unsigned long)c.argument[1], (unsigned long)c.argument[2], (unsigned long)c.argument[3],
                (unsigned long)c.result);
    if (l->two.stop == STOP_EXEC || l->two.stop == STOP_THREAD)
        return;
    if (l->two.stop == STOP_EXIT)
        process_go(&l->one, RESUME_STEP, 0);
    else if (c.number == __NR_ioctl) {
        one_is_told(l, &c);
        ioctl_output(l, &c);
    } else
        one_acts(l, &c, rule);
    if (maps(c.number) && !failed(c.result)) {
        uint64_t start = c.number == __NR_mmap ? c.result : c.argument[1];
        insns_forget(l);
        process_check_traps(&l->one, start, start + c.argument[2] + 4096);
        if (c.number != __NR_mprotect)
            ends_forget(l, start, start + c.argument[2]);
    }
}
