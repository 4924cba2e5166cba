/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads: their ends, cancellation, futexes that outlive their owner, signals to one of them, fork with threads.
 */
#include "subcases.h"
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

static atomic_int counter;
static int status;

static void show_child(pid_t pid)
{
    MUST(pid > 0);
    while (waitpid(pid, &status, __WALL) < 0)
        MUST(errno == EINTR);
    print_status("child", status);
}

static volatile int handled;

/* ---- threads ---- */

static void *count(void *argument)
{
    counter++;
    return argument;
}

SUBCASE(two_hundred_threads)
{
    static pthread_t t[200];
    pthread_attr_t attributes;
    long sum = 0;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    for (long i = 0; i < 200; i++)
        MUST(pthread_create(&t[i], &attributes, count, (void *)i) == 0);
    for (int i = 0; i < 200; i++) {
        void *result;
        pthread_join(t[i], &result);
        sum += (long)result;
    }
    printf("counter %d sum %ld\n", counter, sum);
}

static pthread_barrier_t barrier;
static void *meet(void *argument)
{
    for (int i = 0; i < 5; i++)
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
            counter++;
    return argument;
}

SUBCASE(hundred_at_once)
{
    static pthread_t t[100];
    pthread_barrier_init(&barrier, NULL, 100);
    for (int i = 0; i < 100; i++)
        MUST(pthread_create(&t[i], NULL, meet, NULL) == 0);
    for (int i = 0; i < 100; i++)
        pthread_join(t[i], NULL);
    printf("counter %d\n", counter);
}

SUBCASE(threads_one_after_another)
{
    for (int i = 0; i < 150; i++) {
        pthread_t t;
        MUST(pthread_create(&t, NULL, count, NULL) == 0);
        pthread_join(t, NULL);
    }
    printf("counter %d\n", counter);
}

static void *detached_body(void *argument)
{
    counter++;
    return argument;
}

SUBCASE(detached_threads)
{
    for (int i = 0; i < 100; i++) {
        pthread_t t;
        while (pthread_create(&t, NULL, detached_body, NULL) != 0)
            sleep_ms(1);
        pthread_detach(t);
    }
    while (counter < 100)
        sleep_ms(1);
    printf("counter %d\n", counter);
}

static void *spin(void *argument)
{
    for (volatile long i = 0;; i++)
        ;
    return argument;
}

static void *sleeper(void *argument)
{
    for (;;)
        pause();
    return argument;
}

static void start(void *(*body)(void *), int n)
{
    pthread_t t;
    for (int i = 0; i < n; i++)
        MUST(pthread_create(&t, NULL, body, NULL) == 0);
}

SUBCASE(exit_with_threads_running)
{
    start(spin, 3);
    start(sleeper, 3);
    sleep_ms(10);
    exit(17);
}

static void *exit_body(void *argument)
{
    sleep_ms(5);
    _exit(18);
    return argument;
}

SUBCASE(exit_from_thread)
{
    start(spin, 2);
    start(exit_body, 1);
    for (;;)
        pause();
}

SUBCASE(main_ends_first)
{
    start(exit_body, 1);
    pthread_exit(NULL);
}

static void *last_thread(void *argument)
{
    sleep_ms(10);
    printf("the last thread ends\n");
    return argument;
}

SUBCASE(all_threads_end)
{
    start(last_thread, 1);
    pthread_exit(NULL);
}

SUBCASE(raw_exit_of_main)
{
    start(exit_body, 1);
    syscall(SYS_exit, 5);
}

static void *crash_body(void *argument)
{
    *(volatile char *)(uintptr_t)(counter + 16) = 0;
    return argument;
}

SUBCASE(crash_in_thread)
{
    start(sleeper, 3);
    start(crash_body, 1);
    for (;;)
        pause();
}

SUBCASE(killed_with_threads)
{
    start(spin, 2);
    sleep_ms(5);
    kill(getpid(), SIGTERM);
    for (;;)
        pause();
}

static void *exec_body(void *argument)
{
    sleep_ms(5);
    execl("/bin/sh", "sh", "-c", "echo \"in the new program, threads: $(ls /proc/$$/task | wc -l)\"", NULL);
    return argument;
}

SUBCASE(exec_from_thread)
{
    pid_t before = getpid();
    start(spin, 2);
    start(exec_body, 1);
    (void)before;
    for (;;)
        pause();
}

static void *fork_body(void *argument)
{
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t t;
        pthread_create(&t, NULL, count, NULL);
        pthread_join(t, NULL);
        _exit(counter == 1 && syscall(SYS_gettid) == getpid() ? 0 : 1);
    }
    waitpid(pid, (int *)argument, 0);
    return NULL;
}

SUBCASE(fork_in_thread_then_threads)
{
    pthread_t t;
    int s = -1;
    start(spin, 2);
    pthread_create(&t, NULL, fork_body, &s);
    pthread_join(t, NULL);
    printf("status %d\n", s);
}

static void say_prepare(void)
{
    printf("prepare\n");
}
static void say_parent(void)
{
    handled = 1;
}
static void say_child(void)
{
    printf("child\n");
}

SUBCASE(atfork)
{
    pthread_atfork(say_prepare, NULL, say_child);
    pthread_atfork(say_prepare, say_parent, NULL);
    pid_t pid = fork();
    if (pid == 0)
        exit(0);
    show_child(pid);
    printf("parent %d\n", handled);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void *allocate(void *argument)
{
    while (!handled) {
        void *p[20];
        for (int i = 0; i < 20; i++)
            p[i] = malloc((size_t)i * 100 + 1);
        for (int i = 0; i < 20; i++)
            free(p[i]);
    }
    return argument;
}

SUBCASE(fork_while_others_allocate)
{
    int wrong = 0;
    start(allocate, 2);
    for (int i = 0; i < 15; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            free(malloc(100000));
            _exit(0);
        }
        waitpid(pid, &status, 0);
        wrong += status != 0;
    }
    handled = 1;
    printf("wrong %d\n", wrong);
}

/* ---- cancellation ---- */

static void cleanup(void *argument)
{
    printf("cleanup %s\n", (char *)argument);
}

static void *cancelled_in_read(void *argument)
{
    char c;
    pthread_cleanup_push(cleanup, "read");
    printf("read %zd\n", read(*(int *)argument, &c, 1));
    pthread_cleanup_pop(0);
    return NULL;
}

static void *cancelled_in_sleep(void *argument)
{
    pthread_cleanup_push(cleanup, "sleep");
    for (;;)
        sleep(10);
    pthread_cleanup_pop(0);
    return argument;
}

static void *cancelled_anywhere(void *argument)
{
    int old;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
    for (volatile int i = 0;; i++)
        ;
    return argument;
}

static void *cancelled_at_test(void *argument)
{
    int old;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
    counter = 1;
    while (counter < 2)
        sleep_ms(1);
    printf("not while disabled\n");
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
    pthread_testcancel();
    printf("not reached\n");
    return argument;
}

static void unlock(void *argument)
{
    pthread_mutex_unlock(argument);
}

static void *cancelled_in_wait(void *argument)
{
    static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    pthread_mutex_lock(&mutex);
    pthread_cleanup_push(unlock, &mutex);
    for (;;)
        pthread_cond_wait(&never, &mutex);
    pthread_cleanup_pop(0);
    return argument;
}

static void cancel_one(void *(*body)(void *), void *argument)
{
    pthread_t t;
    void *result = NULL;
    pthread_create(&t, NULL, body, argument);
    sleep_ms(10);
    pthread_cancel(t);
    pthread_join(t, &result);
    printf("cancelled %d\n", result == PTHREAD_CANCELED);
}

SUBCASE(cancel_in_read)
{
    int p[2];
    MUST(pipe(p) == 0);
    cancel_one(cancelled_in_read, &p[0]);
}

SUBCASE(cancel_in_sleep)
{
    cancel_one(cancelled_in_sleep, NULL);
}

SUBCASE(cancel_asynchronous)
{
    for (int i = 0; i < 10; i++)
        cancel_one(cancelled_anywhere, NULL);
}

SUBCASE(cancel_disabled)
{
    pthread_t t;
    void *result = NULL;
    pthread_create(&t, NULL, cancelled_at_test, NULL);
    while (counter < 1)
        sleep_ms(1);
    pthread_cancel(t);
    counter = 2;
    pthread_join(t, &result);
    printf("cancelled %d\n", result == PTHREAD_CANCELED);
}

SUBCASE(cancel_in_condition)
{
    cancel_one(cancelled_in_wait, NULL);
    SHOW(pthread_mutex_trylock(&mutex));
}

static pthread_key_t key;
static void destroy(void *value)
{
    printf("destructor %ld\n", (long)value);
    if ((long)value > 1)
        pthread_setspecific(key, (void *)((long)value - 1));
}

static void *with_value(void *argument)
{
    pthread_setspecific(key, argument);
    return NULL;
}

SUBCASE(thread_specific_destructors)
{
    pthread_t t;
    pthread_key_create(&key, destroy);
    pthread_create(&t, NULL, with_value, (void *)3L);
    pthread_join(t, NULL);
}

static __thread int own = 5;
static __thread char zeroed[5000];
static void *own_values(void *argument)
{
    int ok = own == 5 && zeroed[4999] == 0;
    own = (int)(long)argument;
    memset(zeroed, own, sizeof zeroed);
    for (int i = 0; i < 200; i++)
        sched_yield();
    return (void *)(long)(ok && own == (int)(long)argument && zeroed[123] == (char)own);
}

SUBCASE(thread_local_values)
{
    pthread_t t[16];
    long good = 0;
    for (long i = 0; i < 16; i++)
        pthread_create(&t[i], NULL, own_values, (void *)(i + 100));
    for (int i = 0; i < 16; i++) {
        void *result;
        pthread_join(t[i], &result);
        good += (long)result;
    }
    printf("good %ld, ours %d\n", good, own);
}

/* ---- futexes ---- */

static void *take_and_die(void *argument)
{
    pthread_mutex_lock(argument);
    return NULL;
}

static void robust(int process_shared, int inherit)
{
    pthread_mutexattr_t a;
    pthread_t t;
    pthread_mutex_t *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    if (inherit)
        pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
    MUST(pthread_mutex_init(m, &a) == 0);
    if (process_shared) {
        pid_t pid = fork();
        if (pid == 0) {
            pthread_mutex_lock(m);
            raise(SIGKILL);
        }
        waitpid(pid, &status, 0);
    } else {
        pthread_create(&t, NULL, take_and_die, m);
        pthread_join(t, NULL);
    }
    SHOW(pthread_mutex_lock(m) == EOWNERDEAD);
    SHOW(pthread_mutex_consistent(m));
    SHOW(pthread_mutex_unlock(m));
    SHOW(pthread_mutex_lock(m));
}

SUBCASE(robust_mutex_of_thread)
{
    robust(0, 0);
}

SUBCASE(robust_mutex_of_process)
{
    robust(1, 0);
}

SUBCASE(robust_inheriting_mutex)
{
    robust(0, 1);
    robust(1, 1);
}

SUBCASE(robust_list_of_new_program)
{
    void *head = NULL;
    size_t bytes = 0;
    SHOW(syscall(SYS_get_robust_list, 0, &head, &bytes));
    printf("there %d, bytes %zu\n", head != NULL, bytes);
}

static pthread_mutex_t pi_mutex;
static void *pi_body(void *argument)
{
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&pi_mutex);
        handled++;
        pthread_mutex_unlock(&pi_mutex);
    }
    return argument;
}

SUBCASE(inheriting_mutex)
{
    pthread_mutexattr_t a;
    pthread_t t[4];
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&pi_mutex, &a);
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, pi_body, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    printf("count %d\n", handled);
}

static volatile pid_t tid_word = 1;
static void *own_tid_address(void *argument)
{
    syscall(SYS_set_tid_address, &tid_word);
    syscall(SYS_exit, 0);
    return argument;
}

SUBCASE(set_tid_address)
{
    start(own_tid_address, 1);
    while (tid_word)
        syscall(SYS_futex, &tid_word, FUTEX_WAIT, 1, NULL, NULL, 0);
    printf("cleared %d\n", tid_word == 0);
    SHOW(syscall(SYS_set_tid_address, &tid_word) == syscall(SYS_gettid));
}

static void *condition_body(void *argument)
{
    static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
    for (int i = 0; i < 300; i++) {
        pthread_mutex_lock(&mutex);
        while (handled % 3 != (int)(long)argument)
            pthread_cond_wait(&turn, &mutex);
        handled++;
        pthread_cond_broadcast(&turn);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

SUBCASE(condition_turns)
{
    pthread_t t[3];
    for (long i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, condition_body, (void *)i);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    printf("turns %d\n", handled);
}

/* ---- directed signals ---- */

static atomic_int on_thread;
static void which(int sig)
{
    (void)sig;
    on_thread = (int)syscall(SYS_gettid);
}

static void *tell_tid(void *argument)
{
    atomic_store((atomic_int *)argument, (int)syscall(SYS_gettid));
    for (;;)
        pause();
    return NULL;
}

SUBCASE(signal_to_one_thread)
{
    pthread_t t[5];
    static atomic_int tids[5];
    signal(SIGUSR1, which);
    for (int i = 0; i < 5; i++) {
        pthread_create(&t[i], NULL, tell_tid, &tids[i]);
        while (!tids[i])
            sched_yield();
    }
    for (int i = 0; i < 5; i++) {
        on_thread = 0;
        pthread_kill(t[i], SIGUSR1);
        while (!on_thread)
            sched_yield();
        printf("right thread %d\n", on_thread == tids[i]);
    }
}

SUBCASE(signal_to_the_process_goes_where_it_may)
{
    static atomic_int tid;
    pthread_t t;
    sigset_t set;
    signal(SIGUSR1, which);
    pthread_create(&t, NULL, tell_tid, &tid);
    while (!tid)
        sched_yield();
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    kill(getpid(), SIGUSR1);
    while (!on_thread)
        sched_yield();
    printf("the other thread %d\n", on_thread == tid);
}

SUBCASE(fault_on_its_own_thread)
{
    signal(SIGSEGV, SIG_DFL);
    start(sleeper, 2);
    raise(SIGSEGV);
}

SUBCASE(scheduling)
{
    cpu_set_t set;
    struct sched_param p = {0};
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    SHOW(sched_setaffinity(0, sizeof set, &set));
    SHOW(sched_getcpu());
    SHOW(sched_getscheduler(0));
    SHOW(sched_setscheduler(0, SCHED_BATCH, &p));
    SHOW(sched_getscheduler(0));
    SHOW(setpriority(PRIO_PROCESS, 0, 5));
    SHOW(getpriority(PRIO_PROCESS, 0));
}
