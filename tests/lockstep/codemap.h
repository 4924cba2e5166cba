/* SPDX-License-Identifier: Apache-2.0
 *
 * What the core under test knows of its code, read out of its memory: where each app instruction's code starts, and where the
 * core's own pieces are. Follows launcher/core.h and cachedb/image.h.
 */
#ifndef LOCKSTEP_CODEMAP_H
#define LOCKSTEP_CODEMAP_H

#include "tests/lockstep/process.h"

/* Addresses in the bdbi ELF. */
struct core_symbols {
    uint64_t modules, jit_chunks, jit_dropped, drop_generation;
    uint64_t exit_begin, exit_end, ibl_begin, ibl_end, sigreturn_with;
    uint64_t start, end; /* of the program in memory */
};

struct code_place {
    uint64_t code;
    uint32_t next; /* further code for the same app pc: index + 1; 0: none */
};

struct code_range {
    uint64_t start, end;
};

struct codemap {
    struct core_symbols core;
    struct table app_of;   /* code address of an instruction's first byte -> app pc */
    struct table code_of;  /* app pc -> index + 1 of its first code_place */
    struct table homes_of; /* code address as in app_of -> registers that are in their homes there, a bit each */
    struct code_place *places;
    uint32_t nplaces, capacity;
    struct code_range *ranges; /* where code is, as far as it has been read */
    uint32_t nranges;
    uint64_t seen_chunk, seen_drops, seen_pieces;
    uint64_t version;  /* changes when code has come or gone */
    uint32_t rebuilds; /* how often code has gone */
    uint32_t errors;   /* entries that contradict the format */
};

/* Reads the symbols of the bdbi program at PATH. */
void codemap_init(struct codemap *map, const char *path);
/* Looks for new or dropped code in P. MODULES_TOO: after calls that may have mapped or unmapped modules. */
void codemap_refresh(struct codemap *map, const struct process *p, bool modules_too);
/* App pc of the instruction whose code starts at CODE; 0: none does. */
uint64_t codemap_app(const struct codemap *map, uint64_t code);
/* The registers whose app value is in its home, not in the register, where an instruction's code starts at CODE. */
uint32_t codemap_homes(const struct codemap *map, uint64_t code);
/* Whether PC is in translated code. */
bool codemap_is_code(const struct codemap *map, uint64_t pc);
/* Places of the code for APP: the first, then .next. NULL: none. */
const struct code_place *codemap_first(const struct codemap *map, uint64_t app);
const struct code_place *codemap_next(const struct codemap *map, const struct code_place *place);

static inline bool in_core(const struct codemap *map, uint64_t pc)
{
    return pc >= map->core.start && pc < map->core.end;
}

#endif
