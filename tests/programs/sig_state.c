/* SPDX-License-Identifier: Apache-2.0
 *
 * Machine state under a storm of timer signals: red zone, flags, general, SSE, AVX, AVX-512, x87 and MXCSR state of a busy loop
 * that makes no call; the handler uses all of it. Also: registers that a handler edits in the context arrive.
 */
#include "check.h"
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>

static volatile sig_atomic_t ticks;
static volatile double sink;
static int has_avx, has_avx512;

static void __attribute__((noinline)) trash(void)
{
    __asm__ volatile(
        "fninit\n fldpi\n fldpi\n fmulp\n fstp %%st(0)\n pxor %%xmm0, %%xmm0\n pxor %%xmm1, %%xmm1\n pxor %%xmm15, %%xmm15\n"
        "std\n cld\n stc" ::
            : "xmm0", "xmm1", "xmm15", "cc");
    if (has_avx)
        __asm__ volatile("vpxor %%ymm2, %%ymm2, %%ymm2\n vzeroall" ::: "xmm0", "xmm1", "xmm2");
    if (has_avx512)
        __asm__ volatile(".byte 0x62,0xf1,0xfd,0x48,0xef,0xc0\n" /* vpxorq zmm0, zmm0, zmm0 */ ::: "xmm0");
}

static void on_tick(int signal)
{
    (void)signal;
    ticks++;
    trash();
    sink = sink * 1.5 + ticks;
    uint32_t mxcsr = 0x1f80 | (ticks & 1 ? 0x6000 : 0);
    __asm__ volatile("ldmxcsr %0" ::"m"(mxcsr));
}

static void storm(int on)
{
    struct itimerval timer = {{0, on ? 300 : 0}, {0, on ? 300 : 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* Leaf loops in assembly: they keep values below rsp and in flags, and return how many rounds were wrong. */
static uint64_t red_zone_loop(uint64_t rounds)
{
    uint64_t wrong = 0;
    __asm__ volatile("1:\n"
                     "mov %[n], -8(%%rsp)\n mov %[n], -64(%%rsp)\n mov %[n], -128(%%rsp)\n"
                     "mov $20, %%ecx\n"
                     "2: dec %%ecx\n jnz 2b\n"
                     "cmp %[n], -8(%%rsp)\n jne 3f\n cmp %[n], -64(%%rsp)\n jne 3f\n cmp %[n], -128(%%rsp)\n je 4f\n"
                     "3: inc %[wrong]\n"
                     "4: dec %[n]\n jnz 1b\n"
                     : [n] "+r"(rounds), [wrong] "+r"(wrong)
                     :
                     : "rcx", "cc", "memory");
    return wrong;
}

static uint64_t flags_loop(uint64_t rounds)
{
    uint64_t wrong = 0;
    __asm__ volatile("1:\n"
                     "stc\n mov $8, %%ecx\n"
                     "2: lea -1(%%rcx), %%ecx\n jrcxz 3f\n jmp 2b\n" /* keeps CF */
                     "3: jnc 5f\n"
                     "mov $0x7f, %%al\n add $1, %%al\n" /* OF SF set, CF ZF clear */
                     "mov $8, %%ecx\n"
                     "4: lea -1(%%rcx), %%ecx\n jrcxz 6f\n jmp 4b\n"
                     "5: inc %[wrong]\n jmp 7f\n"
                     "6: jno 5b\n jns 5b\n jz 5b\n jc 5b\n"
                     "7: dec %[n]\n jnz 1b\n"
                     : [n] "+r"(rounds), [wrong] "+r"(wrong)
                     :
                     : "rax", "rcx", "cc");
    return wrong;
}

static uint64_t vector_loop(uint64_t rounds)
{
    uint64_t pattern[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8], wrong = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        memset(out, 0, sizeof out);
        if (has_avx512) { /* vmovdqu64 zmm0, [rsi]; spin; vmovdqu64 [rdi], zmm0; vzeroupper */
            __asm__ volatile(".byte 0x62,0xf1,0xfe,0x48,0x6f,0x06\n mov $50, %%ecx\n 1: dec %%ecx\n jnz 1b\n"
                             ".byte 0x62,0xf1,0xfe,0x48,0x7f,0x07\n vzeroupper" ::"S"(pattern),
                             "D"(out)
                             : "rcx", "xmm0", "memory", "cc");
            wrong += memcmp(pattern, out, 64) != 0;
        } else if (has_avx) {
            __asm__ volatile(
                "vmovdqu (%%rsi), %%ymm15\n mov $50, %%ecx\n 1: dec %%ecx\n jnz 1b\n vmovdqu %%ymm15, (%%rdi)\n vzeroupper" ::
                    "S"(pattern),
                "D"(out)
                : "rcx", "xmm15", "memory", "cc");
            wrong += memcmp(pattern, out, 32) != 0;
        } else {
            __asm__ volatile(
                "movdqu (%%rsi), %%xmm15\n mov $50, %%ecx\n 1: dec %%ecx\n jnz 1b\n movdqu %%xmm15, (%%rdi)" ::"S"(pattern),
                "D"(out)
                : "rcx", "xmm15", "memory", "cc");
            wrong += memcmp(pattern, out, 16) != 0;
        }
    }
    return wrong;
}

static uint64_t x87_loop(uint64_t rounds)
{
    uint64_t wrong = 0;
    uint16_t control = 0x0f7f, restored, normal = 0x037f;
    uint32_t mxcsr = 0x3f80, seen, usual = 0x1f80;
    for (uint64_t i = 0; i < rounds; i++) {
        double in = (double)i, out = 0;
        __asm__ volatile("fldcw %3\n ldmxcsr %4\n fldl %2\n fld1\n fldl2t\n mov $50, %%ecx\n 1: dec %%ecx\n jnz 1b\n"
                         "fstp %%st(0)\n faddp\n fstpl %0\n fnstcw %1\n stmxcsr %5\n"
                         : "=m"(out), "=m"(restored)
                         : "m"(in), "m"(control), "m"(mxcsr), "m"(seen)
                         : "rcx", "cc", "memory");
        wrong += out != in + 1 || restored != control || seen != mxcsr;
        __asm__ volatile("fldcw %0\n ldmxcsr %1" ::"m"(normal), "m"(usual));
    }
    return wrong;
}

static void edit(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)info;
    ucontext_t *uc = context;
    greg_t *r = uc->uc_mcontext.gregs;
    CHECK(r[REG_RBX] == 0x1111 && r[REG_R15] == 0x2222 && (r[REG_EFL] & 1) == 1);
    CHECK(((uint32_t *)uc->uc_mcontext.fpregs->_xmm)[0] == 0x3333);
    r[REG_RBX] = 0x4444;
    r[REG_R15] = 0x5555;
    r[REG_EFL] &= ~1ll;
    r[REG_RIP] += 2;
    uc->uc_mcontext.fpregs->_xmm[0].element[0] = 0x6666;
}

static void test_edit(void)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = edit;
    sa.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &sa, NULL);
    uint64_t rbx, r15, carry, xmm;
    __asm__ volatile("mov $0x1111, %%ebx\n mov $0x2222, %%r15d\n mov $0x3333, %%eax\n movd %%eax, %%xmm0\n stc\n ud2\n"
                     "setc %%al\n movzbl %%al, %%eax\n mov %%rbx, %0\n mov %%r15, %1\n mov %%rax, %2\n movq %%xmm0, %3\n"
                     : "=m"(rbx), "=m"(r15), "=m"(carry), "=m"(xmm)
                     :
                     : "rax", "rbx", "r15", "xmm0", "cc", "memory");
    CHECK(rbx == 0x4444 && r15 == 0x5555 && carry == 0 && (uint32_t)xmm == 0x6666);
}

int main(void)
{
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE) && (c & bit_AVX)) {
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        has_avx = (low & 6) == 6;
        if (has_avx && __get_cpuid_count(7, 0, &a, &b, &c, &d))
            has_avx512 = (low & 0xe6) == 0xe6 && (b & bit_AVX512F);
    }
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = on_tick;
    sa.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &sa, NULL);
    uint64_t (*loops[])(uint64_t) = {red_zone_loop, flags_loop, vector_loop, x87_loop};
    const char *names[] = {"red zone", "flags", "vector", "x87"};
    for (int i = 0; i < 4; i++) {
        uint64_t wrong = 0;
        ticks = 0;
        storm(1);
        while (ticks < 60)
            wrong += loops[i](20000);
        storm(0);
        printf("%s: %s\n", names[i], wrong ? "DAMAGED" : "kept");
    }
    test_edit();
    return check_end("sig_state");
}
