/* SPDX-License-Identifier: Apache-2.0
 *
 * Jumps through tables, by those who stick to the rules and those who do not: indexes beyond the end, entries to the middle of
 * the sequence with other registers, by jump and by a handler's return; every register at every instruction, by trap flag and
 * by signals; tables that the program changes, by all means it has. With an argument: so many rounds between two targets that
 * share a slot of the target cache, for whoever counts lookups.
 */
#include "check.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096
#define MARK 0x1234

extern char __executable_start[];

/* A function of a form: index in rdi, result in rax. Its places; the registers with index and target, and with the table. */
struct form {
    const char *name;
    uint64_t (*call)(uint64_t index);
    /* Goes to a place in it with these two registers, ZF set. */
    uint64_t (*enter)(const char *where, uint64_t target, uint64_t base, uint64_t index);
    uint64_t (*step)(uint64_t index); /* with the trap flag */
    const int32_t *places;            /* from its start; no symbols, which would be block starts: */
    const char *ja, *lea, *load, *add, *jump, *beyond, *end;
    char *table;
    int target, base; /* in a ucontext */
    enum { OFFSETS, POINTERS, JUMP } kind;
};

/* NAME: registers T (t32) and B (b32); the table has four entries, and four more that only who breaks the rules comes to. The
 * third target falls into the fourth. */
/* clang-format off */
#define FUNCTION(NAME, T, T32, B32, DISPATCH)                                                                                  \
    __asm__(".text\n" #NAME ": mov %edi, %" T32 "\n mov $0x1234, %" B32 "\n cmp $3, %" T32 "\n"                               \
            ".L" #NAME "_ja: ja .L" #NAME "_default\n"                                                                                \
            ".L" #NAME "_lea: " DISPATCH                                                                                            \
            ".L" #NAME "_0: lea 100(%rdi), %rax; ret\n"                                                                             \
            ".L" #NAME "_1: lea 200(%rdi), %rax; ret\n"                                                                             \
            ".L" #NAME "_2: add $1000, %rdi\n"                                                                                      \
            ".L" #NAME "_3: lea 300(%rdi), %rax; ret\n"                                                                             \
            ".L" #NAME "_default: mov $-1, %rax; ret\n"                                                                             \
            ".L" #NAME "_beyond: mov $777, %eax; ret\n"                                                                             \
            ".L" #NAME "_end:\n"                                                                                                    \
            #NAME "_step: pushfq; orl $0x100, (%rsp); popfq; call " #NAME "; pushfq; andl $~0x100, (%rsp); popfq; ret\n" \
            ".section .rodata\n .balign 4\n" #NAME "_places:\n" PLACE(NAME, ja) PLACE(NAME, lea) PLACE(NAME, load) PLACE(NAME, add) \
            PLACE(NAME, jump) PLACE(NAME, beyond) PLACE(NAME, end) ".text\n")
#define PLACE(NAME, P) ".long .L" #NAME "_" #P " - " #NAME "\n"
#define ENTER(NAME, T, B)                                                                                                      \
    __asm__(#NAME "_enter: mov %rdi, %r11; mov %rcx, %rdi; push %rsi; push %rdx; pop %" B "; pop %" T                        \
            "; cmp %eax, %eax; jmp *%r11\n")
#define TABLE(NAME, ENTRY)                                                                                                     \
    __asm__(".section .rodata.tables, \"a\"\n .balign 4096\n" #NAME "_table:\n"                                              \
            ENTRY(NAME, 0) ENTRY(NAME, 1) ENTRY(NAME, 2) ENTRY(NAME, 3)                                                        \
            ENTRY(NAME, beyond) ENTRY(NAME, beyond) ENTRY(NAME, beyond) ENTRY(NAME, beyond) ".balign 4096\n.text\n")
#define OFFSET(NAME, TARGET) ".long .L" #NAME "_" #TARGET " - " #NAME "_table\n"
#define POINTER(NAME, TARGET) ".quad .L" #NAME "_" #TARGET "\n"

#define OFFSETS_FORM(NAME, T, T32, B, B32)                                                                                     \
    FUNCTION(NAME, T, T32, B32, "lea " #NAME "_table(%rip), %" B "\n"                                                         \
             ".L" #NAME "_load: movslq (%" B ", %" T ", 4), %" T "\n"                                                             \
             ".L" #NAME "_add: add %" B ", %" T "\n" ".L" #NAME "_jump: jmp *%" T "\n");                                             \
    ENTER(NAME, T, B);                                                                                                         \
    TABLE(NAME, OFFSET)
#define PLACES(NAME)                                                                                                           \
    uint64_t NAME(uint64_t);                                                                                                   \
    uint64_t NAME##_enter(const char *, uint64_t, uint64_t, uint64_t);                                                         \
    uint64_t NAME##_step(uint64_t);                                                                                            \
    extern const int32_t NAME##_places[];                                                                                      \
    extern char NAME##_table[];
#define ROW(NAME, T, B, KIND)                                                                                                  \
    {.name = #NAME, .call = NAME, .enter = NAME##_enter, .step = NAME##_step, .places = NAME##_places, .table = NAME##_table, \
     .target = T, .base = B, .kind = KIND}

OFFSETS_FORM(rax_rcx, "rax", "eax", "rcx", "ecx");
OFFSETS_FORM(rcx_rdx, "rcx", "ecx", "rdx", "edx");
OFFSETS_FORM(rcx_rax, "rcx", "ecx", "rax", "eax");
OFFSETS_FORM(rdx_rcx, "rdx", "edx", "rcx", "ecx");
OFFSETS_FORM(r9_r8, "r9", "r9d", "r8", "r8d");
OFFSETS_FORM(rax_r10, "rax", "eax", "r10", "r10d");
PLACES(rax_rcx) PLACES(rcx_rdx) PLACES(rcx_rax) PLACES(rdx_rcx) PLACES(r9_r8) PLACES(rax_r10)

#ifndef __pic__
#define POINTERS_FORM(NAME, T, T32, B, B32)                                                                                    \
    FUNCTION(NAME, T, T32, B32, "mov $" #NAME "_table, %" B32 "\n"                                                            \
             ".L" #NAME "_load: mov " #NAME "_table(, %" T ", 8), %" T "\n"                                                       \
             ".L" #NAME "_add: mov %rdi, %rsi\n" ".L" #NAME "_jump: jmp *%" T "\n");                                                    \
    ENTER(NAME, T, B);                                                                                                         \
    TABLE(NAME, POINTER)
#define JUMP_FORM(NAME, T, T32, B, B32)                                                                                        \
    FUNCTION(NAME, T, T32, B32, "mov $" #NAME "_table, %" B32 "\n"                                                            \
             ".L" #NAME "_load:\n" ".L" #NAME "_add:\n" ".L" #NAME "_jump: jmp *" #NAME "_table(, %" T ", 8)\n");                          \
    ENTER(NAME, T, B);                                                                                                         \
    TABLE(NAME, POINTER)
POINTERS_FORM(pointers_rax, "rax", "eax", "r8", "r8d");
POINTERS_FORM(pointers_rcx, "rcx", "ecx", "rax", "eax");
JUMP_FORM(jump_rax, "rax", "eax", "rcx", "ecx");
JUMP_FORM(jump_r9, "r9", "r9d", "rcx", "ecx");
PLACES(pointers_rax) PLACES(pointers_rcx) PLACES(jump_rax) PLACES(jump_r9)
#endif

/* ping(rounds): a switch between two targets 8192 bytes apart. */
uint64_t ping(uint64_t rounds);
__asm__(".text\n .globl ping\n"
        "ping: xor %eax, %eax; xor %r9d, %r9d\n"
        ".Lagain: mov %r9d, %edx; and $1, %edx\n"
        "lea ping_table(%rip), %rcx; movslq (%rcx, %rdx, 4), %rdx; add %rcx, %rdx; jmp *%rdx\n"
        ".balign 8192\n"
        ".Lping_0: add $3, %rax; jmp .Lnext\n"
        ".balign 8192\n"
        ".Lping_1: add $5, %rax\n"
        ".Lnext: inc %r9; cmp %rdi, %r9; jb .Lagain; ret\n"
        ".section .rodata.tables, \"a\"\n"
        "ping_table: .long .Lping_0 - ping_table, .Lping_1 - ping_table\n .text\n");

static struct form forms[] = {
    ROW(rax_rcx, REG_RAX, REG_RCX, OFFSETS), ROW(rcx_rdx, REG_RCX, REG_RDX, OFFSETS), ROW(rcx_rax, REG_RCX, REG_RAX, OFFSETS),
    ROW(rdx_rcx, REG_RDX, REG_RCX, OFFSETS), ROW(r9_r8, REG_R9, REG_R8, OFFSETS), ROW(rax_r10, REG_RAX, REG_R10, OFFSETS),
#ifndef __pic__
    ROW(pointers_rax, REG_RAX, REG_R8, POINTERS), ROW(pointers_rcx, REG_RCX, REG_RAX, POINTERS),
    ROW(jump_rax, REG_RAX, REG_RCX, JUMP), ROW(jump_r9, REG_R9, REG_RCX, JUMP),
#endif
};
/* clang-format on */
#define FORMS (sizeof forms / sizeof *forms)

static void find_places(struct form *f)
{
    const char **const at[] = {&f->ja, &f->lea, &f->load, &f->add, &f->jump, &f->beyond, &f->end};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        *at[i] = (const char *)f->call + f->places[i];
}

static uint64_t expected(uint64_t index)
{
    static const uint64_t results[4] = {100, 201, 1302, 303};
    return (uint32_t)index < 4 ? results[(uint32_t)index] + (index - (uint32_t)index) : UINT64_MAX;
}

/* What the register with the target holds after the load, and at the jump. */
static uint64_t loaded(const struct form *f, uint64_t index)
{
    int32_t offset;
    uint64_t pointer;
    if (f->kind == OFFSETS) {
        memcpy(&offset, f->table + 4 * index, 4);
        return (uint64_t)(int64_t)offset;
    }
    memcpy(&pointer, f->table + 8 * index, 8);
    return f->kind == POINTERS ? pointer : index;
}
static uint64_t at_jump(const struct form *f, uint64_t index)
{
    return loaded(f, index) + (f->kind == OFFSETS ? (uint64_t)f->table : 0);
}

static void test_calls(const struct form *f)
{
    static const uint64_t indexes[] = {0, 1, 2, 3, 4, 5, 255, 256, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000001};
    for (int round = 0; round < 50; round++)
        for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++)
            CHECK(f->call(indexes[i]) == expected(indexes[i]));
}

static void test_entries(const struct form *f)
{
    uint64_t table = (uint64_t)f->table, beyond = (uint64_t)f->beyond;
    for (int round = 0; round < 3; round++) {
        CHECK(f->enter(f->ja, 6, table, 1) == 777); /* not above: the comparison was another */
        CHECK(f->enter(f->ja, 2, table, 2) == expected(2));
        CHECK(f->enter(f->lea, 5, 0, 1) == 777);
        CHECK(f->enter(f->load, 7, table, 1) == 777);
        if (f->kind != JUMP) {
            CHECK(f->enter(f->add, f->kind == OFFSETS ? beyond - table : beyond, table, 1) == 777);
            CHECK(f->enter(f->jump, beyond, 0, 1) == 777);
        }
        CHECK(f->call(3) == expected(3));
    }
}

/* ---- every instruction ---- */

static const struct form *now;
static volatile uint64_t hash;
static volatile unsigned seen;
static volatile int meddle; /* which place the handler comes back to with other registers */

static uint64_t relative(uint64_t value)
{
    uint64_t start = (uint64_t)__executable_start;
    return value - start < 1 << 24 ? value - start + (1ull << 40) : value;
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
    const char *pc = (const char *)g[REG_RIP];
    (void)sig;
    (void)info;
    if (pc < (const char *)now->call || pc >= now->end)
        return;
    seen++;
    hash = (hash ^ relative((uint64_t)pc)) * 0x100000001b3ull;
    if (pc >= now->ja) { /* before, there is what the caller left in them */
        for (int i = 0; i < 2; i++)
            hash = (hash ^ relative((uint64_t)g[i ? now->base : now->target])) * 0x100000001b3ull;
        if (pc == now->ja || pc > now->jump) /* between, they are dead, and a tool's counter may change them */
            hash = (hash ^ (g[REG_EFL] & 0x8d5)) * 0x100000001b3ull;
    }
    if ((meddle == 1 && pc == now->load) || (meddle == 2 && pc == now->lea) || (meddle == 3 && pc == now->ja))
        g[now->target] = 5; /* ja: the flags are still those of another index */
    if (meddle == 4 && pc == now->add && now->kind == OFFSETS)
        g[now->target] = now->beyond - now->table;
    if (meddle == 5 && pc == now->jump && now->kind != JUMP)
        g[now->target] = (greg_t)now->beyond;
}

static void test_steps(const struct form *f)
{
    struct sigaction act = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &act, NULL);
    now = f;
    hash = seen = 0;
    for (uint64_t index = 0; index < 5; index++)
        CHECK(f->step(index) == expected(index));
    for (meddle = 1; meddle <= 5; meddle++) {
        bool none = (meddle == 4 && f->kind != OFFSETS) || (meddle == 5 && f->kind == JUMP);
        for (int round = 0; round < 3; round++)
            CHECK(f->step(1) == (none ? expected(1) : 777));
    }
    meddle = 0;
    printf("%s: %u steps, %llx\n", f->name, seen, (unsigned long long)hash);
    signal(SIGTRAP, SIG_DFL);
}

/* ---- signals at any time ---- */

static volatile unsigned hits, wrong;
static volatile uint64_t index_now;

static void on_alarm(int sig, siginfo_t *info, void *context)
{
    const greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    const char *pc = (const char *)g[REG_RIP];
    uint64_t index = index_now, target = (uint64_t)g[now->target], base = (uint64_t)g[now->base];
    (void)sig;
    (void)info;
    if (pc < now->ja || pc >= now->end)
        return;
    hits++;
    bool has_base = pc > now->lea;
    bool good = base == (has_base ? (uint64_t)now->table : MARK);
    if (pc <= now->load)
        good &= target == index;
    else if (pc == now->add && now->add != now->load)
        good &= target == loaded(now, index);
    else
        good &= now->kind == JUMP || now->target == REG_RAX || now->base == REG_RAX || target == at_jump(now, index);
    if (now->base == REG_RAX && pc > now->jump) /* the result */
        good = true;
    wrong += !good;
}

static void test_signals(const struct form *f)
{
    struct sigaction act = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &act, NULL);
    now = f;
    hits = wrong = 0;
    setitimer(ITIMER_REAL, &often, NULL);
    for (uint64_t i = 0; hits < 15; i++) {
        index_now = i & 3;
        CHECK(f->call(i & 3) == expected(i & 3));
    }
    setitimer(ITIMER_REAL, &never, NULL);
    CHECK(wrong == 0);
}

/* ---- tables that change ---- */

static sigjmp_buf back;
static const char *volatile fault_pc;
static void *volatile fault_address;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    fault_pc = (const char *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    fault_address = info->si_addr;
    siglongjmp(back, 1);
}

static void faults(const struct form *f)
{
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &act, NULL);
    if (sigsetjmp(back, 1) == 0) {
        f->call(1);
        CHECK(!"no fault");
    }
    CHECK(fault_pc == f->load);
    CHECK(fault_address == f->table + (f->kind == OFFSETS ? 4 : 8));
}

/* Entry 1 becomes entry 5. */
static void change(const struct form *f, char *table)
{
    unsigned bytes = f->kind == OFFSETS ? 4 : 8;
    memcpy(table + bytes, f->table + 5 * bytes, bytes);
}

static void by_mprotect(const struct form *f)
{
    CHECK(mprotect(f->table, PAGE, PROT_READ | PROT_WRITE) == 0);
    CHECK(f->call(1) == expected(1));
    change(f, f->table);
    CHECK(f->call(1) == 777);
    CHECK(mprotect(f->table, PAGE, PROT_READ) == 0);
    CHECK(f->call(1) == 777);
}

static void by_mmap(const struct form *f)
{
    char copy[PAGE];
    memcpy(copy, f->table, PAGE);
    change(f, copy);
    CHECK(mmap(f->table, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == f->table);
    memcpy(f->table, copy, PAGE);
    CHECK(f->call(1) == 777);
}

static void by_munmap(const struct form *f)
{
    CHECK(munmap(f->table, PAGE) == 0);
    faults(f);
}

static void by_protection(const struct form *f)
{
    CHECK(mprotect(f->table, PAGE, PROT_NONE) == 0);
    faults(f);
    CHECK(mprotect(f->table, PAGE, PROT_READ) == 0);
    CHECK(f->call(1) == expected(1));
}

static void by_memory_file(const struct form *f)
{
    char copy[PAGE];
    int fd = open("/proc/self/mem", O_RDWR);
    memcpy(copy, f->table, PAGE);
    change(f, copy);
    CHECK(pwrite(fd, copy, 64, (off_t)f->table) == 64);
    CHECK(f->call(1) == 777);
}

static void by_mremap(const struct form *f)
{
    char *other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(other, f->table, PAGE);
    change(f, other);
    CHECK(mremap(other, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, f->table) == f->table);
    CHECK(f->call(1) == 777);
}

static void by_mremap_away(const struct form *f)
{
    char *other = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mremap(f->table, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other) == other);
    faults(f);
}

/* The file's own page once more: nothing changes. */
static void by_own_file(const struct form *f)
{
    int fd = open("/proc/self/exe", O_RDONLY);
    off_t offset = f->table - __executable_start;
    CHECK(mmap(f->table, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, offset) == f->table);
    CHECK(f->call(1) == expected(1));
}

/* A page of another file, which cannot be written either. */
static void by_other_file(const struct form *f)
{
    char copy[PAGE];
    int fd = memfd_create("table", 0);
    memcpy(copy, f->table, PAGE);
    change(f, copy);
    CHECK(write(fd, copy, PAGE) == PAGE);
    CHECK(mmap(f->table, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == f->table);
    CHECK(f->call(1) == 777);
}

/* A child does not get it. */
static void by_fork(const struct form *f)
{
    CHECK(madvise(f->table, PAGE, MADV_DONTFORK) == 0);
    CHECK(f->call(1) == expected(1));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        check_failures = 0;
        faults(f);
        _exit(check_failures != 0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* All ways with the first form of each kind, one with the others. */
static void test_changes(const struct form *f)
{
    static bool done[3];
    static void (*const ways[])(const struct form *) = {by_mprotect, by_mmap,        by_munmap,   by_protection, by_memory_file,
                                                        by_mremap,   by_mremap_away, by_own_file, by_other_file, by_fork};
    for (size_t i = 0; i < (done[f->kind] ? 1 : sizeof ways / sizeof *ways); i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            check_failures = 0;
            CHECK(f->call(1) == expected(1));
            ways[i](f);
            CHECK(f->call(7) == expected(7));
            fflush(stdout);
            _exit(check_failures != 0);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        if (status)
            printf("%s: way %zu: status %x\n", f->name, i, status);
    }
    done[f->kind] = true;
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        printf("%llu\n", (unsigned long long)ping(strtoull(argv[1], NULL, 10)));
        return 0;
    }
    for (size_t i = 0; i < FORMS; i++) {
        find_places(&forms[i]);
        test_calls(&forms[i]);
        test_entries(&forms[i]);
        test_steps(&forms[i]);
        test_signals(&forms[i]);
        test_changes(&forms[i]);
    }
    return check_end("tables");
}
