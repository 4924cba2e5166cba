/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of emission share. Not for other components.
 *
 *   unit.c    a unit is cut into chunks of a fixed number of leaders, which threads emit independently
 *   chunk.c   a chunk's blocks in order, then its out-of-line exits
 *   rules.c   what each class of instruction becomes
 *   events.c  what goes to the core: of the rules, and the check of a block
 *   prove.c   which jumps can only go through a table of constants
 *   table.c   what they become
 *   weave.c   what tools may ask for
 *   encode.c  named byte emitters, address map pieces, fix-ups
 *
 * While a chunk is emitted nobody knows where its code will be in the unit, nor where other chunks' blocks are. So code refers
 * to itself by offsets from the chunk's first byte, and fix-ups say what unit.c adds when all is known.
 */
#ifndef BDBI_JIT_EMIT_H
#define BDBI_JIT_EMIT_H

#include "jit/jit.h"
#include "jit/leaders.h"
#include "jit/text.h"

#define CHUNK_LEADERS 4096      /* fixed: chunks show in the code, and that must not depend on the number of threads */
#define CODE_RESERVE 256        /* no instruction becomes longer code than this, nor longer map */
#define BLOCK_MAX_INSNS 0x10000 /* a longer block ends with a direct exit to its next instruction */

/* A growing array: room for one more element must be made before each write. */
#define ARRAY(type)                                                                                                            \
    struct {                                                                                                                   \
        type *at;                                                                                                              \
        size_t n, capacity;                                                                                                    \
    }

bool array_grow(void **at, size_t *capacity, size_t needed, size_t element_bytes);
/* Makes room for N more elements; false: out of memory. */
#define array_reserve(array, count)                                                                                            \
    ((array)->n + (count) <= (array)->capacity ||                                                                              \
     array_grow((void **)&(array)->at, &(array)->capacity, (array)->n + (count), sizeof(*(array)->at)))

/* A 32-bit field of code that is relative to the code's own place. */
struct fixup {
    uint32_t at;     /* of the field, from the chunk's first byte */
    uint32_t target; /* a leader: the field becomes the distance to its block. Or one of: */
};
#define FIXUP_APP 0xffffffffu     /* distance to something outside the code: take off the chunk's place */
#define FIXUP_SELF 0xfffffffdu    /* an address of the code: add the chunk's place */
#define FIXUP_COUNTER 0xfffffffeu /* a counter's number in this chunk: its distance, or its address */
#define FIXUP_MARK 0xfffffffcu    /* the same of a mark; a byte of the instruction follows the field */

/* A branch whose target is not translated; the chunk's end has an exit for it. */
struct far_branch {
    uint32_t at; /* of the rel32 */
    int64_t target;
};

/* A field of code that refers to a translated table (table.c). */
struct table_ref {
    uint32_t at; /* of the field, from the chunk's first byte */
    uint8_t kind;
    uint32_t table, count;
    int64_t addend;
};

/* A counter or mark: what the tool said of it, and whose it is. */
struct datum {
    uint64_t info;
    uint32_t leader;
};
struct data {
    struct datum *at;
    size_t n, capacity;
};

struct chunk {
    uint32_t first, count; /* positions [first, first + count) of the leaders' order */
    struct image_block *blocks;
    ARRAY(uint8_t) code;
    ARRAY(uint8_t) map;
    ARRAY(struct fixup) fixups;
    ARRAY(struct far_branch) far_branches;
    struct data counters, marks;
    ARRAY(uint32_t) unresolved;
    ARRAY(struct table_ref) tables;
    ARRAY(struct image_link) links;    /* `at` from the chunk's first byte */
    ARRAY(struct fixup) near_branches; /* fields of 8 bits: the distance to a block of this chunk */
    uint32_t ninsns, nundecodable;
    uint64_t app_end; /* offset after the last byte that the code depends on */
    int error;
    uint32_t code_place, counter_place, mark_place; /* known when all chunks are emitted */
};

/* Why a block ends. */
enum block_end {
    END_TRANSFER, /* its last instruction is not INSN_NORMAL */
    END_FALL,     /* the next address is a leader, or the text (or the room for one block) ends here */
    END_BAD,      /* no instruction at the next address */
};

/* The counters and marks of a block, which its copies share. */
struct woven {
    bool done;
    size_t first, n, first_mark, nmarks;
    bool invisible; /* the flags that inc changes are overwritten before anything reads them */
};

/* A block of the unit, decoded. */
struct block {
    uint32_t leader; /* its number, or LEADER_NONE */
    ARRAY(struct insn) insns;
    uint64_t end; /* offset after the last instruction */
    enum block_end why;
    struct woven woven;
};

#define BLOCKS_KEPT 32 /* traces and near branches are decoded before their blocks are at work */

struct jit {
    struct decoder *decoder;
    struct block blocks[BLOCKS_KEPT]; /* leader i in blocks[i % BLOCKS_KEPT] */
    ARRAY(struct insn) trace;
};

struct emitter {
    const struct jit_unit *unit;
    struct jit *jit;
    const struct leader_index *leaders;
    struct decoder *decoder;
    struct chunk *chunk;
    struct text text;
    uint32_t leader;                  /* number of the block at work */
    size_t piece_start;               /* code from here on has no piece in the map yet */
    size_t landing_end;               /* code before this is the last landing */
    unsigned held;                    /* state of copied code: registers that a counter has left in their homes */
    uint32_t held_until;              /* number of the block's instruction after which that ends */
    bool falls;                       /* the block at work goes on to the next without any code */
    bool copies;                      /* what is emitted is a trace's copy of another block */
    int64_t trace_at;                 /* here a copy of the code at this offset comes next; -1: nowhere */
    int64_t lowest_place, last_place; /* the chunk's first code byte will be at module base + something in this range */
};

/* Marks in RAN, for each leader whether its block has run, what those blocks go on to without a branch: they may have been cut
 * elsewhere when they ran. */
void chunk_mark_ran(struct jit *j, const struct jit_unit *unit, bool *ran);
/* Emits CHUNK of UNIT. Errors are left in the chunk. */
void chunk_emit(struct jit *j, const struct jit_unit *unit, const struct leader_index *leaders, struct chunk *chunk);
void chunk_free(struct chunk *chunk);

/* rules.c: the code and map of INSN (its bytes at BYTES), which is not followed by anything if it ends the block. */
void rule_insn(struct emitter *e, const struct insn *insn, const uint8_t *bytes);
/* The code of INSN as it is, as a piece: the instruction goes on. */
void put_plain(struct emitter *e, const struct insn *insn, const uint8_t *bytes);
/* events.c */
void rule_event(struct emitter *e, uint32_t event, uint64_t offset);
void rule_save_fpu(struct emitter *e, const struct insn *insn, const uint8_t *bytes);
/* The check of a block whose bytes are [START, END): jit_unit.checked. False: out of memory. */
bool rule_check(struct emitter *e, uint32_t start, uint64_t end);
/* The landing of the block at OFFSET, which comes next, unless it is out of reach. Makes no map. */
void rule_landing(struct emitter *e, int64_t offset);
/* The leader whose block comes after LEADER's in the chunk; LEADER_NONE: that is the last one. */
uint32_t chunk_next(const struct emitter *e, uint32_t leader);
/* Whether a branch to LEADER's block that ends the block at work reaches it with 8 bits. */
bool chunk_is_near(struct emitter *e, uint32_t leader);
/* Whether INSN, somewhere in the next BYTES of code, is copied: no register is saved to its home for it. */
bool insn_is_copied(const struct emitter *e, const struct insn *insn, unsigned bytes);
/* Whether INSN is a jump that can be linked. */
bool rule_has_link(const struct emitter *e, const struct insn *insn, const uint8_t *bytes);
/* Whether INSN, a direct call, keeps rax in its home before it does anything. */
bool rule_call_saves_rax(const struct emitter *e, const struct insn *insn);
/* Continues at OFFSET with the map state STATE: a jump or a direct exit, or nothing if that block comes next. */
void rule_continue(struct emitter *e, int64_t offset, unsigned state);
/* The same, never nothing: the next block gets a landing. */
void rule_jump(struct emitter *e, int64_t offset, unsigned state);
void rule_direct_exit(struct emitter *e, int64_t target, unsigned state);

/* weave.c: runs the tool over the block, unless it has seen it, and emits what it asked for. COPY: of a trace, whose code knows
 * nothing of registers that a counter leaves in their homes. */
void weave_block(struct emitter *e, struct block *b, bool copy);

/* Offset from the module's base of ADDRESS, which is in the terms that instructions were decoded in. */
static inline int64_t app_offset(const struct emitter *e, uint64_t address)
{
    return (int64_t)(address - e->unit->fixed_base);
}

/* Of the instruction after INSN. */
static inline int64_t return_offset(const struct emitter *e, const struct insn *insn)
{
    return app_offset(e, insn->pc + insn->length);
}

#endif
