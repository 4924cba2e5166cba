/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to block discovery: the state that its signals share. All code addresses here are module offsets (offset_t).
 *
 * Per run of executable bytes (struct text) there are two bitmaps, one bit per byte: `decoded`, an instruction was decoded
 * there; `leaders`, something says that a block starts there. What an instruction contributes depends on its address alone, so
 * the result does not depend on the order of work, nor on the number of threads.
 */
#ifndef BDBI_ANALYZER_DISCOVER_H
#define BDBI_ANALYZER_DISCOVER_H

#include "analyzer/elf_view.h"
#include <pthread.h>

typedef uint32_t offset_t;
#define NOWHERE UINT32_MAX

/* A run of bytes that may be code: executable sections, or whole executable segments. */
struct text {
    offset_t start, end;
    offset_t limit; /* of decoding: the end of the segment's bytes */
    const uint8_t *bytes;
    uint64_t *decoded, *leaders;
};

struct range {
    offset_t start, end;
};

/* Instruction `at` refers to offset `target`. */
struct ref {
    offset_t target, at;
};

/* A growing array of any of these; `failed` is sticky. */
struct ref_list {
    struct ref *items;
    uint32_t n, room;
    bool failed;
};

struct range_list {
    struct range *items;
    uint32_t n, room;
    bool failed;
};

struct worker {
    struct discovery *d;
    struct decoder *decoder;
    bool descending;        /* new leaders go to `todo` */
    struct ref_list todo;   /* only `target` is used */
    struct ref_list tables; /* lea of what may be a table of 4-byte offsets relative to itself */
    struct ref_list labels; /* lea of code */
    struct ref_list jumps;  /* jmp r/m without a rip-relative or absolute operand; only `at` is used */
    struct ref_list weak;   /* constants that may be code addresses */
    pthread_t thread;
    bool started;
};

struct discovery {
    const struct elf_module *m;
    struct text *texts; /* ascending, disjoint */
    uint32_t ntexts;
    bool has_sections;           /* the runs are the file's executable sections */
    struct range_list functions; /* ascending, disjoint; from FDEs, then from sized symbols */
    struct ref_list lsdas;       /* target: exception table; at: its function */
    struct worker *workers;      /* workers[0] also does what is not parallel */
    unsigned nworkers;
    uint32_t next_function; /* the next chunk for a worker */
};

void ref_push(struct ref_list *l, offset_t target, offset_t at);
void range_push(struct range_list *l, offset_t start, offset_t end);
/* Sorts by (target, at) and drops repeats. */
void ref_sort(struct ref_list *l);
/* Sorts, and cuts overlapping ranges at the start of the next. */
void range_normalize(struct range_list *l);

/* The run that holds OFFSET, or NULL. */
struct text *text_find(const struct discovery *d, offset_t offset);
/* Index of the function that holds OFFSET, or NOWHERE. */
uint32_t function_find(const struct discovery *d, offset_t offset);
/* VADDR as a module offset when it is in a run of code, or NOWHERE. */
offset_t text_offset(const struct discovery *d, uint64_t vaddr);

static inline bool bit_get(const uint64_t *bits, uint32_t i)
{
    return __atomic_load_n(&bits[i / 64], __ATOMIC_RELAXED) >> (i % 64) & 1;
}

static inline void bit_set(uint64_t *bits, uint32_t i)
{
    if (!bit_get(bits, i))
        __atomic_fetch_or(&bits[i / 64], 1ull << (i % 64), __ATOMIC_RELAXED);
}

/* Whether OFFSET may start an instruction: one was decoded there, or it is code that no sweep has covered. */
bool plausible(const struct discovery *d, offset_t offset);

/* Notes a block start; offsets outside of code are ignored. */
void mark_leader(struct worker *w, offset_t offset);

/* seeds.c: entry, init and fini, symbols, relocations, sized symbols as functions; ET_EXEC: words that may be code addresses.
 */
void seeds_mark(struct worker *w);
void seeds_add_functions(struct discovery *d);
void seeds_scan_words(struct worker *w);

/* eh_frame.c: FDEs as functions; landing pads. */
void eh_frame_read(struct discovery *d);
void eh_frame_mark_pads(struct worker *w);

/* sweep.c */
void sweep_functions(struct discovery *d);
/* Decodes everything reachable from leaders. Returns whether it decoded anything. */
bool sweep_descend(struct worker *w);
void sweep_gaps(struct worker *w);

/* tables.c: what lea and constants point at. Call when the lists are merged into workers[0] and sorted. */
void tables_mark(struct worker *w);
/* Leaders where proofs begin that jumps go through tables (jit_table_split). Call when there are no others to come. */
void tables_split(struct worker *w);

#endif
