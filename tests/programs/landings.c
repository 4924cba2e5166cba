/* SPDX-License-Identifier: Apache-2.0
 *
 * Indirect branches whose targets are 8192 bytes apart share a slot of the target cache: each arrives where another's landing
 * is in the way. Registers, flags, red zone and path must be right all the same. With an argument: so many rounds of an
 * indirect call, a call and two returns, for whoever counts lookups.
 */
#include "check.h"
#include <stdint.h>
#include <stdlib.h>

#define FLAGS 0x8d5u /* OF SF ZF AF PF CF */

/* outer(flags, jump): calls inner, whose return point is 8192 bytes behind; then sets the flags and returns. Both return points
 * see the flags; the jump, to targets that share a slot as well, comes in between. Result: flags at the first return point |
 * what rax, rcx, rdx and the red zone lost << 32. */
uint64_t outer(uint64_t flags, uint64_t jump);

/* clang-format off */
__asm__(".text\n .balign 8192\n"
        "middle: call leaf\n"
        "pushfq; pop %r9; ret\n"
        ".balign 8192\n"
        "site: call set_flags\n" /* its return point: 8192 bytes after middle's */
        "mov %rax, %r10; pushfq; pop %rax; jmp site_done\n"
        "leaf: ret\n"
        "set_flags: push %rdi; call middle\n"
        "lea target_a(%rip), %r11; lea target_b(%rip), %r9; test %rsi, %rsi; cmovne %r9, %r11\n"
        "mov $0x1111, %eax; mov $0x2222, %ecx; mov $0x3333, %edx; popfq; jmp *%r11\n"
        ".balign 8192\n"
        "target_a: movq $0x77, -40(%rsp); lea 1(%rdx), %rdx; ret\n"
        ".balign 8192\n"
        "target_b: movq $0x77, -40(%rsp); lea 2(%rdx), %rdx; ret\n"
        ".globl outer\n"
        "outer: push %rbx; mov %rsi, %rbx; sub $64, %rsp; jmp site\n"
        "site_done: movslq %ecx, %rcx; xor $0x2222, %rcx; xor $0x1111, %r10; or %r10, %rcx\n"
        "test %rbx, %rbx; setne %bl; movzbl %bl, %ebx; sub $0x3334, %rdx; sub %rbx, %rdx; or %rdx, %rcx\n"
        "xorq $0x77, -48(%rsp); orq -48(%rsp), %rcx; shl $32, %rcx; or %rcx, %rax\n"
        "add $64, %rsp; pop %rbx; ret\n"
        /* a function behind a call that never returns and its padding */
        ".globl add_three\n"
        "gives_up: ud2; call gives_up\n"
        ".balign 64\n"
        "add_three: lea 3(%rdi), %rax; ret\n");
/* clang-format on */

static uint64_t flags_of(unsigned bits)
{
    return 0x202 | (bits & 1) | (bits & 2) << 1 | (bits & 4) << 2 | (bits & 8) << 3 | (bits & 16) << 3 | (bits & 32) << 6;
}

static void test_conflicts(void)
{
    for (unsigned round = 0; round < 20000; round++) {
        uint64_t flags = flags_of(round), got = outer(flags, round >> 6 & 1);
        CHECK((got & FLAGS) == (flags & FLAGS));
        CHECK(got >> 32 == 0);
    }
}

static __attribute__((noinline)) long add_one(long x)
{
    return x + 1;
}
static __attribute__((noinline)) long add_two(long x)
{
    return x + 2;
}

long add_three(long x);

static void count(long rounds)
{
    long (*volatile functions[3])(long) = {add_one, add_two, add_three};
    long sum = 0;
    for (long i = 0; i < rounds; i++)
        sum = add_one(functions[i % 3](sum));
    printf("%ld\n", sum);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        count(atol(argv[1]));
    else
        test_conflicts();
    return check_end("landings");
}
