/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs every item of the corpus (corpus.h) with random but reproducible registers, flags, vectors and memory, and prints a line
 * per group of instructions:
 *
 *   PLACE GROUP ITEMS FAULTS HASH
 *
 * The hash is over all state afterwards: general registers, flags, x87, MXCSR, vector and mask registers, memory; after a fault
 * also signal, code, address, trap number, error code and rip. Left out are FOP, FIP and FDP of the x87 unit.
 *
 *   --seed N, --passes N    another or more states per item
 *   --place NAME            file: where the program's file is mapped; low, high: copies in anonymous memory
 *   --group NAME            a line per item of that group
 *   --item N                all state of one item, in and out (--place file unless said)
 *   --no-fault-flags        arithmetic flags at faults are not compared
 */
#include <cpuid.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/ucontext.h>
#include <unistd.h>

#include "corpus.h"

#define ARITHMETIC_FLAGS 0x8d5
#define FLAG_DF 0x400
#define FLAG_AC 0x40000
#define FLAG_ID 0x200000
#define X87_SSE_AVX_AVX512 0xe7u
#define LOW_PLACE 0x20000000ull
#define HIGH_PLACE 0x3000000000ull

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R15 = 15 };

/* Laid out as enter.S says. */
struct io {
    uint64_t gpr[16], flags, item, saved_rsp, saved_fs, components, taken, mxcsr, pad1[9];
    uint64_t out[16], out_flags, pad2[0x1cf];
    uint8_t xsave[4096], out_xsave[4096];
    uint8_t rip[4096];
};
_Static_assert(offsetof(struct io, out) == 0x100 && offsetof(struct io, xsave) == 0x1000 && offsetof(struct io, rip) == 0x3000,
               "enter.S");

extern struct io isa_io;
extern const unsigned char isa_enter[], isa_back_taken[], isa_back_fault[];

struct fault {
    int signal, code;
    uint64_t address, rip, trap, error;
};

struct place {
    const char *name;
    struct io *io;
    uint64_t text;
    bool movable; /* its address differs from run to run */
};

#ifdef __PIE__
/* Too large for a place below 4 GB: there, random values could be taken for this program's addresses. */
char isa_room[400 << 20];
#endif

static struct fault fault;
static struct place place;
static uint32_t offset_of_component[8]; /* in the standard XSAVE layout */
static uint64_t seed = 1;
static bool fault_flags = true;

static uint8_t pristine[ISA_ARENA_BYTES], pristine_rip[ISA_RIP_BYTES];
static uint64_t targets[ISA_ARENA_BYTES / 8]; /* isa_back_taken everywhere: memory of items that jump */
static uint8_t *const arena = (uint8_t *)(uintptr_t)ISA_ARENA;

/* ---- random state ---- */

static uint64_t pointer(void)
{
    return ISA_ARENA + ISA_MIDDLE + (below(4) ? 64 * below(8) : below(600));
}

/* A value of the kinds that instructions tell apart. */
static uint64_t value(void)
{
    static const uint64_t special[] = {0,
                                       1,
                                       0xffffffffffffffff,
                                       0x8000000000000000,
                                       0x7fffffffffffffff,
                                       0x80000000,
                                       0x7fffffff,
                                       0x80008000800080,
                                       0x3ff0000000000000, /* 1.0 */
                                       0x3f8000003f800000,
                                       0x7ff0000000000000, /* infinity */
                                       0xfff8000000000000, /* NaN */
                                       0x7fc000007fa00000,
                                       0x0000000100000001, /* denormals */
                                       0x3fd5555555555555,
                                       0x4049000040490fdb};

    switch (below(8)) {
    case 0:
    case 1:
        return special[below(16)];
    case 2:
        return below(64);
    case 3: { /* a double of middling size */
        double d = (double)(int64_t)next_random() / 4e15;
        uint64_t bits;
        memcpy(&bits, &d, 8);
        return bits;
    }
    case 4: { /* two floats */
        float f[2] = {(float)(int32_t)next_random() / 1e6f, (float)(int32_t)next_random() / 3e7f};
        uint64_t bits;
        memcpy(&bits, f, 8);
        return bits;
    }
    default:
        return next_random();
    }
}

static void fill(void *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t v = value();
        memcpy((uint8_t *)at + i, &v, 8);
    }
}

static void fill_memory(void)
{
    random_state = seed * 77;
    for (size_t i = 0; i < ISA_ARENA_BYTES; i += 8) {
        uint64_t v = below(5) ? value() : pointer();
        memcpy(pristine + i, &v, 8);
    }
    fill(pristine_rip, sizeof pristine_rip);
}

static void make_vectors(struct io *io)
{
    uint8_t *x = io->xsave;
    uint16_t cw = (uint16_t)(0x340 | (below(4) ? 0x3f : below(64)) | below(4) << 10 | (below(3) ? 0x300 : below(4) << 8));
    uint16_t sw = (uint16_t)(below(8) << 11 | (below(8) & 7) << 8);
    uint32_t mxcsr = (below(8) ? 0x1f80 : below(64) << 7) | below(4) << 13 | (below(4) ? 0 : 0x8000) | (below(4) ? 0 : 0x40);

    fill(x + 32, 416 - 32);
    for (int i = 0; i < 8; i++) { /* st(i): mostly normal numbers */
        uint16_t exponent = (uint16_t)(below(8) ? 0x3fff + below(20) - 10 : next_random());
        if (below(6))
            x[32 + 16 * i + 7] |= 0x80;
        memcpy(x + 32 + 16 * i + 8, &exponent, 2);
        memset(x + 32 + 16 * i + 10, 0, 6);
    }
    memcpy(x, &cw, 2);
    memcpy(x + 2, &sw, 2);
    x[4] = (uint8_t)(below(2) ? 0xff : next_random()); /* tags: valid or empty */
    memset(x + 6, 0, 18);
    memcpy(x + 24, &mxcsr, 4);
    memset(x + 512, 0, 64);
    memcpy(x + 512, &io->components, 8);
    if (io->components & 4)
        fill(x + offset_of_component[2], 256);
    if (io->components & 0x20)
        fill(x + offset_of_component[5], 64);
    if (io->components & 0x40)
        fill(x + offset_of_component[6], 512);
    if (io->components & 0x80)
        fill(x + offset_of_component[7], 1024);
    /* vector register 5 has small indexes for gathers */
    for (int i = 0; i < 16; i++) {
        uint32_t index = below(64);
        uint8_t *at = i < 4   ? x + 160 + 5 * 16 + 4 * i
                      : i < 8 ? x + offset_of_component[2] + 5 * 16 + 4 * (i - 4)
                              : x + offset_of_component[6] + 5 * 32 + 4 * (i - 8);
        if ((i < 4 || io->components & 4) && (i < 8 || io->components & 0x40))
            memcpy(at, &index, 4);
    }
}

static void make_registers(struct io *io, const struct isa_item *item)
{
    for (int i = 0; i < 16; i++)
        io->gpr[i] = below(4) ? value() : pointer();
    io->gpr[RBX] = pointer();
    io->gpr[RBP] = pointer();
    io->gpr[RSI] = pointer();
    io->gpr[RDI] = pointer();
    io->gpr[RSP] = ISA_ARENA + ISA_MIDDLE - 0x200 + (below(8) ? 8 * below(64) : below(512));
    if (below(2))
        io->gpr[RCX] = below(20);
    if (item->index != ISA_NO_REG && !(item->flags & ITEM_VSIB))
        io->gpr[item->index] = below(16);
    if (item->base != ISA_NO_REG)
        io->gpr[item->base] = pointer();
    io->flags = 0x202 | (next_random() & ARITHMETIC_FLAGS) | (below(4) ? 0 : FLAG_DF) | (below(24) ? 0 : FLAG_AC) |
                (below(4) ? 0 : FLAG_ID);
}

/* Where an item jumps to is the same in all memory and in most registers; an operand or a stack that is not aligned reads
 * something else. */
static void make_targets(const struct isa_item *item)
{
    uint64_t target = place.text + (uint64_t)(isa_back_taken - isa_text);

    for (size_t i = 0; i < ISA_ARENA_BYTES / 8; i++)
        targets[i] = target;
    for (int i = 0; i < 16; i++)
        if (i != RSP && i != item->base && i != item->index && below(8))
            place.io->gpr[i] = target;
}

static void make_state(const struct isa_item *item, unsigned pass)
{
    struct io *io = place.io;

    random_state = (seed << 32) + pass * 0x1000003ull + item->offset;
    make_vectors(io);
    make_registers(io, item);
    bool jumps = item->flags & ITEM_INDIRECT;
    if (jumps)
        make_targets(item);
    memcpy(arena, jumps ? (uint8_t *)targets : pristine, ISA_ARENA_BYTES);
    memcpy(io->rip, jumps ? (uint8_t *)targets : pristine_rip, ISA_RIP_BYTES);
    if (item->flags & ITEM_POPF)
        arena[io->gpr[RSP] - ISA_ARENA + 1] &= 0xfe; /* TF */
    memset(io->out, 0, sizeof io->out);
    io->out_flags = io->taken = 0;
    io->item = place.text + item->offset;
    fault = (struct fault){0};
}

/* ---- running an item ---- */

void isa_on_fault(int signal, siginfo_t *info, void *context);
void on_fault(int signal, siginfo_t *info, void *context);

/* fs is the item's here: nothing that needs thread-local storage may be called. */
void on_fault(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    const greg_t *g = uc->uc_mcontext.gregs;
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    const uint8_t *fp = (const uint8_t *)uc->uc_mcontext.fpregs;

    fault = (struct fault){
        signal, info->si_code, (uint64_t)info->si_addr, (uint64_t)g[REG_RIP], (uint64_t)g[REG_TRAPNO], (uint64_t)g[REG_ERR]};
    for (int i = 0; i < 16; i++)
        place.io->out[i] = (uint64_t)g[order[i]];
    place.io->out_flags = (uint64_t)g[REG_EFL];
    for (size_t i = 0; i < sizeof place.io->out_xsave; i++)
        place.io->out_xsave[i] = i < 2696 ? fp[i] : 0;
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(place.text + (uint64_t)(isa_back_fault - isa_text));
    uc->uc_mcontext.gregs[REG_EFL] = 0x202;
}

static void run_item(const struct isa_item *item, unsigned pass)
{
    make_state(item, pass);
    void (*enter)(void) = (void (*)(void))(uintptr_t)(place.text + (uint64_t)(isa_enter - isa_text));
    enter();
}

/* ---- results ---- */

/* Addresses of the program where they differ from run to run: as distances. */
static uint64_t normal(uint64_t v)
{
    if (place.movable && v >= place.text && v < (uint64_t)(place.io + 1))
        return v - place.text + 0x7e57000000000000ull;
    return v;
}

static uint64_t hash;

static void mix(uint64_t v)
{
    hash = (hash ^ v) * 0x9e3779b97f4a7c15ull;
    hash ^= hash >> 29;
}

static void mix_words(const void *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t v;
        memcpy(&v, (const uint8_t *)at + i, 8);
        mix(v);
    }
}

static void mix_changes(const uint8_t *now, const uint8_t *before, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64) {
        if (!memcmp(now + i, before + i, 64))
            continue;
        for (size_t j = i; j < i + 64; j += 8) {
            uint64_t v;
            memcpy(&v, now + j, 8);
            mix(j ^ normal(v) << 13 ^ normal(v) >> 51);
        }
    }
}

static void mix_vectors(const uint8_t *x, uint64_t components)
{
    uint64_t head = 0;

    memcpy(&head, x, 5); /* FCW, FSW, FTW */
    mix(head);
    mix_words(x + 24, 8);
    for (int i = 0; i < 8; i++) {
        mix_words(x + 32 + 16 * i, 8);
        mix(x[40 + 16 * i] | (uint64_t)x[41 + 16 * i] << 8);
    }
    mix_words(x + 160, 256);
    if (components & 4)
        mix_words(x + offset_of_component[2], 256);
    if (components & 0x20)
        mix_words(x + offset_of_component[5], 64);
    if (components & 0x40)
        mix_words(x + offset_of_component[6], 512);
    if (components & 0x80)
        mix_words(x + offset_of_component[7], 1024);
}

static uint64_t result_flags(void)
{
    uint64_t flags = place.io->out_flags & ~0x10000ull; /* RF: only in frames */

    return fault.signal && !fault_flags ? flags & ~(uint64_t)ARITHMETIC_FLAGS : flags;
}

/* A jump to a non-canonical address: on which side of it the fault shows differs (docs/limits.md). */
static bool jumped_nowhere(const struct isa_item *item)
{
    return item->flags & ITEM_INDIRECT && fault.signal == SIGSEGV && fault.code == SI_KERNEL;
}

static void mix_result(const struct isa_item *item)
{
    const struct io *io = place.io;
    bool jumps = item->flags & ITEM_INDIRECT;

    if (jumped_nowhere(item))
        return;

    for (int i = 0; i < 16; i++)
        mix(normal(io->out[i]));
    mix(result_flags());
    mix(io->taken);
    mix((uint64_t)fault.signal | (uint64_t)(uint32_t)fault.code << 8 | fault.trap << 40);
    mix(fault.error);
    mix(normal(fault.address));
    mix(normal(fault.rip));
    mix_vectors(io->out_xsave, io->components);
    mix_changes(arena, jumps ? (uint8_t *)targets : pristine, ISA_ARENA_BYTES);
    mix_changes(io->rip, jumps ? (uint8_t *)targets : pristine_rip, ISA_RIP_BYTES);
}

static void print_vectors(const char *what, const uint8_t *x)
{
    printf("%s cw %04x sw %04x tags %02x mxcsr %08x\n", what, x[0] | x[1] << 8, x[2] | x[3] << 8, x[4],
           x[24] | x[25] << 8 | x[26] << 16 | (unsigned)x[27] << 24);
    for (int i = 0; i < 8; i++) {
        printf("%s st%d ", what, i);
        for (int j = 9; j >= 0; j--)
            printf("%02x", x[32 + 16 * i + j]);
        printf("\n");
    }
    for (int i = 0; i < 16; i++) {
        printf("%s zmm%-2d ", what, i);
        for (int j = 31; j >= 0 && place.io->components & 0x40; j--)
            printf("%02x", x[offset_of_component[6] + (unsigned)(32 * i + j)]);
        for (int j = 15; j >= 0 && place.io->components & 4; j--)
            printf("%02x", x[offset_of_component[2] + (unsigned)(16 * i + j)]);
        for (int j = 15; j >= 0; j--)
            printf("%02x", x[160 + 16 * i + j]);
        printf("\n");
    }
    for (int i = 0; i < 16 && place.io->components & 0x80; i++) {
        printf("%s zmm%d ", what, 16 + i);
        for (int j = 63; j >= 0; j--)
            printf("%02x", x[offset_of_component[7] + (unsigned)(64 * i + j)]);
        printf("\n");
    }
    for (int i = 0; i < 8 && place.io->components & 0x20; i++) {
        uint64_t k;
        memcpy(&k, x + offset_of_component[5] + 8 * i, 8);
        printf("%s k%d %016lx\n", what, i, k);
    }
}

static void print_registers(const char *what, const uint64_t *gpr, uint64_t flags)
{
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

    for (int i = 0; i < 16; i++)
        printf("%s %-3s %016lx\n", what, names[i], normal(gpr[i]));
    printf("%s flags %lx\n", what, flags);
}

static void print_changes(const char *name, const uint8_t *now, const uint8_t *before, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t v, old;
        memcpy(&v, now + i, 8);
        memcpy(&old, before + i, 8);
        if (v != old)
            printf("%s+%zx: %016lx, was %016lx\n", name, i, normal(v), old);
    }
}

static void print_item(uint32_t n, unsigned pass)
{
    const struct isa_item *item = &isa_items[n];

    run_item(item, pass);
    printf("item %u of %s, base %d, index %d, flags %d:", n, isa_groups[item->group], (int8_t)item->base, (int8_t)item->index,
           item->flags);
    for (int i = 0; i < item->length; i++)
        printf(" %02x", isa_text[item->offset + (unsigned)i]);
    printf("\n");
    print_registers("in ", place.io->gpr, place.io->flags);
    print_vectors("in ", place.io->xsave);
    if (fault.signal)
        printf("signal %d code %d address %lx trap %lu error %lx rip %lx (item + %ld)\n", fault.signal, fault.code,
               normal(fault.address), fault.trap, fault.error, normal(fault.rip),
               (long)(fault.rip - place.text - item->offset));
    if (place.io->taken)
        printf("taken\n");
    print_registers("out", place.io->out, result_flags());
    print_vectors("out", place.io->out_xsave);
    bool jumps = item->flags & ITEM_INDIRECT;
    print_changes("arena", arena, jumps ? (uint8_t *)targets : pristine, ISA_ARENA_BYTES);
    print_changes("rip", place.io->rip, jumps ? (uint8_t *)targets : pristine_rip, ISA_RIP_BYTES);
}

/* ---- places ---- */

static void *map_or_exit(uint64_t at, size_t bytes, int prot)
{
    void *p = mmap((void *)(uintptr_t)at, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (p == MAP_FAILED) {
        printf("cannot map 0x%lx: %s\n", at, strerror(errno));
        exit(2);
    }
    return p;
}

/* The corpus and its isa_io, copied to anonymous memory at AT. */
static struct place make_copy(const char *name, uint64_t at)
{
    size_t text_bytes = (size_t)(isa_text_end - isa_text);
    uint64_t distance = (uint64_t)&isa_io - (uint64_t)isa_text;
    void *text = map_or_exit(at, text_bytes, PROT_READ | PROT_WRITE);
    struct io *io = map_or_exit(at + distance, sizeof isa_io, PROT_READ | PROT_WRITE);

    memcpy(text, isa_text, text_bytes);
    mprotect(text, text_bytes, PROT_READ | PROT_EXEC);
    io->components = isa_io.components;
    io->mxcsr = isa_io.mxcsr;
    return (struct place){name, io, at, false};
}

static uint64_t find_components(void)
{
    uint32_t a, b, c, d, low, high;

    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE) || !(getauxval(AT_HWCAP2) & 2)) {
        printf("this processor has no XSAVE or no FSGSBASE: not run\n");
        exit(77);
    }
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    for (unsigned i = 2; i < 8; i++)
        if (low >> i & 1) {
            __cpuid_count(0xd, i, a, b, c, d);
            offset_of_component[i] = b;
        }
    return low & X87_SSE_AVX_AVX512;
}

static void handle_signals(void)
{
    static uint8_t stack[65536];
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction act = {.sa_sigaction = isa_on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigaltstack(&alternate, NULL);
    for (int i = 0; i < 5; i++)
        sigaction((int[]){SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP}[i], &act, NULL);
}

static bool runs_here(const struct isa_item *item)
{
    return !(place.movable && item->flags & ITEM_FIXED);
}

static void run_group(uint16_t group, unsigned passes, bool each)
{
    uint64_t items = 0, faults = 0, total = 0;

    for (uint32_t i = 0; i < isa_nitems; i++) {
        const struct isa_item *item = &isa_items[i];
        if (item->group != group || !runs_here(item))
            continue;
        items++;
        for (unsigned pass = 0; pass < passes; pass++) {
            hash = 0;
            run_item(item, pass);
            faults += fault.signal != 0;
            mix_result(item);
            if (each)
                printf("%s %s item %u pass %u signal %d %016lx\n", place.name, isa_groups[group], i, pass, fault.signal, hash);
            total = (total ^ hash) * 0x9e3779b97f4a7c15ull;
        }
    }
    printf("%s %s %lu %lu %016lx\n", place.name, isa_groups[group], items, faults, total);
}

int main(int argc, char **argv)
{
    const char *only_place = NULL, *only_group = NULL;
    long only_item = -1;
    unsigned passes = 1;

    mallopt(M_MMAP_THRESHOLD, 1); /* the heap is at another place each time, in reach of bit offsets */
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--no-fault-flags"))
            fault_flags = false;
        else if (i + 1 == argc)
            return 2;
        else if (!strcmp(argv[i], "--seed"))
            seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--passes"))
            passes = (unsigned)atoi(argv[++i]);
        else if (!strcmp(argv[i], "--place"))
            only_place = argv[++i];
        else if (!strcmp(argv[i], "--group"))
            only_group = argv[++i];
        else if (!strcmp(argv[i], "--item"))
            only_item = atol(argv[++i]);
        else
            return 2;
    }
    isa_io.components = find_components();
    isa_io.mxcsr = 0x1f80;
    handle_signals();
    fill_memory();
    map_or_exit(ISA_ARENA, ISA_ARENA_BYTES, PROT_READ | PROT_WRITE);
    const struct place places[] = {{"file", &isa_io, (uint64_t)isa_text, (uint64_t)isa_text >> 32 != 0},
                                   make_copy("low", LOW_PLACE),
                                   make_copy("high", HIGH_PLACE)};
    for (int i = 0; i < 3; i++) {
        place = places[i];
        if (strcmp(only_place ? only_place : only_item >= 0 ? "file" : place.name, place.name))
            continue;
        if (only_item >= 0) {
            print_item((uint32_t)only_item, passes - 1);
            continue;
        }
        for (uint16_t group = 0; group < isa_ngroups; group++)
            if (!only_group || !strcmp(only_group, isa_groups[group]))
                run_group(group, passes, only_group != NULL);
    }
    return 0;
}
