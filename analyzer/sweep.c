/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoding: each instruction once, noting what it says about block starts.
 *
 *     sweep     start ......... end    linear, whatever the instructions do; resumes one byte on where nothing decodes
 *     descend   leader ...->|          until control leaves for good or somebody was there before
 *     gaps      between functions: linear too, but what descent has decoded is taken as it is, and runs of padding are skipped
 *
 * Leaders from an instruction: the target of a direct branch, and the address behind it if control can come back there. Behind
 * an unconditional transfer (and padding) sweeps put a leader as well: something must jump there, or it would not exist.
 */
#include "analyzer/discover.h"

enum {
    CHUNK_FUNCTIONS = 128, /* what a worker takes at a time */
    ENDBR64 = (int)0xfa1e0ff3,
};

/* nop in all its lengths, int3. */
static bool is_padding(const uint8_t *p, unsigned n)
{
    unsigned i = 0;
    if (p[0] == 0xcc)
        return true;
    while (i + 1 < n && (p[i] == 0x66 || p[i] == 0x2e))
        i++;
    return p[i] == 0x90 || (i + 1 < n && p[i] == 0x0f && p[i + 1] == 0x1f);
}

static bool is_lea(const struct insn *in, const uint8_t *p)
{
    return in->modrm_offset >= 1 && in->modrm_offset <= 3 && p[in->modrm_offset - 1] == 0x8d;
}

static void mark_target(struct worker *w, int64_t target)
{
    if (target >= 0 && target < NOWHERE)
        mark_leader(w, (offset_t)target);
}

/* lea reg,[rip + x]: x is code, or a table of offsets if the first entry looks like one. */
static void note_lea(struct worker *w, const struct insn *in, offset_t at)
{
    const struct discovery *d = w->d;
    if (in->rip_target < 0 || in->rip_target >= NOWHERE)
        return;
    offset_t target = (offset_t)in->rip_target;
    if (text_find(d, target))
        ref_push(&w->labels, target, at);
    if (target % 4)
        return;
    const uint8_t *entry = elf_at(d->m, d->m->base_vaddr + target, 4);
    if (entry && text_find(d, target + load32(entry)))
        ref_push(&w->tables, target, at);
}

/* ET_EXEC: mov $address,%reg and the like. */
static void note_constant(struct worker *w, const struct insn *in, const uint8_t *p, offset_t at)
{
    unsigned n = in->length;
    uint64_t value;
    if (n == 10 && (p[0] & 0xfe) == 0x48 && (p[1] & 0xf8) == 0xb8)
        value = load64(p + 2);
    else if (n >= 5 && in->modrm_offset == 0 && (p[n - 5] == 0x68 || (p[n - 5] & 0xf8) == 0xb8))
        value = load32(p + n - 4);
    else if (n >= 6 && in->modrm_offset >= 1 && p[in->modrm_offset - 1] == 0xc7)
        value = load32(p + n - 4);
    else
        return;
    offset_t target = text_offset(w->d, value);
    if (target != NOWHERE)
        ref_push(&w->weak, target, at);
}

static void note_control(struct worker *w, const struct insn *in, const uint8_t *p, offset_t at)
{
    switch (in->class) {
    case INSN_JMP:
        mark_target(w, in->target);
        break;
    case INSN_JCC:
    case INSN_LOOP:
    case INSN_CALL:
    case INSN_XBEGIN:
        mark_target(w, in->target);
        mark_leader(w, at + in->length);
        break;
    case INSN_CALL_IND:
    case INSN_SYSCALL:
    case INSN_SAVE_FPU:
    case INSN_CPUID:
        mark_leader(w, at + in->length);
        break;
    case INSN_UNSUPPORTED: /* int3 is padding as well */
        if (p[0] != 0xcc)
            mark_leader(w, at + in->length);
        break;
    case INSN_JMP_IND:
        if (!in->rip_relative)
            ref_push(&w->jumps, 0, at);
        break;
    }
}

/* Decodes the instruction at AT and notes all it says. Returns its length, 0 when there is none. */
static unsigned visit(struct worker *w, struct text *t, offset_t at, struct insn *in)
{
    const uint8_t *p = t->bytes + (at - t->start);
    if (insn_decode(w->decoder, p, t->limit - at, at, in) != 0)
        return 0;
    bit_set(t->decoded, at - t->start);
    note_control(w, in, p, at);
    if (in->rip_relative && is_lea(in, p))
        note_lea(w, in, at);
    if (w->d->m->is_exec)
        note_constant(w, in, p, at);
    if (in->length == 4 && load32(p) == (uint32_t)ENDBR64)
        mark_leader(w, at);
    return in->length;
}

static void sweep_range(struct worker *w, struct text *t, offset_t start, offset_t end)
{
    struct insn in;
    bool fresh = true; /* nothing falls through to here */
    for (offset_t at = start; at < end;) {
        unsigned n = visit(w, t, at, &in);
        if (n && fresh && !is_padding(t->bytes + (at - t->start), n)) {
            mark_leader(w, at);
            fresh = false;
        }
        if (n && !insn_falls_through(&in))
            fresh = true;
        at += n ? n : 1;
    }
}

static void *sweep_worker(void *argument)
{
    struct worker *w = argument;
    struct discovery *d = w->d;
    for (;;) {
        uint32_t i = __atomic_fetch_add(&d->next_function, CHUNK_FUNCTIONS, __ATOMIC_RELAXED);
        if (i >= d->functions.n)
            return NULL;
        for (uint32_t end = i + CHUNK_FUNCTIONS; i < end && i < d->functions.n; i++) {
            const struct range *f = &d->functions.items[i];
            struct text *t = text_find(d, f->start);
            if (t)
                sweep_range(w, t, f->start, f->end < t->end ? f->end : t->end);
        }
    }
}

void sweep_functions(struct discovery *d)
{
    for (unsigned i = 1; i < d->nworkers; i++)
        d->workers[i].started = pthread_create(&d->workers[i].thread, NULL, sweep_worker, &d->workers[i]) == 0;
    sweep_worker(&d->workers[0]);
    for (unsigned i = 1; i < d->nworkers; i++)
        if (d->workers[i].started)
            pthread_join(d->workers[i].thread, NULL);
}

/* From one leader until control leaves, or joins what was decoded. Leaders found on the way go to the worker's list. */
static bool descend(struct worker *w, offset_t at)
{
    struct insn in;
    bool any = false;
    struct text *t = text_find(w->d, at);
    while (t && at < t->end && !bit_get(t->decoded, at - t->start)) {
        unsigned n = visit(w, t, at, &in);
        if (!n)
            break;
        any = true;
        at += n;
        if (!insn_falls_through(&in))
            break;
    }
    return any;
}

bool sweep_descend(struct worker *w)
{
    struct discovery *d = w->d;
    bool any = false;
    w->descending = true;
    for (uint32_t i = 0; i < d->ntexts; i++) {
        struct text *t = &d->texts[i];
        for (size_t k = 0; k < (t->end - t->start + 63) / 64; k++)
            for (uint64_t bits = t->leaders[k] & ~t->decoded[k]; bits; bits &= bits - 1) {
                any |= descend(w, t->start + (offset_t)(k * 64) + (offset_t)__builtin_ctzll(bits));
                while (w->todo.n)
                    any |= descend(w, w->todo.items[--w->todo.n].target);
            }
    }
    w->descending = false;
    return any;
}

/* The first decoded instruction start in (at, at + n), or at + n. */
static offset_t next_decoded(const struct text *t, offset_t at, unsigned n)
{
    for (unsigned i = 1; i < n && at + i < t->end; i++)
        if (bit_get(t->decoded, at + i - t->start))
            return at + i;
    return at + n;
}

/* Zeros are not code; an odd one belongs to what comes before. */
static bool is_zeros(const struct text *t, offset_t at, offset_t end)
{
    return at + 1 < end && load16(t->bytes + (at - t->start)) == 0;
}

static void sweep_gap(struct worker *w, struct text *t, offset_t at, offset_t end)
{
    struct insn in;
    bool fresh = true;
    while (at < end) {
        const uint8_t *p = t->bytes + (at - t->start);
        bool known = bit_get(t->decoded, at - t->start);
        if (!known && is_zeros(t, at, end)) {
            at += 2;
            fresh = true;
            continue;
        }
        unsigned n = known ? (insn_decode(w->decoder, p, t->limit - at, at, &in) == 0 ? in.length : 0) : visit(w, t, at, &in);
        if (n && fresh && !is_padding(p, n)) {
            mark_leader(w, at);
            fresh = false;
        }
        if (!n || !insn_falls_through(&in))
            fresh = true;
        at = known ? at + (n ? n : 1) : next_decoded(t, at, n ? n : 1);
    }
}

void sweep_gaps(struct worker *w)
{
    const struct discovery *d = w->d;
    uint32_t f = 0;
    for (uint32_t i = 0; i < d->ntexts; i++) {
        struct text *t = &d->texts[i];
        offset_t at = t->start;
        while (at < t->end) {
            while (f < d->functions.n && d->functions.items[f].end <= at)
                f++;
            offset_t next = f < d->functions.n && d->functions.items[f].start < t->end ? d->functions.items[f].start : t->end;
            if (at < next)
                sweep_gap(w, t, at, next);
            at = next < t->end ? d->functions.items[f].end : t->end;
        }
    }
}
