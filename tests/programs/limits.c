/* SPDX-License-Identifier: Apache-2.0
 *
 * What docs/limits.md says: each argument names a case that tests/system/limits.py judges. Prints what the program sees.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

static void show(const char *what, long result)
{
    printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
}

/* ---- what the process that starts this one has blocked (its children have it blocked too) ---- */

static void on_sent(int signal)
{
    printf("handler %d\n", signal);
}

static void blocked(void)
{
    static const int signals[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGUSR1};
    sigset_t mask, pending;
    struct sigaction action = {.sa_handler = on_sent};
    sigprocmask(SIG_BLOCK, NULL, &mask);
    sigpending(&pending);
    show("open", open((char *)1, O_RDONLY));
    for (int i = 0; i < 6; i++)
        printf("signal %d: blocked %d, pending %d\n", signals[i], sigismember(&mask, signals[i]),
               sigismember(&pending, signals[i]));
    unsigned char *code = mmap(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 2; i++) { /* a fault of bdbi's own */
        code[0] = 0xb8;
        code[1] = (unsigned char)i;
        code[5] = 0xc3;
        printf("code: %d\n", ((int (*)(void))(void *)code)());
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "limits", "blocked_child", NULL);
        _exit(9);
    }
    waitpid(pid, NULL, 0);
    for (int i = 0; i < 6; i++)
        sigaction(signals[i], &action, NULL);
    sigemptyset(&mask);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    printf("done\n");
}

static void blocked_child(void)
{
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    printf("child: %d %d\n", sigismember(&mask, SIGSEGV), sigismember(&mask, SIGHUP));
}

/* ---- instructions ---- */

static void use_gs(void)
{
    uint64_t value = 0;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(value));
}

static void set_gs(void)
{
    syscall(SYS_arch_prctl, ARCH_SET_GS, 0x1000);
}

static void write_gs(void)
{
    __asm__ volatile("mov %0, %%gs" : : "r"(0));
}

static void call_32bit(void)
{
    __asm__ volatile("int $0x80" : : "a"(20) : "memory");
}

static void jump_far(void)
{
    struct {
        uint32_t offset;
        uint16_t segment;
    } __attribute__((packed)) to = {0x1000, 0x23};
    __asm__ volatile("ljmp *%0" : : "m"(to));
}

static void branch16(void)
{
    __asm__ volatile(".byte 0x66, 0xe9, 0, 0, 0, 0");
}

static sigjmp_buf back;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    printf("signal %d code %d, at the target: %d\n", signal, info->si_code,
           uc->uc_mcontext.gregs[REG_RIP] == (greg_t)0x8000000000001234);
    siglongjmp(back, 1);
}

static void not_canonical(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    if (sigsetjmp(back, 1) == 0)
        __asm__ volatile("jmp *%0" : : "r"(0x8000000000001234));
}

/* ---- memory over bdbi's own ---- */

static void show_map(const char *what, const void *place, size_t bytes, int flags)
{
    char *p = mmap((void *)place, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    printf("%s: %s\n", what, p == MAP_FAILED ? strerrorname_np(errno) : p == place ? "there" : "elsewhere");
}

static void *const over_image = (void *)0x554000000000, *const over_thread = (void *)0x554020080000; /* the second */
static void *const over_counting_thread = (void *)0x101100000000;                                    /* with a tool */

static int with_tool; /* the second argument says so */

static void *wait_forever(void *argument)
{
    for (;;)
        pause();
    return argument;
}

static void map_over(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, wait_forever, NULL);
    show_map("image", over_image, PAGE, MAP_FIXED);
    show_map("thread", with_tool ? over_counting_thread : over_thread, PAGE, MAP_FIXED);
    char *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p = mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, over_image);
    printf("moved: %s\n", p == MAP_FAILED ? strerrorname_np(errno) : "there");
}

static void map_over_told(void)
{
    show_map("not replacing", over_image, PAGE, MAP_FIXED_NOREPLACE);
    show_map("a hint", over_image, PAGE, 0);
}

extern char __executable_start[];

/* All of the place for code that is translated now (launcher/context.h). */
static void map_over_arena(void)
{
    char *place = __executable_start + 0x70000000 - 0x30000;
    mmap(place, 0x10000000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    unsigned char *code = mmap(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    code[0] = 0xc3;
    ((void (*)(void))(void *)code)();
    printf("ran\n");
}

/* ---- calls that say no, or do less ---- */

static void process_options(void)
{
    char selector = 0;
    show("dispatch", prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &selector));
    show("mdwe", prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0));
    void *p = mmap(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    show("mseal", syscall(462 /* mseal */, p, PAGE, 0));
}

static void filter_long(void)
{
    static struct sock_filter filter[4090];
    struct sock_fprog program = {4090, filter};
    for (int i = 0; i < 4090; i++)
        filter[i] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    show("long filter", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    program.len = 1;
    show("short filter", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static void filter_strict(void)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
        getpid();
    }
    waitpid(pid, &status, 0);
    printf("signal %d\n", WTERMSIG(status));
}

static void change_root(void)
{
    show("chroot", chroot("/"));
}

static void lock_memory(void)
{
    show("mlockall", mlockall(MCL_CURRENT));
}

static void open_self(void)
{
    show("open", open("/proc/self/exe", O_RDONLY));
}

static void nameless(void)
{
    char block[4096], *argv[] = {"limits", "open_self", NULL};
    int in = open("/proc/self/exe", O_RDONLY), out = memfd_create("nameless", MFD_CLOEXEC);
    for (ssize_t n; (n = read(in, block, sizeof block)) > 0;)
        if (write(out, block, (size_t)n) != n)
            exit(92);
    fexecve(out, argv, environ);
    exit(93);
}

static void read_smaps(void)
{
    show("open", open("/proc/self/smaps", O_RDONLY));
    show("open", open("/proc/self/map_files", O_RDONLY | O_DIRECTORY));
}

static void read_other_maps(void)
{
    char path[40];
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    show("open", open(path, O_RDONLY));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* That we trace. */
static pid_t stopped_child(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    return pid;
}

static void registers(void)
{
    struct user_regs_struct r;
    pid_t pid = stopped_child();
    for (int i = 0; i < 2; i++)
        show("registers", ptrace(PTRACE_GETREGS, pid, NULL, &r));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void narrow_environment(void)
{
    static char area[94];
    __asm__ volatile("fninit\n\tfld1\n\tfstp %%st(0)\n\t.byte 0x66\n\tfnsave %0" : "+m"(area));
    printf("stored\n");
}

static void write_other(void)
{
    pid_t pid = stopped_child();
    for (int i = 0; i < 2; i++) {
        void *word = (void *)ptrace(PTRACE_PEEKTEXT, pid, (void *)write_other, NULL);
        show("write", ptrace(PTRACE_POKETEXT, pid, (void *)write_other, word));
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void held_signal(void)
{
    sigset_t set, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGSEGV);
    sigpending(&pending);
    printf("pending %d\n", sigismember(&pending, SIGSEGV));
}

/* ---- a child that shares the memory ends while it translates ---- */

static unsigned char *functions;

static int call_all(int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += ((int (*)(void))(void *)(functions + (size_t)i * PAGE))();
    return sum;
}

static void child_ends(void)
{
    static const unsigned char code[] = {0xb8, 1, 0, 0, 0, 0xc3}; /* mov eax,1; ret */
    const int n = 2000;
    functions = mmap(NULL, (size_t)n * PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < n; i++)
        memcpy(functions + (size_t)i * PAGE, code, sizeof code);
    fflush(stdout);
    pid_t pid = vfork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_AS, &none);
        _exit(call_all(n) == n ? 7 : 8);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    printf("parent %d\n", call_all(n));
}

/* ---- files that somebody else may write ---- */

static const unsigned char code[] = {0xb8, 7, 0, 0, 0, 0xc3};

static void shared_code(void)
{
    int fd = memfd_create("code", 0);
    if (write(fd, code, sizeof code) != sizeof code)
        return;
    for (int i = 0; i < 2; i++) {
        void *p = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
        printf("code %d\n", ((int (*)(void))p)());
    }
}

static void code_and_later_reads(void)
{
    unsigned long context = 0;
    show("io_setup", syscall(SYS_io_setup, 1, &context));
    void *p = mmap(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(p, code, sizeof code);
    printf("code %d\n", ((int (*)(void))p)());
}

static void private_code(void)
{
    int fd = open("code", O_RDWR | O_CREAT | O_TRUNC, 0700);
    if (write(fd, code, sizeof code) != sizeof code)
        return;
    void *p = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    printf("code %d\n", ((int (*)(void))p)());
}

static void rewritten_module(void)
{
    static char bytes[1 << 20];
    int self = open("/proc/self/exe", O_RDONLY), fd = open("module", O_RDWR | O_CREAT | O_TRUNC, 0700);
    ssize_t n = read(self, bytes, sizeof bytes);
    if (write(fd, bytes, (size_t)n) != n)
        return;
    void *p = mmap(NULL, (size_t)n, PROT_READ, MAP_PRIVATE | MAP_DENYWRITE, fd, 0); /* as ld.so does */
    printf("module %s\n", p == MAP_FAILED ? "not mapped" : "mapped");
    if (pwrite(fd, bytes, 1, 0) != 1 || futimens(fd, (struct timespec[2]){{1, 1}, {1, 1}}) < 0)
        printf("cannot be written\n");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*body)(void);
    } cases[] = {
        {"use_gs", use_gs},
        {"set_gs", set_gs},
        {"write_gs", write_gs},
        {"call_32bit", call_32bit},
        {"jump_far", jump_far},
        {"branch16", branch16},
        {"not_canonical", not_canonical},
        {"map_over", map_over},
        {"told", map_over_told},
        {"map_over_arena", map_over_arena},
        {"child_ends", child_ends},
        {"process_options", process_options},
        {"filter_long", filter_long},
        {"filter_strict", filter_strict},
        {"change_root", change_root},
        {"lock_memory", lock_memory},
        {"open_self", open_self},
        {"nameless", nameless},
        {"read_smaps", read_smaps},
        {"registers", registers},
        {"read_other_maps", read_other_maps},
        {"held_signal", held_signal},
        {"write_other", write_other},
        {"narrow_environment", narrow_environment},
        {"private_code", private_code},
        {"shared_code", shared_code},
        {"code_and_later_reads", code_and_later_reads},
        {"rewritten_module", rewritten_module},
        {"blocked", blocked},
        {"blocked_child", blocked_child},
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    with_tool = argc > 2;
    for (size_t i = 0; argc >= 2 && i < sizeof cases / sizeof *cases; i++)
        if (!strcmp(argv[1], cases[i].name)) {
            cases[i].body();
            return 0;
        }
    return 91;
}
