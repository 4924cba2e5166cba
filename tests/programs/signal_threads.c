/* SPDX-License-Identifier: Apache-2.0
 *
 * Eight threads that work, send each other signals, and start and end other threads, while a process timer fires.
 */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 60 };

static pthread_t threads[THREADS];
static pthread_barrier_t barrier;
static _Atomic int handled, short_lived;
static __thread volatile int in_handler;
static __thread volatile uint64_t tls_check;

static void handler(int signal)
{
    if (signal == SIGUSR1)
        handled++;
    if (in_handler > 2)
        _exit(97);
    in_handler++;
    tls_check = tls_check * 3;
    tls_check = tls_check / 3;
    in_handler--;
}

static void *brief(void *arg)
{
    short_lived++;
    return arg;
}

static uint64_t hash(uint64_t h)
{
    for (int i = 0; i < 5000; i++)
        h = (h ^ (h >> 13)) * 0x9e3779b97f4a7c15ull + (uint64_t)i;
    return h;
}

static void *body(void *arg)
{
    uintptr_t me = (uintptr_t)arg;
    uint64_t expected = hash(me);
    tls_check = me + 1;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(pthread_kill(threads[(me + 1 + (uintptr_t)i) % THREADS], SIGUSR1) == 0);
        CHECK(hash(me) == expected && tls_check == me + 1);
        if (i % 10 == 0) {
            pthread_t t;
            CHECK(pthread_create(&t, NULL, brief, NULL) == 0);
            pthread_join(t, NULL);
        }
    }
    pthread_barrier_wait(&barrier);
    return NULL;
}

int main(void)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = handler;
    sa.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &sa, NULL);
    sigaction(SIGALRM, &sa, NULL);
    pthread_barrier_init(&barrier, NULL, THREADS);
    sigset_t block, old;
    sigfillset(&block);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    for (uintptr_t i = 1; i < THREADS; i++)
        pthread_create(&threads[i], NULL, body, (void *)i);
    threads[0] = pthread_self();
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    struct itimerval timer = {{0, 1000}, {0, 1000}}, none = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
    body((void *)0);
    setitimer(ITIMER_REAL, &none, NULL);
    for (int i = 1; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(handled > 0);
    printf("short lived %d\n", short_lived);
    return check_end("signal_threads");
}
