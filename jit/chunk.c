/* SPDX-License-Identifier: Apache-2.0
 *
 * One chunk of a unit: its blocks in ascending order, then out of line the exits that its conditional branches need.
 *
 *   | block | block | ... | block | exit for L1 | exit for L2 | ...
 *                                 ^ after the end of the last block's map
 */
#include <stdlib.h>

#include "internal/error.h"
#include "jit/encode.h"
#include "jit/scan.h"

/* Why a block ends. */
enum block_end {
    END_TRANSFER, /* its last instruction is not INSN_NORMAL */
    END_FALL,     /* the next address is a leader, or the text (or the room for one block) ends here */
    END_BAD,      /* no instruction at the next address */
};

static struct insn *next_insn(struct jit *j)
{
    return array_reserve(&j->insns, 1) ? &j->insns.at[j->insns.n] : NULL;
}

/* Decodes the block at leader e->leader into j->insns. *END: offset after the last instruction. */
static enum block_end decode_block(struct emitter *e, struct jit *j, uint64_t *end)
{
    const struct jit_unit *unit = e->unit;
    uint32_t next = e->leader + 1;
    uint64_t offset = unit->leaders[e->leader];

    j->insns.n = 0;
    for (;;) {
        const uint8_t *bytes;
        struct insn *insn = next_insn(j);
        size_t left = text_bytes(&e->text, offset, &bytes);

        *end = offset;
        if (!insn) {
            e->chunk->error = -BDBI_ENOMEM;
            return END_BAD;
        }
        while (next < unit->nleaders && unit->leaders[next] < offset)
            next++; /* inside an instruction of this block: a decoding of its own */
        if (j->insns.n && next < unit->nleaders && unit->leaders[next] == offset)
            return END_FALL;
        if (j->insns.n == BLOCK_MAX_INSNS)
            return END_FALL;
        if (!left || insn_decode(e->decoder, bytes, left, unit->fixed_base + offset, insn) != 0) {
            /* At the text's end this may be an instruction that is only cut off: leave it to whoever sees more. */
            return j->insns.n && left < TEXT_WINDOW ? END_FALL : END_BAD;
        }
        j->insns.n++;
        offset += insn->length;
        if (insn_ends_block(insn)) {
            *end = offset;
            return END_TRANSFER;
        }
    }
}

/* Whether a landing ends here: the next block's, unless a block without any code (a jump to the next) is between them. */
static bool is_landed(const struct emitter *e)
{
    return !e->falls && e->landing_end && e->landing_end == e->chunk->code.n;
}

/* Nothing at OFFSET decodes: what the processor finds wrong there. */
static enum bdbi_event bad_event(struct emitter *e, uint64_t offset)
{
    const uint8_t *bytes;
    bool whole = text_bytes(&e->text, offset, &bytes) >= TEXT_WINDOW;

    return whole && insn_too_long(e->decoder, bytes) ? BDBI_EVENT_TOO_LONG : BDBI_EVENT_UNDECODABLE;
}

static bool is_nop(const uint8_t *bytes, unsigned length)
{
    struct scan s;

    return scan_insn(bytes, length, &s) == 0 &&
           ((s.map == SCAN_0F && s.opcode == 0x1f) || (s.map == SCAN_PRIMARY && s.opcode == 0x90 && !s.rex && !s.repeat));
}

static void emit_block(struct emitter *e, struct jit *j)
{
    bool padding = true; /* nops behind a call that does not return, before a function that needs its landing */
    struct chunk *c = e->chunk;
    uint32_t start = e->unit->leaders[e->leader];
    uint64_t end, read_end;
    enum block_end why = decode_block(e, j, &end);

    if (!e->falls && !is_landed(e) && emit_reserve(e))
        rule_landing(e, start);
    c->blocks[e->leader - c->first] =
        (struct image_block){start, (uint32_t)c->code.n, (uint32_t)c->map.n | (is_landed(e) ? IMAGE_LANDING : 0)};
    e->falls = false;
    e->piece_start = c->code.n;
    e->held = STATE_CLEAN;
    c->ninsns += (uint32_t)j->insns.n;
    c->nundecodable += why == END_BAD;
    read_end = end + (why == END_BAD ? TEXT_WINDOW : 0);
    if (c->app_end < read_end)
        c->app_end = read_end;
    if (e->unit->tool && j->insns.n)
        weave_block(e, j->insns.at, (uint32_t)j->insns.n, start);
    for (size_t i = 0; i < j->insns.n; i++) {
        const struct insn *insn = &j->insns.at[i];
        const uint8_t *bytes = NULL;

        if (!emit_reserve(e))
            return;
        text_bytes(&e->text, (uint64_t)app_offset(e, insn->pc), &bytes);
        padding = padding && is_nop(bytes, insn->length);
        rule_insn(e, insn, bytes);
        if (i == e->held_until)
            e->held = STATE_CLEAN;
    }
    if (!emit_reserve(e))
        return;
    if (why == END_FALL && padding) {
        rule_jump(e, (int64_t)end, STATE_CLEAN);
    } else if (why == END_FALL) {
        rule_continue(e, (int64_t)end, STATE_CLEAN);
    } else if (why == END_BAD) {
        rule_event(e, bad_event(e, end), end);
    }
    c->map.at[c->map.n++] = MAP_END;
}

static int by_target(const void *a, const void *b)
{
    const struct far_branch *x = a, *y = b;

    if (x->target != y->target)
        return x->target < y->target ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* One exit per distinct target, and the branches to it. They have no map: what runs here has left its block. */
static void emit_far_exits(struct emitter *e)
{
    struct chunk *c = e->chunk;
    size_t map_end = c->map.n;
    uint32_t exit_at = 0;

    if (c->far_branches.n)
        qsort(c->far_branches.at, c->far_branches.n, sizeof(*c->far_branches.at), by_target);
    for (size_t i = 0; i < c->far_branches.n; i++) {
        struct far_branch *branch = &c->far_branches.at[i];
        uint32_t field;

        if (i == 0 || branch->target != branch[-1].target) {
            if (!emit_reserve(e))
                return;
            exit_at = (uint32_t)c->code.n;
            e->piece_start = c->code.n;
            rule_direct_exit(e, branch->target, MAP_FORWARD);
            c->map.n = map_end;
        }
        field = exit_at - (branch->at + 4);
        memcpy(c->code.at + branch->at, &field, 4);
    }
}

void chunk_emit(struct jit *j, const struct jit_unit *unit, const struct leader_index *leaders, struct chunk *chunk)
{
    struct emitter e = {
        .unit = unit,
        .leaders = leaders,
        .decoder = j->decoder,
        .chunk = chunk,
        .text = text_of(unit->spans, unit->nspans),
        .lowest_place = unit->code_distance,
        .last_place = unit->code_distance + (chunk->first ? BDBI_MODULES_BYTES : 0),
    };

    chunk->blocks = malloc(chunk->count * sizeof(*chunk->blocks));
    if (!chunk->blocks) {
        chunk->error = -BDBI_ENOMEM;
        return;
    }
    for (uint32_t i = 0; i < chunk->count && !chunk->error; i++) {
        e.leader = chunk->first + i;
        emit_block(&e, j);
    }
    if (!chunk->error)
        emit_far_exits(&e);
    free(chunk->far_branches.at);
    chunk->far_branches.at = NULL;
}

void chunk_free(struct chunk *chunk)
{
    free(chunk->blocks);
    free(chunk->code.at);
    free(chunk->map.at);
    free(chunk->fixups.at);
    free(chunk->far_branches.at);
    free(chunk->counters.at);
    free(chunk->marks.at);
    free(chunk->unresolved.at);
    *chunk = (struct chunk){0};
}
