/* SPDX-License-Identifier: Apache-2.0
 *
 * A static program, linked as ET_EXEC and as static-PIE: arguments, stdio, malloc, TLS, IFUNCs (string functions), qsort,
 * floating point, constructors and atexit.
 */
#include "check.h"
#include <math.h>
#include <string.h>
#include <wchar.h>

static __thread int tls_value = 41;
static __thread char tls_zero[64];

__attribute__((constructor)) static void before(void)
{
    puts("constructor");
}

__attribute__((destructor)) static void after(void)
{
    puts("destructor");
}

static void at_exit(void)
{
    printf("atexit, tls %d\n", tls_value);
}

static int compare(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    const char *base = strrchr(argv[0], '/');
    printf("%s", base ? base + 1 : argv[0]);
    for (int i = 1; i < argc; i++)
        printf(" [%s]", argv[i]);
    printf(" %s\n", argv[argc] == NULL ? "end" : "no end");
    atexit(at_exit);

    int numbers[500];
    for (int i = 0; i < 500; i++)
        numbers[i] = (i * 7919) % 1009;
    qsort(numbers, 500, sizeof *numbers, compare);
    for (int i = 1; i < 500; i++)
        CHECK(numbers[i - 1] <= numbers[i]);

    char *blocks[300];
    for (size_t i = 0; i < 300; i++) {
        blocks[i] = malloc(i * i + 1);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], (int)i, i * i + 1);
    }
    for (size_t i = 0; i < 300; i++) {
        CHECK((unsigned char)blocks[i][i * i] == (unsigned char)i);
        CHECK(i == 0 || memchr(blocks[i], (int)((i + 1) & 255), i * i) == NULL);
        free(blocks[i]);
    }
    CHECK(tls_zero[0] == 0 && tls_zero[63] == 0);
    tls_value++;
    printf("%.6f %.3e %a %Lf\n", sqrt(2.0), exp(20.0), 0.1, 1.5L);
    printf("%zu %d %s\n", strlen("twelve chars"), strcmp("abc", "abd"), strstr("needle in hay", "in"));
    printf("%ls %lld\n", L"wide", 123456789012345LL);
    return check_end("static") + 3;
}
