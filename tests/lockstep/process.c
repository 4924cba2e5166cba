/* SPDX-License-Identifier: Apache-2.0
 *
 * Traced processes. A breakpoint is an int3 written through /proc/PID/mem, which also writes where the process itself may not.
 *
 * Children that the process forks run on untraced: our breakpoints are taken out of them first. A vfork child shares the
 * memory, so they come back when it has let its parent go.
 */
#include "tests/lockstep/process.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define INT3 0xcc

void fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("lockstep: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    exit(2);
}

static void open_memory(struct process *p)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/mem", (int)p->pid);
    if (p->mem >= 0)
        close(p->mem);
    p->mem = open(path, O_RDWR | O_CLOEXEC);
    if (p->mem < 0)
        fail("%s: %s", path, strerror(errno));
}

static void fetch_registers(struct process *p)
{
    if (ptrace(PTRACE_GETREGS, p->pid, 0, &p->regs) < 0)
        fail("%s: its registers cannot be read: %s", p->name, strerror(errno));
    p->dirty = false;
}

/* Both on the same one: cpuid says which it is. */
static void stay_on_first_cpu(void)
{
    cpu_set_t cpus, first;
    int cpu = 0;
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0)
        return;
    while (cpu < CPU_SETSIZE - 1 && !CPU_ISSET(cpu, &cpus))
        cpu++;
    CPU_ZERO(&first);
    CPU_SET(cpu, &first);
    sched_setaffinity(0, sizeof first, &first);
}

void process_start(struct process *p, const char *name, char **argv, char **envp)
{
    *p = (struct process){.name = name, .mem = -1};
    p->pid = fork();
    if (p->pid < 0)
        fail("fork: %s", strerror(errno));
    if (p->pid == 0) {
        personality(ADDR_NO_RANDOMIZE);
        stay_on_first_cpu();
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execve(argv[0], argv, envp);
        _exit(127);
    }
    int status;
    if (waitpid(p->pid, &status, 0) < 0 || !WIFSTOPPED(status))
        fail("%s cannot be run: %s", argv[0], strerror(ENOENT));
    long options = PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                   PTRACE_O_TRACEVFORKDONE;
    if (ptrace(PTRACE_SETOPTIONS, p->pid, 0, options) < 0)
        fail("ptrace: %s", strerror(errno));
    open_memory(p);
    fetch_registers(p);
}

void process_kill(struct process *p)
{
    int status;
    if (p->stop == STOP_EXIT)
        return;
    kill(p->pid, SIGKILL);
    for (pid_t pid = 0; pid >= 0 && pid != p->pid;) /* threads of it come first */
        pid = waitpid(-1, &status, __WALL);
}

/* ---- memory ---- */

static void hide_traps(const struct process *p, uint64_t address, uint8_t *bytes, size_t n)
{
    if (p->traps.used == 0 || n > 4096)
        return;
    for (size_t i = 0; i < n; i++) {
        const uint64_t *trap = bytes[i] == INT3 ? table_get(&p->traps, address + i) : NULL;
        if (trap)
            bytes[i] = (uint8_t)*trap;
    }
}

size_t process_read(const struct process *p, uint64_t address, void *to, size_t bytes)
{
    struct iovec local = {to, bytes}, remote = {(void *)address, bytes};
    ssize_t n = process_vm_readv(p->pid, &local, 1, &remote, 1, 0);
    if (n < (ssize_t)bytes) {
        n = pread(p->mem, to, bytes, (off_t)address);
        uint64_t to_page_end = 4096 - address % 4096;
        if (n < 0 && bytes > to_page_end)
            n = pread(p->mem, to, to_page_end, (off_t)address);
    }
    if (n > 0)
        hide_traps(p, address, to, (size_t)n);
    return n < 0 ? 0 : (size_t)n;
}

size_t process_write(const struct process *p, uint64_t address, const void *from, size_t bytes)
{
    ssize_t n = pwrite(p->mem, from, bytes, (off_t)address);
    return n < 0 ? 0 : (size_t)n;
}

uint64_t process_word(const struct process *p, uint64_t address)
{
    uint64_t word = 0;
    process_read(p, address, &word, sizeof word);
    return word;
}

/* ---- breakpoints ---- */

static void put_byte(const struct process *p, uint64_t address, uint8_t byte)
{
    if (process_write(p, address, &byte, 1) != 1)
        fail("%s: 0x%lx cannot be written: %s", p->name, (unsigned long)address, strerror(errno));
}

bool process_trap(struct process *p, uint64_t address)
{
    uint8_t byte;
    if (table_get(&p->traps, address))
        return true;
    static const uint8_t int3 = INT3;
    if (process_read(p, address, &byte, 1) != 1 || process_write(p, address, &int3, 1) != 1)
        return false;
    table_put(&p->traps, address, byte);
    return true;
}

static bool still_there(const struct process *p, const struct table_entry *e)
{
    uint8_t byte = 0;
    return p->stepping_over == e->key || (pread(p->mem, &byte, 1, (off_t)e->key) == 1 && byte == INT3);
}

void process_check_traps(struct process *p, uint64_t start, uint64_t end)
{
    struct table kept = {0};
    for (size_t i = 0; i < p->traps.size; i++) {
        const struct table_entry *e = &p->traps.at[i];
        if (e->key && (e->key < start || e->key >= end || still_there(p, e)))
            table_put(&kept, e->key, e->value);
    }
    table_clear(&p->traps);
    p->traps = kept;
}

static void each_trap(struct process *p, int mem, bool in)
{
    for (size_t i = 0; i < p->traps.size; i++) {
        const struct table_entry *e = &p->traps.at[i];
        uint8_t byte = in ? INT3 : (uint8_t)e->value;
        if (e->key && pwrite(mem, &byte, 1, (off_t)e->key) != 1)
            continue; /* not mapped there (any more) */
    }
}

/* ---- stops ---- */

static void let_child_go(struct process *p, pid_t child)
{
    struct process c = {.name = "child", .pid = child, .mem = -1};
    int status;
    if (waitpid(child, &status, __WALL) < 0 || !WIFSTOPPED(status))
        return;
    open_memory(&c);
    each_trap(p, c.mem, false);
    close(c.mem);
    ptrace(PTRACE_DETACH, child, 0, 0);
}

static bool new_thread(pid_t pid, pid_t child)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d", (int)pid, (int)child);
    return access(path, F_OK) == 0;
}

/* A ptrace event. True: the stop is for the caller. */
static bool event(struct process *p, int what)
{
    unsigned long message = 0;
    switch (what) {
    case PTRACE_EVENT_EXEC:
        p->stop = STOP_EXEC;
        return true;
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
    case PTRACE_EVENT_CLONE:
        ptrace(PTRACE_GETEVENTMSG, p->pid, 0, &message);
        p->stop = STOP_THREAD;
        if (new_thread(p->pid, (pid_t)message))
            return true;
        let_child_go(p, (pid_t)message);
        break;
    case PTRACE_EVENT_VFORK_DONE:
        each_trap(p, p->mem, true);
        break;
    }
    return false;
}

static void signal_stop(struct process *p, int signal)
{
    siginfo_t info = {0};
    ptrace(PTRACE_GETSIGINFO, p->pid, 0, &info);
    p->stop = STOP_SIGNAL;
    p->signal = signal;
    p->fault = info.si_code > 0 && (signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE);
}

void process_resume(struct process *p, enum resume how, int signal)
{
    uint64_t *trap = table_get(&p->traps, p->regs.rip);
    if (trap) { /* first this one instruction, without the breakpoint */
        put_byte(p, p->regs.rip, (uint8_t)*trap);
        p->stepping_over = p->regs.rip;
    }
    if (p->dirty && ptrace(PTRACE_SETREGS, p->pid, 0, &p->regs) < 0)
        fail("%s: its registers cannot be set: %s", p->name, strerror(errno));
    p->dirty = false;
    p->resumed = how;
    bool step = how == RESUME_STEP || trap;
    if (ptrace(step ? PTRACE_SINGLESTEP : PTRACE_CONT, p->pid, 0, (long)signal) < 0)
        fail("%s: it cannot go on: %s", p->name, strerror(errno));
}

/* One stop; false: it was of no interest and the process has to go on. */
static bool stopped(struct process *p, int status)
{
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
        p->stop = STOP_EXIT;
        p->status = status;
        return true;
    }
    fetch_registers(p);
    int signal = WSTOPSIG(status);
    if (signal == SIGTRAP && status >> 16)
        return event(p, status >> 16);
    if (signal != SIGTRAP) {
        signal_stop(p, signal);
        if (p->fault)
            return true;
        p->ignored_signals |= 1ull << signal; /* it would come at different places in the two */
        return false;
    }
    p->stop = STOP_TRAP;
    if (!p->stepping_over && p->resumed == RESUME_RUN && table_get(&p->traps, p->regs.rip - 1)) {
        p->regs.rip--;
        p->dirty = true;
    }
    return true;
}

enum stop process_wait(struct process *p)
{
    for (;;) {
        int status;
        if (waitpid(p->pid, &status, __WALL) != p->pid)
            fail("%s: wait: %s", p->name, strerror(errno));
        bool done = stopped(p, status);
        uint64_t over = p->stepping_over;
        if (p->stop == STOP_EXIT)
            return p->stop;
        if (over && p->stop != STOP_EXEC && (done || p->regs.rip != over)) {
            put_byte(p, over, INT3);
            p->stepping_over = 0;
        }
        bool only_over = over && p->resumed == RESUME_RUN && p->stop == STOP_TRAP && !table_get(&p->traps, p->regs.rip);
        if (done && !only_over)
            return p->stop;
        if (p->resumed == RESUME_RUN && p->regs.rip != over && table_get(&p->traps, p->regs.rip)) { /* not executed yet */
            p->stop = STOP_TRAP;
            return p->stop;
        }
        process_resume(p, p->resumed, 0);
    }
}

enum stop process_go(struct process *p, enum resume how, int signal)
{
    process_resume(p, how, signal);
    return process_wait(p);
}

size_t process_vectors(const struct process *p, void *to, size_t bytes)
{
    struct iovec v = {to, bytes};
    return ptrace(PTRACE_GETREGSET, p->pid, NT_X86_XSTATE, &v) < 0 ? 0 : v.iov_len;
}
