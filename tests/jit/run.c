/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs emitted code: translates all of the libc that this process uses, maps the result beside it and calls functions there,
 * with and without counting. The smallest core that can be stands in for the real one:
 *
 *   the target cache, empty but for what calls put there, CTX_ENTRY_OTHER and CTX_ENTRY_DIRECT
 *                                         find the target's block; a target outside libc is entered natively
 *   CTX_ENTRY_SYSCALL                     makes the system call
 *   CTX_ENTRY_EVENT                       fails
 *
 * So a translated function that calls back, or returns to this file, goes on natively, and what a test calls runs translated
 * for as long as it stays in libc.
 */
#include <asm/prctl.h>
#include <dlfcn.h>
#include <link.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bdbi/tool.h"
#include "launcher/context.h"
#include "support.h"

#define CTX_STACK 0x200  /* where the stand-in's own stack ends */
#define CTX_RESUME 0x208 /* code address to go on at */
#define CTX_BYTES (CTX_TARGETS + BDBI_TARGET_BYTES)

static struct module module;
static struct jit_output out;
static uint8_t *base; /* of libc */
static uint8_t *code;
static unsigned long lookups, left_libc;
static unsigned failures;

/* Emitted code enters these by jmp; run_lookup(rcx) says where to go. */
void run_entry_lost(void);
void run_entry_other(void);
void run_entry_jump(void);
void run_entry_syscall(void);
void run_entry_cpuid(void);
void run_entry_event(void);
const void *run_lookup(const uint8_t *target);
void run_event(unsigned long event, const void *pc);

/* clang-format off */
__asm__(".text\n"
        "run_entry_other:\n"
        "not %rdx; lea (%rcx,%rdx), %rcx\n"
        "run_entry_lost:\n"
        "mov %gs:0x10, %rdx\n"
        "run_entry_jump:\n"
        "mov %rax, %gs:0x00; mov %rdx, %gs:0x10; mov %rbx, %gs:0x18; mov %rsp, %gs:0x20; mov %rbp, %gs:0x28\n"
        "mov %rsi, %gs:0x30; mov %rdi, %gs:0x38; mov %r8, %gs:0x40; mov %r9, %gs:0x48; mov %r10, %gs:0x50; mov %r11, %gs:0x58\n"
        "mov %rcx, %rdi\n"
        "mov %gs:0x200, %rsp; pushfq; cld\n"
        "call run_lookup\n"
        "mov %rax, %gs:0x208; popfq\n"
        "mov %gs:0x00, %rax; mov %gs:0x08, %rcx; mov %gs:0x10, %rdx; mov %gs:0x20, %rsp\n"
        "mov %gs:0x30, %rsi; mov %gs:0x38, %rdi; mov %gs:0x40, %r8; mov %gs:0x48, %r9; mov %gs:0x50, %r10; mov %gs:0x58, %r11\n"
        "jmp *%gs:0x208\n"
        "run_entry_syscall:\n"
        "mov %r11, %gs:0x208; mov %rcx, %gs:0x08\n"
        "syscall\n"
        "mov %gs:0x08, %rcx\n"
        "jmp *%gs:0x208\n"
        "run_entry_cpuid:\n"
        "mov %rax, %gs:0x208; mov %gs:0x00, %rax; mov %gs:0x08, %rcx\n"
        "cpuid\n"
        "jmp *%gs:0x208\n"
        "run_entry_event:\n"
        "mov %rcx, %rdi; mov %rax, %rsi; and $-16, %rsp; call run_event\n");
/* clang-format on */

/* The guest's vector registers are live here. */
__attribute__((target("general-regs-only"))) const void *run_lookup(const uint8_t *target)
{
    uint64_t offset = (uint64_t)(target - base);
    uint32_t low = 0, high = out.nblocks;

    lookups++;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (out.blocks[middle].app_offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < out.nblocks && out.blocks[low].app_offset == offset)
        return code + out.blocks[low].code_offset;
    left_libc++;
    return target;
}

void run_event(unsigned long event, const void *pc)
{
    printf("FAIL: event %lu at libc + %lx\n", event, (unsigned long)((const uint8_t *)pc - base));
    fflush(stdout);
    _exit(1);
}

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    printf("FAIL: %s\n", what);
    failures++;
}

static void *map_at(void *address, size_t bytes)
{
    void *p = mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* The context, where counters (their address + gs) fall below libc too. */
static uint8_t *make_context(void)
{
    uint8_t *context = mmap(NULL, CTX_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    if (context == MAP_FAILED)
        exit(2);
    *(void **)(context + CTX_ENTRY_OTHER) = (void *)run_entry_other;
    *(void **)(context + CTX_ENTRY_DIRECT) = (void *)run_entry_jump;
    *(void **)(context + CTX_ENTRY_SYSCALL) = (void *)run_entry_syscall;
    *(void **)(context + CTX_ENTRY_CPUID) = (void *)run_entry_cpuid;
    *(void **)(context + CTX_ENTRY_EVENT) = (void *)run_entry_event;
    *(void **)(context + CTX_STACK) = context + CTX_TARGETS;
    if (syscall(SYS_arch_prctl, ARCH_SET_GS, context) != 0)
        exit(2);
    return context;
}

static void weave(struct bdbi_block *block)
{
    bdbi_block_count(block, bdbi_block_offset(block));
}

static const struct bdbi_tool counting = {.name = "run", .weave = weave};

/* Translates libc and maps the code at a free place near it. *COUNTERS: this thread's, or NULL. */
static void translate(struct jit *j, uint8_t *context, const struct bdbi_tool *tool, uint64_t **counters)
{
    struct jit_unit unit = module_unit(&module);
    const size_t room = 64 << 20;

    code = NULL;
    for (int64_t distance = -(512 << 20); !code && distance > -(1536 << 20); distance -= 64 << 20) {
        unit.code_distance = distance;
        code = map_at(base + distance, room);
        *counters = code ? map_at(base + distance + (uint64_t)context, room) : NULL;
        if (code && !*counters) {
            munmap(code, room);
            code = NULL;
        }
    }
    unit.data_distance = (uint64_t)unit.code_distance;
    unit.tool = tool;
    if (!code || jit_translate(j, &unit, &out) != 0 || out.code_bytes > room)
        exit(2);
    memcpy(code, out.code, out.code_bytes);
    mprotect(code, room, PROT_READ | PROT_EXEC);
    for (unsigned pc = 0; pc < BDBI_TARGET_BYTES / 8; pc++)
        *(void **)(context + CTX_TARGET(pc)) = (void *)run_entry_lost;
}

static void *translated(const char *name)
{
    const uint8_t *native = dlsym(RTLD_DEFAULT, name);
    const void *there = run_lookup(native);

    check(there != native, name);
    return (void *)there;
}

static void run_formatting(void)
{
    int (*t_snprintf)(char *, size_t, const char *, ...) = translated("snprintf");
    double (*t_strtod)(const char *, char **) = translated("strtod");
    char got[256], expected[256], *end;

    for (int i = -20; i < 20; i++) {
        double x = 3.14159265358979 * (1 << (i + 20)) / 7 * i;
        int n = snprintf(expected, sizeof(expected), "%d %08x %s %-10.3f %.17g %Lg %a", i, i, "text", x, x, (long double)x, x);
        int m = t_snprintf(got, sizeof(got), "%d %08x %s %-10.3f %.17g %Lg %a", i, i, "text", x, x, (long double)x, x);
        check(n == m && strcmp(got, expected) == 0, "snprintf");
        snprintf(expected, sizeof(expected), "%.17g rest", x);
        check(t_strtod(expected, &end) == x && strcmp(end, " rest") == 0, "strtod");
    }
}

static void run_strings(void)
{
    void *(*t_memmem)(const void *, size_t, const void *, size_t) = translated("memmem");
    char *(*t_strtok)(char *, const char *, char **) = translated("strtok_r");
    long (*t_strtol)(const char *, char **, int) = translated("strtol");
    char text[] = "one,two;three,,four", *save, *word;
    unsigned n = 0;

    check(t_memmem(text, sizeof(text), "three", 5) == text + 8, "memmem");
    check(t_strtol("-0x7fffffff", NULL, 16) == -0x7fffffff, "strtol");
    for (word = t_strtok(text, ",;", &save); word; word = t_strtok(NULL, ",;", &save))
        n++;
    check(n == 4, "strtok_r");
}

static void run_regex(void)
{
    int (*t_regcomp)(regex_t *, const char *, int) = translated("regcomp");
    int (*t_regexec)(const regex_t *, const char *, size_t, regmatch_t *, int) = translated("regexec");
    void (*t_regfree)(regex_t *) = translated("regfree");
    regex_t re;
    regmatch_t match[3];

    check(t_regcomp(&re, "([a-z]+)@([a-z.]+)\\.(org|net)", REG_EXTENDED) == 0, "regcomp");
    check(t_regexec(&re, "<someone@mail.example.org>", 3, match, 0) == 0, "regexec");
    check(match[1].rm_so == 1 && match[2].rm_eo == 21, "what regexec found");
    check(t_regexec(&re, "<nobody>", 3, match, 0) == REG_NOMATCH, "regexec");
    t_regfree(&re);
}

static int compare_ints(const void *a, const void *b)
{
    return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

static void run_memory_and_files(void)
{
    void *(*t_malloc)(size_t) = translated("malloc");
    void (*t_free)(void *) = translated("free");
    void (*t_qsort)(void *, size_t, size_t, int (*)(const void *, const void *)) = translated("qsort");
    FILE *(*t_fopen)(const char *, const char *) = translated("fopen");
    char *(*t_fgets)(char *, int, FILE *) = translated("fgets");
    int (*t_fclose)(FILE *) = translated("fclose");
    pid_t (*t_getpid)(void) = translated("getpid");
    void *blocks[100];
    int numbers[100];
    char line[256] = "", expected[256] = "?";
    FILE *f;

    for (unsigned i = 0; i < 100; i++) {
        blocks[i] = t_malloc(i * 37);
        memset(blocks[i], (int)i, i * 37);
        numbers[i] = (int)(i * 7919 % 100);
    }
    for (unsigned i = 0; i < 100; i++)
        t_free(blocks[i]);
    t_qsort(numbers, 100, sizeof(numbers[0]), compare_ints);
    for (int i = 0; i < 100; i++)
        check(numbers[i] == i, "qsort");
    f = fopen("/proc/self/maps", "r");
    check(f && fgets(expected, sizeof(expected), f) && fclose(f) == 0, "the file");
    f = t_fopen("/proc/self/maps", "r");
    check(f && t_fgets(line, sizeof(line), f) && strcmp(line, expected) == 0, "fgets");
    check(f && t_fclose(f) == 0, "fclose");
    check(t_getpid() == getpid(), "getpid");
}

static void run_all(const char *what)
{
    lookups = left_libc = 0;
    run_formatting();
    run_strings();
    run_regex();
    run_memory_and_files();
    printf("%s: %lu lookups, %lu out of libc\n", what, lookups, left_libc);
    check(lookups > 1000 && left_libc < lookups / 2, "most of it was translated");
}

int main(void)
{
    struct jit *j = jit_new();
    uint8_t *context = make_context();
    struct link_map *libc = dlopen("libc.so.6", RTLD_NOW);
    uint64_t *counters, sum = 0;

    if (!j || !libc)
        return 2;
    base = (uint8_t *)libc->l_addr;
    module_read(&module, libc->l_name);
    module_sweep(&module, jit_decoder(j));

    translate(j, context, NULL, &counters);
    run_all("no tool");
    jit_output_free(&out);

    translate(j, context, &counting, &counters);
    run_all("counting");
    for (uint32_t i = 0; i < out.ncounters; i++)
        sum += counters[i];
    for (uint32_t i = 0; i < out.ncounters; i++)
        if (out.counters[i].info == (uint64_t)((uint8_t *)dlsym(RTLD_DEFAULT, "regexec") - base))
            check(counters[i] == 2, "regexec was called twice");
    printf("%llu blocks executed\n", (unsigned long long)sum);
    check(sum > 10000, "blocks are counted");
    printf("%u failures\n", failures);
    return failures ? 1 : 0;
}
