/* SPDX-License-Identifier: Apache-2.0
 *
 * Something for each sanitizer to find: sanitized fine|free|over|undefined|race.
 */
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int shared;
static atomic_int turn;

/* One write, then the other, in an order that the sanitizer knows nothing of. */
static void *add(void *argument)
{
    int mine = argument != NULL;
    while (atomic_load_explicit(&turn, memory_order_relaxed) != mine)
        sched_yield();
    shared += 1;
    atomic_store_explicit(&turn, mine + 1, memory_order_relaxed);
    return argument;
}

static void race(void)
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, add, i ? &shared : NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void fine(void)
{
    size_t sum = 0;
    for (int round = 0; round < 500; round++) {
        char *pieces[50];
        for (int i = 0; i < 50; i++) {
            pieces[i] = malloc((size_t)i * 37 + 2);
            memset(pieces[i], 'a' + i % 26, (size_t)i * 37 + 1);
            pieces[i][i * 37 + 1] = 0;
        }
        for (int i = 0; i < 50; i++) {
            sum += strlen(pieces[i]);
            free(pieces[i]);
        }
    }
    printf("%zu\n", sum);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "fine";
    int *volatile p = malloc(40);
    memset(p, 1, 40);
    if (!strcmp(what, "free")) {
        free(p);
        return p[2];
    }
    if (!strcmp(what, "over"))
        p[10] = 1;
    else if (!strcmp(what, "undefined"))
        printf("%d\n", INT_MAX + argc);
    else if (!strcmp(what, "race"))
        race();
    else
        fine();
    free(p);
    return 0;
}
