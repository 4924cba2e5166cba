/* SPDX-License-Identifier: Apache-2.0
 *
 * A traced process: its memory, its registers, breakpoints in it, and moving it from stop to stop. Not for several threads.
 * What cannot go wrong in a sane system (ptrace on our own stopped child) ends the program with one line and status 2.
 */
#ifndef LOCKSTEP_PROCESS_H
#define LOCKSTEP_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "tests/lockstep/table.h"

enum stop {
    STOP_TRAP,   /* stepped, or at a breakpoint; rip is the breakpoint's address then */
    STOP_SIGNAL, /* a signal is about to be delivered: `signal` */
    STOP_EXIT,   /* the process is gone: `status` as wait gives it */
    STOP_EXEC,   /* it has begun another program */
    STOP_THREAD, /* it makes a thread */
};

enum resume { RESUME_STEP, RESUME_RUN };

struct process {
    const char *name;
    pid_t pid;
    int mem; /* /proc/PID/mem */
    struct user_regs_struct regs;
    bool dirty;             /* regs are to be written before it goes on */
    struct table traps;     /* address -> byte that is there without the breakpoint */
    uint64_t stepping_over; /* breakpoint that is out while one step is made; 0: none */
    enum stop stop;
    enum resume resumed;
    int signal, status;
    bool fault; /* the signal was raised by the instruction */
    uint64_t ignored_signals;
};

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Runs ARGV[0] under ptrace without address randomisation, stopped after the exec. */
void process_start(struct process *p, const char *name, char **argv, char **envp);
void process_kill(struct process *p);

/* Bytes read or written; what cannot be reached is left out. Breakpoints do not show in what is read. */
size_t process_read(const struct process *p, uint64_t address, void *to, size_t bytes);
size_t process_write(const struct process *p, uint64_t address, const void *from, size_t bytes);
uint64_t process_word(const struct process *p, uint64_t address);

bool process_trap(struct process *p, uint64_t address);
/* Forgets the breakpoints in [start, end) that are no longer there, because something else has been mapped. */
void process_check_traps(struct process *p, uint64_t start, uint64_t end);

/* Lets it go on by one instruction, or to the next stop, delivering SIGNAL if not 0; then wait for the stop. */
void process_resume(struct process *p, enum resume how, int signal);
enum stop process_wait(struct process *p);
/* Both. */
enum stop process_go(struct process *p, enum resume how, int signal);

/* x87, SSE, AVX state as PTRACE_GETREGSET has it. Returns its size. */
size_t process_vectors(const struct process *p, void *to, size_t bytes);

#endif
