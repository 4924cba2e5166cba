/* SPDX-License-Identifier: Apache-2.0
 *
 * What the opcode table says of flags, against the processor: every encoding in a large enumeration that claims to write or
 * read flags runs twice from the same random registers and memory. The second run starts with every flag flipped that the table
 * says is not read. Registers, memory and the flags it says are certainly written must come out the same.
 *
 * Encodings that this processor refuses are skipped; a claim that holds only on other processors is not seen here.
 */
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "support.h"

#define TRIALS 24
#define RSP_BIT (1 << 4)
#define MEMORY_BYTES 256

struct state {
    uint64_t r[16]; /* encoding order; r[4] unused */
    uint64_t flags;
};
_Static_assert(offsetof(struct state, flags) == 128, "flags_run uses it");

/* Runs CODE (an instruction and ret) from the state S and stores the state after it. */
void flags_run(struct state *s, const void *code);
__asm__(".text\n"
        ".type flags_run, @function\n"
        "flags_run:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "push %rdi; push %rsi\n"
        "pushq 128(%rdi); popfq\n"
        "mov (%rdi), %rax; mov 8(%rdi), %rcx; mov 16(%rdi), %rdx; mov 24(%rdi), %rbx\n"
        "mov 40(%rdi), %rbp; mov 48(%rdi), %rsi\n"
        "mov 64(%rdi), %r8; mov 72(%rdi), %r9; mov 80(%rdi), %r10; mov 88(%rdi), %r11\n"
        "mov 96(%rdi), %r12; mov 104(%rdi), %r13; mov 112(%rdi), %r14; mov 120(%rdi), %r15\n"
        "mov 56(%rdi), %rdi\n"
        "call *(%rsp)\n"
        "pushfq; push %rdi\n"
        "mov 24(%rsp), %rdi\n"
        "mov %rax, (%rdi); mov %rcx, 8(%rdi); mov %rdx, 16(%rdi); mov %rbx, 24(%rdi)\n"
        "mov %rbp, 40(%rdi); mov %rsi, 48(%rdi)\n"
        "mov %r8, 64(%rdi); mov %r9, 72(%rdi); mov %r10, 80(%rdi); mov %r11, 88(%rdi)\n"
        "mov %r12, 96(%rdi); mov %r13, 104(%rdi); mov %r14, 112(%rdi); mov %r15, 120(%rdi)\n"
        "popq 56(%rdi); popq 128(%rdi)\n"
        "cld; add $16, %rsp\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"
        ".size flags_run, .-flags_run\n");

static struct decoder *decoder;
static uint8_t *code, *memory;
static uint8_t vectors[512] __attribute__((aligned(16))); /* fxsave image */
static uint64_t seed = 1;
static sigjmp_buf refused;
static unsigned tried, skipped, failures;

static void on_trap(int signal)
{
    (void)signal;
    siglongjmp(refused, 1);
}

/* Registers: memory operands are [rbx] and, of string instructions, [rsi] and [rdi]. */
static void random_state(struct state *s, uint8_t *contents)
{
    for (unsigned i = 0; i < 16; i++) {
        s->r[i] = next_random(&seed);
        if (next_random(&seed) & 1)
            s->r[i] &= 0xff; /* small numbers: counts, equal operands, zeroes */
    }
    if (next_random(&seed) & 1)
        s->r[2] = s->r[0];
    s->r[1] &= 0x3f;
    s->r[3] = (uint64_t)memory;
    s->r[6] = (uint64_t)memory + 64;
    s->r[7] = (uint64_t)memory + 128;
    s->flags = (next_random(&seed) & FLAG_ALL) | 0x202;
    for (unsigned i = 0; i < MEMORY_BYTES; i++)
        contents[i] = next_random(&seed) & 1 ? (uint8_t)next_random(&seed) : 0;
}

static void fail(const struct insn *insn, const char *what, uint64_t a, uint64_t b)
{
    char text[128];

    insn_format(decoder, code, insn->length, 0, text, sizeof(text));
    if (failures++ < 40)
        printf("FAIL: %s (%s): %s: %llx and %llx\n", text, insn_opcode_name(insn->opcode), what, (unsigned long long)a,
               (unsigned long long)b);
}

/* Runs the code from the state S and vector registers that are always the same. */
static void run(struct state *s)
{
    __asm__ volatile("fxrstor %0" ::"m"(vectors));
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroupper");
    flags_run(s, code);
}

/* false: refused by the processor. */
static bool run_twice(const struct insn *insn)
{
    struct state start, a, b;
    uint8_t contents[MEMORY_BYTES], after[MEMORY_BYTES];

    random_state(&start, contents);
    if (sigsetjmp(refused, 1))
        return false;
    a = start;
    memcpy(memory, contents, MEMORY_BYTES);
    run(&a);
    memcpy(after, memory, MEMORY_BYTES);

    b = start;
    b.flags ^= (unsigned)FLAG_ALL & ~(unsigned)insn->flags_read;
    memcpy(memory, contents, MEMORY_BYTES);
    run(&b);
    if ((a.flags ^ b.flags) & insn->flags_written)
        fail(insn, "flags it writes", a.flags & FLAG_ALL, b.flags & FLAG_ALL);
    if (memcmp(a.r, b.r, sizeof(a.r)) != 0)
        fail(insn, "registers differ by flags it does not read", a.flags, b.flags);
    if (memcmp(after, memory, MEMORY_BYTES) != 0)
        fail(insn, "memory differs by flags it does not read", a.flags, b.flags);
    return true;
}

static bool is_left_out(const struct insn *insn)
{
    static const char *const names[] = {"RDRAND", "RDSEED", "POPF", "INT"};
    const char *name = insn_opcode_name(insn->opcode);
    size_t length = strlen(name);

    if (insn->class != INSN_NORMAL || (insn->regs_read | insn->regs_written) & RSP_BIT)
        return true;
    if (!insn->flags_read && !insn->flags_written)
        return true;
    if (!strncmp(name, "BT", 2) && !strcmp(name + length - 2, "mr"))
        return true; /* a bit string far beyond what is restored between the runs */
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strncmp(name, names[i], strlen(names[i])))
            return true;
    return false;
}

/* Tries the instruction that the N bytes begin with, followed by random immediates. */
static void try_bytes(const uint8_t *bytes, unsigned n)
{
    struct insn insn;
    unsigned runs = 0;

    memcpy(code, bytes, n);
    for (unsigned i = n; i < 15; i++)
        code[i] = (uint8_t)next_random(&seed) & 0x3f;
    if (insn_decode(decoder, code, 15, 0, &insn) != 0 || is_left_out(&insn))
        return;
    if (insn.modrm_offset && insn.modrm_offset != n - 1)
        return;               /* what should be the opcode is a prefix: the memory operand is anywhere */
    code[insn.length] = 0xc3; /* ret */
    for (unsigned i = 0; i < TRIALS; i++)
        runs += run_twice(&insn);
    tried += runs != 0;
    skipped += runs == 0;
    __asm__ volatile("fninit"); /* the C code may use what the instruction has left: mmx */
}

/* OPCODE with PREFIX, with ModRM bytes for two registers, [rbx] and each /digit. */
static void try_modrm(const uint8_t *prefix, unsigned n)
{
    uint8_t bytes[16];

    memcpy(bytes, prefix, n);
    for (unsigned reg = 0; reg < 8; reg++) {
        bytes[n] = (uint8_t)(0xc0 | reg << 3 | 2);
        try_bytes(bytes, n + 1);
        bytes[n] = (uint8_t)(reg << 3 | 3);
        try_bytes(bytes, n + 1);
    }
}

static void try_legacy(void)
{
    static const uint8_t prefixes[][3] = {{0}, {1, 0x66}, {1, 0x48}, {1, 0xf3}, {2, 0xf3, 0x48}, {2, 0x66, 0xf3}, {1, 0xf2}};
    static const uint8_t maps[][3] = {{0}, {1, 0x0f}, {2, 0x0f, 0x38}, {2, 0x0f, 0x3a}};

    for (unsigned p = 0; p < sizeof(prefixes) / sizeof(prefixes[0]); p++)
        for (unsigned m = 0; m < sizeof(maps) / sizeof(maps[0]); m++)
            for (unsigned opcode = 0; opcode < 256; opcode++) {
                uint8_t bytes[16];
                unsigned n = 0;
                memcpy(bytes, prefixes[p] + 1, prefixes[p][0]);
                n += prefixes[p][0];
                memcpy(bytes + n, maps[m] + 1, maps[m][0]);
                n += maps[m][0];
                bytes[n++] = (uint8_t)opcode;
                try_modrm(bytes, n);
            }
}

/* c4 [R X B map] [W vvvv L pp] opcode */
static void try_vex(void)
{
    for (unsigned map = 1; map <= 3; map++)
        for (unsigned last = 0; last < 16; last++)
            for (unsigned opcode = 0; opcode < 256; opcode++) {
                uint8_t w_l_pp = (uint8_t)((last & 8) << 4 | (last & 7));
                uint8_t bytes[4] = {0xc4, (uint8_t)(0xe0 | map), (uint8_t)(w_l_pp | 0x78), (uint8_t)opcode};
                try_modrm(bytes, 4);
                bytes[2] = w_l_pp | 14 << 3; /* vvvv = rcx */
                try_modrm(bytes, 4);
            }
}

int main(void)
{
    static const int signals[] = {SIGILL, SIGSEGV, SIGFPE, SIGTRAP, SIGBUS};
    struct sigaction action = {.sa_handler = on_trap};

    decoder = decoder_new();
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!decoder || code == MAP_FAILED || memory == MAP_FAILED)
        return 2;
    __asm__ volatile("fxsave %0" : "=m"(vectors));
    for (unsigned i = 160; i < 416; i++) /* xmm0 to xmm15 */
        vectors[i] = (uint8_t)(next_random(&seed) & (i % 3 ? 0xff : 0));
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
    try_legacy();
    try_vex();
    printf("%u encodings run, %u refused, %u failures\n", tried, skipped, failures);
    return failures || tried < 500 ? 1 : 0;
}
