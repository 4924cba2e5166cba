/* SPDX-License-Identifier: Apache-2.0
 *
 * The lockstep checker: runs a program twice under ptrace, native and translated, and compares all general registers and the
 * flags at every app instruction; after every stay in the core the vector registers too. The first difference is reported with
 * both register sets and disassembly of the app and of the code.
 *
 *   lockstep [--blocks] [--perturb N] [--verbose] BDBI [run options...] -- PROG ARGS...
 *
 *   one: BDBI run --native ... PROG ARGS           two: BDBI run [run options; --no-cache] ... PROG ARGS
 *
 * --blocks compares at each block's end only: breakpoints instead of single steps, several times as fast.
 * --perturb N flips a bit of rbx in two at boundary N: the checker must then report just that.
 *
 * What makes the two runs the same: no address randomisation, command lines of equal length (so the stack is at the same
 * place), the same bytes around what is the program's on the stack, the same AT_RANDOM bytes, one CPU, no vdso, system calls as
 * syscalls.c says, rdtsc and its like replayed. One thread; of a fork, the parent. Asynchronous signals are kept from both.
 * Status: 0 the same, 1 a divergence, 2 the checker cannot do it.
 */
#include "tests/lockstep/lockstep.h"

#include <asm/unistd.h>
#include <elf.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

static struct lockstep l;
extern char **environ;

enum { MAX_ARGS = 512, BELOW_BYTES = 16384 };

struct command {
    char *argv[MAX_ARGS];
    int n;
    size_t bytes, own_bytes; /* of all strings; of those in front of the program's */
};

static void add(struct command *c, char *text)
{
    if (c->n >= MAX_ARGS - 1)
        fail("too many arguments");
    c->argv[c->n++] = text;
    c->bytes += strlen(text) + 1;
}

/* "--cache=AAAA" of BYTES in all: the options after it say what is meant. */
static char *padding(size_t bytes)
{
    char *text = calloc(bytes + 1, 1);
    if (!text)
        fail("out of memory");
    memset(text, 'x', bytes);
    memcpy(text, "--cache=/", 9);
    return text;
}

/* Two command lines of the same number of arguments and bytes. Repeating --no-learn changes nothing. */
static void make_commands(char *bdbi, char **options, int noptions, char **program, struct command *one, struct command *two)
{
    static char run[] = "run", native[] = "--native", no_cache[] = "--no-cache", no_learn[] = "--no-learn", end[] = "--";
    enum { PAD_AT = 2, PAD_BYTES = 256 };
    struct command *both[2] = {one, two};
    for (int i = 0; i < 2; i++) {
        add(both[i], bdbi);
        add(both[i], run);
        add(both[i], "");
    }
    add(one, native);
    add(two, no_learn);
    for (int i = 0; i < 2; i++) { /* the native one too: how big cached code is decides on places */
        for (int k = 0; k < noptions; k++)
            add(both[i], options[k]);
        if (noptions == 0)
            add(both[i], no_cache);
    }
    while (one->n != two->n)
        add(one->n < two->n ? one : two, no_learn);
    size_t longer = one->bytes > two->bytes ? one->bytes : two->bytes;
    for (int i = 0; i < 2; i++) {
        both[i]->argv[PAD_AT] = padding(PAD_BYTES + longer - both[i]->bytes);
        add(both[i], end);
        both[i]->own_bytes = both[i]->bytes;
        for (char **p = program; *p; p++)
            add(both[i], *p);
    }
}

/* The guest's stack before its first instruction: fixed random bytes, no vdso. */
static void prepare_stack(struct process *p)
{
    static const uint8_t random[16] = {0x5a, 0x17, 0xc3, 0x08, 0x91, 0xee, 0x42, 0x6d,
                                       0xb0, 0x3f, 0x77, 0x29, 0xd4, 0x88, 0x1c, 0xa6};
    uint64_t at = p->regs.rsp, zero = 0, ignore = AT_IGNORE;
    at += 8 * (process_word(p, at) + 2);
    while (process_word(p, at))
        at += 8;
    for (at += 8;; at += 16) {
        uint64_t type = process_word(p, at);
        if (type == AT_NULL)
            break;
        if (type == AT_RANDOM)
            process_write(p, process_word(p, at + 8), random, sizeof random);
        if (type == AT_SYSINFO_EHDR) {
            process_write(p, at, &ignore, 8);
            process_write(p, at + 8, &zero, 8);
        }
    }
}

/* What is not the program's but can be read by it, and differs: bdbi's own arguments, below argv[0], and what bdbi has left
 * below the stack pointer. Vector code reads a string's whole surroundings, so that a mask register shows them. */
static void same_surroundings(struct process *one, const struct process *two, const struct command *c)
{
    static uint8_t bytes[BELOW_BYTES];
    uint64_t argv0 = process_word(two, two->regs.rsp + 8), own = c->own_bytes;
    const struct {
        uint64_t start, n;
    } areas[] = {{argv0 - own, own}, {two->regs.rsp - BELOW_BYTES, BELOW_BYTES}};
    for (unsigned i = 0; i < 2; i++) {
        if (areas[i].n > sizeof bytes || process_read(two, areas[i].start, bytes, areas[i].n) != areas[i].n ||
            process_write(one, areas[i].start, bytes, areas[i].n) != areas[i].n)
            fail("the stack around the program's own cannot be made the same");
    }
}

/* The kernel writes the number of the CPU into the program's restartable-sequence area: one CPU for all. */
static void stay_on_one_cpu(void)
{
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    if (sched_setaffinity(0, sizeof here, &here) < 0)
        fail("cannot stay on one CPU");
}

/* From the exec of bdbi to the guest's first instruction: the first time through the core's exit. */
static void start(struct process *p, const char *name, struct command *c, uint64_t exit_jump)
{
    process_start(p, name, c->argv, environ);
    process_trap(p, exit_jump);
    process_go(p, RESUME_RUN, 0);
    if (p->stop != STOP_TRAP || p->regs.rip != exit_jump)
        fail("%s: bdbi has not come to the program's first instruction (stop %d)", name, (int)p->stop);
    prepare_stack(p);
}

/* P makes munmap(START, BYTES) by an instruction that is put at SCRATCH meanwhile. */
static void unmap(struct process *p, uint64_t scratch, uint64_t start, uint64_t bytes)
{
    static const uint8_t syscall[2] = {0x0f, 0x05};
    const struct user_regs_struct before = p->regs;
    uint8_t saved[2];
    process_read(p, scratch, saved, sizeof saved);
    process_write(p, scratch, syscall, sizeof syscall);
    p->regs.rip = scratch;
    p->regs.rax = __NR_munmap;
    p->regs.rdi = start;
    p->regs.rsi = bytes;
    p->dirty = true;
    if (process_go(p, RESUME_STEP, 0) != STOP_TRAP || p->regs.rax != 0)
        fail("%s: 0x%lx cannot be unmapped", p->name, (unsigned long)start);
    process_write(p, scratch, saved, sizeof saved);
    p->regs = before;
    p->dirty = true;
}

/* The native process must be able to map wherever the other one has: nothing but the kernel may split the vdso's mappings. */
static void unmap_vdso(struct process *p, uint64_t scratch)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)p->pid);
    FILE *maps = fopen(path, "re");
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long long start, end;
        if ((strstr(line, "[vdso]") || strstr(line, "[vvar")) && sscanf(line, "%llx-%llx", &start, &end) == 2)
            unmap(p, scratch, start, end - start);
    }
    if (maps)
        fclose(maps);
}

static void check_end(void)
{
    if (l.two.stop == STOP_THREAD || l.one.stop == STOP_THREAD) {
        fprintf(stderr,
                "lockstep: the program makes a thread: only programs of one thread can be checked (%lu boundaries agreed)\n",
                (unsigned long)l.boundaries);
        finish(&l, 2);
    }
    if (l.two.stop == STOP_EXEC) {
        fprintf(stderr, "lockstep: the program executes another: checked up to there\n");
        finish(&l, 0);
    }
    if (l.one.stop != STOP_EXIT || l.two.stop != STOP_EXIT || l.one.status != l.two.status)
        diverged_at_end(&l);
    finish(&l, 0);
}

int main(int argc, char **argv)
{
    struct command one = {.n = 0}, two = {.n = 0};
    int at = 1;
    setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1); /* bdbi does not offer it: so that both take glibc's same path */
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (!strcmp(argv[at], "--blocks"))
            l.by_blocks = true;
        else if (!strcmp(argv[at], "--verbose"))
            l.verbose = true;
        else if (!strcmp(argv[at], "--perturb") && at + 1 < argc)
            l.perturb = strtoull(argv[++at], NULL, 10);
        else
            fail("unknown option %s", argv[at]);
    }
    int options = at + 1, end = options;
    while (end < argc && strcmp(argv[end], "--"))
        end++;
    if (end + 1 >= argc)
        fail("usage: lockstep [--blocks] [--perturb N] [--verbose] BDBI [run options...] -- PROG ARGS...");
    for (int i = options; i < end; i++)
        l.instrumented |= !strncmp(argv[i], "--tool", 6);
    make_commands(argv[at], argv + options, end - options, argv + end + 1, &one, &two);
    codemap_init(&l.map, argv[at]);
    l.decoder = decoder_new();
    if (!l.decoder)
        fail("out of memory");
    l.exit_jump = l.map.core.exit_end - 8; /* jmp *%gs:CTX_RESUME */
    stay_on_one_cpu();
    start(&l.one, "native", &one, l.exit_jump);
    unmap_vdso(&l.one, l.map.core.exit_begin);
    start(&l.two, "translated", &two, l.exit_jump);
    same_surroundings(&l.one, &l.two, &two);
    engine_begin(&l);
    if (l.by_blocks)
        run_by_blocks(&l);
    else
        while (step_one_instruction(&l))
            ;
    check_end();
}
