/* SPDX-License-Identifier: Apache-2.0
 *
 * Weaving: what a tool may ask for while it looks at a block (include/bdbi/tool.h), and the code for it.
 */
#include "bdbi/tool.h"

#include "internal/error.h"
#include "jit/encode.h"
#include "jit/scan.h"
#include "tools/args.h"

struct bdbi_block {
    const struct jit_unit *unit;
    struct chunk *chunk;
    const struct insn *insns;
    uint32_t ninsns;
    uint32_t leader; /* its number */
};

uint32_t bdbi_block_instructions(const struct bdbi_block *block)
{
    return block->ninsns;
}

bool bdbi_block_ends_in_transfer(const struct bdbi_block *block)
{
    enum insn_class last = block->insns[block->ninsns - 1].class;

    return last != INSN_NORMAL && last != INSN_CPUID && last != INSN_STOP && last != INSN_SAVE_FPU && last != INSN_UNSUPPORTED;
}

uint32_t bdbi_block_bytes(const struct bdbi_block *block)
{
    const struct insn *last = &block->insns[block->ninsns - 1];

    return (uint32_t)(last->pc + last->length - block->insns[0].pc);
}

uint64_t bdbi_block_offset(const struct bdbi_block *block)
{
    return block->unit->leaders[block->leader];
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

static int ask_for(struct bdbi_block *block, struct data *data, uint64_t info)
{
    if (!array_reserve(data, 1))
        return block->chunk->error = -BDBI_ENOMEM;
    data->at[data->n++] = (struct datum){info, block->leader};
    return 0;
}

int bdbi_block_count(struct bdbi_block *block, uint64_t info)
{
    return ask_for(block, &block->chunk->counters, info);
}

int bdbi_block_mark(struct bdbi_block *block, uint64_t info)
{
    return ask_for(block, &block->chunk->marks, info);
}

#define INC_FLAGS (FLAG_ALL & ~FLAG_CF) /* what inc changes */
#define LOOK_AHEAD 8                    /* instructions of each block that follows */
#define LOOK_BLOCKS 3                   /* such blocks in a row */
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

/* Whether the code at OFFSET overwrites PENDING before it reads any of it. Anonymous code may be a guest's JIT's, which is
 * replaced page by page: what is translated must not depend on another page. */
static bool overwrites(struct emitter *e, int64_t offset, uint64_t page, unsigned pending, unsigned blocks);

/* The same for what follows LAST, a block's last instruction. */
static bool overwritten_after(struct emitter *e, const struct insn *last, uint64_t page, unsigned pending, unsigned blocks)
{
    int64_t next = app_offset(e, last->pc + last->length), target = app_offset(e, (uint64_t)last->target);

    if (e->unit->checked) /* what follows may be written without this block's being made anew */
        return false;
    switch (last->class) {
    case INSN_NORMAL:
    case INSN_CPUID:
        return overwrites(e, next, page, pending, blocks);
    case INSN_JMP:
    case INSN_CALL:
        return overwrites(e, target, page, pending, blocks);
    case INSN_JCC:
    case INSN_LOOP:
        return overwrites(e, next, page, pending, blocks) && overwrites(e, target, page, pending, blocks);
    default:
        return false;
    }
}

static bool overwrites(struct emitter *e, int64_t offset, uint64_t page, unsigned pending, unsigned blocks)
{
    for (unsigned n = 0; n < LOOK_AHEAD; n++) {
        struct insn insn;
        const uint8_t *bytes;
        size_t left;
        enum fate fate;

        if (offset < 0 || (e->unit->anonymous && PAGE(offset) != page))
            return false;
        left = text_bytes(&e->text, (uint64_t)offset, &bytes);
        if (!left || insn_decode(e->decoder, bytes, left, e->unit->fixed_base + (uint64_t)offset, &insn) != 0)
            return false;
        offset += insn.length;
        if (e->unit->anonymous && PAGE(offset - 1) != page)
            return false;
        fate = step(&pending, &insn);
        if (fate != FATE_OPEN)
            return fate == FATE_OVERWRITTEN;
        if (insn_ends_block(&insn))
            return blocks > 1 && overwritten_after(e, &insn, page, pending, blocks - 1);
    }
    return false;
}

/* Whether the flags that inc changes are overwritten before anything reads them: in the block, or a little way into what
 * follows. */
static bool inc_is_invisible(struct emitter *e, const struct insn *insns, uint32_t ninsns)
{
    const struct insn *last = &insns[ninsns - 1];
    unsigned pending = INC_FLAGS;
    uint64_t page = PAGE(app_offset(e, last->pc + last->length) - 1);

    for (uint32_t i = 0; i < ninsns; i++) {
        enum fate fate = step(&pending, &insns[i]);
        if (fate != FATE_OPEN)
            return fate == FATE_OVERWRITTEN;
    }
    return overwritten_after(e, last, page, pending, LOOK_BLOCKS);
}

/* 65 rex opcode modrm disp32: an instruction on gs:[rip -> counter] */
static void counter_form(struct emitter *e, unsigned rex, unsigned opcode, unsigned reg, uint32_t counter)
{
    put1(e, 0x65);
    put1(e, rex);
    put1(e, opcode);
    put_datum(e, reg, FIXUP_COUNTER, counter);
}

/* before: the block
 * after:  inc qword ptr gs:[rip -> counter]; the block */
static void count_with_inc(struct emitter *e, uint32_t counter)
{
    counter_form(e, 0x48, 0xff, 0, counter); /* inc qword ptr gs:[rip -> counter] */
    map_piece(e, STATE_CLEAN);
}

#define BIT(r) (1u << (r))
#define USABLE (0xffffu & ~BIT(RSP) & ~BIT(R12)) /* r12 would take a SIB byte */
#define LOOK_FOR_ROOM 16                         /* instructions */

/* The register that INSN overwrites, all of it and whatever was in it, as a bit; 0: none, or one that is not looked at. LLVM's
 * list of what is written would not do: it has parts of registers and results that are sometimes not written. */
static unsigned overwritten(const struct insn *insn, const uint8_t *bytes)
{
    struct scan s;
    unsigned reg, rm, bit;

    scan_insn(bytes, insn->length, &s);
    reg = (s.modrm >> 3 & 7) | (s.rex & 4) << 1;
    rm = (s.modrm & 7) | (s.rex & 1u) << 3;
    bit = 0;
    if (s.operand16)
        return 0;
    switch (s.map << 8 | s.opcode) {
    case 0x89: /* mov r/m, r */
        bit = s.modrm >= 0xc0 ? BIT(rm) : 0;
        break;
    case 0xc7: /* mov r/m, imm */
        bit = s.modrm >= 0xc0 && insn->class == INSN_NORMAL && (s.modrm & 0x38) == 0 ? BIT(rm) : 0;
        break;
    case 0x63:                /* movsxd */
    case 0x8b:                /* mov r, r/m */
    case 0x8d:                /* lea */
    case SCAN_0F << 8 | 0xb6: /* movzx, movsx */
    case SCAN_0F << 8 | 0xb7:
    case SCAN_0F << 8 | 0xbe:
    case SCAN_0F << 8 | 0xbf:
        bit = BIT(reg);
        break;
    case 0x58 ... 0x5f: /* pop */
    case 0xb8 ... 0xbf: /* mov r, imm */
        bit = BIT((s.opcode & 7) | (s.rex & 1u) << 3);
        break;
    default:
        break;
    }
    return bit & insn->regs_written & ~(unsigned)insn->regs_read;
}

bool insn_is_copied(const struct emitter *e, const struct insn *insn, unsigned bytes)
{
    int64_t target = app_offset(e, (uint64_t)insn->rip_target);

    return insn->class == INSN_NORMAL && (!insn->rip_relative || (reaches(e, target, 0) && reaches(e, target, bytes)));
}

/* A register that N counters can use without giving it back, because the block overwrites it before it is read, or saves it at
 * its end anyway; and the number of the instruction that does. */
static bool find_room(struct emitter *e, const struct insn *insns, uint32_t ninsns, size_t n, enum gpr *r, uint32_t *until)
{
    unsigned code = (unsigned)(n < 64 ? n : 64) * 32 + LOOK_FOR_ROOM * 16, open = USABLE, i;
    const struct insn *last = &insns[ninsns - 1];
    const uint8_t *bytes;

    for (i = 0; i < ninsns && i < LOOK_FOR_ROOM && n < 64 && insn_is_copied(e, &insns[i], code); i++) {
        unsigned found;

        text_bytes(&e->text, (uint64_t)app_offset(e, insns[i].pc), &bytes);
        found = open & overwritten(&insns[i], bytes);
        *until = i;
        if (found) {
            *r = (enum gpr)__builtin_ctz(found);
            return true;
        }
        open &= ~(unsigned)(insns[i].regs_read | insns[i].regs_written);
    }
    *until = i;
    if (i != ninsns - 1)
        return false;
    open &= ~(unsigned)last->regs_read;
    text_bytes(&e->text, (uint64_t)app_offset(e, last->pc), &bytes);
    *r = last->class == INSN_CALL ? RAX : RCX;
    if (rule_has_link(e, last, bytes)) /* then nothing is saved */
        return false;
    return (open & BIT(*r)) && (last->class == INSN_RET || last->class == INSN_JMP_IND || last->class == INSN_CALL_IND ||
                                (last->class == INSN_CALL && rule_call_saves_rax(e, last)));
}

/* mov r, gs:[rip -> counter]; lea r, [r + 1]; mov gs:[rip -> counter], r. STATE: before it. */
static void add_in_register(struct emitter *e, uint32_t counter, enum gpr r, unsigned state)
{
    unsigned high = (r >> 3) * 4, low = r & 7;

    counter_form(e, 0x48 | high, 0x8b, low, counter); /* mov r, gs:[rip -> counter] */
    map_piece(e, state);
    put1(e, 0x48 | high | high >> 2); /* lea r, [r + 1] */
    put1(e, 0x8d);
    put1(e, 0x40 | low << 3 | low);
    put1(e, 1);
    map_piece(e, state_saved(r));
    counter_form(e, 0x48 | high, 0x89, low, counter); /* mov gs:[rip -> counter], r */
    map_piece(e, state_saved(r));
}

/* before: the block
 * after:  mov home(r), r; mov r, gs:[rip -> counter]; lea r, [r + 1]; mov gs:[rip -> counter], r; <the same of each counter>;
 *         [mov r, home(r);] the block
 * Restoring is what takes time: the value goes through memory. So r is left in its home where find_room knows such a register.
 */
static void count_without_flags(struct emitter *e, const struct block *b, bool copy)
{
    size_t first = b->woven.first, n = b->woven.n;
    enum gpr r = RAX;
    bool room = !copy && find_room(e, b->insns.at, (uint32_t)b->insns.n, n, &r, &e->held_until);

    if (!room)
        r = RAX;
    if (!emit_reserve(e))
        return;
    mov_home_reg(e, r);
    map_piece(e, STATE_CLEAN);
    for (size_t i = first; i < first + n && emit_reserve(e); i++)
        add_in_register(e, (uint32_t)i, r, i == first ? STATE_CLEAN : state_saved(r));
    if (room) {
        e->held = state_saved(r);
    } else if (emit_reserve(e)) {
        mov_reg_home(e, r);
        map_piece(e, state_saved(r));
    }
}

/* before: the block
 * after:  mov byte ptr gs:[rip -> mark], 1; the block */
static void set_mark(struct emitter *e, uint32_t mark)
{
    put1(e, 0x65); /* mov byte ptr gs:[rip -> mark], 1 */
    put1(e, 0xc6);
    put_datum(e, 0, FIXUP_MARK, mark);
    put1(e, 1);
    map_piece(e, STATE_CLEAN);
}

static void run_tool(struct emitter *e, struct block *b)
{
    struct chunk *c = e->chunk;
    uint32_t ninsns = (uint32_t)b->insns.n;
    struct bdbi_block block = {e->unit, c, b->insns.at, ninsns, b->leader};

    b->woven = (struct woven){.done = true, .first = c->counters.n, .first_mark = c->marks.n};
    if (e->unit->guard)
        e->unit->guard(e->unit->tool, &block);
    else
        e->unit->tool->weave(&block);
    b->woven.n = c->counters.n - b->woven.first;
    b->woven.nmarks = c->marks.n - b->woven.first_mark;
    b->woven.invisible = b->woven.n && inc_is_invisible(e, b->insns.at, ninsns);
}

void weave_block(struct emitter *e, struct block *b, bool copy)
{
    if (!b->woven.done)
        run_tool(e, b);
    for (size_t i = 0; i < b->woven.nmarks && emit_reserve(e); i++)
        set_mark(e, (uint32_t)(b->woven.first_mark + i));
    if (!b->woven.n)
        return;
    if (!b->woven.invisible) {
        count_without_flags(e, b, copy);
        return;
    }
    for (size_t i = b->woven.first; i < b->woven.first + b->woven.n && emit_reserve(e); i++)
        count_with_inc(e, (uint32_t)i);
}
