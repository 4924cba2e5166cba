/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that is linked in odd ways (CMakeLists.txt): what it finds in its sections, and a fault where its text must not be
 * written.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char zeroed[3 << 20];
static int filled[1000] = {1, 2, 3, [999] = 4};
static const int constant[] = {5, 6, 7};
int exported = 8;

#ifdef TEXT_RELOCATION
/* An absolute address in the text of a program that may be anywhere. */
static int *address_in_text(void)
{
    int *p;
    __asm__("movabs $exported, %0" : "=r"(p));
    return p;
}
#else
static int *address_in_text(void)
{
    return &exported;
}
#endif

#ifdef OWN_START
/* Where gcc's own start-up files cannot go: they have addresses of 32 bits. */
__asm__(".globl _start\n"
        "_start: xor %ebp, %ebp\n\t"
        "mov %rdx, %r9\n\t"
        "pop %rsi\n\t"
        "mov %rsp, %rdx\n\t"
        "and $-16, %rsp\n\t"
        "push %rax\n\t"
        "push %rsp\n\t"
        "xor %r8d, %r8d\n\t"
        "xor %ecx, %ecx\n\t"
        "lea main(%rip), %rdi\n\t"
        "call *__libc_start_main@GOTPCREL(%rip)\n\t"
        "hlt");
#endif

#ifdef WRITABLE_CODE
/* A segment that may be read, written and executed: mov eax, 11; ret. */
__asm__(".section .both,\"awx\",@progbits\n"
        "patched: mov $11, %eax\n\t"
        "ret\n\t"
        ".text");
extern unsigned char patched[];
static void patch(void)
{
    for (unsigned char i = 0; i < 5; i++) {
        patched[1] = i;
        printf("patched %d\n", ((int (*)(void))(void *)patched)());
    }
}
#else
static void patch(void)
{
}
#endif

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static sigjmp_buf back;
static void leap(int sig)
{
    printf("signal %d\n", sig);
    siglongjmp(back, 1);
}

int main(int argc, char **argv)
{
    long sum = 0;
    for (size_t i = 0; i < sizeof zeroed; i++)
        sum += zeroed[i];
    memset(zeroed, 1, sizeof zeroed);
    qsort(filled, 1000, sizeof *filled, compare);
    printf("zeroes %ld, filled %d %d, constant %d, exported %d, arguments %d %s\n", sum, filled[999], filled[995],
           constant[argc], *address_in_text(), argc, argv[1] ? argv[1] : "");
    patch();
    signal(SIGSEGV, leap);
    if (sigsetjmp(back, 1) == 0) {
        volatile char *text = (volatile char *)(void *)main;
        *text = *text;
        printf("its text can be written\n");
    }
    printf("%d\n", abs(compare(&filled[0], &filled[999])));
    char *p = malloc(5 << 20);
    memset(p, 2, 5 << 20);
    free(p);
    return 0;
}
