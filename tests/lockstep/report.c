/* SPDX-License-Identifier: Apache-2.0
 *
 * The report of a divergence, and the end: nothing else is printed unless asked for.
 */
#include "tests/lockstep/lockstep.h"

#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>

static void out(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void out(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
}

static unsigned line(struct lockstep *l, const struct process *p, uint64_t pc, const char *note)
{
    uint8_t bytes[MAX_INSN];
    char text[120], hex[3 * MAX_INSN + 1] = "";
    struct insn i = {.length = 1};
    size_t n = process_read(p, pc, bytes, sizeof bytes);
    if (!n || insn_decode(l->decoder, bytes, n, pc, &i) < 0) {
        out("    0x%lx  not an instruction %s\n", (unsigned long)pc, note);
        return 1;
    }
    insn_format(l->decoder, bytes, n, pc, text, sizeof text);
    for (unsigned k = 0; k < i.length; k++)
        snprintf(hex + 3 * k, sizeof hex - 3 * k, "%02x ", bytes[k]);
    out("    0x%lx  %-33s %s %s\n", (unsigned long)pc, hex, text, note);
    return i.length;
}

static void app_block(struct lockstep *l)
{
    out("  app, the last boundaries%s:\n", l->by_blocks ? " (ends of blocks)" : "");
    for (unsigned i = 0; i + 1 < HISTORY; i++) {
        uint64_t pc = l->history[i];
        if (pc)
            line(l, &l->one, pc, "");
    }
    out("  app, here:\n");
    uint64_t pc = l->one.regs.rip;
    for (unsigned i = 0; i < 4; i++)
        pc += line(l, &l->one, pc, "");
}

static void code_block(struct lockstep *l)
{
    uint64_t pc = l->last_code;
    out("  code of the instruction at the last good boundary, and on:\n");
    for (unsigned i = 0; pc && i < 16; i++) {
        char note[40] = "";
        uint64_t app = codemap_app(&l->map, pc);
        if (app)
            snprintf(note, sizeof note, "; 0x%lx", (unsigned long)app);
        pc += line(l, &l->two, pc, note);
    }
}

static void registers(const struct lockstep *l)
{
    const struct user_regs_struct *a = &l->one.regs, *b = &l->two.regs;
    const struct {
        const char *name;
        unsigned long long one, two;
    } rows[] = {
        {"rax", a->rax, b->rax}, {"rcx", a->rcx, b->rcx},        {"rdx", a->rdx, b->rdx},         {"rbx", a->rbx, b->rbx},
        {"rsp", a->rsp, b->rsp}, {"rbp", a->rbp, b->rbp},        {"rsi", a->rsi, b->rsi},         {"rdi", a->rdi, b->rdi},
        {"r8", a->r8, b->r8},    {"r9", a->r9, b->r9},           {"r10", a->r10, b->r10},         {"r11", a->r11, b->r11},
        {"r12", a->r12, b->r12}, {"r13", a->r13, b->r13},        {"r14", a->r14, b->r14},         {"r15", a->r15, b->r15},
        {"rip", a->rip, b->rip}, {"fs", a->fs_base, b->fs_base}, {"flags", a->eflags, b->eflags},
    };
    out("  %-6s %-18s %-18s\n", "", "native", "translated");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        out("  %-6s 0x%016llx 0x%016llx%s\n", rows[i].name, rows[i].one, rows[i].two,
            rows[i].one == rows[i].two || !strcmp(rows[i].name, "rip") ? "" : "  <--");
}

void diverged(struct lockstep *l, const char *what)
{
    uint64_t app = codemap_app(&l->map, l->two.regs.rip);
    out("lockstep: DIVERGED at boundary %lu, after %lu system calls: %s\n", (unsigned long)l->boundaries,
        (unsigned long)l->syscalls, what);
    out("  native at 0x%llx, translated at 0x%llx, which is the code of 0x%lx\n", l->one.regs.rip, l->two.regs.rip,
        (unsigned long)app);
    registers(l);
    app_block(l);
    code_block(l);
    finish(l, 1);
}

static void say_end(const struct process *p)
{
    if (p->stop == STOP_EXIT && WIFSIGNALED(p->status))
        out(" %s: signal %d", p->name, WTERMSIG(p->status));
    else if (p->stop == STOP_EXIT)
        out(" %s: status %d", p->name, WEXITSTATUS(p->status));
    else
        out(" %s: goes on", p->name);
}

void diverged_at_end(struct lockstep *l)
{
    out("lockstep: DIVERGED after boundary %lu: the end:", (unsigned long)l->boundaries);
    say_end(&l->one);
    say_end(&l->two);
    out("\n");
    if (l->one.stop != STOP_EXIT && l->two.stop != STOP_EXIT)
        registers(l);
    if (l->one.stop != STOP_EXIT)
        app_block(l);
    else
        out("  the last boundary was at 0x%lx\n", (unsigned long)l->history[HISTORY - 1]);
    finish(l, 1);
}

void finish(struct lockstep *l, int status)
{
    process_kill(&l->one);
    process_kill(&l->two);
    if (status != 0)
        exit(status);
    if (l->map.errors) {
        out("lockstep: %u instructions begin in an unclean state, says the address map\n", l->map.errors);
        exit(1);
    }
    out("lockstep: same to the end: %lu boundaries, %lu system calls, %lu times the vector registers",
        (unsigned long)l->boundaries, (unsigned long)l->syscalls, (unsigned long)l->vector_checks);
    say_end(&l->one);
    say_end(&l->two);
    out("\n");
    uint64_t ignored = l->one.ignored_signals | l->two.ignored_signals;
    for (int i = 1; i < 64; i++)
        if (ignored >> i & 1)
            out("lockstep: note: signal %d was kept from the program\n", i);
    exit(0);
}
