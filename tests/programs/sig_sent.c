/* SPDX-License-Identifier: Apache-2.0
 *
 * Synchronous signals that somebody sends: blocked, pending, taken, ignored, inherited over exec.
 */
#include "check.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
static int sig;
static sigset_t one;

static void handler(int signal, siginfo_t *info, void *context)
{
    (void)context;
    printf("handler %d, code %d, value %d\n", signal, info->si_code, info->si_code == SI_QUEUE ? info->si_value.sival_int : -1);
}

static void handle(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(sig, &action, NULL);
}

static void block_and_queue(int value)
{
    sigprocmask(SIG_BLOCK, &one, NULL);
    sigqueue(getpid(), sig, (union sigval){.sival_int = value});
    sigset_t pending;
    sigpending(&pending);
    printf("pending %d\n", sigismember(&pending, sig));
}

static void dies(void)
{
    block_and_queue(1);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
    printf("not reached\n");
}

static void arrives(void)
{
    handle();
    block_and_queue(2);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
    printf("after\n");
}

static void is_taken(void)
{
    siginfo_t info;
    handle();
    block_and_queue(3);
    CHECK(sigtimedwait(&one, &info, &(struct timespec){1, 0}) == sig);
    printf("taken with %d\n", info.si_value.sival_int);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
}

static void ends_a_wait(void)
{
    sigset_t none, now;
    handle();
    block_and_queue(4);
    sigemptyset(&none);
    int result = sigsuspend(&none);
    printf("sigsuspend %d %d\n", result, errno);
    block_and_queue(5);
    result = pselect(0, NULL, NULL, NULL, NULL, &none);
    printf("pselect %d %d\n", result, errno);
    sigprocmask(SIG_BLOCK, NULL, &now);
    printf("still blocked %d\n", sigismember(&now, sig));
}

static void two_handlers(void)
{
    sigset_t both = one;
    handle();
    int first = sig;
    block_and_queue(6);
    sig = first == SIGTRAP ? SIGFPE : SIGTRAP;
    sigaddset(&both, sig);
    handle();
    block_and_queue(7);
    sigaddset(&both, first);
    sigprocmask(SIG_BLOCK, &both, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    printf("both\n");
}

static void is_ignored(void)
{
    signal(sig, SIG_IGN);
    raise(sig);
    printf("ignored\n");
}

static void inherits(void)
{
    char text[12];
    snprintf(text, sizeof text, "%d", sig);
    signal(sig, SIG_IGN);
    sigprocmask(SIG_BLOCK, &one, NULL);
    execl("/proc/self/exe", "sig_sent", text, NULL);
}

static void run(const char *name, void (*body)(void))
{
    printf("%d %s: ", sig, name);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        body();
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("status %x\n", status & 0xff7f);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc > 1) {
        struct sigaction action;
        sigset_t mask;
        sig = atoi(argv[1]);
        sigaction(sig, NULL, &action);
        sigprocmask(SIG_BLOCK, NULL, &mask);
        printf("inherited: ignored %d, blocked %d\n", action.sa_handler == SIG_IGN, sigismember(&mask, sig));
        return 0;
    }
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        sig = all[i];
        sigemptyset(&one);
        sigaddset(&one, sig);
        run("dies", dies);
        run("arrives", arrives);
        run("is taken", is_taken);
        run("ends a wait", ends_a_wait);
        run("two handlers", two_handlers);
        run("is ignored", is_ignored);
        run("inherits", inherits);
    }
    return check_end("sig_sent");
}
