/* SPDX-License-Identifier: Apache-2.0
 *
 * A library of which there are several (VALUE), for sub_reload.c.
 */
#define QUOTED(x) #x
#define TEXT(x) QUOTED(x)

static int calls;
static __thread int calls_of_thread;

int value(int (*callback)(int))
{
    calls++;
    return callback(VALUE) * 100 + calls * 10 + ++calls_of_thread;
}

/* Elsewhere in each. */
__attribute__((aligned(64 * VALUE))) int other(int n)
{
    return n <= 1 ? VALUE : other(n - 1) + VALUE;
}

/* int leaf(int n): alone in its page. */
__asm__(".text\n"
        ".balign 4096\n"
        ".globl leaf\n"
        ".type leaf, @function\n"
        "leaf: imul $" TEXT(VALUE) ", %edi, %eax\n\t"
                                   "add $7, %eax\n\t"
                                   "ret\n\t"
                                   ".size leaf, . - leaf\n"
                                   ".balign 4096, 0xcc\n");
