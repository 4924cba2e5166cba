/* SPDX-License-Identifier: Apache-2.0
 *
 * The pair of processes and what is done with it. `one` runs the program natively, `two` translated.
 */
#ifndef LOCKSTEP_LOCKSTEP_H
#define LOCKSTEP_LOCKSTEP_H

#include "jit/insn.h"
#include "tests/lockstep/codemap.h"
#include "tests/lockstep/process.h"

enum { HISTORY = 16, MAX_INSN = 15 };
#define FLAG_TF 0x100ull

/* An app instruction. */
struct app_insn {
    struct insn decoded; /* class INSN_STOP when it does not decode */
    uint8_t bytes[MAX_INSN + 1];
    bool repeated; /* rep-prefixed string instruction: one step per iteration */
    bool replayed; /* its result differs by nature (rdtsc, ...): taken from one */
    bool pushf;
    bool breakpoint; /* int3: raises SIGTRAP in the guest */
};

struct lockstep {
    struct process one, two;
    struct codemap map;
    struct decoder *decoder;
    struct table insn_index; /* app pc -> index + 1 in insns */
    struct app_insn *insns;
    uint32_t ninsns, capacity;
    struct table terminators; /* --blocks: app pcs that are breakpoints */
    uint64_t planted_version;
    uint32_t planted_places, planted_rebuilds;
    uint64_t exit_jump, ibl_jumps[16];
    uint32_t nibl_jumps;
    bool by_blocks, verbose, instrumented;
    uint64_t perturb; /* at which boundary; 0: never */
    uint64_t boundaries, syscalls, vector_checks;
    uint64_t history[HISTORY]; /* app pcs of the last boundaries */
    uint64_t last_code;        /* where two's code for the last boundary starts */
    bool two_faulted, two_was_in_core;
    bool one_returned; /* one is at a handler's first instruction */
    bool two_returned; /* two left the core through rt_sigreturn: it is where a handler begins or where it returns to */
};

/* ---- engine.c ---- */
const struct app_insn *insn_at(struct lockstep *l, uint64_t pc);
void insns_forget(struct lockstep *l);
/* Both are at the core's exit for the first time: takes them to the program's first instruction. */
void engine_begin(struct lockstep *l);
/* Brings two, which is in the core or has a fault to be delivered, out of it (or to its end). */
void two_leave_core(struct lockstep *l, bool modules_too);
/* One instruction of two's code. */
void two_step(struct lockstep *l);
/* Steps two to where the code of an app instruction that has code on both sides starts. 0: it has ended. */
uint64_t two_to_boundary(struct lockstep *l);
/* App pc of the instruction two is at; code that is no code is the app's own pc. 0: it is at none. */
uint64_t two_app(const struct lockstep *l);
/* Both execute the instruction at PC, where both are, and two goes on to the next boundary. */
void step_both(struct lockstep *l, uint64_t pc);
/* Compares at the next boundary, and takes both past the instruction there. False: the end. */
bool step_one_instruction(struct lockstep *l);
/* Compares the states at PC and returns if they agree. */
void compare(struct lockstep *l, uint64_t app_one, uint64_t app_two);
bool ended(const struct lockstep *l);

/* ---- syscalls.c ---- */
/* Both make the system call at PC. */
void syscall_both(struct lockstep *l, uint64_t pc);

/* ---- blocks.c ---- */
void run_by_blocks(struct lockstep *l);
/* Something else has been mapped at [start, end). */
void ends_forget(struct lockstep *l, uint64_t start, uint64_t end);

/* ---- report.c ---- */
_Noreturn void diverged(struct lockstep *l, const char *what);
_Noreturn void diverged_at_end(struct lockstep *l);
_Noreturn void finish(struct lockstep *l, int status);

#endif
