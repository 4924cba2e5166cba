/* SPDX-License-Identifier: Apache-2.0
 *
 * Stopping and continuing, job control on a terminal, ptrace by the guest, core dumps.
 */
#include "subcases.h"
#include <elf.h>
#include <pthread.h>
#include <pty.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <termios.h>

static int status;

static void show_wait(pid_t pid, int options)
{
    pid_t got = waitpid(pid, &status, options);
    if (got == pid)
        print_status("wait", status);
    else
        printf("wait: %d error %d\n", got, errno);
}

SUBCASE(stops_itself)
{
    static const int stops[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    for (int i = 0; i < 4; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            raise(stops[i]);
            for (;;)
                pause();
        }
        show_wait(pid, WUNTRACED);
        kill(pid, SIGCONT);
        show_wait(pid, WCONTINUED);
        kill(pid, SIGTERM);
        show_wait(pid, 0);
    }
}

static volatile int seen;
static void say(int sig)
{
    static const char text[] = "handler for continue\n";
    (void)sig;
    seen++;
    MUST(write(1, text, sizeof text - 1) > 0);
}

SUBCASE(continue_handler)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGCONT, say);
        raise(SIGSTOP);
        while (!seen)
            sleep_ms(1);
        _exit(seen);
    }
    show_wait(pid, WUNTRACED);
    kill(pid, SIGCONT);
    show_wait(pid, 0);
}

SUBCASE(stopped_while_computing)
{
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        for (volatile unsigned n = 0;; n++)
            ;
    }
    for (int i = 0; i < 5; i++) {
        kill(pid, SIGSTOP);
        show_wait(pid, WUNTRACED);
        kill(pid, SIGCONT);
        show_wait(pid, WCONTINUED);
    }
    kill(pid, SIGTERM);
    show_wait(pid, 0);
}

static void *spin(void *argument)
{
    for (volatile int i = 0;; i++)
        ;
    return argument;
}

SUBCASE(stopped_with_threads)
{
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, spin, NULL);
        pthread_create(&thread, NULL, spin, NULL);
        sleep_ms(20);
        raise(SIGSTOP);
        _exit(5);
    }
    show_wait(pid, WUNTRACED);
    kill(pid, SIGCONT);
    show_wait(pid, 0);
}

/* ---- a terminal ---- */

static void on_terminal(void (*child)(void), const char *typed)
{
    char text[4096];
    int master;
    size_t n = 0;
    ssize_t got;
    fflush(stdout);
    pid_t pid = forkpty(&master, NULL, NULL, NULL);
    if (pid == 0) {
        struct termios t;
        tcgetattr(0, &t);
        t.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(0, TCSANOW, &t);
        setvbuf(stdout, NULL, _IONBF, 0);
        child();
        exit(0);
    }
    while (n < 6 && (got = read(master, text + n, sizeof text - n)) > 0) /* "ready\n" */
        n += (size_t)got;
    MUST(write(master, typed, strlen(typed)) == (ssize_t)strlen(typed));
    while (n < sizeof text - 1 && (got = read(master, text + n, sizeof text - n)) > 0)
        n += (size_t)got;
    for (size_t i = 0; i < n; i++)
        if (text[i] != '\r')
            putchar(text[i] == 4 ? '#' : text[i]);
    show_wait(pid, 0);
}

static void read_line(void)
{
    char line[100];
    printf("ready\n");
    printf("%s", fgets(line, sizeof line, stdin) ? line : "end of file\n");
}

SUBCASE(terminal_line)
{
    on_terminal(read_line, "some words\n");
}

SUBCASE(terminal_end_of_file)
{
    on_terminal(read_line, "\004");
}

SUBCASE(terminal_interrupt)
{
    on_terminal(read_line, "\003");
}

SUBCASE(terminal_quit)
{
    on_terminal(read_line, "\034");
}

static void own_group(void)
{
    pid_t pid = fork();
    signal(SIGTTOU, SIG_IGN);
    if (pid == 0) {
        setpgid(0, 0);
        tcsetpgrp(0, getpid());
        signal(SIGTTOU, SIG_DFL);
        char line[100];
        printf("ready\n");
        printf("foreground read %s\n", fgets(line, sizeof line, stdin) ? "a line" : "nothing");
        exit(7);
    }
    waitpid(pid, &status, WUNTRACED);
    print_status("job", status);
    tcsetpgrp(0, getpgrp());
    kill(-pid, SIGKILL);
    waitpid(pid, &status, 0);
    print_status("job", status);
}

SUBCASE(terminal_suspend)
{
    on_terminal(own_group, "\032");
}

static void background(void)
{
    printf("ready\n");
    pid_t pid = fork();
    if (pid == 0) {
        char c;
        setpgid(0, 0);
        exit(read(0, &c, 1) == 1);
    }
    setpgid(pid, pid);
    waitpid(pid, &status, WUNTRACED);
    print_status("background read", status);
    kill(-pid, SIGKILL);
}

SUBCASE(terminal_background_read)
{
    on_terminal(background, "");
}

static void shell(void)
{
    printf("ready\n");
    execl("/bin/bash", "bash", "--norc", "-c",
          "exec 2>/dev/null; set -m; sleep 20 & kill -STOP %1; while jobs %1 | grep -q Running; do sleep 0.01; done; jobs %1 | "
          "cut -c1-16; kill -KILL %1; "
          "wait %1 >/dev/null; wait %1 >/dev/null; "
          "read -r line; echo \"line $line\"; stty -a | grep -c isig",
          NULL);
}

SUBCASE(terminal_shell)
{
    on_terminal(shell, "words\n");
}

static void sizes(void)
{
    struct winsize w = {33, 77, 0, 0};
    signal(SIGWINCH, say);
    ioctl(0, TIOCSWINSZ, &w);
    for (int i = 0; i < 100 && !seen; i++)
        sleep_ms(2);
    struct termios t;
    tcgetattr(0, &t);
    printf("ready\n");
    printf("echo %d, tty %d\n", (t.c_lflag & ECHO) != 0, isatty(0));
}

SUBCASE(terminal_size)
{
    on_terminal(sizes, "");
}

/* The child may print as soon as it goes on: what the call gave is shown when it has stopped. */
static void go_on(pid_t pid)
{
    errno = 0;
    long went = ptrace(PTRACE_CONT, pid, NULL, NULL);
    int number = errno;
    show_wait(pid, 0);
    printf("went on: %ld, errno %d\n", went, number);
}

/* ---- ptrace ---- */

SUBCASE(traced_exec)
{
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execl("/bin/true", "true", NULL);
    }
    show_wait(pid, 0);
    go_on(pid);
}

SUBCASE(traced_signals)
{
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        signal(SIGUSR1, say);
        raise(SIGSTOP);
        raise(SIGUSR1);
        raise(SIGUSR2);
        _exit(seen);
    }
    show_wait(pid, 0);
    go_on(pid); /* USR1: let it have it */
    MUST(ptrace(PTRACE_CONT, pid, NULL, SIGUSR1) == 0);
    show_wait(pid, 0); /* USR2: take it away */
    SHOW(ptrace(PTRACE_CONT, pid, NULL, 0));
    show_wait(pid, 0);
}

/* mov eax,5; ret: of the program itself; the same written to a page. */
__asm__(".pushsection .text\n .balign 16\n traced_answer: movl $5, %eax\n ret\n .balign 16\n .popsection");
int traced_answer(void);
static int (*traced_page)(void);

static int stopped_child(void)
{
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, (void *)traced_answer, 16);
    MUST(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
    traced_page = (int (*)(void))(void *)page;
    int pid = fork();
    if (pid == 0) {
        printf("before %d %d\n", traced_answer(), traced_page());
        fflush(stdout);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        printf("after %d %d\n", traced_answer(), traced_page());
        fflush(stdout);
        raise(SIGSTOP);
        _exit(traced_answer() + traced_page());
    }
    show_wait(pid, 0);
    return pid;
}

static long poke(pid_t pid, int (*function)(void), unsigned char *bytes, size_t n)
{
    long word = ptrace(PTRACE_PEEKTEXT, pid, (void *)function, NULL);
    memcpy(&word, bytes, n);
    return ptrace(PTRACE_POKETEXT, pid, (void *)function, (void *)word);
}

SUBCASE(traced_code_rewritten)
{
    unsigned char code[] = {0xb8, 6, 0, 0, 0};
    pid_t pid = stopped_child();
    SHOW(poke(pid, traced_answer, code, 5));
    code[1] = 7;
    SHOW(poke(pid, traced_page, code, 5));
    go_on(pid);
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    int fd = open(path, O_RDWR);
    code[1] = 8;
    SHOW(pwrite(fd, code, 5, (off_t)(uintptr_t)traced_answer));
    code[1] = 9;
    SHOW(pwrite(fd, code, 5, (off_t)(uintptr_t)traced_page));
    go_on(pid);
}

/* A switch: traced_switch(0) is 10, (1) is 11, .. */
int traced_switch(int i);
extern int32_t traced_table[2];
__asm__(".text\n\t.globl traced_switch\n\t.type traced_switch, @function\n"
        "traced_switch:\n\tcmpl $3, %edi\n\tja 9f\n\tmovl %edi, %edi\n\tlea traced_table(%rip), %rdx\n\tmovslq (%rdx,%rdi,4), "
        "%rax\n\t"
        "addq %rdx, %rax\n\tjmp *%rax\n"
        "1:\tmovl $10, %eax\n\tret\n2:\tmovl $11, %eax\n\tret\n3:\tmovl $12, %eax\n\tret\n4:\tmovl $13, %eax\n\tret\n9:\tmovl "
        "$9, %eax\n\tret\n"
        "\t.size traced_switch, . - traced_switch\n\t.section .rodata\n\t.balign 8\n\t.globl traced_table\n"
        "traced_table:\t.long 1b - traced_table, 2b - traced_table, 3b - traced_table, 4b - traced_table\n\t.text\n");

/* In memory that is only read: the code may have taken it for constant. */
SUBCASE(traced_table_rewritten)
{
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        for (int i = 0; i < 2; i++) {
            printf("%d %d %d %d\n", traced_switch(0), traced_switch(1), traced_switch(3), traced_switch(4));
            fflush(stdout);
            raise(SIGSTOP);
        }
        _exit(0);
    }
    show_wait(pid, 0);
    uint64_t word = (uint64_t)ptrace(PTRACE_PEEKDATA, pid, traced_table, NULL);
    SHOW(ptrace(PTRACE_POKEDATA, pid, traced_table, (void *)(word << 32 | word >> 32)));
    MUST(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
    show_wait(pid, 0);
    MUST(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
    show_wait(pid, 0);
}

/* A breakpoint where the child has run already. */
SUBCASE(traced_breakpoint)
{
    unsigned char trap = 0xcc;
    pid_t pid = stopped_child();
    SHOW(poke(pid, traced_answer, &trap, 1));
    go_on(pid);
    SHOW(kill(pid, SIGKILL));
    show_wait(pid, 0);
}

/* Not traced: the child waits in a system call. */
SUBCASE(code_rewritten_from_outside)
{
    int ends[2];
    char byte;
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, (void *)traced_answer, 16);
    MUST(pipe(ends) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        int first = ((int (*)(void))(void *)page)();
        prctl(PR_SET_PTRACER, getppid());
        raise(SIGSTOP);
        MUST(read(ends[0], &byte, 1) == 1);
        _exit(first * 10 + ((int (*)(void))(void *)page)());
    }
    show_wait(pid, WUNTRACED);
    kill(pid, SIGCONT);
    int value = 8;
    struct iovec mine = {&value, 1}, theirs = {page + 1, 1};
    SHOW(process_vm_writev(pid, &mine, 1, &theirs, 1, 0));
    MUST(write(ends[1], "x", 1) == 1);
    show_wait(pid, 0);
}

static int traced_value = 1234;

SUBCASE(traced_memory)
{
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        _exit(traced_value & 127);
    }
    show_wait(pid, 0);
    SHOW((int)ptrace(PTRACE_PEEKDATA, pid, &traced_value, NULL));
    long word = ptrace(PTRACE_PEEKDATA, pid, &traced_value, NULL);
    SHOW(ptrace(PTRACE_POKEDATA, pid, &traced_value, (void *)((word & ~0xffffffffl) | 77)));
    int copy = 0;
    struct iovec mine = {&copy, 4}, theirs = {&traced_value, 4};
    SHOW(process_vm_readv(pid, &mine, 1, &theirs, 1, 0));
    printf("copy %d\n", copy);
    go_on(pid);
}

/* The numbers of the calls that it makes itself. */
SUBCASE(traced_system_calls)
{
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        syscall(SYS_getppid);
        syscall(SYS_sched_yield);
        syscall(SYS_getuid);
        _exit(3);
    }
    waitpid(pid, &status, 0);
    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
    int calls[3] = {0, 0, 0};
    for (;;) {
        struct user_regs_struct r;
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
        waitpid(pid, &status, 0);
        if (!WIFSTOPPED(status))
            break;
        if (WSTOPSIG(status) != (SIGTRAP | 0x80) || ptrace(PTRACE_GETREGS, pid, NULL, &r) < 0)
            continue;
        calls[0] += r.orig_rax == SYS_getppid;
        calls[1] += r.orig_rax == SYS_sched_yield;
        calls[2] += r.orig_rax == SYS_getuid;
    }
    printf("%d %d %d\n", calls[0], calls[1], calls[2]); /* at entry and exit each */
    print_status("end", status);
}

SUBCASE(traced_forks)
{
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        if (fork() == 0)
            _exit(1);
        wait(NULL);
        _exit(2);
    }
    waitpid(pid, &status, 0);
    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL));
    ptrace(PTRACE_CONT, pid, NULL, NULL);
    int forks = 0, exits = 0, left = 2;
    while (left > 0) {
        pid_t got = waitpid(-1, &status, __WALL);
        if (got < 0)
            break;
        if (!WIFSTOPPED(status)) {
            left--;
            continue;
        }
        forks += status >> 16 == PTRACE_EVENT_FORK;
        exits += status >> 16 == PTRACE_EVENT_EXIT;
        int sig = status >> 16 || WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status);
        ptrace(PTRACE_CONT, got, NULL, (void *)(long)sig);
    }
    printf("forks %d exits %d\n", forks, exits);
}

SUBCASE(attached)
{
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    SHOW(ptrace(PTRACE_SEIZE, pid, NULL, NULL));
    SHOW(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL));
    show_wait(pid, 0);
    SHOW(ptrace(PTRACE_DETACH, pid, NULL, NULL));
    kill(pid, SIGKILL);
    show_wait(pid, 0);
}

SUBCASE(strace_of_a_program)
{
    if (access("/usr/bin/strace", X_OK) == 0)
        execl("/usr/bin/strace", "strace", "-f", "-qq", "-e", "trace=openat", "-e", "signal=none", "-P", "/etc/hostname", "-o",
              "trace", "cat", "/etc/hostname", NULL);
}

/* ---- core dumps ---- */

static void dump(const char *what, int sig, rlim_t bytes)
{
    struct rlimit limit = {bytes, bytes};
    pid_t pid = fork();
    if (pid == 0) {
        if (setrlimit(RLIMIT_CORE, &limit) < 0)
            _exit(66);
        prctl(PR_SET_DUMPABLE, sig == SIGABRT ? 0 : 1);
        raise(sig);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    print_status(what, status);
}

SUBCASE(core_dumped)
{
    dump("allowed", SIGQUIT, 64 << 20);
    dump("fault", SIGSEGV, 64 << 20);
    dump("not allowed", SIGQUIT, 0);
    dump("not dumpable", SIGABRT, 64 << 20);
    dump("no core signal", SIGTERM, 64 << 20);
}

SUBCASE(core_of_a_fault)
{
    struct rlimit limit = {64 << 20, 64 << 20};
    pid_t pid = fork();
    if (pid == 0) {
        if (setrlimit(RLIMIT_CORE, &limit) == 0)
            *(volatile char *)(uintptr_t)(seen + 16) = 0;
        _exit(66);
    }
    show_wait(pid, 0);
}
