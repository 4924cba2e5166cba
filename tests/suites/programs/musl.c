/* SPDX-License-Identifier: Apache-2.0
 *
 * What musl does otherwise than glibc: threads and their ends, cancellation by a signal that is handled at system calls, fork
 * and posix_spawn, timers, setjmp, regular expressions, locale. The library it is built with opens one of its own where it can.
 */
#include <dlfcn.h>
#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <regex.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static _Thread_local int own;
static long total;
static sem_t ready;
extern char **environ;

static void *add(void *argument)
{
    for (int i = 0; i < 1000; i++) {
        own++;
        pthread_mutex_lock(&mutex);
        total += (long)argument;
        pthread_mutex_unlock(&mutex);
    }
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&mutex);
    return (void *)(long)own;
}

static void threads(void)
{
    pthread_t t[8];
    long sum = 0;
    for (int round = 0; round < 10; round++) {
        for (long i = 0; i < 8; i++)
            pthread_create(&t[i], NULL, add, (void *)i);
        for (int i = 0; i < 8; i++) {
            void *result;
            pthread_join(t[i], &result);
            sum += (long)result;
        }
    }
    printf("total %ld, own %ld\n", total, sum);
}

static void *leave(void *argument)
{
    sem_post(&ready);
    return argument;
}

static void detached(void)
{
    pthread_attr_t a;
    pthread_t t;
    pthread_attr_init(&a);
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
    for (int i = 0; i < 100; i++)
        while (pthread_create(&t, &a, leave, NULL))
            sched_yield();
    for (int i = 0; i < 100; i++)
        sem_wait(&ready);
    printf("100 detached\n");
}

static volatile int cleaned;
static void clean(void *argument)
{
    cleaned += (int)(long)argument;
}

static void *cancelled(void *argument)
{
    int p[2];
    char c;
    (void)argument;
    if (pipe(p))
        abort();
    pthread_cleanup_push(clean, (void *)1L);
    sem_post(&ready);
    read(p[0], &c, 1);
    pthread_cleanup_pop(0);
    return NULL;
}

static void *spinning(void *argument)
{
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    sem_post(&ready);
    for (volatile long i = 0;; i++)
        ;
    return argument;
}

static void cancellation(void)
{
    pthread_t t;
    void *result;
    int right = 0;
    for (int i = 0; i < 20; i++) {
        pthread_create(&t, NULL, i % 2 ? cancelled : spinning, NULL);
        sem_wait(&ready);
        pthread_cancel(t);
        pthread_join(t, &result);
        right += result == PTHREAD_CANCELED;
    }
    printf("cancelled %d, cleaned %d\n", right, cleaned);
}

static volatile int handled;
static sigjmp_buf back;

static void count(int sig)
{
    handled += sig == SIGUSR1;
}

static void leap(int sig, siginfo_t *info, void *context)
{
    (void)context;
    siglongjmp(back, sig + (info->si_addr == (void *)8 ? 100 : 0));
}

static void signals(void)
{
    struct sigaction action = {.sa_sigaction = leap, .sa_flags = SA_SIGINFO};
    sigset_t set;
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct itimerspec when = {.it_value.tv_nsec = 1000000};
    signal(SIGUSR1, count);
    for (int i = 0; i < 100; i++)
        raise(SIGUSR1);
    sigaction(SIGSEGV, &action, NULL);
    int got = sigsetjmp(back, 1);
    if (!got)
        *(volatile int *)(volatile uintptr_t){8} = 1;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &when, NULL);
    printf("handled %d, leapt with %d, timer's signal %d\n", handled, got, sigwaitinfo(&set, NULL) == SIGRTMIN);
}

static void processes(void)
{
    pid_t pid;
    int status;
    char *argv[] = {"sh", "-c", "exit 5", NULL};
    fflush(stdout);
    posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ);
    waitpid(pid, &status, 0);
    printf("spawned: %d\n", WEXITSTATUS(status));
    FILE *f = popen("echo from a shell", "r");
    char line[100] = "";
    fgets(line, sizeof line, f);
    printf("%d %s", pclose(f), line);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        pthread_t t;
        pthread_create(&t, NULL, leave, NULL);
        pthread_join(t, NULL);
        _exit(6);
    }
    waitpid(pid, &status, 0);
    printf("forked: %d; system: %d\n", WEXITSTATUS(status), WEXITSTATUS(system("exit 7")));
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void library(void)
{
    regex_t r;
    regmatch_t m[3];
    static int numbers[5000];
    wchar_t wide[20];
    unsigned seed = 1;
    setlocale(LC_ALL, "C.UTF-8");
    for (int i = 0; i < 5000; i++)
        numbers[i] = (int)((seed = seed * 1103515245 + 12345) >> 8);
    qsort(numbers, 5000, sizeof *numbers, compare);
    int sorted = 1;
    for (int i = 1; i < 5000; i++)
        sorted &= numbers[i - 1] <= numbers[i];
    regcomp(&r, "([a-z]+)=([0-9]+)", REG_EXTENDED);
    int found = regexec(&r, "  abc=123", 3, m, 0);
    printf("sorted %d, match %d at %d, wide %zu, %.17g %a\n", sorted, found, (int)m[1].rm_so,
           mbstowcs(wide, "h\xc3\xa9llo", 20), 1.0 / 3, 1.0 / 3);
    for (size_t n = 1; n < 1 << 22; n = n * 3 + 1) {
        char *p = malloc(n);
        memset(p, 1, n);
        p = realloc(p, n * 2);
        free(p);
    }
#ifdef DYNAMIC
    void *handle = dlopen("./library.so", RTLD_NOW);
    int (*answer)(void) = handle ? (int (*)(void))dlsym(handle, "answer") : NULL;
    printf("library: %d\n", answer ? answer() : -1);
#endif
}

int main(void)
{
    sem_init(&ready, 0, 0);
    threads();
    detached();
    cancellation();
    signals();
    processes();
    library();
    fflush(stdout);
    pthread_t t;
    pthread_create(&t, NULL, spinning, NULL);
    sem_wait(&ready);
    return 3;
}
