/* SPDX-License-Identifier: Apache-2.0
 *
 * For counting instructions, with a static glibc: start-up, stdio, malloc, sorting and exit. (With threads, and glibc's own
 * waiting in between, the number depends on scheduling: count_bare.c has the threads.)
 */
#include <stdio.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

int main(int argc, char **argv)
{
    /* Not on the stack: its alignment would be part of the instruction count. */
    static char line[64];
    static int numbers[64];
    for (int i = 0; i < 64; i++)
        numbers[i] = (i * 37) % 64;
    qsort(numbers, 64, sizeof *numbers, compare);
    free(malloc(1000));
    setvbuf(stdout, line, _IOLBF, sizeof line);
    printf("%d arguments, %d %d\n", argc - 1, numbers[0], numbers[63]);
    return argv[argc] != NULL;
}
