/* SPDX-License-Identifier: Apache-2.0
 *
 * The library of code_replaced: calls, indirect calls and returns, whose code is mostly in the middle of an instruction of the
 * program's.
 */
unsigned replaced_work(unsigned n);

static __attribute__((noinline)) unsigned one(unsigned x)
{
    __asm__ volatile("");
    return x + 1;
}

static __attribute__((noinline)) unsigned two(unsigned x)
{
    __asm__ volatile("");
    return one(x) + 1;
}

static unsigned (*const volatile table[])(unsigned) = {one, two, two};

unsigned replaced_work(unsigned n)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < 3; k++)
            sum = table[k](sum);
    return sum;
}
