/* SPDX-License-Identifier: Apache-2.0
 *
 * A scanner for the outer form of an x86-64 instruction; it knows no operands and no immediates.
 *
 *   legacy prefixes    REX or     opcode in      ModRM [SIB] [disp]   immediate
 *   66 67 F2 F3 F0     nothing    its map
 *   2E 36 3E 26 64 65             (0F, 0F38, 0F3A; or C4/C5/62/8F, payload, opcode)
 *                                 ^ opcode_offset ^ modrm_offset
 */
#include "jit/scan.h"

#define INSN_MAX_BYTES 15

static bool primary_has_modrm(uint8_t opcode)
{
    switch (opcode) {
    case 0x00 ... 0x3f:
        return (opcode & 7) < 4; /* op r/m,r and op r,r/m; the other four are immediates and what became prefixes */
    case 0x63:
    case 0x69:
    case 0x6b:
    case 0x80 ... 0x8f:
    case 0xc0:
    case 0xc1:
    case 0xc6:
    case 0xc7:
    case 0xd0 ... 0xd3:
    case 0xd8 ... 0xdf:
    case 0xf6:
    case 0xf7:
    case 0xfe:
    case 0xff:
        return true;
    default:
        return false;
    }
}

static bool map_0f_has_modrm(uint8_t opcode)
{
    switch (opcode) {
    case 0x04 ... 0x0c: /* syscall, clts, sysret, invd, wbinvd, ud2 */
    case 0x0e:          /* femms */
    case 0x30 ... 0x37: /* wrmsr .. getsec */
    case 0x77:          /* emms */
    case 0x80 ... 0x8f: /* jcc */
    case 0xa0 ... 0xa2: /* push fs, pop fs, cpuid */
    case 0xa8 ... 0xaa: /* push gs, pop gs, rsm */
    case 0xc8 ... 0xcf: /* bswap */
        return false;
    default:
        return true;
    }
}

/* Whether 8F and then NEXT is XOP, not pop r/m. */
static bool is_xop(uint8_t next)
{
    return (next & 0x1f) >= 8;
}

/* Reads prefixes into S; returns the offset of what follows them. */
static unsigned scan_prefixes(const uint8_t *bytes, unsigned n, struct scan *s)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        uint8_t rex = s->rex;

        s->rex = 0;
        switch (bytes[i]) {
        case 0x66:
            s->operand16 = true;
            break;
        case 0x67:
            s->address32 = true;
            break;
        case 0xf0:
            s->lock = true;
            break;
        case 0xf2:
        case 0xf3:
            s->repeat = bytes[i];
            break;
        case 0x64:
        case 0x65:
            s->segment = bytes[i];
            break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
            break;
        case 0x40 ... 0x4f:
            s->rex = bytes[i];
            break;
        default:
            s->rex = rex;
            s->legacy_bytes = (uint8_t)(i - (rex != 0));
            return i;
        }
        s->untidy |= rex != 0; /* that one did not count */
    }
    return n;
}

int scan_insn(const uint8_t *bytes, size_t bytes_left, struct scan *s)
{
    unsigned n = bytes_left < INSN_MAX_BYTES ? (unsigned)bytes_left : INSN_MAX_BYTES;
    unsigned at;
    bool has_modrm = true;

    *s = (struct scan){.map = SCAN_PRIMARY};
    at = scan_prefixes(bytes, n, s);
    s->untidy |= s->lock;
    if (at == n)
        return -1;

    if (bytes[at] == 0x0f && at + 1 < n) {
        at++;
        s->map = SCAN_0F;
        has_modrm = map_0f_has_modrm(bytes[at]);
        if (bytes[at] == 0x38 || bytes[at] == 0x3a) {
            s->map = bytes[at] == 0x38 ? SCAN_0F38 : SCAN_0F3A;
            has_modrm = true;
            at++;
        }
    } else if (bytes[at] == 0xc5) {
        at += 2;
        s->map = SCAN_VEX;
    } else if (bytes[at] == 0xc4 || (bytes[at] == 0x8f && at + 1 < n && is_xop(bytes[at + 1]))) {
        at += 3;
        s->map = SCAN_VEX;
    } else if (bytes[at] == 0x62) {
        s->map = at + 1 < n && (bytes[at + 1] & 7) == 4 ? SCAN_APX : SCAN_EVEX;
        at += 4;
    } else if (bytes[at] == 0xd5) {
        s->map = SCAN_APX;
        at += 2;
    } else {
        has_modrm = primary_has_modrm(bytes[at]);
    }
    if (at >= n)
        return -1;
    s->opcode = bytes[at];
    s->opcode_offset = (uint8_t)at;
    if (s->map == SCAN_VEX && s->opcode == 0x77)
        has_modrm = false; /* vzeroupper */
    if (!has_modrm)
        return 0;
    if (at + 1 >= n)
        return -1;
    s->modrm_offset = (uint8_t)(at + 1);
    s->modrm = bytes[at + 1];
    return 0;
}

unsigned scan_modrm_bytes(const uint8_t *modrm, size_t bytes_left)
{
    unsigned mod, rm, n = 1;

    if (!bytes_left)
        return 0;
    mod = *modrm >> 6;
    rm = *modrm & 7;
    if (mod == 3)
        return 1;
    if (rm == 4) {
        if (bytes_left < 2)
            return 0;
        n++;
        if (mod == 0 && (modrm[1] & 7) == 5)
            n += 4;
    } else if (mod == 0 && rm == 5) {
        n += 4;
    }
    n += mod == 1 ? 1 : mod == 2 ? 4 : 0;
    return n <= bytes_left ? n : 0;
}
