/* SPDX-License-Identifier: Apache-2.0
 *
 * Named byte emitters, address map pieces and fix-ups: jit/encode.h.
 */
#include "jit/encode.h"

#include <stdlib.h>

#include "internal/error.h"

bool array_grow(void **at, size_t *capacity, size_t needed, size_t element_bytes)
{
    size_t grown = *capacity + *capacity / 2 + 64;
    void *moved;

    if (grown < needed)
        grown = needed;
    moved = realloc(*at, grown * element_bytes);
    if (!moved)
        return false;
    *at = moved;
    *capacity = grown;
    return true;
}

bool emit_reserve(struct emitter *e)
{
    struct chunk *c = e->chunk;

    if (c->error)
        return false;
    if (array_reserve(&c->code, CODE_RESERVE) && array_reserve(&c->map, CODE_RESERVE) && array_reserve(&c->fixups, 16) &&
        array_reserve(&c->far_branches, 4) && array_reserve(&c->unresolved, 4))
        return true;
    c->error = -BDBI_ENOMEM;
    return false;
}

static void put_map(struct emitter *e, unsigned byte)
{
    e->chunk->map.at[e->chunk->map.n++] = (uint8_t)byte;
}

void map_copy(struct emitter *e, unsigned length)
{
    if (e->held) {
        map_piece(e, e->held);
        map_advance(e, length);
        return;
    }
    put_map(e, length);
    e->piece_start = e->chunk->code.n;
}

void map_piece(struct emitter *e, unsigned state)
{
    put_map(e, MAP_PIECE | (state & 0xf));
    put_map(e, (unsigned)(e->chunk->code.n - e->piece_start));
    if (state & MAP_OTHER)
        put_map(e, state >> 8 << 4);
    e->piece_start = e->chunk->code.n;
}

void map_advance(struct emitter *e, unsigned length)
{
    put_map(e, MAP_ADVANCE | length);
}

static void add_fixup(struct emitter *e, uint32_t target)
{
    struct chunk *c = e->chunk;

    c->fixups.at[c->fixups.n++] = (struct fixup){(uint32_t)c->code.n, target};
}

/* Distance from the module's base to the end of the instruction that has BYTES more, were the chunk the unit's first. */
static int64_t end_of_insn(const struct emitter *e, unsigned bytes)
{
    return e->unit->code_distance + (int64_t)e->chunk->code.n + bytes;
}

void put_rel_leader(struct emitter *e, uint32_t leader)
{
    add_fixup(e, leader);
    put4(e, 0u - (uint32_t)(e->chunk->code.n + 4));
}

void put_rel_app(struct emitter *e, int64_t offset, unsigned trailing)
{
    add_fixup(e, FIXUP_APP);
    put4(e, (uint32_t)(offset - end_of_insn(e, 4 + trailing)));
}

void put_datum(struct emitter *e, unsigned reg, uint32_t which, uint32_t number)
{
    if (e->unit->data_address) {
        put1(e, 0x04 | reg << 3); /* [disp32] */
        put1(e, 0x25);
    } else {
        put1(e, 0x05 | reg << 3); /* [rip + disp32] */
    }
    add_fixup(e, which);
    put4(e, number);
}

void put_self(struct emitter *e, size_t at, uint32_t plus)
{
    add_fixup(e, FIXUP_SELF);
    put4(e, (uint32_t)(e->unit->code_distance + (int64_t)at) + plus);
}

static bool is_int32(int64_t v)
{
    return v == (int32_t)v;
}

bool reaches(const struct emitter *e, int64_t offset, unsigned bytes)
{
    int64_t from = (int64_t)e->chunk->code.n + bytes;

    /* Offsets come from 32-bit displacements, but with a fixed base also from any 64-bit address. */
    if (offset > INT64_MAX / 2 || offset < INT64_MIN / 2)
        return false;
    return is_int32(offset - (e->lowest_place + from)) && is_int32(offset - (e->last_place + from));
}

/* 65 REX.W+R opcode 04|r<<3 25 disp32: a register and gs:[disp32] */
static void gs_form(struct emitter *e, unsigned opcode, enum gpr r, uint32_t disp)
{
    put1(e, 0x65);
    put1(e, 0x48 | (r >> 3) << 2);
    put1(e, opcode);
    put1(e, 0x04 | (r & 7) << 3);
    put1(e, 0x25);
    put4(e, disp);
}

void mov_home_reg(struct emitter *e, enum gpr r)
{
    gs_form(e, 0x89, r, CTX_GPR + 8 * r); /* mov gs:[8*r], r */
}

void mov_reg_home(struct emitter *e, enum gpr r)
{
    gs_form(e, 0x8b, r, CTX_GPR + 8 * r); /* mov r, gs:[8*r] */
}

void mov_context_reg(struct emitter *e, uint32_t offset, enum gpr r)
{
    gs_form(e, 0x89, r, offset); /* mov gs:[offset], r */
}

void movabs_reg_imm(struct emitter *e, enum gpr r, uint64_t v)
{
    put1(e, 0x48 | r >> 3); /* movabs r, v */
    put1(e, 0xb8 | (r & 7));
    put8(e, v);
}

void jmp_context(struct emitter *e, uint32_t offset)
{
    put1(e, 0x65); /* jmp gs:[offset] */
    put1(e, 0xff);
    put1(e, 0x24);
    put1(e, 0x25);
    put4(e, offset);
}

void jmp_rel_leader(struct emitter *e, uint32_t leader)
{
    put1(e, 0xe9); /* jmp rel32 */
    put_rel_leader(e, leader);
}

/* Far from the module, and nobody knows where that is: from this very place, which is known relative to the module.
 *   lea r, [rip + 0]      (the field becomes minus the chunk's place)
 *   lea r, [r + d] ...    until all of the distance is added */
static void load_by_steps(struct emitter *e, enum gpr r, int64_t offset, unsigned state, unsigned state_after)
{
    int64_t rest;

    put1(e, 0x48); /* lea r, [rip + 0] */
    put1(e, 0x8d);
    put1(e, 0x05 | r << 3);
    rest = offset - end_of_insn(e, 4);
    put_rel_app(e, end_of_insn(e, 4), 0);
    map_piece(e, state);
    while (rest) {
        int64_t step = rest > INT32_MAX ? INT32_MAX : rest < INT32_MIN ? INT32_MIN : rest;
        put1(e, 0x48); /* lea r, [r + step] */
        put1(e, 0x8d);
        put1(e, 0x80 | r << 3 | r);
        put4(e, (uint32_t)step);
        map_piece(e, state_after);
        rest -= step;
    }
}

void load_app_address(struct emitter *e, enum gpr r, int64_t offset, unsigned state, unsigned state_after)
{
    if (reaches(e, offset, 7)) {
        put1(e, 0x48); /* lea r, [rip -> offset] */
        put1(e, 0x8d);
        put1(e, 0x05 | r << 3);
        put_rel_app(e, offset, 0);
        map_piece(e, state);
    } else if (e->unit->fixed_base) {
        movabs_reg_imm(e, r, e->unit->fixed_base + (uint64_t)offset);
        map_piece(e, state);
    } else {
        load_by_steps(e, r, offset, state, state_after);
    }
}
