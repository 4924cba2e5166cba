/* SPDX-License-Identifier: Apache-2.0
 *
 * Weaving: what a tool may ask for while it looks at a block (include/bdbi/tool.h), and the code for it.
 */
#include "bdbi/tool.h"

#include "internal/error.h"
#include "jit/encode.h"
#include "tools/args.h"

struct bdbi_block {
    const struct jit_unit *unit;
    struct chunk *chunk;
    const struct insn *insns;
    uint32_t ninsns;
    uint32_t offset;
};

uint32_t bdbi_block_instructions(const struct bdbi_block *block)
{
    return block->ninsns;
}

bool bdbi_block_ends_in_transfer(const struct bdbi_block *block)
{
    enum insn_class last = block->insns[block->ninsns - 1].class;

    return last != INSN_NORMAL && last != INSN_STOP && last != INSN_UNSUPPORTED;
}

uint32_t bdbi_block_bytes(const struct bdbi_block *block)
{
    const struct insn *last = &block->insns[block->ninsns - 1];

    return (uint32_t)(last->pc + last->length - block->insns[0].pc);
}

uint64_t bdbi_block_offset(const struct bdbi_block *block)
{
    return block->offset;
}

const char *bdbi_block_option(const struct bdbi_block *block, const char *key, size_t *bytes)
{
    size_t n = 0;

    while (key[n])
        n++;
    if (!tool_list_has(block->unit->tool->weave_options, key, n))
        return NULL;
    return tool_arg(block->unit->tool_args, key, bytes);
}

/* Appends INFO to counters or marks. */
#define ask_for(chunk, kind, info)                                                                                             \
    (array_reserve(&(chunk)->kind, 1) ? ((chunk)->kind.at[(chunk)->kind.n++] = (info), 0) : ((chunk)->error = -BDBI_ENOMEM))

int bdbi_block_count(struct bdbi_block *block, uint64_t info)
{
    return ask_for(block->chunk, counters, info);
}

int bdbi_block_mark(struct bdbi_block *block, uint64_t info)
{
    return ask_for(block->chunk, marks, info);
}

#define INC_FLAGS (FLAG_ALL & ~FLAG_CF) /* what inc changes */
#define LOOK_AHEAD 8                    /* instructions */
#define PAGE(offset) ((uint64_t)(offset) >> 12)

enum fate { FATE_READ, FATE_OVERWRITTEN, FATE_OPEN };

/* What INSN does to the flags in *PENDING, whose values nobody has read or overwritten so far. */
static enum fate step(unsigned *pending, const struct insn *insn)
{
    if (insn->flags_read & *pending)
        return FATE_READ;
    *pending &= ~(unsigned)insn->flags_written;
    return *pending ? FATE_OPEN : FATE_OVERWRITTEN;
}

/* Whether the code at OFFSET overwrites PENDING before it reads any of it. Code with a fixed base may be a guest's JIT's, which
 * is replaced page by page: then what is translated must not depend on another page. */
static bool overwrites(struct emitter *e, int64_t offset, uint64_t page, unsigned pending)
{
    for (unsigned n = 0; n < LOOK_AHEAD; n++) {
        struct insn insn;
        const uint8_t *bytes;
        size_t left;
        enum fate fate;

        if (offset < 0 || (e->unit->fixed_base && PAGE(offset) != page))
            return false;
        left = text_bytes(&e->text, (uint64_t)offset, &bytes);
        if (!left || insn_decode(e->decoder, bytes, left, e->unit->fixed_base + (uint64_t)offset, &insn) != 0)
            return false;
        offset += insn.length;
        if (e->unit->fixed_base && PAGE(offset - 1) != page)
            return false;
        fate = step(&pending, &insn);
        if (fate != FATE_OPEN)
            return fate == FATE_OVERWRITTEN;
        if (insn_ends_block(&insn))
            return false;
    }
    return false;
}

/* Whether the flags that inc changes are overwritten before anything reads them: in the block, or a little way into what
 * follows. */
static bool inc_is_invisible(struct emitter *e, const struct insn *insns, uint32_t ninsns)
{
    const struct insn *last = &insns[ninsns - 1];
    unsigned pending = INC_FLAGS;
    int64_t next = app_offset(e, last->pc + last->length), target = app_offset(e, (uint64_t)last->target);
    uint64_t page = PAGE(next - 1);

    for (uint32_t i = 0; i < ninsns; i++) {
        enum fate fate = step(&pending, &insns[i]);
        if (fate != FATE_OPEN)
            return fate == FATE_OVERWRITTEN;
    }
    switch (last->class) {
    case INSN_NORMAL:
        return overwrites(e, next, page, pending);
    case INSN_JMP:
    case INSN_CALL:
        return overwrites(e, target, page, pending);
    case INSN_JCC:
    case INSN_LOOP:
        return overwrites(e, next, page, pending) && overwrites(e, target, page, pending);
    default:
        return false;
    }
}

/* 65 48 opcode modrm disp32: an instruction on gs:[rip -> counter] */
static void counter_form(struct emitter *e, unsigned opcode, unsigned modrm, uint32_t counter)
{
    put1(e, 0x65);
    put1(e, 0x48);
    put1(e, opcode);
    put1(e, modrm);
    put_rel_counter(e, counter);
}

/* before: the block
 * after:  inc qword ptr gs:[rip -> counter]; the block */
static void count_with_inc(struct emitter *e, uint32_t counter)
{
    counter_form(e, 0xff, 0x05, counter); /* inc qword ptr gs:[rip -> counter] */
    map_piece(e, STATE_CLEAN);
}

/* before: the block
 * after:  mov home(rax), rax; mov rax, gs:[rip -> counter]; lea rax, [rax + 1]; mov gs:[rip -> counter], rax;
 *         mov rax, home(rax); the block */
static void count_without_flags(struct emitter *e, uint32_t counter)
{
    mov_home_reg(e, RAX);
    map_piece(e, STATE_CLEAN);
    counter_form(e, 0x8b, 0x05, counter); /* mov rax, gs:[rip -> counter] */
    map_piece(e, STATE_CLEAN);
    put1(e, 0x48); /* lea rax, [rax + 1] */
    put1(e, 0x8d);
    put1(e, 0x40);
    put1(e, 1);
    map_piece(e, MAP_RAX);
    counter_form(e, 0x89, 0x05, counter); /* mov gs:[rip -> counter], rax */
    map_piece(e, MAP_RAX);
    mov_reg_home(e, RAX);
    map_piece(e, MAP_RAX);
}

/* before: the block
 * after:  mov byte ptr gs:[rip -> mark], 1; the block */
static void set_mark(struct emitter *e, uint32_t mark)
{
    put1(e, 0x65); /* mov byte ptr gs:[rip -> mark], 1 */
    put1(e, 0xc6);
    put1(e, 0x05);
    put_rel_mark(e, mark, 1);
    put1(e, 1);
    map_piece(e, STATE_CLEAN);
}

void weave_block(struct emitter *e, const struct insn *insns, uint32_t ninsns, uint32_t offset)
{
    struct chunk *c = e->chunk;
    struct bdbi_block block = {e->unit, c, insns, ninsns, offset};
    size_t first = c->counters.n, first_mark = c->marks.n;
    bool invisible;

    if (e->unit->guard)
        e->unit->guard(e->unit->tool, &block);
    else
        e->unit->tool->weave(&block);
    for (size_t i = first_mark; i < c->marks.n && emit_reserve(e); i++)
        set_mark(e, (uint32_t)i);
    if (c->counters.n == first)
        return;
    invisible = inc_is_invisible(e, insns, ninsns);
    for (size_t i = first; i < c->counters.n; i++) {
        if (!emit_reserve(e))
            return;
        if (invisible)
            count_with_inc(e, (uint32_t)i);
        else
            count_without_flags(e, (uint32_t)i);
    }
}
