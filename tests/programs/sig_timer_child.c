/* SPDX-License-Identifier: Apache-2.0
 *
 * SIGALRM and SIGCHLD handlers: an interval timer that interrupts a busy loop, children that are reaped in the handler.
 */
#include "check.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 12, ALARMS = 20 };

static volatile sig_atomic_t alarms, reaped, statuses, bad;

static void on_alarm(int signal)
{
    if (signal != SIGALRM)
        bad++;
    alarms++;
}

static void on_child(int signal, siginfo_t *info, void *context)
{
    int saved = errno, status;
    if (signal != SIGCHLD || info->si_signo != SIGCHLD || info->si_code != CLD_EXITED || context == NULL)
        bad++;
    while (waitpid(-1, &status, WNOHANG) > 0) {
        reaped++;
        statuses += WEXITSTATUS(status);
    }
    errno = saved;
}

/* Work whose result is checked: a signal that damages a register or a flag shows. */
static unsigned long work(unsigned long rounds)
{
    unsigned long h = 5381;
    for (unsigned long i = 0; i < rounds; i++)
        h = h * 33 + (i ^ (h >> 7));
    return h;
}

int main(void)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = on_alarm;
    CHECK(sigaction(SIGALRM, &sa, NULL) == 0);
    sa.sa_handler = NULL;
    sa.sa_sigaction = on_child;
    sa.sa_flags = SA_SIGINFO | SA_RESTART;
    CHECK(sigaction(SIGCHLD, &sa, NULL) == 0);

    unsigned long expected = work(100000);
    struct itimerval timer = {{0, 2000}, {0, 2000}};
    setitimer(ITIMER_REAL, &timer, NULL);
    while (alarms < ALARMS)
        CHECK(work(100000) == expected);
    struct itimerval none = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &none, NULL);

    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGCHLD);
    sigprocmask(SIG_BLOCK, &block, &old);
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(i);
        CHECK(pid > 0);
    }
    while (reaped < CHILDREN)
        sigsuspend(&old);
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("reaped %d, statuses %d\n", (int)reaped, (int)statuses);
    CHECK(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);

    alarms = 0;
    alarm(1);
    while (alarms == 0)
        pause();
    CHECK(bad == 0);
    return check_end("sig_timer_child");
}
