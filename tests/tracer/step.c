/* SPDX-License-Identifier: Apache-2.0
 *
 * The reference that bdbi is measured against: runs a program one instruction at a time with ptrace. Shares no code with bdbi.
 *
 *   step count  -o FILE PROG ARGS...   FILE: "instructions N", all threads together
 *   step blocks -o FILE PROG ARGS...   FILE: "module-path hexoffset" per distinct address in a file-backed executable mapping
 * that was reached by a taken branch, call, return, or fall-through after a branch; the offset counts from the module's lowest
 * mapping. First line "# instructions N".
 *   step instructions -o FILE PROG ARGS...   the same for every instruction
 *
 * An instruction counts when it is begun, so the one that ends the process counts too. A rep-prefixed string instruction is
 * stepped once per iteration with rip in place and counts once. An instruction that a signal interrupted before it had an
 * effect counts when it is executed again. Child processes (fork) run untraced; threads are traced.
 *
 * What is a branch is told by the opcode alone (prefixes are skipped), so no instruction needs to be measured: the next rip
 * after a branch is a block's start whether the branch was taken or not.
 */
#include "witness.h"
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_THREADS = 256, CACHE_SLOTS = 1 << 20 };

struct thread {
    pid_t tid;
    uint64_t rip;        /* where the last step was issued */
    enum insn_kind kind; /* of the instruction there */
    bool begun;          /* a step has been issued */
    bool in_event;       /* stopped in the middle of an instruction (clone) */
};

static struct thread threads[MAX_THREADS];
static int nthreads;
static uint64_t instructions;
static bool want_blocks, want_all;

/* rip -> kind of instruction and whether it has been reported as a block start; emptied when mappings change. */
static struct {
    uint64_t rip;
    uint8_t kind, reported;
} cache[CACHE_SLOTS];
static size_t cache_used;

static enum insn_kind kind_at(pid_t tid, uint64_t rip)
{
    uint8_t bytes[16];
    struct iovec local = {bytes, sizeof bytes}, remote = {(void *)rip, sizeof bytes};
    ssize_t n = process_vm_readv(tid, &local, 1, &remote, 1, 0);
    if (n <= 0) { /* the last bytes before an unmapped page */
        remote.iov_len = local.iov_len = 4096 - (rip & 4095) < 16 ? 4096 - (rip & 4095) : 16;
        n = process_vm_readv(tid, &local, 1, &remote, 1, 0);
    }
    return n <= 0 ? KIND_PLAIN : classify(bytes, (size_t)n);
}

static void forget_mappings(void)
{
    memset(cache, 0, sizeof cache);
    cache_used = 0;
    nmaps = 0;
}

static size_t slot_of(uint64_t rip)
{
    size_t i = (rip * 0x9e3779b97f4a7c15ull) >> 44;
    while (cache[i].rip != 0 && cache[i].rip != rip)
        i = (i + 1) % CACHE_SLOTS;
    if (cache[i].rip == 0) {
        if (++cache_used > CACHE_SLOTS / 2) {
            memset(cache, 0, sizeof cache);
            cache_used = 1;
            i = (rip * 0x9e3779b97f4a7c15ull) >> 44;
        }
        cache[i].rip = rip;
    }
    return i;
}

static struct thread *find_thread(pid_t tid)
{
    for (int i = 0; i < nthreads; i++)
        if (threads[i].tid == tid)
            return &threads[i];
    if (nthreads == MAX_THREADS) {
        fprintf(stderr, "step: too many threads\n");
        exit(2);
    }
    threads[nthreads] = (struct thread){.tid = tid};
    return &threads[nthreads++];
}

/* Mappings change under these; the caches are emptied before and after. */
static bool changes_mappings(pid_t tid)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, tid, NULL, &regs) < 0)
        return false;
    return regs.rax == SYS_mmap || regs.rax == SYS_munmap || regs.rax == SYS_mprotect || regs.rax == SYS_mremap ||
           regs.rax == SYS_execve;
}

static bool forget_after;

/* The thread is about to execute the instruction at its rip: count it, and note where the last one led. */
static void begin(struct thread *t)
{
    uint64_t rip = rip_of(t->tid);
    if (t->begun && rip == t->rip) {
        enum insn_kind kind = t->kind == KIND_UNKNOWN ? kind_at(t->tid, rip) : t->kind;
        if (kind == KIND_REP_STRING)
            return; /* the next iteration */
    }
    instructions++;
    if (want_blocks) {
        if (forget_after) {
            forget_mappings();
            forget_after = false;
        }
        bool reached = want_all || (t->begun && t->kind == KIND_BRANCH);
        size_t slot = slot_of(rip);
        if (cache[slot].kind == KIND_UNKNOWN)
            cache[slot].kind = (uint8_t)kind_at(t->tid, rip);
        t->kind = cache[slot].kind;
        if (reached && !cache[slot].reported) {
            cache[slot].reported = 1;
            report_block(t->tid, rip);
        }
        if (t->kind == KIND_SYSCALL)
            forget_after = changes_mappings(t->tid);
    } else {
        t->kind = KIND_UNKNOWN;
    }
    t->rip = rip;
    t->begun = true;
}

static void resume(pid_t tid, int signal)
{
    if (ptrace(PTRACE_SINGLESTEP, tid, NULL, (void *)(long)signal) < 0 && errno != ESRCH)
        die("PTRACE_SINGLESTEP");
}

/* Runs until no thread is left; returns the first thread's wait status. */
static int run(pid_t first)
{
    int first_status = 0;
    while (nthreads > 0) {
        int status;
        pid_t tid = waitpid(nthreads == 1 ? threads[0].tid : -1, &status, __WALL);
        if (tid < 0) {
            if (errno == EINTR)
                continue;
            die("waitpid");
        }
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (tid == first)
                first_status = status;
            struct thread *t = find_thread(tid);
            *t = threads[--nthreads];
            continue;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        bool known = false;
        for (int i = 0; i < nthreads; i++)
            known |= threads[i].tid == tid;
        struct thread *t = find_thread(tid);
        if (event == PTRACE_EVENT_CLONE) {
            unsigned long new_tid = 0;
            ptrace(PTRACE_GETEVENTMSG, tid, NULL, &new_tid);
            find_thread((pid_t)new_tid);
            t->in_event = true;
            resume(tid, 0);
        } else if (event == PTRACE_EVENT_EXEC) {
            t->in_event = true;
            resume(tid, 0);
        } else if (signal == SIGSTOP && (!known || !t->begun)) {
            begin(t); /* a thread's first stop */
            resume(tid, 0);
        } else if (signal == SIGTRAP) {
            begin(t);
            t->in_event = false;
            resume(tid, 0);
        } else {
            /* A signal on its way. Nothing was executed if rip has not moved. */
            if (t->begun && rip_of(tid) == t->rip && !t->in_event) {
                instructions--;
                t->begun = false;
            }
            resume(tid, signal);
        }
    }
    return first_status;
}

int main(int argc, char **argv)
{
    want_all = argc > 1 && !strcmp(argv[1], "instructions");
    want_blocks = want_all || (argc > 1 && !strcmp(argv[1], "blocks"));
    if (argc < 5 || (strcmp(argv[1], "count") && !want_blocks) || strcmp(argv[2], "-o")) {
        fprintf(stderr, "usage: step count|blocks|instructions -o FILE PROG ARGS...\n");
        return 2;
    }
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execvp(argv[4], argv + 4);
        perror(argv[4]);
        _exit(127);
    }
    int status;
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
    if (ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(long)(PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)) < 0)
        die("PTRACE_SETOPTIONS");
    struct thread *t = find_thread(pid);
    begin(t);
    resume(pid, 0);
    status = run(pid);
    write_blocks(argv[3], instructions, want_blocks);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}
