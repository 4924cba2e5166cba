/* SPDX-License-Identifier: Apache-2.0
 *
 * An instruction that lies across two pages of generated code, reached by a branch that falls through, with the pages mapped
 * in every way: together, one after the other in both orders, and with different protections.
 */
#include "check.h"
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096
#define RX (PROT_READ | PROT_EXEC)
#define RWX (RX | PROT_WRITE)

typedef int (*function)(int);

/*      0: jmp 0xffa
 *  0xffa: test edi,edi
 *  0xffc: jnz 0x1004
 *  0xffe: mov eax,VALUE      opcode and one byte in the first page, three bytes in the second
 * 0x1003: ret
 * 0x1004: mov eax,edi; ret */
static void write_code(unsigned char *code, int value)
{
    static const unsigned char head[] = {0xe9, 0xf5, 0x0f, 0, 0},
                               body[] = {0x85, 0xff, 0x75, 6, 0xb8, 0, 0, 0, 0, 0xc3, 0x89, 0xf8, 0xc3};
    memcpy(code, head, sizeof head);
    memcpy(code + 0xffa, body, sizeof body);
    memcpy(code + 0xfff, &value, 4);
}

static void run(const char *name, unsigned char *code)
{
    function f = (function)(void *)code;
    printf("%s %#x %d\n", name, (unsigned)f(0), f(7));
}

static unsigned char *fresh(void)
{
    unsigned char *code = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(code != MAP_FAILED);
    write_code(code + PAGE, 0x12345678);
    return code + PAGE;
}

static void protect(unsigned char *at, int protection)
{
    CHECK(mprotect(at, PAGE, protection) == 0);
}

/* Both pages in each order and protection; then the instruction's second half is changed where it may be written. */
static void pages(int first, int second, int descending)
{
    char name[64];
    unsigned char *code = fresh();
    if (descending)
        protect(code + PAGE, second);
    protect(code, first);
    if (!descending)
        protect(code + PAGE, second);
    snprintf(name, sizeof name, "first %d second %d descending %d", first, second, descending);
    run(name, code);
    if (second & PROT_WRITE) {
        code[PAGE + 2] = 0x66;
        run("second half written", code);
    }
    if (first & PROT_WRITE) {
        code[PAGE - 1] = 0x55;
        run("first half written", code);
    }
}

/* One block over three pages, the last of which is rewritten alone. */
static void long_block(void)
{
    unsigned char *code = fresh();
    memset(code, 0x90, 2 * PAGE);                   /* nop */
    memcpy(code + 2 * PAGE, "\xb8\0\0\0\0\xc3", 6); /* mov eax,VALUE; ret */
    for (int i = 0; i < 3; i++) {
        CHECK(mprotect(code + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);
        code[2 * PAGE + 1] = (unsigned char)i;
        CHECK(mprotect(code, 3 * PAGE, RX) == 0);
        printf("long block %d\n", ((function)(void *)(code + 1))(0));
    }
}

int main(void)
{
    for (int descending = 0; descending < 2; descending++) {
        pages(RX, RX, descending);
        pages(RX, RWX, descending);
        pages(RWX, RX, descending);
        pages(RWX, RWX, descending);
    }
    unsigned char *together = fresh();
    CHECK(mprotect(together, 2 * PAGE, RWX) == 0);
    run("together", together);
    long_block();
    return check_end("page_cross");
}
