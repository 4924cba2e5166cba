/* SPDX-License-Identifier: Apache-2.0
 *
 * gen_corpus SEED  ->  an assembly file on stdout: the corpus (corpus.h) and its index.
 *
 * Encodings are enumerated, not mnemonics: every opcode byte of every map under every mandatory prefix, W and vector length,
 * with register and memory operands. The translator's decoder says how long an item is; what it does not know is kept too, as a
 * probe (filled up with nops, so that its length does not matter): natively that must not be an instruction either.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "corpus.h"
#include "jit/insn.h"
#include "jit/opcodes.h"
#include "launcher/context.h"

#define MAX_GROUPS 512
#define NOP 0x90

static struct decoder *decoder;
static uint32_t nitems, nexcluded;
static char groups[MAX_GROUPS][24];
static unsigned ngroups;
static bool seen[OPCODE_COUNT];

/* What is not in the corpus, by LLVM's names, and why. Most of it is tested by programs of its own (isa_*.c). */
static const struct {
    const char *prefix, *why;
} excluded[] = {
    {"RDTSC", "time"},
    {"RDPRU", "time"},
    {"RDPMC", "time"},
    {"RDRAND", "random"},
    {"RDSEED", "random"},
    {"RDPID", "processor number"},
    {"CPUID", "processor number"},
    {"LSL", "processor number"},
    {"MONITOR", "waits"},
    {"MWAIT", "waits"},
    {"UMONITOR", "waits"},
    {"UMWAIT", "waits"},
    {"TPAUSE", "waits"},
    {"WRPKRU", "takes the runner's memory away"},
    {"FNSTENV", "stores FIP"},
    {"FSTENV", "stores FIP"},
    {"FNSAVE", "stores FIP"},
    {"FSAVE", "stores FIP"},
    {"FXSAVE", "stores FIP"},
    {"XSAVE", "stores FIP"},
    {"SYSCALL", "a system call"},
    {"INT3", "tested with its neighbours"},
    {"VMCALL", "the hypervisor's"},
    {"VMMCALL", "the hypervisor's"},
    {"VMFUNC", "the hypervisor's"},
    {"MOV16sr", "changes segments"},
    {"MOV16sm", "changes segments"},
    {"MOV32sr", "changes segments"},
    {"MOV64sr", "changes segments"},
    {"POPFS", "changes segments"},
    {"LFS", "changes segments"},
    {"LSS", "changes segments"},
    {"MOV16rs", "the kernel may change ds and es between instructions"},
    {"MOV32rs", "the kernel may change ds and es between instructions"},
    {"MOV64rs", "the kernel may change ds and es between instructions"},
    {"MOV16ms", "the kernel may change ds and es between instructions"},
};

/* One candidate. */
struct candidate {
    uint8_t bytes[32];
    unsigned n;
    unsigned rip_at; /* of a rip-relative disp32; 0: none */
    unsigned rip_offset;
    uint8_t flags, base, index;
};

static void put(struct candidate *c, unsigned byte)
{
    c->bytes[c->n++] = (uint8_t)byte;
}

static void put32(struct candidate *c, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        put(c, value >> 8 * i & 0xff);
}

/* ---- output ---- */

static unsigned group_number(const char *name)
{
    for (unsigned i = ngroups; i--;)
        if (!strcmp(groups[i], name))
            return i;
    if (ngroups == MAX_GROUPS)
        exit(2);
    snprintf(groups[ngroups], sizeof groups[0], "%s", name);
    return ngroups++;
}

static void print_bytes(const uint8_t *bytes, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        printf("%s0x%02x%s", i == from ? ".byte " : ",", bytes[i], i + 1 == to ? "\n" : "");
}

static void emit(const struct candidate *c, unsigned length, const char *group, bool branch)
{
    printf(".type i%u,@function\ni%u:\n", nitems, nitems);
    if (c->rip_at) {
        print_bytes(c->bytes, 0, c->rip_at);
        printf(".long isa_io_rip+%u-(i%u+%u)\n", c->rip_offset, nitems, length);
        print_bytes(c->bytes, c->rip_at + 4, length);
    } else {
        print_bytes(c->bytes, 0, length);
    }
    puts("N");
    if (branch)
        puts("T");
    printf(".pushsection .rodata.items,\"a\"\n.long i%u-isa_text\n.short %u\n.byte %u,%u,%u,%u,0,0\n.popsection\n", nitems,
           group_number(group), length, c->flags, c->base, c->index);
    nitems++;
}

static bool is_excluded(const char *name)
{
    for (unsigned i = 0; i < sizeof excluded / sizeof *excluded; i++)
        if (!strncmp(name, excluded[i].prefix, strlen(excluded[i].prefix)))
            return true;
    return false;
}

/* Shows an address of rip-relative data in another form than 64 bits of its own: cut by lea, or a bit offset added to it. */
static bool shows_rip(const struct insn *i, const char *name)
{
    static const char *const names[] = {"LEA16", "LEA32", "LEA64_32", "BT"};

    for (unsigned n = 0; i->rip_relative && n < 4; n++)
        if (!strncmp(name, names[n], strlen(names[n])))
            return true;
    return false;
}

static bool has_prefix(const struct candidate *c, uint8_t prefix)
{
    for (unsigned i = 0; i < c->n && (c->bytes[i] & 0xf0) != 0x40; i++)
        switch (c->bytes[i]) {
        case 0x66:
        case 0x67:
        case 0xf2:
        case 0xf3:
        case 0xf0:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x26:
        case 0x64:
            if (c->bytes[i] == prefix)
                return true;
            break;
        default:
            return false;
        }
    return false;
}

/* Completes C with an immediate and puts it into the corpus. Returns whether the decoder knows it. PROBE: also if it does not.
 */
static bool add(struct candidate *c, const char *group, bool probe)
{
    struct insn i;
    unsigned known = c->n;

    while (c->n < 15)
        put(c, below(4) ? below(256) : below(8));
    if (insn_decode(decoder, c->bytes, 15, 0, &i) != 0) {
        if (!probe || known > 15)
            return false;
        memset(c->bytes + known, NOP, 15 - known);
        c->flags |= ITEM_UNKNOWN | ITEM_FIXED; /* who knows */
        if (c->rip_at)
            return false;
        emit(c, 15, group, false);
        return false;
    }
    const char *name = insn_opcode_name(i.opcode);
    seen[i.opcode] = true;
    if (i.class == INSN_UNSUPPORTED || i.class == INSN_SYSCALL || i.length < known || is_excluded(name)) {
        nexcluded++;
        return i.length >= known;
    }
    bool branch =
        i.class == INSN_JMP || i.class == INSN_JCC || i.class == INSN_LOOP || i.class == INSN_CALL || i.class == INSN_XBEGIN;
    if (branch) {
        bool rel32 = i.length - known == 4;
        memset(c->bytes + known, 0, 4);
        c->bytes[known] = ISA_NEXT_BYTES;
        if (insn_decode(decoder, c->bytes, 15, 0, &i) != 0 || i.target != i.length + ISA_NEXT_BYTES ||
            i.length - known != (rel32 ? 4 : 1)) {
            fprintf(stderr, "gen_corpus: cannot aim %s\n", name);
            exit(1);
        }
    }
    if (shows_rip(&i, name) || (i.rip_relative && has_prefix(c, 0x67)) || i.class == INSN_CALL || i.class == INSN_CALL_IND)
        c->flags |= ITEM_FIXED;
    if (!strncmp(name, "POPF", 4))
        c->flags |= ITEM_POPF;
    if (i.class == INSN_RET || i.class == INSN_JMP_IND || i.class == INSN_CALL_IND)
        c->flags |= ITEM_INDIRECT;
    emit(c, i.length, group, branch);
    return true;
}

/* ---- operands ---- */

/* A memory operand's parts, chosen before the prefixes that they show in. */
struct operand {
    bool memory, rip;
    uint8_t reg, rm;     /* rm: 0..31 if a register */
    uint8_t base, index; /* ISA_NO_REG: none */
    uint8_t scale, disp; /* disp: bytes of displacement */
    bool vsib;
    int32_t displacement;
};

static int32_t small_displacement(bool one_byte)
{
    static const int16_t aligned[] = {0, 64, -64, 16, 32, -16, 8, -8};
    int range = one_byte ? 256 : 1024;

    return below(2) ? aligned[below(8)] : (int32_t)below((unsigned)range) - range / 2;
}

static struct operand pick_register(uint8_t reg, unsigned nregs)
{
    return (struct operand){.reg = reg, .rm = (uint8_t)below(nregs), .base = ISA_NO_REG, .index = ISA_NO_REG};
}

static struct operand pick_memory(uint8_t reg, bool vsib)
{
    struct operand o = {.memory = true, .reg = reg, .base = ISA_NO_REG, .index = ISA_NO_REG, .vsib = vsib};
    unsigned form = vsib ? 3 + below(2) : below(8);

    if (form < 5)
        o.base = (uint8_t)below(16);
    if (form == 3 || form == 4 || form == 7) {
        do
            o.index = (uint8_t)(vsib ? 5 : below(16));
        while (o.index == 4 || (!vsib && o.index == o.base));
        o.scale = (uint8_t)below(4);
    }
    o.disp = form == 0 || form == 3 ? 0 : form == 1 ? 1 : form == 4 && below(2) ? 1 : 4;
    if (o.disp == 0 && (o.base & 7) == 5)
        o.disp = 1;
    o.displacement = o.disp ? small_displacement(o.disp == 1) : 0;
    o.rip = form == 5;
    if (form >= 6)
        o.displacement += ISA_ARENA + ISA_MIDDLE;
    return o;
}

static void put_modrm(struct candidate *c, const struct operand *o)
{
    unsigned reg = (o->reg & 7u) << 3, mod = o->disp == 4 ? 0x80 : o->disp == 1 ? 0x40 : 0;

    c->base = o->base;
    c->index = o->index;
    if (o->vsib)
        c->flags |= ITEM_VSIB;
    if (!o->memory) {
        put(c, 0xc0 | reg | (o->rm & 7));
        return;
    }
    if (o->rip) {
        put(c, 0x05 | reg);
        c->rip_at = c->n;
        c->rip_offset = below(2) ? 64 * (1 + below(6)) : 64 + below(ISA_RIP_BYTES - 256);
        put32(c, 0x1000);
        return;
    }
    if (o->base == ISA_NO_REG) {
        put(c, 0x04 | reg);
        put(c, (unsigned)o->scale << 6 | (o->index == ISA_NO_REG ? 4u : o->index & 7u) << 3 | 5);
    } else if (o->index != ISA_NO_REG || (o->base & 7) == 4) {
        put(c, mod | 0x04 | reg);
        put(c, (unsigned)o->scale << 6 | (o->index == ISA_NO_REG ? 4u : o->index & 7u) << 3 | (o->base & 7));
    } else {
        put(c, mod | reg | (o->base & 7));
    }
    if (o->disp == 1)
        put(c, (uint8_t)o->displacement);
    else if (o->disp == 4)
        put32(c, (uint32_t)o->displacement);
}

static unsigned high(uint8_t reg)
{
    return reg != ISA_NO_REG && reg >= 8;
}

/* Bits of REX (and, inverted, of VEX and EVEX): R, X, B. */
static unsigned rxb(const struct operand *o)
{
    if (o->memory)
        return (o->reg >> 3 & 1u) << 2 | high(o->index) << 1 | high(o->base);
    return (o->reg >> 3 & 1u) << 2 | (o->rm >> 3 & 1u);
}

static void put_odd_prefixes(struct candidate *c, const struct operand *o)
{
    static const uint8_t ignored[] = {0x2e, 0x36, 0x3e, 0x26};

    if (o && o->memory && !below(12))
        put(c, 0x67);
    if (o && o->memory && !o->rip && !below(12))
        put(c, 0x64);
    else if (!below(24))
        put(c, ignored[below(4)]);
}

/* ---- legacy maps ---- */

struct legacy {
    unsigned map; /* 0: primary; 1: 0F; 2: 0F38; 3: 0F3A */
    uint8_t opcode, mandatory;
    bool w;
};

static void put_opcode(struct candidate *c, const struct legacy *l, const struct operand *o)
{
    unsigned rex = (l->w ? 0x48 : 0) | (o ? rxb(o) : below(3) ? 0 : below(8));

    put_odd_prefixes(c, o);
    if (l->mandatory)
        put(c, l->mandatory);
    if (o && o->memory && l->map < 2 && !below(24))
        put(c, 0xf0);
    if (rex || (o && !below(4)))
        put(c, 0x40 | rex);
    if (l->map)
        put(c, 0x0f);
    if (l->map > 1)
        put(c, l->map == 2 ? 0x38 : 0x3a);
    put(c, l->opcode);
}

static bool try_legacy(const struct legacy *l, const struct operand *o, bool probe)
{
    static const char *const maps[] = {"one", "0f", "0f38", "0f3a"};
    struct candidate c = {.base = ISA_NO_REG, .index = ISA_NO_REG};
    char group[24];

    if (!l->map && (l->opcode & 0xf8) == 0xd8)
        snprintf(group, sizeof group, "x87.%02x", l->opcode);
    else
        snprintf(group, sizeof group, "%s.%xx", maps[l->map], l->opcode >> 4);
    put_opcode(&c, l, o);
    if (o)
        put_modrm(&c, o);
    if (!l->map && l->opcode >= 0xa0 && l->opcode <= 0xa3) { /* moffs */
        put32(&c, ISA_ARENA + ISA_MIDDLE + (uint32_t)small_displacement(false));
        if (!has_prefix(&c, 0x67))
            put32(&c, 0);
    }
    return add(&c, group, probe);
}

static bool is_prefix_byte(unsigned opcode)
{
    switch (opcode) {
    case 0x0f:
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x40 ... 0x4f:
    case 0x62:
    case 0x64 ... 0x67:
    case 0xc4:
    case 0xc5:
    case 0xd5:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return false;
    }
}

/* Whether the decoder reads a ModRM byte after the opcode. */
static bool takes_modrm(const struct legacy *l)
{
    struct candidate c = {.n = 0};
    struct insn i;

    if (l->map > 1)
        return true;
    if (l->mandatory)
        put(&c, l->mandatory);
    if (l->map)
        put(&c, 0x0f);
    put(&c, l->opcode);
    for (unsigned modrm = 0; modrm < 256; modrm += 5) {
        memset(c.bytes + c.n, 0, sizeof c.bytes - c.n);
        c.bytes[c.n] = (uint8_t)modrm;
        if (insn_decode(decoder, c.bytes, 15, 0, &i) == 0)
            return i.modrm_offset != 0;
    }
    return true;
}

static void add_x87(const struct legacy *l)
{
    for (unsigned modrm = 0xc0; modrm < 0x100; modrm++) {
        struct operand o = {.reg = modrm >> 3 & 7, .rm = modrm & 7, .base = ISA_NO_REG, .index = ISA_NO_REG};
        for (int i = 0; i < 2; i++)
            try_legacy(l, &o, true);
    }
    for (unsigned i = 0; i < 48; i++) {
        struct operand o = pick_memory((uint8_t)(i & 7), false);
        try_legacy(l, &o, true);
    }
}

static void add_modrm_opcode(const struct legacy *l, unsigned rounds)
{
    bool all = l->map == 1 && l->opcode == 0x01;
    bool any = false;

    for (unsigned i = 0; i < 8 * rounds; i++) {
        /* The extended registers only where the field is not part of the opcode: both are tried. */
        uint8_t reg = (uint8_t)((i & 7) + (below(3) ? 0 : 8));
        struct operand o = pick_register(reg, 16);
        if (rounds || !below(4))
            any |= try_legacy(l, &o, i == 0 || any);
        o = pick_memory(reg, false);
        any |= try_legacy(l, &o, false);
        for (unsigned rm = 0; all && rm < 8; rm++) {
            o = (struct operand){.reg = i & 7, .rm = (uint8_t)rm, .base = ISA_NO_REG, .index = ISA_NO_REG};
            try_legacy(l, &o, true);
        }
        if (!any && i == 15)
            return;
    }
}

static void add_legacy(unsigned map)
{
    static const struct {
        uint8_t mandatory;
        bool w;
    } forms[] = {{0, false}, {0, true}, {0x66, false}, {0xf3, false}, {0xf2, false}, {0x66, true}, {0xf3, true}, {0xf2, true}};

    for (unsigned opcode = 0; opcode < 256; opcode++) {
        if ((map == 0 && is_prefix_byte(opcode)) || (map == 1 && (opcode == 0x38 || opcode == 0x3a)))
            continue;
        for (unsigned form = 0; form < 8; form++) {
            struct legacy l = {map, (uint8_t)opcode, forms[form].mandatory, forms[form].w};
            if (map == 0 && (opcode & 0xf8) == 0xd8) {
                if (form == 0)
                    add_x87(&l);
            } else if (takes_modrm(&l)) {
                bool usual = map == 0 ? form < 3 : form < 5;
                if (usual || below(4) == 0)
                    add_modrm_opcode(&l, map > 1 ? 1 : form == 0 ? 2 : 1);
            } else {
                for (unsigned i = 0; i < 3; i++)
                    try_legacy(&l, NULL, i == 0);
            }
        }
    }
}

/* 3DNow!: the opcode is the last byte. */
static void add_3dnow(void)
{
    for (unsigned suffix = 0; suffix < 256; suffix++) {
        struct candidate c = {.base = ISA_NO_REG, .index = ISA_NO_REG};
        struct operand o = suffix & 1 ? pick_memory(below(8) & 7, false) : pick_register(below(8) & 7, 8);
        const struct legacy l = {1, 0x0f, 0, false};
        put_opcode(&c, &l, &o);
        put_modrm(&c, &o);
        put(&c, suffix);
        add(&c, "3dnow", false);
    }
}

/* ---- VEX, XOP, EVEX ---- */

struct vector {
    unsigned map; /* VEX 1..3, XOP 8..10, EVEX 1..3, 5, 6 */
    uint8_t opcode;
    unsigned pp, w, length;
    bool evex, broadcast; /* EVEX.b */
};

static bool is_vsib(const struct vector *v)
{
    return v->map == 2 &&
           ((v->opcode & 0xfc) == 0x90 || (v->evex && ((v->opcode & 0xfc) == 0xa0 || (v->opcode & 0xfe) == 0xc6)));
}

static void put_vex(struct candidate *c, const struct vector *v, const struct operand *o)
{
    unsigned bits = ~rxb(o) & 7, vvvv = below(2) ? 15 : below(16);

    if (v->map == 1 && !v->w && (bits & 3) == 3 && below(2)) {
        put(c, 0xc5);
        put(c, (bits & 4) << 5 | vvvv << 3 | v->length << 2 | v->pp);
    } else {
        put(c, v->map >= 8 ? 0x8f : 0xc4);
        put(c, bits << 5 | v->map);
        put(c, v->w << 7 | vvvv << 3 | v->length << 2 | v->pp);
    }
    put(c, v->opcode);
}

/* R', V' and, for a register operand, X are bits 4 of reg, vvvv and rm. */
static void put_evex(struct candidate *c, const struct vector *v, const struct operand *o)
{
    unsigned bits = ~rxb(o) & 7, vvvv = below(2) ? 31 : below(32), mask = below(2) ? 0 : below(8);
    unsigned zeroing = mask && below(2);

    if (!o->memory && o->rm & 16)
        bits &= 5;
    if (is_vsib(v)) {
        vvvv = 31;
        mask = below(16) ? 1 + below(7) : 0;
        zeroing = 0;
    }
    put(c, 0x62);
    put(c, bits << 5 | (o->reg & 16 ? 0 : 0x10) | v->map);
    put(c, v->w << 7 | (vvvv & 15) << 3 | 4 | v->pp);
    put(c, zeroing << 7 | v->length << 5 | (unsigned)v->broadcast << 4 | (vvvv & 16 ? 8 : 0) | mask);
    put(c, v->opcode);
}

static bool try_vector(const struct vector *v, const struct operand *o, bool probe)
{
    struct candidate c = {.base = ISA_NO_REG, .index = ISA_NO_REG};
    char group[24];

    snprintf(group, sizeof group, "%s%u.%xx", v->evex ? "evex" : v->map >= 8 ? "xop" : "vex", v->map, v->opcode >> 4);
    put_odd_prefixes(&c, o);
    if (v->evex)
        put_evex(&c, v, o);
    else
        put_vex(&c, v, o);
    if (v->map != 1 || v->opcode != 0x77 || v->evex)
        put_modrm(&c, o);
    return add(&c, group, probe);
}

/* Opcodes that ModRM.reg is a part of. */
static bool has_digit(const struct vector *v)
{
    if (v->map == 1)
        return (v->opcode >= 0x71 && v->opcode <= 0x73) || v->opcode == 0xae;
    if (v->map == 9)
        return v->opcode == 0x01 || v->opcode == 0x02 || v->opcode == 0x12;
    return v->map == 2 && (v->opcode == 0xf3 || (v->evex && (v->opcode & 0xfe) == 0xc6));
}

static void add_vector(const struct vector *v)
{
    unsigned nregs = v->evex ? 32 : 16, rounds = has_digit(v) ? 8 : v->evex ? 1 : 2;
    bool any = false;

    for (unsigned i = 0; i < rounds; i++) {
        uint8_t reg = (uint8_t)(has_digit(v) ? i : below(nregs));
        struct operand o = pick_register(reg, nregs);
        any |= try_vector(v, &o, any || (i == 0 && !v->broadcast && v->w + v->length == 0));
        for (int repeat = 0; repeat < (any || i ? 1 : 2); repeat++) {
            o = pick_memory(reg, is_vsib(v));
            any |= try_vector(v, &o, false);
        }
        if (!any && !has_digit(v))
            return;
    }
}

static void add_vectors(unsigned map, bool evex)
{
    for (unsigned opcode = 0; opcode < 256; opcode++)
        for (unsigned form = 0; form < 64; form++) {
            struct vector v = {.map = map,
                               .opcode = (uint8_t)opcode,
                               .pp = form & 3,
                               .w = form >> 2 & 1,
                               .length = form >> 3 & (evex ? 3 : 1),
                               .evex = evex,
                               .broadcast = form >> 5 & 1};
            if (evex ? v.length == 3 && !v.broadcast : form >= 16 || (map >= 8 && v.pp))
                continue;
            add_vector(&v);
        }
}

int main(int argc, char **argv)
{
    static const char *const hand[] = {"stack",  "calls", "branches", "overlap", "prefixes",
                                       "riprel", "traps", "fpe",      "flags",   "system"};
    static const uint8_t evex_maps[] = {1, 2, 3, 5, 6};

    decoder = decoder_new();
    if (argc != 2 || !decoder) {
        fprintf(stderr, "usage: gen_corpus SEED\n");
        return 1;
    }
    random_state = strtoull(argv[1], NULL, 0);
    puts("#include \"corpus.h\"\n"
         ".macro N\njo isa_back\njno isa_back\n.endm\n"
         ".macro T\njo isa_back_taken\njno isa_back_taken\n.endm\n"
         ".section .rodata.items,\"a\"\n.globl isa_items\n.balign 16\nisa_items:\n"
         ".section .text.isa,\"ax\",@progbits\n.globl isa_text\n.balign 4096\nisa_text:\n#include \"enter.S\"");
    for (unsigned i = 0; i < sizeof hand / sizeof *hand; i++)
        printf(".set GROUP_%s, %u\n", hand[i], group_number(hand[i]));
    puts("#include \"hand.S\"");
    for (unsigned map = 0; map < 4; map++)
        add_legacy(map);
    add_3dnow();
    for (unsigned map = 1; map < 4; map++)
        add_vectors(map, false);
    for (unsigned map = 8; map < 11; map++)
        add_vectors(map, false);
    for (unsigned i = 0; i < sizeof evex_maps; i++)
        add_vectors(evex_maps[i], true);
    puts(".balign 4096, 0xcc\n.globl isa_text_end\nisa_text_end:\n.section .rodata\n.balign 8\n.globl isa_nitems, isa_ngroups");
    printf("isa_nitems: .long (isa_items_end - isa_items) / 12\nisa_ngroups: .long %u\n", ngroups);
    for (unsigned i = 0; i < ngroups; i++)
        printf("g%u: .asciz \"%s\"\n", i, groups[i]);
    puts(".section .rodata.items\nisa_items_end:");
    puts(".section .data.rel.ro,\"aw\"\n.balign 8\n.globl isa_groups\nisa_groups:");
    for (unsigned i = 0; i < ngroups; i++)
        printf(".quad g%u\n", i);
    puts(".section .note.GNU-stack,\"\",@progbits");
    unsigned names = 0;
    for (unsigned i = 0; i < OPCODE_COUNT; i++)
        names += seen[i];
    fprintf(stderr, "gen_corpus: %u items in %u groups, %u of LLVM's opcodes, %u candidates excluded\n", nitems, ngroups, names,
            nexcluded);
    return 0;
}
