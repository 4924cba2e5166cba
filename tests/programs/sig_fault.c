/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults taken on an alternate stack: the handler sees the right address and rip, leaves by siglongjmp, by editing rip, or
 * by repairing the mapping; stack overflow; SIGBUS, SIGFPE, SIGILL, int3.
 */
#include "check.h"
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile sig_atomic_t mode, last_signal, last_code;
static volatile uintptr_t fault_rip, fault_address, handler_stack;
static char alternate[64 * 1024];
static char *page;

extern const char load_insn[], load_next[], store_insn[], divide_insn[], ud_insn[], trap_next[];
__asm__(".text\n"
        ".globl load_it\nload_it:\n xor %eax, %eax\nload_insn: mov (%rdi), %rax\nload_next: ret\n"
        ".globl store_it\nstore_it:\n mov %rsi, %rax\n push %rax\nstore_insn: mov %rax, 8(%rdi)\n pop %rax\n ret\n"
        ".globl divide_it\ndivide_it:\n xor %edx, %edx\n mov $7, %eax\ndivide_insn: div %edi\n ret\n"
        ".globl ud_it\nud_it: nop\nud_insn: ud2\n mov $5, %eax\n ret\n"
        ".globl trap_it\ntrap_it: int3\ntrap_next: mov $6, %eax\n ret\n");
uint64_t load_it(const void *p);
uint64_t store_it(void *p, uint64_t value);
uint32_t divide_it(uint32_t n);
int ud_it(void);
int trap_it(void);

static void handler(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    char here;
    last_signal = signal;
    last_code = info->si_code;
    fault_rip = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
    fault_address = (uintptr_t)info->si_addr;
    handler_stack = (uintptr_t)&here;
    switch (mode) {
    case 0:
        siglongjmp(back, 1);
    case 1: /* skip the load */
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)load_next;
        uc->uc_mcontext.gregs[REG_RAX] = 0x1234;
        break;
    case 2: /* repair */
        mprotect(page, 4096, PROT_READ | PROT_WRITE);
        break;
    case 3: /* a divisor */
        uc->uc_mcontext.gregs[REG_RDI] = 2;
        break;
    case 4:
        uc->uc_mcontext.gregs[REG_RIP] += 2;
        break;
    case 5:
        break;
    }
}

/* Not a tail call, and with a frame large enough to meet the guard page soon. */
static int __attribute__((noinline)) overflow(volatile char *previous, int depth)
{
    volatile char frame[4096];
    frame[0] = previous[0];
    int n = depth > 100000000 ? 0 : overflow(frame, depth + 1);
    return n + frame[0];
}

int main(void)
{
    stack_t ss = {.ss_sp = alternate, .ss_size = sizeof alternate}, old;
    CHECK(sigaltstack(&ss, NULL) == 0);
    CHECK(sigaltstack(NULL, &old) == 0 && old.ss_sp == alternate && old.ss_flags == 0);
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = handler;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
    int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (int i = 0; i < 5; i++)
        CHECK(sigaction(signals[i], &sa, NULL) == 0);

    page = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (volatile int i = 0; i < 50; i++) {
        mode = 0;
        if (sigsetjmp(back, 1) == 0) {
            load_it(page + 0x10 + i);
            CHECK(!"reached");
        }
        CHECK(last_signal == SIGSEGV && last_code == SEGV_ACCERR && fault_address == (uintptr_t)page + 0x10 + i);
        CHECK(fault_rip == (uintptr_t)load_insn);
        CHECK(handler_stack >= (uintptr_t)alternate && handler_stack < (uintptr_t)alternate + sizeof alternate);
    }
    CHECK(sigsetjmp(back, 1) != 0 || load_it((void *)16) == 0);
    CHECK(last_code == SEGV_MAPERR && fault_address == 16);
    if (sigsetjmp(back, 1) == 0)
        load_it((void *)(uintptr_t)0x8000000000000000u);
    CHECK(last_code == SI_KERNEL && fault_rip == (uintptr_t)load_insn);

    mode = 1;
    CHECK(load_it(page) == 0x1234);
    mode = 2;
    CHECK(store_it(page, 99) == 99 && *(uint64_t *)(page + 8) == 99 && fault_rip == (uintptr_t)store_insn);
    mode = 3;
    CHECK(divide_it(0) == 3 && last_signal == SIGFPE && fault_rip == (uintptr_t)divide_insn);
    mode = 4;
    CHECK(ud_it() == 5 && last_signal == SIGILL && fault_rip == (uintptr_t)ud_insn);
    mode = 5;
    CHECK(trap_it() == 6 && last_signal == SIGTRAP && fault_rip == (uintptr_t)trap_next);

    /* A call to nowhere: rip is the target, the return address is on the stack. */
    mode = 0;
    void (*volatile nowhere)(void) = (void (*)(void))page;
    munmap(page, 8192);
    if (sigsetjmp(back, 1) == 0)
        nowhere();
    CHECK(last_signal == SIGSEGV && fault_rip == (uintptr_t)page && fault_address == (uintptr_t)page);

    /* Beyond the end of a file. */
    FILE *file = tmpfile();
    char *mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(file), 0);
    if (sigsetjmp(back, 1) == 0)
        load_it(mapped);
    CHECK(last_signal == SIGBUS && last_code == BUS_ADRERR && fault_address == (uintptr_t)mapped);
    fclose(file);

    for (volatile int i = 0; i < 2; i++) {
        char first = 0;
        if (sigsetjmp(back, 1) == 0)
            printf("%d\n", overflow(&first, 0));
        CHECK(last_signal == SIGSEGV && fault_address < (uintptr_t)&first);
        CHECK(handler_stack >= (uintptr_t)alternate && handler_stack < (uintptr_t)alternate + sizeof alternate);
    }
    return check_end("sig_fault");
}
