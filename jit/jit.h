/* SPDX-License-Identifier: Apache-2.0
 *
 * Translation of one unit: a set of block starts (leaders) of one module -> position-independent code, block table, address
 * map. The same function serves bdbi-warm and the JIT; for equal input the bytes are equal. Terms, emitted sequences and the
 * address map's encoding: docs/architecture.md, "Translation".
 */
#ifndef BDBI_JIT_H
#define BDBI_JIT_H

#include "cachedb/image.h"
#include "jit/insn.h"

/* A run of executable bytes of the module. Offsets are from the module's base (its lowest mapped page). */
struct text_span {
    uint32_t start, end;  /* [start, end) */
    const uint8_t *bytes; /* readable here; bytes[0] is offset `start` */
};

struct bdbi_tool;
struct bdbi_block;

struct jit_unit {
    const struct text_span *spans; /* ascending, disjoint */
    uint32_t nspans;
    const uint32_t *leaders; /* ascending, distinct module offsets inside the spans */
    uint32_t nleaders;

    /* What the module has in memory while the code is used, for jumps through tables; NULL: nothing is known to stay. */
    const struct text_span *constants;
    uint32_t nconstants;

    /* Module offsets of what stays as it is once ld.so has relocated it: jumps through pointers there can be linked. Equal:
     * none. */
    uint32_t relro_start, relro_end;

    int64_t code_distance; /* the code's first byte will be at module base + this; within 4 GB if fixed_base is 0 */
    uint64_t
        fixed_base; /* the module's absolute base; 0: the code must not depend on it. Code that begins below 2 GB ends there */
    bool linked;    /* ET_EXEC: pointers in the file are addresses already */
    bool anonymous; /* no module's: somebody may replace it page by page */
    uint64_t data_distance; /* counter i is at module base + this + 8 * i, mark i behind all counters, gs-based (normally ==
                               code_distance) */
    uint32_t data_address;  /* not 0: they are at this + 8 * i instead, wherever the module is; below 2 GB */

    /* Offsets of blocks that earlier runs have run, ascending: their code, counters and marks come first, so that what is used
     * shares pages. */
    const uint32_t *ran;
    uint32_t nran;

    /* Each block compares its bytes with those that it is made from before it runs: somebody may write them unseen. Only with a
     * fixed base. */
    bool checked;

    /* Where an already translated block of this module starts, as a distance from the module's base; 0: not known.
     * Called for direct branch targets that are not leaders; by jit_translate_parallel from any thread. May be NULL. */
    int64_t (*resolve)(void *user, uint32_t offset);
    void *user;

    const struct bdbi_tool *tool; /* weaves each block; NULL: none */
    const char *tool_args;        /* "key=value,..."; NULL: none */
    /* Calls the tool's weave, where somebody must know that the tool is at work; NULL: it is called directly. */
    void (*guard)(const struct bdbi_tool *tool, struct bdbi_block *block);
};

/* All arrays are malloc'd and owned by the caller after success; jit_output_free releases them. */
struct jit_output {
    uint8_t *code;
    size_t code_bytes;
    size_t tables_offset; /* from here on it is the translated tables, then one struct image_link for each link */
    uint32_t nlinks;
    struct image_block *blocks; /* one per leader, in order */
    uint32_t *order;            /* indexes of blocks, by ascending code offset; NULL: as they are */
    uint32_t nblocks;
    uint8_t *map; /* address map, see architecture.md */
    size_t map_bytes;
    struct image_counter *counters; /* what the tool registered: counters, then marks */
    uint32_t *owners;               /* of each of them: its block */
    uint32_t ncounters, nmarks;
    uint32_t ran_counters, ran_marks; /* how many of them are of blocks that the unit says have run: the first ones */
    uint32_t *unresolved; /* direct targets in this module that were neither leaders nor resolved; ascending, distinct */
    uint32_t nunresolved;
    uint32_t ninsns, nundecodable;
    bool linked; /* the unit's, as the next two */
    uint32_t data_address, nran;
    uint64_t app_end;                        /* offset after the last byte that the code depends on */
    uint32_t constants_start, constants_end; /* what of `constants` it depends on; equal: nothing */
    uint32_t relro_start, relro_end;         /* the unit's, if there are links; else equal */
};

struct jit;

/* One translator per thread. NULL: out of memory. */
struct jit *jit_new(void);
void jit_free(struct jit *j);
struct decoder *jit_decoder(struct jit *j);

/* 0 or -BDBI_E... (include/internal/error.h). */
int jit_translate(struct jit *j, const struct jit_unit *unit, struct jit_output *out);
/* The same with NTHREADS threads (host only); bytes equal those of jit_translate. */
int jit_translate_parallel(const struct jit_unit *unit, unsigned nthreads, struct jit_output *out);
void jit_output_free(struct jit_output *out);

/* Block starts worth translating together with START: breadth-first over direct branches, fall-throughs and return points
 * inside SPANS, at most MAX, leaving out what KNOWN says is translated. START comes first in the search, the result ascends.
 * Returns the number written to LEADERS (at least 1). */
uint32_t jit_explore(struct jit *j, const struct text_span *spans, uint32_t nspans, uint32_t start, uint32_t max,
                     int64_t (*known)(void *user, uint32_t offset), void *user, uint32_t *leaders);

/* Where the proof begins that the jump at the end of INSNS, which run one after the other, goes through a table of constants:
 * *SPLIT is the offset after its first instruction. A leader there lets the jump be translated as that (jit/table.c). Of UNIT
 * only spans, constants, fixed_base and linked are looked at. */
bool jit_table_split(const struct jit_unit *unit, const struct insn *insns, uint32_t n, uint32_t *split);

#endif
