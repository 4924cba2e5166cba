/* SPDX-License-Identifier: Apache-2.0
 *
 * The tool interface, first version: what bbcount needs.
 *
 * A tool has two halves. `weave` runs wherever translation runs (bdbi-warm, or the JIT inside the guest's process) and must
 * depend on nothing but the block and the options, since what it weaves is stored and used again. `report` runs in the
 * guest's process, in the core: no libc, no floating point. Neither half has global variables.
 *
 * Threads: weave may run in several threads at once, each with its own block. report runs once, in the exiting thread.
 */
#ifndef BDBI_TOOL_H
#define BDBI_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A basic block while it is woven. Owned by the translator; valid during the callback. */
struct bdbi_block;

/* Number of app instructions in the block. */
uint32_t bdbi_block_instructions(const struct bdbi_block *block);
/* Whether its last instruction transfers control (branch, call, return, system call); false when the block ends only
 * because the next instruction is itself a branch target. */
bool bdbi_block_ends_in_transfer(const struct bdbi_block *block);
/* Offset of its first byte from its module's base. */
uint64_t bdbi_block_offset(const struct bdbi_block *block);

/* Adds 1 to a counter of its own each time the block is entered. Each thread has its own copy, so no count is lost; the
 * flags and registers the app sees are untouched. INFO is stored with the counter and handed to the report.
 * 0, or -BDBI_ENOMEM. */
int bdbi_block_count(struct bdbi_block *block, uint64_t info);

/* What the report sees. */
struct bdbi_run;
struct bdbi_counter {
    const char *module;    /* path, or "[vdso]", "[anon]"; valid during the callback */
    uint32_t module_index; /* same number, same module, within one report */
    uint64_t info;
    uint64_t count; /* sum over all threads, ended ones included */
};
/* Calls FN for each counter that is not 0, module by module in order of loading. */
void bdbi_run_counters(struct bdbi_run *run, void (*fn)(const struct bdbi_counter *c, void *user), void *user);
/* Writes BYTES of TEXT to the tool's output (what `out=` says). */
void bdbi_run_write(struct bdbi_run *run, const char *text, size_t bytes);

struct bdbi_tool {
    const char *name;
    const char *help; /* one line */
    uint32_t version; /* change it when weave's result changes: it is part of the cache key */
    void (*weave)(struct bdbi_block *block);
    void (*report)(struct bdbi_run *run);
};

#ifdef __cplusplus
}
#endif

#endif
