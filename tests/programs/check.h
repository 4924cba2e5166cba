/* SPDX-License-Identifier: Apache-2.0
 *
 * For the guest programs: say what is wrong on stdout and go on, so that two runs can be compared line by line.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

static int check_failures;

#define CHECK(condition)                                                                                                       \
    do {                                                                                                                       \
        if (!(condition)) {                                                                                                    \
            printf("FAILED %s:%d %s\n", __FILE_NAME__, __LINE__, #condition);                                                  \
            check_failures++;                                                                                                  \
        }                                                                                                                      \
    } while (0)

static inline int check_end(const char *name)
{
    printf("%s: %s\n", name, check_failures ? "FAILED" : "ok");
    fflush(stdout);
    return check_failures ? 1 : 0;
}

#endif
