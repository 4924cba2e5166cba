/* SPDX-License-Identifier: Apache-2.0
 *
 * What the guest writes into the memory of another process: by ptrace, process_vm_writev, /proc/PID/mem. If that process is a
 * guest too, and has code there, what it made from it must go. It runs the same bdbi at the same addresses, so the writer can
 * see where code is (module.c) and leave a note; the other reads it when it comes out of a system call (core_leave), which is
 * where one stops that waits for its debugger.
 */
#include "launcher/core.h"

uint32_t code_rewritten;

struct kernel_iovec {
    uint64_t base, bytes;
};

bool remote_read(int pid, void *to, const void *from, size_t bytes)
{
    struct kernel_iovec mine = {(uint64_t)to, bytes}, theirs = {(uint64_t)from, bytes};
    return sys6(__NR_process_vm_readv, (uint64_t)pid, (uint64_t)&mine, 1, (uint64_t)&theirs, 1, 0) == (long)bytes;
}

static bool remote_note(int pid)
{
    uint32_t one = 1;
    struct kernel_iovec mine = {(uint64_t)&one, sizeof one}, theirs = {(uint64_t)&code_rewritten, sizeof one};
    return sys6(__NR_process_vm_writev, (uint64_t)pid, (uint64_t)&mine, 1, (uint64_t)&theirs, 1, 0) == sizeof one;
}

bool remote_is_guest(uint64_t pid)
{
    char path[40];
    struct kernel_stat other, own;
    format(path, sizeof path, "/proc/%u/exe", pid);
    return sys4(__NR_newfstatat, AT_FDCWD_, path, &other, 0) == 0 &&
           sys4(__NR_newfstatat, AT_FDCWD_, "/proc/self/exe", &own, 0) == 0 && other.st_ino == own.st_ino &&
           other.st_dev == own.st_dev;
}

bool remote_runs(uint64_t device, uint64_t inode)
{
    char entries[2048], path[40];
    struct kernel_stat own, other;
    struct place_of_file file;
    bool found = false;
    long n, fd = open_own("/proc", O_RDONLY_ | O_CLOEXEC_, 0);
    if (fd < 0 || sys4(__NR_newfstatat, AT_FDCWD_, "/proc/self/exe", &own, 0) < 0)
        n = 0;
    else
        n = sys3(__NR_getdents64, fd, entries, sizeof entries);
    for (; n > 0 && !found; n = sys3(__NR_getdents64, fd, entries, sizeof entries))
        for (const char *p = entries; p < entries + n && !found; p += *(const uint16_t *)(p + 16)) { /* struct linux_dirent64 */
            const char *name = p + 19;
            int pid = 0;
            for (; *name >= '0' && *name <= '9'; name++)
                pid = pid * 10 + *name - '0';
            format(path, sizeof path, "/proc/%d/exe", pid);
            found = pid && !*name && sys4(__NR_newfstatat, AT_FDCWD_, path, &other, 0) == 0 && other.st_ino == own.st_ino &&
                    other.st_dev == own.st_dev && remote_read(pid, &file, &program_file, sizeof file) &&
                    file.device == device && file.inode == inode;
        }
    if (fd >= 0)
        sys1(__NR_close, fd);
    return found;
}

void remote_written(int pid, uint64_t start, uint64_t bytes)
{
    if (options.native || pid <= 0 || !bytes)
        return;
    if (pid == sys0(__NR_getpid))
        mem_written(start, start + bytes);
    else if (remote_is_guest((uint64_t)pid) &&
             (exec_overlaps_in(pid, start, start + bytes, false) || constants_overlap_in(pid, start, start + bytes))) {
        static bool said;
        if (!remote_note(pid))
            explain("process %u has code at 0x%x, which was written: it may run the old one", (uint64_t)pid, start);
        else if (!said)
            explain("process %u has code at 0x%x, which was written: it sees that at its next system call", (uint64_t)pid,
                    start);
        said = true;
    }
}

long sys_ptrace_guest(struct thread_ctx *ctx)
{
    uint64_t request = ctx->gpr[RDI];
    bool registers = request == 3 || request == 6 || request == 12 || request == 13 || (request & ~1ull) == 0x4204;
    static bool said;
    guest_ptraces = true;
    long result = guest_syscall(ctx);
    if (options.verbose && registers && !said && result >= 0 && remote_is_guest((uint32_t)ctx->gpr[RSI])) {
        said = true;
        explain("process %u runs translated: its registers are those of the translation", (uint64_t)(uint32_t)ctx->gpr[RSI]);
    }
    if (result == 0 && (request == 4 || request == 5)) /* PTRACE_POKETEXT, PTRACE_POKEDATA */
        remote_written((int)ctx->gpr[RSI], ctx->gpr[RDX], 8);
    return result;
}

/* What is left of a vector of N parts from byte AT of all on: the rest of one part. False: nothing. */
static bool part_at(uint64_t vector, uint64_t n, uint64_t at, struct kernel_iovec *out)
{
    for (uint64_t i = 0; i < n; i++) {
        if (copy_guest(out, (void *)(vector + i * sizeof *out), sizeof *out))
            return false;
        if (at < out->bytes) {
            out->base += at;
            out->bytes -= at;
            return true;
        }
        at -= out->bytes;
    }
    return false;
}

/* Goes on at byte AT where the other guest may write but its core has write-protected the page, for it has code from there.
 * Returns up to where that went. */
static uint64_t write_protected(const uint64_t *g, uint64_t at)
{
    int pid = (int)g[RDI];
    char path[40];
    struct kernel_iovec mine, theirs;
    format(path, sizeof path, "/proc/%d/mem", pid);
    long fd = -1;
    while (part_at(g[RSI], g[RDX], at, &mine) && part_at(g[R10], g[R8], at, &theirs)) {
        uint64_t n = mine.bytes < theirs.bytes ? mine.bytes : theirs.bytes, page = PAGE_DOWN(theirs.base) + PAGE_BYTES;
        n = n < page - theirs.base ? n : page - theirs.base;
        if (!exec_overlaps_in(pid, theirs.base, theirs.base + n, true))
            break;
        fd = fd < 0 ? open_own(path, O_WRONLY_ | O_CLOEXEC_, 0) : fd;
        long done = fd < 0 ? fd : sys4(__NR_pwrite64, fd, mine.base, n, theirs.base);
        at += done > 0 ? (uint64_t)done : 0;
        if (done != (long)n)
            break;
    }
    if (fd >= 0)
        sys1(__NR_close, fd);
    return at;
}

long sys_process_vm_writev_guest(struct thread_ctx *ctx)
{
    const uint64_t *g = ctx->gpr;
    struct kernel_iovec theirs;
    long result = guest_syscall(ctx);
    if (options.native || (result < 0 && result != -E_FAULT) || !remote_is_guest(g[RDI]))
        return result;
    uint64_t end = result > 0 ? (uint64_t)result : 0;
    if ((int)g[RDI] != sys0(__NR_getpid))
        end = write_protected(g, end);
    for (uint64_t at = 0; at < end && part_at(g[R10], g[R8], at, &theirs); at += theirs.bytes)
        remote_written((int)g[RDI], theirs.base, theirs.bytes < end - at ? theirs.bytes : end - at);
    return end ? (long)end : result;
}
