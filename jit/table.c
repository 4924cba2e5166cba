/* SPDX-License-Identifier: Apache-2.0
 *
 * Switches and computed gotos. A jump whose target comes out of a table that does not change goes through a translated table of
 * the same indexes: no lookup, no target cache, no check where it arrives.
 *
 *   app                              trace                                      translated table, at table + delta
 *     cmp   edx, 10                    cmp    edx, 10
 *     ja    default                    ja     default
 *     lea   rcx, [rip + table]         lea    rcx, [rip + table]
 *     mov   eax, edx                   mov    eax, edx
 *     movsxd rax, [rcx + rax*4]        mov    home(rcx), rcx
 *                                      lea    rcx, [rcx + rax*4]
 *                                      movsxd rax, [rcx]
 *                                      movsxd rcx, [rcx + delta]                  .long code of target - target, ...
 *     add   rax, rcx                   add    rax, home(rcx)
 *     jmp   rax                        lea    rcx, [rcx + rax]
 *                                      jmp    rcx     -> mov rcx, home(rcx); code of target   (the end of its landing)
 *
 * That is right only when the index is below the table's end and the table is this one. Both are proven from instructions that
 * have just run, one after the other. So a trace is a copy of the blocks that hold the proof and the jump, which only the
 * instruction before them falls into: a block H ends with the first instruction of the proof, the trace follows in H's own code
 * and map. Everybody else (a branch to the middle, a signal handler's return, which may come with other registers) finds the
 * blocks themselves, with the jump as usual: the address map leads from app addresses to the block that starts there, and the
 * analyzer makes the instruction behind the proof's first one a leader.
 *
 *   | H: ... cmp | ja default | lea mov movsxd add jmp |  landing | ja default |  landing | lea mov movsxd add jmp |
 *                ^ trace: copies of both                            ^ a leader              ^ a leader
 *
 * That the table does not change is the core's part: an image says which bytes of its module it took for constants, and is
 * detached when the guest makes one of them writable or maps something over it (launcher/memory.c).
 */
#include "jit/table.h"

#include <stdlib.h>

#include "internal/error.h"
#include "jit/encode.h"
#include "jit/scan.h"

#define MAX_ENTRIES 0x4000
#define MAX_REGION 24 /* instructions from the load to the jump */
#define MAX_PROOF 32  /* and from the proof's first one */

/* ---- the proof ---- */

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

/* [TABLE, + COUNT entries of SIZE bytes) is constant. */
static const uint8_t *constants_at(const struct jit_unit *unit, int64_t table, uint64_t bytes)
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
    if (most >= MAX_ENTRIES || !constants_at(p->unit, table, (most + 1) * scale))
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
    else if (o->s.opcode == 0x8b && p->unit->fixed_base && find_table(p, o, 8, site))
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
        if (!p->unit->fixed_base || !find_table(p, &o, 8, site))
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

/* Offset of what entry I of the table at BYTES leads to. */
static int64_t entry_target(const struct jit_unit *unit, enum table_kind kind, int64_t addend, const uint8_t *bytes, uint32_t i)
{
    int32_t offset;
    uint64_t pointer;

    if (kind == TABLE_OFFSETS) {
        memcpy(&offset, bytes + 4ull * i, 4);
        return addend + offset;
    }
    memcpy(&pointer, bytes + 8ull * i, 8);
    return (int64_t)(pointer - unit->fixed_base);
}

static unsigned entry_bytes(enum table_kind kind)
{
    return kind == TABLE_OFFSETS ? 4 : 8;
}

bool table_find(struct emitter *e, const struct insn *insns, uint32_t from, uint32_t n, struct table_site *site)
{
    const struct jit_unit *unit = e->unit;
    const uint8_t *bytes;

    if (!unit->nconstants || !table_prove(unit, &e->text, insns, from, n, site))
        return false;
    bytes = constants_at(unit, site->table, (uint64_t)site->count * entry_bytes(site->kind));
    for (uint32_t i = 0; i < site->count; i++) {
        int64_t target = entry_target(unit, site->kind, site->addend, bytes, i);
        if (target < 0 || leader_find(e->leaders, (uint64_t)target) == LEADER_NONE)
            return false;
    }
    for (uint32_t i = site->load; i < n; i++) /* no registers' homes for that while one is in use */
        if (insns[i].rip_relative && !reaches(e, app_offset(e, (uint64_t)insns[i].rip_target), CODE_RESERVE))
            return false;
    return true;
}

/* ---- emission ---- */

static void put_table_field(struct emitter *e, const struct table_site *site)
{
    struct chunk *c = e->chunk;

    if (!array_reserve(&c->tables, 1)) {
        c->error = -BDBI_ENOMEM;
        return;
    }
    c->tables.at[c->tables.n++] =
        (struct table_ref){(uint32_t)c->code.n, (uint8_t)site->kind, site->table, site->count, site->addend};
    put4(e, 0);
}

/* before: jmp [x*8 + table]
 * after:  jmp [x*8 + translated table] */
static void put_jump_through(struct emitter *e, const struct table_site *site)
{
    if (site->index >= R8)
        put1(e, 0x42); /* REX.X */
    put1(e, 0xff);
    put1(e, 0x24);
    put1(e, 0xc5 | (site->index & 7) << 3); /* no base */
    put_table_field(e, site);
    map_piece(e, STATE_CLEAN);
}

/* before: movsxd r, [b + x*4]   or   mov r, [x*8 + table]; s is rcx, or rax
 * after:  mov home(s), s; lea s, [b + x*4]; movsxd r, [s]; movsxd s, [s + delta] */
static void put_load(struct emitter *e, const struct table_site *site, const struct insn *insn, const uint8_t *bytes)
{
    unsigned s = site->scratch, saved = state_saved((enum gpr)s);
    struct scan scan;

    scan_insn(bytes, insn->length, &scan);
    mov_home_reg(e, (enum gpr)s);
    map_piece(e, STATE_CLEAN);
    put1(e, 0x48 | (scan.rex & 3)); /* lea s, m */
    put1(e, 0x8d);
    put1(e, (scan.modrm & 0xc7) | s << 3);
    put_bytes(e, bytes + scan.modrm_offset + 1, insn->length - scan.modrm_offset - 1u);
    map_piece(e, STATE_CLEAN);
    put1(e, 0x48 | (site->target >= R8 ? 4 : 0)); /* movsxd r, [s]; mov r, [s] */
    put1(e, scan.opcode);
    put1(e, (site->target & 7) << 3 | s);
    map_piece(e, saved);
    map_advance(e, insn->length);
    put1(e, 0x48); /* movsxd s, [s + delta]; mov s, [s + delta]: the next instruction's */
    put1(e, scan.opcode);
    put1(e, 0x80 | s << 3 | s);
    put_table_field(e, site);
    map_piece(e, saved);
}

/* before: add r, s
 * after:  add r, home(s) */
static void put_add(struct emitter *e, const struct table_site *site)
{
    put1(e, 0x65);
    put1(e, 0x48 | (site->target >= R8 ? 4 : 0));
    put1(e, 0x03);
    put1(e, 0x04 | (site->target & 7) << 3);
    put1(e, 0x25);
    put4(e, CTX_GPR + 8 * site->scratch);
    map_piece(e, state_saved((enum gpr)site->scratch));
}

/* before: jmp r
 * after:  lea s, [s + r] (a table of offsets); jmp s
 *    rax: lea rax, [rax + rcx]; mov home(rcx), rcx; mov rcx, rax; mov rax, home(rax); jmp rcx */
static void put_jump(struct emitter *e, const struct table_site *site)
{
    unsigned s = site->scratch, saved = state_saved((enum gpr)s);

    if (site->kind == TABLE_OFFSETS) {
        unsigned base = site->target, index = s;
        put1(e, 0x48 | (base >= R8 ? 1 : 0)); /* lea s, [r + s + 0] */
        put1(e, 0x8d);
        put1(e, 0x44 | s << 3);
        put1(e, index << 3 | (base & 7));
        put1(e, 0);
        map_piece(e, saved);
    }
    if (s == RAX) {
        mov_home_reg(e, RCX);
        map_piece(e, saved);
        put1(e, 0x48); /* mov rcx, rax */
        put1(e, 0x89);
        put1(e, 0xc1);
        map_piece(e, saved);
        saved |= MAP_RCX;
        mov_reg_home(e, RAX);
        map_piece(e, saved);
        saved = MAP_RCX;
    }
    put1(e, 0xff); /* jmp rcx */
    put1(e, 0xe1);
    map_piece(e, saved);
}

/* What is between the load and the jump, with a register in its home. */
static void put_between(struct emitter *e, const struct table_site *site, const struct insn *insn, const uint8_t *bytes)
{
    if (insn->rip_relative) {
        unsigned trailing = insn->length - insn->disp_offset - 4u;
        put_bytes(e, bytes, insn->disp_offset);
        put_rel_app(e, app_offset(e, (uint64_t)insn->rip_target), trailing);
        put_bytes(e, bytes + insn->disp_offset + 4, trailing);
    } else {
        put_bytes(e, bytes, insn->length);
    }
    map_piece(e, state_saved((enum gpr)site->scratch));
}

void table_insn(struct emitter *e, const struct table_site *site, uint32_t i, const struct insn *insn, const uint8_t *bytes)
{
    if (site->kind == TABLE_JUMP) {
        put_jump_through(e, site);
    } else if (i == site->load) {
        put_load(e, site, insn, bytes);
        return;
    } else if (i == site->jump) {
        put_jump(e, site);
    } else if (i == site->add && site->kind == TABLE_OFFSETS && insn->regs_read >> site->scratch & 1) {
        put_add(e, site);
    } else {
        put_between(e, site, insn, bytes);
    }
    map_advance(e, insn->length);
}

/* ---- the tables ---- */

#define ENTRY_BYTES (LANDING_END_BYTES + 5) /* mov rcx, home(rcx); jmp rel32 */
#define TABLE_ALIGN 64                      /* data and code in no cache line together */

static int by_table(const void *a, const void *b)
{
    const struct table_ref *x = a, *y = b;

    if (x->table != y->table)
        return x->table < y->table ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->count != y->count)
        return x->count < y->count ? -1 : 1;
    return (x->addend > y->addend) - (x->addend < y->addend);
}

static int by_leader(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static uint32_t entry_leader(const struct jit_unit *unit, const struct leader_index *leaders, const struct table_ref *t,
                             uint32_t i)
{
    const uint8_t *bytes = constants_at(unit, t->table, (uint64_t)t->count * entry_bytes(t->kind));

    return leader_find(leaders, (uint64_t)entry_target(unit, t->kind, t->addend, bytes, i));
}

static bool collect_tables(struct table_layout *l, const struct chunk *chunks, uint32_t nchunks)
{
    size_t n = 0;

    for (uint32_t i = 0; i < nchunks; i++) {
        const struct chunk *c = &chunks[i];
        if (!array_reserve(&l->tables, c->tables.n))
            return false;
        for (size_t k = 0; k < c->tables.n; k++)
            l->tables.at[l->tables.n++] = c->tables.at[k];
    }
    if (!l->tables.n)
        return true;
    qsort(l->tables.at, l->tables.n, sizeof(*l->tables.at), by_table);
    for (size_t i = 0; i < l->tables.n; i++)
        if (n == 0 || by_table(&l->tables.at[n - 1], &l->tables.at[i]))
            l->tables.at[n++] = l->tables.at[i];
    l->tables.n = n;
    return true;
}

static bool has_landing(const struct chunk *chunks, uint32_t leader)
{
    return chunks[leader / CHUNK_LEADERS].blocks[leader % CHUNK_LEADERS].map_offset & IMAGE_LANDING;
}

/* Targets that need an entry of their own. */
static bool collect_entries(struct table_layout *l, const struct jit_unit *unit, const struct leader_index *leaders,
                            const struct chunk *chunks)
{
    size_t n = 0;

    for (size_t i = 0; i < l->tables.n; i++) {
        const struct table_ref *t = &l->tables.at[i];
        for (uint32_t k = 0; k < t->count && t->kind != TABLE_JUMP; k++) {
            uint32_t leader = entry_leader(unit, leaders, t, k);
            if (has_landing(chunks, leader))
                continue;
            if (!array_reserve(&l->entries, 1))
                return false;
            l->entries.at[l->entries.n++] = leader;
        }
    }
    if (l->entries.n)
        qsort(l->entries.at, l->entries.n, sizeof(*l->entries.at), by_leader);
    for (size_t i = 0; i < l->entries.n; i++)
        if (n == 0 || l->entries.at[n - 1] != l->entries.at[i])
            l->entries.at[n++] = l->entries.at[i];
    l->entries.n = n;
    return true;
}

int tables_place(const struct jit_unit *unit, const struct leader_index *leaders, const struct chunk *chunks, uint32_t nchunks,
                 uint32_t code_bytes, struct table_layout *l)
{
    uint64_t end = code_bytes;

    *l = (struct table_layout){.entries_place = code_bytes, .tables_place = code_bytes, .end = code_bytes};
    if (!collect_tables(l, chunks, nchunks) || !collect_entries(l, unit, leaders, chunks))
        return -BDBI_ENOMEM;
    if (!l->tables.n)
        return 0;
    end = (end + l->entries.n * ENTRY_BYTES + TABLE_ALIGN - 1) & ~(TABLE_ALIGN - 1ull);
    l->tables_place = (uint32_t)end;
    l->constants_start = l->tables.at[0].table;
    for (size_t i = 0; i < l->tables.n; i++) {
        struct table_ref *t = &l->tables.at[i];
        uint32_t bytes = t->count * entry_bytes(t->kind);
        t->at = (uint32_t)end;
        end += (bytes + 7) & ~7u;
        if (t->table + bytes > l->constants_end)
            l->constants_end = t->table + bytes;
    }
    if (end > BDBI_MODULES_BYTES)
        return -BDBI_ETOOBIG;
    l->end = (uint32_t)end;
    return 0;
}

/* Code offset where a jump with the app's rcx in its home arrives for LEADER. */
static uint32_t entry_place(const struct table_layout *l, const struct jit_output *out, uint32_t leader)
{
    const struct image_block *b = &out->blocks[leader];
    const uint32_t *found;

    if (b->map_offset & IMAGE_LANDING)
        return b->code_offset - LANDING_END_BYTES;
    found = bsearch(&leader, l->entries.at, l->entries.n, sizeof(leader), by_leader);
    return l->entries_place + (uint32_t)(found - l->entries.at) * ENTRY_BYTES;
}

static void write_entries(const struct table_layout *l, struct jit_output *out)
{
    for (size_t i = 0; i < l->entries.n; i++) {
        uint32_t at = l->entries_place + (uint32_t)i * ENTRY_BYTES;
        uint32_t distance = out->blocks[l->entries.at[i]].code_offset - (at + ENTRY_BYTES);
        uint8_t bytes[ENTRY_BYTES] = {0x65, 0x48, 0x8b, 0x0c, 0x25, CTX_RCX, 0, 0, 0, 0xe9};
        memcpy(bytes + ENTRY_BYTES - 4, &distance, 4);
        memcpy(out->code + at, bytes, sizeof bytes);
    }
}

static void write_table(const struct jit_unit *unit, const struct leader_index *leaders, const struct table_layout *l,
                        const struct table_ref *t, struct jit_output *out)
{
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t leader = entry_leader(unit, leaders, t, i);
        int64_t place = t->kind == TABLE_JUMP ? out->blocks[leader].code_offset : entry_place(l, out, leader);
        place += unit->code_distance;
        if (t->kind == TABLE_OFFSETS) {
            int32_t value = (int32_t)(place - unit->leaders[leader]);
            memcpy(out->code + t->at + 4ull * i, &value, 4);
        } else {
            uint64_t value = unit->fixed_base + (uint64_t)place;
            memcpy(out->code + t->at + 8ull * i, &value, 8);
        }
    }
}

void tables_write(const struct jit_unit *unit, const struct leader_index *leaders, const struct chunk *chunks, uint32_t nchunks,
                  const struct table_layout *l, struct jit_output *out)
{
    if (l->tables.n)
        memset(out->code + l->entries_place, 0xcc, l->end - l->entries_place);
    write_entries(l, out);
    for (size_t i = 0; i < l->tables.n; i++)
        write_table(unit, leaders, l, &l->tables.at[i], out);
    for (uint32_t i = 0; i < nchunks; i++)
        for (size_t k = 0; k < chunks[i].tables.n; k++) {
            const struct table_ref *r = &chunks[i].tables.at[k];
            const struct table_ref *t = bsearch(r, l->tables.at, l->tables.n, sizeof(*r), by_table);
            int64_t place = unit->code_distance + t->at;
            uint32_t field = (uint32_t)(r->kind == TABLE_JUMP ? place + (int64_t)unit->fixed_base : place - r->table);
            memcpy(out->code + chunks[i].code_place + r->at, &field, 4);
        }
}

void tables_free(struct table_layout *l)
{
    free(l->tables.at);
    free(l->entries.at);
}
