/* SPDX-License-Identifier: Apache-2.0
 *
 * The reference that bdbi is measured against: runs a program one instruction at a time with ptrace. Shares no code with bdbi.
 *
 *   step count  -o FILE PROG ARGS...   FILE: "instructions N", all threads together
 *   step blocks -o FILE PROG ARGS...   FILE: "module-path hexoffset" per distinct address in a file-backed executable mapping
 * that was reached by a taken branch, call, return, or fall-through after a branch; the offset counts from the module's lowest
 * mapping. First line "# instructions N".
 *
 * An instruction counts when it is begun, so the one that ends the process counts too. A rep-prefixed string instruction is
 * stepped once per iteration with rip in place and counts once. An instruction that a signal interrupted before it had an
 * effect counts when it is executed again. Child processes (fork) run untraced; threads are traced.
 *
 * What is a branch is told by the opcode alone (prefixes are skipped), so no instruction needs to be measured: the next rip
 * after a branch is a block's start whether the branch was taken or not.
 */
#include <elf.h>
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

enum insn_kind { KIND_UNKNOWN, KIND_PLAIN, KIND_BRANCH, KIND_REP_STRING, KIND_SYSCALL };
enum { MAX_THREADS = 256, CACHE_SLOTS = 1 << 20, MAX_MAPS = 4096, PATH_BYTES = 512 };

struct thread {
    pid_t tid;
    uint64_t rip;        /* where the last step was issued */
    enum insn_kind kind; /* of the instruction there */
    bool begun;          /* a step has been issued */
    bool in_event;       /* stopped in the middle of an instruction (clone) */
};

struct mapping {
    uint64_t start, end, base;
    int module; /* index in modules, -1: not file-backed executable */
};

static struct thread threads[MAX_THREADS];
static int nthreads;
static uint64_t instructions;
static bool want_blocks;

/* rip -> kind of instruction and whether it has been reported as a block start; emptied when mappings change. */
static struct {
    uint64_t rip;
    uint8_t kind, reported;
} cache[CACHE_SLOTS];
static size_t cache_used;

static struct mapping maps[MAX_MAPS];
static int nmaps;
static char (*modules)[PATH_BYTES];
static int nmodules;
static struct block {
    uint32_t module;
    uint64_t offset;
} * blocks;
static size_t nblocks, blocks_size;

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static uint64_t rip_of(pid_t tid)
{
    errno = 0;
    long rip = ptrace(PTRACE_PEEKUSER, tid, (void *)offsetof(struct user_regs_struct, rip), NULL);
    if (rip == -1 && errno != 0)
        die("PTRACE_PEEKUSER");
    return (uint64_t)rip;
}

static enum insn_kind classify(const uint8_t *p, size_t n)
{
    bool rep = false;
    size_t i = 0;
    for (; i < n; i++) {
        uint8_t b = p[i];
        if (b == 0xf2 || b == 0xf3)
            rep = true;
        else if (!(b == 0x66 || b == 0x67 || b == 0x2e || b == 0x36 || b == 0x3e || b == 0x26 || b == 0x64 || b == 0x65 ||
                   (b & 0xf0) == 0x40))
            break;
    }
    if (i >= n)
        return KIND_PLAIN;
    uint8_t op = p[i], next = i + 1 < n ? p[i + 1] : 0, reg = (next >> 3) & 7;
    if ((op & 0xf0) == 0x70 || (op >= 0xe0 && op <= 0xe3) || op == 0xe8 || op == 0xe9 || op == 0xeb)
        return KIND_BRANCH; /* jcc, loop and jrcxz, call, jmp */
    if (op == 0xc2 || op == 0xc3 || op == 0xca || op == 0xcb || op == 0xcf)
        return KIND_BRANCH; /* ret, retf, iret */
    if (op == 0x0f && (next & 0xf0) == 0x80)
        return KIND_BRANCH;
    if (op == 0x0f && next == 0x05)
        return KIND_SYSCALL;
    if (op == 0xff && reg >= 2 && reg <= 5)
        return KIND_BRANCH; /* call and jmp through a register or memory */
    if (op == 0xc7 && next == 0xf8)
        return KIND_BRANCH; /* xbegin */
    if (rep && ((op >= 0xa4 && op <= 0xa7) || (op >= 0xaa && op <= 0xaf) || (op >= 0x6c && op <= 0x6f)))
        return KIND_REP_STRING;
    return KIND_PLAIN;
}

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

static int module_index(const char *path)
{
    for (int i = 0; i < nmodules; i++)
        if (!strcmp(modules[i], path))
            return i;
    modules = realloc(modules, (size_t)(nmodules + 1) * sizeof *modules);
    if (modules == NULL)
        die("realloc");
    snprintf(modules[nmodules], sizeof *modules, "%s", path);
    return nmodules++;
}

static void read_maps(pid_t tid)
{
    char name[64], line[PATH_BYTES + 128], path[PATH_BYTES], permissions[8], low_path[PATH_BYTES] = "";
    uint64_t low_base = 0;
    snprintf(name, sizeof name, "/proc/%d/maps", tid);
    FILE *f = fopen(name, "r");
    if (f == NULL)
        die(name);
    nmaps = 0;
    while (fgets(line, sizeof line, f) && nmaps < MAX_MAPS) {
        unsigned long start, end, offset;
        path[0] = 0;
        if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %511[^\n]", &start, &end, permissions, &offset, path) < 4)
            continue;
        /* A module's first segment maps the file's first byte; the others follow. */
        if (path[0] == '/' && (offset == 0 || strcmp(path, low_path))) {
            strcpy(low_path, path);
            low_base = start - offset;
        }
        bool code = path[0] == '/' && permissions[2] == 'x';
        maps[nmaps++] = (struct mapping){start, end, low_base, code ? module_index(path) : -1};
    }
    fclose(f);
}

static void report_block(pid_t tid, uint64_t rip)
{
    if (nmaps == 0)
        read_maps(tid);
    int low = 0, high = nmaps;
    while (low < high) {
        int middle = (low + high) / 2;
        if (maps[middle].end <= rip)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == nmaps || rip < maps[low].start || maps[low].module < 0)
        return;
    if (nblocks == blocks_size) {
        blocks_size = blocks_size ? 2 * blocks_size : 4096;
        blocks = realloc(blocks, blocks_size * sizeof *blocks);
        if (blocks == NULL)
            die("realloc");
    }
    blocks[nblocks++] = (struct block){(uint32_t)maps[low].module, rip - maps[low].base};
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
        bool reached = t->begun && t->kind == KIND_BRANCH;
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

static int compare_blocks(const void *a, const void *b)
{
    const struct block *x = a, *y = b;
    if (x->module != y->module)
        return x->module < y->module ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static void write_report(const char *path)
{
    FILE *f = fopen(path, "w");
    if (f == NULL)
        die(path);
    fprintf(f, "%sinstructions %llu\n", want_blocks ? "# " : "", (unsigned long long)instructions);
    if (nblocks > 0)
        qsort(blocks, nblocks, sizeof *blocks, compare_blocks);
    for (size_t i = 0; i < nblocks; i++)
        if (i == 0 || compare_blocks(&blocks[i - 1], &blocks[i]) != 0)
            fprintf(f, "%s %llx\n", modules[blocks[i].module], (unsigned long long)blocks[i].offset);
    if (fclose(f) != 0)
        die(path);
}

int main(int argc, char **argv)
{
    if (argc < 5 || (strcmp(argv[1], "count") && strcmp(argv[1], "blocks")) || strcmp(argv[2], "-o")) {
        fprintf(stderr, "usage: step count|blocks -o FILE PROG ARGS...\n");
        return 2;
    }
    want_blocks = !strcmp(argv[1], "blocks");
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
    write_report(argv[3]);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}
