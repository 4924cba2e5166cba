/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls through a procedure linkage table that ld.so makes read-only (-z now), by a program that has run for a while and then
 * changes what is behind it: the pointers, by all means it has, and the code that they lead to. Also with the trap flag, under
 * timer signals and while another thread calls.
 */
#include "check.h"
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096ul

int one(void), two(void), three(void), four(void), five(void), six(void), seven(void), eight(void);
int nine(void), ten(void); /* of another library */

static uint64_t function, function_of_other; /* one's address, nine's */
static uint64_t *slot;                       /* the pointer that one() goes through */
static char *slot_page;

static long cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int all(void)
{
    return one() + two() + three() + four() + five() + six() + seven() + eight() + nine() + ten() - 19;
}

/* Until links are made. */
static void run_for_a_while(void)
{
    while (cpu_ms() < 80)
        for (int i = 0; i < 100; i++)
            CHECK(all() == 36 && getppid() > 0);
}

static int find_slot(struct dl_phdr_info *info, size_t bytes, void *target)
{
    (void)bytes;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_GNU_RELRO) {
            uint64_t *p = (uint64_t *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
            for (size_t k = 0; k < info->dlpi_phdr[i].p_memsz / 8; k++)
                if (p[k] == (uint64_t)target)
                    slot = &p[k];
        }
    return 1; /* the program only */
}

/* Which function's address it is, without calling anything. */
static uint64_t address_of(const char *name)
{
    void *dlsym(void *, const char *);
    return (uint64_t)dlsym(NULL, name);
}

/* ---- the pointer ---- */

static void by_mprotect(uint64_t first, uint64_t second)
{
    for (int i = 0; i < 3; i++) {
        mprotect(slot_page, PAGE, PROT_READ | PROT_WRITE);
        *(volatile uint64_t *)slot = second;
        CHECK(one() == 2);
        mprotect(slot_page, PAGE, PROT_READ);
        CHECK(one() == 2);
        mprotect(slot_page, PAGE, PROT_READ | PROT_WRITE);
        CHECK(one() == 2);
        *(volatile uint64_t *)slot = first;
        CHECK(one() == 1);
        mprotect(slot_page, PAGE, PROT_READ);
        CHECK(one() == 1);
    }
}

static void by_memory_file(uint64_t first, uint64_t second)
{
    int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, &second, 8, (off_t)(uintptr_t)slot) == 8);
    CHECK(one() == 2);
    CHECK(pwrite(fd, &first, 8, (off_t)(uintptr_t)slot) == 8);
    CHECK(one() == 1);
    close(fd);
}

/* A copy of the page with another pointer, in a file and in memory. */
static int copy_in_file(uint64_t value)
{
    int fd = memfd_create("page", MFD_CLOEXEC);
    CHECK(write(fd, slot_page, PAGE) == (ssize_t)PAGE);
    CHECK(pwrite(fd, &value, 8, (char *)slot - slot_page) == 8);
    return fd;
}

static void by_move(uint64_t value)
{
    char *copy = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(copy, slot_page, PAGE);
    *(uint64_t *)(copy + ((char *)slot - slot_page)) = value;
    mprotect(copy, PAGE, PROT_READ);
    CHECK(mremap(copy, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, slot_page) == slot_page);
}

static void by_mapping(uint64_t first, uint64_t second)
{
    int fd = copy_in_file(second);
    CHECK(mmap(slot_page, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == slot_page);
    CHECK(one() == 2);
    close(fd);
    by_move(first);
    CHECK(one() == 1);
    mprotect(slot_page, PAGE, PROT_READ);
    by_move(second);
    CHECK(one() == 2);
    by_move(first);
    CHECK(one() == 1);
}

/* The page is shared with a file: writes to that are seen without any call on the page. Not the last word: what is at
 * an address that was shared once is not trusted again. */
static void by_file(uint64_t first, uint64_t second)
{
    int fd = copy_in_file(first);
    CHECK(mmap(slot_page, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == slot_page);
    mprotect(slot_page, PAGE, PROT_READ);
    CHECK(one() == 1);
    CHECK(pwrite(fd, &second, 8, (char *)slot - slot_page) == 8);
    CHECK(one() == 2);
    CHECK(pwrite(fd, &first, 8, (char *)slot - slot_page) == 8);
    CHECK(one() == 1);
    close(fd);
}

static void in_child(uint64_t second)
{
    pid_t child = fork();
    if (child == 0) {
        mprotect(slot_page, PAGE, PROT_READ | PROT_WRITE);
        *(volatile uint64_t *)slot = second;
        mprotect(slot_page, PAGE, PROT_READ);
        _exit(one() == 2 && three() == 3 ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(one() == 1);
}

/* By a tracer: seen at the next system call. */
static void by_tracer(uint64_t second)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        _exit(one());
    }
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    CHECK(ptrace(PTRACE_POKEDATA, child, slot, (void *)second) == 0);
    CHECK(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 2);
}

/* ---- the code behind it ---- */

static void expect(int first, int second)
{
    for (int i = 0; i < 5000; i++)
        CHECK(nine() == first && ten() == second);
}

/* nine's page, with another constant and then as it was, in new mappings. */
static void other_code(void)
{
    uint64_t code = address_of("nine");
    char *page = (char *)(code & -PAGE), bytes[PAGE];
    int fd = memfd_create("code", MFD_CLOEXEC);
    expect(9, 10);
    memcpy(bytes, page, PAGE);
    bytes[(code & (PAGE - 1)) + 2] = 11;
    CHECK(write(fd, bytes, PAGE) == (ssize_t)PAGE);
    CHECK(mmap(page, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0) == page);
    expect(11, 10);
    CHECK(pwrite(fd, "\x09", 1, (off_t)((code & (PAGE - 1)) + 2)) == 1);
    CHECK(mmap(page, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0) == page);
    expect(9, 10);
    close(fd);
}

/* ---- while something else happens ---- */

static atomic_int seen;
static atomic_bool stop;

static void *caller(void *unused)
{
    while (!stop)
        seen = one();
    return unused;
}

static void wait_for(int value)
{
    seen = 0;
    while (seen != value) /* what it began before */
        sched_yield();
    for (int i = 0; i < 3; i++) {
        seen = 0;
        while (!seen)
            sched_yield();
        CHECK(seen == value);
    }
}

static void with_thread(uint64_t first, uint64_t second)
{
    pthread_t thread;
    pthread_create(&thread, NULL, caller, NULL);
    for (int i = 0; i < 60; i++) {
        mprotect(slot_page, PAGE, PROT_READ | PROT_WRITE);
        *(volatile uint64_t *)slot = i % 2 ? first : second;
        mprotect(slot_page, PAGE, PROT_READ);
        wait_for(i % 2 ? 1 : 2);
    }
    stop = true;
    pthread_join(thread, NULL);
}

static volatile int steps;
static volatile bool outside;
extern char __executable_start[], etext[];

static bool is_program(uint64_t rip)
{
    return rip >= (uint64_t)__executable_start && rip < (uint64_t)etext;
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info, (void)context;
    steps++;
}

static void on_alarm(int sig, siginfo_t *info, void *context)
{
    uint64_t rip = (uint64_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP], library = function & -PAGE,
             other = function_of_other & -PAGE;
    (void)sig, (void)info;
    steps++;
    outside |= !is_program(rip) && rip - library >= PAGE && rip - other >= PAGE;
}

static void stepped(void)
{
    struct sigaction act = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    int result;
    sigaction(SIGTRAP, &act, NULL);
    __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; call one@plt; pushfq; andl $~0x100, (%%rsp); popfq"
                     : "=a"(result)::"rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc", "memory");
    printf("%d steps\n", steps);
    CHECK(result == 1);
}

/* Signals that come between a call and its function, mostly. Not of libc: it may be anywhere. */
static void under_signals(void)
{
    struct sigaction act = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO};
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGVTALRM, &act, NULL);
    steps = 0;
    setitimer(ITIMER_VIRTUAL, &often, NULL);
    long wrong = 0;
    while (steps < 20)
        wrong += all() != 36;
    setitimer(ITIMER_VIRTUAL, &never, NULL);
    CHECK(wrong == 0 && !outside);
}

int main(void)
{
    uint64_t first = address_of("one"), second = address_of("two");
    function = first;
    function_of_other = address_of("nine");
    dl_iterate_phdr(find_slot, (void *)first);
    CHECK(slot && *slot == first);
    if (!slot)
        return check_end("links");
    slot_page = (char *)((uintptr_t)slot & -PAGE);
    run_for_a_while();
    stepped();
    under_signals();
    by_mprotect(first, second);
    in_child(second);
    by_memory_file(first, second);
    with_thread(first, second);
    by_tracer(second);
    other_code();
    by_mapping(first, second);
    by_file(first, second);
    return check_end("links");
}
