/* SPDX-License-Identifier: Apache-2.0
 *
 * Executes the same number of instructions in every run, wherever it is loaded and however its threads are scheduled, and
 * uses no library: what bbcount and the single-step tracer must agree on. No spinning, no retries: threads wait in read(2) and
 * in one FUTEX_WAIT each. Built as ET_EXEC and as static-PIE.
 */
#include <linux/futex.h>
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>

enum { THREADS = 8, STACK_BYTES = 16384 };

static int tids[THREADS];
static uint64_t total, results[THREADS];
static int to_threads[2], to_main[2];
static char stacks[THREADS][STACK_BYTES] __attribute__((aligned(16)));
static char buffer[4096], copy[4096];

void start_c(long *stack);

__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start_c\n ud2\n");

static long call6(long n, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return n;
}

static uint64_t fibonacci(uint64_t n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t twice(uint64_t n)
{
    return 2 * n;
}

static uint64_t square(uint64_t n)
{
    return n * n;
}

static uint64_t work(uint64_t seed)
{
    uint64_t (*volatile table[3])(uint64_t); /* filled in by code: nothing here is relocated */
    table[0] = twice;
    table[1] = square;
    table[2] = fibonacci;
    uint64_t sum = fibonacci(8);
    for (uint64_t i = 0; i < 60; i++)
        sum = sum * 31 + table[(i + seed) % 3](i % 7);
    uint64_t n = 40;
    __asm__ volatile("1: add $3, %0\n loop 1b" : "+r"(sum), "+c"(n)::"cc");
    return sum;
}

static void strings(void)
{
    void *to = buffer, *from = buffer;
    uint64_t n = 1000;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"('x') : "memory");
    to = copy;
    n = 500;
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    n = 0;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    to = copy;
    n = 4000;
    __asm__ volatile("repe scasb" : "+D"(to), "+c"(n) : "a"('x') : "cc", "memory");
    for (int i = 0; i < 5; i++) {
        to = copy;
        from = buffer;
        n = 1;
        __asm__ volatile("repe cmpsb" : "+D"(to), "+S"(from), "+c"(n)::"cc", "memory");
    }
}

void thread_c(uint64_t me);

/* Its own wait for a token, its work, one atomic addition, one byte to main, and gone. */
void thread_c(uint64_t me)
{
    char token;
    call6(SYS_read, to_threads[0], (long)&token, 1, 0, 0, 0);
    results[me] = work(me);
    __atomic_fetch_add(&total, results[me], __ATOMIC_SEQ_CST);
    call6(SYS_write, to_main[1], (long)&token, 1, 0, 0, 0);
    call6(SYS_exit, 0, 0, 0, 0, 0, 0);
}

static long start_thread(uint64_t me)
{
    uint64_t *top = (uint64_t *)(void *)(stacks[me] + STACK_BYTES);
    long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PARENT_SETTID |
                 CLONE_CHILD_CLEARTID;
    register long r10 __asm__("r10") = (long)&tids[me], r8 __asm__("r8") = 0, r12 __asm__("r12") = (long)me;
    long result = SYS_clone;
    __asm__ volatile("syscall\n test %%rax, %%rax\n jnz 1f\n mov %%r12, %%rdi\n call thread_c\n ud2\n 1:"
                     : "+a"(result)
                     : "D"(flags), "S"(top), "d"(&tids[me]), "r"(r10), "r"(r8), "r"(r12)
                     : "rcx", "r11", "memory");
    return result;
}

void start_c(long *stack)
{
    (void)stack;
    long tid[THREADS];
    char tokens[THREADS] = {0};
    strings();
    uint64_t expected = work(100);
    call6(SYS_pipe2, (long)to_threads, 0, 0, 0, 0, 0);
    call6(SYS_pipe2, (long)to_main, 0, 0, 0, 0, 0);
    for (uint64_t i = 0; i < THREADS; i++)
        tid[i] = start_thread(i);
    call6(SYS_write, to_threads[1], (long)tokens, THREADS, 0, 0, 0);
    for (int i = 0; i < THREADS; i++)
        call6(SYS_read, to_main[0], (long)&tokens[i], 1, 0, 0, 0);
    for (int i = 0; i < THREADS; i++)
        call6(SYS_futex, (long)&tids[i], FUTEX_WAIT, tid[i], 0, 0, 0);
    uint64_t sum = 0;
    for (int i = 0; i < THREADS; i++)
        sum += results[i] + (uint64_t)tids[i];
    int good = sum == total && expected == work(100);
    call6(SYS_write, 1, (long)(good ? "good\n" : "bad!\n"), 5, 0, 0, 0);
    call6(SYS_exit_group, !good, 0, 0, 0, 0, 0);
}
