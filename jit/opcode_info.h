/* SPDX-License-Identifier: Apache-2.0
 *
 * What jit/gen_opcodes.cpp writes about each LLVM opcode and jit/insn.c reads.
 */
#ifndef BDBI_JIT_OPCODE_INFO_H
#define BDBI_JIT_OPCODE_INFO_H

#include <stdint.h>

enum {
    OPCODE_NO_MEMORY = 0xff, /* opcode_info.memory: no memory operand */
    GPR_NONE = 0xff,         /* register number -> GPR: not a GPR */
    GPR_EXTENDED = 0xfe,     /* r16..r31 (APX) */
};

enum opcode_marks {
    OPCODE_IS_PREFIX = 1 << 0,       /* LLVM made an instruction of a prefix */
    OPCODE_IS_STRING = 1 << 1,       /* takes rep: then counts rcx down, and may do nothing at all */
    OPCODE_IS_INT = 1 << 2,          /* int n */
    OPCODE_NO_ACCESS = 1 << 3,       /* its memory operand is only an address, or nothing: lea, nop */
    OPCODE_HIDDEN_ACCESS = 1 << 4,   /* accesses memory (through rax, rbx or rdi) without having an operand for it */
    OPCODE_READS_CONDITION = 1 << 5, /* flags_read is what its last operand, a condition code, needs */
    OPCODE_SHIFT_IMMEDIATE = 1 << 6, /* flags_written only if the last operand, a count, is not 0 after masking */
    OPCODE_IS_NOP = 1 << 7,          /* whatever its operands say */
};

struct opcode_info {
    uint8_t class_;                   /* enum insn_class */
    uint8_t event;                    /* enum bdbi_event */
    uint8_t memory;                   /* index of the first operand that belongs to a memory operand, or OPCODE_NO_MEMORY */
    uint8_t ndefs;                    /* operands [0, ndefs) are written, the others read */
    uint16_t marks;                   /* enum opcode_marks */
    uint16_t regs_read, regs_written; /* implicit GPRs */
    uint16_t flags_read, flags_written;
};

#endif
