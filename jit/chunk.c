/* SPDX-License-Identifier: Apache-2.0
 *
 * One chunk of a unit: its blocks in the leaders' order, then out of line the exits that its conditional branches need.
 *
 *   | block | block | ... | block | exit for L1 | exit for L2 | ...
 *                                 ^ after the end of the last block's map
 *
 * A block that the next one or two follow up to a jump through a table gets copies of those instead of falling into them: a
 * trace (table.c).
 */
#include <stdlib.h>

#include "internal/error.h"
#include "jit/encode.h"
#include "jit/scan.h"
#include "jit/table.h"

#define FUNCTION_ALIGN 16 /* what compilers align functions to */
#define CODE_ALIGN 32     /* and translated ones are; a unit's code begins at a page */

static struct insn *next_insn(struct block *b)
{
    return array_reserve(&b->insns, 1) ? &b->insns.at[b->insns.n] : NULL;
}

static enum block_end decode(struct emitter *e, struct block *b)
{
    const struct jit_unit *unit = e->unit;
    uint32_t next = b->leader + 1;
    uint64_t offset = unit->leaders[b->leader];

    b->insns.n = 0;
    for (;;) {
        const uint8_t *bytes;
        struct insn *insn = next_insn(b);
        size_t left = text_bytes(&e->text, offset, &bytes);

        b->end = offset;
        if (!insn) {
            e->chunk->error = -BDBI_ENOMEM;
            return END_BAD;
        }
        while (next < unit->nleaders && unit->leaders[next] < offset)
            next++; /* inside an instruction of this block: a decoding of its own */
        if (b->insns.n && next < unit->nleaders && unit->leaders[next] == offset)
            return END_FALL;
        if (b->insns.n == BLOCK_MAX_INSNS)
            return END_FALL;
        if (!left || insn_decode(e->decoder, bytes, left, unit->fixed_base + offset, insn) != 0) {
            /* At the text's end this may be an instruction that is only cut off: leave it to whoever sees more. */
            return b->insns.n && left < TEXT_WINDOW ? END_FALL : END_BAD;
        }
        b->insns.n++;
        offset += insn->length;
        if (insn_ends_block(insn)) {
            b->end = offset;
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

/* Whether B is nops: behind a call that does not return, before a function that needs its landing. */
static bool is_padding(struct emitter *e, const struct block *b)
{
    for (size_t i = 0; i < b->insns.n; i++) {
        const uint8_t *bytes;
        text_bytes(&e->text, (uint64_t)app_offset(e, b->insns.at[i].pc), &bytes);
        if (!is_nop(bytes, b->insns.at[i].length))
            return false;
    }
    return true;
}

uint32_t chunk_next(const struct emitter *e, uint32_t leader)
{
    uint32_t next = leader_position(e->leaders, leader) + 1;

    return next < e->chunk->first + e->chunk->count ? leader_at(e->leaders, next) : LEADER_NONE;
}

/* Of the block of LEADER, which is one of the chunk's. */
static struct image_block *entry_of(const struct emitter *e, uint32_t leader)
{
    return &e->chunk->blocks[leader_position(e->leaders, leader) - e->chunk->first];
}

/* The block at LEADER; valid until that of LEADER + BLOCKS_KEPT is asked for. */
static struct block *block_at(struct emitter *e, uint32_t leader)
{
    struct block *b = &e->jit->blocks[leader % BLOCKS_KEPT];

    if (b->leader != leader) {
        b->leader = leader;
        b->woven.done = false;
        b->why = decode(e, b);
    }
    return b;
}

/* The block after B in the module and the chunk, if B goes on to it; else NULL. */
static struct block *block_after(struct emitter *e, const struct block *b)
{
    uint32_t next = chunk_next(e, b->leader);

    if (next != b->leader + 1 || e->unit->leaders[next] != b->end)
        return NULL;
    return block_at(e, next);
}

/* Whether B's last instruction is of that class. */
static bool ends_in(const struct block *b, enum insn_class class)
{
    return b->insns.n && b->insns.at[b->insns.n - 1].class == class;
}

/* Whether B may be followed by a trace, whose length is not known: some block soon after it ends in an indirect jump. */
static bool may_start_trace(struct emitter *e, const struct block *b)
{
    if (!e->unit->nconstants || b->why != END_FALL)
        return false;
    for (uint32_t i = 1; i <= TRACE_BLOCKS && (b = block_after(e, b)); i++)
        if (ends_in(b, INSN_JMP_IND))
            return true;
    return false;
}

#define NEAR_MOST 127
#define EXIT_MOST 64 /* a direct exit is shorter */

/* Whether B's last instruction is a jump to a block of the unit. */
static bool jumps_inside(const struct emitter *e, const struct block *b)
{
    int64_t target;

    if (!ends_in(b, INSN_JMP))
        return false;
    target = app_offset(e, (uint64_t)b->insns.at[b->insns.n - 1].target);
    return target >= 0 && target <= UINT32_MAX && leader_find(e->leaders, (uint64_t)target) != LEADER_NONE;
}

/* No less than what stands between B, but for its last instruction if that is a branch, and the next block's code. */
static unsigned bytes_after(struct emitter *e, const struct block *b)
{
    uint32_t next = e->unit->leaders[chunk_next(e, b->leader)];
    bool falls = b->end == next && (ends_in(b, INSN_JCC) || (b->why == END_FALL && !is_padding(e, b)));

    if (falls)
        return 0;
    return (jumps_inside(e, b) ? 5 : EXIT_MOST) + BDBI_LANDING_BYTES + (next % FUNCTION_ALIGN ? 0 : CODE_ALIGN);
}

/* No less than B's code, without what stands behind it; over NEAR_MOST: not known. */
static unsigned bytes_of(struct emitter *e, const struct block *b)
{
    unsigned bytes = 0;

    if (b->why == END_BAD || may_start_trace(e, b))
        return NEAR_MOST + 1;
    for (size_t i = 0; i < b->insns.n && bytes <= NEAR_MOST; i++) {
        const struct insn *insn = &b->insns.at[i];
        if (insn->class == INSN_JCC)
            bytes += 6;
        else if (insn_is_copied(e, insn, 2 * NEAR_MOST))
            bytes += insn->length;
        else if (insn->class != INSN_JMP)
            bytes += NEAR_MOST + 1;
    }
    return bytes;
}

bool chunk_is_near(struct emitter *e, uint32_t leader)
{
    struct chunk *c = e->chunk;
    uint32_t to = leader_position(e->leaders, leader), from = leader_position(e->leaders, e->leader);
    unsigned bytes = 0;

    if (to < c->first || to >= c->first + c->count)
        return false;
    if (to <= from)
        return c->code.n + 2 - entry_of(e, leader)->code_offset <= NEAR_MOST + 1;
    if (e->copies || e->unit->tool || e->unit->checked)
        return false;
    for (uint32_t i = from; i < to && bytes <= NEAR_MOST; i++) {
        uint32_t between = leader_at(e->leaders, i);
        const struct block *b;
        if (between - e->leader > BLOCKS_KEPT - TRACE_BLOCKS - 1) /* the block at work must be kept meanwhile */
            return false;
        b = block_at(e, between);
        bytes += (i > from ? bytes_of(e, b) : 0) + bytes_after(e, b);
    }
    return bytes <= NEAR_MOST;
}

static bool append_insns(struct jit *j, const struct block *b)
{
    if (!array_reserve(&j->trace, b->insns.n))
        return false;
    memcpy(j->trace.at + j->trace.n, b->insns.at, b->insns.n * sizeof(*b->insns.at));
    j->trace.n += b->insns.n;
    return true;
}

/* Whether the blocks after B, up to an indirect jump, are a trace that B's last instruction proves. j->trace gets that
 * instruction and theirs, BLOCKS what they are of. Returns their number, 0: none. */
static uint32_t find_trace(struct emitter *e, const struct block *b, struct block **blocks, struct table_site *site)
{
    struct jit *j = e->jit;
    uint32_t n = 0;
    const struct block *last = b;

    if (!e->unit->nconstants || b->why != END_FALL || !b->insns.n)
        return 0;
    j->trace.n = 0;
    if (!array_reserve(&j->trace, 1))
        return 0;
    j->trace.at[j->trace.n++] = b->insns.at[b->insns.n - 1];
    while (n < TRACE_BLOCKS) {
        struct block *next = block_after(e, last);
        if (!next || next->why == END_BAD || !next->insns.n || !append_insns(j, next))
            return 0;
        blocks[n++] = next;
        last = next;
        switch (next->insns.at[next->insns.n - 1].class) {
        case INSN_JMP_IND:
            return table_find(e, j->trace.at, 0, (uint32_t)j->trace.n, site) ? n : 0;
        case INSN_NORMAL:
        case INSN_JCC:
            break;
        default:
            return 0;
        }
    }
    return 0;
}

/* Emits the blocks' copies. */
static void emit_trace(struct emitter *e, struct block *const *blocks, uint32_t n, const struct table_site *site)
{
    uint32_t at = 1; /* 0: the last instruction before them */

    for (uint32_t i = 0; i < n; i++) {
        if (e->unit->tool)
            weave_block(e, blocks[i], true);
        e->trace_at = i + 1 < n ? (int64_t)blocks[i]->end : -1;
        for (size_t k = 0; k < blocks[i]->insns.n; k++, at++) {
            const struct insn *insn = &blocks[i]->insns.at[k];
            const uint8_t *bytes = NULL;

            if (!emit_reserve(e))
                return;
            text_bytes(&e->text, (uint64_t)app_offset(e, insn->pc), &bytes);
            if (at < site->load)
                rule_insn(e, insn, bytes);
            else
                table_insn(e, site, at, insn, bytes);
        }
    }
}

/* int3 up to a multiple of ALIGNMENT, less BEFORE. */
static void pad(struct emitter *e, unsigned alignment, unsigned before)
{
    while ((e->chunk->code.n + before) % alignment)
        put1(e, 0xcc);
}

/* Before the landing of the block at START: if that is aligned as functions are, the block's code will be too. */
static void align_function(struct emitter *e, uint32_t start)
{
    if (start % FUNCTION_ALIGN == 0)
        pad(e, CODE_ALIGN, BDBI_LANDING_BYTES);
}

static void emit_block(struct emitter *e)
{
    struct chunk *c = e->chunk;
    uint32_t start = e->unit->leaders[e->leader], ntrace;
    uint64_t read_end;
    struct block *b = block_at(e, e->leader), *trace[TRACE_BLOCKS];
    struct table_site site;

    if (!e->falls && !is_landed(e) && emit_reserve(e)) {
        align_function(e, start);
        rule_landing(e, start);
    }
    *entry_of(e, e->leader) =
        (struct image_block){start, (uint32_t)c->code.n, (uint32_t)c->map.n | (is_landed(e) ? IMAGE_LANDING : 0)};
    e->falls = false;
    e->piece_start = c->code.n;
    e->held = STATE_CLEAN;
    c->ninsns += (uint32_t)b->insns.n;
    c->nundecodable += b->why == END_BAD;
    read_end = b->end + (b->why == END_BAD ? TEXT_WINDOW : 0);
    if (c->app_end < read_end)
        c->app_end = read_end;
    if (e->unit->checked && !rule_check(e, start, read_end))
        return;
    if (e->unit->tool && b->insns.n)
        weave_block(e, b, false);
    for (size_t i = 0; i < b->insns.n; i++) {
        const struct insn *insn = &b->insns.at[i];
        const uint8_t *bytes = NULL;

        if (!emit_reserve(e))
            return;
        text_bytes(&e->text, (uint64_t)app_offset(e, insn->pc), &bytes);
        rule_insn(e, insn, bytes);
        if (i == e->held_until)
            e->held = STATE_CLEAN;
    }
    if (!emit_reserve(e))
        return;
    if ((ntrace = find_trace(e, b, trace, &site)) > 0) {
        e->copies = true;
        emit_trace(e, trace, ntrace, &site);
        e->copies = false;
        if (!emit_reserve(e))
            return;
    } else if (b->why == END_FALL && is_padding(e, b)) {
        rule_jump(e, (int64_t)b->end, STATE_CLEAN);
    } else if (b->why == END_FALL) {
        rule_continue(e, (int64_t)b->end, STATE_CLEAN);
    } else if (b->why == END_BAD) {
        rule_event(e, bad_event(e, b->end), b->end);
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

/* All blocks of the chunk have their places. */
static void put_near_branches(const struct emitter *e)
{
    struct chunk *c = e->chunk;

    for (size_t i = 0; i < c->near_branches.n; i++) {
        const struct fixup *f = &c->near_branches.at[i];
        int64_t distance = (int64_t)entry_of(e, f->target)->code_offset - (f->at + 1);
        if (distance != (int8_t)distance)
            c->error = -BDBI_EINVAL; /* chunk_is_near promised that it is */
        c->code.at[f->at] = (uint8_t)distance;
    }
}

void chunk_mark_ran(struct jit *j, const struct jit_unit *unit, bool *ran)
{
    struct chunk none = {0};
    struct emitter e = {.unit = unit, .decoder = j->decoder, .chunk = &none, .text = text_of(unit->spans, unit->nspans)};
    struct block b = {0};

    for (uint32_t i = 0; i < unit->nleaders; i++) {
        uint32_t next = i + 1;
        b.leader = i;
        if (!ran[i] || decode(&e, &b) != END_FALL)
            continue;
        while (next < unit->nleaders && unit->leaders[next] < b.end)
            next++;
        if (next < unit->nleaders && unit->leaders[next] == b.end)
            ran[next] = true;
    }
    free(b.insns.at);
}

void chunk_emit(struct jit *j, const struct jit_unit *unit, const struct leader_index *leaders, struct chunk *chunk)
{
    struct emitter e = {
        .unit = unit,
        .jit = j,
        .leaders = leaders,
        .decoder = j->decoder,
        .chunk = chunk,
        .text = text_of(unit->spans, unit->nspans),
        .lowest_place = unit->code_distance,
        .last_place = unit->code_distance + (chunk->first ? BDBI_MODULES_BYTES : 0),
        .trace_at = -1,
    };

    for (uint32_t i = 0; i < BLOCKS_KEPT; i++)
        j->blocks[i].leader = LEADER_NONE;

    chunk->blocks = malloc(chunk->count * sizeof(*chunk->blocks));
    if (!chunk->blocks) {
        chunk->error = -BDBI_ENOMEM;
        return;
    }
    for (uint32_t i = 0; i < chunk->count && !chunk->error; i++) {
        e.leader = leader_at(leaders, chunk->first + i);
        emit_block(&e);
    }
    if (!chunk->error)
        emit_far_exits(&e);
    if (!chunk->error)
        put_near_branches(&e);
    if (!chunk->error && chunk->first + chunk->count < unit->nleaders && emit_reserve(&e))
        pad(&e, CODE_ALIGN, 0);
    free(chunk->far_branches.at);
    chunk->far_branches.at = NULL;
    free(chunk->near_branches.at);
    chunk->near_branches.at = NULL;
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
    free(chunk->tables.at);
    free(chunk->links.at);
    free(chunk->near_branches.at);
    *chunk = (struct chunk){0};
}
