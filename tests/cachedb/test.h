/* SPDX-License-Identifier: Apache-2.0
 *
 * What the store's tests share: checks that name themselves, a scratch directory, random bytes that are the same in every run.
 */
#ifndef BDBI_TESTS_CACHEDB_TEST_H
#define BDBI_TESTS_CACHEDB_TEST_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(condition)                                                                                                       \
    do {                                                                                                                       \
        if (!(condition)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__, #condition);                              \
            exit(1);                                                                                                           \
        }                                                                                                                      \
    } while (0)

#define SKIPPED 77

static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline void test_run(const char *format, const char *arg)
{
    char command[1000];
    snprintf(command, sizeof command, format, arg);
    CHECK(system(command) == 0);
}

/* A new empty directory below PARENT (NULL: $TMPDIR or /tmp). */
static inline char *test_directory(const char *parent)
{
    static char path[4][300];
    static unsigned n;
    char *p = path[n++ % 4];
    if (!parent) {
        parent = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    }
    snprintf(p, sizeof path[0], "%s/bdbi-test-XXXXXX", parent);
    CHECK(mkdtemp(p) != NULL);
    return p;
}

static inline void test_remove(const char *directory)
{
    test_run("rm -rf '%s'", directory);
}

static inline void *test_map(const char *path, size_t *bytes)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    close(fd);
    *bytes = (size_t)st.st_size;
    return map;
}

#endif
