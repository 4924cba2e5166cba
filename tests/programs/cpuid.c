/* SPDX-License-Identifier: Apache-2.0
 *
 * cpuid: all leaves, on each processor, with every register and flag looked at; signals in the middle; steps; made to fault.
 *
 *   cpuid LEAF SUBLEAF...   only says what these are (hexadecimal)
 */
#include "check.h"
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define FLAGS 0xcd5 /* all of arithmetic, and DF */
#define FLAGS_MASK FLAGS
#define TRAP 0x100
#define ROUNDS 4000

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R15 = 15, RFLAGS, RED_NEAR, RED_FAR, WORDS };

uint64_t before[WORDS], after[WORDS];
void ask(void);
extern const char cpuid_insn[], cpuid_after[];

/* clang-format off */
__asm__(".text\n"
        "ask:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "push before+16*8(%rip); popfq\n"
        "mov before+17*8(%rip), %rax; mov %rax, -8(%rsp)\n"
        "mov before+18*8(%rip), %rax; mov %rax, -128(%rsp)\n"
        "mov %rsp, before+4*8(%rip)\n"
        "mov before(%rip), %rax; mov before+8(%rip), %rcx; mov before+2*8(%rip), %rdx; mov before+3*8(%rip), %rbx\n"
        "mov before+5*8(%rip), %rbp; mov before+6*8(%rip), %rsi; mov before+7*8(%rip), %rdi; mov before+8*8(%rip), %r8\n"
        "mov before+9*8(%rip), %r9; mov before+10*8(%rip), %r10; mov before+11*8(%rip), %r11; mov before+12*8(%rip), %r12\n"
        "mov before+13*8(%rip), %r13; mov before+14*8(%rip), %r14; mov before+15*8(%rip), %r15\n"
        "cpuid_insn: cpuid\n"
        "cpuid_after:\n"
        "mov %rax, after(%rip); mov %rcx, after+8(%rip); mov %rdx, after+2*8(%rip); mov %rbx, after+3*8(%rip)\n"
        "mov %rsp, after+4*8(%rip); mov %rbp, after+5*8(%rip); mov %rsi, after+6*8(%rip); mov %rdi, after+7*8(%rip)\n"
        "mov %r8, after+8*8(%rip); mov %r9, after+9*8(%rip); mov %r10, after+10*8(%rip); mov %r11, after+11*8(%rip)\n"
        "mov %r12, after+12*8(%rip); mov %r13, after+13*8(%rip); mov %r14, after+14*8(%rip); mov %r15, after+15*8(%rip)\n"
        "mov -8(%rsp), %rax; mov %rax, after+17*8(%rip); mov -128(%rsp), %rax; mov %rax, after+18*8(%rip)\n"
        "pushfq; popq after+16*8(%rip)\n"
        "pushq $2; popfq\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n");
/* clang-format on */

static void set(uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < WORDS; i++)
        before[i] = 0xabcdef0123456789 * (i + 1);
    before[RAX] = 0xdead0000ull << 32 | leaf;
    before[RCX] = 0xbeef0000ull << 32 | subleaf;
    before[RFLAGS] = FLAGS;
}

static void check_rest(void)
{
    CHECK(memcmp(before + RSP, after + RSP, (RFLAGS - RSP) * sizeof *before) == 0);
    CHECK((after[RFLAGS] & FLAGS_MASK) == FLAGS);
    CHECK(after[RED_NEAR] == before[RED_NEAR] && after[RED_FAR] == before[RED_FAR]);
}

static void check_all(void)
{
    check_rest();
    CHECK(((after[RAX] | after[RCX] | after[RDX] | after[RBX]) >> 32) == 0);
}

static void show(uint32_t leaf, uint32_t subleaf)
{
    set(leaf, subleaf);
    ask();
    check_all();
    printf("%x %x: %x %x %x %x\n", leaf, subleaf, (unsigned)after[RAX], (unsigned)after[RBX], (unsigned)after[RCX],
           (unsigned)after[RDX]);
}

static void show_all(void)
{
    static const struct {
        uint32_t from, to;
    } leaves[] = {{0, 0x28},
                  {0x40000000, 0x40000002},
                  {0x80000000, 0x80000028},
                  {0xc0000000, 0xc0000000},
                  {0x12345678, 0x12345678},
                  {0xffffffff, 0xffffffff}};
    static const uint32_t subleaves[] = {0, 1, 2, 3, 4, 5, 9, 17, 18, 31, 0x80000000, 0xffffffff};
    for (unsigned i = 0; i < sizeof leaves / sizeof *leaves; i++)
        for (uint64_t leaf = leaves[i].from; leaf <= leaves[i].to; leaf++)
            for (unsigned s = 0; s < sizeof subleaves / sizeof *subleaves; s++)
                show((uint32_t)leaf, subleaves[s]);
}

static void on_each_cpu(void)
{
    cpu_set_t all, one;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    for (int cpu = 0, n = 0; cpu < CPU_SETSIZE && n < 4; cpu++) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
        printf("cpu %d\n", cpu);
        show_all();
        n++;
    }
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
}

/* ---- signals ---- */

static uint64_t answer[4];
static volatile sig_atomic_t answered;
static volatile long alarms, inside, faults, steps_before, steps_after;

static void check_context(const ucontext_t *uc, uint64_t rip)
{
    static const int at[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                               REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    const greg_t *g = uc->uc_mcontext.gregs;
    if (!answered || (rip != (uint64_t)cpuid_insn && rip != (uint64_t)cpuid_after))
        return;
    inside++;
    for (int i = 0; i < 16; i++)
        CHECK((uint64_t)g[at[i]] == (i < 4 && rip == (uint64_t)cpuid_after ? answer[i] : before[i]));
    CHECK((g[REG_EFL] & FLAGS_MASK) == FLAGS);
}

static void on_alarm(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    (void)signal, (void)info;
    alarms++;
    check_context(uc, (uint64_t)uc->uc_mcontext.gregs[REG_RIP]);
}

static void on_step(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    uint64_t rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    (void)signal, (void)info;
    steps_before += rip == (uint64_t)cpuid_insn;
    steps_after += rip == (uint64_t)cpuid_after;
    check_context(uc, rip);
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)signal, (void)info;
    CHECK(uc->uc_mcontext.gregs[REG_RIP] == (greg_t)cpuid_insn);
    check_context(uc, (uint64_t)uc->uc_mcontext.gregs[REG_RIP]);
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)cpuid_after;
    faults++;
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(signal, &act, NULL) == 0);
}

static void ask_first(uint32_t leaf, uint32_t subleaf)
{
    answered = 0;
    set(leaf, subleaf);
    ask();
    memcpy(answer, after, sizeof answer);
    answered = 1;
}

static void ask_in_storm(uint32_t leaf, uint32_t subleaf)
{
    ask_first(leaf, subleaf);
    for (int i = 0; i < ROUNDS; i++) {
        memset(after, 0, sizeof after);
        ask();
        check_all();
        CHECK(memcmp(answer, after, sizeof answer) == 0);
    }
}

static void storm(void)
{
    struct itimerspec often = {{0, 50000}, {0, 50000}}, never = {0};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    timer_t timer;
    handle(SIGALRM, on_alarm);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &often, NULL) == 0);
    ask_in_storm(0, 0x33);
    ask_in_storm(0x80000000, 0);
    ask_in_storm(7, 0);
    ask_in_storm(0x12345678, 7);
    CHECK(timer_settime(timer, 0, &never, NULL) == 0);
    CHECK(alarms > 0);
}

static void step(uint32_t leaf)
{
    ask_first(leaf, 0);
    handle(SIGTRAP, on_step);
    before[RFLAGS] |= TRAP;
    ask();
    before[RFLAGS] &= ~(uint64_t)TRAP;
    CHECK(memcmp(answer, after, sizeof answer) == 0);
    printf("leaf %x: %ld steps to cpuid, %ld over it\n", leaf, steps_before, steps_after);
}

/* Where the processor can make cpuid fault. */
static void fault(void)
{
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) != 0) {
        printf("cpuid cannot be made to fault here\n");
        return;
    }
    handle(SIGSEGV, on_fault);
    for (uint32_t leaf = 0; leaf < 2; leaf++) {
        set(leaf, 0);
        ask();
        check_rest();
        CHECK(memcmp(before, after, RSP * sizeof *before) == 0);
    }
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1) == 0);
    printf("%ld faults\n", faults);
    show(0, 0);
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2)
        show((uint32_t)strtoul(argv[i], NULL, 16), (uint32_t)strtoul(argv[i + 1], NULL, 16));
    if (argc > 1)
        return check_failures;
    on_each_cpu();
    storm();
    step(0);
    step(1 << 30);
    fault();
    return check_end("cpuid");
}
