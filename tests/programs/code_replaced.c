/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads run in a library while another maps the library's text over itself, from its file: natively they do not notice. A
 * translation made before must not be used again, and a thread that is in it, at any instruction, goes on.
 */
#include "check.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ROUNDS 60
#define THREADS 3

typedef unsigned (*work_function)(unsigned);

static work_function work;
static atomic_uint turns, wrong;
static atomic_int stop;

static void *run(void *argument)
{
    while (!atomic_load(&stop)) {
        atomic_fetch_add(&wrong, work(200) != 1000);
        atomic_fetch_add(&turns, 1);
    }
    return argument;
}

/* Waits until the threads have gone on by N turns. */
static void let_run(unsigned n)
{
    unsigned before = atomic_load(&turns);
    while (atomic_load(&turns) - before < n)
        sched_yield();
}

/* Where PATH's text is mapped, by the program's maps. */
static int find_text(const char *path, char **start, size_t *bytes, off_t *offset)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    int found = 0;
    while (!found && fgets(line, sizeof line, f)) {
        unsigned long low, high, at;
        char prot[5];
        if (strstr(line, path) && sscanf(line, "%lx-%lx %4s %lx", &low, &high, prot, &at) == 4 && prot[2] == 'x') {
            *start = (char *)low;
            *bytes = high - low;
            *offset = (off_t)at;
            found = 1;
        }
    }
    fclose(f);
    return found;
}

static void round_of(const char *path)
{
    pthread_t threads[THREADS];
    char *start = NULL;
    size_t bytes = 0;
    off_t offset = 0;
    void *library = dlopen(path, RTLD_NOW);
    CHECK(library && (work = (work_function)dlsym(library, "replaced_work")) && find_text(path, &start, &bytes, &offset));
    atomic_store(&stop, 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, run, NULL) == 0);
    let_run(5);
    int fd = open(path, O_RDONLY);
    for (int i = 0; i < 3; i++) {
        CHECK(mmap(start, bytes, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, offset) == start);
        let_run(3);
    }
    close(fd);
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(dlclose(library) == 0);
}

int main(int argc, char **argv)
{
    char path[4096];
    (void)argc;
    strcpy(path, argv[0]);
    strcpy(strrchr(path, '/') + 1, "replaced_lib.so");
    for (int i = 0; i < ROUNDS && !check_failures; i++)
        round_of(path);
    printf("wrong %u\n", atomic_load(&wrong));
    return check_end("code_replaced");
}
