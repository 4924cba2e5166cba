/* SPDX-License-Identifier: Apache-2.0
 *
 * Every kind of branch, and what must not change across them: flags, red zone, stack bytes, registers.
 */
#include "check.h"
#include <stdint.h>

#define FLAGS 0x8d5u /* OF SF ZF AF PF CF */

/* loop family: rounds counted in rax */
static uint64_t loops(int which, uint64_t n, uint64_t stop)
{
    uint64_t rounds = 0;
    switch (which) {
    case 0:
        __asm__ volatile("1: inc %0\n loop 1b" : "+r"(rounds), "+c"(n)::"cc");
        break;
    case 1:
        __asm__ volatile("1: inc %0\n cmp %2, %0\n loopne 1b" : "+r"(rounds), "+c"(n) : "r"(stop) : "cc");
        break;
    case 2:
        __asm__ volatile("1: inc %0\n cmp %0, %0\n loope 1b" : "+r"(rounds), "+c"(n)::"cc");
        break;
    case 3:
        __asm__ volatile("1: jrcxz 2f\n inc %0\n dec %1\n jmp 1b\n 2:" : "+r"(rounds), "+c"(n)::"cc");
        break;
    case 4: /* jecxz, with bits above that must be ignored */
        n |= 0x100000000ull;
        __asm__ volatile("1: jecxz 2f\n inc %0\n dec %%ecx\n jmp 1b\n 2:" : "+r"(rounds), "+c"(n)::"cc");
        break;
    case 5: /* addr32 loop: counts ecx */
        n |= 0x300000000ull;
        __asm__ volatile("1: inc %0\n addr32 loop 1b" : "+r"(rounds), "+c"(n)::"cc");
        rounds += n << 32;
        break;
    }
    return rounds;
}

/* Runs one transfer between `popfq` and `pushfq`; all flags must come through, rax..r15 too. */
#define FLAGS_ACROSS(before, transfer, after)                                                                                  \
    ({                                                                                                                         \
        uint64_t flags_out, flags_in = flags;                                                                                  \
        __asm__ volatile("sub $256, %%rsp\n" before "push %1\n popfq\n" transfer "pushfq\n pop %0\n" after "add $256, %%rsp\n" \
                         : "=&r"(flags_out)                                                                                    \
                         : "r"(flags_in)                                                                                       \
                         : "rcx", "rdx", "r10", "r11", "cc", "memory");                                                        \
        flags_out &FLAGS;                                                                                                      \
    })

static void test_flags(void)
{
    for (uint64_t bits = 0; bits < 64; bits++) {
        uint64_t flags = 0x202 | (bits & 1) | ((bits & 2) << 1) | ((bits & 4) << 2) | ((bits & 8) << 3) | ((bits & 16) << 3) |
                         ((bits & 32) << 6);
        uint64_t want = flags & FLAGS;
        CHECK(FLAGS_ACROSS("", "jmp 1f\n nop\n 1:", "") == want);
        CHECK(FLAGS_ACROSS("", "call 1f\n jmp 2f\n 1: ret\n 2:", "") == want);
        CHECK(FLAGS_ACROSS("lea 1f(%%rip), %%rcx\n", "jmp *%%rcx\n ud2\n 1:", "") == want);
        CHECK(FLAGS_ACROSS("lea 1f(%%rip), %%rcx\n", "call *%%rcx\n jmp 2f\n 1: ret\n 2:", "") == want);
        CHECK(FLAGS_ACROSS("lea 1f(%%rip), %%rcx\n mov %%rcx, 64(%%rsp)\n", "jmp *64(%%rsp)\n ud2\n 1:", "") == want);
        CHECK(FLAGS_ACROSS("lea 1f(%%rip), %%rcx\n mov %%rcx, 64(%%rsp)\n lea 64(%%rsp), %%rcx\n",
                           "call *(%%rcx)\n jmp 2f\n 1: ret $0\n 2:", "") == want);
        CHECK(FLAGS_ACROSS("mov $1, %%ecx\n", "loop 1f\n jmp 2f\n 1: stc\n 2:", "") == want);
        CHECK(FLAGS_ACROSS("xor %%ecx, %%ecx\n", "jrcxz 1f\n ud2\n 1:", "") == want);
        CHECK(FLAGS_ACROSS("", "push %%rax\n mov $39, %%eax\n syscall\n pop %%rax\n", "") == want);
    }
}

extern char ret_here[];

static void test_stack(void)
{
    uint64_t value, before, after;
    /* call through memory relative to rsp: read before the push */
    __asm__ volatile("lea 1f(%%rip), %%rax\n push %%rax\n push $0\n push $0\n mov %%rsp, %1\n"
                     "call *16(%%rsp)\n mov %%rsp, %2\n jmp 2f\n"
                     "1: mov (%%rsp), %0\n ret\n 2: add $24, %%rsp\n"
                     : "=&r"(value), "=&r"(before), "=&r"(after)::"rax", "cc", "memory");
    CHECK(before == after && value != 0);
    /* ret imm16 drops arguments */
    __asm__ volatile("mov %%rsp, %0\n push $1\n push $2\n push $3\n call 1f\n jmp 2f\n 1: ret $24\n 2: mov %%rsp, %1\n"
                     : "=&r"(before), "=&r"(after)::"cc", "memory");
    CHECK(before == after);
    /* ret to a pushed address, with a repz prefix, and call/pop to read the pc */
    __asm__ volatile("lea 1f(%%rip), %%rax\n push %%rax\n rep ret\n ud2\n 1: call 2f\n 2: pop %0\n lea 2b(%%rip), %1\n"
                     : "=&r"(value), "=&r"(before)::"rax", "cc", "memory");
    CHECK(value == before);
    /* the return address on the stack is changed before the return */
    __asm__ volatile("xor %k0, %k0\n call 1f\n inc %0\n inc %0\n jmp 2f\n 1: addq $3, (%%rsp)\n ret\n 2:"
                     : "=&r"(value)::"cc", "memory");
    CHECK(value == 1);
    /* jmp through rsp-relative memory, push/pop of rsp */
    __asm__ volatile(
        "push %%rsp\n pop %0\n mov %%rsp, %1\n lea 1f(%%rip), %%rax\n push %%rax\n jmp *(%%rsp)\n ud2\n 1: pop %%rax\n"
        : "=&r"(before), "=&r"(after)::"rax", "cc", "memory");
    CHECK(before == after);
    /* call *%rsp-based pop: call through a register that is rcx, rax, r11, r12, r13 */
#define CALL_BY(reg)                                                                                                           \
    __asm__ volatile("lea 1f(%%rip), %%" reg "\n call *%%" reg "\n jmp 2f\n 1: mov $77, %0\n ret\n 2:"                         \
                     : "=&r"(value)::reg, "cc", "memory");                                                                     \
    CHECK(value == 77)
    CALL_BY("rax");
    CALL_BY("rcx");
    CALL_BY("rdx");
    CALL_BY("rbx");
    CALL_BY("rsi");
    CALL_BY("rdi");
    CALL_BY("r8");
    CALL_BY("r10");
    CALL_BY("r11");
    CALL_BY("r12");
    CALL_BY("r13");
    CALL_BY("r15");
    /* memory forms with index, rip and rcx as base */
    uint64_t table[4] = {0};
    __asm__ volatile(
        "lea 1f(%%rip), %%rax\n mov %%rax, 16(%1)\n mov $2, %%ecx\n call *(%1,%%rcx,8)\n lea 16(%1), %%rcx\n call *(%%rcx)\n"
        "lea 8(%1), %%rcx\n jmp *8(%%rcx)\n 1: inc %0\n cmp $3, %0\n je 2f\n ret\n 2:"
        : "=&r"(value)
        : "r"(table), "0"(0ul)
        : "rax", "rcx", "cc", "memory");
    CHECK(value == 3);
    /* the red zone under direct and indirect jumps */
    __asm__ volatile("movq $0x55, -8(%%rsp)\n movq $0x66, -128(%%rsp)\n lea 1f(%%rip), %%rcx\n jmp *%%rcx\n 1: jmp 2f\n 2:"
                     "mov -8(%%rsp), %0\n mov -128(%%rsp), %1\n"
                     : "=&r"(before), "=&r"(after)::"rcx", "memory");
    CHECK(before == 0x55 && after == 0x66);
}

static void test_registers(void)
{
    /* 15 registers with known values through a call, an indirect jump and a return. */
    static uint64_t in[16], out[16], saved_rsp;
    for (int i = 0; i < 16; i++)
        in[i] = 0x0101010101010101ull * (uint64_t)(i + 1);
    __asm__ volatile(
        "push %%rbp\n push %%rbx\n mov %%rsp, %2\n"
        "mov 0+%0, %%rax\n mov 16+%0, %%rdx\n mov 24+%0, %%rbx\n mov 40+%0, %%rbp\n mov 48+%0, %%rsi\n mov 56+%0, %%rdi\n"
        "mov 64+%0, %%r8\n mov 72+%0, %%r9\n mov 80+%0, %%r10\n mov 88+%0, %%r11\n mov 96+%0, %%r12\n mov 104+%0, %%r13\n"
        "mov 112+%0, %%r14\n mov 120+%0, %%r15\n lea 3f(%%rip), %%rcx\n push %%rcx\n lea 1f(%%rip), %%rcx\n call *%%rcx\n"
        "jmp *(%%rsp)\n 1: call 2f\n ret\n 2: rep ret\n 3: add $8, %%rsp\n"
        "mov %%rax, 0+%1\n mov %%rdx, 16+%1\n mov %%rbx, 24+%1\n mov %%rbp, 40+%1\n mov %%rsi, 48+%1\n mov %%rdi, 56+%1\n"
        "mov %%r8, 64+%1\n mov %%r9, 72+%1\n mov %%r10, 80+%1\n mov %%r11, 88+%1\n mov %%r12, 96+%1\n mov %%r13, 104+%1\n"
        "mov %%r14, 112+%1\n mov %%r15, 120+%1\n mov %2, %%rsp\n pop %%rbx\n pop %%rbp\n"
        : "+m"(in), "=m"(out), "+m"(saved_rsp)::"rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
          "r14", "r15", "cc", "memory");
    for (int i = 0; i < 16; i++)
        CHECK(i == 1 || i == 4 || in[i] == out[i]);
}

static void test_atomics(void)
{
    uint64_t a = 5, b = 7, old;
    __asm__ volatile("xchg %0, %1" : "+r"(a), "+m"(b)::"memory");
    CHECK(a == 7 && b == 5);
    __asm__ volatile("lock xadd %0, %1" : "+r"(a), "+m"(b)::"cc", "memory");
    CHECK(a == 5 && b == 12);
    old = 12;
    __asm__ volatile("lock cmpxchg %2, %1" : "+a"(old), "+m"(b) : "r"(99ul) : "cc", "memory");
    CHECK(b == 99);
    uint64_t pair[2] __attribute__((aligned(16))) = {1, 2};
    uint64_t low = 1, high = 2;
    __asm__ volatile("lock cmpxchg16b %0" : "+m"(pair), "+a"(low), "+d"(high) : "b"(3ul), "c"(4ul) : "cc", "memory");
    CHECK(pair[0] == 3 && pair[1] == 4);
    unsigned char text[64] = "0123456789", copy[64] = {0};
    void *s = text, *d = copy;
    uint64_t n = 11;
    __asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n)::"memory");
    CHECK(n == 0 && (unsigned char *)d == copy + 11 && copy[9] == '9');
    n = 64;
    d = copy;
    __asm__ volatile("repne scasb" : "+D"(d), "+c"(n) : "a"('5') : "cc", "memory");
    CHECK((unsigned char *)d == copy + 6 && n == 58);
    n = 0;
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"('!') : "memory");
    CHECK(copy[6] == '6');
    __asm__ volatile("std\n rep movsb\n cld" : "+S"(s), "+D"(d), "+c"(n)::"memory");
}

static int switched(unsigned n)
{
    switch (n) {
    case 0:
        return 3;
    case 1:
        return printf("switch\n");
    case 2:
        return -4;
    case 3:
        return (int)n << 5;
    case 4:
        return 11;
    case 5:
        return 13;
    case 6:
        return 17;
    default:
        return 1;
    }
}

static uint64_t fibonacci(uint64_t n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

int main(void)
{
    for (int which = 0; which < 6; which++)
        printf("loop %d: %lu %lu\n", which, (unsigned long)loops(which, 1, 1), (unsigned long)loops(which, 300, 117));
    printf("jrcxz with 0: %lu\n", (unsigned long)loops(3, 0, 0));
    for (int i = 0; i < 20; i++) {
        test_flags();
        test_stack();
        test_registers();
        test_atomics();
    }
    int sum = 0;
    for (unsigned i = 0; i < 9; i++)
        sum += switched(i);
    printf("switch %d, fibonacci %lu\n", sum, (unsigned long)fibonacci(24));
    return check_end("branches");
}
