/* SPDX-License-Identifier: Apache-2.0
 *
 * Code that sub-cases write into memory and call, and faults that they say and survive.
 */
#ifndef BDBI_TEST_CODE_PAGES_H
#define BDBI_TEST_CODE_PAGES_H

#include "subcases.h"
#include <setjmp.h>
#include <sys/mman.h>

#define PAGE 4096
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

static sigjmp_buf back;

static void leap(int sig, siginfo_t *info, void *context)
{
    (void)context;
    printf("signal %d code %d\n", sig, info->si_code);
    siglongjmp(back, 1);
}

static void on_faults(void)
{
    struct sigaction action = {.sa_sigaction = leap, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGILL, &action, NULL);
}

#define TRY(statement)                                                                                                         \
    do {                                                                                                                       \
        on_faults();                                                                                                           \
        if (sigsetjmp(back, 1) == 0)                                                                                           \
            statement;                                                                                                         \
    } while (0)

static unsigned char *anonymous(size_t pages, int prot)
{
    unsigned char *p = mmap(NULL, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(p != MAP_FAILED);
    return p;
}

/* mov eax, VALUE; ret */
static void put(void *at, int value)
{
    unsigned char code[6] = {0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(code + 1, &value, 4);
    memcpy(at, code, sizeof code);
}

/* Asks for the gs base (0), by a system call of its own; returns its high half. */
static void put_asking(void *at)
{
    static const unsigned char code[] = {0xb8, 158,  0,    0,    0,    0xbf, 0x04, 0x10, 0,    0,    0x48, 0x83, 0xec, 0x18,
                                         0x48, 0x89, 0xe6, 0x0f, 0x05, 0x8b, 0x44, 0x24, 0x04, 0x48, 0x83, 0xc4, 0x18, 0xc3};
    memcpy(at, code, sizeof code);
}

/* With eax 0, as calls of variable arguments have it: where zeros are they run as `add [rax], al`, which faults at once. */
static int call(const void *at)
{
    return ((int (*)(int, ...))(uintptr_t)at)(0);
}

static void say(const void *at)
{
    printf("%d\n", call(at));
}

#endif
