/* SPDX-License-Identifier: Apache-2.0
 *
 * What few programs ask of the kernel about themselves: prctl's rarer options, personality, dispatch of system calls to user
 * space, memory that may not be written and executed; and code in memory of unusual kinds.
 */
#include "code_pages.h"
#include "served.h"
#include <asm/prctl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif
#ifndef PR_GET_AUXV
#define PR_GET_AUXV 0x41555856
#endif
#define SET_DISPATCH 59 /* PR_SET_SYSCALL_USER_DISPATCH */

static int status;
static unsigned char *map(size_t bytes, int prot, int flags, int fd)
{
    unsigned char *p = mmap(NULL, bytes, prot, flags, fd, 0);
    MUST(p != MAP_FAILED);
    return p;
}

/* ---- prctl ---- */

SUBCASE(control_names)
{
    char name[17] = "";
    SHOW(prctl(PR_SET_NAME, "a name that is too long"));
    SHOW(prctl(PR_GET_NAME, name));
    printf("%s\n", name);
    SHOW(prctl(PR_SET_NAME, 8));
    FILE *f = fopen("/proc/self/comm", "r");
    printf("%s", f && fgets(name, 17, f) ? name : "?\n");
}

SUBCASE(control_flags)
{
    SHOW(prctl(PR_SET_PDEATHSIG, SIGUSR1));
    int sig = 0;
    SHOW(prctl(PR_GET_PDEATHSIG, &sig));
    printf("%d\n", sig);
    SHOW(prctl(PR_SET_PDEATHSIG, 77));
    SHOW(prctl(PR_GET_DUMPABLE));
    SHOW(prctl(PR_SET_DUMPABLE, 0));
    SHOW(prctl(PR_GET_DUMPABLE));
    SHOW(prctl(PR_SET_DUMPABLE, 7));
    SHOW(prctl(PR_SET_CHILD_SUBREAPER, 1));
    SHOW(prctl(PR_SET_TIMERSLACK, 12345));
    SHOW(prctl(PR_GET_TIMERSLACK));
    SHOW(prctl(PR_SET_KEEPCAPS, 1));
    SHOW(prctl(PR_GET_KEEPCAPS));
    SHOW(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    SHOW(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    SHOW(prctl(PR_GET_TSC, &sig));
    SHOW(prctl(PR_SET_UNALIGN, 1));
    SHOW(prctl(PR_GET_SECCOMP));
    SHOW(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SHOW(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    SHOW(prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0));
    SHOW(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    SHOW(prctl(PR_GET_TIMING));
    SHOW(prctl(PR_SET_TIMING, 1));
    SHOW(prctl(123456));
}

SUBCASE(undumpable_with_generated_code)
{
    SHOW(prctl(PR_SET_DUMPABLE, 0));
    unsigned char *p = anonymous(1, RWX);
    for (int i = 0; i < 10; i++) {
        put(p, i);
        MUST(call(p) == i);
    }
    say(p);
    in_child("child", (void (*)(void))getpid);
    execl("/bin/sh", "sh", "-c", "exit 4", NULL);
}

SUBCASE(no_time_stamps)
{
    on_faults();
    SHOW(prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
    int mode = 0;
    SHOW(prctl(PR_GET_TSC, &mode));
    printf("%d\n", mode);
    TRY(__builtin_ia32_rdtsc());
    unsigned char *p = anonymous(1, RWX); /* translating goes on */
    put(p, 3);
    say(p);
    SHOW(prctl(PR_SET_TSC, PR_TSC_ENABLE));
    printf("%d\n", __builtin_ia32_rdtsc() != 0);
}

SUBCASE(named_memory)
{
    char line[500];
    unsigned char *p = anonymous(4, RWX);
    put(p, 5);
    say(p);
    SHOW(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, 4 * PAGE, "generated"));
    FILE *f = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, f))
        if (strstr(line, "generated"))
            printf("%.5s %s", strchr(line, ' '), strchr(line, '['));
    say(p);
    SHOW(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, 4 * PAGE, "bad [name]"));
}

static long read_auxv(unsigned long *out, size_t bytes)
{
    int fd = open("/proc/self/auxv", O_RDONLY);
    long n = read(fd, out, bytes);
    close(fd);
    return n;
}

SUBCASE(auxiliary_vector)
{
    static unsigned long a[200], b[200];
    long n = read_auxv(a, sizeof a);
    long m = prctl(PR_GET_AUXV, b, sizeof b, 0, 0);
    if (m < 0)
        m = n, memcpy(b, a, sizeof b);
    printf("same %d\n", !memcmp(a, b, (size_t)(n < m ? n : m)));
    int wrong = 0;
    for (int i = 0; a[i]; i += 2)
        wrong += getauxval(a[i]) != a[i + 1];
    printf("wrong %d\n", wrong);
}

SUBCASE(memory_map_of_the_kernel)
{
    /* Fields: 0 where /proc does not say. */
    unsigned char *p = anonymous(64, PROT_READ | PROT_WRITE);
    SHOW(prctl(PR_SET_MM, PR_SET_MM_BRK, p, 0, 0));
    SHOW(prctl(PR_SET_MM, PR_SET_MM_START_BRK, 8, 0, 0));
    strcpy((char *)p, "other arguments");
    SHOW(prctl(PR_SET_MM, PR_SET_MM_ARG_START, p, 0, 0));
    SHOW(prctl(PR_SET_MM, PR_SET_MM_ARG_END, p + 16, 0, 0));
    SHOW(prctl(PR_SET_MM, PR_SET_MM_ARG_START, p, 0, 0));
    char text[100] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY);
    SHOW(read(fd, text, 99));
    printf("%s\n", text);
    unsigned long vector[8] = {AT_PAGESZ, PAGE, AT_UID, 4242, AT_NULL, 0};
    SHOW(prctl(PR_SET_MM, PR_SET_MM_AUXV, vector, sizeof vector, 0));
    unsigned long a[200] = {0};
    long n = read_auxv(a, sizeof a);
    printf("%d\n", n > 0 && a[0] == AT_PAGESZ && a[3] == 4242);
    fd = open("/bin/true", O_RDONLY);
    SHOW(prctl(PR_SET_MM, PR_SET_MM_EXE_FILE, fd, 0, 0));
    SHOW(prctl(PR_SET_MM, PR_SET_MM_EXE_FILE, 999, 0, 0));
    unsigned size = 0;
    SHOW(prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0));
    printf("%d\n", size > 0);
    SHOW(prctl(PR_SET_MM, PR_SET_MM_MAP, p, 1, 0));
    SHOW(prctl(PR_SET_MM, 77, 0, 0, 0));
}

SUBCASE(processor_control)
{
    unsigned long value = 0;
    SHOW(syscall(SYS_arch_prctl, 0x1011 /* ARCH_GET_CPUID */, 0));
    SHOW(syscall(SYS_arch_prctl, 0x1012 /* ARCH_SET_CPUID */, 0) == 0 ? 0 : -1);
    SHOW(syscall(SYS_arch_prctl, 0x1012, 1));
    SHOW(syscall(SYS_arch_prctl, 0x2003 /* ARCH_MAP_VDSO_64 */, 0x700000000000));
    SHOW(syscall(SYS_arch_prctl, 0x1022 /* ARCH_GET_XCOMP_PERM */, &value));
    SHOW(syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 99));
    SHOW(syscall(SYS_arch_prctl, 0x5005 /* ARCH_SHSTK_STATUS */, &value));
    SHOW(syscall(SYS_arch_prctl, 0x5001 /* ARCH_SHSTK_ENABLE */, 1));
    SHOW(syscall(SYS_arch_prctl, 0x4001 /* ARCH_GET_UNTAG_MASK */, &value));
    SHOW(syscall(SYS_arch_prctl, ARCH_SET_FS, 1ul << 63));
    SHOW(syscall(SYS_arch_prctl, ARCH_GET_FS, 8));
    SHOW(syscall(SYS_arch_prctl, ARCH_GET_GS, 8));
    SHOW(syscall(SYS_arch_prctl, 0x9999, 0));
}

/* ---- personality ---- */

SUBCASE(personality_values)
{
    SHOW(personality(0xffffffff));
    SHOW(personality(ADDR_NO_RANDOMIZE));
    SHOW(personality(0xffffffff));
    fflush(stdout);
    in_child("child", (void (*)(void))getpid);
    if (fork() == 0)
        execl("/usr/bin/setarch", "setarch", "-R", "true", NULL);
    wait(&status);
    SHOW(personality(PER_LINUX32));
    if (fork() == 0)
        execl("/bin/uname", "uname", "-m", NULL);
    wait(&status);
    SHOW(personality(PER_LINUX | UNAME26));
    SHOW(personality(PER_LINUX));
}

static void *map_and_call(void *argument)
{
    unsigned char *p = anonymous(1, PROT_READ | PROT_WRITE);
    put(p, 24);
    return (void *)(long)(call(p) + call(argument));
}

static void in_thread(void *code)
{
    pthread_t t;
    void *result;
    pthread_create(&t, NULL, map_and_call, code);
    pthread_join(t, &result);
    printf("%ld\n", (long)result);
}

SUBCASE(readable_is_executable)
{
    SHOW(personality(READ_IMPLIES_EXEC));
    SHOW(personality(0xffffffff));
    unsigned char *p = anonymous(1, PROT_READ | PROT_WRITE);
    for (int i = 0; i < 20; i++) {
        put(p, i);
        MUST(call(p) == i);
    }
    say(p);
    put_asking(p);
    say(p);
    mprotect(p, PAGE, PROT_READ);
    say(p);
    unsigned char *q = anonymous(1, PROT_NONE);
    mprotect(q, PAGE, PROT_READ | PROT_WRITE);
    put(q, 21);
    say(q);
    in_child("child", (void (*)(void))getpid);
    unsigned char *b = sbrk(PAGE);
    put(b, 22);
    TRY(say(b));
    in_thread(b);
    SHOW(personality(0));
    unsigned char *r = anonymous(1, PROT_READ | PROT_WRITE);
    put(r, 23);
    TRY(say(r));
    SHOW(personality(READ_IMPLIES_EXEC));
    execl("/usr/bin/setarch", "setarch", "-R", "true", NULL);
}

SUBCASE(page_zero)
{
    SHOW(personality(MMAP_PAGE_ZERO));
    fflush(stdout);
    if (fork() == 0)
        execl("/bin/sh", "sh", "-c", "grep -c '^00000000-00001000' /proc/self/maps; exit 5", NULL);
    wait(&status);
    print_status("child", status);
}

/* ---- system calls to user space ---- */

static volatile char selector;
static volatile int dispatched;

static void on_dispatch(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    selector = 0;
    dispatched = sig * 1000 + info->si_code * 100 + (info->si_syscall == 500);
    uc->uc_mcontext.gregs[REG_RAX] = 6789;
}

/* Either it is refused, as by a kernel that does not know it, or it works. */
SUBCASE(dispatch_to_user)
{
    struct sigaction action = {.sa_sigaction = on_dispatch, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    if (prctl(SET_DISPATCH, 1, 0, 0, &selector) < 0)
        printf("right %d\n", errno == EINVAL);
    else {
        selector = 1;
        long r = syscall(500);
        printf("right %d\n", r == 6789 && dispatched == SIGSYS * 1000 + 201);
    }
    SHOW(prctl(SET_DISPATCH, 0, 0, 0, 0));
    SHOW(prctl(SET_DISPATCH, 5, 0, 0, 0));
}

/* ---- memory that is not both ---- */

static int denied(long result)
{
    return result == -1 && errno == EACCES;
}

SUBCASE(no_new_executable_memory)
{
    int fd = memfd_create("code", 0), right = 0;
    unsigned char page[PAGE];
    put(page, 31);
    MUST(write(fd, page, PAGE) == PAGE);
    if (prctl(PR_SET_MDWE, 1 /* PR_MDWE_REFUSE_EXEC_GAIN */, 0, 0, 0) < 0)
        right = errno == EINVAL && prctl(PR_GET_MDWE, 0, 0, 0, 0) <= 0;
    else {
        unsigned char *p = anonymous(2, PROT_READ | PROT_WRITE), *q = anonymous(2, PROT_READ | PROT_EXEC);
        right = prctl(PR_GET_MDWE, 0, 0, 0, 0) == 1 &&
                denied((long)mmap(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) &&
                denied(mprotect(p, PAGE, PROT_READ | PROT_EXEC)) && mprotect(q, PAGE, PROT_EXEC) == 0 &&
                mprotect(q, PAGE, PROT_READ) == 0 && denied(mprotect(q, PAGE, PROT_READ | PROT_EXEC));
    }
    printf("right %d\n", right);
    say(map(PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd));
    fflush(stdout);
    if (fork() == 0)
        execl("/bin/sh", "sh", "-c", "exit 6", NULL);
    wait(&status);
    print_status("exec", status);
}

/* ---- the x87 unit's last instruction address ---- */

/* An instruction of the unit, whose address is what FORM stores of it. The exception is pending: some processors store the
 * address only then. A change of context in between may lose it: tried again. */
#define SAVED_ADDRESS(name, form, offset, type)                                                                                \
    do {                                                                                                                       \
        static unsigned char area[4096] __attribute__((aligned(64)));                                                          \
        static const uint16_t unmasked = 0x33b;                                                                                \
        uint64_t expected;                                                                                                     \
        int same = 0;                                                                                                          \
        for (int i = 0; i < 1000 && !same; i++) {                                                                              \
            memset(area, 0, sizeof area);                                                                                      \
            __asm__ volatile("fninit\n\tfldcw %2\n\tfldz\n\tfld1\n1:\tfdivp\n\t" form                                          \
                             "\n\tfnclex\n\tfninit\n\tlea 1b(%%rip), %0"                                                       \
                             : "=&r"(expected), "+m"(area)                                                                     \
                             : "m"(unmasked), "r"(area), "r"(area + 0x1000), "a"(7), "d"(0), "c"(area)                         \
                             : "memory");                                                                                      \
            same = *(const type *)(const void *)(area + (offset)) == (type)expected;                                           \
        }                                                                                                                      \
        printf("%s: %d\n", name, same);                                                                                        \
    } while (0)

SUBCASE(x87_addresses)
{
    SAVED_ADDRESS("fnstenv", "fnstenv (%3)", 12, uint32_t);
    SAVED_ADDRESS("fnstenv rip", "fnstenv %1", 12, uint32_t);
    SAVED_ADDRESS("fnstenv rcx", "fnstenv (%%rcx)", 12, uint32_t);
    SAVED_ADDRESS("fnstenv eax", "fnstenv -7(%%rcx, %%rax)", 12, uint32_t);
    SAVED_ADDRESS("fnstenv 16", ".byte 0x66\n\tfnstenv -4096(%4)", 6, uint16_t);
    SAVED_ADDRESS("fnsave", "fnsave (%3)", 12, uint32_t);
    SAVED_ADDRESS("fxsave", "fxsave (%3)", 8, uint32_t);
    SAVED_ADDRESS("fxsave64", "fxsave64 (%3)", 8, uint64_t);
    SAVED_ADDRESS("xsave", "xsave (%3)", 8, uint32_t);
    SAVED_ADDRESS("xsave64", "xsave64 (%3)", 8, uint64_t);
    SAVED_ADDRESS("xsaveopt64", "xsaveopt64 (%3)", 8, uint64_t);
    SAVED_ADDRESS("xsavec64", "xsavec64 (%3)", 8, uint64_t);
    SAVED_ADDRESS("xsave without it", "mov $6, %%eax\n\txsave64 (%3)", 8, uint64_t);
}

static void *divided;

static void on_division(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    printf("signal %d code %d, address %d\n", sig, info->si_code, uc->uc_mcontext.fpregs->rip == (uint64_t)(uintptr_t)divided);
    siglongjmp(back, 1);
}

SUBCASE(x87_address_in_a_frame)
{
    struct sigaction action = {.sa_sigaction = on_division, .sa_flags = SA_SIGINFO | SA_NODEFER};
    static const uint16_t unmasked = 0x33b;
    sigaction(SIGFPE, &action, NULL);
    for (int i = 0; i < 3; i++)
        if (sigsetjmp(back, 1) == 0)
            __asm__ volatile("lea 1f(%%rip), %0\n\tmov %0, %1\n\tfninit\n\tfldcw %2\n\tfldz\n\tfld1\n1:\tfdivp\n\tfwait"
                             : "=&r"(action.sa_restorer), "=m"(divided)
                             : "m"(unmasked)
                             : "memory");
    __asm__ volatile("fnclex\n\tfninit");
}

/* ---- code in unusual memory ---- */

SUBCASE(huge_pages)
{
    size_t huge = 2 << 20;
    unsigned char *p = mmap(NULL, huge, RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (p == MAP_FAILED) {
        printf("error %d\n", errno);
        return;
    }
    for (int i = 0; i < 20; i++) {
        put(p + huge - 100, i);
        MUST(call(p + huge - 100) == i);
    }
    say(p + huge - 100);
    for (int i = 0; i < 5; i++) { /* code in a huge page changes other code in it: movl $30+i, 0x100000(%rip); ret */
        unsigned char writes[] = {0xc7, 0x05, 0, 0, 0x10, 0, (unsigned char)(30 + i), 0, 0, 0, 0xc3};
        unsigned char *changed = p + PAGE + 10 + 0x100000 - 1;
        put(changed, 0);
        say(changed);
        memcpy(p + PAGE, writes, sizeof writes);
        call(p + PAGE);
        say(changed);
    }
    unsigned char *rounded = mmap(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (rounded != MAP_FAILED) { /* as long as the kernel makes it */
        put(rounded + huge / 2, 35);
        say(rounded + huge / 2);
    }
    SHOW(mprotect(p, PAGE, PROT_READ));
    SHOW(munmap(p, PAGE));
    SHOW(mprotect(p, huge, PROT_READ | PROT_EXEC));
    say(p + huge - 100);
    SHOW(munmap(p, huge));
}

SUBCASE(shared_huge_pages)
{
    size_t huge = 2 << 20;
    int fd = memfd_create("code", MFD_HUGETLB);
    unsigned char *w = MAP_FAILED;
    if (fd < 0 || ftruncate(fd, (off_t)(2 * huge)) < 0 ||
        (w = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED) {
        printf("error %d\n", errno);
        return;
    }
    unsigned char *x = map(2 * huge, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    static const size_t places[] = {0, 3 * PAGE, (2 << 20) - 100, (2 << 20) + 5 * PAGE};
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 4; k++) {
            put(w + places[k], 10 * i + k);
            say(x + places[k]);
            say(x + places[0]);
        }
}

SUBCASE(transparent_huge_pages)
{
    size_t huge = 2 << 20;
    unsigned char *p = map(3 * huge, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    p = (unsigned char *)(((uintptr_t)p + huge - 1) & ~(huge - 1));
    SHOW(madvise(p, huge, MADV_HUGEPAGE));
    for (int i = 0; i < 20; i++) {
        put(p + i * 100, i);
        put(p + huge - 100, i);
        MUST(call(p + i * 100) == i && call(p + huge - 100) == i);
    }
    say(p + huge - 100);
    madvise(p, huge, 25 /* MADV_COLLAPSE */);
    put(p, 51);
    say(p);
    uintptr_t text = (uintptr_t)call & ~(uintptr_t)(PAGE - 1);
    SHOW(madvise((void *)text, PAGE, MADV_HUGEPAGE));
    SHOW(madvise((void *)text, PAGE, MADV_NOHUGEPAGE));
    SHOW(madvise((void *)text, PAGE, MADV_WILLNEED));
    SHOW(madvise((void *)text, PAGE, 21 /* MADV_PAGEOUT */));
    SHOW(madvise((void *)text, PAGE, MADV_DONTNEED));
    say(p);
}

SUBCASE(advice_about_code)
{
    unsigned char *p = anonymous(2, RWX);
    put(p, 52);
    say(p);
    SHOW(madvise(p, PAGE, MADV_WIPEONFORK));
    fflush(stdout);
    if (fork() == 0) {
        printf("child has %d\n", p[0]);
        TRY(say(p));
        exit(0);
    }
    wait(&status);
    say(p);
    SHOW(madvise(p, PAGE, MADV_KEEPONFORK));
    SHOW(madvise(p, PAGE, MADV_DONTFORK));
    fflush(stdout);
    if (fork() == 0) {
        TRY(say(p));
        exit(0);
    }
    wait(&status);
    say(p);
    SHOW(madvise(p, PAGE, 24 /* MADV_DONTNEED_LOCKED */));
    TRY(say(p));
    put(p, 53);
    say(p);
    SHOW(madvise(p, PAGE, MADV_MERGEABLE));
    put(p, 54);
    say(p);
}

SUBCASE(code_behind_the_end_of_a_file)
{
    int fd = memfd_create("code", 0);
    unsigned char page[PAGE];
    put(page, 55);
    MUST(write(fd, page, 100) == 100);
    for (int shared = 0; shared < 2; shared++) {
        unsigned char *p = map(3 * PAGE, PROT_READ | PROT_EXEC, shared ? MAP_SHARED : MAP_PRIVATE, fd);
        say(p);
        TRY(say(p + PAGE));
        MUST(ftruncate(fd, PAGE + 100) == 0 && pwrite(fd, page, 100, PAGE) == 100);
        say(p + PAGE); /* now it is there */
        MUST(ftruncate(fd, PAGE) == 0);
        if (shared)
            TRY(say(p + PAGE)); /* and gone again */
        say(p);
    }
}

/* An instruction that begins before the end of the file's pages and goes on behind. */
SUBCASE(instruction_into_the_missing_page)
{
    int fd = memfd_create("code", 0);
    unsigned char page[PAGE];
    memset(page, 0x90, PAGE);
    page[PAGE - 2] = 0xb8;
    MUST(write(fd, page, PAGE) == PAGE);
    unsigned char *p = map(2 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd);
    TRY(say(p + PAGE - 10));
}

/* What is mapped from where nothing may be executed. */
SUBCASE(mounted_without_exec)
{
    char path[PATH_MAX + 40];
    MUST(getcwd(path, PATH_MAX));
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", path, "tmpfs", MS_NOEXEC, NULL) < 0) {
        printf("no mounts\n");
        return;
    }
    int fd = open(strcat(path, "/code"), O_RDWR | O_CREAT, 0700);
    unsigned char page[PAGE];
    put(page, 58);
    MUST(write(fd, page, PAGE) == PAGE);
    SHOW(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED);
    printf("error %d\n", errno);
    unsigned char *p = map(PAGE, PROT_READ, MAP_PRIVATE, fd);
    TRY(say(p));
    SHOW(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
    TRY(say(p));
    unsigned char *both = anonymous(2, PROT_READ | PROT_WRITE);
    put(both, 59);
    MUST(mmap(both + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == both + PAGE);
    SHOW(mprotect(both, 2 * PAGE, RWX)); /* the first page only */
    say(both);
    put(both, 60);
    say(both);
    both[PAGE] = 0;
    TRY(say(both + PAGE));
    SHOW(personality(READ_IMPLIES_EXEC));
    p = map(PAGE, PROT_READ, MAP_PRIVATE, fd);
    TRY(say(p));
    SHOW(mprotect(p, PAGE, PROT_READ | PROT_WRITE));
    TRY(say(p));
    close(fd);
    SHOW(execl(path, "code", NULL));
}

static bool mount_here_without_exec(const char *path)
{
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount(path, path, NULL, MS_BIND, NULL) == 0 && mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_NOEXEC, NULL) == 0;
}

/* The program's own file system, where the program may be executed. */
SUBCASE(mounted_twice)
{
    char path[PATH_MAX];
    char *end = strrchr(strcpy(path, subcase_self), '/');
    struct stat st;
    MUST(stat(subcase_self, &st) == 0);
    *end = 0;
    if (!mount_here_without_exec(path)) {
        printf("no mounts\n");
        return;
    }
    *end = '/';
    int fd = open(path, O_RDONLY);
    size_t bytes = (size_t)st.st_size & ~4095ul;
    SHOW(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED);
    char *whole = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_DENYWRITE, fd, 0); /* as ld.so does */
    MUST(whole != MAP_FAILED);
    SHOW(mmap(whole + PAGE, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, PAGE) == MAP_FAILED);
    printf("error %d\n", errno);
    SHOW(mprotect(whole + PAGE, PAGE, PROT_READ | PROT_EXEC));
}

static void *serve(void *argument)
{
    static unsigned char page[PAGE] __attribute__((aligned(PAGE)));
    for (uint64_t at; (at = served_wait());) {
        put(page, 56);
        served_give(at, page);
    }
    return argument;
}

SUBCASE(code_served_by_a_thread)
{
    pthread_t t;
    if (!served_open())
        return;
    unsigned char *p = anonymous(4, RWX);
    MUST(served_register(p, 4));
    pthread_create(&t, NULL, serve, NULL);
    say(p);
    say(p + 2 * PAGE);
    put(p + 2 * PAGE, 57);
    say(p + 2 * PAGE);
    madvise(p, PAGE, MADV_DONTNEED);
    say(p);
}

static unsigned char *served;

static void *serve_and_say(void *argument)
{
    static unsigned char page[PAGE] __attribute__((aligned(PAGE)));
    static const unsigned char rest[] = {0, 0, 0xc3};
    for (uint64_t at; (at = served_wait());) {
        int i = (int)((at - (uint64_t)(uintptr_t)served) / PAGE);
        printf("page %d\n", i);
        put(page, 50 + i);
        if (i == 3) /* the end of an instruction */
            memcpy(page, rest, sizeof rest);
        served_give(at, page);
    }
    return argument;
}

/* Which pages, and when: not before the program gets there. */
SUBCASE(code_served_when_it_runs)
{
    pthread_t t;
    if (!served_open())
        return;
    for (int round = 0; round < 2; round++) {
        unsigned char *p = served = anonymous(5, round ? PROT_READ | PROT_WRITE : RWX);
        MUST(served_register(p, 5));
        if (!round)
            pthread_create(&t, NULL, serve_and_say, NULL);
        memset(p, 0x90, PAGE);
        p[PAGE - 1] = 0xc3;
        p[2 * PAGE] = 0x90;
        static const unsigned char cut[] = {0xb8, 70, 0};
        memcpy(p + 3 * PAGE - sizeof cut, cut, sizeof cut);
        if (round)
            SHOW(mprotect(p, 5 * PAGE, PROT_READ | PROT_EXEC));
        printf("to its end\n");
        call(p + PAGE - 5);
        call(p);
        SHOW(mprotect(p, PAGE, PROT_READ | PROT_WRITE));
        p[PAGE - 1] = 0x90;
        SHOW(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
        printf("behind it\n");
        say(p + PAGE - 5);
        printf("across\n");
        say(p + 3 * PAGE - sizeof cut);
        say(p + 4 * PAGE);
    }
}

/* Pages that are made to fault without a change of their protection (Linux 6.13). */
SUBCASE(code_behind_a_guard)
{
    unsigned char *p = anonymous(1, PROT_READ | PROT_WRITE);
    put(p, 56);
    SHOW(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
    say(p);
    SHOW(madvise(p, PAGE, 102 /* MADV_GUARD_INSTALL */));
    TRY(say(p));
    SHOW(madvise(p, PAGE, 103 /* MADV_GUARD_REMOVE */));
    SHOW(mprotect(p, PAGE, PROT_READ | PROT_WRITE));
    put(p, 57);
    SHOW(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
    TRY(say(p));
}

SUBCASE(code_read_by_a_ring)
{
    struct io_uring_params q = {0};
    int r = (int)syscall(SYS_io_uring_setup, 4, &q);
    if (r < 0) {
        printf("error %d\n", errno);
        return;
    }
    char *sq = mmap(NULL, q.sq_off.array + q.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, r, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, q.cq_off.cqes + q.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED, r,
                    IORING_OFF_CQ_RING);
    struct io_uring_sqe *e = mmap(NULL, q.sq_entries * sizeof *e, PROT_READ | PROT_WRITE, MAP_SHARED, r, IORING_OFF_SQES);
    MUST(sq != MAP_FAILED && cq != MAP_FAILED && (void *)e != MAP_FAILED);
    int fd = memfd_create("code", 0);
    unsigned char page[PAGE], *p = anonymous(1, RWX);
    for (uint32_t i = 0; i < 10; i++) {
        put(page, 60 + (int)i);
        MUST(pwrite(fd, page, PAGE, 0) == PAGE);
        memset(e, 0, sizeof *e);
        e->opcode = IORING_OP_READ;
        e->fd = fd;
        e->addr = (uint64_t)(uintptr_t)p;
        e->len = PAGE;
        *(uint32_t *)(void *)(sq + q.sq_off.array + i % 4 * 4) = 0;
        __atomic_store_n((uint32_t *)(void *)(sq + q.sq_off.tail), i + 1, __ATOMIC_RELEASE);
        MUST(syscall(SYS_io_uring_enter, r, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1);
        uint32_t *head = (uint32_t *)(void *)(cq + q.cq_off.head), mask = *(uint32_t *)(void *)(cq + q.cq_off.ring_mask);
        int res = ((struct io_uring_cqe *)(void *)(cq + q.cq_off.cqes))[*head & mask].res;
        __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
        printf("%d: %d\n", res, call(p));
    }
}

SUBCASE(code_read_over_several_pages)
{
    unsigned char *p = anonymous(8, RWX);
    int fd = memfd_create("code", 0);
    static unsigned char file[8 * PAGE];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 8; i++)
            put(file + i * PAGE, round * 10 + i);
        MUST(pwrite(fd, file, sizeof file, 0) == (ssize_t)sizeof file);
        SHOW(pread(fd, p, sizeof file, 0));
        int sum = 0;
        for (int i = 0; i < 8; i++)
            sum += call(p + i * PAGE);
        printf("%d\n", sum);
    }
}
