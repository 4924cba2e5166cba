/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs a command and keeps /proc/PID/smaps of every process of it as it is at the process's end, without any waiting: ptrace
 * stops each process on its way out while its memory is still there.
 *
 *   at_exit FOLDER PROG ARGS...    FOLDER/PID.smaps per process; the exit status is PROG's
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void keep_smaps(const char *folder, pid_t pid)
{
    char name[64], target[4096], text[65536];
    snprintf(name, sizeof name, "/proc/%d/smaps", pid);
    snprintf(target, sizeof target, "%s/%d.smaps", folder, pid);
    FILE *in = fopen(name, "r");
    if (in == NULL)
        return; /* a thread that is not the leader, or already gone */
    FILE *out = fopen(target, "w");
    if (out == NULL) {
        perror(target);
        exit(125);
    }
    size_t n;
    while ((n = fread(text, 1, sizeof text, in)) > 0)
        fwrite(text, 1, n, out);
    fclose(in);
    fclose(out);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: at_exit FOLDER PROG ARGS...\n");
        return 125;
    }
    pid_t first = fork();
    if (first == 0) {
        raise(SIGSTOP);
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    int status, first_status = 0;
    waitpid(first, &status, WUNTRACED);
    long options = PTRACE_O_TRACEEXIT | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SEIZE, first, NULL, (void *)options) < 0) {
        perror("PTRACE_SEIZE");
        kill(first, SIGKILL);
        return 125;
    }
    kill(first, SIGCONT);
    for (;;) {
        pid_t tid = waitpid(-1, &status, __WALL);
        if (tid < 0 && errno == EINTR)
            continue;
        if (tid < 0)
            break; /* nobody left */
        if (!WIFSTOPPED(status)) {
            if (tid == first)
                first_status = status;
            continue;
        }
        int event = status >> 16, signal = WSTOPSIG(status);
        if (event == PTRACE_EVENT_EXIT)
            keep_smaps(argv[1], tid);
        if (event == PTRACE_EVENT_STOP && (signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU))
            ptrace(PTRACE_LISTEN, tid, NULL, NULL);
        else
            ptrace(PTRACE_CONT, tid, NULL, (void *)(long)(event == 0 ? signal : 0));
    }
    return WIFSIGNALED(first_status) ? 128 + WTERMSIG(first_status) : WEXITSTATUS(first_status);
}
