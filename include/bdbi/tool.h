/* SPDX-License-Identifier: Apache-2.0
 *
 * The tool interface. A tool is built in, or a shared object that is written against this header alone (docs/tools.md):
 *
 *   cc -shared -fPIC -O2 -Iinclude mytool.c -o mytool.so
 *   bdbi-warm --tool ./mytool.so:key=value PROG;  bdbi run --tool ./mytool.so:key=value PROG
 *
 * A tool has two halves. `weave` runs wherever translation runs (bdbi-warm, or the JIT inside the guest's process) and must
 * depend on nothing but the block and the options it declares, since what it weaves is stored and used again. `report` runs in
 * the guest's process at its end. Neither has a C library: a tool may call what this header declares, and memcpy, memmove,
 * memset, memcmp and strlen, which compilers call by themselves.
 *
 * Threads: weave may run in several threads at once, each with its own block. report runs once, in the thread that ends the
 * process or calls execve. Stack: 64 KB for weave, 32 KB for report.
 */
#ifndef BDBI_TOOL_H
#define BDBI_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Changes when this header does in a way that an object compiled against another one would not survive. */
#define BDBI_TOOL_ABI 1u

/* A basic block while it is woven. Owned by the translator; valid during the callback. */
struct bdbi_block;

/* Number of app instructions in the block: at least 1. */
uint32_t bdbi_block_instructions(const struct bdbi_block *block);
/* Whether its last instruction transfers control (branch, call, return, system call); false when the block ends only
 * because the next instruction is itself a branch target. */
bool bdbi_block_ends_in_transfer(const struct bdbi_block *block);
/* Offset of its first byte from its module's base, and the number of bytes of its instructions. */
uint64_t bdbi_block_offset(const struct bdbi_block *block);
uint32_t bdbi_block_bytes(const struct bdbi_block *block);
/* The value of KEY among the tool's options, its length in *BYTES (it is not terminated); NULL: not given, or not one of the
 * tool's weave_options. Valid as long as the tool. */
const char *bdbi_block_option(const struct bdbi_block *block, const char *key, size_t *bytes);

/* Adds 1 to a counter of its own each time the block is entered. Each thread has its own copy, so no count is lost; the
 * flags and registers the app sees are untouched. INFO is stored with the counter and handed to the report.
 * 0, or -BDBI_ENOMEM. */
int bdbi_block_count(struct bdbi_block *block, uint64_t info);

/* Sets a byte of its own each time the block is entered: one store, for tools that ask whether code ran and not how often. Each
 * thread has its own copy, so threads do not write the same lines of memory. Else as bdbi_block_count. */
int bdbi_block_mark(struct bdbi_block *block, uint64_t info);

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

/* A mark that some thread has set. */
struct bdbi_mark {
    uint32_t module_index;
    uint64_t info;
};
/* Calls FN for each mark that is set, module by module in order of loading, and returns their number. FN may be NULL. What the
 * first call of a report sees is what all see, whatever other threads go on to do. */
uint64_t bdbi_run_marks(struct bdbi_run *run, void (*fn)(const struct bdbi_mark *m, void *user), void *user);

/* A file that was mapped as code: offsets of its blocks are from `start`. Code without a file, whose module_index is
 * UINT32_MAX, is in none. */
struct bdbi_module {
    const char *path; /* as in struct bdbi_counter */
    uint32_t index;   /* its module_index: 0, 1, ... in order of loading */
    uint64_t start, end;
};
/* Calls FN for each module, those included that are not mapped any more, and returns their number. FN may be NULL. */
uint32_t bdbi_run_modules(struct bdbi_run *run, void (*fn)(const struct bdbi_module *m, void *user), void *user);

/* Writes BYTES of TEXT to the tool's output (what the option `out` says). */
void bdbi_run_write(struct bdbi_run *run, const char *text, size_t bytes);
/* As bdbi_block_option, for all of the tool's options. */
const char *bdbi_run_option(const struct bdbi_run *run, const char *key, size_t *bytes);

struct bdbi_tool {
    uint32_t abi;               /* BDBI_TOOL_ABI */
    uint32_t version;           /* built-in tools change it when weave's result changes; of an object the content counts */
    const char *name;           /* for messages */
    const char *help;           /* one line */
    const char *weave_options;  /* "key,key": options that change what weave does (part of the cache key); NULL: none */
    const char *report_options; /* "key,key": options that only the report looks at; NULL: none. `out` is bdbi's own */
    void (*weave)(struct bdbi_block *block);
    void (*report)(struct bdbi_run *run); /* may be NULL */
};

/* What a tool's object defines. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
extern const struct bdbi_tool bdbi_tool_main;

#ifdef __cplusplus
}
#endif

#endif
