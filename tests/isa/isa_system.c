/* SPDX-License-Identifier: Apache-2.0
 *
 * What the corpus cannot hold: instructions across page ends with the next page absent, the vsyscall page, far returns within
 * 64-bit code, what tells processors and times, restartable sequences, fs and its system calls. Prints what it observes.
 */
#include <asm/prctl.h>
#include <linux/rseq.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
static struct {
    int signal, code;
    uint64_t address, rip, error;
} fault;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;

    fault.signal = signal;
    fault.code = info->si_code;
    fault.address = (uint64_t)info->si_addr;
    fault.rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    fault.error = (uint64_t)uc->uc_mcontext.gregs[REG_ERR];
    siglongjmp(back, 1);
}

/* From PAGE if it is near. */
static long distance(uint64_t address, uint64_t page)
{
    int64_t d = (int64_t)(address - page);

    return d > -8192 && d < 8192 ? d : 1000000;
}

/* Calls code at PC; prints the fault it ends in, addresses relative to PAGE, or its return. */
static void run_at(const char *what, const void *pc, uint64_t page)
{
    memset(&fault, 0, sizeof fault);
    if (sigsetjmp(back, 1) == 0) {
        unsigned result;
        __asm__ volatile("call *%1"
                         : "=a"(result)
                         : "r"(pc), "0"(0x1111)
                         : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
        printf("%s: returned %x\n", what, result);
    } else {
        printf("%s: signal %d code %d address %ld rip %ld error %lx\n", what, fault.signal, fault.code,
               distance(fault.address, page), distance(fault.rip, page), fault.error);
    }
}

/* Each instruction so that it begins in one page and ends in the next, at every byte; the next page is there, then absent. */
static void test_page_ends(void)
{
    static const struct {
        const char *name;
        uint8_t length, bytes[15];
    } cases[] = {
        {"mov imm32", 5, {0xb8, 1, 2, 3, 4}},
        {"movabs", 10, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}},
        {"prefixes", 15, {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90}},
        {"call", 5, {0xe8, 0, 0, 0, 0}},
        {"jcc", 6, {0x0f, 0x85, 0, 0, 0, 0}},
        {"ret imm16", 3, {0xc2, 0, 0}},
        {"vaddps zmm", 6, {0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc9}},
        {"syscall", 2, {0x0f, 0x05}},
        {"ud2", 2, {0x0f, 0x0b}},
        {"invalid", 1, {0x06}},
        {"lock misused", 3, {0xf0, 0x01, 0xc0}},
        {"int3", 1, {0xcc}},
        {"jmp rax", 2, {0xff, 0xe0}},
        {"fs load", 9, {0x64, 0x8b, 0x04, 0x25, 0, 0, 0, 0}},
    };
    uint8_t *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (unsigned before = 0; before <= cases[i].length; before++) {
            char what[64];
            uint8_t *pc = pages + 4096 - before;
            snprintf(what, sizeof what, "%s, %u bytes before the end", cases[i].name, before);
            mprotect(pages, 4096, PROT_READ | PROT_WRITE);
            memset(pages, 0x90, 4096);
            memcpy(pc, cases[i].bytes, before);
            mprotect(pages, 4096, PROT_READ | PROT_EXEC);
            munmap(pages + 4096, 4096);
            if (!strcmp(cases[i].name, "syscall") && before == 2)
                continue; /* an arbitrary call */
            run_at(what, pc, (uint64_t)pages + 4096);
            mprotect(mmap(pages + 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), 4096,
                     PROT_NONE);
            if (before)
                run_at(what, pc, (uint64_t)pages + 4096);
        }
    munmap(pages, 3 * 4096);
}

/* Instructions made as long as can be, and longer, by prefixes that change nothing. */
static void test_long(void)
{
    static const struct {
        const char *name;
        uint8_t length, bytes[15];
    } cases[] = {
        {"mov imm32", 5, {0xb8, 1, 2, 3, 4}},
        {"movabs", 10, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}},
        {"add imm32, disp32 and sib", 12, {0x48, 0x81, 0x84, 0x24, 0, 0xff, 0xff, 0xff, 1, 2, 3, 4}},
        {"load, no such memory", 4, {0x8b, 0x04, 0x25, 0}},
        {"nop", 1, {0x90}},
        {"call", 5, {0xe8, 0, 0, 0, 0}},
        {"jmp", 5, {0xe9, 0, 0, 0, 0}},
        {"jcc", 6, {0x0f, 0x85, 0, 0, 0, 0}},
        {"ret", 1, {0xc3}},
        {"ret imm16", 3, {0xc2, 0, 0}},
        {"jmp rax", 2, {0xff, 0xe0}},
        {"vaddps", 4, {0xc5, 0xf8, 0x58, 0xc1}},
        {"pblendw", 6, {0x66, 0x0f, 0x3a, 0x0e, 0xc1, 1}},
        {"ud2", 2, {0x0f, 0x0b}},
        {"invalid", 1, {0x06}},
        {"hlt", 1, {0xf4}},
        {"int3", 1, {0xcc}},
        {"syscall", 2, {0x0f, 0x05}},
    };
    static const uint8_t prefixes[] = {0x2e, 0x3e, 0x64, 0x48, 0xf3, 0x66};
    uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < sizeof prefixes; k++)
            for (unsigned total = 15; total <= 20; total++) {
                char what[80];
                bool branch = strchr("cjr", cases[i].name[0]) && prefixes[k] == 0x66; /* another instruction */
                bool invalid = (!strcmp(cases[i].name, "vaddps") && prefixes[k] == 0x48) ||
                               (!strcmp(cases[i].name, "pblendw") && prefixes[k] == 0xf3); /* which fault comes first differs */
                if (branch || invalid || total < cases[i].length || (!strcmp(cases[i].name, "syscall") && total == 15))
                    continue;
                snprintf(what, sizeof what, "%s, %x to %u bytes", cases[i].name, prefixes[k], total);
                mprotect(page, 4096, PROT_READ | PROT_WRITE);
                memset(page, 0xc3, 4096);
                memset(page + 64, prefixes[k], total - cases[i].length);
                memcpy(page + 64 + total - cases[i].length, cases[i].bytes, cases[i].length);
                mprotect(page, 4096, PROT_READ | PROT_EXEC);
                run_at(what, page + 64, (uint64_t)page);
            }
    munmap(page, 4096);
}

static void test_vsyscall(void)
{
    struct timeval tv = {0, 0};
    unsigned cpu = ~0u;
    volatile uint64_t base = 0xffffffffff600000;

    memset(&fault, 0, sizeof fault);
    if (sigsetjmp(back, 1) == 0) {
        long t = ((long (*)(long *))(base + 0x400))(NULL);
        printf("vsyscall time: %d\n", labs(t - time(NULL)) <= 1);
        int result = ((int (*)(struct timeval *, void *))base)(&tv, NULL);
        printf("vsyscall gettimeofday: %d %d\n", result, labs(tv.tv_sec - time(NULL)) <= 1);
        t = ((long (*)(unsigned *, unsigned *, void *))(base + 0x800))(&cpu, NULL, NULL);
        printf("vsyscall getcpu: %ld %d\n", t, cpu < 4096);
    } else {
        printf("vsyscall: signal %d code %d address %lx rip %lx\n", fault.signal, fault.code, fault.address, fault.rip);
    }
    /* Where the kernel emulates nothing its frame has an error code of an earlier fault. */
    run_at("after the vsyscall page", (void *)(base + 4096), base);
    memset(&fault, 0, sizeof fault);
    if (sigsetjmp(back, 1) == 0)
        ((void (*)(void))(base + 1))();
    printf("inside the vsyscall page: signal %d code %d rip %ld\n", fault.signal, fault.code, distance(fault.rip, base));
}

static void test_far(void)
{
    uint64_t flags, rsp, before;

    __asm__ volatile(
        "mov %%rsp, %1\n mov %%cs, %%eax\n push %%rax\n lea 1f(%%rip), %%rax\n push %%rax\n lretq\n ud2\n 1: mov %%rsp, %0"
        : "=&r"(rsp), "=&r"(before)::"rax", "memory");
    printf("lretq: %ld\n", (long)(rsp - before));
    __asm__ volatile(
        "mov %%rsp, %1\n sub $32, %%rsp\n mov %%cs, %%eax\n push %%rax\n lea 1f(%%rip), %%rax\n push %%rax\n lretq $32\n ud2\n"
        "1: mov %%rsp, %0"
        : "=&r"(rsp), "=&r"(before)::"rax", "memory");
    printf("lretq $32: %ld\n", (long)(rsp - before));
    for (unsigned i = 0; i < 4; i++) {
        uint64_t wanted = (uint64_t[]){0x202, 0xed7, 0x40202, 0x200a83}[i];
        __asm__ volatile("mov %%rsp, %1\n mov %%ss, %%eax\n push %%rax\n push %1\n push %3\n mov %%cs, %%eax\n push %%rax\n "
                         "lea 1f(%%rip), %%rax\n push %%rax\n"
                         "iretq\n ud2\n 1: pushfq\n pop %2\n push $0x202\n popfq\n mov %%rsp, %0"
                         : "=&r"(rsp), "=&r"(before), "=&r"(flags)
                         : "r"(wanted)
                         : "rax", "memory", "cc");
        printf("iretq: %ld flags %lx\n", (long)(rsp - before), flags);
    }
}

static void test_processor(void)
{
    cpu_set_t set;
    uint32_t low, high, aux = 0;
    uint64_t first, second, pid = 0;

    CPU_ZERO(&set);
    CPU_SET(0, &set);
    printf("one processor: %d\n", sched_setaffinity(0, sizeof set, &set));
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    first = (uint64_t)high << 32 | low;
    __asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
    second = (uint64_t)high << 32 | low;
    printf("rdtsc: %d, rdtscp on %u, getcpu %d\n", second >= first, aux & 0xfff, sched_getcpu());
    __asm__ volatile("lsl %1, %0" : "=r"(low) : "r"(0x7b) : "cc");
    printf("lsl: %u\n", low & 0xfff);
    uint32_t a = 7, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (c >> 22 & 1) {
        __asm__ volatile("rdpid %0" : "=r"(pid));
        printf("rdpid: %lu\n", pid & 0xfff);
    }
    a = 0;
    c = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    printf("cpuid: %u %.4s%.4s%.4s\n", a, (char *)&b, (char *)&d, (char *)&c);
    a = 1;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    unsigned random = 0, tries = 0;
    for (; c >> 30 & 1 && !random && tries < 100; tries++)
        __asm__ volatile("rdrand %0" : "=r"(random)::"cc");
    printf("rdrand: %d\n", !(c >> 30 & 1) || random);
}

static void test_fs(void)
{
    uint64_t fs, read, gs = 1;

    printf("get fs: %ld\n", syscall(SYS_arch_prctl, ARCH_GET_FS, &fs));
    if (getauxval(AT_HWCAP2) & 2) {
        __asm__ volatile("rdfsbase %0" : "=r"(read));
        printf("rdfsbase: %d\n", read == fs);
        __asm__ volatile("mov $0x12345000, %%eax\n wrfsbase %%rax\n rdfsbase %0\n wrfsbase %1" : "=&r"(read) : "r"(fs) : "rax");
        printf("wrfsbase: %lx\n", read);
    }
    long result = syscall(SYS_arch_prctl, ARCH_GET_GS, &gs);
    printf("get gs: %ld %lx\n", result, gs);
}

/* A restartable sequence of the program's own, left only by its abort: the thread is preempted, or a signal comes. */
static void on_alarm(int signal)
{
    (void)signal;
}

static void test_rseq(void)
{
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    struct itimerval soon = {.it_value = {0, 20000}};
    signal(SIGALRM, on_alarm);
    for (int round = 0; round < 3 && __rseq_size; round++) { /* none are registered: nothing to abort */
        int how;
        setitimer(ITIMER_REAL, &soon, NULL);
        __asm__ volatile(
            ".pushsection .data.rel.ro, \"aw\"\n .balign 32\n 9: .long 0, 0\n .quad 1f, 2f - 1f, 4f\n .popsection\n"
            "lea 9b(%%rip), %%rax\n mov %%rax, 8(%1)\n xor %%ecx, %%ecx\n"
            "1: inc %%rcx\n jmp 1b\n"
            "2: ud2\n"
            ".long 0x53053053\n" /* RSEQ_SIG */
            "4: mov $1, %0\n 3:"
            : "=&r"(how)
            : "r"(area)
            : "rax", "rcx", "memory", "cc");
        if (how != 1 || area->rseq_cs)
            puts("rseq: FAILED");
    }
    puts("rseq: sequences are restarted, or not offered");
}

int main(int argc, char **argv)
{
    static uint8_t stack[65536];
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    const char *only = argc > 1 ? argv[1] : "";

    setvbuf(stdout, NULL, _IOLBF, 0);
    sigaltstack(&alternate, NULL);
    for (int i = 0; i < 5; i++)
        sigaction((int[]){SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP}[i], &act, NULL);
    if (!*only || !strcmp(only, "pages"))
        test_page_ends();
    if (!*only || !strcmp(only, "long"))
        test_long();
    if (!*only || !strcmp(only, "vsyscall"))
        test_vsyscall();
    if (!*only || !strcmp(only, "far"))
        test_far();
    if (!*only || !strcmp(only, "processor"))
        test_processor();
    if (!*only || !strcmp(only, "fs"))
        test_fs();
    if (!*only || !strcmp(only, "rseq"))
        test_rseq();
    return 0;
}
