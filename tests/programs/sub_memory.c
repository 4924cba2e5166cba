/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that holds code: mapped, moved, protected, thrown away, rewritten in every way; and the memory calls themselves.
 */
#include "code_pages.h"
#include <pthread.h>
#include <stdbool.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/uio.h>

static unsigned char *map(size_t pages, int prot, int flags, int fd)
{
    unsigned char *p = mmap(NULL, pages * PAGE, prot, flags, fd, 0);
    MUST(p != MAP_FAILED);
    return p;
}

static int file_with(int value)
{
    static char page[PAGE];
    int fd = memfd_create("code", 0);
    put(page, value);
    MUST(write(fd, page, PAGE) == PAGE);
    return fd;
}

SUBCASE(rewritten_in_place)
{
    unsigned char *p = anonymous(1, RWX);
    for (int i = 0; i < 50; i++) {
        put(p, i);
        MUST(call(p) == i);
    }
    say(p);
}

SUBCASE(two_functions_of_a_page)
{
    unsigned char *p = anonymous(1, RWX);
    put(p + 2048, 5);
    for (int i = 0; i < 50; i++) {
        put(p, i);
        MUST(call(p) == i && call(p + 2048) == 5);
    }
    say(p);
}

SUBCASE(toggled_protection)
{
    unsigned char *p = anonymous(1, PROT_READ | PROT_WRITE);
    for (int i = 0; i < 50; i++) {
        put(p, i);
        MUST(mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0);
        MUST(call(p) == i);
        MUST(mprotect(p, PAGE, PROT_READ | PROT_WRITE) == 0);
    }
    TRY(say(p));
}

SUBCASE(execute_only)
{
    unsigned char *p = anonymous(1, PROT_READ | PROT_WRITE);
    put(p, 7);
    SHOW(mprotect(p, PAGE, PROT_EXEC));
    say(p);
}

SUBCASE(protection_taken_while_running)
{
    unsigned char *p = anonymous(1, RWX);
    put(p, 8);
    say(p);
    mprotect(p, PAGE, PROT_NONE);
    TRY(say(p));
    mprotect(p, PAGE, PROT_READ | PROT_EXEC);
    say(p);
    mprotect(p, PAGE, PROT_READ);
    TRY(say(p));
}

SUBCASE(write_without_permission)
{
    unsigned char *p = anonymous(1, RWX);
    put(p, 9);
    say(p);
    mprotect(p, PAGE, PROT_READ | PROT_EXEC);
    TRY(put(p, 10));
    say(p);
}

SUBCASE(unmapped)
{
    unsigned char *p = anonymous(2, RWX);
    put(p, 11);
    say(p);
    munmap(p, PAGE);
    TRY(say(p));
}

SUBCASE(mapped_again)
{
    unsigned char *p = anonymous(1, RWX);
    for (int i = 0; i < 20; i++) {
        put(p, i);
        MUST(call(p) == i);
        MUST(mmap(p, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
        MUST(p[0] == 0);
    }
    put(p, 12);
    say(p);
}

SUBCASE(another_file_at_the_same_place)
{
    unsigned char *p = anonymous(1, PROT_NONE);
    for (int i = 0; i < 20; i++) {
        int fd = file_with(i);
        MUST(mmap(p, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0) == p);
        close(fd);
        MUST(call(p) == i);
    }
    say(p);
}

SUBCASE(moved)
{
    unsigned char *p = anonymous(1, RWX);
    put(p, 13);
    say(p);
    unsigned char *q = mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    say(q);
    unsigned char *to = anonymous(4, PROT_NONE);
    MUST(mremap(q, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
    say(to);
    TRY(say(q));
    put(to, 14);
    say(to);
}

SUBCASE(moved_over_code)
{
    unsigned char *p = anonymous(1, RWX), *q = anonymous(1, RWX);
    put(p, 15);
    put(q, 16);
    say(p);
    say(q);
    MUST(mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q);
    say(q);
}

SUBCASE(moved_and_left)
{
    unsigned char *p = anonymous(1, RWX);
    put(p, 17);
    say(p);
    unsigned char *q = mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | 4 /* MREMAP_DONTUNMAP */, NULL);
    if (q == MAP_FAILED)
        return;
    say(q);
    put(p, 18);
    say(p);
    say(q);
}

SUBCASE(thrown_away)
{
    unsigned char *p = anonymous(1, RWX);
    put(p, 19);
    say(p);
    SHOW(madvise(p, PAGE, MADV_DONTNEED));
    put(p, 20);
    say(p);
    int fd = file_with(21);
    unsigned char *q = map(1, RWX, MAP_PRIVATE, fd);
    say(q);
    put(q, 22);
    say(q);
    SHOW(madvise(q, PAGE, MADV_DONTNEED));
    say(q);
}

/* The file of a shared view changes by every call that can change it. */
SUBCASE(file_changed_by_other_calls)
{
    char path[] = "code-XXXXXX";
    int fd = mkstemp(path);
    unsigned char page[PAGE];
    put(page, 80);
    MUST(fd >= 0 && write(fd, page, PAGE) == PAGE);
    unsigned char *x = map(1, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    say(x);
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
    TRY(say(x));
    put(page, 81);
    SHOW(pwrite(fd, page, PAGE, 0));
    say(x);
    SHOW(truncate(path, 0));
    TRY(say(x));
    put(page, 82);
    SHOW(pwrite(fd, page, PAGE, 0));
    say(x);
    int again = open(path, O_RDWR | O_TRUNC);
    TRY(say(x));
    put(page, 83);
    SHOW(pwrite(again, page, PAGE, 0));
    say(x);
    SHOW(creat(path, 0600) >= 0);
    TRY(say(x));
    unlink(path);
}

SUBCASE(break_with_code)
{
    unsigned char *p = (unsigned char *)(((uintptr_t)sbrk(0) + PAGE - 1) & ~(uintptr_t)(PAGE - 1));
    for (int i = 0; i < 3; i++) {
        MUST(brk(p + 4 * PAGE) == 0);
        put(p + PAGE, 84 + i);
        TRY(say(p + PAGE));
        MUST(mprotect(p, 4 * PAGE, RWX) == 0);
        say(p + PAGE);
        MUST(brk(p) == 0);
        TRY(say(p + PAGE));
    }
}

SUBCASE(hole_punched)
{
    int fd = file_with(23);
    unsigned char *q = map(1, RWX, MAP_SHARED, fd);
    say(q);
    SHOW(madvise(q, PAGE, MADV_REMOVE));
    printf("%d\n", q[0]);
}

static void *writer(void *argument)
{
    put(argument, 25);
    return NULL;
}

SUBCASE(rewritten_by_another_thread)
{
    pthread_t t;
    unsigned char *p = anonymous(1, RWX);
    put(p, 24);
    say(p);
    pthread_create(&t, NULL, writer, p);
    pthread_join(t, NULL);
    say(p);
}

SUBCASE(rewritten_by_read)
{
    unsigned char *p = anonymous(1, RWX);
    int fd = file_with(27);
    put(p, 26);
    say(p);
    lseek(fd, 0, SEEK_SET);
    SHOW(read(fd, p, 6));
    say(p);
    put(p, 28);
    say(p);
    struct iovec v = {p, 6};
    SHOW(preadv(fd, &v, 1, 0));
    say(p);
}

SUBCASE(two_views)
{
    int fd = file_with(30);
    unsigned char *w = map(1, PROT_READ | PROT_WRITE, MAP_SHARED, fd), *x = map(1, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    for (int i = 0; i < 20; i++) {
        put(w, i);
        MUST(call(x) == i);
    }
    say(x);
}

/* Views become writable and executable only later, whole or in part, before and after code has run. */
SUBCASE(views_changed_later)
{
    int fd = memfd_create("code", 0);
    MUST(ftruncate(fd, 3 * PAGE) == 0);
    unsigned char *w = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *x = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *later = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_SHARED, fd, 0);
    put(w + PAGE, 60);
    SHOW(mprotect(x + PAGE, PAGE, PROT_READ | PROT_EXEC));
    say(x + PAGE);
    put(w + PAGE, 61);
    say(x + PAGE);
    SHOW(mprotect(later, 2 * PAGE, PROT_READ | PROT_WRITE));
    put(later + PAGE, 62);
    say(x + PAGE);
    SHOW(mprotect(w, 3 * PAGE, PROT_READ));
    SHOW(mprotect(w, 3 * PAGE, PROT_READ | PROT_WRITE));
    put(w + PAGE, 63);
    say(x + PAGE);
    SHOW(mprotect(x + PAGE, PAGE, PROT_READ | PROT_WRITE));
    put(x + PAGE, 64);
    SHOW(mprotect(later + PAGE, PAGE, PROT_READ | PROT_EXEC));
    say(later + PAGE);
    put(x + PAGE, 65);
    say(later + PAGE);
}

SUBCASE(rewritten_through_the_file)
{
    static char page[PAGE];
    int fd = file_with(31);
    unsigned char *x = map(1, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    say(x);
    put(page, 32);
    SHOW(pwrite(fd, page, 6, 0));
    say(x);
    put(page, 33);
    lseek(fd, 0, SEEK_SET);
    SHOW(write(fd, page, 6));
    say(x);
}

SUBCASE(rewritten_through_proc)
{
    unsigned char code[6], *p = anonymous(1, PROT_READ | PROT_WRITE);
    put(p, 34);
    mprotect(p, PAGE, PROT_READ | PROT_EXEC);
    say(p);
    put(code, 35);
    int fd = open("/proc/self/mem", O_RDWR);
    SHOW(pwrite(fd, code, 6, (off_t)(uintptr_t)p));
    say(p);
}

SUBCASE(rewritten_by_process_vm_writev)
{
    unsigned char code[6], *p = anonymous(1, RWX);
    struct iovec mine = {code, 6}, theirs = {p, 6};
    put(p, 36);
    say(p);
    put(code, 37);
    SHOW(process_vm_writev(getpid(), &mine, 1, &theirs, 1, 0));
    say(p);
}

SUBCASE(shared_memory_segment)
{
    int id = shmget(IPC_PRIVATE, PAGE, 0600);
    unsigned char *w = shmat(id, NULL, 0), *volatile x = shmat(id, NULL, SHM_EXEC);
    shmctl(id, IPC_RMID, NULL);
    put(w, 38);
    TRY(say(x));
    TRY(say(w));
    put(w, 39);
    say(x);
    put_asking(w);
    say(x);
    SHOW(shmdt(x));
    TRY(say(x));
    x = shmat(id, NULL, SHM_EXEC | SHM_RDONLY);
    TRY(put(x, 40));
    say(x);
    unsigned char *over = anonymous(1, RWX);
    put(over, 41);
    say(over);
    SHOW(shmat(id, over, SHM_REMAP | SHM_EXEC) == over);
    say(over);
}

/* Calls that fail leave the code where it is. */
SUBCASE(failed_calls_over_code)
{
    unsigned char *p = anonymous(4, RWX);
    put(p, 60);
    say(p);
    SHOW(mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, 999, 0) == MAP_FAILED);
    say(p);
    SHOW(mremap((void *)PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGE) == MAP_FAILED);
    say(p);
    SHOW(mprotect(p, PAGE, 64));
    say(p);
    munmap(p + 2 * PAGE, PAGE);
    SHOW(mprotect(p, 3 * PAGE, PROT_READ));
    TRY(say(p));
    int fd = open("/proc/self/exe", O_RDONLY);
    unsigned char *q = map(1, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    SHOW(mprotect(q, PAGE, PROT_WRITE));
    SHOW(mprotect((void *)((uintptr_t)call & ~(uintptr_t)(PAGE - 1)), PAGE, PROT_READ | 64));
    SHOW(mprotect((void *)((uintptr_t)call & ~(uintptr_t)(PAGE - 1)), PAGE, PROT_READ | PROT_GROWSUP));
    put(p + 3 * PAGE, 61);
    say(p + 3 * PAGE);
}

SUBCASE(sealed_code)
{
    unsigned char *p = anonymous(2, PROT_READ | PROT_WRITE);
    put(p, 62);
    mprotect(p, PAGE, PROT_READ | PROT_EXEC);
    say(p);
    SHOW(syscall(462 /* mseal */, p, PAGE, 0));
    SHOW(munmap(p, PAGE));
    say(p);
    SHOW(mprotect(p, PAGE, RWX));
    say(p);
    SHOW(mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED);
    say(p);
    SHOW(mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGE) == MAP_FAILED);
    say(p);
    SHOW(madvise(p, PAGE, MADV_DONTNEED));
}

SUBCASE(sealed_and_rewritten)
{
    unsigned char *p = anonymous(1, RWX);
    put(p, 73);
    say(p);
    syscall(462, p, PAGE, 0); /* refused or not, it is code that can be written */
    for (int i = 0; i < 5; i++) {
        put(p, 74 + i);
        say(p);
    }
}

SUBCASE(views_that_move)
{
    int fd = file_with(63);
    unsigned char *x = map(1, PROT_READ | PROT_EXEC, MAP_SHARED, fd), *w = map(1, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    say(x);
    unsigned char *to = anonymous(1, PROT_NONE);
    MUST(mremap(w, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
    for (int i = 0; i < 5; i++) {
        put(to, 64 + i);
        say(x);
    }
    unsigned char *there = anonymous(1, PROT_NONE);
    MUST(mremap(x, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, there) == there);
    say(there);
    put(to, 70);
    say(there);
    unsigned char *again = mremap(to, 0, PAGE, MREMAP_MAYMOVE);
    MUST(again != MAP_FAILED);
    put(again, 71);
    say(there);
    put(to, 72);
    say(there);
    TRY(say(x));
}

SUBCASE(on_the_stack)
{
    unsigned char room[2 * PAGE], *code = (unsigned char *)(((uintptr_t)room + PAGE - 1) & ~(uintptr_t)(PAGE - 1));
    put(code, 39);
    TRY(say(code));
    MUST(mprotect(code, PAGE, RWX) == 0);
    say(code);
    put(code, 40);
    say(code);
}

SUBCASE(on_the_heap)
{
    unsigned char *p = aligned_alloc(PAGE, PAGE);
    put(p, 41);
    TRY(say(p));
    mprotect(p, PAGE, RWX);
    say(p);
}

SUBCASE(growing_stack_mapping)
{
    unsigned char *p = map(16, RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1);
    put(p + 15 * PAGE, 42);
    say(p + 15 * PAGE);
}

SUBCASE(protection_key)
{
    unsigned char *p = anonymous(1, RWX);
    put(p, 43);
    int key = pkey_alloc(0, 0);
    if (key >= 0) {
        MUST(pkey_mprotect(p, PAGE, PROT_READ | PROT_EXEC, key) == 0);
        pkey_set(key, PKEY_DISABLE_ACCESS); /* data only: code still runs */
    }
    say(p);
}

SUBCASE(low_addresses)
{
    unsigned char *p = mmap(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    put(p, 44);
    say(p);
    printf("low %d\n", (uintptr_t)p < 1ull << 32);
    p = mmap((void *)0x10000000, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    printf("as asked %d\n", p == (void *)0x10000000);
    put(p, 45);
    say(p);
}

SUBCASE(many_pages_of_code)
{
    enum { N = 600 };
    unsigned char *p = anonymous(N, RWX);
    long sum = 0;
    for (int i = 0; i < N; i++)
        put(p + i * PAGE + i, i);
    for (int i = 0; i < N; i++)
        sum += call(p + i * PAGE + i);
    munmap(p, N * PAGE);
    printf("%ld\n", sum);
}

SUBCASE(block_rewrites_what_follows)
{
    /* movb $9, 1f+1(%rip); 1: mov $1, %eax; ret -- in one page */
    static const unsigned char code[] = {0xc6, 0x05, 0x01, 0, 0, 0, 9, 0xb8, 1, 0, 0, 0, 0xc3};
    unsigned char *p = anonymous(1, RWX);
    memcpy(p, code, sizeof code);
    say(p);
    say(p);
}

SUBCASE(code_changed_by_child)
{
    int fd = file_with(46);
    unsigned char *x = map(1, RWX, MAP_PRIVATE, fd);
    say(x);
    fflush(stdout);
    if (fork() == 0) {
        put(x, 47);
        exit(call(x));
    }
    int status;
    wait(&status);
    print_status("child", status);
    say(x);
}

SUBCASE(large_reservations)
{
    for (int shift = 30; shift <= 44; shift += 2) {
        void *p = mmap(NULL, 1ull << shift, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        printf("%d %d\n", shift, p != MAP_FAILED);
        if (p != MAP_FAILED)
            munmap(p, 1ull << shift);
    }
}

SUBCASE(program_break)
{
    char *start = sbrk(0);
    SHOW(sbrk(1 << 20) == start);
    memset(start, 1, 1 << 20);
    SHOW(brk(start));
    SHOW((char *)sbrk(0) == start);
    for (int i = 0; i < 300; i++)
        MUST(sbrk(65536) != (void *)-1);
    SHOW(brk((void *)(1l << 46)));
}

SUBCASE(errors)
{
    unsigned char *p = anonymous(1, PROT_READ);
    SHOW(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SHOW(mmap(NULL, PAGE, PROT_READ, 0, -1, 0));
    SHOW(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0));
    SHOW(mmap((void *)123, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    SHOW(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 0, 123));
    SHOW(mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    SHOW(mmap((void *)-4096l, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    SHOW(munmap(p + 1, PAGE));
    SHOW(munmap(p, 0));
    SHOW(mprotect(p + 1, PAGE, PROT_READ));
    SHOW(mprotect((void *)PAGE, PAGE, PROT_EXEC));
    SHOW(mprotect(p, PAGE, 64));
    SHOW((long)mremap(p + 1, PAGE, PAGE, 0));
    SHOW((long)mremap(p, PAGE, 0, 0));
    SHOW((long)mremap((void *)PAGE, PAGE, PAGE, MREMAP_MAYMOVE));
    SHOW(madvise(p, PAGE, 12345));
    SHOW(madvise(p + 1, PAGE, MADV_DONTNEED));
    SHOW(msync(p, PAGE, MS_SYNC));
    unsigned char v;
    SHOW(mincore(p, PAGE, &v));
    SHOW(mlock(p, PAGE));
}

/* What the program unmaps is its own to map again: nobody may have moved in meanwhile. */
SUBCASE(place_left_and_taken_back)
{
    enum { N = 3000, BYTES = 64 << 20 };
    unsigned char *mine = map(BYTES / PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    unsigned char *p = anonymous(N, RWX);
    long sum = 0;
    munmap(mine, BYTES);
    for (int i = 0; i < N; i++) {
        put(p + i * PAGE, i);
        sum += call(p + i * PAGE);
    }
    MUST(mmap(mine, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == mine);
    memset(mine, 0xee, BYTES);
    for (int i = 0; i < N; i++) {
        put(p + i * PAGE, i + 1);
        sum += call(p + i * PAGE);
    }
    for (size_t i = 0; i < BYTES; i++)
        sum += mine[i] != 0xee;
    printf("%ld\n", sum);
}

SUBCASE(unmap_hole_in_code)
{
    unsigned char *p = anonymous(3, RWX);
    for (int i = 0; i < 3; i++) {
        put(p + i * PAGE, 50 + i);
        say(p + i * PAGE);
    }
    munmap(p + PAGE, PAGE);
    say(p);
    TRY(say(p + PAGE));
    say(p + 2 * PAGE);
}

static void *caller(void *argument)
{
    volatile int *stop = argument;
    unsigned char *p = (unsigned char *)(uintptr_t)argument + PAGE;
    long wrong = 0;
    while (!*stop) {
        int n = call(p);
        wrong += n < 0 || n > 1000;
    }
    return (void *)wrong;
}

SUBCASE(rewritten_while_another_thread_runs_it)
{
    pthread_t t;
    unsigned char *p = anonymous(2, RWX);
    void *wrong;
    put(p + PAGE, 0);
    pthread_create(&t, NULL, caller, p);
    for (int i = 0; i < 300; i++) {
        __atomic_store_n(p + PAGE + 1, (unsigned char)i, __ATOMIC_SEQ_CST);
        sched_yield();
    }
    *(volatile int *)(void *)p = 1;
    pthread_join(t, &wrong);
    printf("wrong %ld\n", (long)wrong);
}

/* ---- written by another process, which tells nobody ---- */

/* Calls P until it is VALUE, for some seconds; makes no system call but to see the time. */
static int call_until(const unsigned char *p, int value)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        for (int i = 0; i < 1000; i++)
            if (call(p) == value)
                return value;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - start.tv_sec > 5)
            return call(p);
    }
}

/* mov eax, VALUE; ret: the value is one word that is written at once. */
static void put_value(unsigned char *p, int value)
{
    __atomic_store_n((int *)(void *)(p + 1), value, __ATOMIC_SEQ_CST);
}

/* A child writes at W, this process runs what is at X; then the other way round. */
static void written_by_a_child(unsigned char *w, unsigned char *x)
{
    put(w + 3, 1); /* the value is aligned */
    w += 3, x += 3;
    say(x);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        for (int value = 2; value < 6; value++) {
            usleep(20000);
            put_value(w, value);
            call_until(x, 10 * value);
        }
        _exit(call(x));
    }
    for (int value = 2; value < 6; value++) {
        printf("%d\n", call_until(x, value));
        put_value(w, 10 * value);
    }
    int status;
    waitpid(pid, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
}

static volatile bool written_enough;

static void *write_all_the_time(void *page)
{
    for (volatile uint64_t *p = page; !written_enough; p[8]++)
        ;
    return NULL;
}

/* What can be written before the call and after it can be written meanwhile. */
SUBCASE(written_while_made_executable)
{
    pthread_t t;
    char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_create(&t, NULL, write_all_the_time, p);
    for (int i = 0; i < 20000; i++)
        if (mprotect(p, 4096, PROT_READ | PROT_WRITE | (i % 2 ? 0 : PROT_EXEC)) != 0)
            printf("round %d: %d\n", i, errno);
    written_enough = true;
    SHOW(pthread_join(t, NULL));
}

SUBCASE(shared_with_a_child)
{
    unsigned char *p = map(1, RWX, MAP_SHARED | MAP_ANONYMOUS, -1);
    written_by_a_child(p, p);
}

SUBCASE(shared_file_with_a_child)
{
    int fd = file_with(0);
    unsigned char *w = map(1, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    written_by_a_child(w, map(1, PROT_READ | PROT_EXEC, MAP_SHARED, fd));
}

SUBCASE(mapped_by_a_child)
{
    int fd = file_with(1);
    unsigned char *x = map(1, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    say(x);
    pid_t pid = fork();
    if (pid == 0) {
        usleep(50000);
        put(map(1, PROT_READ | PROT_WRITE, MAP_SHARED, fd), 7);
        _exit(0);
    }
    printf("%d\n", call_until(x, 7));
    waitpid(pid, NULL, 0);
}

SUBCASE(shared_segment_with_a_child)
{
    int id = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0700);
    unsigned char *p = shmat(id, NULL, SHM_EXEC);
    shmctl(id, IPC_RMID, NULL);
    if (p == (void *)-1)
        printf("error %d\n", errno);
    else
        written_by_a_child(p, p);
}

/* Its own writes, in the block that runs, and flags over a block's start. */
SUBCASE(shared_and_written_by_itself)
{
    unsigned char *p = map(1, RWX, MAP_SHARED | MAP_ANONYMOUS, -1);
    if (fork() == 0)
        _exit(0);
    static const unsigned char code[] = {
        0xc6, 0x05, 0x08, 0, 0, 0,    5, /* movb $5, 8(%rip): the mov's value below */
        0x39, 0xff,                      /* cmp %edi, %edi */
        0xeb, 0,                         /* jmp to the next */
        0x75, 6,                         /* jne to the last */
        0x31, 0xc0,                      /* (padding) */
        0xb8, 1,    0,    0, 0, 0xc3,    /* mov $1, %eax; ret */
        0xb8, 99,   0,    0, 0, 0xc3,
    };
    memcpy(p, code, sizeof code);
    p[2] = 16 - 7;
    for (int i = 0; i < 3; i++) {
        say(p);
        p[16] = 3;
    }
}
