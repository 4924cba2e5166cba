/* SPDX-License-Identifier: Apache-2.0
 *
 * Moving the two processes by single steps.
 *
 * Boundaries of two: the first code byte of an app instruction, where every app register is in its register. Not of one: a
 * direct jmp, which may have no code at all. Inside the core two is not stepped: it runs to the core's last instruction, where
 * a breakpoint is and whose effect, a jump through the thread context, is done here. The same for the lookup's last
 * instruction.
 */
#include "tests/lockstep/lockstep.h"

#include <cpuid.h>
#include <signal.h>
#include <string.h>

#include "launcher/context.h"
#include "launcher/layout.h"

#define COMPARED_FLAGS (FLAG_ALL | 0x400u /* DF */)

/* ---- app instructions ---- */

/* Index of the first byte of the opcode. */
static unsigned skip_prefixes(const uint8_t *b, bool *repeat)
{
    unsigned i = 0;
    for (; i < 14; i++) {
        if (b[i] == 0xf2 || b[i] == 0xf3)
            *repeat = true;
        else if (b[i] != 0x66 && b[i] != 0x67 && b[i] != 0x2e && b[i] != 0x36 && b[i] != 0x3e && b[i] != 0x26 && b[i] != 0x64 &&
                 b[i] != 0x65 && b[i] != 0xf0)
            break;
    }
    return (b[i] & 0xf0) == 0x40 ? i + 1 : i;
}

static void classify(struct app_insn *a)
{
    bool repeat = false;
    const uint8_t *op = a->bytes + skip_prefixes(a->bytes, &repeat);
    a->repeated = repeat && ((op[0] >= 0xa4 && op[0] <= 0xa7) || (op[0] >= 0xaa && op[0] <= 0xaf));
    a->pushf = op[0] == 0x9c;
    a->breakpoint = op[0] == 0xcc;
    if (op[0] != 0x0f)
        return;
    a->replayed = op[1] == 0x31 /* rdtsc */ || (op[1] == 0x01 && op[2] == 0xf9) /* rdtscp */ ||
                  (op[1] == 0xc7 && op[2] >= 0xf0) /* rdrand, rdseed, rdpid */;
}

const struct app_insn *insn_at(struct lockstep *l, uint64_t pc)
{
    const uint64_t *index = table_get(&l->insn_index, pc);
    if (index)
        return &l->insns[*index - 1];
    if (l->ninsns == l->capacity) {
        l->capacity = l->capacity ? l->capacity * 2 : 4096;
        l->insns = realloc(l->insns, l->capacity * sizeof *l->insns);
        if (!l->insns)
            fail("out of memory");
    }
    struct app_insn *a = &l->insns[l->ninsns++];
    *a = (struct app_insn){.repeated = false};
    size_t n = process_read(&l->one, pc, a->bytes, MAX_INSN);
    if (insn_decode(l->decoder, a->bytes, n, pc, &a->decoded) < 0)
        a->decoded = (struct insn){.pc = pc, .class = INSN_STOP, .length = 1};
    classify(a);
    table_put(&l->insn_index, pc, l->ninsns);
    return a;
}

void insns_forget(struct lockstep *l)
{
    table_clear(&l->insn_index);
    l->ninsns = 0;
}

/* ---- two and its core ---- */

/* jmp *%gs:OFFSET between FROM and TO; the addresses go to AT. */
static uint32_t find_jumps(const struct process *p, uint64_t from, uint64_t to, uint8_t offset, uint64_t *at, uint32_t max)
{
    const uint8_t wanted[8] = {0x65, 0xff, 0x24, 0x25, offset, 0, 0, 0};
    uint8_t code[4096];
    size_t n = process_read(p, from, code, to - from < sizeof code ? to - from : sizeof code);
    uint32_t found = 0;
    for (size_t i = 0; i + sizeof wanted <= n && found < max; i++)
        if (!memcmp(code + i, wanted, sizeof wanted))
            at[found++] = from + i;
    return found;
}

static bool is_ibl_jump(const struct lockstep *l, uint64_t pc)
{
    for (uint32_t i = 0; i < l->nibl_jumps; i++)
        if (l->ibl_jumps[i] == pc)
            return true;
    return false;
}

static void jump_through(struct process *p, uint64_t offset)
{
    p->regs.rip = process_word(p, p->regs.gs_base + offset);
    p->dirty = true;
}

/* Does the breakpoint that two has reached. False: it is none of the core's. */
static bool core_trap(struct lockstep *l, bool modules_too)
{
    struct process *p = &l->two;
    if (p->regs.rip == l->exit_jump) {
        jump_through(p, CTX_RESUME);
    } else if (is_ibl_jump(l, p->regs.rip)) {
        jump_through(p, CTX_IBL_TARGET);
        return true;
    } else if (p->regs.rip == l->map.core.sigreturn_with) {
        for (int i = 0; i < 3 && p->stop == STOP_TRAP; i++) /* lea, mov, syscall */
            process_go(p, RESUME_STEP, 0);
        l->two_returned = true;
    } else
        return false;
    l->two_was_in_core = true;
    codemap_refresh(&l->map, p, modules_too);
    return true;
}

void two_leave_core(struct lockstep *l, bool modules_too)
{
    struct process *p = &l->two;
    int signal = 0;
    do {
        if (p->stop == STOP_SIGNAL) {
            signal = p->signal;
            l->two_faulted = true;
        }
        process_go(p, RESUME_RUN, signal);
        signal = 0;
        if (p->stop == STOP_TRAP && !core_trap(l, modules_too))
            return;
    } while (p->stop == STOP_SIGNAL || (p->stop == STOP_TRAP && in_core(&l->map, p->regs.rip)));
}

void two_step(struct lockstep *l)
{
    uint64_t rip;
    do { /* a rep-prefixed instruction stays where it is */
        rip = l->two.regs.rip;
        process_go(&l->two, RESUME_STEP, 0);
    } while (l->two.stop == STOP_TRAP && l->two.regs.rip == rip);
}

uint64_t two_app(const struct lockstep *l)
{
    uint64_t pc = l->two.regs.rip, app = codemap_app(&l->map, pc);
    return app || in_core(&l->map, pc) || codemap_is_code(&l->map, pc) ? app : pc;
}

uint64_t two_to_boundary(struct lockstep *l)
{
    struct process *p = &l->two;
    for (;;) {
        if (p->stop == STOP_SIGNAL || (p->stop == STOP_TRAP && in_core(&l->map, p->regs.rip)))
            two_leave_core(l, false);
        if (p->stop != STOP_TRAP)
            return 0;
        uint64_t app = two_app(l);
        if (app && insn_at(l, app)->decoded.class != INSN_JMP)
            return app;
        two_step(l);
    }
}

void engine_begin(struct lockstep *l)
{
    const struct core_symbols *core = &l->map.core;
    uint64_t jump;
    if (find_jumps(&l->two, core->exit_begin, core->exit_end, CTX_RESUME, &jump, 1) != 1 || jump != l->exit_jump)
        fail("the core's exit does not end as this checker expects (jmp *%%gs:CTX_RESUME)");
    l->nibl_jumps = find_jumps(&l->two, core->ibl_begin, core->ibl_end, CTX_IBL_TARGET, l->ibl_jumps, 16);
    for (uint32_t i = 0; i < l->nibl_jumps && !l->by_blocks; i++)
        process_trap(&l->two, l->ibl_jumps[i]);
    process_trap(&l->two, core->sigreturn_with);
    jump_through(&l->one, CTX_RESUME);
    core_trap(l, true);
}

bool ended(const struct lockstep *l)
{
    return l->one.stop == STOP_EXIT || l->two.stop == STOP_EXIT || l->one.stop == STOP_EXEC || l->two.stop == STOP_EXEC ||
           l->one.stop == STOP_THREAD || l->two.stop == STOP_THREAD;
}

/* ---- both ---- */

/* pushf under single-step shows the trap flag, in this process and in that. */
static void hide_trap_flag(struct process *p)
{
    uint64_t flags = process_word(p, p->regs.rsp) & ~FLAG_TF;
    process_write(p, p->regs.rsp, &flags, 2);
}

static uint64_t *register_at(struct user_regs_struct *r, unsigned n)
{
    unsigned long long *const at[16] = {&r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp, &r->rsi, &r->rdi,
                                        &r->r8,  &r->r9,  &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15};
    return (uint64_t *)at[n];
}

static void replay(struct lockstep *l, const struct app_insn *a)
{
    for (unsigned i = 0; i < 16; i++)
        if (a->decoded.regs_written & (1u << i))
            *register_at(&l->two.regs, i) = *register_at(&l->one.regs, i);
    l->two.regs.eflags = (l->two.regs.eflags & ~(uint64_t)FLAG_ALL) | (l->one.regs.eflags & FLAG_ALL);
    l->two.dirty = true;
}

static void settle(struct lockstep *l, const struct app_insn *a)
{
    if (a->replayed)
        replay(l, a);
    if (a->pushf) {
        hide_trap_flag(&l->one);
        hide_trap_flag(&l->two);
    }
}

/* The stop was the guest's own. */
static void guests_trap(struct process *p)
{
    if (p->stop != STOP_TRAP)
        return;
    p->stop = STOP_SIGNAL;
    p->signal = SIGTRAP;
    p->fault = true;
}

void step_both(struct lockstep *l, uint64_t pc)
{
    const struct app_insn a = *insn_at(l, pc);
    struct process *one = &l->one, *two = &l->two;
    uint64_t code = two->regs.rip;
    l->two_faulted = false;
    process_resume(one, RESUME_STEP, 0);
    process_resume(two, RESUME_STEP, 0);
    process_wait(one);
    process_wait(two);
    while (a.repeated && one->stop == STOP_TRAP && one->regs.rip == pc)
        process_go(one, RESUME_STEP, 0);
    while (a.repeated && two->stop == STOP_TRAP && two->regs.rip == code)
        process_go(two, RESUME_STEP, 0);
    if (a.breakpoint) {
        guests_trap(one);
        guests_trap(two);
    }
    if (one->stop == STOP_SIGNAL)
        process_go(one, RESUME_STEP, one->signal); /* to the handler's first instruction, or to its end */
    if (two->stop == STOP_SIGNAL)
        two_leave_core(l, false);
    bool faulted = l->two_faulted;
    if (!ended(l) && two_to_boundary(l) == pc && faulted && one->regs.rip != pc) { /* the core's own fault: it is made again */
        two_step(l);
        two_to_boundary(l);
    }
    if (!ended(l))
        settle(l, &a);
}

bool step_one_instruction(struct lockstep *l)
{
    uint64_t app = two_to_boundary(l);
    while (l->one.stop == STOP_TRAP && insn_at(l, l->one.regs.rip)->decoded.class == INSN_JMP)
        process_go(&l->one, RESUME_STEP, 0);
    if (ended(l) || !app)
        return false;
    compare(l, l->one.regs.rip, app);
    if (insn_at(l, app)->decoded.class == INSN_SYSCALL)
        syscall_both(l, app);
    else
        step_both(l, app);
    return !ended(l);
}

static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

/* Names the state component (CPUID leaf 13) that holds byte I of an uncompacted XSAVE area, and shows that register's bytes. */
static void extended_differs(struct lockstep *l, const uint8_t *a, const uint8_t *b, size_t i)
{
    static const char *const known[] = {[2] = "upper half of ymm", [5] = "k", [6] = "upper half of zmm", [7] = "zmm16+"};
    static const unsigned register_bytes[] = {[2] = 16, [5] = 8, [6] = 32, [7] = 64};
    char text[400];
    unsigned size, offset, c, d;
    for (unsigned n = 2; n < 32; n++) {
        __cpuid_count(13, n, size, offset, c, d);
        if (i < offset || i >= offset + size)
            continue;
        if (n >= sizeof known / sizeof *known || !known[n]) {
            snprintf(text, sizeof text, "extended state component %u, byte %zu", n, i - offset);
            diverged(l, text);
        }
        unsigned bytes = register_bytes[n], number = (unsigned)(i - offset) / bytes;
        int at = snprintf(text, sizeof text, "%s%u (bytes upwards)", known[n], number);
        for (unsigned which = 0; which < 2; which++) {
            at += snprintf(text + at, sizeof text - (size_t)at, which ? "; translated " : ": native ");
            for (unsigned k = 0; k < bytes; k++)
                at += snprintf(text + at, sizeof text - (size_t)at, "%02x", (which ? b : a)[offset + number * bytes + k]);
        }
        diverged(l, text);
    }
    diverged(l, "extended state");
}

/* Everything from the x87 registers up; not where the last x87 instruction was, nor the header that says what is in use. */
static void compare_vectors(struct lockstep *l)
{
    static uint8_t a[16384], b[16384];
    size_t n = process_vectors(&l->one, a, sizeof a), m = process_vectors(&l->two, b, sizeof b);
    size_t fixed = n < 512 ? n : 512;
    l->vector_checks++;
    if (n != m || n < 512)
        return;
    if (memcmp(a, b, 6) || memcmp(a + 24, b + 24, 4))
        diverged(l, "x87 control or mxcsr");
    if (memcmp(a + 32, b + 32, fixed - 32 - 96))
        diverged(l, "x87 or xmm registers");
    for (size_t i = 576; i < n; i++)
        if (a[i] != b[i])
            extended_differs(l, a, b, i);
}

void compare(struct lockstep *l, uint64_t app_one, uint64_t app_two)
{
    char what[200] = "";
    l->boundaries++;
    memmove(l->history, l->history + 1, sizeof l->history - sizeof *l->history);
    l->history[HISTORY - 1] = app_one;
    if (l->perturb == l->boundaries) {
        l->two.regs.rbx ^= 1;
        l->two.dirty = true;
    }
    if (app_one != app_two)
        diverged(l, "the path through the program");
    uint32_t homes = codemap_homes(&l->map, l->two.regs.rip);
    for (unsigned i = 0; i < 16; i++)
        if (*register_at(&l->one.regs, i) !=
            (homes & (1u << i) ? process_word(&l->two, l->two.regs.gs_base + CTX_GPR + 8 * i) : *register_at(&l->two.regs, i)))
            snprintf(what + strlen(what), sizeof what - strlen(what), " %s", names[i]);
    uint64_t flags = COMPARED_FLAGS;
    if (l->instrumented) /* a counter may change flags that the block writes, or leaves undefined, before it reads them */
        flags = FLAG_CF | (flags & ~(uint64_t)FLAG_ALL) | insn_at(l, app_one)->decoded.flags_read;
    if ((l->one.regs.eflags ^ l->two.regs.eflags) & flags)
        snprintf(what + strlen(what), sizeof what - strlen(what), " flags");
    if (l->one.regs.fs_base != l->two.regs.fs_base)
        snprintf(what + strlen(what), sizeof what - strlen(what), " fs_base");
    if (what[0])
        diverged(l, what + 1);
    if (l->two_was_in_core)
        compare_vectors(l);
    l->two_was_in_core = false;
    l->last_code = l->two.regs.rip;
}
