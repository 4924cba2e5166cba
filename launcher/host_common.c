/* SPDX-License-Identifier: Apache-2.0
 *
 * What the host's command lines share: options, the cache directory, words and numbers for people.
 */
#include "launcher/host.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void host_say(const char *command, const char *format, ...)
{
    char line[HOST_MESSAGE_BYTES + 256];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    fprintf(stderr, "%s: %s\n", command, line);
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static char *joined(const char *a, const char *b)
{
    char *path = malloc(strlen(a) + strlen(b) + 1);
    if (path) {
        strcpy(path, a);
        strcat(path, b);
    }
    return path;
}

char *host_cache_directory(const char *option)
{
    const char *dir = option ? option : environment("BDBI_CACHE");
    if (dir) {
        return joined(dir, "");
    }
    if ((dir = environment("XDG_CACHE_HOME"))) {
        return joined(dir, "/bdbi");
    }
    dir = environment("HOME");
    return dir ? joined(dir, "/.cache/bdbi") : NULL;
}

char *host_cache_choose(const char *command, const char *option)
{
    char *dir = option && !*option ? NULL : host_cache_directory(option);
    if (!dir) {
        host_say(command, "no cache directory: give --cache DIR, or set BDBI_CACHE or HOME");
    }
    return dir;
}

struct cachedb *host_cache_open(const char *command, const char *dir, unsigned flags)
{
    char message[HOST_MESSAGE_BYTES];
    struct cachedb *db = NULL;
    if (cachedb_open(dir, flags, &db, message, sizeof message) != 0) {
        host_say(command, "%s", message);
        return NULL;
    }
    if (*message) {
        host_say(command, "%s", message);
    }
    return db;
}

const char *host_option_value(const char *command, int argc, char **argv, int *at, const char *name)
{
    const char *arg = argv[*at];
    size_t n = strlen(name);
    if (strncmp(arg, name, n) != 0 || (arg[n] != '\0' && arg[n] != '=')) {
        return NULL;
    }
    if (arg[n] == '=') {
        return arg + n + 1;
    }
    if (*at + 1 >= argc) {
        host_say(command, "%s needs a value: see %s --help", name, command);
        exit(HOST_FAILED);
    }
    return argv[++*at];
}

unsigned host_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > 0 ? (unsigned)n : 1;
}

double host_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

const char *host_size(uint64_t bytes, char text[32])
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    double n = (double)bytes;
    unsigned unit = 0;
    for (; n >= 1000 && unit < 4; unit++) {
        n /= 1000;
    }
    snprintf(text, 32, unit == 0 || n >= 100 ? "%.0f %s" : "%.1f %s", n, units[unit]);
    return text;
}
