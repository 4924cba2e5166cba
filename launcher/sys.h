/* SPDX-License-Identifier: Apache-2.0
 *
 * System calls for the core: raw, returning -errno. Kernel structures come from the kernel's own headers where they agree with
 * a freestanding program; the few that do not are here (source: Linux uapi, arch/x86).
 */
#ifndef BDBI_SYS_H
#define BDBI_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <asm/unistd.h>

static inline long sys6(long n, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
    register uint64_t r10 __asm__("r10") = d;
    register uint64_t r8 __asm__("r8") = e;
    register uint64_t r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define NR_CLONE3_ 435
#define SYS_ARG(x) ((uint64_t)(x))
#define sys5(n, a, b, c, d, e) sys6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), SYS_ARG(e), 0)
#define sys4(n, a, b, c, d) sys6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), 0, 0)
#define sys3(n, a, b, c) sys6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), 0, 0, 0)
#define sys2(n, a, b) sys6(n, SYS_ARG(a), SYS_ARG(b), 0, 0, 0, 0)
#define sys1(n, a) sys6(n, SYS_ARG(a), 0, 0, 0, 0, 0)
#define sys0(n) sys6(n, 0, 0, 0, 0, 0, 0)

static inline int sys_failed(long result)
{
    return (uint64_t)result > (uint64_t)-4096;
}

enum {
    E_PERM = 1,
    E_NOENT = 2,
    E_SRCH = 3,
    E_INTR = 4,
    E_2BIG = 7,
    E_NOEXEC = 8,
    E_AGAIN = 11,
    E_NOMEM = 12,
    E_ACCES = 13,
    E_FAULT = 14,
    E_BUSY = 16,
    E_EXIST = 17,
    E_NOTDIR = 20,
    E_ISDIR = 21,
    E_INVAL = 22,
    E_MFILE = 24,
    E_TXTBSY = 26,
    E_FBIG = 27,
    E_NAMETOOLONG = 36,
    E_NOSYS = 38,
    E_LOOP = 40
};

enum { PROT_NONE_ = 0, PROT_READ_ = 1, PROT_WRITE_ = 2, PROT_EXEC_ = 4 };
enum {
    MAP_SHARED_ = 1,
    MAP_PRIVATE_ = 2,
    MAP_TYPE_ = 15,
    MAP_FIXED_ = 0x10,
    MAP_ANONYMOUS_ = 0x20,
    MAP_32BIT_ = 0x40,
    MAP_DENYWRITE_ = 0x800,
    MAP_NORESERVE_ = 0x4000,
    MAP_POPULATE_ = 0x8000,
    MAP_FIXED_NOREPLACE_ = 0x100000
};

enum { AT_FDCWD_ = -100 };
enum {
    O_RDONLY_ = 0,
    O_WRONLY_ = 1,
    O_RDWR_ = 2,
    O_CREAT_ = 0100,
    O_EXCL_ = 0200,
    O_APPEND_ = 02000,
    O_CLOEXEC_ = 02000000,
    O_PATH_ = 010000000
};

struct kernel_stat {
    uint64_t st_dev, st_ino, st_nlink;
    uint32_t st_mode, st_uid, st_gid, pad0;
    uint64_t st_rdev;
    int64_t st_size, st_blksize, st_blocks;
    int64_t st_atime_sec, st_atime_nsec, st_mtime_sec, st_mtime_nsec, st_ctime_sec, st_ctime_nsec;
    int64_t unused[3];
};
_Static_assert(sizeof(struct kernel_stat) == 144, "struct stat of x86-64");

/* struct statx, as far as it is read. */
struct kernel_statx_time {
    int64_t sec;
    uint32_t nsec, pad;
};
struct kernel_statx {
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, pad;
    uint64_t ino, size, blocks, attributes_mask;
    struct kernel_statx_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t mount, more[13];
};
_Static_assert(sizeof(struct kernel_statx) == 256, "struct statx");
#define STATX_WANTED 0x17ffu /* STATX_BASIC_STATS, STATX_MNT_ID */
#define STATX_MOUNT 0x1000u

struct kernel_timespec {
    int64_t sec, nsec;
};

/* Signals: uapi asm/signal.h, asm/sigcontext.h, asm/ucontext.h. */
enum {
    SIG_HUP = 1,
    SIG_INT = 2,
    SIG_ILL = 4,
    SIG_TRAP = 5,
    SIG_ABRT = 6,
    SIG_BUS = 7,
    SIG_FPE = 8,
    SIG_KILL = 9,
    SIG_SEGV = 11,
    SIG_CHLD = 17,
    SIG_CONT = 18,
    SIG_STOP = 19,
    SIG_URG = 23,
    SIG_WINCH = 28,
    SIG_SYS = 31
};
#define SIG_DEFAULT 0ull
#define SIG_IGNORE 1ull
#define SA_NOCLDSTOP_ 1ull
#define SA_NOCLDWAIT_ 2ull
#define SA_SIGINFO_ 4ull
#define SA_RESTORER_ 0x04000000ull
#define SA_ONSTACK_ 0x08000000ull
#define SA_RESTART_ 0x10000000ull
#define SA_NODEFER_ 0x40000000ull
#define SA_RESETHAND_ 0x80000000ull
#define SIG_BIT(n) (1ull << ((n)-1))
enum { SIG_BLOCK_ = 0, SIG_UNBLOCK_ = 1, SIG_SETMASK_ = 2 };
enum { SS_ONSTACK_ = 1, SS_DISABLE_ = 2 };
#define SS_AUTODISARM_ 0x80000000u

struct kernel_sigaction {
    uint64_t handler, flags, restorer, mask;
};

struct kernel_siginfo {
    int32_t signo, error, code, pad;
    union {
        uint64_t address; /* synchronous faults */
        uint64_t words[14];
    };
};
_Static_assert(sizeof(struct kernel_siginfo) == 128, "siginfo_t");

struct kernel_stack {
    uint64_t sp;
    uint32_t flags, pad;
    uint64_t size;
};

struct kernel_mcontext {
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
    uint16_t cs, gs, fs, ss;
    uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
};

struct kernel_ucontext {
    uint64_t flags, link;
    struct kernel_stack stack;
    struct kernel_mcontext mc;
    uint64_t sigmask;
};

struct kernel_sigframe {
    uint64_t restorer;
    struct kernel_ucontext uc;
    struct kernel_siginfo info;
};
_Static_assert(sizeof(struct kernel_sigframe) == 440, "struct rt_sigframe");

void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
size_t core_strlen(const char *s);
int core_strcmp(const char *a, const char *b);
const char *core_basename(const char *path);

#endif
