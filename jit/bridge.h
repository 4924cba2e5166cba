/* SPDX-License-Identifier: Apache-2.0
 *
 * The C face of jit/bridge.cpp, the only C++ of the translator: LLVM MC's disassembler and printer.
 * A bridge belongs to one thread.
 */
#ifndef BDBI_JIT_BRIDGE_H
#define BDBI_JIT_BRIDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BRIDGE_MAX_OPERANDS 16

/* What LLVM says about one instruction. Operand i is register reg[i], or the immediate imm[i] if reg[i] is 0
 * (a memory operand's absent register is 0 too). */
struct bridge_insn {
    uint16_t opcode;
    uint8_t length;
    uint8_t noperands;
    uint16_t reg[BRIDGE_MAX_OPERANDS];
    int64_t imm[BRIDGE_MAX_OPERANDS];
};

struct bridge;

struct bridge *bridge_new(void); /* NULL: out of memory */
void bridge_free(struct bridge *b);

/* Decodes what LLVM takes for one instruction. 0, or -1. */
int bridge_decode(struct bridge *b, const uint8_t *bytes, size_t bytes_left, struct bridge_insn *out);

/* Prints what bridge_decode decodes, branch targets relative to NEXT_PC. 0, or -1 when it does not decode. */
int bridge_print(struct bridge *b, const uint8_t *bytes, size_t bytes_left, uint64_t next_pc, char *out, size_t out_bytes);

/* LLVM's name of OPCODE; never NULL. Valid for as long as the program runs. */
const char *bridge_opcode_name(uint16_t opcode);

#ifdef __cplusplus
}
#endif

#endif
