/* SPDX-License-Identifier: Apache-2.0
 *
 * Named byte emitters: one per form of instruction that rules emit, and the address map's pieces.
 * They write into the emitter's chunk, where room has been made (CODE_RESERVE).
 */
#ifndef BDBI_JIT_ENCODE_H
#define BDBI_JIT_ENCODE_H

#include <string.h>

#include "jit/emit.h"
#include "launcher/context.h"

enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* A state of the address map; MAP_OTHER's register is in bits 8 and up. */
#define STATE_CLEAN 0u

static inline unsigned state_saved(enum gpr r)
{
    return r == RAX ? MAP_RAX : r == RCX ? MAP_RCX : MAP_OTHER | (unsigned)r << 8;
}

static inline void put1(struct emitter *e, unsigned byte)
{
    e->chunk->code.at[e->chunk->code.n++] = (uint8_t)byte;
}

static inline void put4(struct emitter *e, uint32_t value)
{
    memcpy(e->chunk->code.at + e->chunk->code.n, &value, 4);
    e->chunk->code.n += 4;
}

static inline void put8(struct emitter *e, uint64_t value)
{
    memcpy(e->chunk->code.at + e->chunk->code.n, &value, 8);
    e->chunk->code.n += 8;
}

static inline void put_bytes(struct emitter *e, const uint8_t *bytes, size_t n)
{
    memcpy(e->chunk->code.at + e->chunk->code.n, bytes, n);
    e->chunk->code.n += n;
}

/* Makes room for the code and map of one instruction; false and an error in the chunk: out of memory. */
bool emit_reserve(struct emitter *e);

/* Map: one app instruction of LENGTH bytes was copied to as many. */
void map_copy(struct emitter *e, unsigned length);
/* Map: the code since the last entry is a piece of the app instruction at work, STATE before it. */
void map_piece(struct emitter *e, unsigned state);
/* Map: the app instruction at work, of LENGTH bytes, ends. */
void map_advance(struct emitter *e, unsigned length);

/* A rel32 or disp32 field, to be at the end of its instruction but for TRAILING bytes of immediate. */
void put_rel_leader(struct emitter *e, uint32_t leader);
void put_rel_app(struct emitter *e, int64_t offset, unsigned trailing);
/* Ends an instruction with a ModRM byte: REG, and a counter or mark (which: FIXUP_COUNTER, FIXUP_MARK) as its operand. */
void put_datum(struct emitter *e, unsigned reg, uint32_t which, uint32_t number);
/* A field of 32 bits: PLUS and the distance from the module's base to the code's byte AT (of the chunk). */
void put_self(struct emitter *e, size_t at, uint32_t plus);
/* Whether put_rel_app(OFFSET) of an instruction that ends BYTES after here fits, wherever the chunk will be. */
bool reaches(const struct emitter *e, int64_t offset, unsigned bytes);

void mov_home_reg(struct emitter *e, enum gpr r);                     /* mov gs:[8*r], r */
void mov_reg_home(struct emitter *e, enum gpr r);                     /* mov r, gs:[8*r] */
void mov_context_reg(struct emitter *e, uint32_t offset, enum gpr r); /* mov gs:[offset], r */
void movabs_reg_imm(struct emitter *e, enum gpr r, uint64_t v);       /* movabs r, v */
void jmp_context(struct emitter *e, uint32_t offset);                 /* jmp gs:[offset] */
#define JMP_CONTEXT_BYTES 8
void jmp_rel_leader(struct emitter *e, uint32_t leader); /* jmp rel32 */

/* r = the app address of OFFSET, in as many instructions as that takes; makes the map's pieces. r's old value is in its home or
 * not needed: STATE is what holds before the first instruction, STATE_AFTER from then on. r is one of rax..rdi but rsp, rbp. */
void load_app_address(struct emitter *e, enum gpr r, int64_t offset, unsigned state, unsigned state_after);

#endif
