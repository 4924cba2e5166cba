/* SPDX-License-Identifier: Apache-2.0
 *
 * The same answer as `step blocks` for programs with one thread, many times faster: code is single-stepped the first time it is
 * reached only. Shares no code with bdbi.
 *
 *   reach -o FILE PROG ARGS...    FILE: "module-path hexoffset" lines as `step blocks` writes them
 *
 *   STEP  one instruction at a time through code that was never seen ----------------+
 *    ^                                                                               | reaches seen code
 *    +-- a breakpoint led to unseen code <-- RUN at full speed with breakpoints <----+
 *
 * Seen code is safe to run because everything in it that could lead somewhere new has a breakpoint (int3):
 *  - returns and other indirect branches: always. A return is done here, by hand; the others are stepped.
 *  - conditional branches: until both ways are known. One that has gone the same way WATCH_AFTER times gives its breakpoint to
 *    the instruction on the other side (a watch), unless that one has been seen as the middle of a block: then a stop there
 *    would not say who came.
 *  - rt_sigreturn, which may go anywhere.
 * Direct jumps and calls need none after their first time. System calls are watched for code that is unmapped. Children of fork
 * get their code back and run free. Programs with threads are refused.
 */
#include "witness.h"
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum { SLOTS = 1 << 22, WATCH_AFTER = 32, STOP_SYSCALL = SIGTRAP | 0x80 };
enum flow { FLOW_PLAIN, FLOW_JCC, FLOW_LOOP, FLOW_DIRECT, FLOW_INDIRECT, FLOW_RET, FLOW_SIGRETURN };

struct insn {
    uint64_t rip, target; /* target: of a jcc or loop */
    uint64_t watcher;     /* the branch that waits for this address */
    uint32_t hits;
    uint16_t pop;     /* ret n */
    uint8_t bytes[8]; /* of an indirect branch */
    uint8_t flow, length, condition, original;
    bool known, seen, start, armed, watched, taken, not_taken;
};

static struct insn table[SLOTS];
static size_t used;
static pid_t pid;
static bool hidden;      /* breakpoints are out, because of vfork */
static bool after_event; /* the next SIGTRAP is the step out of a fork or exec, not a breakpoint */

static struct insn *find(uint64_t rip)
{
    size_t i = (rip * 0x9e3779b97f4a7c15ull) >> 42;
    while (table[i].rip != 0 && table[i].rip != rip)
        i = (i + 1) % SLOTS;
    if (table[i].rip == 0) {
        if (++used > SLOTS / 4 * 3) {
            fprintf(stderr, "reach: table full\n");
            exit(2);
        }
        table[i].rip = rip;
    }
    return &table[i];
}

static struct insn *look(uint64_t rip)
{
    size_t i = (rip * 0x9e3779b97f4a7c15ull) >> 42;
    while (table[i].rip != 0 && table[i].rip != rip)
        i = (i + 1) % SLOTS;
    return table[i].rip == 0 ? NULL : &table[i];
}

static uint8_t poke(pid_t to, uint64_t address, uint8_t byte)
{
    errno = 0;
    long word = ptrace(PTRACE_PEEKTEXT, to, (void *)address, NULL);
    if (errno != 0)
        return 0;
    uint8_t old = (uint8_t)word;
    if (ptrace(PTRACE_POKETEXT, to, (void *)address, (void *)((word & ~0xffl) | byte)) < 0)
        return 0;
    return old;
}

static void arm(struct insn *n)
{
    if (n->armed || hidden)
        return;
    n->original = poke(pid, n->rip, 0xcc);
    n->armed = n->original != 0;
}

static void disarm(struct insn *n)
{
    if (n->armed)
        poke(pid, n->rip, n->original);
    n->armed = false;
}

static void set_rip(uint64_t rip)
{
    if (ptrace(PTRACE_POKEUSER, pid, (void *)offsetof(struct user_regs_struct, rip), (void *)rip) < 0)
        die("PTRACE_POKEUSER");
}

static size_t read_code(uint64_t rip, uint8_t *bytes, size_t size)
{
    struct iovec local = {bytes, size}, remote = {(void *)rip, size};
    ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (n <= 0) {
        remote.iov_len = local.iov_len = 4096 - (rip & 4095) < size ? 4096 - (rip & 4095) : size;
        n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    }
    return n < 0 ? 0 : (size_t)n;
}

/* Which way control may go from the branch N. Plain branches only: no instruction's length is needed but that of jcc and loop.
 */
static void describe(struct insn *n)
{
    uint8_t p[24] = {0};
    size_t size = read_code(n->rip, p, 16), i = 0;
    n->known = true;
    n->flow = FLOW_PLAIN;
    if (classify(p, size) != KIND_BRANCH)
        return;
    while (p[i] == 0xf2 || p[i] == 0xf3 || p[i] == 0x66 || p[i] == 0x67 || p[i] == 0x2e || p[i] == 0x36 || p[i] == 0x3e ||
           p[i] == 0x26 || p[i] == 0x64 || p[i] == 0x65 || (p[i] & 0xf0) == 0x40)
        i++;
    uint8_t op = p[i];
    int32_t displacement;
    if ((op & 0xf0) == 0x70 || (op >= 0xe0 && op <= 0xe3)) {
        n->flow = op >= 0xe0 ? FLOW_LOOP : FLOW_JCC;
        n->condition = op & 15;
        n->length = (uint8_t)(i + 2);
        n->target = n->rip + n->length + (uint64_t)(int64_t)(int8_t)p[i + 1];
    } else if (op == 0x0f) {
        n->flow = FLOW_JCC;
        n->condition = p[i + 1] & 15;
        n->length = (uint8_t)(i + 6);
        memcpy(&displacement, p + i + 2, 4);
        n->target = n->rip + n->length + (uint64_t)(int64_t)displacement;
    } else if (op == 0xe8 || op == 0xe9 || op == 0xeb) {
        n->flow = FLOW_DIRECT;
    } else if (op == 0xc2 || op == 0xc3) {
        n->flow = FLOW_RET;
        n->pop = op == 0xc2 ? (uint16_t)(p[i + 1] | p[i + 2] << 8) : 0;
    } else {
        n->flow = FLOW_INDIRECT;
        memcpy(n->bytes, p, sizeof n->bytes);
    }
}

static bool condition_holds(uint8_t condition, uint64_t flags)
{
    bool cf = flags & 1, pf = flags & 4, zf = flags & 0x40, sf = flags & 0x80, of = flags & 0x800, result;
    switch (condition >> 1) {
    case 0:
        result = of;
        break;
    case 1:
        result = cf;
        break;
    case 2:
        result = zf;
        break;
    case 3:
        result = cf || zf;
        break;
    case 4:
        result = sf;
        break;
    case 5:
        result = pf;
        break;
    case 6:
        result = sf != of;
        break;
    default:
        result = zf || sf != of;
        break;
    }
    return result != (condition & 1);
}

/* Control went to RIP by a branch, or past one. */
static struct insn *reached(uint64_t rip)
{
    struct insn *n = find(rip);
    if (!n->start) {
        n->start = true;
        report_block(pid, rip);
    }
    return n;
}

static bool settled(const struct insn *branch, bool way_taken)
{
    if (way_taken ? branch->taken : branch->not_taken)
        return true;
    const struct insn *n = look(way_taken ? branch->target : branch->rip + branch->length);
    return n != NULL && n->start;
}

/* An instruction that has been seen covers ADDRESS with a byte that is not its first. */
static bool inside_seen(uint64_t address)
{
    for (uint64_t k = 1; k < 15; k++) {
        const struct insn *n = look(address - k);
        if (n != NULL && n->seen && n->length > k)
            return true;
    }
    return false;
}

/* Which breakpoint the branch still needs. */
static void rearm_branch(struct insn *n)
{
    if (n->flow == FLOW_RET || n->flow == FLOW_INDIRECT || n->flow == FLOW_SIGRETURN) {
        arm(n);
        return;
    }
    if (n->flow != FLOW_JCC && n->flow != FLOW_LOOP)
        return;
    bool taken = settled(n, true), not_taken = settled(n, false);
    if (taken && not_taken) {
        disarm(n);
        return;
    }
    struct insn *other = find(taken ? n->rip + n->length : n->target);
    if (n->hits > WATCH_AFTER && taken != not_taken && !other->seen && !inside_seen(other->rip) &&
        (other->watcher == 0 || other->watcher == n->rip)) {
        other->watcher = n->rip;
        other->watched = true;
        arm(other);
        if (other->armed) {
            disarm(n);
            return;
        }
    }
    arm(n);
}

/* The watch at N cannot stay: its branch takes over again. */
static void end_watch(struct insn *n)
{
    struct insn *branch = n->watched ? look(n->watcher) : NULL;
    n->watched = false;
    n->watcher = 0;
    disarm(n);
    if (branch != NULL) {
        branch->hits = 0;
        arm(branch);
    }
}

static void remove_all(pid_t from)
{
    for (size_t i = 0; i < SLOTS; i++)
        if (table[i].armed)
            poke(from, table[i].rip, table[i].original);
}

static void insert_all(void)
{
    for (size_t i = 0; i < SLOTS; i++)
        if (table[i].armed)
            poke(pid, table[i].rip, 0xcc);
}

/* Code in [START, END) is gone. */
static void forget_range(uint64_t start, uint64_t end)
{
    nmaps = 0;
    for (size_t i = 0; i < SLOTS; i++)
        if (table[i].rip >= start && table[i].rip < end)
            table[i] = (struct insn){.rip = table[i].rip};
}

static void after_syscall(void)
{
    struct user_regs_struct r;
    if (ptrace(PTRACE_GETREGS, pid, NULL, &r) < 0)
        die("PTRACE_GETREGS");
    if (r.orig_rax == SYS_mmap || r.orig_rax == SYS_munmap || r.orig_rax == SYS_mprotect || r.orig_rax == SYS_mremap)
        nmaps = 0;
    if (r.orig_rax == SYS_munmap)
        forget_range(r.rdi, r.rdi + r.rsi);
    if (r.orig_rax == SYS_mmap && (r.r10 & 0x10))
        forget_range(r.rdi, r.rdi + r.rsi);
}

/* Waits for the tracee's next stop of its own; children and vfork are dealt with here. Exits when the tracee does. */
static const char *output;
static int wait_stop(void)
{
    for (;;) {
        int status;
        pid_t who = waitpid(-1, &status, __WALL);
        if (who < 0)
            die("waitpid");
        if (who != pid) {
            if (WIFSTOPPED(status)) { /* a child of fork or vfork */
                if (!hidden)
                    remove_all(who);
                ptrace(PTRACE_DETACH, who, NULL, NULL);
            }
            continue;
        }
        if (!WIFSTOPPED(status)) {
            write_blocks(output, 0, true);
            if (WIFSIGNALED(status)) {
                signal(WTERMSIG(status), SIG_DFL);
                raise(WTERMSIG(status));
            }
            exit(WEXITSTATUS(status));
        }
        int event = status >> 16;
        if (event == PTRACE_EVENT_CLONE) {
            fprintf(stderr, "reach: the program has threads\n");
            kill(pid, SIGKILL);
            exit(3);
        }
        if (event == PTRACE_EVENT_VFORK) {
            remove_all(pid);
            hidden = true;
        } else if (event == PTRACE_EVENT_VFORK_DONE) {
            hidden = false;
            insert_all();
        }
        if (event == PTRACE_EVENT_EXEC) {
            memset(table, 0, sizeof table);
            used = 0;
            nmaps = 0;
        }
        if (event != 0) {
            after_event = true;
            ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
            continue;
        }
        return WSTOPSIG(status);
    }
}

/* Executes the one instruction at the tracee's rip; signals are delivered. Returns the new rip. */
static uint64_t step_once(uint64_t rip)
{
    int signal = 0;
    uint8_t bytes[3] = {0};
    read_code(rip, bytes, 2);
    bool call = bytes[0] == 0x0f && bytes[1] == 0x05;
    for (;;) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, (void *)(long)signal) < 0)
            die("PTRACE_SINGLESTEP");
        int stop = wait_stop();
        if (stop == SIGTRAP) {
            uint64_t now = rip_of(pid);
            after_event = false;
            if (call)
                after_syscall();
            if (now == rip && classify(bytes, 2) == KIND_PLAIN)
                continue; /* rep */
            return now;
        }
        signal = stop == STOP_SYSCALL ? 0 : stop;
    }
}

static uint64_t register_of(const struct user_regs_struct *r, unsigned number)
{
    const unsigned long long *const all[16] = {&r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp, &r->rsi, &r->rdi,
                                               &r->r8,  &r->r9,  &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15};
    return *all[number];
}

/* Does an indirect call or jump of the usual forms by hand (a step costs several times as much): sets rip and rsp in R. */
static bool do_indirect(struct insn *n, struct user_regs_struct *r)
{
    const uint8_t *p = n->bytes;
    unsigned rex = 0;
    if ((*p & 0xf0) == 0x40)
        rex = *p++;
    if (*p++ != 0xff)
        return false;
    unsigned mod = *p >> 6, reg = (*p >> 3) & 7, rm = (*p & 7u) | (rex & 1) << 3;
    bool sib = mod != 3 && (*p & 7) == 4;
    if (reg != 2 && reg != 4)
        return false;
    uint64_t value, address = 0;
    int32_t displacement = 0;
    bool relative = mod == 0 && (*p & 7) == 5;
    p++;
    if (sib) {
        unsigned index = ((*p >> 3) & 7u) | (rex & 2) << 2, base = (*p & 7u) | (rex & 1) << 3;
        if (index != 4)
            address += register_of(r, index) << (*p >> 6);
        if (mod == 0 && (*p & 7) == 5)
            mod = 4; /* no base, disp32 */
        else
            address += register_of(r, base);
        p++;
    } else if (!relative) {
        address = register_of(r, rm);
    }
    if (mod == 1) {
        displacement = (int8_t)*p++;
    } else if (mod == 2 || mod == 4 || relative) {
        memcpy(&displacement, p, 4);
        p += 4;
    }
    uint64_t after = n->rip + (uint64_t)(p - n->bytes);
    value = address;
    if (mod != 3) {
        address += (uint64_t)(int64_t)displacement + (relative ? after : 0);
        errno = 0;
        value = (uint64_t)ptrace(PTRACE_PEEKDATA, pid, (void *)address, NULL);
        if (errno != 0)
            return false;
    }
    if (reg == 2) {
        r->rsp -= 8;
        if (ptrace(PTRACE_POKEDATA, pid, (void *)r->rsp, (void *)after) < 0)
            return false;
    }
    r->rip = value;
    return ptrace(PTRACE_SETREGS, pid, NULL, r) == 0;
}

/* The tracee is at N, which has a breakpoint or would need one: does what the branch does. Returns where it led. */
static uint64_t pass_branch(struct insn *n)
{
    struct user_regs_struct r;
    if (ptrace(PTRACE_GETREGS, pid, NULL, &r) < 0)
        die("PTRACE_GETREGS");
    n->hits++;
    if (n->flow == FLOW_JCC) {
        bool taken = condition_holds(n->condition, r.eflags);
        uint64_t next = taken ? n->target : n->rip + n->length;
        set_rip(next);
        reached(next);
        *(taken ? &n->taken : &n->not_taken) = true;
        rearm_branch(n);
        return next;
    }
    if (n->flow == FLOW_RET) {
        errno = 0;
        uint64_t next = (uint64_t)ptrace(PTRACE_PEEKDATA, pid, (void *)r.rsp, NULL);
        if (errno == 0) {
            r.rsp += 8u + n->pop;
            r.rip = next;
            if (ptrace(PTRACE_SETREGS, pid, NULL, &r) < 0)
                die("PTRACE_SETREGS");
            reached(next);
            rearm_branch(n);
            return next;
        }
    }
    if (n->flow == FLOW_INDIRECT && do_indirect(n, &r)) {
        reached(r.rip);
        rearm_branch(n);
        return r.rip;
    }
    disarm(n);
    uint64_t next = step_once(n->rip);
    if (n->flow == FLOW_LOOP)
        *(next == n->target ? &n->taken : &n->not_taken) = true;
    if (n->flow != FLOW_SIGRETURN)
        reached(next);
    rearm_branch(n);
    return next;
}

/* The tracee is at RIP, about to execute code never seen: one instruction, and on. */
static uint64_t step_new(uint64_t rip)
{
    struct insn *n = find(rip);
    if (n->watched && !n->start)
        end_watch(n); /* arrived without a branch: the branch must go on waiting */
    disarm(n);
    for (uint64_t k = 1; k < 15; k++) { /* no breakpoint inside what is about to be executed */
        struct insn *inner = look(rip + k);
        if (inner != NULL && inner->watched && inner->armed)
            end_watch(inner);
    }
    describe(n);
    n->seen = true;
    if (n->flow != FLOW_PLAIN)
        return pass_branch(n);
    uint8_t bytes[3] = {0};
    read_code(rip, bytes, 2);
    if (bytes[0] == 0x0f && bytes[1] == 0x05) {
        struct user_regs_struct r;
        ptrace(PTRACE_GETREGS, pid, NULL, &r);
        if (r.rax == SYS_rt_sigreturn) {
            n->flow = FLOW_SIGRETURN;
            return pass_branch(n);
        }
    }
    uint64_t next = step_once(rip);
    if (next > rip && next - rip < 16)
        n->length = (uint8_t)(next - rip);
    return next;
}

/* Runs seen code from RIP until a breakpoint or signal; returns where the tracee is then. */
static uint64_t run_seen(void)
{
    int signal = 0;
    bool entering = true;
    for (;;) {
        if (ptrace(signal ? PTRACE_SINGLESTEP : PTRACE_SYSCALL, pid, NULL, (void *)(long)signal) < 0)
            die("PTRACE_SYSCALL");
        bool handler = signal != 0;
        signal = 0;
        int stop = wait_stop();
        if (stop == STOP_SYSCALL) {
            if (!entering)
                after_syscall();
            entering = !entering;
            continue;
        }
        uint64_t rip = rip_of(pid);
        if (stop != SIGTRAP) {
            signal = stop;
            entering = true;
            continue;
        }
        if (handler || after_event) { /* the handler's first instruction, or the one after the system call */
            after_event = false;
            return rip;
        }
        struct insn *n = look(rip - 1);
        if (n == NULL || !n->armed) {
            signal = SIGTRAP; /* the program's own int3 */
            continue;
        }
        set_rip(rip - 1);
        if (n->watched) { /* nobody but the branch can have come here */
            struct insn *branch = look(n->watcher);
            n->watched = false;
            disarm(n);
            reached(n->rip);
            if (branch != NULL)
                rearm_branch(branch);
        }
        return rip - 1;
    }
}

int main(int argc, char **argv)
{
    if (argc < 4 || strcmp(argv[1], "-o")) {
        fprintf(stderr, "usage: reach -o FILE PROG ARGS...\n");
        return 2;
    }
    output = argv[2];
    pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execvp(argv[3], argv + 3);
        perror(argv[3]);
        _exit(127);
    }
    int status;
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
    long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                   PTRACE_O_TRACEVFORKDONE | PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD;
    if (ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)options) < 0)
        die("PTRACE_SETOPTIONS");
    uint64_t rip = rip_of(pid);
    for (;;) {
        struct insn *n = look(rip);
        if (n == NULL || !n->seen)
            rip = step_new(rip);
        else if (n->armed)
            rip = pass_branch(n);
        else
            rip = run_seen();
    }
}
