/* SPDX-License-Identifier: Apache-2.0
 *
 * The proof that a jump can only go through a table of constants (table.c tells what for): what the instructions before it say
 * of the registers, whatever these held before.
 */
#include "jit/table.h"

#include "jit/encode.h"
#include "jit/scan.h"

#define MAX_ENTRIES 0x4000
#define MAX_REGION 24 /* instructions from the load to the jump */
#define MAX_PROOF 32  /* and from the proof's first one */

/* What is known of a register: its value, its low 32, 16 and 8 bits are at most this. */
struct known {
    uint64_t most;
    uint32_t most32;
    uint16_t most16;
    uint8_t most8;
    bool constant; /* it holds the address of OFFSET */
    int64_t offset;
};

struct comparison {
    bool valid;
    unsigned reg, bits;
    uint64_t with;
};

/* A load from a table whose value is in register `site.target`. */
struct candidate {
    bool valid, added;
    struct table_site site;
};

struct proof {
    const struct jit_unit *unit;
    struct known regs[16];
    struct comparison compared;
    struct candidate load;
};

static const struct known unknown = {UINT64_MAX, UINT32_MAX, UINT16_MAX, UINT8_MAX, false, 0};

static struct known at_most(uint64_t most)
{
    return (struct known){
        .most = most,
        .most32 = most < UINT32_MAX ? (uint32_t)most : UINT32_MAX,
        .most16 = most < UINT16_MAX ? (uint16_t)most : UINT16_MAX,
        .most8 = most < UINT8_MAX ? (uint8_t)most : UINT8_MAX,
    };
}

/* The low 32 bits of K, zero-extended. */
static struct known low32(struct known k)
{
    k.most = k.most32;
    k.constant = false;
    return k;
}

/* The operands of an instruction of one of the simple forms. */
struct operands {
    struct scan s;
    const uint8_t *bytes;
    unsigned length, reg, rm;
    bool wide, narrow, memory; /* 64 bits, 16 bits, rm is memory */
};

static struct operands operands_of(const struct insn *insn, const uint8_t *bytes)
{
    struct operands o = {.bytes = bytes, .length = insn->length};

    scan_insn(bytes, insn->length, &o.s);
    o.reg = (o.s.modrm >> 3 & 7) | (o.s.rex & 4) << 1;
    o.rm = (o.s.modrm & 7) | (o.s.rex & 1) << 3;
    o.memory = o.s.modrm_offset && o.s.modrm >> 6 != 3;
    o.wide = o.s.rex & 8;
    o.narrow = o.s.operand16 && !o.wide;
    return o;
}

static int64_t immediate(const struct operands *o, unsigned bytes)
{
    const uint8_t *p = o->bytes + o->length - bytes;
    int32_t v32;
    int16_t v16;

    if (bytes == 1)
        return (int8_t)*p;
    if (bytes == 2) {
        memcpy(&v16, p, 2);
        return v16;
    }
    memcpy(&v32, p, 4);
    return v32;
}

/* Whether register field R of a byte operand is the low byte of register R, not ah, ch, dh or bh. */
static bool is_low_byte(const struct operands *o, unsigned r)
{
    return r < 4 || o->s.rex;
}

/* and r, imm */
static struct known masked(const struct operands *o, int64_t imm)
{
    if (o->wide)
        return imm < 0 ? unknown : at_most((uint64_t)imm);
    return at_most((uint32_t)imm);
}

/* What opcode map 0 says of a register that it writes; *DEST: that register. False: nothing. */
static bool learn_primary(const struct proof *p, const struct operands *o, const struct insn *insn, unsigned *dest,
                          struct known *k)
{
    unsigned group = o->s.modrm >> 3 & 7;

    if (o->narrow)
        return false;
    *k = o->wide ? unknown : at_most(UINT32_MAX);
    switch (o->s.opcode) {
    case 0x8b: /* mov r, r/m */
        *dest = o->reg;
        if (!o->memory)
            *k = o->wide ? p->regs[o->rm] : low32(p->regs[o->rm]);
        return true;
    case 0x89: /* mov r/m, r */
        *dest = o->rm;
        if (!o->memory)
            *k = o->wide ? p->regs[o->reg] : low32(p->regs[o->reg]);
        return !o->memory;
    case 0x8d: /* lea r, m */
        *dest = o->reg;
        if (o->wide && insn->rip_relative && !o->s.address32) {
            k->constant = true;
            k->offset = (int64_t)((uint64_t)insn->rip_target - p->unit->fixed_base);
        }
        return true;
    case 0xb8 ... 0xbf: /* mov r, imm */
        *dest = (o->s.opcode & 7) | (o->s.rex & 1) << 3;
        if (!o->wide) {
            uint32_t imm = (uint32_t)immediate(o, 4);
            *k = at_most(imm);
            k->constant = p->unit->fixed_base != 0;
            k->offset = (int64_t)(imm - p->unit->fixed_base);
        }
        return true;
    case 0x25: /* and eax, imm */
        *dest = RAX;
        *k = masked(o, immediate(o, 4));
        return true;
    case 0x05: /* add eax, imm and the other five but cmp */
    case 0x0d:
    case 0x15:
    case 0x1d:
    case 0x2d:
    case 0x35:
        *dest = RAX;
        return true;
    case 0x81:
    case 0x83: /* add r/m, imm ... */
        *dest = o->rm;
        if (group == 4)
            *k = masked(o, immediate(o, o->s.opcode == 0x83 ? 1 : 4));
        return !o->memory && group != 7;
    case 0x01: /* add r/m, r ... */
    case 0x09:
    case 0x11:
    case 0x19:
    case 0x21:
    case 0x29:
    case 0x31:
        *dest = o->rm;
        return !o->memory;
    case 0x03: /* add r, r/m ... */
    case 0x0b:
    case 0x13:
    case 0x1b:
    case 0x23:
    case 0x2b:
    case 0x33:
    case 0x69: /* imul r, r/m, imm */
    case 0x6b:
        *dest = o->reg;
        return true;
    case 0xc1: /* rotations and shifts */
        *dest = o->rm;
        if (group == 5) {
            unsigned n = (unsigned)immediate(o, 1) & (o->wide ? 63 : 31);
            *k = at_most((o->wide ? UINT64_MAX : UINT32_MAX) >> n);
        }
        return !o->memory;
    case 0xf7: /* not, neg */
        *dest = o->rm;
        return !o->memory && (group == 2 || group == 3);
    case 0xff: /* inc, dec */
        *dest = o->rm;
        return !o->memory && group <= 1;
    default:
        return false;
    }
}

/* The same for map 0F. */
static bool learn_0f(const struct proof *p, const struct operands *o, unsigned *dest, struct known *k)
{
    if (o->s.operand16)
        return false;
    *dest = o->reg;
    if (o->s.opcode == 0xb6) { /* movzx r, r/m8 */
        *k = at_most(!o->memory && is_low_byte(o, o->rm) ? p->regs[o->rm].most8 : UINT8_MAX);
        return true;
    }
    if (o->s.opcode == 0xb7) { /* movzx r, r/m16 */
        *k = at_most(o->memory ? UINT16_MAX : p->regs[o->rm].most16);
        return true;
    }
    *k = at_most(UINT32_MAX);
    return !o->wide && (o->s.opcode == 0xaf || o->s.opcode == 0xbe || o->s.opcode == 0xbf); /* imul, movsx */
}

/* A comparison of a register with a constant. */
static struct comparison comparison_of(const struct operands *o)
{
    struct comparison c = {.reg = o->rm, .bits = o->wide ? 64 : o->narrow ? 16 : 32};
    bool group = o->s.map == SCAN_PRIMARY && !o->memory && (o->s.modrm >> 3 & 7) == 7;
    int64_t imm;

    if (o->s.map != SCAN_PRIMARY)
        return c;
    if (group && o->s.opcode == 0x83) { /* cmp r, imm8 */
        imm = immediate(o, 1);
    } else if (group && o->s.opcode == 0x81) { /* cmp r, imm */
        imm = immediate(o, o->narrow ? 2 : 4);
    } else if (o->s.opcode == 0x3d) { /* cmp eax, imm */
        c.reg = RAX;
        imm = immediate(o, o->narrow ? 2 : 4);
    } else if (o->s.opcode == 0x3c || (group && o->s.opcode == 0x80 && is_low_byte(o, o->rm))) { /* cmp al, imm; cmp r8, imm */
        c.reg = o->s.opcode == 0x3c ? RAX : o->rm;
        c.bits = 8;
        imm = immediate(o, 1);
    } else {
        return c;
    }
    c.valid = c.bits < 64 || imm >= 0;
    c.with = c.bits < 64 ? (uint64_t)imm & ((1ull << c.bits) - 1) : (uint64_t)imm;
    return c;
}

/* Whether the instruction leaves all flags alone. */
static bool keeps_flags(const struct operands *o)
{
    if (o->s.map == SCAN_0F)
        return o->s.opcode == 0xb6 || o->s.opcode == 0xb7 || o->s.opcode == 0xbe || o->s.opcode == 0xbf;
    if (o->s.map != SCAN_PRIMARY)
        return false;
    switch (o->s.opcode) {
    case 0x50 ... 0x5f: /* push, pop */
    case 0x63:          /* movsxd */
    case 0x88 ... 0x8b: /* mov */
    case 0x8d:          /* lea */
    case 0xb8 ... 0xbf: /* mov r, imm */
        return true;
    default:
        return false;
    }
}

/* The comparison's register is at most MOST. */
static void learn_limit(struct proof *p, uint64_t most)
{
    struct known *k = &p->regs[p->compared.reg];
    uint64_t mask = p->compared.bits == 64 ? UINT64_MAX : (1ull << p->compared.bits) - 1;

    if (most < k->most8 && p->compared.bits >= 8)
        k->most8 = (uint8_t)most;
    if (most < k->most16 && p->compared.bits >= 16)
        k->most16 = (uint16_t)most;
    if (most < k->most32 && p->compared.bits >= 32)
        k->most32 = (uint32_t)most;
    if (most < k->most && k->most <= mask)
        k->most = most;
}

/* A conditional jump that is not taken. */
static void pass_jcc(struct proof *p, const struct operands *o)
{
    unsigned condition = o->s.opcode & 0xf;

    if (!p->compared.valid)
        return;
    if (condition == 0x7) /* ja */
        learn_limit(p, p->compared.with);
    else if (condition == 0x3 && p->compared.with > 0) /* jae */
        learn_limit(p, p->compared.with - 1);
}

const uint8_t *table_constants(const struct jit_unit *unit, int64_t table, uint64_t bytes)
{
    for (uint32_t i = 0; i < unit->nconstants; i++) {
        const struct text_span *c = &unit->constants[i];
        if (table >= c->start && table < c->end && bytes <= c->end - (uint64_t)table)
            return c->bytes + (table - c->start);
    }
    return NULL;
}

/* A memory operand with an index: [base + index*SCALE + disp], base a constant or absent. Makes table, index and count. */
static bool find_table(const struct proof *p, const struct operands *o, unsigned scale, struct table_site *site)
{
    const uint8_t *modrm = o->bytes + o->s.modrm_offset;
    unsigned mod = modrm[0] >> 6, sib, base, index;
    int64_t table = 0;
    int32_t disp = 0;
    uint64_t most;

    if (!o->memory || (modrm[0] & 7) != 4 || o->s.segment || o->s.address32 || o->s.untidy)
        return false;
    sib = modrm[1];
    index = (sib >> 3 & 7) | (o->s.rex & 2) << 2;
    base = (sib & 7) | (o->s.rex & 1) << 3;
    if (1u << (sib >> 6) != scale || index == RSP)
        return false;
    if (mod == 1)
        disp = (int8_t)modrm[2];
    else if (mod == 2 || (sib & 7) == 5)
        memcpy(&disp, modrm + 2, 4);
    if (mod == 0 && (sib & 7) == 5) {
        if (!p->unit->fixed_base)
            return false;
        table = disp - (int64_t)p->unit->fixed_base;
    } else {
        if (!p->regs[base].constant || base == index)
            return false;
        table = p->regs[base].offset + disp;
    }
    most = p->regs[index].most;
    if (most >= MAX_ENTRIES || !table_constants(p->unit, table, (most + 1) * scale))
        return false;
    site->table = (uint32_t)table;
    site->count = (uint32_t)most + 1;
    site->index = index;
    return true;
}

/* A load that may be the one. */
static bool find_load(const struct proof *p, const struct operands *o, struct table_site *site)
{
    if (o->s.map != SCAN_PRIMARY || !o->wide || o->s.lock || o->s.repeat)
        return false;
    if (o->s.opcode == 0x63 && find_table(p, o, 4, site))
        site->kind = TABLE_OFFSETS;
    else if (o->s.opcode == 0x8b && p->unit->linked && find_table(p, o, 8, site))
        site->kind = TABLE_POINTERS;
    else
        return false;
    site->target = o->reg;
    site->scratch = o->reg == RCX ? RAX : RCX;
    return o->reg != RSP;
}

/* add r64, r64: its operands. */
static bool is_add(const struct operands *o, unsigned *to, unsigned *from)
{
    if (o->s.map != SCAN_PRIMARY || !o->wide || o->memory || o->s.lock || (o->s.opcode != 0x01 && o->s.opcode != 0x03))
        return false;
    *to = o->s.opcode == 0x01 ? o->rm : o->reg;
    *from = o->s.opcode == 0x01 ? o->reg : o->rm;
    return true;
}

/* Follows the candidate over an instruction between the load and the jump. */
static void follow_load(struct proof *p, const struct operands *o, const struct insn *insn, uint32_t i)
{
    struct table_site *site = &p->load.site;
    unsigned touched = insn->regs_read | insn->regs_written, to, from;

    if (!p->load.valid)
        return;
    if (site->kind == TABLE_OFFSETS && !p->load.added && is_add(o, &to, &from) && to == site->target && from != to &&
        p->regs[from].constant) {
        p->load.added = true;
        site->add = i;
        site->addend = p->regs[from].offset;
        return;
    }
    if (insn->class != INSN_NORMAL || i - site->load > MAX_REGION || (insn->regs_written >> site->target & 1) ||
        (touched >> site->scratch & 1))
        p->load.valid = false;
}

/* What INSN, number I of the list, makes of what is known. */
static void step(struct proof *p, const struct insn *insn, const uint8_t *bytes, uint32_t i)
{
    struct operands o = operands_of(insn, bytes);
    struct candidate load = {.site.load = i};
    struct known k = unknown;
    unsigned dest = 0;
    bool learnt = false;

    if (insn->class == INSN_JCC) {
        pass_jcc(p, &o);
        p->load.valid = false;
        return;
    }
    if (insn->class == INSN_NORMAL)
        load.valid = find_load(p, &o, &load.site);
    follow_load(p, &o, insn, i);
    if (load.valid)
        p->load = load;
    if (!o.s.untidy && !o.s.repeat && insn->class == INSN_NORMAL)
        learnt = o.s.map == SCAN_PRIMARY ? learn_primary(p, &o, insn, &dest, &k)
                 : o.s.map == SCAN_0F    ? learn_0f(p, &o, &dest, &k)
                                         : false;
    for (unsigned r = 0; r < 16; r++)
        if (insn->regs_written >> r & 1)
            p->regs[r] = unknown;
    if (learnt && insn->regs_written >> dest & 1)
        p->regs[dest] = k;
    if (!keeps_flags(&o) || o.s.repeat || (insn->regs_written >> p->compared.reg & 1))
        p->compared = o.s.untidy ? (struct comparison){0} : comparison_of(&o);
}

/* The jump: through memory, or to a register that a candidate is about. */
static bool prove_jump(struct proof *p, const struct insn *insn, const uint8_t *bytes, uint32_t i, struct table_site *site)
{
    struct operands o = operands_of(insn, bytes);

    if (insn->class != INSN_JMP_IND || o.s.map != SCAN_PRIMARY || o.s.opcode != 0xff)
        return false;
    if (o.memory) {
        *site = (struct table_site){.kind = TABLE_JUMP, .load = i};
        if (!p->unit->linked || !find_table(p, &o, 8, site))
            return false;
    } else {
        *site = p->load.site;
        if (!p->load.valid || o.rm != site->target || p->load.added != (site->kind == TABLE_OFFSETS))
            return false;
    }
    site->jump = i;
    return true;
}

bool table_prove(const struct jit_unit *unit, struct text *text, const struct insn *insns, uint32_t from, uint32_t n,
                 struct table_site *site)
{
    struct proof p = {.unit = unit};

    for (unsigned r = 0; r < 16; r++)
        p.regs[r] = unknown;
    for (uint32_t i = from; i < n; i++) {
        const uint8_t *bytes;
        if (text_bytes(text, insns[i].pc - unit->fixed_base, &bytes) < insns[i].length)
            return false;
        if (i + 1 == n)
            return prove_jump(&p, &insns[i], bytes, i, site);
        step(&p, &insns[i], bytes, i);
    }
    return false;
}

bool jit_table_split(const struct jit_unit *unit, const struct insn *insns, uint32_t n, uint32_t *split)
{
    struct text text = text_of(unit->spans, unit->nspans);
    uint32_t first = n > MAX_PROOF ? n - MAX_PROOF : 0, count = UINT32_MAX;
    struct table_site site;

    /* A byte is below 256 without more ado; what is before it may have compared it with the table's end. */
    for (uint32_t from = n; from-- > first;) {
        if (!table_prove(unit, &text, insns, from, n, &site) || site.count >= count)
            continue;
        *split = (uint32_t)(insns[from].pc + insns[from].length - unit->fixed_base);
        count = site.count;
    }
    return count != UINT32_MAX;
}
