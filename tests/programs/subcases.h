/* SPDX-License-Identifier: Apache-2.0
 *
 * Many small cases in one program, each in a process of its own. A case is a function that prints what it observes:
 *
 *      SUBCASE(name) { printf("...\n"); }
 *
 *   PROGRAM           all cases, each as "== NAME", its output, and how its process ended if not with exit(0)
 *   PROGRAM NAME...   only these
 *   PROGRAM --list    the names
 *
 * diff.py compares case by case (key `subcases`). A case that hangs is killed after SUBCASE_SECONDS. A program that also plays
 * other roles (what its cases execute) defines subcase_role, which returns the exit status, or negative: no role.
 */
#ifndef SUBCASES_H
#define SUBCASES_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SUBCASE_SECONDS
#define SUBCASE_SECONDS 20
#endif

int subcase_role(int argc, char **argv) __attribute__((weak));

static struct subcase {
    const char *name;
    void (*body)(void);
} subcases[200];
static int subcase_count;
static char subcase_self[PATH_MAX]; /* this program's file */

#define SUBCASE(id)                                                                                                            \
    static void id(void);                                                                                                      \
    __attribute__((constructor)) static void add_##id(void)                                                                    \
    {                                                                                                                          \
        subcases[subcase_count++] = (struct subcase){#id, id};                                                                 \
    }                                                                                                                          \
    static void id(void)

/* One line: the expression's value, or the error's number. */
#define SHOW(expression)                                                                                                       \
    do {                                                                                                                       \
        errno = 0;                                                                                                             \
        long show_value = (long)(expression);                                                                                  \
        if (show_value == -1 && errno)                                                                                         \
            printf("%s: error %d\n", #expression, errno);                                                                      \
        else                                                                                                                   \
            printf("%s: %ld\n", #expression, show_value);                                                                      \
    } while (0)

/* A set-up step that must work. */
#define MUST(condition)                                                                                                        \
    do {                                                                                                                       \
        if (!(condition)) {                                                                                                    \
            printf("line %d: %s failed, error %d\n", __LINE__, #condition, errno);                                             \
            exit(90);                                                                                                          \
        }                                                                                                                      \
    } while (0)

static inline void print_status(const char *what, int status)
{
    if (WIFEXITED(status))
        printf("%s: exit %d\n", what, WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        printf("%s: signal %d%s\n", what, WTERMSIG(status), WCOREDUMP(status) ? ", core" : "");
    else if (WIFSTOPPED(status))
        printf("%s: stopped by %d, event %d\n", what, WSTOPSIG(status), status >> 16);
    else
        printf("%s: continued\n", what);
}

/* Runs BODY in a child and says how it ended. */
static inline void in_child(const char *what, void (*body)(void))
{
    int status = -1;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        body();
        fflush(stdout);
        _exit(0);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    print_status(what, status);
}

static inline void sleep_ms(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&t, &t) < 0 && errno == EINTR)
        ;
}

static void subcase_run(const struct subcase *c)
{
    int status = 0;
    sigset_t child_signal;
    struct timespec limit = {SUBCASE_SECONDS, 0};
    printf("== %s\n", c->name);
    fflush(stdout);
    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_signal, NULL);
    pid_t child = fork();
    if (child == 0) {
        sigprocmask(SIG_UNBLOCK, &child_signal, NULL);
        setpgid(0, 0);
        c->body();
        exit(0);
    }
    setpgid(child, child);
    pid_t ended = 0;
    while ((ended = waitpid(child, &status, WNOHANG)) == 0)
        if (sigtimedwait(&child_signal, NULL, &limit) < 0 && errno == EAGAIN && waitpid(child, &status, WNOHANG) == 0) {
            printf("no end after %d s\n", SUBCASE_SECONDS);
            kill(-child, SIGKILL);
            waitpid(child, &status, 0);
            break;
        }
    kill(-child, SIGKILL); /* whatever it has left */
    if (status)
        print_status("ended", status);
    fflush(stdout);
}

static int subcase_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], name))
            return 1;
    return argc <= 1;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    int status = subcase_role ? subcase_role(argc, argv) : -1;
    if (status >= 0)
        return status;
    if (readlink("/proc/self/exe", subcase_self, sizeof subcase_self - 1) < 0)
        return 91;
    if (argc > 1 && !strcmp(argv[1], "--list")) {
        for (int i = 0; i < subcase_count; i++)
            puts(subcases[i].name);
        return 0;
    }
    for (int i = 0; i < subcase_count; i++)
        if (subcase_wanted(subcases[i].name, argc, argv))
            subcase_run(&subcases[i]);
    puts("== end");
    return 0;
}

#endif
