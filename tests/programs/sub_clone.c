/* SPDX-License-Identifier: Apache-2.0
 *
 * New processes and threads by clone, clone3, fork and vfork, in their forms.
 */
#include "subcases.h"
#include <linux/sched.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

static atomic_int counter;
static int status;

static char *stack_for_clone(void)
{
    char *stack = mmap(NULL, 262144, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    MUST(stack != MAP_FAILED);
    return stack + 262144;
}

static void show_child(pid_t pid)
{
    MUST(pid > 0);
    while (waitpid(pid, &status, __WALL) < 0)
        MUST(errno == EINTR);
    print_status("child", status);
}

static int add_one(void *argument)
{
    counter++;
    return (int)(long)argument;
}

SUBCASE(clone_copy)
{
    show_child(clone(add_one, stack_for_clone(), SIGCHLD, (void *)5L));
    printf("counter %d\n", counter);
}

SUBCASE(clone_vm)
{
    show_child(clone(add_one, stack_for_clone(), CLONE_VM | SIGCHLD, (void *)6L));
    printf("counter %d\n", counter);
}

SUBCASE(clone_vm_sighand)
{
    show_child(clone(add_one, stack_for_clone(), CLONE_VM | CLONE_SIGHAND | CLONE_FS | CLONE_FILES | SIGCHLD, (void *)7L));
    printf("counter %d\n", counter);
}

SUBCASE(clone_vm_vfork)
{
    show_child(clone(add_one, stack_for_clone(), CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)8L));
    printf("counter %d\n", counter);
}

SUBCASE(clone_without_signal)
{
    pid_t pid = clone(add_one, stack_for_clone(), CLONE_VM, (void *)9L);
    SHOW(waitpid(pid, &status, 0));
    show_child(pid);
    printf("counter %d\n", counter);
}

static int close_and_move(void *argument)
{
    close((int)(long)argument);
    return chdir("/") + (int)umask(0111) * 0;
}

static void files_and_fs(int flags)
{
    char path[100] = "";
    int fd = open("/dev/null", O_RDONLY);
    show_child(clone(close_and_move, stack_for_clone(), flags | SIGCHLD, (void *)(long)fd));
    printf("descriptor %s, ", fcntl(fd, F_GETFD) < 0 ? "closed" : "open");
    printf("moved %d\n", getcwd(path, sizeof path) && !strcmp(path, "/"));
}

SUBCASE(clone_files)
{
    files_and_fs(CLONE_FILES);
}

SUBCASE(clone_fs)
{
    files_and_fs(CLONE_FS);
}

SUBCASE(clone_files_fs_vm)
{
    files_and_fs(CLONE_FILES | CLONE_FS | CLONE_VM);
}

static volatile int handled;
static void handler(int sig)
{
    handled = sig;
}

static int change_handler(void *argument)
{
    signal(SIGUSR1, handler);
    return argument != NULL;
}

static void handlers_after(int flags)
{
    struct sigaction now;
    show_child(clone(change_handler, stack_for_clone(), flags | SIGCHLD, NULL));
    sigaction(SIGUSR1, NULL, &now);
    printf("handler shared %d\n", now.sa_handler == handler);
    if (now.sa_handler == handler)
        raise(SIGUSR1);
    printf("handled %d\n", handled);
}

SUBCASE(clone_vm_own_handlers)
{
    handlers_after(CLONE_VM);
}

SUBCASE(clone_shared_handlers)
{
    handlers_after(CLONE_VM | CLONE_SIGHAND);
}

static int signal_inside(void *argument)
{
    signal(SIGUSR2, handler);
    raise(SIGUSR2);
    return handled == SIGUSR2 ? 3 : argument != NULL;
}

SUBCASE(clone_vm_signals_inside)
{
    show_child(clone(signal_inside, stack_for_clone(), CLONE_VM | SIGCHLD, NULL));
    struct sigaction now;
    sigaction(SIGUSR2, NULL, &now);
    printf("ours %d\n", now.sa_handler == SIG_DFL);
}

static pid_t parent_tid, child_tid;

static int report_tid(void *argument)
{
    return (child_tid == syscall(SYS_gettid)) * 2 + (argument != NULL);
}

SUBCASE(clone_tids)
{
    pid_t pid = clone(report_tid, stack_for_clone(),
                      CLONE_VM | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, NULL, &parent_tid,
                      NULL, &child_tid);
    show_child(pid);
    printf("parent's %d, cleared %d\n", parent_tid == pid, child_tid == 0);
}

SUBCASE(clone_tids_of_copy)
{
    pid_t pid = clone(report_tid, stack_for_clone(), CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, NULL, &parent_tid,
                      NULL, &child_tid);
    show_child(pid);
    printf("parent's %d, child's here %d\n", parent_tid == pid, child_tid);
}

SUBCASE(clone_errors)
{
    SHOW(clone(add_one, stack_for_clone(), CLONE_THREAD, NULL));
    SHOW(clone(add_one, stack_for_clone(), CLONE_SIGHAND, NULL));
    SHOW(clone(add_one, stack_for_clone(), CLONE_NEWNS | CLONE_FS, NULL));
    SHOW(clone(add_one, NULL, CLONE_VM, NULL));
    printf("counter %d\n", counter);
}

static long resident_pages(void)
{
    long size, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    MUST(f && fscanf(f, "%ld %ld", &size, &resident) == 2);
    fclose(f);
    return resident;
}

/* Those that have ended leave nothing behind. */
SUBCASE(clone_vm_very_often)
{
    char *stack = stack_for_clone();
    long sum = 0, before = 0;
    for (long i = 0; i < 7000; i++) {
        pid_t pid = clone(add_one, stack, CLONE_VM | SIGCHLD, (void *)(i & 63));
        MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
        sum += WEXITSTATUS(status);
        before = i == 1000 ? resident_pages() : before;
    }
    printf("%ld, %d; grown %d\n", sum, counter, resident_pages() > before + 5000);
}

SUBCASE(clone_own_stack_kept)
{
    /* As a libc makes threads: the child goes on behind the call, on another stack. */
    uint64_t *stack = (uint64_t *)stack_for_clone();
    long pid;
    *--stack = 42;
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\tpop %%rdi\n\tmov $60, %%eax\n\tsyscall\n1:"
                     : "=a"(pid)
                     : "a"(SYS_clone), "D"(CLONE_VM | SIGCHLD), "S"(stack), "d"(0)
                     : "rcx", "r11", "memory");
    show_child((pid_t)pid);
}

static long clone3(struct clone_args *args, size_t bytes)
{
    return syscall(SYS_clone3, args, bytes);
}

SUBCASE(clone3_fork)
{
    struct clone_args args = {.exit_signal = SIGCHLD};
    long pid = clone3(&args, sizeof args);
    if (pid == 0)
        _exit(11);
    show_child((pid_t)pid);
}

SUBCASE(clone3_pidfd)
{
    int fd = -1;
    siginfo_t info = {0};
    struct clone_args args = {.flags = CLONE_PIDFD | CLONE_PARENT_SETTID, .exit_signal = SIGCHLD};
    args.pidfd = (uint64_t)(uintptr_t)&fd;
    args.parent_tid = (uint64_t)(uintptr_t)&parent_tid;
    long pid = clone3(&args, sizeof args);
    if (pid == 0)
        for (;;)
            pause();
    printf("tid %d, descriptor %d\n", parent_tid == pid, fd >= 0);
    SHOW(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0));
    SHOW(waitid(P_PIDFD, (id_t)fd, &info, WEXITED));
    printf("code %d status %d\n", info.si_code, info.si_status);
}

SUBCASE(clone3_set_tid)
{
    pid_t wanted = 0x3ffff0;
    struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&wanted, .set_tid_size = 1};
    errno = 0;
    long pid = clone3(&args, sizeof args);
    if (pid == 0)
        _exit(getpid() == wanted ? 12 : 13);
    if (pid < 0)
        printf("error %d\n", errno);
    else
        show_child((pid_t)pid);
}

SUBCASE(clone3_clear_sighand)
{
    struct clone_args args = {.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    struct sigaction now;
    signal(SIGUSR1, handler);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGSEGV, handler);
    long pid = clone3(&args, sizeof args);
    if (pid == 0) {
        int bits = 0;
        sigaction(SIGUSR1, NULL, &now);
        bits |= now.sa_handler == SIG_DFL ? 1 : 0;
        sigaction(SIGUSR2, NULL, &now);
        bits |= now.sa_handler == SIG_IGN ? 2 : 0;
        sigaction(SIGSEGV, NULL, &now);
        bits |= now.sa_handler == SIG_DFL ? 4 : 0;
        _exit(bits);
    }
    show_child((pid_t)pid);
    long second = clone3(&args, sizeof args);
    if (second == 0)
        raise(SIGUSR1);
    show_child((pid_t)second);
    long third = clone3(&args, sizeof args);
    if (third == 0)
        raise(SIGSEGV);
    show_child((pid_t)third);
}

SUBCASE(clone3_errors)
{
    struct clone_args args = {.flags = 1ull << 62, .exit_signal = SIGCHLD};
    SHOW(clone3(&args, sizeof args));
    args.flags = 0;
    SHOW(clone3(&args, 8));
    SHOW(clone3((struct clone_args *)8, sizeof args));
    args.stack = 4096;
    SHOW(clone3(&args, sizeof args));
    char big[200] = {0};
    big[150] = 1;
    SHOW(clone3((struct clone_args *)big, sizeof big));
}

SUBCASE(vfork_forms)
{
    volatile int shared = 0;
    for (volatile int i = 0; i < 20; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
            shared += i;
            if (i % 2)
                execl("/bin/true", "true", NULL);
            _exit(i);
        }
        waitpid(pid, &status, 0);
        printf(" %d", WEXITSTATUS(status));
    }
    printf("\nshared %d\n", shared);
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/nonexistent", "x", NULL);
        _exit(errno);
    }
    show_child(pid);
    pid = vfork();
    if (pid == 0)
        raise(SIGKILL);
    show_child(pid);
}

static void *vfork_body(void *argument)
{
    for (volatile int i = 0; i < 10; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
            execl("/bin/true", "true", NULL);
            _exit(1);
        }
        int s;
        waitpid(pid, &s, 0);
        counter += s == 0;
    }
    return argument;
}

SUBCASE(vfork_in_threads)
{
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, vfork_body, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    printf("counter %d\n", counter);
}

SUBCASE(unshare_forms)
{
    SHOW(unshare(CLONE_FILES));
    SHOW(unshare(CLONE_FS));
    SHOW(unshare(CLONE_SYSVSEM));
    SHOW(unshare(0x7));
    SHOW(unshare(CLONE_VM));
}

SUBCASE(fork_deep)
{
    for (int depth = 0; depth < 30; depth++) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid > 0) {
            waitpid(pid, &status, 0);
            _exit(WEXITSTATUS(status) + 1);
        }
    }
    printf("at the bottom\n");
}
