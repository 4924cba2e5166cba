/* SPDX-License-Identifier: Apache-2.0
 *
 * Code that changes: written into a page that is writable and executable, into one that is flipped by mprotect, through a
 * second mapping of the same memory, over unmapped and remapped pages, on the stack's neighbour and by a signal handler.
 */
#include "check.h"
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int (*function)(void);

/* mov eax, VALUE; ret */
static void write_code(unsigned char *at, int value)
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static void test_rwx(void)
{
    unsigned char *code = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(code != MAP_FAILED);
    long sum = 0;
    for (int i = 0; i < 500; i++) {
        write_code(code, i);
        write_code(code + 4096 + i, i);
        sum += ((function)(void *)code)() + ((function)(void *)(code + 4096 + i))();
    }
    printf("rwx %ld\n", sum);

    /* The code writes over its own next instruction: mov byte [rip+2], 42; nop; mov eax, 1 -> 42; ret */
    static const unsigned char own[] = {0xc6, 0x05, 0x02, 0, 0, 0, 42, 0x90, 0xb8, 1, 0, 0, 0, 0xc3};
    for (int i = 0; i < 20; i++) {
        memcpy(code, own, sizeof own);
        CHECK(((function)(void *)code)() == 42);
    }
    munmap(code, 8192);
}

static void test_flip(void)
{
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long sum = 0;
    for (int i = 0; i < 300; i++) {
        CHECK(mprotect(code, 4096, PROT_READ | PROT_WRITE) == 0);
        write_code(code + (i % 7) * 8, i);
        CHECK(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
        sum += ((function)(void *)(code + (i % 7) * 8))();
    }
    printf("flip %ld\n", sum);
    munmap(code, 4096);
}

static void test_dual(void)
{
    int fd = memfd_create("code", 0);
    CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
    unsigned char *w = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *x = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    long sum = 0;
    for (int i = 0; i < 100; i++) {
        /* New places each time: what is rewritten behind an executable mapping is a documented limit. */
        write_code(w + i * 8, i * 3);
        sum += ((function)(void *)(x + i * 8))();
    }
    printf("dual %ld\n", sum);
    munmap(w, 4096);
    munmap(x, 4096);
    close(fd);
}

static void test_remap(void)
{
    long sum = 0;
    unsigned char *place = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 100; i++) {
        unsigned char *code = mmap(place, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        CHECK(code == place);
        write_code(code, i);
        mprotect(code, 4096, PROT_READ | PROT_EXEC);
        sum += ((function)(void *)code)();
        if (i % 2)
            munmap(code, 4096);
    }
    printf("remap %ld\n", sum);
}

static unsigned char *handler_code;

static void rewrite(int signal)
{
    (void)signal;
    mprotect(handler_code, 4096, PROT_READ | PROT_WRITE);
    write_code(handler_code, 99);
    mprotect(handler_code, 4096, PROT_READ | PROT_EXEC);
}

static void test_handler(void)
{
    handler_code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    write_code(handler_code, 1);
    mprotect(handler_code, 4096, PROT_READ | PROT_EXEC);
    signal(SIGUSR1, rewrite);
    int before = ((function)(void *)handler_code)();
    raise(SIGUSR1);
    printf("handler %d %d\n", before, ((function)(void *)handler_code)());
}

/* A function that crosses pages, the second of which is rewritten alone. */
static void test_crossing(void)
{
    unsigned char *code = mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long sum = 0;
    for (int i = 0; i < 50; i++) {
        write_code(code + 4096 - 3, 0x01010101 * (i + 1));
        sum += ((function)(void *)(code + 4096 - 3))();
        code[4096] = 9; /* a byte of the immediate */
        sum += ((function)(void *)(code + 4096 - 3))() & 0xff0000;
    }
    printf("crossing %ld\n", sum);
}

int main(void)
{
    test_flip();
    test_remap();
    test_dual();
    test_handler();
    test_rwx();
    test_crossing();
    return check_end("guest_jit");
}
