/* SPDX-License-Identifier: Apache-2.0
 *
 * A timer, faults of its own, the same signals sent by a thread, and masks that change all the time: nothing may get lost or
 * mixed up.
 */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile long sent, faults, alarms;
static volatile int stop;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)signal;
    if (info->si_code <= 0) {
        sent++;
        return;
    }
    faults++;
    uc->uc_mcontext.gregs[REG_RIP] += 2; /* past the load */
}

static void on_alarm(int signal)
{
    (void)signal;
    alarms++;
}

static void *sender(void *argument)
{
    for (unsigned i = 0; !stop; i++) {
        pthread_kill(*(pthread_t *)argument, i % 2 ? SIGSEGV : SIGTRAP);
        usleep(30);
    }
    return NULL;
}

__attribute__((noipa)) static unsigned work(unsigned x)
{
    for (unsigned i = 0; i < 3000; i++) {
        x = x * 1664525 + 1013904223;
        x ^= x >> 13;
        if (x & 1)
            x += i;
    }
    return x;
}

static void fault(void)
{
    __asm__ volatile("xor %%ecx, %%ecx\n\tmov (%%rcx), %%eax" : : : "rax", "rcx", "memory");
}

static void round_of(int i, const sigset_t *segv, unsigned expected)
{
    char text[40];
    CHECK(work(7) == expected);
    if (i % 3 == 0) {
        sigprocmask(SIG_BLOCK, segv, NULL);
        work(3);
        sigprocmask(SIG_UNBLOCK, segv, NULL);
    }
    fault();
    snprintf(text, sizeof text, "%d", i);
    CHECK(atoi(text) == i);
}

int main(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
    signal(SIGALRM, on_alarm);
    pthread_t self = pthread_self(), thread;
    sigset_t all, old, segv;
    sigfillset(&all);
    sigemptyset(&segv);
    sigaddset(&segv, SIGSEGV);
    unsigned expected = work(7);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    CHECK(pthread_create(&thread, NULL, sender, &self) == 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 150}, {0, 150}}, NULL);
    for (int i = 0; i < 20000; i++)
        round_of(i, &segv, expected);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    stop = 1;
    pthread_join(thread, NULL);
    printf("faults %ld, others came: %d %d\n", faults, sent > 50, alarms > 50);
    return check_end("sig_storm");
}
