/* SPDX-License-Identifier: Apache-2.0
 *
 * Fixed mappings of terabytes where the sanitizers have their shadow memory, while threads run, and threads after that.
 */
#include "check.h"
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static pthread_barrier_t barrier;

static void *wait_twice(void *argument)
{
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return argument;
}

static void map(uint64_t start, uint64_t end)
{
    volatile char *p = mmap((void *)start, end - start, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    CHECK(p == (volatile char *)start);
    if (p != MAP_FAILED)
        p[0] = p[end - start - 1] = 1;
    printf("%#lx..%#lx\n", start, end);
}

int main(void)
{
    pthread_t threads[8];
    pthread_barrier_init(&barrier, NULL, 5);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, wait_twice, NULL) == 0);
    pthread_barrier_wait(&barrier);
    map(0x010000000000, 0x100000000000);
    map(0x100000000000, 0x110000000000);
    map(0x110000000000, 0x400000000000);
    map(0x500000000000, 0x510000000000);
    map(0x600000000000, 0x700000000000);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    pthread_barrier_destroy(&barrier);
    pthread_barrier_init(&barrier, NULL, 9);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&threads[i], NULL, wait_twice, NULL) == 0);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return check_end("shadow");
}
