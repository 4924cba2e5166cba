/* SPDX-License-Identifier: Apache-2.0
 *
 * Jumps through tables that do not change: recognition (prove.c), emission and the translated tables (table.c, which tells the
 * story).
 */
#ifndef BDBI_JIT_TABLE_H
#define BDBI_JIT_TABLE_H

#include "jit/emit.h"

#define TRACE_BLOCKS 2 /* beyond the block that a trace starts in */

enum table_kind {
    TABLE_JUMP,     /* jmp [x*8 + table] */
    TABLE_POINTERS, /* mov r, [x*8 + table]; ...; jmp r */
    TABLE_OFFSETS,  /* movsxd r, [b + x*4]; ...; add r, s; ...; jmp r */
};

/* What was proven of a list of instructions that ends with an indirect jump. Indexes are of the list. */
struct table_site {
    enum table_kind kind;
    uint32_t load;    /* the instruction that reads the table */
    uint32_t add;     /* TABLE_OFFSETS: the add */
    uint32_t jump;    /* the last one */
    unsigned target;  /* the register with the app's target; not with TABLE_JUMP */
    unsigned scratch; /* rcx, or rax where the target is in rcx */
    unsigned index;   /* x */
    uint32_t table;   /* offset of its first entry */
    uint32_t count;   /* x is below this */
    int64_t addend;   /* TABLE_OFFSETS: what s holds, as a module offset */
};

/* Whether the instructions from INSNS[from] on, whatever the registers hold before it, can only jump through a table of
 * constants. What comes before FROM is not looked at. */
bool table_prove(const struct jit_unit *unit, struct text *text, const struct insn *insns, uint32_t from, uint32_t n,
                 struct table_site *site);

/* The bytes of UNIT from offset TABLE on, BYTES of them, if all are constant; else NULL. */
const uint8_t *table_constants(const struct jit_unit *unit, int64_t table, uint64_t bytes);

/* The same as table_prove, and every entry leads to a leader. */
bool table_find(struct emitter *e, const struct insn *insns, uint32_t from, uint32_t n, struct table_site *site);

/* Emits instruction I of the list that SITE is about, I from site->load on; code and map. */
void table_insn(struct emitter *e, const struct table_site *site, uint32_t i, const struct insn *insn, const uint8_t *bytes);

/* The translated tables of a unit, behind all chunks:
 *
 *   | chunk | chunk | ... | entry | entry | ... | table | table | ...
 */
struct table_layout {
    ARRAY(struct table_ref) tables; /* distinct; `at` is the table's place */
    ARRAY(uint32_t) entries;        /* leaders without a landing, ascending */
    uint32_t entries_place, tables_place, end;
    uint32_t constants_start, constants_end;
};

/* 0 or -BDBI_E... CODE_BYTES: where they may begin. */
int tables_place(const struct jit_unit *unit, const struct leader_index *leaders, const struct chunk *chunks, uint32_t nchunks,
                 uint32_t code_bytes, struct table_layout *l);
/* Writes them, and the fields of the chunks' code that refer to them. OUT has all blocks and code. */
void tables_write(const struct jit_unit *unit, const struct leader_index *leaders, const struct chunk *chunks, uint32_t nchunks,
                  const struct table_layout *layout, struct jit_output *out);
void tables_free(struct table_layout *layout);

#endif
