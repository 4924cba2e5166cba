/* SPDX-License-Identifier: Apache-2.0
 *
 * A child's exec under a limit of this process.
 */
#ifndef LIMITED_H
#define LIMITED_H

#include "subcases.h"
#include <sys/resource.h>
#include <sys/wait.h>

static void limited(int resource, rlim_t value)
{
    struct rlimit limit = {value, value};
    SHOW(setrlimit((__rlimit_resource_t)resource, &limit));
    char *argv[] = {"sh", "-c", "echo in the limit; exit 3", NULL};
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execv("/bin/sh", argv);
        _exit(100);
    }
    int status;
    waitpid(pid, &status, 0);
    print_status("limited", status);
}

#endif
