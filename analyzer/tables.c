/* SPDX-License-Identifier: Apache-2.0
 *
 * Targets of computed jumps. No data flow is followed: that would miss what it does not understand. Instead every table that an
 * lea points at is tried, and the sweep's bitmap of instruction starts decides.
 *
 *   jump table (gcc, clang, hand-written)          label table (computed goto with label differences)
 *     lea  rdx,[rip+table]                           lea  rdx,[rip+label]      ; code inside the function
 *     movsxd rax,[rdx+rax*4]                         lea  rcx,[rip+table]
 *     add  rax,rdx                                   movsxd rax,[rcx+rax*4]; add rax,rdx
 *     jmp  rax                                       jmp  rax
 *     table: .long target - table, ...               table: .long target - label, ...
 *
 *   computed (unrolled loops in assembly): lea of a label in the function, arithmetic, jmp reg. Nothing says where to:
 *   every instruction of such a function becomes a leader.
 *
 * A jump table ends before the next table, at the first entry that leads out of the text, or to something in a function that is
 * no instruction start. At least one of its first entries must lead into the function that refers to it.
 */
#include "analyzer/discover.h"
#include <stdlib.h>

enum {
    NEAR_BYTES = 1 << 16,         /* "the same function" where functions are not known */
    PROBE_ENTRIES = 16,           /* one of these must be in the function */
    MIN_TABLE = 3,                /* entries that make a label table */
    MAX_COMPUTED_BYTES = 1 << 14, /* functions larger than this are not made leaders throughout */
    MAX_LABELS = 64,              /* of one function, times */
    MAX_DATA = 1024,              /* data it refers to: what is tried at most */
};

static bool same_function(const struct discovery *d, offset_t at, offset_t target)
{
    uint32_t f = function_find(d, at);
    if (f == NOWHERE)
        return target + NEAR_BYTES > at && target < at + NEAR_BYTES;
    return target >= d->functions.items[f].start && target < d->functions.items[f].end;
}

/* Entry INDEX of the table at offset TABLE whose entries count from BASE; NOWHERE unless it may lead to an instruction. */
static offset_t entry_target(const struct discovery *d, offset_t table, uint32_t index, offset_t base)
{
    const uint8_t *p = elf_at(d->m, d->m->base_vaddr + table + 4ull * index, 4);
    offset_t target = p ? base + load32(p) : NOWHERE;
    return p && plausible(d, target) ? target : NOWHERE;
}

/* Entries of the table up to the first that is none, at most MAX. */
static uint32_t count_entries(const struct discovery *d, offset_t table, offset_t base, uint32_t max)
{
    uint32_t n = 0;
    while (n < max && entry_target(d, table, n, base) != NOWHERE)
        n++;
    return n;
}

/* The table at refs[0].target, which the N refs of that target mention; it ends before LIMIT. */
static void follow_table(struct worker *w, const struct ref *refs, uint32_t n, offset_t limit)
{
    const struct discovery *d = w->d;
    offset_t table = refs[0].target;
    uint32_t count = count_entries(d, table, table, (limit - table) / 4);
    bool ours = false;
    for (uint32_t i = 0; i < count && i < PROBE_ENTRIES && !ours; i++)
        for (uint32_t k = 0; k < n && k < PROBE_ENTRIES && !ours; k++)
            ours = same_function(d, refs[k].at, entry_target(d, table, i, table));
    for (uint32_t i = 0; i < count && ours; i++)
        mark_leader(w, entry_target(d, table, i, table));
}

static void follow_tables(struct worker *w)
{
    const struct ref_list *l = &w->tables;
    for (uint32_t i = 0, next; i < l->n; i = next) {
        for (next = i + 1; next < l->n && l->items[next].target == l->items[i].target; next++)
            continue;
        follow_table(w, &l->items[i], next - i, next < l->n ? l->items[next].target : NOWHERE);
    }
}

/* Code that lea and constants point at. An lea is believed even where the sweep saw no instruction start. */
static void follow_pointers(struct worker *w)
{
    for (uint32_t i = 0; i < w->labels.n; i++)
        mark_leader(w, w->labels.items[i].target);
    for (uint32_t i = 0; i < w->weak.n; i++)
        if (plausible(w->d, w->weak.items[i].target))
            mark_leader(w, w->weak.items[i].target);
}

/* Data that the instructions of function F refer to and that may be tables of 4-byte numbers. */
static void data_references(struct worker *w, const struct range *f, struct ref_list *out)
{
    const struct text *t = text_find(w->d, f->start);
    struct insn in;
    for (offset_t at = f->start; t && at < f->end && at < t->end;) {
        if (insn_decode(w->decoder, t->bytes + (at - t->start), t->limit - at, at, &in) != 0) {
            at++;
            continue;
        }
        if (in.rip_relative && in.rip_target > 0 && in.rip_target < NOWHERE && in.rip_target % 4 == 0)
            ref_push(out, (offset_t)in.rip_target, 0);
        at += in.length;
    }
    ref_sort(out);
}

/* Tables in DATA of distances from LABEL. */
static bool follow_label(struct worker *w, const struct range *f, offset_t label, const struct ref_list *data)
{
    const struct discovery *d = w->d;
    bool any = false;
    for (uint32_t i = 0; i < data->n; i++) {
        offset_t table = data->items[i].target, limit = i + 1 < data->n ? data->items[i + 1].target : NOWHERE;
        uint32_t n = 0, max = (limit - table) / 4;
        offset_t target;
        while (n < max && (target = entry_target(d, table, n, label)) != NOWHERE && target >= f->start && target < f->end)
            n++;
        for (uint32_t k = 0; k < n && n >= MIN_TABLE; k++)
            mark_leader(w, entry_target(d, table, k, label));
        any |= n >= MIN_TABLE;
    }
    return any;
}

/* The function's leas of its own inside, for functions that also jump to a register. */
static void follow_computed(struct worker *w, const struct range *f, const struct ref *labels, uint32_t n)
{
    struct ref_list data = {0};
    bool any = false;
    data_references(w, f, &data);
    for (uint32_t i = 0; i < n && i < MAX_LABELS && data.n <= MAX_DATA; i++)
        any |= follow_label(w, f, labels[i].target, &data);
    w->todo.failed |= data.failed;
    free(data.items);
    const struct text *t = text_find(w->d, f->start);
    if (any || !t || f->end - f->start > MAX_COMPUTED_BYTES)
        return;
    for (offset_t at = f->start; at < f->end && at < t->end; at++)
        if (bit_get(t->decoded, at - t->start))
            mark_leader(w, at);
}

/* Whether the function has a jump to a register; JUMPS is in order of address. */
static bool has_jump(const struct ref_list *jumps, const struct range *f)
{
    uint32_t low = 0, high = jumps->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (jumps->items[middle].at < f->start)
            low = middle + 1;
        else
            high = middle;
    }
    return low < jumps->n && jumps->items[low].at < f->end;
}

static void follow_labels(struct worker *w)
{
    const struct discovery *d = w->d;
    const struct ref_list *l = &w->labels; /* in order of target: those of one function are neighbours */
    for (uint32_t i = 0, next; i < l->n; i = next) {
        uint32_t f = function_find(d, l->items[i].target);
        const struct range *r = f == NOWHERE ? NULL : &d->functions.items[f];
        bool inside = false;
        for (next = i; next < l->n && (next == i || (r && l->items[next].target < r->end)); next++)
            inside |= r && l->items[next].target > r->start && l->items[next].at >= r->start && l->items[next].at < r->end;
        if (inside && has_jump(&w->jumps, r))
            follow_computed(w, r, &l->items[i], next - i);
    }
}

void tables_mark(struct worker *w)
{
    ref_sort(&w->tables);
    ref_sort(&w->labels);
    ref_sort(&w->jumps);
    ref_sort(&w->weak);
    follow_pointers(w);
    follow_tables(w);
    follow_labels(w);
}

/* ---- leaders for jumps through tables ---- */

enum { MAX_BLOCK = 256 }; /* instructions of the two blocks before a jump */

struct listing {
    struct insn insns[MAX_BLOCK];
    uint32_t n;
};

/* The last leader at or before AT, which is in T; NOWHERE: none. */
static offset_t leader_before(const struct text *t, offset_t at)
{
    uint32_t i = at - t->start, word = i / 64;
    uint64_t bits = t->leaders[word] & (~0ull >> (63 - i % 64));
    while (!bits && word > 0)
        bits = t->leaders[--word];
    return bits ? t->start + word * 64 + (63 - (uint32_t)__builtin_clzll(bits)) : NOWHERE;
}

/* Appends the instructions from START up to END, exactly, none but the last of which ends a block. */
static bool list_block(struct worker *w, const struct text *t, uint64_t base, offset_t start, offset_t end, struct listing *l)
{
    offset_t at = start;
    while (at < end && l->n < MAX_BLOCK) {
        struct insn *in = &l->insns[l->n];
        if (insn_decode(w->decoder, t->bytes + (at - t->start), t->limit - at, base + at, in) != 0)
            return false;
        at += in->length;
        l->n++;
        if (at < end && insn_ends_block(in))
            return false;
    }
    return at == end;
}

static void split_at(struct worker *w, const struct jit_unit *unit, offset_t jump, struct listing *l)
{
    struct text *t = text_find(w->d, jump);
    struct insn in;
    uint32_t split;
    if (!t || insn_decode(w->decoder, t->bytes + (jump - t->start), t->limit - jump, jump, &in) != 0)
        return;
    offset_t block = leader_before(t, jump);
    offset_t before = block != NOWHERE && block > t->start ? leader_before(t, block - 1) : NOWHERE;
    l->n = 0;
    bool falls = before != NOWHERE && list_block(w, t, unit->fixed_base, before, block, l) &&
                 (l->insns[l->n - 1].class == INSN_NORMAL || l->insns[l->n - 1].class == INSN_JCC);
    if (!falls)
        l->n = 0;
    if (block == NOWHERE || !list_block(w, t, unit->fixed_base, block, jump + in.length, l))
        return;
    if (jit_table_split(unit, l->insns, l->n, &split) && bit_get(t->decoded, split - t->start))
        mark_leader(w, split);
}

void tables_split(struct worker *w)
{
    const struct elf_module *m = w->d->m;
    const struct jit_unit unit = {
        .spans = m->spans,
        .nspans = m->nspans,
        .constants = m->constants,
        .nconstants = m->nconstants,
        .fixed_base = m->is_exec ? m->base_vaddr : 0,
        .linked = m->is_exec,
    };
    struct listing *l = malloc(sizeof *l);
    w->todo.failed |= !l;
    ref_sort(&w->jumps);
    for (uint32_t i = 0; l && i < w->jumps.n; i++)
        split_at(w, &unit, w->jumps.items[i].at, l);
    free(l);
}
