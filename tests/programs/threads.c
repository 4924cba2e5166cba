/* SPDX-License-Identifier: Apache-2.0
 *
 * Eight threads on a mutex and condition variables: a bounded queue, a barrier, thread-local data, a rwlock, cancellation.
 */
#include "check.h"
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

enum { THREADS = 8, ITEMS = 4000, SLOTS = 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER, not_full = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static int queue[SLOTS], head, count, finished;
static long consumed, items;
static __thread long mine;
static _Atomic long atomic_sum;
static long guarded;

static void put(int item)
{
    pthread_mutex_lock(&lock);
    while (count == SLOTS)
        pthread_cond_wait(&not_full, &lock);
    queue[(head + count++) % SLOTS] = item;
    pthread_cond_signal(&not_empty);
    pthread_mutex_unlock(&lock);
}

static int get(int *item)
{
    pthread_mutex_lock(&lock);
    while (count == 0 && !finished)
        pthread_cond_wait(&not_empty, &lock);
    int got = count > 0;
    if (got) {
        *item = queue[head];
        head = (head + 1) % SLOTS;
        count--;
        pthread_cond_signal(&not_full);
    }
    pthread_mutex_unlock(&lock);
    return got;
}

static void *consumer(void *arg)
{
    int item;
    while (get(&item)) {
        mine += item;
        pthread_mutex_lock(&lock);
        items++;
        pthread_mutex_unlock(&lock);
    }
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 1000; i++) {
        atomic_sum++;
        if (i % 10 == 0) {
            pthread_rwlock_wrlock(&rwlock);
            guarded++;
            pthread_rwlock_unlock(&rwlock);
        } else {
            pthread_rwlock_rdlock(&rwlock);
            CHECK(guarded >= 0);
            pthread_rwlock_unlock(&rwlock);
        }
    }
    pthread_mutex_lock(&lock);
    consumed += mine;
    pthread_mutex_unlock(&lock);
    return (void *)((uintptr_t)arg * 3);
}

static void cleanup(void *arg)
{
    *(int *)arg = 1;
}

static void *cancelled(void *arg)
{
    pthread_cleanup_push(cleanup, arg);
    for (;;)
        pause();
    pthread_cleanup_pop(0);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, consumer, (void *)i) == 0);
    for (int i = 1; i <= ITEMS; i++)
        put(i);
    pthread_mutex_lock(&lock);
    finished = 1;
    pthread_cond_broadcast(&not_empty);
    pthread_mutex_unlock(&lock);
    uintptr_t results = 0;
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        results += (uintptr_t)result;
    }
    printf("%ld items, sum %ld, results %ld, atomic %ld, guarded %ld\n", items, consumed, (long)results, atomic_sum, guarded);

    int cleaned = 0;
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, cancelled, &cleaned);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    CHECK(result == PTHREAD_CANCELED);
    /* Cancellation may come before the handler is pushed. */
    CHECK(cleaned == 0 || cleaned == 1);
    return check_end("threads");
}
