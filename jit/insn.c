/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoding: what LLVM says about an instruction, completed with what it does not say.
 *
 *   bytes -> scan (where the parts are) -> LLVM (opcode, operands, length) -> table by opcode -> struct insn
 *
 * LLVM takes some prefixes for instructions of their own (lock, or a 66 after a REX that does not count) and refuses a few
 * forms that every processor executes. Such bytes are tidied up in a copy: prefixes without effect and lock dropped,
 * undocumented aliases replaced by the documented encoding of the same length. The result's length and offsets are those of the
 * original.
 */
#include "jit/insn.h"

#include <stdlib.h>
#include <string.h>

#include "jit/bridge.h"
#include "jit/opcode_info.h"
#include "jit/opcodes.h"
#include "jit/scan.h"
#include "launcher/context.h"

#include "jit/opcode_table.inc"

#define INSN_MAX_BYTES 15
#define RCX_BIT (1 << 1)

#define MEMO_SLOTS 1024 /* a batch of the JIT has some 300 instructions */
#define MEMO_BYTES 15   /* what a decoding depends on, at most */

/* A decoding, by all that it depends on. */
struct memo {
    uint8_t bytes[MEMO_BYTES];
    uint8_t nbytes; /* 0: empty */
    int result;
    struct insn insn;
};

struct decoder {
    struct bridge *bridge;
    struct memo *memo; /* by the low bits of pc; NULL: nothing is remembered */
};

struct decoder *decoder_new(void)
{
    struct decoder *d = calloc(1, sizeof(*d));

    if (!d)
        return NULL;
    d->bridge = bridge_new();
    if (!d->bridge) {
        free(d);
        return NULL;
    }
    return d;
}

void decoder_free(struct decoder *d)
{
    if (!d)
        return;
    bridge_free(d->bridge);
    free(d->memo);
    free(d);
}

void decoder_remember(struct decoder *d)
{
    if (!d->memo)
        d->memo = calloc(MEMO_SLOTS, sizeof(*d->memo));
}

const char *insn_opcode_name(uint16_t opcode)
{
    return bridge_opcode_name(opcode);
}

static const struct opcode_info *info_of(uint16_t opcode)
{
    return &opcode_table[opcode_rows[opcode]];
}

/* The instruction as LLVM likes it. */
struct tidy {
    uint8_t bytes[INSN_MAX_BYTES];
    uint8_t count;
    uint8_t opcode_offset;
    uint8_t dropped; /* prefix bytes of the original that are not here */
};

/* before: lock 2e 66 48 66 inc ...    after: 66 inc ... */
static void tidy_prefixes(const uint8_t *bytes, size_t bytes_left, const struct scan *s, struct tidy *t)
{
    unsigned start = s->legacy_bytes, n = 0;
    unsigned rest = (bytes_left < INSN_MAX_BYTES ? (unsigned)bytes_left : INSN_MAX_BYTES) - start;

    if (s->address32)
        t->bytes[n++] = 0x67;
    if (s->operand16)
        t->bytes[n++] = 0x66;
    if (s->segment)
        t->bytes[n++] = s->segment;
    if (s->repeat)
        t->bytes[n++] = s->repeat;
    /* Each of these stands for at least one byte before `start`, so the rest fits. */
    memcpy(t->bytes + n, bytes + start, rest);
    t->count = (uint8_t)(n + rest);
    t->dropped = (uint8_t)(start - n);
    t->opcode_offset = (uint8_t)(s->opcode_offset - t->dropped);
}

static void drop_prefix(struct tidy *t, unsigned at)
{
    memmove(t->bytes + at, t->bytes + at + 1, t->count - at - 1u);
    t->count--;
    t->opcode_offset--;
    t->dropped++;
}

/* Drops 66; whether it was there. */
static bool drop_operand16(const struct scan *s, struct tidy *t)
{
    if (s->operand16)
        drop_prefix(t, s->address32); /* tidy_prefixes puts it there */
    return s->operand16;
}

/* Drops F2 or F3; whether it was there. */
static bool drop_repeat(const struct scan *s, struct tidy *t)
{
    if (s->repeat) /* tidy_prefixes puts it last */
        drop_prefix(t, s->legacy_bytes - t->dropped - 1u);
    return s->repeat;
}

/* There are eight mask registers, and VEX.B does not count for them; LLVM takes it for part of their number. The two-byte form
 * (c5) has no B. */
static bool ignore_vex_b(const struct scan *s, uint8_t *opcode, bool three_bytes)
{
    bool first_map = (opcode[-2] & 0x1f) == 1, third_map = (opcode[-2] & 0x1f) == 3;

    if (!three_bytes || (s->modrm & 0xc0) != 0xc0)
        return false;
    switch (s->opcode) {
    case 0x41 ... 0x4b:
    case 0x90 ... 0x93:
    case 0x98:
    case 0x99:
        opcode[-2] |= first_map ? 0x20 : 0; /* stored inverted */
        return first_map;
    case 0x30 ... 0x33:
        opcode[-2] |= third_map ? 0x20 : 0;
        return third_map;
    default:
        return false;
    }
}

/* The same of EVEX.X and EVEX.B where ModRM.rm is a mask register: vpmovm2b..q, vpbroadcastmb2q, vpbroadcastmw2d. */
static bool ignore_evex_xb(const struct scan *s, uint8_t *opcode)
{
    bool mask = s->opcode == 0x28 || s->opcode == 0x38 || s->opcode == 0x2a || s->opcode == 0x3a;

    if (!mask || (s->modrm & 0xc0) != 0xc0 || (opcode[-3] & 0x07) != 2 || (opcode[-2] & 0x03) != 2)
        return false;
    opcode[-3] |= 0x60; /* stored inverted */
    return true;
}

/* Replaces an undocumented alias by the documented encoding, in place. Returns whether there was one. */
static bool replace_alias(const struct scan *s, struct tidy *t)
{
    uint8_t *opcode = t->bytes + t->opcode_offset;
    unsigned reg = s->modrm >> 3 & 7;
    unsigned st = s->modrm & 7;

    if (s->map == SCAN_VEX)
        return ignore_vex_b(s, opcode, t->opcode_offset >= 3 && opcode[-3] == 0xc4);
    if (s->map == SCAN_EVEX)
        return ignore_evex_xb(s, opcode);
    if (s->map == SCAN_0F && s->opcode == 0x09) /* 66 wbinvd, f2 wbinvd */
        return drop_operand16(s, t) | drop_repeat(s, t);
    if (s->map != SCAN_PRIMARY)
        return false;
    switch (s->opcode) {
    case 0x90: /* 66 pause -> pause */
        return s->repeat == 0xf3 && drop_operand16(s, t);
    case 0xc0:
    case 0xc1:
    case 0xd0 ... 0xd3: /* /6 is shl as /4 is */
        opcode[1] = (uint8_t)(s->modrm & ~0x10);
        return reg == 6;
    case 0xf6:
    case 0xf7: /* /1 is test as /0 is */
        opcode[1] = (uint8_t)(s->modrm & ~0x08);
        return reg == 1;
    case 0xd8 ... 0xdf:
        break;
    case 0xf1: /* int1 -> int3: both only trap */
        *opcode = 0xcc;
        return true;
    default:
        return false;
    }
    /* x87, register forms */
    switch (s->opcode << 8 | (s->modrm & 0xf8)) {
    case 0xdcd0: /* fcom st */
        opcode[0] = 0xd8;
        return true;
    case 0xdcd8: /* fcomp st */
    case 0xded0:
        opcode[0] = 0xd8;
        opcode[1] = (uint8_t)(0xd8 | st);
        return true;
    case 0xddc8: /* fxch st */
    case 0xdfc8:
        opcode[0] = 0xd9;
        return true;
    case 0xdfd0: /* fstp st */
    case 0xdfd8:
    case 0xd9d8:
        opcode[0] = 0xdd;
        opcode[1] = (uint8_t)(0xd8 | st);
        return true;
    case 0xdbe0: /* fneni, fndisi, fnsetpm: fnop */
        opcode[0] = 0xd9;
        opcode[1] = 0xd0;
        return st == 0 || st == 1 || st == 4;
    default:
        return false;
    }
}

static bool is_prefix(uint16_t opcode)
{
    return info_of(opcode)->marks & OPCODE_IS_PREFIX;
}

static int decode_tidy(struct decoder *d, const struct tidy *t, struct bridge_insn *raw)
{
    if (bridge_decode(d->bridge, t->bytes, t->count, raw) != 0 || is_prefix(raw->opcode))
        return -1;
    return 0;
}

/* LLVM's view into RAW, its length made that of the original; T says what LLVM was shown. 0 or -1. */
static int decode_raw(struct decoder *d, const uint8_t *bytes, size_t bytes_left, const struct scan *s, struct bridge_insn *raw,
                      struct tidy *t)
{
    if (!s->untidy && bridge_decode(d->bridge, bytes, bytes_left, raw) == 0 && !is_prefix(raw->opcode)) {
        t->count = 0; /* the original */
        return 0;
    }
    tidy_prefixes(bytes, bytes_left, s, t);
    /* Without its F2 or F3: LLVM sees hardware lock elision where there is no lock. */
    if (decode_tidy(d, t, raw) != 0 && (!replace_alias(s, t) || decode_tidy(d, t, raw) != 0) &&
        (s->map != SCAN_PRIMARY || !drop_repeat(s, t) || decode_tidy(d, t, raw) != 0))
        return -1;
    if (raw->length + t->dropped > INSN_MAX_BYTES)
        return -1;
    raw->length = (uint8_t)(raw->length + t->dropped);
    return 0;
}

static int unsupported(struct insn *out, enum bdbi_event event)
{
    out->class = INSN_UNSUPPORTED;
    out->event = (uint8_t)event;
    out->flags_read = FLAG_ALL;
    return 0;
}

/* A near branch with an operand size of 16 bits: Intel ignores the 66, AMD cuts rip down to 16 bits. */
static bool is_branch16(const struct scan *s)
{
    if (!s->operand16 || (s->rex & 8))
        return false;
    if (s->map == SCAN_0F)
        return s->opcode >= 0x80 && s->opcode <= 0x8f;
    if (s->map != SCAN_PRIMARY)
        return false;
    switch (s->opcode) {
    case 0x70 ... 0x7f:
    case 0xc2:
    case 0xc3:
    case 0xe0 ... 0xe3:
    case 0xe8:
    case 0xe9:
    case 0xeb:
        return true;
    case 0xff:
        return (s->modrm & 0x30) != 0x30 && ((s->modrm & 0x38) == 0x10 || (s->modrm & 0x38) == 0x20);
    default:
        return false;
    }
}

/* What processors execute and LLVM does not know: ud0, and hint nops (0F 0D, 0F 18..1F) it has no name for. 0 or -1. */
static int decode_unnamed(const uint8_t *bytes, size_t bytes_left, const struct scan *s, struct insn *out)
{
    unsigned modrm_bytes;

    if (s->map != SCAN_0F || s->lock)
        return -1;
    if (s->opcode == 0xff) {
        out->opcode = OPCODE_TRAP;
        out->class = INSN_STOP;
        out->length = (uint8_t)(s->opcode_offset + 1);
        out->modrm_offset = 0; /* whether ud0 has one differs; it traps either way */
        return 0;
    }
    if (s->opcode != 0x0d && (s->opcode < 0x18 || s->opcode > 0x1f))
        return -1;
    modrm_bytes = scan_modrm_bytes(bytes + s->modrm_offset, bytes_left - s->modrm_offset);
    if (!modrm_bytes || s->modrm_offset + modrm_bytes > INSN_MAX_BYTES)
        return -1;
    out->opcode = OPCODE_NOOP;
    out->class = INSN_NORMAL;
    out->length = (uint8_t)(s->modrm_offset + modrm_bytes);
    return 0;
}

static uint16_t condition_flags(unsigned condition)
{
    static const uint16_t reads[8] = {FLAG_OF, FLAG_CF, FLAG_ZF,           FLAG_CF | FLAG_ZF,
                                      FLAG_SF, FLAG_PF, FLAG_SF | FLAG_OF, FLAG_ZF | FLAG_SF | FLAG_OF};

    return reads[condition >> 1 & 7];
}

/* Registers and flags that depend on operands. -1: an operand is beyond what struct insn can say. */
static int add_operands(const struct scan *s, const struct bridge_insn *raw, const struct opcode_info *info, struct insn *out)
{
    for (unsigned i = 0; i < raw->noperands; i++) {
        unsigned reg = raw->reg[i];

        if (reg_gpr[reg] == GPR_EXTENDED)
            return -1;
        if (reg_gpr[reg] != GPR_NONE) {
            uint16_t bit = (uint16_t)(1u << reg_gpr[reg]);
            if (i < info->ndefs)
                out->regs_written |= bit;
            else
                out->regs_read |= bit;
        }
        if ((reg == REG_RIP || reg == REG_EIP) && !(info->marks & OPCODE_IS_NOP)) {
            if (!s->modrm_offset || (s->modrm & 0xc7) != 0x05 || i + 3u >= raw->noperands)
                return -1;
            out->rip_relative = true;
            out->disp_offset = (uint8_t)(s->modrm_offset + 1);
            out->rip_target = (int64_t)(out->pc + out->length + (uint64_t)raw->imm[i + 3]);
        }
    }
    if (info->marks & OPCODE_IS_STRING && s->repeat) {
        out->regs_read |= RCX_BIT;
        out->regs_written |= RCX_BIT;
        out->flags_written = 0; /* rcx may be 0 */
    }
    if (info->marks & OPCODE_READS_CONDITION)
        out->flags_read = condition_flags((unsigned)raw->imm[raw->noperands - 1]);
    if (info->marks & OPCODE_SHIFT_IMMEDIATE &&
        !(raw->imm[raw->noperands - 1] & (s->rex & 8 && s->opcode != 0xc0 ? 0x3f : 0x1f)))
        out->flags_written = 0;
    return 0;
}

static bool touches_gs(const struct scan *s, const struct bridge_insn *raw, const struct opcode_info *info)
{
    if (info->ndefs && raw->noperands && raw->reg[0] == REG_GS)
        return true; /* mov gs, r */
    if (s->segment != 0x65 || info->marks & OPCODE_NO_ACCESS)
        return false;
    return info->memory != OPCODE_NO_MEMORY || info->marks & OPCODE_HIDDEN_ACCESS;
}

/* fnstenv, fnsave; fxsave, xsave, xsaveopt; xsavec */
static bool saves_fpu(const struct scan *s)
{
    unsigned reg = s->modrm >> 3 & 7;

    if (!s->modrm_offset || s->modrm >= 0xc0)
        return false;
    if (s->map == SCAN_PRIMARY)
        return (s->opcode == 0xd9 || s->opcode == 0xdd) && reg == 6;
    if (s->map != SCAN_0F || s->repeat || s->operand16)
        return false;
    return (s->opcode == 0xae && (reg == 0 || reg == 4 || reg == 6)) || (s->opcode == 0xc7 && reg == 4);
}

static int decode_new(struct decoder *d, const uint8_t *bytes, size_t bytes_left, uint64_t pc, struct insn *out)
{
    struct scan s;
    struct tidy t;
    struct bridge_insn raw;
    const struct opcode_info *info;

    if (scan_insn(bytes, bytes_left, &s) != 0 || s.map == SCAN_APX)
        return -1;
    *out = (struct insn){.pc = pc, .modrm_offset = s.modrm_offset, .lock = s.lock};
    if (is_branch16(&s)) {
        out->length = (uint8_t)(s.opcode_offset + 1);
        return s.lock ? -1 : unsupported(out, BDBI_EVENT_OPERAND16);
    }
    if (decode_raw(d, bytes, bytes_left, &s, &raw, &t) != 0)
        return decode_unnamed(bytes, bytes_left, &s, out);

    info = info_of(raw.opcode);
    out->opcode = raw.opcode;
    out->length = raw.length;
    out->class = info->class_;
    out->event = info->event;
    out->regs_read = info->regs_read;
    out->regs_written = info->regs_written;
    out->flags_read = info->flags_read;
    out->flags_written = info->flags_written;
    if (s.lock && out->class != INSN_NORMAL)
        return -1; /* traps, which its rewritten form would not */
    if (add_operands(&s, &raw, info, out) != 0)
        return -1;
    if (touches_gs(&s, &raw, info))
        return unsupported(out, BDBI_EVENT_GS);
    if (info->marks & OPCODE_IS_INT && (uint8_t)raw.imm[0] == 0x80)
        return unsupported(out, BDBI_EVENT_INT80);
    if (out->class == INSN_NORMAL && saves_fpu(&s))
        out->class = INSN_SAVE_FPU;

    switch (out->class) {
    case INSN_JMP:
    case INSN_JCC:
    case INSN_LOOP:
    case INSN_CALL:
    case INSN_XBEGIN:
        out->target = (int64_t)(pc + out->length + (uint64_t)raw.imm[0]);
        break;
    case INSN_RET:
        out->ret_pop = raw.noperands ? (uint16_t)raw.imm[0] : 0;
        break;
    default:
        break;
    }
    return 0;
}

int insn_decode(struct decoder *d, const uint8_t *bytes, size_t bytes_left, uint64_t pc, struct insn *out)
{
    struct memo *m = d->memo ? &d->memo[pc % MEMO_SLOTS] : NULL;
    size_t n = bytes_left < MEMO_BYTES ? bytes_left : MEMO_BYTES;

    if (!m || !n)
        return decode_new(d, bytes, bytes_left, pc, out);
    if (m->nbytes != n || m->insn.pc != pc || memcmp(m->bytes, bytes, n) != 0) {
        m->insn = (struct insn){.pc = pc};
        m->result = decode_new(d, bytes, bytes_left, pc, &m->insn);
        m->nbytes = (uint8_t)n;
        memcpy(m->bytes, bytes, n);
    }
    *out = m->insn;
    return m->result;
}

/* A legacy prefix's kind, of which one says as much as many; 0: none that a decoding needs. */
static unsigned prefix_kind(uint8_t byte)
{
    switch (byte) {
    case 0x66:
        return 1;
    case 0x67:
        return 2;
    case 0xf2:
    case 0xf3:
        return 4;
    case 0x64:
    case 0x65:
        return 8;
    default:
        return 0;
    }
}

static bool is_prefix_byte(uint8_t byte)
{
    return prefix_kind(byte) || byte == 0xf0 || (byte & 0xe7) == 0x26 || (byte & 0xf0) == 0x40;
}

/* Without the prefixes that say nothing more there is room for an instruction, and it is one, or not even its opcode is whole.
 */
bool insn_too_long(struct decoder *d, const uint8_t *bytes)
{
    uint8_t shorter[2 * INSN_MAX_BYTES] = {0}; /* what follows the 15 bytes does not matter */
    unsigned i, n = 0, kinds = 0;
    struct insn insn;
    struct scan s;

    for (i = 0; i < INSN_MAX_BYTES && is_prefix_byte(bytes[i]); i++) {
        unsigned kind = prefix_kind(bytes[i]);
        bool rex = (bytes[i] & 0xf0) == 0x40 && i + 1 < INSN_MAX_BYTES && !is_prefix_byte(bytes[i + 1]);

        if ((kind & ~kinds) || rex)
            shorter[n++] = bytes[i];
        kinds |= kind;
    }
    memcpy(shorter + n, bytes + i, INSN_MAX_BYTES - i);
    return scan_insn(shorter, n + INSN_MAX_BYTES - i, &s) != 0 ||
           (decode_new(d, shorter, sizeof(shorter), 0, &insn) == 0 && insn.length + i - n > INSN_MAX_BYTES);
}

/* Appends TEXT with runs of blanks made one blank. */
static void append(char *out, size_t out_bytes, const char *text)
{
    size_t n = strlen(out);

    for (; *text && n + 1 < out_bytes; text++) {
        bool blank = *text == ' ' || *text == '\t';

        if (blank && (n == 0 || out[n - 1] == ' '))
            continue;
        out[n++] = blank ? ' ' : *text;
    }
    out[n] = 0;
}

int insn_format(struct decoder *d, const uint8_t *bytes, size_t bytes_left, uint64_t pc, char *out, size_t out_bytes)
{
    struct scan s;
    struct tidy t;
    struct bridge_insn raw;
    char text[256];

    if (!out_bytes)
        return -1;
    out[0] = 0;
    if (scan_insn(bytes, bytes_left, &s) != 0 || s.map == SCAN_APX || decode_raw(d, bytes, bytes_left, &s, &raw, &t) != 0) {
        append(out, out_bytes, "(bad)");
        return -1;
    }
    if (t.count) {
        bytes = t.bytes;
        bytes_left = t.count;
        if (s.lock)
            append(out, out_bytes, "lock ");
    }
    if (bridge_print(d->bridge, bytes, bytes_left, pc + raw.length, text, sizeof(text)) != 0)
        return -1;
    append(out, out_bytes, text);
    return 0;
}
