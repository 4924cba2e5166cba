/* SPDX-License-Identifier: Apache-2.0
 *
 * What the core (jit_glue.c) and the translator in the guest's process (translator.c) say to each other. Both see plain
 * memory; the translator runs with its own stack, fs and floating-point state, every signal blocked, under core_lock.
 */
#ifndef BDBI_JIT_GLUE_H
#define BDBI_JIT_GLUE_H

#include "jit/jit.h"

struct jit_request {
    /* in */
    struct text_span spans[8];
    uint32_t nspans, start, max_leaders;
    bool checked, anonymous; /* struct jit_unit */
    bool single;             /* only the instruction at START */
    uint64_t code_address, base, fixed_base;
    int64_t (*known)(void *user, uint32_t offset);
    void *user;
    const struct bdbi_tool *tool;
    const char *tool_args;
    /* out: owned by the translator, valid until the next request */
    struct jit_output output;
    int error;
};

/* In the core: hands control back and returns the next request. Called by the translator. */
struct jit_request *translator_yield(void);
/* In the core: calls TOOL's weave (struct jit_unit). */
void tool_weave(const struct bdbi_tool *tool, struct bdbi_block *block);
/* In the core: keeps the guest's floating-point and vector state, and puts it back. Not nested. */
void fp_save(void);
void fp_restore(void);

/* The translator's main: never returns. */
int translator_main(int argc, char **argv);

#endif
