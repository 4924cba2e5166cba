/* SPDX-License-Identifier: Apache-2.0
 *
 * Executes what compilers make of switches, label tables, cold parts, noreturn calls and callbacks; run under the tracer.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int sink;
static jmp_buf escape;

__attribute__((noinline)) static int by_switch(int n, int x)
{
    switch (n) {
    case 0:
        return x + 1;
    case 1:
        return x * 3;
    case 2:
        sink = x;
        return 7;
    case 3:
        return x ^ sink;
    case 4:
        return x / 3;
    case 5:
        sink += 2;
        return sink;
    case 6:
        return x % 7;
    case 9:
        return -x;
    default:
        return 0;
    }
}

/* Two tables in one function, and a hot loop around. */
__attribute__((noinline)) static int nested_switch(const unsigned char *text, int n)
{
    int state = 0, total = 0;
    for (int i = 0; i < n; i++) {
        switch (text[i] - 'a') {
        case 0:
            state = 1;
            total += sink;
            break;
        case 1:
            state = 2;
            total ^= i;
            break;
        case 2:
            state = 3;
            total *= 3;
            break;
        case 3:
            state = 4;
            total -= sink * 2;
            break;
        case 4:
            state = 5;
            total |= 64;
            break;
        case 5:
            state = 6;
            total += i * i;
            break;
        }
        switch (state) {
        case 1:
            sink++;
            break;
        case 2:
            sink += total;
            break;
        case 3:
            sink ^= total;
            break;
        case 4:
            sink -= 3;
            break;
        case 5:
            sink *= 2;
            break;
        case 6:
            sink |= 1;
            break;
        }
    }
    return total;
}

__attribute__((noinline)) static int by_label(const uint8_t *code)
{
    static const void *const labels[] = {&&op_add, &&op_double, &&op_negate, &&op_end};
    int value = 1;
    goto *labels[*code];
op_add:
    value += sink;
    goto *labels[*++code];
op_double:
    value *= 2;
    goto *labels[*++code];
op_negate:
    value = -value;
    goto *labels[*++code];
op_end:
    return value;
}

#ifndef __clang__
__attribute__((noinline)) static int by_distance(const uint8_t *code)
{
    static const int distances[] = {&&op_add - &&op_add, &&op_double - &&op_add, &&op_negate - &&op_add, &&op_end - &&op_add};
    int value = 1;
    goto *(&&op_add + distances[*code]);
op_add:
    value += sink;
    goto *(&&op_add + distances[*++code]);
op_double:
    value *= 2;
    goto *(&&op_add + distances[*++code]);
op_negate:
    value = -value;
    goto *(&&op_add + distances[*++code]);
op_end:
    return value;
}
#endif

__attribute__((noinline, noreturn)) static void leave(int value)
{
    longjmp(escape, value);
}

__attribute__((noinline, cold)) static int complain(int n)
{
    return fprintf(stderr, "%s", n == 12345 ? "bad\n" : "");
}

__attribute__((noinline)) static int rarely(int n)
{
    if (__builtin_expect(n > 40, 0)) {
        complain(n);
        if (n > 90)
            leave(n);
        sink = n;
    }
    return n;
}

static void on_signal(int number)
{
    sink += number;
}

static int descending(const void *a, const void *b)
{
    return *(const int *)b - *(const int *)a;
}

int main(void)
{
    static const uint8_t code[] = {0, 1, 2, 0, 1, 3};
    int numbers[] = {3, 1, 4, 1, 5, 9, 2, 6};
    for (int i = -1; i < 12; i++)
        sink += by_switch(i, i * 5);
    sink += nested_switch((const unsigned char *)"abcdefabcdefz", 13);
    sink += by_label(code);
#ifndef __clang__
    sink += by_distance(code);
#endif
    if (!setjmp(escape))
        for (int i = 0; i < 100; i += 10)
            sink += rarely(i);
    if (!setjmp(escape))
        rarely(91);
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    qsort(numbers, 8, sizeof *numbers, descending);
    char text[200];
    snprintf(text, sizeof text, "%5d %-8s %x %lld %c %.3f %e %p %%", sink, "word", 77, 1ll << 40, 'c', 1.25, 2e10,
             (void *)text);
    sink += (int)strlen(text) + atoi(text) + (int)strtol("0x77", NULL, 0);
    for (size_t n = 0; n < 100; n += 7) {
        memcpy(text + 100, text, n);
        memmove(text + 3, text, n);
        memset(text, 0, n);
    }
    puts(text + 110);
    return 0;
}
