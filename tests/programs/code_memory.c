/* SPDX-License-Identifier: Apache-2.0
 *
 * Code in memory that the program writes: by itself, by the kernel, through another mapping; moved, thrown away, cut off by a
 * page's end.
 */
#include "check.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096

typedef int (*function)(int);

/* lea eax, [rdi + k]; ret */
static void put(unsigned char *at, int k)
{
    const unsigned char code[] = {0x8d, 0x87, (unsigned char)k, 0, 0, 0, 0xc3};
    memcpy(at, code, sizeof code);
}

static int call(const void *at, int x)
{
    return ((function)(unsigned long)at)(x);
}

static unsigned char *map(size_t bytes, int prot)
{
    unsigned char *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

static void written_by_program(void)
{
    unsigned char *p = map(PAGE, RWX);
    int sum = 0;
    for (int i = 0; i < 100; i++) {
        put(p, i);
        sum += call(p, 1);
        p[2] = (unsigned char)(i / 2);
        sum += call(p, 1);
    }
    printf("written by the program: %d\n", sum);
}

static void written_by_kernel(void)
{
    unsigned char *p = map(PAGE, RWX), code[7];
    struct iovec vector = {p, 7};
    int ends[2], sockets[2];
    CHECK(pipe(ends) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets) == 0);
    put(p, 1);
    printf("written by the kernel: %d", call(p, 0));
    put(code, 5);
    CHECK(write(ends[1], code, 7) == 7 && read(ends[0], p, 7) == 7);
    printf(" %d", call(p, 0));
    put(code, 9);
    CHECK(write(ends[1], code, 7) == 7 && readv(ends[0], &vector, 1) == 7);
    printf(" %d", call(p, 0));
    put(code, 30);
    CHECK(send(sockets[0], code, 7, 0) == 7 && recv(sockets[1], p, 7, 0) == 7);
    printf(" %d\n", call(p, 0));
    CHECK(getcwd((char *)p + 512, 1024) != NULL);
}

static void two_views(void)
{
    int fd = memfd_create("code", 0), sum = 0;
    CHECK(ftruncate(fd, 2 * PAGE) == 0);
    unsigned char *w = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *x = mmap(NULL, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    for (int i = 0; i < 50; i++) {
        put(w + PAGE, i);
        sum += call(x + PAGE, 0);
    }
    int ends[2];
    CHECK(pipe(ends) == 0 && write(ends[1], "\x8d\x87\x40\0\0\0\xc3", 7) == 7 && read(ends[0], w + PAGE, 7) == 7);
    printf("two views: %d %d\n", sum, call(x + PAGE, 0));
}

static void moved_and_dropped(void)
{
    unsigned char *p = map(2 * PAGE, PROT_READ | PROT_WRITE);
    put(p, 5);
    mprotect(p, 2 * PAGE, PROT_READ | PROT_EXEC);
    int sum = call(p, 1);
    unsigned char *place = map(16 * PAGE, PROT_NONE);
    unsigned char *q = mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    printf("moved: %d %d\n", sum, call(q, 1));
    p = map(PAGE, RWX);
    put(p, 1);
    sum = call(p, 0);
    madvise(p, PAGE, MADV_DONTNEED);
    CHECK(p[0] == 0);
    put(p, 3);
    printf("thrown away: %d %d\n", sum, call(p, 0));
    mmap(p, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    put(p, 20);
    printf("mapped over: %d\n", call(p, 0));
}

static sigjmp_buf out;
static void *fault;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    fault = info->si_addr;
    siglongjmp(out, 1);
}

/* An instruction that goes on in an absent page faults there; when the page comes, it runs. */
static void cut_off(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    unsigned char *p = map(2 * PAGE, RWX), code[7];
    put(code, 3);
    for (volatile int n = 1; n <= 7; n++) {
        mprotect(p + PAGE, PAGE, PROT_NONE);
        memcpy(p + PAGE - n, code, (size_t)n);
        if (sigsetjmp(out, 1) == 0)
            printf("cut off after %d: returned %d\n", n, call(p + PAGE - n, 4));
        else
            printf("cut off after %d: fault at %ld\n", n, (long)((unsigned char *)fault - p));
        mprotect(p + PAGE, PAGE, RWX);
        memcpy(p + PAGE, code + n, (size_t)(7 - n));
        printf("whole: %d\n", call(p + PAGE - n, 4));
    }
}

static volatile int signals;

static void count(int signal)
{
    (void)signal;
    signals++;
}

/* The stack made executable: frames of signals and system calls go to pages that hold code. */
static void on_stack(void)
{
    unsigned char code[64] __attribute__((aligned(64)));
    unsigned long page = (unsigned long)code & ~(PAGE - 1ul);
    int sum = 0;
    CHECK(mprotect((void *)(page - 4 * PAGE), 5 * PAGE, RWX) == 0);
    signal(SIGUSR1, count);
    for (int i = 0; i < 20; i++) {
        put(code, i);
        sum += call(code, 1);
        raise(SIGUSR1);
    }
    printf("on the stack: %d, signals %d\n", sum, signals);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    written_by_program();
    written_by_kernel();
    two_views();
    moved_and_dropped();
    cut_off();
    on_stack();
    return check_end("code_memory");
}
