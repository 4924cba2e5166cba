/* SPDX-License-Identifier: Apache-2.0
 *
 * seccomp filters of the program's own: what it forbids is forbidden, what it does not know of goes on working.
 */
#include "check.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *text)
{
    if (write(1, text, strlen(text)) < 0)
        _exit(99);
}

/* Allows write and exit_group; ACTION for the rest. */
static void install(unsigned action)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, action),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(98);
}

static void strict(void)
{
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
        _exit(98);
    say("strict\n");
    syscall(SYS_exit, 0);
}

static void kills(void)
{
    install(SECCOMP_RET_KILL_PROCESS);
    char text[40];
    snprintf(text, sizeof text, "code not run before: %.3f\n", 1.5);
    say(text);
    getppid();
    say("not reached\n");
}

static void refuses(void)
{
    install(SECCOMP_RET_ERRNO | EPERM);
    say(getppid() == -1 && errno == EPERM ? "getppid refused\n" : "getppid allowed\n");
    say(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? "mmap refused\n" : "mmap allowed\n");
    say(fork() == -1 ? "fork refused\n" : "fork allowed\n");
    _exit(4);
}

static void traps(void)
{
    install(SECCOMP_RET_TRAP);
    getppid();
    say("not reached\n");
}

static void run(void (*body)(void))
{
    pid_t child = fork();
    if (child == 0) {
        body();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("status %x\n", status & 0xff7f);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    run(strict);
    run(kills);
    run(refuses);
    run(traps);
    return check_end("filters");
}
