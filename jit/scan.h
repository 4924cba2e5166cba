/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the parts of an instruction are: prefixes, opcode, ModRM. LLVM does not say, and rewriting in place needs to know.
 */
#ifndef BDBI_JIT_SCAN_H
#define BDBI_JIT_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum opcode_map {
    SCAN_PRIMARY, /* one-byte opcodes */
    SCAN_0F,
    SCAN_0F38,
    SCAN_0F3A,
    SCAN_VEX,  /* C4, C5 and XOP 8F */
    SCAN_EVEX, /* 62 */
    SCAN_APX,  /* REX2 (D5), EVEX map 4: not supported */
};

struct scan {
    uint8_t map;           /* enum opcode_map */
    uint8_t opcode;        /* the opcode byte in its map */
    uint8_t opcode_offset; /* of that byte */
    uint8_t modrm_offset;  /* 0: no ModRM */
    uint8_t modrm;
    uint8_t rex;          /* the REX that counts, the one right before the opcode; 0: none */
    uint8_t segment;      /* 0x64 or 0x65; the others mean nothing in 64-bit mode; 0: none */
    uint8_t repeat;       /* 0xf2 or 0xf3, the last one; 0: none */
    uint8_t legacy_bytes; /* prefixes of all kinds before REX/VEX/opcode, REX that do not count included */
    bool operand16;       /* 66 */
    bool address32;       /* 67 */
    bool lock;            /* F0 */
    bool untidy;          /* more prefixes than LLVM takes well: lock, repeated ones, a REX that does not count */
};

/* 0, or -1 when the bytes end before the ModRM byte, or no instruction can be here (a 16th byte is never looked at). */
int scan_insn(const uint8_t *bytes, size_t bytes_left, struct scan *out);

/* Bytes of ModRM, SIB and displacement. 0: cut off. */
unsigned scan_modrm_bytes(const uint8_t *modrm, size_t bytes_left);

#endif
