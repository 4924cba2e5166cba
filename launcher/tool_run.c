/* SPDX-License-Identifier: Apache-2.0
 *
 * The tool in the guest's process: the calls into it, and what happens when it crashes. Under core_lock.
 *
 *   weave      on the translator's stack; the translator calls it through tool_weave
 *   report     on the core's stack
 *   both       marked in the thread's context, so that a fault is known to be the tool's (signal.c), whatever it jumped to
 *
 * Its code may use every register; outside the translator the guest's vector registers are kept around it.
 */
#include "launcher/core.h"
#include "launcher/jit_glue.h"
#include "tools/registry.h"

static bool crashed; /* seen by the parent of a vfork child whose tool did */

static void enter(struct thread_ctx *ctx, const char *where)
{
    ctx->in_tool = where;
    __asm__ volatile("" ::: "memory");
}

static void leave(struct thread_ctx *ctx)
{
    __asm__ volatile("" ::: "memory");
    ctx->in_tool = NULL;
}

void tool_weave(const struct bdbi_tool *tool, struct bdbi_block *block)
{
    struct thread_ctx *ctx = ctx_self();
    enter(ctx, "weave");
    tool->weave(block);
    leave(ctx);
}

void tool_prepare(struct thread_ctx *ctx)
{
    static bool prepared;
    if (crashed) /* the translator cannot go on either */
        die(125, "tool %s crashed in a child that shares this memory", options.tool->tool->name);
    if (prepared)
        return;
    prepared = true;
    fp_save();
    enter(ctx, "its constructors");
    tool_start(options.tool->tool);
    leave(ctx);
    fp_restore();
}

void tool_report(struct thread_ctx *ctx, struct bdbi_run *run)
{
    uint64_t mask;
    tool_prepare(ctx);
    signals_allow_faults(&mask); /* the program may be ending in a signal handler of ours */
    fp_save();
    enter(ctx, "report");
    options.tool->tool->report(run);
    leave(ctx);
    fp_restore();
    signals_restore(mask);
}

void tool_crashed(struct thread_ctx *ctx, int sig, uint64_t pc, uint64_t address)
{
    char line[1024];
    size_t n = format(line, sizeof line - 1, "bdbi: ");
    n += tool_describe_crash(line + n, sizeof line - 1 - n, options.tool->tool, ctx->in_tool, sig, pc, address);
    line[n++] = '\n';
    crashed = true;
    if (ctx->vfork_parent)
        lock_abandon(&core_lock, ctx);
    if (options.report_fd <= 0 || sys3(__NR_write, options.report_fd, line, n) < 0) /* the program may have closed either */
        sys3(__NR_write, 2, line, n);
    for (;;)
        sys1(__NR_exit_group, 125);
}
