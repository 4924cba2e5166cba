/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits on memory. Not run with a tool: its counters need address space (docs/limits.md).
 */
#include "subcases.h"
#include <sys/resource.h>

static int status;

static void limited(int resource, rlim_t value)
{
    struct rlimit limit = {value, value};
    SHOW(setrlimit((__rlimit_resource_t)resource, &limit));
    char *argv[] = {"sh", "-c", "echo in the limit; exit 3", NULL};
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execv("/bin/sh", argv);
        _exit(100);
    }
    waitpid(pid, &status, 0);
    print_status("limited", status);
}

SUBCASE(limit_address_space)
{
    limited(RLIMIT_AS, 512ul << 20);
    SHOW(mmap(NULL, 1ul << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}

SUBCASE(limit_data)
{
    limited(RLIMIT_DATA, 64ul << 20);
}

SUBCASE(limit_address_space_of_threads)
{
    struct rlimit limit = {300ul << 20, 300ul << 20};
    setrlimit(RLIMIT_AS, &limit);
    void *p = malloc(100 << 20);
    printf("first %d\n", p != NULL);
    void *q = malloc(400 << 20);
    printf("second %d, error %d\n", q != NULL, errno);
    free(p);
    free(q);
}
