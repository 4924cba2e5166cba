/* SPDX-License-Identifier: Apache-2.0
 *
 * main() of everything that runs under glibc: `bdbi run` never gets here, the core keeps it to itself. One program, told apart
 * by its name or its first argument:
 *
 *   bdbi-warm ...                  warm       bdbi-jit   the translator inside a guest's process (translator.c)
 *   bdbi warm|learn|cache|help     the host's command lines
 */
#include "launcher/host.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int translator_main(int argc, char **argv); /* launcher/translator.c */

static const char usage[] = "usage: bdbi COMMAND ...\n"
                            "  run [options] [--] PROG ARGS...  run PROG under translation\n"
                            "  warm [options] PROG              translate PROG ahead of time (also: bdbi-warm)\n"
                            "  learn                            add what earlier runs missed to the cache\n"
                            "  cache                            list what the cache holds, or check it\n"
                            "  help, --version\n"
                            "bdbi COMMAND --help says more.\n";

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The learner is started without descriptors: without this the cache's data file would become stderr. */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) {
            continue;
        }
        if (open("/dev/null", O_RDWR) < 0 && memfd_create("null", 0) < 0) {
            return;
        }
    }
}

static int run_command(int argc, char **argv)
{
    const char *command = argv[0];
    if (strcmp(command, "warm") == 0) {
        return warm_main(argc, argv);
    }
    if (strcmp(command, "learn") == 0) {
        return learn_main(argc, argv);
    }
    if (strcmp(command, "cache") == 0) {
        return cache_main(argc, argv);
    }
    if (strcmp(command, "help") == 0 || strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0) {
        fputs(usage, stdout);
        return HOST_OK;
    }
    if (strcmp(command, "--version") == 0) {
        puts("bdbi " HOST_VERSION);
        return HOST_OK;
    }
    host_say("bdbi", "unknown command '%s': see bdbi help", command);
    return HOST_FAILED;
}

int main(int argc, char **argv)
{
    const char *name = argc > 0 ? base_name(argv[0]) : "bdbi";
    if (strcmp(name, "bdbi-jit") == 0) {
        return translator_main(argc, argv);
    }
    fill_standard_descriptors();
    if (strcmp(name, "bdbi-warm") == 0) {
        return warm_main(argc, argv);
    }
    if (argc < 2) {
        host_say("bdbi", "no command given: see bdbi help");
        return HOST_FAILED;
    }
    return run_command(argc - 1, argv + 1);
}
