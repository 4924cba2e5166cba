/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocked, pending, queued: which signals arrive, in which order, with which values and masks.
 */
#include "check.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void say(const char *text, int a, int b)
{
    char line[100];
    int n = snprintf(line, sizeof line, "%s %d %d\n", text, a, b);
    if (write(1, line, (size_t)n) != n)
        _exit(98);
}

static const char *name(int signal)
{
    if (signal >= SIGRTMIN)
        return signal == SIGRTMIN ? "RTMIN" : "RTMIN+1";
    return signal == SIGUSR1 ? "USR1" : signal == SIGUSR2 ? "USR2" : "other";
}

static void handler(int signal, siginfo_t *info, void *context)
{
    (void)context;
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    say(name(signal), info->si_code == SI_QUEUE ? info->si_value.sival_int : -1,
        sigismember(&mask, SIGUSR1) + 2 * sigismember(&mask, SIGUSR2) + 4 * sigismember(&mask, SIGRTMIN));
}

static void nested(int signal)
{
    say("nested begins", signal == SIGUSR1, 0);
    if (signal == SIGUSR1)
        raise(SIGUSR2);
    say("nested ends", signal == SIGUSR1, 0);
}

static void *thread_body(void *arg)
{
    sigset_t *set = arg;
    int signal;
    CHECK(sigwait(set, &signal) == 0 && signal == SIGUSR1);
    say("sigwait in a thread", 0, 0);
    return NULL;
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = handler;
    sa.sa_flags = SA_SIGINFO;
    sigaddset(&sa.sa_mask, SIGRTMIN);
    int signals[] = {SIGUSR1, SIGUSR2, SIGRTMIN, SIGRTMIN + 1};
    for (int i = 0; i < 4; i++)
        sigaction(signals[i], &sa, NULL);

    sigset_t all, old, pending;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);
    for (int i = 3; i >= 0; i--)
        for (int k = 0; k < 3; k++)
            sigqueue(getpid(), signals[i], (union sigval){.sival_int = 10 * i + k});
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGUSR1) && sigismember(&pending, SIGRTMIN) && !sigismember(&pending, SIGHUP));
    siginfo_t info;
    CHECK(sigtimedwait(&(sigset_t){{1ul << (SIGUSR2 - 1)}}, &info, &(struct timespec){0, 0}) == SIGUSR2);
    say("sigtimedwait", info.si_value.sival_int, info.si_code == SI_QUEUE);
    CHECK(sigtimedwait(&(sigset_t){{1ul << (SIGUSR2 - 1)}}, &info, &(struct timespec){0, 0}) == -1 && errno == EAGAIN);
    say("unblock", 0, 0);
    sigprocmask(SIG_SETMASK, &old, NULL);
    say("unblocked", 0, 0);

    memset(&sa, 0, sizeof sa);
    sa.sa_handler = nested;
    sigaction(SIGUSR1, &sa, NULL);
    sigaction(SIGUSR2, &sa, NULL);
    raise(SIGUSR1);
    sa.sa_flags = SA_NODEFER | SA_RESETHAND;
    sigaction(SIGUSR1, &sa, NULL);
    raise(SIGUSR1);
    struct sigaction now;
    sigaction(SIGUSR1, NULL, &now);
    CHECK(now.sa_handler == SIG_DFL);

    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    say("ignored", 0, 0);
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    sigprocmask(SIG_BLOCK, &one, NULL);
    signal(SIGUSR1, SIG_DFL);
    pthread_t thread;
    pthread_create(&thread, NULL, thread_body, &one);
    pthread_kill(thread, SIGUSR1);
    pthread_join(thread, NULL);
    CHECK(sigaction(SIGKILL, &sa, NULL) == -1 && errno == EINVAL);
    return check_end("sig_order");
}
