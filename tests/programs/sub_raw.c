/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads and processes by the bare system call, in the forms of other run-time systems than glibc: musl's (clone with SETTLS,
 * PARENT_SETTID, CHILD_CLEARTID, DETACHED; a thread that unmaps its own stack and exits), Go's (no thread area given; the child
 * sets its own), clone3 with what glibc never gives it. What runs in such a thread uses nothing of the C library.
 */
#include "subcases.h"
#include <asm/prctl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <ucontext.h>

#define STACK_BYTES 65536
#define MUSL_FLAGS                                                                                                             \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |   \
     CLONE_CHILD_CLEARTID | CLONE_DETACHED)
#define GO_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_SYSVSEM | CLONE_THREAD)
#define BARE __attribute__((noinline, optimize("no-stack-protector")))

struct area { /* what fs points to */
    struct area *self;
    long value;
};

static inline long raw(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static inline long fs_word(long at)
{
    long value;
    __asm__ volatile("mov %%fs:(%1), %0" : "=r"(value) : "r"(at));
    return value;
}

/* long clone_call(flags, stack, parent_tid, child_tid, tls, body): musl's __clone. The child calls body(argument), both from
 * its stack, and exits with what that returns. */
long clone_call(unsigned long flags, void *stack, int *parent_tid, int *child_tid, void *tls, long (*body)(void *));
/* The same by clone3: (args, bytes, body, argument). */
long clone3_call(struct clone_args *args, size_t bytes, long (*body)(void *), void *argument);
/* Unmaps [stack, stack + bytes) and exits: musl's __unmapself. */
_Noreturn void unmap_and_exit(void *stack, size_t bytes);
__asm__(".text\n"
        "clone_call:\n\t"
        "mov $56, %eax\n\t"
        "mov %rcx, %r10\n\t"
        "syscall\n\t"
        "test %eax, %eax\n\t"
        "jnz 1f\n\t"
        "xor %ebp, %ebp\n\t"
        "pop %rdi\n\t"
        "call *%r9\n\t"
        "mov %eax, %edi\n\t"
        "mov $60, %eax\n\t"
        "syscall\n\t"
        "hlt\n"
        "1: ret\n"
        "clone3_call:\n\t"
        "mov %rcx, %r8\n\t"
        "mov $435, %eax\n\t"
        "syscall\n\t"
        "test %eax, %eax\n\t"
        "jnz 1f\n\t"
        "xor %ebp, %ebp\n\t"
        "and $-16, %rsp\n\t"
        "mov %r8, %rdi\n\t"
        "call *%rdx\n\t"
        "mov %eax, %edi\n\t"
        "mov $60, %eax\n\t"
        "syscall\n\t"
        "hlt\n"
        "1: ret\n"
        "unmap_and_exit:\n\t"
        "mov $11, %eax\n\t"
        "syscall\n\t"
        "xor %edi, %edi\n\t"
        "mov $60, %eax\n\t"
        "syscall\n\t"
        "hlt\n");

static char *stack_memory(void)
{
    char *p = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(p != MAP_FAILED);
    return p;
}

static void *stack_with(char *memory, void *argument)
{
    void **top = (void **)(void *)(memory + STACK_BYTES - 8); /* popped before the call: aligned as it must be */
    *top = argument;
    return top;
}

static void wait_while(volatile int *word, int value)
{
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value)
        syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static volatile int ready, result_word, cleared, parent_tid;
static struct area thread_area = {&thread_area, 77};
static char *own_stack;

static BARE long musl_body(void *argument)
{
    struct area *area = argument;
    result_word = (fs_word(0) == (long)area) + 2 * (fs_word(8) == 77) + 4 * (raw(SYS_gettid, 0, 0, 0, 0, 0, 0) == parent_tid);
    return 0;
}

/* The kernel clears the word and wakes its waiters: how musl and glibc join. */
static long musl_thread(long (*body)(void *), void *argument)
{
    cleared = -1;
    own_stack = stack_memory();
    return clone_call(MUSL_FLAGS, stack_with(own_stack, argument), (int *)&parent_tid, (int *)&cleared, &thread_area, body);
}

SUBCASE(thread_as_musl)
{
    for (int i = 0; i < 20; i++) {
        long tid = musl_thread(musl_body, &thread_area);
        MUST(tid > 0);
        wait_while(&cleared, -1);
        MUST(result_word == 7 && cleared == 0 && parent_tid == tid);
        munmap(own_stack, STACK_BYTES);
    }
    printf("20 threads\n");
}

static BARE long unmapping_body(void *argument)
{
    result_word = 5;
    unmap_and_exit(argument, STACK_BYTES);
}

SUBCASE(thread_unmaps_its_stack)
{
    for (int i = 0; i < 20; i++) {
        cleared = -1;
        char *stack = stack_memory();
        long tid =
            clone_call(MUSL_FLAGS, stack_with(stack, stack), (int *)&parent_tid, (int *)&cleared, &thread_area, unmapping_body);
        MUST(tid > 0);
        wait_while(&cleared, -1);
        MUST(result_word == 5);
        unsigned char v;
        errno = 0;
        MUST(mincore(stack, STACK_BYTES, &v) < 0 && errno == ENOMEM);
    }
    printf("20 threads\n");
}

static BARE long go_body(void *argument)
{
    struct area *area = argument;
    long before = fs_word(0); /* the parent's, as it was not given another */
    long r = raw(SYS_arch_prctl, ARCH_SET_FS, (long)area, 0, 0, 0, 0);
    long got = 0;
    raw(SYS_arch_prctl, ARCH_GET_FS, (long)&got, 0, 0, 0, 0);
    result_word = (before != (long)area) + 2 * (r == 0) + 4 * (fs_word(8) == 77) + 8 * (got == (long)area);
    __atomic_store_n(&ready, 1, __ATOMIC_SEQ_CST);
    raw(SYS_futex, (long)&ready, FUTEX_WAKE, 1, 0, 0, 0);
    raw(SYS_exit, 0, 0, 0, 0, 0, 0);
    return 0;
}

SUBCASE(thread_as_go)
{
    for (int i = 0; i < 20; i++) {
        ready = 0;
        MUST(clone_call(GO_FLAGS, stack_with(stack_memory(), &thread_area), NULL, NULL, NULL, go_body) > 0);
        wait_while(&ready, 0);
        MUST(result_word == 15);
    }
    printf("20 threads\n");
}

/* Every register that the system call keeps is the parent's in the child. */
SUBCASE(registers_of_the_child)
{
    ready = 0;
    void *stack = stack_with(stack_memory(), NULL);
    long tid;
    register long r8 __asm__("r8") = 0x8888, r9 __asm__("r9") = 0x9999, r10 __asm__("r10") = 0;
    register long r12 __asm__("r12") = 0x1212, r13 __asm__("r13") = 0x1313, r14 __asm__("r14") = (long)&ready,
                      r15 __asm__("r15") = 0x1515;
    __asm__ volatile(
        "mov $0x7777, %%ebx\n\tmovq %%rbx, %%xmm5\n\tmov $0x1111, %%ebx\n\tsyscall\n\ttest %%eax, %%eax\n\tjnz 1f\n\t"
        "movq %%xmm5, %%rcx\n\tadd %%rbx, %%rcx\n\tadd %%r8, %%rcx\n\tadd %%r9, %%rcx\n\tadd %%r12, %%rcx\n\t"
        "add %%r13, %%rcx\n\tadd %%r15, %%rcx\n\tmov %%ecx, (%%r14)\n\t"
        "mov %%r14, %%rdi\n\tmov $1, %%esi\n\tmov $1, %%edx\n\tmov $202, %%eax\n\tsyscall\n\t"
        "xor %%edi, %%edi\n\tmov $60, %%eax\n\tsyscall\n1:"
        : "=a"(tid)
        : "a"(SYS_clone), "D"(GO_FLAGS), "S"(stack), "d"(0), "r"(r8), "r"(r9), "r"(r10), "r"(r12), "r"(r13), "r"(r14), "r"(r15)
        : "rbx", "rcx", "r11", "xmm5", "memory");
    MUST(tid > 0);
    wait_while(&ready, 0);
    printf("%x\n", (unsigned)ready);
}

static volatile int handled, handled_in;

static BARE void on_signal(int sig)
{
    handled_in = (int)raw(SYS_gettid, 0, 0, 0, 0, 0, 0);
    handled = sig;
}

static BARE long waiting_body(void *argument)
{
    (void)argument;
    __atomic_store_n(&ready, 1, __ATOMIC_SEQ_CST);
    while (!handled)
        raw(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    return 0;
}

SUBCASE(signal_in_a_bare_thread)
{
    signal(SIGUSR1, on_signal);
    for (int i = 0; i < 50; i++) {
        ready = handled = 0;
        long tid = musl_thread(waiting_body, NULL);
        MUST(tid > 0);
        while (!ready)
            sched_yield();
        MUST(syscall(SYS_tgkill, getpid(), tid, SIGUSR1) == 0);
        wait_while(&cleared, -1);
        MUST(handled == SIGUSR1 && handled_in == tid);
    }
    printf("50 signals\n");
}

static BARE void on_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    handled = sig + 100 * (info->si_addr == (void *)16);
    uc->uc_mcontext.gregs[REG_RIP] += 3; /* mov (%rax), %rax */
    uc->uc_mcontext.gregs[REG_RAX] = 6;
}

static BARE long faulting_body(void *argument)
{
    long value = (long)argument;
    __asm__ volatile("mov (%0), %0" : "+a"(value));
    result_word = (int)value;
    return 0;
}

SUBCASE(fault_in_a_bare_thread)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    for (int i = 0; i < 20; i++) {
        handled = 0;
        MUST(musl_thread(faulting_body, (void *)16) > 0);
        wait_while(&cleared, -1);
        MUST(handled == SIGSEGV + 100 && result_word == 6);
    }
    printf("20 faults\n");
}

static struct robust_list_head robust;
static struct {
    struct robust_list list;
    volatile int word;
} owned;

static BARE long robust_body(void *argument)
{
    (void)argument;
    robust.list.next = &owned.list;
    owned.list.next = &robust.list;
    robust.futex_offset = (char *)&owned.word - (char *)&owned.list;
    raw(SYS_set_robust_list, (long)&robust, sizeof robust, 0, 0, 0, 0);
    owned.word = (int)raw(SYS_gettid, 0, 0, 0, 0, 0, 0);
    return 0;
}

SUBCASE(bare_thread_dies_with_a_lock)
{
    MUST(musl_thread(robust_body, NULL) > 0);
    wait_while(&cleared, -1);
    printf("owner died %d\n", (owned.word & FUTEX_OWNER_DIED) != 0);
}

static BARE long whole_body(void *argument)
{
    (void)argument;
    raw(SYS_exit_group, 23, 0, 0, 0, 0, 0);
    return 0;
}

static void end_by_thread(void)
{
    musl_thread(whole_body, NULL);
    for (;;)
        pause();
}

static BARE long late_body(void *argument)
{
    struct timespec t = {0, 30000000};
    raw(SYS_nanosleep, (long)&t, 0, 0, 0, 0, 0);
    raw(SYS_exit, (long)argument, 0, 0, 0, 0, 0);
    return 0;
}

static void end_first(void)
{
    musl_thread(late_body, (void *)24L);
    syscall(SYS_exit, 25);
}

static BARE long exec_body(void *argument)
{
    char *argv[] = {"sh", "-c", "exit 26", NULL}, *envp[] = {NULL};
    (void)argument;
    raw(SYS_execve, (long)"/bin/sh", (long)argv, (long)envp, 0, 0, 0);
    raw(SYS_exit_group, 27, 0, 0, 0, 0, 0);
    return 0;
}

static void exec_by_thread(void)
{
    musl_thread(exec_body, NULL);
    for (;;)
        pause();
}

static BARE long fork_body(void *argument)
{
    int status = 0;
    (void)argument;
    long pid = raw(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
    if (pid == 0)
        raw(SYS_exit_group, 28, 0, 0, 0, 0, 0);
    raw(SYS_wait4, pid, (long)&status, 0, 0, 0, 0);
    result_word = status;
    return 0;
}

SUBCASE(ends_around_bare_threads)
{
    in_child("exit_group in the thread", end_by_thread);
    in_child("the first thread ends first", end_first);
    in_child("exec in the thread", exec_by_thread);
    MUST(musl_thread(fork_body, NULL) > 0);
    wait_while(&cleared, -1);
    print_status("fork in the thread", result_word);
}

/* ---- vfork by hand ---- */

static BARE long sum_body(void *argument)
{
    result_word += (int)(long)argument;
    return (long)argument;
}

static int status;

static void show_child(long pid)
{
    if (pid < 0) {
        printf("error %d\n", errno);
        return;
    }
    while (waitpid((pid_t)pid, &status, __WALL) < 0)
        MUST(errno == EINTR);
    print_status("child", status);
}

SUBCASE(vfork_with_own_stack)
{
    for (int i = 1; i <= 20; i++) {
        char *stack = stack_memory();
        long pid = clone_call(CLONE_VM | CLONE_VFORK | SIGCHLD, stack_with(stack, (void *)(long)i), NULL, NULL, NULL, sum_body);
        MUST(result_word == i * (i + 1) / 2); /* the child has ended */
        MUST(pid > 0 && waitpid((pid_t)pid, &status, 0) == pid && WEXITSTATUS(status) == i);
        munmap(stack, STACK_BYTES);
    }
    printf("%d\n", result_word);
    char *stack = stack_memory();
    show_child(clone_call(CLONE_VM | CLONE_VFORK | SIGCHLD, stack_with(stack, NULL), NULL, NULL, NULL, exec_body));
}

/* As Go starts a program: no stack of its own, everything in registers. */
SUBCASE(vfork_on_our_stack)
{
    static const char file[] = "/bin/sh";
    static char *const argv[] = {"sh", "-c", "exit 31", NULL}, *const envp[] = {NULL};
    for (int i = 0; i < 5; i++) {
        long pid;
        __asm__ volatile(
            "syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\tmov %2, %%rdi\n\tmov %3, %%rsi\n\tmov %4, %%rdx\n\tmov $59, "
            "%%eax\n\tsyscall\n\tmov $60, %%eax\n\tsyscall\n1:"
            : "=a"(pid)
            : "a"(SYS_clone), "r"(file), "r"(argv), "r"(envp), "D"(CLONE_VM | CLONE_VFORK | SIGCHLD), "S"(0), "d"(0)
            : "rcx", "r11", "memory");
        show_child(pid);
    }
}

SUBCASE(vfork_with_a_copy)
{
    int p[2];
    MUST(pipe(p) == 0);
    long pid = raw(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0, 0);
    if (pid == 0) {
        sleep_ms(30);
        _exit(write(p[1], "x", 1) != 1);
    }
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    char c = 0;
    printf("waited %d\n", read(p[0], &c, 1) == 1); /* it has written before the parent goes on */
    show_child(pid);
}

/* ---- clone3 ---- */

static struct clone_args with_stack(uint64_t flags, char *memory)
{
    return (struct clone_args){.flags = flags, .stack = (uint64_t)(uintptr_t)memory, .stack_size = STACK_BYTES};
}

SUBCASE(clone3_thread)
{
    struct clone_args args = with_stack(MUSL_FLAGS & ~CLONE_DETACHED, stack_memory());
    args.tls = (uint64_t)(uintptr_t)&thread_area;
    args.parent_tid = (uint64_t)(uintptr_t)&parent_tid;
    args.child_tid = (uint64_t)(uintptr_t)&cleared;
    cleared = -1;
    long tid = clone3_call(&args, sizeof args, musl_body, &thread_area);
    MUST(tid > 0);
    wait_while(&cleared, -1);
    printf("%d\n", result_word);
    args.flags |= CLONE_DETACHED;
    printf("%ld\n", clone3_call(&args, sizeof args, musl_body, &thread_area));
    args.flags = CLONE_VM | 17; /* a signal among the flags */
    printf("%ld\n", clone3_call(&args, sizeof args, musl_body, &thread_area));
}

SUBCASE(clone3_vfork_with_own_stack)
{
    struct clone_args args = with_stack(CLONE_VM | CLONE_VFORK | CLONE_CLEAR_SIGHAND, stack_memory());
    args.exit_signal = SIGCHLD;
    signal(SIGUSR1, on_signal);
    long pid = clone3_call(&args, sizeof args, sum_body, (void *)33L);
    printf("%d\n", result_word);
    show_child(pid);
    raise(SIGUSR1);
    printf("still handled here %d\n", handled == SIGUSR1);
}

SUBCASE(clone3_tid_taken)
{
    pid_t wanted[3] = {getpid(), 1, 1};
    struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)wanted, .set_tid_size = 1};
    SHOW(syscall(SYS_clone3, &args, sizeof args));
    wanted[0] = 0;
    SHOW(syscall(SYS_clone3, &args, sizeof args));
    args.set_tid_size = 100;
    SHOW(syscall(SYS_clone3, &args, sizeof args));
    args.set_tid = 0;
    SHOW(syscall(SYS_clone3, &args, sizeof args));
}

SUBCASE(clone3_thread_with_tid)
{
    pid_t wanted = 31000;
    struct clone_args args = with_stack(MUSL_FLAGS & ~CLONE_DETACHED, stack_memory());
    args.tls = (uint64_t)(uintptr_t)&thread_area;
    args.parent_tid = (uint64_t)(uintptr_t)&parent_tid;
    args.child_tid = (uint64_t)(uintptr_t)&cleared;
    args.set_tid = (uint64_t)(uintptr_t)&wanted;
    args.set_tid_size = 1;
    cleared = -1;
    long tid;
    while ((tid = clone3_call(&args, sizeof args, musl_body, &thread_area)) == -EEXIST)
        wanted--;
    if (tid < 0) {
        printf("error %ld\n", tid);
        return;
    }
    wait_while(&cleared, -1);
    printf("as wanted %d, %d\n", tid == wanted, result_word);
}

SUBCASE(clone3_into_cgroup)
{
    static const char *const places[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/proc", "."};
    for (int i = 0; i < 4; i++) {
        int fd = open(places[i], O_RDONLY | O_DIRECTORY);
        if (fd < 0)
            continue;
        struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)fd};
        errno = 0;
        long pid = syscall(SYS_clone3, &args, sizeof args);
        if (pid == 0)
            _exit(40 + i);
        printf("%s: ", places[i]);
        show_child(pid);
        args.flags = CLONE_INTO_CGROUP | CLONE_VM | CLONE_VFORK;
        args.stack = (uint64_t)(uintptr_t)stack_memory();
        args.stack_size = STACK_BYTES;
        pid = clone3_call(&args, sizeof args, sum_body, (void *)(long)(50 + i));
        errno = (int)-pid;
        show_child(pid);
    }
    struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = 999};
    SHOW(syscall(SYS_clone3, &args, sizeof args));
}

/* ---- other flags ---- */

SUBCASE(sibling)
{
    int p[2];
    char c = 0;
    MUST(pipe(p) == 0);
    pid_t parent = getppid();
    long pid = raw(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0, 0);
    if (pid == 0) {
        c = getppid() == parent ? 'y' : 'n';
        _exit(write(p[1], &c, 1) != 1);
    }
    MUST(read(p[0], &c, 1) == 1);
    printf("our parent's %c\n", c);
    SHOW(waitpid((pid_t)pid, &status, __WALL));
}

SUBCASE(pidfd_by_clone)
{
    int fd = -1;
    siginfo_t info = {0};
    long pid = raw(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, (long)&fd, 0, 0, 0);
    if (pid == 0)
        _exit(34);
    printf("descriptor %d\n", fd >= 0);
    SHOW(waitid(P_PIDFD, (id_t)fd, &info, WEXITED));
    printf("code %d status %d\n", info.si_code, info.si_status);
    printf("%ld\n", raw(SYS_clone, CLONE_PIDFD | CLONE_PARENT_SETTID | SIGCHLD, 0, (long)&fd, 0, 0, 0)); /* both use the word */
}

SUBCASE(settls_of_a_copy)
{
    long pid = raw(SYS_clone, CLONE_SETTLS | SIGCHLD, 0, 0, 0, (long)&thread_area, 0);
    if (pid == 0)
        raw(SYS_exit_group, fs_word(8) == 77 ? 35 : 36, 0, 0, 0, 0, 0);
    show_child(pid);
}

SUBCASE(other_exit_signals)
{
    signal(SIGUSR2, on_signal);
    long pid = raw(SYS_clone, SIGUSR2, 0, 0, 0, 0, 0);
    if (pid == 0)
        _exit(37);
    show_child(pid);
    printf("handled %d\n", handled == SIGUSR2);
    pid = raw(SYS_clone, 0, 0, 0, 0, 0, 0);
    if (pid == 0)
        _exit(38);
    SHOW(waitpid((pid_t)pid, &status, 0));
    SHOW(waitpid((pid_t)pid, &status, __WCLONE) == pid);
    print_status("child", status);
    printf("%ld\n", raw(SYS_clone, CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0, 0));
    printf("%ld\n", raw(SYS_clone, CLONE_VM | CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0, 0));
    printf("%ld\n", raw(SYS_clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, 0, 0, 0, 0, 0));
}

static void in_namespaces(unsigned long flags, const char *what)
{
    long pid = raw(SYS_clone, (long)(flags | SIGCHLD), 0, 0, 0, 0, 0);
    if (pid == 0) {
        printf("%s: pid %d\n", what, flags & CLONE_NEWPID ? getpid() : 0);
        fflush(stdout);
        long inner = raw(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
        if (inner == 0) {
            execl("/bin/sh", "sh", "-c", "exit 39", NULL);
            _exit(41);
        }
        int s = 0;
        waitpid((pid_t)inner, &s, 0);
        _exit(WEXITSTATUS(s));
    }
    if (pid < 0)
        printf("%s: %ld\n", what, pid);
    else
        show_child(pid);
}

SUBCASE(namespaces)
{
    in_namespaces(CLONE_NEWUSER, "user");
    in_namespaces(CLONE_NEWPID, "pid");
    in_namespaces(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS, "mounts");
    in_namespaces(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET, "user, pid, net");
    in_namespaces(CLONE_NEWCGROUP, "cgroup");
    in_namespaces(CLONE_NEWTIME, "no flag of clone"); /* in the byte of the signal */
}
