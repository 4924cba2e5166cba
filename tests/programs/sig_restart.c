/* SPDX-License-Identifier: Apache-2.0
 *
 * A read on a pipe under signals: EINTR without SA_RESTART, restarted with it; nanosleep, select, sigsuspend and pause always
 * end.
 */
#include "check.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/select.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int ends[2];
static volatile sig_atomic_t ticks, write_at;

static void on_tick(int signal)
{
    (void)signal;
    if (++ticks == write_at && write(ends[1], "x", 1) != 1)
        _exit(99);
}

static void start(int flags)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = on_tick;
    sa.sa_flags = flags;
    sigaction(SIGALRM, &sa, NULL);
    struct itimerval timer = {{0, 3000}, {0, 3000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

int main(void)
{
    char c = 0;
    CHECK(pipe(ends) == 0);
    start(0);
    for (int i = 0; i < 10; i++)
        CHECK(read(ends[0], &c, 1) == -1 && errno == EINTR);
    start(SA_RESTART);
    for (int i = 0; i < 5; i++) {
        ticks = 0;
        write_at = 3;
        ssize_t n = read(ends[0], &c, 1);
        CHECK(n == 1 && c == 'x' && ticks >= 3);
    }
    write_at = -1;
    struct timespec sleep = {100, 0}, left = {0, 0};
    CHECK(nanosleep(&sleep, &left) == -1 && errno == EINTR && left.tv_sec == 99);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    CHECK(select(ends[0] + 1, &set, NULL, NULL, NULL) == -1 && errno == EINTR);
    CHECK(pause() == -1 && errno == EINTR);
    sigset_t empty;
    sigemptyset(&empty);
    CHECK(sigsuspend(&empty) == -1 && errno == EINTR);
    return check_end("sig_restart");
}
