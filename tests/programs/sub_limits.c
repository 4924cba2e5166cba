/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits on memory. Not run with a tool: its counters need address space (docs/limits.md).
 */
#include "limited.h"

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
