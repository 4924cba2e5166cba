/* SPDX-License-Identifier: Apache-2.0
 *
 * The few helpers that these tests share: a failed check prints where and what, and ends the test.
 */
#ifndef BDBI_TESTS_ANALYZER_CHECK_H
#define BDBI_TESTS_ANALYZER_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition, ...)                                                                                                  \
    do {                                                                                                                       \
        if (!(condition)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                                    \
            fprintf(stderr, __VA_ARGS__);                                                                                      \
            fputc('\n', stderr);                                                                                               \
            exit(1);                                                                                                           \
        }                                                                                                                      \
    } while (0)

/* A whole file (malloc'd). */
static inline uint8_t *read_whole(const char *path, size_t *nbytes)
{
    FILE *f = fopen(path, "rb");
    CHECK(f, "%s", path);
    fseek(f, 0, SEEK_END);
    *nbytes = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(*nbytes + 1);
    CHECK(bytes && fread(bytes, 1, *nbytes, f) == *nbytes, "%s", path);
    fclose(f);
    return bytes;
}

/* The same sequence in every run. */
static inline uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*state >> 33);
}

#endif
