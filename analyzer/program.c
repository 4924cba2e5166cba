/* SPDX-License-Identifier: Apache-2.0
 *
 * From what the user typed to what the kernel will execute: the search in PATH as execvp does it, and "#!" lines as the kernel
 * reads them ("#! INTERPRETER [ONE ARGUMENT]", 256 bytes at most), with `env [-S] [options] [A=B ...] PROGRAM` looked through.
 */
#include "analyzer/search.h"
#include "internal/error.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SCRIPT_LINE_BYTES = 256 };

static int check_program(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return errno == EACCES ? -BDBI_EACCES : -BDBI_ENOENT;
    if (S_ISDIR(st.st_mode))
        return -BDBI_EINVAL;
    return S_ISREG(st.st_mode) && access(path, X_OK) == 0 ? 0 : -BDBI_EACCES;
}

static char *absolute(const char *path)
{
    char *result = NULL, *cwd = *path == '/' ? NULL : getcwd(NULL, 0);
    if (*path == '/')
        return strdup(path);
    while (strncmp(path, "./", 2) == 0 && path[2] != '/')
        path += 2;
    if (!cwd || asprintf(&result, "%s/%s", cwd[1] ? cwd : "", path) < 0)
        result = NULL;
    free(cwd);
    return result;
}

/* PROG in the directories of LIST. */
static int search_path(const char *list, const char *prog, char **path)
{
    int error = -BDBI_ENOENT;
    for (;;) {
        size_t n = strcspn(list, ":");
        char *candidate;
        if (asprintf(&candidate, "%.*s%s%s", (int)n, list, n ? "/" : "./", prog) < 0)
            return -BDBI_ENOMEM;
        int found = check_program(candidate);
        if (found == 0)
            *path = absolute(candidate);
        free(candidate);
        if (found == 0)
            return *path ? 0 : -BDBI_ENOMEM;
        if (found == -BDBI_EACCES)
            error = found;
        if (!list[n])
            return error;
        list += n + 1;
    }
}

int closure_find_program(const char *prog, char **path)
{
    *path = NULL;
    if (!*prog)
        return -BDBI_ENOENT;
    if (!strchr(prog, '/')) {
        const char *list = getenv("PATH");
        return search_path(list ? list : "/bin:/usr/bin", prog, path);
    }
    int error = check_program(prog);
    if (error)
        return error;
    *path = absolute(prog);
    return *path ? 0 : -BDBI_ENOMEM;
}

/* The first line of PATH behind its "#!", without the newline; false when PATH is not a script. */
static bool script_line(const char *path, char *line)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t n = fd < 0 ? -1 : read(fd, line, SCRIPT_LINE_BYTES - 1);
    if (fd >= 0)
        close(fd);
    if (n < 2 || line[0] != '#' || line[1] != '!')
        return false;
    line[n] = 0;
    line[strcspn(line, "\n")] = 0;
    memmove(line, line + 2, strlen(line + 2) + 1);
    return true;
}

/* The program that env's arguments name (inside ARGUMENTS), or NULL. */
static char *env_program(char *arguments)
{
    char *state = NULL;
    for (char *word = strtok_r(arguments, " \t", &state); word; word = strtok_r(NULL, " \t", &state)) {
        if (strncmp(word, "-S", 2) == 0 && word[2])
            word += 2;
        else if (strcmp(word, "-u") == 0 || strcmp(word, "-C") == 0) {
            strtok_r(NULL, " \t", &state);
            continue;
        }
        if (*word != '-' && !strchr(word, '='))
            return word;
    }
    return NULL;
}

int program_script(const char *path, struct script *out)
{
    char line[SCRIPT_LINE_BYTES];
    memset(out, 0, sizeof *out);
    if (!script_line(path, line))
        return 0;
    char *interpreter = line + strspn(line, " \t");
    char *argument = interpreter + strcspn(interpreter, " \t");
    if (*argument)
        *argument++ = 0;
    out->programs[0] = strdup(interpreter);
    if (!out->programs[0])
        return -BDBI_ENOMEM;
    const char *slash = strrchr(interpreter, '/');
    if (strcmp(slash ? slash + 1 : interpreter, "env") != 0)
        return 1;
    char *program = env_program(argument);
    int error = program ? closure_find_program(program, &out->programs[1]) : 0;
    if (error) {
        free(out->programs[0]);
        memset(out, 0, sizeof *out);
        return error;
    }
    return 1;
}
