/* SPDX-License-Identifier: Apache-2.0
 *
 * Comparing at the ends of blocks: breakpoints at branches instead of single steps.
 *
 * From where one is, the code is read to the first branch (direct jmps are followed), a breakpoint is put there and at all code
 * that two has for it, and both run. At the breakpoint the states are compared. Then one's branch is done here, by decoding it,
 * and the first instruction of two's code for it likewise where it is of a simple kind; what is not is stepped. So two runs its
 * own code for every branch, and a wrong branch arrives at the wrong breakpoint. Code that is translated meanwhile gets its
 * breakpoints as it appears.
 */
#include "tests/lockstep/lockstep.h"

#include <string.h>

#include "launcher/context.h"

enum { LONGEST_PATH = 100000, MAX_JMPS = 1000 };

static bool stops_at(const struct app_insn *a)
{
    return (a->decoded.class != INSN_NORMAL && a->decoded.class != INSN_JMP) || a->replayed || a->breakpoint;
}

/* The first instruction from PC on that ends a block. */
static uint64_t path_end(struct lockstep *l, uint64_t pc)
{
    unsigned jmps = 0;
    for (unsigned i = 0; i < LONGEST_PATH && jmps < MAX_JMPS; i++) {
        const struct app_insn *a = insn_at(l, pc);
        if (stops_at(a))
            return pc;
        jmps += a->decoded.class == INSN_JMP;
        pc = a->decoded.class == INSN_JMP ? (uint64_t)a->decoded.target : pc + a->decoded.length;
    }
    fail("no branch on the path from 0x%lx", (unsigned long)pc);
}

/* ---- breakpoints ---- */

static void plant_code(struct lockstep *l, uint64_t app)
{
    for (const struct code_place *c = codemap_first(&l->map, app); c; c = codemap_next(&l->map, c))
        process_trap(&l->two, c->code);
}

/* False: it cannot be written in one (shared memory). */
static bool plant(struct lockstep *l, uint64_t app)
{
    if (!table_get(&l->terminators, app)) {
        table_put(&l->terminators, app, 1);
        plant_code(l, app);
    }
    return process_trap(&l->one, app);
}

void ends_forget(struct lockstep *l, uint64_t start, uint64_t end)
{
    struct table kept = {0};
    for (size_t i = 0; i < l->terminators.size; i++) {
        uint64_t app = l->terminators.at[i].key;
        if (app && (app < start || app >= end))
            table_put(&kept, app, 1);
    }
    table_clear(&l->terminators);
    l->terminators = kept;
}

/* Code has come or gone: breakpoints for all known ends. */
static void plant_new(struct lockstep *l)
{
    if (l->planted_version == l->map.version)
        return;
    uint32_t first = l->planted_places;
    if (l->map.nplaces < first || l->planted_rebuilds != l->map.rebuilds) {
        process_check_traps(&l->two, 0, l->map.core.start);
        process_check_traps(&l->two, l->map.core.end, UINT64_MAX);
        first = 0;
    }
    for (uint32_t i = first; i < l->map.nplaces; i++) {
        uint64_t code = l->map.places[i].code;
        if (table_get(&l->terminators, codemap_app(&l->map, code)))
            process_trap(&l->two, code);
    }
    l->planted_places = l->map.nplaces;
    l->planted_rebuilds = l->map.rebuilds;
    l->planted_version = l->map.version;
}

/* ---- one: branches by decoding ---- */

static bool condition(unsigned code, uint64_t flags)
{
    bool cf = flags & FLAG_CF, zf = flags & FLAG_ZF, sf = flags & FLAG_SF, of = flags & FLAG_OF, pf = flags & FLAG_PF;
    const bool base[8] = {of, cf, zf, cf || zf, sf, pf, sf != of, zf || sf != of};
    return base[code >> 1 & 7] != (code & 1);
}

static uint64_t general(const struct user_regs_struct *r, unsigned n)
{
    const unsigned long long all[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                                        r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};
    return all[n & 15];
}

/* The value of the r/m operand of an indirect branch. False: a form that is left to the processor. */
static bool operand(const struct process *p, const struct app_insn *a, uint64_t *value)
{
    const struct user_regs_struct *r = &p->regs;
    const uint8_t *b = a->bytes;
    unsigned at = a->decoded.modrm_offset;
    uint8_t rex = at >= 2 && (b[at - 2] & 0xf0) == 0x40 ? b[at - 2] : 0;
    uint64_t segment = 0, address = 0;
    for (unsigned i = 0; i + 1 < at; i++) {
        if (b[i] == 0x67 || b[i] == 0x66 || b[i] == 0x65)
            return false;
        if (b[i] == 0x64)
            segment = r->fs_base;
    }
    unsigned mod = b[at] >> 6, rm = b[at] & 7;
    if (mod == 3) {
        *value = general(r, rm | (rex & 1u) << 3);
        return true;
    }
    const uint8_t *displacement = b + at + 1;
    int32_t wide = 0;
    bool no_base = mod == 0 && rm == 5;
    if (rm == 4) {
        uint8_t sib = *displacement++;
        unsigned index = (sib >> 3 & 7) | (rex & 2u) << 2, base = sib & 7;
        no_base = mod == 0 && base == 5;
        address = (no_base ? 0 : general(r, base | (rex & 1u) << 3)) + (index == 4 ? 0 : general(r, index) << (sib >> 6));
    } else
        address = no_base ? a->decoded.pc + a->decoded.length : general(r, rm | (rex & 1u) << 3);
    if (mod == 1)
        wide = (int8_t)*displacement;
    else if (mod == 2 || no_base)
        memcpy(&wide, displacement, 4);
    return process_read(p, segment + address + (uint64_t)(int64_t)wide, value, 8) == 8;
}

static bool push(struct process *p, uint64_t value)
{
    if (process_write(p, p->regs.rsp - 8, &value, 8) != 8)
        return false;
    p->regs.rsp -= 8;
    return true;
}

/* Does the branch A in one. False: it has to be stepped. */
static bool branch(struct process *p, const struct app_insn *a)
{
    const struct insn *i = &a->decoded;
    uint64_t next = i->pc + i->length, target = (uint64_t)i->target;
    switch (i->class) {
    case INSN_JCC: {
        unsigned code = i->length >= 6 ? a->bytes[i->length - 5] : a->bytes[i->length - 2];
        target = condition(code & 15, p->regs.eflags) ? target : next;
        break;
    }
    case INSN_CALL:
        if (!push(p, next))
            return false;
        break;
    case INSN_RET:
        if (process_read(p, p->regs.rsp, &target, 8) != 8)
            return false;
        p->regs.rsp += 8u + i->ret_pop;
        break;
    case INSN_JMP_IND:
        if (!operand(p, a, &target))
            return false;
        break;
    case INSN_CALL_IND:
        if (!operand(p, a, &target) || !push(p, next))
            return false;
        break;
    default:
        return false;
    }
    if ((int64_t)(target << 16) >> 16 != (int64_t)target)
        return false;
    p->regs.rip = target;
    p->dirty = true;
    return true;
}

/* ---- two: the first instruction of the code for a branch ---- */

static bool code_insn(struct process *p)
{
    uint8_t b[12];
    int32_t distance;
    if (process_read(p, p->regs.rip, b, sizeof b) != sizeof b)
        return false;
    if (b[0] == 0x0f && (b[1] & 0xf0) == 0x80) { /* jcc rel32 */
        memcpy(&distance, b + 2, 4);
        p->regs.rip += 6 + (condition(b[1] & 15, p->regs.eflags) ? (uint64_t)(int64_t)distance : 0);
    } else if (b[0] == 0x65 && (b[1] & 0xfb) == 0x48 && b[2] == 0x89 && (b[3] & 0xc7) == 0x04 &&
               b[4] == 0x25) { /* mov gs:[n],r */
        uint64_t value = general(&p->regs, (b[3] >> 3 & 7) | (b[1] & 4u) << 1);
        memcpy(&distance, b + 5, 4);
        if (process_write(p, p->regs.gs_base + (uint64_t)(int64_t)distance, &value, 8) != 8)
            return false;
        p->regs.rip += 9;
    } else
        return false;
    p->dirty = true;
    return true;
}

/* ---- both ---- */

static bool at_end(const struct lockstep *l)
{
    uint64_t app = two_app(l);
    return app && table_get(&l->terminators, app);
}

/* Lets two run to the next block's end. It may be there already. */
static void two_to_end(struct lockstep *l)
{
    struct process *p = &l->two;
    while (p->stop == STOP_SIGNAL || (p->stop == STOP_TRAP && !at_end(l))) {
        two_leave_core(l, false);
        plant_new(l);
        if (l->two_returned)
            return;
    }
}

static void one_to_end(struct lockstep *l)
{
    struct process *p = &l->one;
    process_wait(p);
    if (p->stop == STOP_SIGNAL) {
        process_go(p, RESUME_STEP, p->signal);
        l->one_returned = true;
    }
}

static void execute_end(struct lockstep *l, uint64_t pc)
{
    const struct app_insn a = *insn_at(l, pc);
    if (a.decoded.class == INSN_SYSCALL) {
        syscall_both(l, pc);
        plant_new(l);
    } else if (a.replayed || a.breakpoint || a.decoded.class == INSN_STOP) {
        step_both(l, pc);
    } else {
        if (!branch(&l->one, &a))
            process_go(&l->one, RESUME_STEP, 0);
        if (!code_insn(&l->two))
            process_go(&l->two, RESUME_STEP, 0);
    }
}

void run_by_blocks(struct lockstep *l)
{
    struct process *one = &l->one;
    while (!ended(l)) {
        uint64_t end = path_end(l, one->regs.rip);
        plant_new(l);
        if (!plant(l, end)) {
            step_one_instruction(l);
            continue;
        }
        l->two_returned = l->one_returned = false;
        bool runs = one->regs.rip != end;
        if (runs)
            process_resume(one, RESUME_RUN, 0);
        two_to_end(l);
        if (runs)
            one_to_end(l);
        if (ended(l) || (l->one_returned && l->two_returned))
            continue;
        compare(l, one->regs.rip, two_app(l));
        execute_end(l, one->regs.rip);
    }
}
