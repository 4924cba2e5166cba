/* SPDX-License-Identifier: Apache-2.0
 *
 * What to translate together with a block that was missed: the blocks that a breadth-first walk from it meets. A batch pays the
 * translator's entry, its mprotect and its log record once.
 */
#include <stdlib.h>

#include "jit/emit.h"

/* Blocks found, in the order of the search, and a hash of them. */
struct found {
    uint32_t *offsets;
    uint32_t n, max;
    uint32_t *slots; /* index into offsets + 1; 0: free */
    uint32_t slot_mask;
};

struct search {
    struct found found;
    struct text text;
    struct decoder *decoder;
    int64_t (*known)(void *user, uint32_t offset);
    void *user;
};

static uint32_t *slot_of(struct found *f, uint32_t offset)
{
    uint32_t i = (offset * 2654435761u) & f->slot_mask;

    while (f->slots[i] && f->offsets[f->slots[i] - 1] != offset)
        i = (i + 1) & f->slot_mask;
    return &f->slots[i];
}

/* Whether the text ends inside the instruction at OFFSET: whoever comes there sees more of it. */
static bool is_cut_off(struct search *s, uint64_t offset)
{
    struct insn insn;
    const uint8_t *bytes;
    size_t left = text_bytes(&s->text, offset, &bytes);

    return left < TEXT_WINDOW && (!left || insn_decode(s->decoder, bytes, left, offset, &insn) != 0);
}

static void add(struct search *s, int64_t offset)
{
    uint32_t *slot;

    if (s->found.n == s->found.max || offset < 0 || offset > UINT32_MAX || is_cut_off(s, (uint64_t)offset))
        return;
    slot = slot_of(&s->found, (uint32_t)offset);
    if (*slot || (s->known && s->known(s->user, (uint32_t)offset)))
        return;
    s->found.offsets[s->found.n++] = (uint32_t)offset;
    *slot = s->found.n;
}

static bool has_target(const struct insn *insn)
{
    return insn->class == INSN_JMP || insn->class == INSN_JCC || insn->class == INSN_LOOP || insn->class == INSN_CALL ||
           insn->class == INSN_XBEGIN;
}

/* Adds what the block at OFFSET leads to. */
static void follow(struct search *s, uint64_t offset)
{
    struct insn insn;

    for (unsigned n = 0; n < BLOCK_MAX_INSNS; n++) {
        const uint8_t *bytes;
        size_t left = text_bytes(&s->text, offset, &bytes);

        if (!left || insn_decode(s->decoder, bytes, left, offset, &insn) != 0)
            return;
        offset += insn.length;
        if (insn_ends_block(&insn))
            break;
        if (offset <= UINT32_MAX && *slot_of(&s->found, (uint32_t)offset))
            return;
    }
    if (!insn_ends_block(&insn))
        return;
    if (insn_falls_through(&insn))
        add(s, (int64_t)offset);
    if (has_target(&insn))
        add(s, insn.target);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

uint32_t jit_explore(struct jit *j, const struct text_span *spans, uint32_t nspans, uint32_t start, uint32_t max,
                     int64_t (*known)(void *user, uint32_t offset), void *user, uint32_t *leaders)
{
    struct search s = {.found = {.offsets = leaders, .max = max, .slot_mask = 15},
                       .text = text_of(spans, nspans),
                       .decoder = j->decoder,
                       .known = known,
                       .user = user};

    leaders[0] = start;
    while (s.found.slot_mask < 2 * (uint64_t)max && s.found.slot_mask < UINT32_MAX / 2)
        s.found.slot_mask = s.found.slot_mask * 2 + 1;
    s.found.slots = calloc((size_t)s.found.slot_mask + 1, sizeof(*s.found.slots));
    if (!s.found.slots)
        return 1;
    s.found.n = 1;
    *slot_of(&s.found, start) = 1;
    for (uint32_t i = 0; i < s.found.n; i++)
        follow(&s, leaders[i]);
    free(s.found.slots);
    qsort(leaders, s.found.n, sizeof(*leaders), by_value);
    return s.found.n;
}
