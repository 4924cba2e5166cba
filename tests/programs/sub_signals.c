/* SPDX-License-Identifier: Apache-2.0
 *
 * Sending, blocking, queueing and taking signals; what sigaction's flags do; masks.
 */
#include "subcases.h"
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <ucontext.h>

static volatile int seen, depth, deepest;
static siginfo_t last;
static volatile int *volatile nowhere = (volatile int *)16;

static int is_handleable(int sig)
{
    return sig != SIGKILL && sig != SIGSTOP && sig != 32 && sig != 33; /* glibc keeps 32 and 33 */
}

static void count(int sig)
{
    (void)sig;
    seen++;
}

static void keep(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    last = *info;
    seen++;
}

static void say(int sig)
{
    printf("handler %d\n", sig);
}

static void on(int sig, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    MUST(sigaction(sig, &action, NULL) == 0);
}

static void on_info(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
    MUST(sigaction(sig, &action, NULL) == 0);
}

static void change(int how, int sig)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    MUST(sigprocmask(how, &set, NULL) == 0);
}

static void print_set(const char *what, const sigset_t *set)
{
    printf("%s:", what);
    for (int sig = 1; sig <= 64; sig++)
        if (sigismember(set, sig) == 1)
            printf(" %d", sig);
    printf("\n");
}

static void print_mask(const char *what)
{
    sigset_t set;
    sigprocmask(SIG_BLOCK, NULL, &set);
    print_set(what, &set);
}

static void print_pending(void)
{
    sigset_t set;
    sigpending(&set);
    print_set("pending", &set);
}

SUBCASE(handle_all)
{
    for (int sig = 1; sig <= 64; sig++)
        if (is_handleable(sig)) {
            seen = 0;
            on_info(sig, keep, 0);
            MUST(raise(sig) == 0);
            printf("%d: seen %d, signo %d, code %d, pid %d\n", sig, seen, last.si_signo, last.si_code, last.si_pid == getpid());
        }
}

SUBCASE(handle_all_by_queue)
{
    for (int sig = 1; sig <= 64; sig++)
        if (is_handleable(sig)) {
            seen = 0;
            on_info(sig, keep, 0);
            MUST(sigqueue(getpid(), sig, (union sigval){.sival_int = sig * 3}) == 0);
            printf("%d: seen %d, code %d, value %d, uid %d\n", sig, seen, last.si_code, last.si_value.sival_int,
                   last.si_uid == getuid());
        }
}

SUBCASE(default_actions)
{
    for (int sig = 1; sig <= 64; sig++) {
        if (sig == 32 || sig == 33)
            continue;
        int status = -1;
        pid_t child = fork();
        if (child == 0) {
            raise(sig);
            while (sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU)
                pause();
            _exit(1);
        }
        waitpid(child, &status, WUNTRACED);
        printf("%d ", sig);
        print_status("default", status);
        if (WIFSTOPPED(status)) {
            kill(child, SIGCONT);
            waitpid(child, &status, WCONTINUED);
            print_status("then", status);
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
        }
    }
}

SUBCASE(default_actions_from_outside)
{
    for (int sig = 1; sig <= 64; sig++) {
        int status = -1;
        if (sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU || sig == SIGCONT || sig == SIGCHLD ||
            sig == SIGURG || sig == SIGWINCH)
            continue;
        pid_t child = fork();
        if (child == 0)
            for (;;)
                pause();
        kill(child, sig);
        waitpid(child, &status, 0);
        printf("%d ", sig);
        print_status("default", status);
    }
}

SUBCASE(ignored_all)
{
    for (int sig = 1; sig <= 64; sig++)
        if (is_handleable(sig)) {
            signal(sig, SIG_IGN);
            raise(sig);
        }
    printf("alive\n");
}

SUBCASE(ignored_is_discarded_while_blocked)
{
    change(SIG_BLOCK, SIGUSR1);
    change(SIG_BLOCK, SIGSEGV);
    raise(SIGUSR1);
    raise(SIGSEGV);
    print_pending();
    signal(SIGUSR1, SIG_IGN);
    signal(SIGSEGV, SIG_IGN);
    print_pending();
    on(SIGUSR1, say, 0);
    on(SIGSEGV, say, 0);
    change(SIG_UNBLOCK, SIGUSR1);
    change(SIG_UNBLOCK, SIGSEGV);
    printf("end\n");
}

SUBCASE(resethand)
{
    on(SIGUSR1, count, SA_RESETHAND);
    raise(SIGUSR1);
    struct sigaction now;
    sigaction(SIGUSR1, NULL, &now);
    printf("seen %d, default now %d, flags %x\n", seen, now.sa_handler == SIG_DFL, now.sa_flags & ~0x04000000);
    raise(SIGUSR1);
}

SUBCASE(resethand_of_a_fault)
{
    on(SIGSEGV, count, SA_RESETHAND | SA_NODEFER);
    raise(SIGSEGV);
    printf("seen %d\n", seen);
    raise(SIGSEGV);
}

static void nest(int sig)
{
    int here = ++depth;
    if (here > deepest)
        deepest = here;
    if (here < 4)
        raise(sig);
    depth--;
}

SUBCASE(nodefer)
{
    on(SIGUSR1, nest, SA_NODEFER);
    raise(SIGUSR1);
    printf("deepest %d\n", deepest);
}

SUBCASE(nodefer_of_a_fault)
{
    on(SIGFPE, nest, SA_NODEFER);
    raise(SIGFPE);
    printf("deepest %d\n", deepest);
}

static void mask_inside(int sig)
{
    printf("%d ", sig);
    print_mask("mask");
}

SUBCASE(mask_in_handler)
{
    struct sigaction action = {.sa_handler = mask_inside};
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaddset(&action.sa_mask, SIGSEGV);
    sigaddset(&action.sa_mask, SIGKILL);
    sigaddset(&action.sa_mask, 64);
    sigaction(SIGUSR1, &action, NULL);
    action.sa_flags = SA_NODEFER;
    sigaction(SIGHUP, &action, NULL);
    sigfillset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
    print_mask("before");
    raise(SIGUSR1);
    raise(SIGHUP);
    raise(SIGBUS);
    print_mask("after");
}

SUBCASE(masks_are_exact)
{
    sigset_t set, old;
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, &old);
    print_set("old", &old);
    print_mask("all");
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_UNBLOCK, &set, &old);
    print_mask("less two");
    sigprocmask(SIG_SETMASK, &set, &old);
    print_set("old", &old);
    print_mask("two");
    SHOW(sigprocmask(17, &set, NULL));
    SHOW(sigprocmask(17, NULL, &old));
    SHOW(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 4L));
    SHOW(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8L, NULL, 8L));
    SHOW(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, 8L, 8L));
}

SUBCASE(mask_applied_though_old_faults)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    SHOW(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, 8L, 8L));
    print_mask("mask");
}

struct raw_action {
    void (*handler)(int);
    unsigned long flags;
    void *restorer;
    unsigned long mask;
};

SUBCASE(raw_sigaction)
{
    struct raw_action act = {count, SA_RESTART | 0x04000000 | 0x400, (void *)0x1234, ~0ul}, old;
    memset(&old, 0xaa, sizeof old);
    for (int sig = SIGUSR1; sig <= SIGUSR2; sig += SIGUSR2 - SIGUSR1) {
        SHOW(syscall(SYS_rt_sigaction, sig, &act, &old, 8L));
        printf("old %d %lx %lx %lx\n", old.handler == SIG_DFL, old.flags, (long)old.restorer, old.mask);
        SHOW(syscall(SYS_rt_sigaction, sig, NULL, &old, 8L));
        printf("new %d %lx %lx %lx\n", old.handler == count, old.flags, (long)old.restorer, old.mask);
    }
    SHOW(syscall(SYS_rt_sigaction, SIGSEGV, &act, &old, 8L));
    SHOW(syscall(SYS_rt_sigaction, SIGSEGV, NULL, &old, 8L));
    printf("new %d %lx %lx %lx\n", old.handler == count, old.flags, (long)old.restorer, old.mask);
}

SUBCASE(raw_sigaction_errors)
{
    struct raw_action act = {SIG_IGN, 0, NULL, 0}, old;
    SHOW(syscall(SYS_rt_sigaction, 0, &act, NULL, 8L));
    SHOW(syscall(SYS_rt_sigaction, 65, NULL, &old, 8L));
    SHOW(syscall(SYS_rt_sigaction, SIGKILL, &act, NULL, 8L));
    SHOW(syscall(SYS_rt_sigaction, SIGSTOP, &act, NULL, 8L));
    SHOW(syscall(SYS_rt_sigaction, SIGKILL, NULL, &old, 8L));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, 8L, NULL, 8L));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, 8L, 8L));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, &act, NULL, 16L));
    SHOW(syscall(SYS_rt_sigaction, 32, &act, &old, 8L));
}

SUBCASE(unsupported_flags)
{
    struct raw_action act = {count, 0xffffffff & ~0x80000000ul, NULL, 0}, old;
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, &act, NULL, 8L));
    SHOW(syscall(SYS_rt_sigaction, SIGUSR1, NULL, &old, 8L));
    printf("flags %lx\n", old.flags);
    act.flags = 0xffffffff00000000ul;
    SHOW(syscall(SYS_rt_sigaction, SIGILL, &act, NULL, 8L));
    SHOW(syscall(SYS_rt_sigaction, SIGILL, NULL, &old, 8L));
    printf("flags %lx\n", old.flags);
}

static int order[100], ordered;

static void note_order(int sig, siginfo_t *info, void *context)
{
    (void)context;
    order[ordered++] = sig * 1000 + (info->si_code == SI_QUEUE ? info->si_value.sival_int : 999);
}

static void queue_some(void)
{
    static const int some[] = {SIGUSR2, 40, 35, SIGUSR1, 35, 64, 35, SIGHUP, 40, SIGUSR1};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        on_info(some[i], note_order, 0);
        change(SIG_BLOCK, some[i]);
        sigqueue(getpid(), some[i], (union sigval){.sival_int = (int)i});
    }
}

static void print_order(void)
{
    for (int i = 0; i < ordered; i++)
        printf(" %d/%d", order[i] / 1000, order[i] % 1000);
    printf("\n");
}

SUBCASE(order_of_unblocking)
{
    sigset_t none;
    sigemptyset(&none);
    queue_some();
    print_pending();
    sigprocmask(SIG_SETMASK, &none, NULL);
    print_order();
}

SUBCASE(order_in_sigsuspend)
{
    sigset_t none;
    sigemptyset(&none);
    queue_some();
    SHOW(sigsuspend(&none));
    print_order();
}

SUBCASE(order_of_sigwaitinfo)
{
    sigset_t all;
    siginfo_t info;
    struct timespec zero = {0, 0};
    queue_some();
    sigfillset(&all);
    while (sigtimedwait(&all, &info, &zero) > 0)
        printf(" %d/%d", info.si_signo, info.si_value.sival_int);
    printf(" error %d\n", errno);
}

SUBCASE(order_of_signalfd)
{
    sigset_t all;
    struct signalfd_siginfo info;
    queue_some();
    sigfillset(&all);
    int fd = signalfd(-1, &all, SFD_NONBLOCK);
    while (read(fd, &info, sizeof info) == sizeof info)
        printf(" %u/%d", info.ssi_signo, info.ssi_int);
    printf(" error %d\n", errno);
}

SUBCASE(signalfd_with_poll)
{
    sigset_t set;
    struct signalfd_siginfo info[3];
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, 40);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    struct pollfd p = {fd, POLLIN, 0};
    SHOW(poll(&p, 1, 0));
    raise(40);
    raise(SIGUSR1);
    SHOW(poll(&p, 1, 0));
    SHOW(read(fd, info, sizeof info) / (long)sizeof info[0]);
    printf("%u %u, pid %d\n", info[0].ssi_signo, info[1].ssi_signo, info[0].ssi_pid == (unsigned)getpid());
    SHOW(poll(&p, 1, 0));
}

SUBCASE(sigtimedwait_forms)
{
    sigset_t set;
    siginfo_t info;
    struct timespec zero = {0, 0}, bad = {0, -1};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    SHOW(sigtimedwait(&set, &info, &zero));
    SHOW(sigtimedwait(&set, &info, &bad));
    raise(SIGUSR1);
    SHOW(sigtimedwait(&set, NULL, &zero));
    raise(SIGUSR1);
    SHOW(sigwaitinfo(&set, &info));
    int sig = 0;
    raise(SIGUSR1);
    SHOW(sigwait(&set, &sig));
    SHOW(syscall(SYS_rt_sigtimedwait, &set, NULL, &zero, 7L));
    SHOW(syscall(SYS_rt_sigtimedwait, 8L, NULL, &zero, 8L));
}

static void send_after(int sig, int ms)
{
    fflush(stdout);
    pid_t parent = getpid();
    if (fork() == 0) {
        sleep_ms(ms);
        kill(parent, sig);
        _exit(0);
    }
}

SUBCASE(sigtimedwait_interrupted)
{
    sigset_t set;
    struct timespec limit = {10, 0};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    on(SIGUSR2, say, SA_RESTART);
    send_after(SIGUSR2, 30);
    SHOW(sigtimedwait(&set, NULL, &limit));
}

SUBCASE(sigsuspend_mask)
{
    sigset_t set;
    on(SIGUSR1, mask_inside, 0);
    on(SIGUSR2, say, 0);
    change(SIG_BLOCK, SIGUSR1);
    change(SIG_BLOCK, SIGHUP);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    raise(SIGUSR1);
    raise(SIGUSR2); /* handled at once */
    SHOW(sigsuspend(&set));
    print_mask("after");
}

SUBCASE(sigpending_forms)
{
    unsigned long set = 0;
    change(SIG_BLOCK, SIGUSR1);
    change(SIG_BLOCK, SIGFPE);
    raise(SIGFPE);
    raise(SIGUSR1);
    SHOW(syscall(SYS_rt_sigpending, &set, 8L));
    printf("%lx\n", set);
    set = 0;
    SHOW(syscall(SYS_rt_sigpending, &set, 4L));
    printf("%lx\n", set);
    SHOW(syscall(SYS_rt_sigpending, &set, 9L));
    SHOW(syscall(SYS_rt_sigpending, 8L, 8L));
}

SUBCASE(rt_signals_queue_all)
{
    on_info(SIGRTMIN + 1, keep, 0);
    change(SIG_BLOCK, SIGRTMIN + 1);
    for (int i = 0; i < 50; i++)
        MUST(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}) == 0);
    change(SIG_UNBLOCK, SIGRTMIN + 1);
    printf("seen %d, last %d\n", seen, last.si_value.sival_int);
}

SUBCASE(standard_signals_merge)
{
    on_info(SIGUSR1, keep, 0);
    change(SIG_BLOCK, SIGUSR1);
    for (int i = 0; i < 5; i++)
        sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = i});
    change(SIG_UNBLOCK, SIGUSR1);
    printf("seen %d, last %d\n", seen, last.si_value.sival_int);
}

SUBCASE(kill_errors)
{
    SHOW(kill(getpid(), 0));
    SHOW(kill(getpid(), 65));
    SHOW(kill(getpid(), -1));
    SHOW(kill(0x3fffffff, SIGTERM));
    SHOW(syscall(SYS_tgkill, getpid(), 0x3fffffff, 0));
    SHOW(syscall(SYS_tgkill, getpid(), -1, 0));
    SHOW(syscall(SYS_tkill, 0, 0));
    SHOW(syscall(SYS_tkill, syscall(SYS_gettid), 0));
}

SUBCASE(rt_tgsigqueueinfo)
{
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = -77};
    info.si_value.sival_int = 4242;
    on_info(SIGUSR1, keep, 0);
    on_info(SIGSEGV, keep, 0);
    SHOW(syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGUSR1, &info));
    printf("code %d value %d\n", last.si_code, last.si_value.sival_int);
    SHOW(syscall(SYS_rt_sigqueueinfo, getpid(), SIGSEGV, &info));
    printf("signo %d code %d value %d\n", last.si_signo, last.si_code, last.si_value.sival_int);
    info.si_code = SI_TKILL;
    SHOW(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &info));
    printf("seen %d\n", seen);
    info.si_code = 1; /* as a fault of the CPU */
    SHOW(syscall(SYS_rt_sigqueueinfo, getpid(), SIGSEGV, &info));
    printf("code %d seen %d\n", last.si_code, seen);
}

static sigjmp_buf back;
static jmp_buf back_plain;

static void leap(int sig)
{
    siglongjmp(back, sig);
}

static void leap_plain(int sig)
{
    longjmp(back_plain, sig);
}

SUBCASE(siglongjmp_restores_mask)
{
    on(SIGUSR1, leap, 0);
    for (volatile int i = 0; i < 100; i++)
        if (sigsetjmp(back, 1) == 0)
            raise(SIGUSR1);
        else
            seen++;
    printf("seen %d\n", seen);
    print_mask("mask");
}

SUBCASE(longjmp_keeps_mask)
{
    on(SIGUSR1, leap_plain, 0);
    if (_setjmp(back_plain) == 0)
        raise(SIGUSR1);
    print_mask("mask");
}

SUBCASE(longjmp_from_fault)
{
    on(SIGSEGV, leap, 0);
    for (volatile int i = 0; i < 100; i++)
        if (sigsetjmp(back, 1) == 0)
            *nowhere = 1;
        else
            seen++;
    printf("seen %d\n", seen);
    print_mask("mask");
}

SUBCASE(fault_while_blocked_kills)
{
    on(SIGSEGV, say, 0);
    change(SIG_BLOCK, SIGSEGV);
    *nowhere = 1;
}

SUBCASE(fault_while_ignored_kills)
{
    signal(SIGSEGV, SIG_IGN);
    *nowhere = 1;
}

SUBCASE(fault_in_its_handler_kills)
{
    on(SIGSEGV, leap, SA_NODEFER);
    if (sigsetjmp(back, 0) == 0)
        *nowhere = 1;
    printf("once\n");
    on(SIGSEGV, leap_plain, 0);
    if (_setjmp(back_plain) == 0)
        *nowhere = 1;
    printf("twice\n"); /* SIGSEGV is blocked since */
    *nowhere = 1;
}

static void never_returns(int sig)
{
    printf("handler %d\n", sig);
    exit(33);
}

SUBCASE(handler_never_returns)
{
    on(SIGALRM, never_returns, 0);
    ualarm(10000, 0);
    for (;;)
        seen++;
}

static void chain(int sig)
{
    printf("handler %d\n", sig);
    if (sig < SIGRTMIN + 5)
        raise(sig + 1);
    printf("out of %d\n", sig);
}

SUBCASE(nested_chain)
{
    for (int sig = SIGRTMIN; sig <= SIGRTMIN + 5; sig++)
        on(sig, chain, 0);
    raise(SIGRTMIN);
}

static void changes_handler(int sig)
{
    printf("first\n");
    on(sig, say, 0);
    raise(sig);
    printf("end of first\n");
}

SUBCASE(handler_replaced_inside)
{
    on(SIGUSR1, changes_handler, 0);
    raise(SIGUSR1);
    raise(SIGUSR1);
}

SUBCASE(inherited_over_exec)
{
    char *argv[] = {"role", "dispositions", NULL};
    on(SIGUSR1, count, 0);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGFPE, SIG_IGN);
    signal(SIGTRAP, SIG_IGN);
    signal(SIGSEGV, SIG_IGN);
    change(SIG_BLOCK, SIGHUP);
    change(SIG_BLOCK, SIGILL);
    change(SIG_BLOCK, SIGBUS);
    raise(SIGHUP);
    fflush(stdout);
    execv(subcase_self, argv);
}

SUBCASE(pending_over_exec)
{
    char *argv[] = {"role", "pending", NULL};
    change(SIG_BLOCK, SIGHUP);
    change(SIG_BLOCK, 40);
    kill(getpid(), SIGHUP);
    sigqueue(getpid(), 40, (union sigval){.sival_int = 9});
    execv(subcase_self, argv);
}

SUBCASE(pending_not_over_fork)
{
    change(SIG_BLOCK, SIGHUP);
    change(SIG_BLOCK, SIGSEGV);
    raise(SIGHUP);
    raise(SIGSEGV);
    in_child("child", print_pending);
    print_pending();
}

SUBCASE(sigaltstack_forms)
{
    stack_t s = {.ss_sp = malloc(65536), .ss_size = 65536}, old;
    SHOW(sigaltstack(NULL, &old));
    printf("flags %d size %zu\n", old.ss_flags, old.ss_size);
    SHOW(sigaltstack(&s, NULL));
    SHOW(sigaltstack(NULL, &old));
    printf("flags %d size %zu same %d\n", old.ss_flags, old.ss_size, old.ss_sp == s.ss_sp);
    s.ss_size = 100;
    SHOW(sigaltstack(&s, NULL));
    s.ss_size = 2048;
    SHOW(sigaltstack(&s, NULL));
    s.ss_size = 65536;
    s.ss_flags = 4;
    SHOW(sigaltstack(&s, NULL));
    s.ss_flags = SS_ONSTACK;
    SHOW(sigaltstack(&s, NULL));
    SHOW(sigaltstack((stack_t *)8, NULL));
    SHOW(sigaltstack(NULL, (stack_t *)8));
    s.ss_flags = SS_DISABLE;
    SHOW(sigaltstack(&s, &old));
    SHOW(sigaltstack(NULL, &old));
    printf("flags %d size %zu sp %d\n", old.ss_flags, old.ss_size, old.ss_sp != NULL);
}

static stack_t alternate;

static void where(int sig)
{
    char here;
    stack_t now, small = {.ss_sp = alternate.ss_sp, .ss_size = 16384};
    sigaltstack(NULL, &now);
    int inside = &here >= (char *)alternate.ss_sp && &here < (char *)alternate.ss_sp + alternate.ss_size;
    printf("handler %d: inside %d, flags %x\n", sig, inside, (unsigned)now.ss_flags);
    SHOW(sigaltstack(&small, NULL));
    if (sig == SIGUSR1)
        raise(SIGUSR2);
}

static void use_altstack(int flags)
{
    stack_t now;
    alternate = (stack_t){.ss_sp = malloc(65536), .ss_size = 65536, .ss_flags = flags};
    MUST(sigaltstack(&alternate, NULL) == 0);
    on(SIGUSR1, where, SA_ONSTACK);
    on(SIGUSR2, where, SA_ONSTACK);
    on(SIGHUP, where, 0);
    raise(SIGUSR1);
    raise(SIGHUP);
    sigaltstack(NULL, &now);
    printf("after: same %d, size %zu, flags %x\n", now.ss_sp == alternate.ss_sp, now.ss_size, (unsigned)now.ss_flags);
}

SUBCASE(altstack_nested)
{
    use_altstack(0);
}

SUBCASE(altstack_autodisarm)
{
    use_altstack((int)(1u << 31));
}

static void overflow_handler(int sig, siginfo_t *info, void *context)
{
    char here;
    int inside = &here >= (char *)alternate.ss_sp && &here < (char *)alternate.ss_sp + alternate.ss_size;
    uint64_t sp = (uint64_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RSP], at = (uint64_t)info->si_addr;
    printf("handler %d: inside %d, near the stack pointer %d\n", sig, inside, at - sp + 65536 < 131072);
    siglongjmp(back, 1);
}

static __attribute__((noinline)) int recurse(int n)
{
    volatile char frame[4000];
    frame[0] = (char)n;
    return n < 0 ? 0 : recurse(n + 1) + frame[0];
}

SUBCASE(stack_overflow)
{
    alternate = (stack_t){.ss_sp = malloc(65536), .ss_size = 65536};
    MUST(sigaltstack(&alternate, NULL) == 0);
    on_info(SIGSEGV, overflow_handler, SA_ONSTACK);
    for (volatile int i = 0; i < 3; i++)
        if (sigsetjmp(back, 1) == 0)
            recurse(0);
    printf("end\n");
}

SUBCASE(stack_overflow_without_altstack)
{
    on_info(SIGSEGV, overflow_handler, 0);
    recurse(0);
}

static void *overflow_thread(void *argument)
{
    stack_t mine = {.ss_sp = malloc(65536), .ss_size = 65536};
    alternate = mine;
    MUST(sigaltstack(&mine, NULL) == 0);
    if (sigsetjmp(back, 1) == 0)
        recurse(0);
    return argument;
}

SUBCASE(stack_overflow_in_thread)
{
    pthread_t thread;
    on_info(SIGSEGV, overflow_handler, SA_ONSTACK);
    pthread_create(&thread, NULL, overflow_thread, NULL);
    pthread_join(thread, NULL);
    stack_t mine;
    sigaltstack(NULL, &mine);
    printf("ours is disabled: %d\n", mine.ss_flags);
}

SUBCASE(altstack_too_small_kills)
{
    char *memory = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory, 4096, PROT_NONE);
    stack_t small = {.ss_sp = memory + 4096 - 2048, .ss_size = 2048};
    if (sigaltstack(&small, NULL) < 0) { /* the kernel may want room for the CPU's registers */
        printf("refused\n");
        raise(SIGSEGV);
    }
    on(SIGUSR1, say, SA_ONSTACK);
    raise(SIGUSR1);
}

SUBCASE(sa_flags_kept_by_fork)
{
    struct sigaction now;
    on(SIGUSR1, say, SA_RESTART | SA_ONSTACK);
    on(SIGSEGV, say, SA_NODEFER);
    fflush(stdout);
    if (fork() == 0) {
        sigaction(SIGUSR1, NULL, &now);
        printf("%d %x\n", now.sa_handler == say, now.sa_flags & ~0x04000000);
        sigaction(SIGSEGV, NULL, &now);
        printf("%d %x\n", now.sa_handler == say, now.sa_flags & ~0x04000000);
        raise(SIGSEGV);
        exit(0);
    }
    wait(NULL);
}

int subcase_role(int argc, char **argv)
{
    if (argc != 2 || strcmp(argv[0], "role"))
        return -1;
    if (!strcmp(argv[1], "pending"))
        print_pending();
    else
        for (int sig = 1; sig <= 64; sig++) {
            struct raw_action act;
            if (syscall(SYS_rt_sigaction, sig, NULL, &act, 8L) == 0 && (act.handler != SIG_DFL || act.flags || act.mask))
                printf("%d: %s flags %lx mask %lx\n", sig,
                       act.handler == SIG_IGN ? "ignored"
                       : act.handler          ? "handled"
                                              : "default",
                       act.flags, act.mask);
        }
    print_mask("mask");
    return 0;
}
