/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoding: bytes -> struct insn, over LLVM MC (jit/bridge.cpp) and the table generated from it.
 * A decoder belongs to one thread; insn_decode does not allocate per call.
 */
#ifndef BDBI_JIT_INSN_H
#define BDBI_JIT_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jit/insn_class.h"

struct insn {
    uint64_t pc;        /* address the bytes were decoded for */
    int64_t target;     /* direct branches: absolute target in pc's terms */
    int64_t rip_target; /* rip_relative: absolute address of the memory operand in pc's terms */
    uint16_t opcode;    /* LLVM's number; names in the generated jit/opcodes.h */
    uint16_t regs_read; /* GPRs by encoding number, incl. address registers and implicit ones */
    uint16_t regs_written;
    uint16_t flags_read;    /* FLAG_*: may depend on */
    uint16_t flags_written; /* FLAG_*: certainly overwritten (undefined counts), whatever the operands */
    uint16_t ret_pop;
    uint8_t length;
    uint8_t class;        /* enum insn_class */
    uint8_t event;        /* INSN_UNSUPPORTED: enum bdbi_event */
    uint8_t modrm_offset; /* of the ModRM byte; 0: none (no instruction starts with one) */
    uint8_t disp_offset;  /* rip_relative: of the disp32 */
    bool rip_relative;
    bool lock;
};

struct decoder;

/* Makes a decoder for x86-64 with every feature of the ISA enabled. NULL: out of memory. */
struct decoder *decoder_new(void);
void decoder_free(struct decoder *d);

/* Decodes the instruction at BYTES (at most BYTES_LEFT of them, never reading past them), which the guest sees at PC.
 * 0, or -1 when no instruction is there (undecodable, or cut off by BYTES_LEFT). Prefixes that LLVM reports as
 * instructions of their own (lock, rep, data16, ...) are part of the instruction they precede. */
int insn_decode(struct decoder *d, const uint8_t *bytes, size_t bytes_left, uint64_t pc, struct insn *out);

/* Whether the 15 bytes at BYTES, which are no instruction, are the start of one that is only too long: to the processor that is
 * another fault than an invalid opcode. */
bool insn_too_long(struct decoder *d, const uint8_t *bytes);

/* From now on decodings are remembered, by address and bytes: what explores code and then translates it decodes once. Without
 * memory for it nothing is remembered. */
void decoder_remember(struct decoder *d);

/* LLVM's name of an opcode number, for messages and tests. */
const char *insn_opcode_name(uint16_t opcode);

/* Intel-syntax text of the instruction into OUT (always terminated). For messages and tests. */
int insn_format(struct decoder *d, const uint8_t *bytes, size_t bytes_left, uint64_t pc, char *out, size_t out_bytes);

static inline bool insn_ends_block(const struct insn *i)
{
    return i->class != INSN_NORMAL;
}

/* Whether control can reach the next instruction without a taken branch (calls and syscalls return there). */
static inline bool insn_falls_through(const struct insn *i)
{
    return i->class == INSN_NORMAL || i->class == INSN_JCC || i->class == INSN_LOOP || i->class == INSN_CALL ||
           i->class == INSN_CALL_IND || i->class == INSN_SYSCALL || i->class == INSN_CPUID || i->class == INSN_XBEGIN ||
           i->class == INSN_SAVE_FPU;
}

#endif
