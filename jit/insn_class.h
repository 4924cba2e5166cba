/* SPDX-License-Identifier: Apache-2.0
 *
 * What kinds of instructions translation tells apart. A header of its own, for the generator (C++) reads it too.
 */
#ifndef BDBI_JIT_INSN_CLASS_H
#define BDBI_JIT_INSN_CLASS_H

enum insn_class {
    INSN_NORMAL,      /* copied; falls through */
    INSN_JMP,         /* direct jmp */
    INSN_JCC,         /* direct conditional jump */
    INSN_LOOP,        /* loop, loope, loopne, jrcxz, jecxz */
    INSN_CALL,        /* direct near call */
    INSN_JMP_IND,     /* near jmp r/m */
    INSN_CALL_IND,    /* near call r/m */
    INSN_RET,         /* near ret; ret_pop says how many bytes more it pops */
    INSN_SYSCALL,     /* syscall */
    INSN_CPUID,       /* cpuid: may be answered from memory */
    INSN_XBEGIN,      /* like a conditional jump: the abort target is code */
    INSN_STOP,        /* copied; traps by itself and does not fall through: ud0/ud1/ud2, hlt */
    INSN_SAVE_FPU,    /* stores the x87 unit's last instruction address: fnstenv, fnsave, fxsave, xsave and the like */
    INSN_UNSUPPORTED, /* becomes an event exit; `event` says which (enum bdbi_event) */
};

/* EFLAGS masks, the bits of the register itself. */
enum {
    FLAG_CF = 1 << 0,
    FLAG_PF = 1 << 2,
    FLAG_AF = 1 << 4,
    FLAG_ZF = 1 << 6,
    FLAG_SF = 1 << 7,
    FLAG_OF = 1 << 11,
    FLAG_ALL = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF,
};

#endif
