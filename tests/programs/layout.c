/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that is linked in odd ways (CMakeLists.txt): what it finds in its sections, and a fault where its text must not be
 * written.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char zeroed[3 << 20];
static int filled[1000] = {1, 2, 3, [999] = 4};
static const int constant[] = {5, 6, 7};
int exported = 8;

#ifdef TEXT_RELOCATION
/* An absolute address in the text of a program that may be anywhere. */
static int *address_in_text(void)
{
    int *p;
    __asm__("movabs $exported, %0" : "=r"(p));
    return p;
}
#else
static int *address_in_text(void)
{
    return &exported;
}
#endif

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static sigjmp_buf back;
static void leap(int sig)
{
    printf("signal %d\n", sig);
    siglongjmp(back, 1);
}

int main(int argc, char **argv)
{
    long sum = 0;
    for (size_t i = 0; i < sizeof zeroed; i++)
        sum += zeroed[i];
    memset(zeroed, 1, sizeof zeroed);
    qsort(filled, 1000, sizeof *filled, compare);
    printf("zeroes %ld, filled %d %d, constant %d, exported %d, arguments %d %s\n", sum, filled[999], filled[995],
           constant[argc], *address_in_text(), argc, argv[1] ? argv[1] : "");
    signal(SIGSEGV, leap);
    if (sigsetjmp(back, 1) == 0) {
        volatile char *text = (volatile char *)(void *)main;
        *text = *text;
        printf("its text can be written\n");
    }
    printf("%d\n", abs(compare(&filled[0], &filled[999])));
    char *p = malloc(5 << 20);
    memset(p, 2, 5 << 20);
    free(p);
    return 0;
}
