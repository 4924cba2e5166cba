/* SPDX-License-Identifier: Apache-2.0
 *
 * The closure of a program.
 *
 *   closure_test ldd MAX            the same objects as ldd says, for up to MAX programs of /usr/bin, evenly picked
 *   closure_test search DIRECTORY   fixtures: RPATH and RUNPATH, $ORIGIN, glibc-hwcaps, LD_LIBRARY_PATH, LD_PRELOAD; against
 * ldd closure_test scripts            #! lines, PATH, env closure_test add DIRECTORY      closure_add of globs and directories
 *   closure_test cache              /etc/ld.so.cache, whole, truncated and mutated
 */
#include "analyzer/analyzer.h"
#include "analyzer/ldcache.h"
#include "check.h"
#include "internal/error.h"
#include <glob.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_NAMES = 500 };

struct names {
    char *items[MAX_NAMES];
    int n;
};

static char message[PATH_MAX];

static void add(struct names *l, const char *prefix, const char *name)
{
    CHECK(l->n < MAX_NAMES, "too many names");
    CHECK(asprintf(&l->items[l->n++], "%s%s", prefix, name) > 0, "out of memory");
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *joined(struct names *l)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    qsort(l->items, (size_t)l->n, sizeof l->items[0], compare);
    for (int i = 0; i < l->n; i++) {
        if (!i || strcmp(l->items[i - 1], l->items[i]) != 0)
            fprintf(out, "%s\n", l->items[i]);
    }
    for (int i = 0; i < l->n; i++)
        free(l->items[i]);
    fclose(out);
    return text;
}

/* "\tlibx.so => /path (0x...)", "\t/path (0x...)", "\tlibx.so => not found". NULL: not a dynamic program. */
static char *ldd_says(const char *program)
{
    char command[PATH_MAX + 32], line[PATH_MAX], name[PATH_MAX], path[PATH_MAX];
    struct names l = {.n = 0};
    snprintf(command, sizeof command, "ldd '%s' 2>/dev/null", program);
    FILE *f = popen(command, "r");
    CHECK(f, "ldd");
    add(&l, "", program);
    while (fgets(line, sizeof line, f)) {
        if (strstr(line, "=> not found") && sscanf(line, " %s", name) == 1)
            add(&l, "missing ", name);
        else if ((sscanf(line, " %*s => %s (", path) == 1 || sscanf(line, " %s (", path) == 1) && path[0] == '/') {
            char *real = realpath(path, NULL);
            add(&l, "", real ? real : path);
            free(real);
        }
    }
    bool ok = pclose(f) == 0;
    char *text = joined(&l);
    return ok ? text : (free(text), NULL);
}

static char *we_say(const char *program)
{
    struct closure c;
    struct names l = {.n = 0};
    int error = closure_resolve(program, &c, message, sizeof message);
    CHECK(error == 0, "%d %s", error, message);
    for (uint32_t i = 0; i < c.npaths; i++)
        add(&l, "", c.paths[i]);
    for (uint32_t i = 0; i < c.nmissing; i++)
        add(&l, "missing ", c.missing[i]);
    closure_free(&c);
    return joined(&l);
}

/* Whether PROGRAM was one that ldd understands. */
static bool compare_with_ldd(const char *program)
{
    char *real = realpath(program, NULL);
    char *theirs = real ? ldd_says(real) : NULL;
    if (theirs) {
        char *ours = we_say(real);
        CHECK(strcmp(ours, theirs) == 0, "%s:\nldd:\n%sours:\n%s", program, theirs, ours);
        free(ours);
    }
    free(real);
    free(theirs);
    return theirs != NULL;
}

static bool is_elf(const char *path)
{
    char magic[4] = "";
    FILE *f = fopen(path, "rb");
    if (!f)
        return false;
    size_t n = fread(magic, 1, 4, f);
    fclose(f);
    return n == 4 && memcmp(magic, "\177ELF", 4) == 0;
}

static void test_ldd(size_t max)
{
    glob_t g;
    unsigned compared = 0;
    CHECK(glob("/usr/bin/*", 0, NULL, &g) == 0, "/usr/bin");
    for (size_t i = 0; i < g.gl_pathc; i += 1 + g.gl_pathc / max)
        if (is_elf(g.gl_pathv[i]))
            compared += compare_with_ldd(g.gl_pathv[i]);
    globfree(&g);
    printf("%u programs compared\n", compared);
    CHECK(compared > 5, "ldd does not work here?");
}

static void test_search(const char *directory)
{
    static const char *const programs[] = {"with_rpath", "with_runpath", "with_none"};
    char path[PATH_MAX], libraries[PATH_MAX], preload[PATH_MAX];
    snprintf(libraries, sizeof libraries, "/nonexistent:%s/libs/", directory);
    snprintf(preload, sizeof preload, "%s/libs/libextra.so", directory);
    for (int variant = 0; variant < 4; variant++) {
        unsetenv("LD_LIBRARY_PATH");
        unsetenv("LD_PRELOAD");
        if (variant & 1)
            setenv("LD_LIBRARY_PATH", libraries, 1);
        if (variant & 2)
            setenv("LD_PRELOAD", preload, 1);
        for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++) {
            snprintf(path, sizeof path, "%s/%s", directory, programs[i]);
            CHECK(compare_with_ldd(path), "%s", path);
        }
    }
    unsetenv("LD_LIBRARY_PATH");
    unsetenv("LD_PRELOAD");
    /* What the fixtures are for: RPATH is inherited, RUNPATH is not, better hwcaps win. */
    snprintf(path, sizeof path, "%s/with_rpath", directory);
    char *rpath = we_say(path);
    snprintf(path, sizeof path, "%s/with_runpath", directory);
    char *runpath = we_say(path);
    CHECK(!strstr(rpath, "missing") && strstr(runpath, "missing libinner.so"), "%s\n%s", rpath, runpath);
    CHECK(!hwcaps_supported()[0] || strstr(rpath, "glibc-hwcaps/x86-64-v2/libouter.so"), "%s", rpath);
    free(rpath);
    free(runpath);
}

static void write_script(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", path);
    chmod(path, 0755);
}

/* How many objects the closure of a script with TEXT has; what must be in it. */
static void expect_script(const char *path, const char *text, const char *first, const char *also)
{
    struct closure c;
    bool found = !also;
    write_script(path, text);
    int error = closure_resolve(path, &c, message, sizeof message);
    CHECK(error == 0, "%s: %d %s", text, error, message);
    char *real = realpath(first, NULL), *other = also ? realpath(also, NULL) : NULL;
    for (uint32_t i = 0; i < c.npaths; i++)
        found |= other && strcmp(c.paths[i], other) == 0;
    CHECK(strcmp(c.paths[0], real) == 0 && found && c.npaths > 2, "%s: %s ...", text, c.paths[0]);
    free(real);
    free(other);
    closure_free(&c);
}

static void test_scripts(void)
{
    char directory[] = "/tmp/bdbi-closure-XXXXXX", path[PATH_MAX], other[PATH_MAX], text[PATH_MAX + 16];
    struct closure c;
    char *found;
    CHECK(mkdtemp(directory), "mkdtemp");
    snprintf(path, sizeof path, "%s/script", directory);
    snprintf(other, sizeof other, "%s/other", directory);
    expect_script(path, "#!/bin/sh\n", "/bin/sh", NULL);
    expect_script(path, "#! \t/bin/sh -e -u\nexit", "/bin/sh", NULL);
    expect_script(path, "#!/usr/bin/env bash\n", "/usr/bin/env", "/bin/bash");
    expect_script(path, "#!/usr/bin/env -S A=1 -i bash -e\n", "/usr/bin/env", "/bin/bash");
    expect_script(other, "#!/bin/sh\n", "/bin/sh", NULL);
    snprintf(text, sizeof text, "#!%s\n", other);
    expect_script(path, text, "/bin/sh", NULL);
    write_script(path, "#!/usr/bin/env no-such-program-of-ours\n");
    CHECK(closure_resolve(path, &c, message, sizeof message) == -BDBI_ENOENT && strstr(message, "env"), "%s", message);
    snprintf(text, sizeof text, "#!%s\n", path);
    write_script(path, text);
    CHECK(closure_resolve(path, &c, message, sizeof message) == -BDBI_EFORMAT && strstr(message, "levels"), "%s", message);
    write_script(path, "no script");
    CHECK(closure_resolve(path, &c, message, sizeof message) == -BDBI_EFORMAT && strstr(message, "not an ELF"), "%s", message);

    char *old = strdup(getenv("PATH"));
    snprintf(text, sizeof text, "/nonexistent:%s", directory);
    setenv("PATH", text, 1);
    CHECK(closure_find_program("script", &found) == 0 && strcmp(found, path) == 0, "%s", found);
    free(found);
    chmod(path, 0644);
    CHECK(closure_find_program("script", &found) == -BDBI_EACCES && !found, "not executable");
    CHECK(closure_find_program("nothing", &found) == -BDBI_ENOENT, "not there");
    CHECK(closure_find_program(directory, &found) == -BDBI_EINVAL, "a directory");
    CHECK(closure_find_program("", &found) == -BDBI_ENOENT, "empty");
    setenv("PATH", old, 1);
    free(old);
    unlink(path);
    unlink(other);
    rmdir(directory);
}

static uint32_t added(const char *program, const char *what)
{
    struct closure c;
    CHECK(closure_resolve(program, &c, message, sizeof message) == 0, "%s", message);
    uint32_t before = c.npaths;
    int error = closure_add(&c, what, message, sizeof message);
    CHECK(error == 0, "%s: %d %s", what, error, message);
    uint32_t n = c.npaths - before;
    CHECK(closure_add(&c, what, message, sizeof message) == 0 && c.npaths == before + n, "%s again", what);
    for (uint32_t i = 0; i < c.npaths; i++)
        for (uint32_t k = 0; k < i; k++)
            CHECK(strcmp(c.paths[i], c.paths[k]) != 0, "%s twice", c.paths[i]);
    closure_free(&c);
    return n;
}

static void test_add(const char *directory)
{
    char program[PATH_MAX], what[PATH_MAX];
    struct closure c;
    snprintf(program, sizeof program, "%s/with_none", directory);
    snprintf(what, sizeof what, "%s/libs/libextra.so", directory);
    CHECK(added(program, what) == 1, "a file");
    snprintf(what, sizeof what, "%s/libs/lib*.so", directory);
    CHECK(added(program, what) >= 3, "a glob");
    snprintf(what, sizeof what, "%s/libs", directory);
    CHECK(added(program, what) >= 4, "a directory, with what is below");
    CHECK(closure_resolve(program, &c, message, sizeof message) == 0, "%s", message);
    CHECK(closure_add(&c, "/nonexistent/*.so", message, sizeof message) == -BDBI_ENOENT && message[0], "%s", message);
    CHECK(closure_add(&c, "/etc/passwd", message, sizeof message) == -BDBI_EFORMAT && message[0], "%s", message);
    closure_free(&c);
}

static void try_cache(const uint8_t *bytes, size_t nbytes)
{
    struct ldcache c;
    ldcache_from_memory(&c, bytes, nbytes);
    ldcache_find(&c, "libc.so.6");
    CHECK(!ldcache_find(&c, "no-such-library.so.1"), "found");
    ldcache_close(&c);
}

static void test_cache(void)
{
    struct ldcache c;
    size_t nbytes;
    uint64_t seed = 7;
    ldcache_open(&c, "/nonexistent");
    CHECK(!ldcache_find(&c, "libc.so.6"), "an empty cache");
    ldcache_open(&c, "/etc/ld.so.cache");
    if (!c.bytes)
        return;
    const char *path = ldcache_find(&c, "libc.so.6");
    CHECK(path && path[0] == '/', "libc.so.6");
    ldcache_close(&c);
    uint8_t *good = read_whole("/etc/ld.so.cache", &nbytes), *bytes = malloc(nbytes);
    for (size_t n = 0; n < nbytes; n += n < 100 ? 1 : 997) {
        uint8_t *exact = malloc(n ? n : 1);
        memcpy(exact, good, n);
        try_cache(exact, n);
        free(exact);
    }
    for (int i = 0; i < 500; i++) {
        memcpy(bytes, good, nbytes);
        for (int k = 0; k < 20; k++)
            bytes[next_random(&seed) % (k % 2 ? nbytes : 200)] = (uint8_t)next_random(&seed);
        try_cache(bytes, nbytes);
    }
    free(bytes);
    free(good);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "ldd") == 0)
        test_ldd(strtoul(argv[2], NULL, 10));
    else if (argc == 3 && strcmp(argv[1], "search") == 0)
        test_search(argv[2]);
    else if (argc == 2 && strcmp(argv[1], "scripts") == 0)
        test_scripts();
    else if (argc == 3 && strcmp(argv[1], "add") == 0)
        test_add(argv[2]);
    else if (argc == 2 && strcmp(argv[1], "cache") == 0)
        test_cache();
    else
        CHECK(false, "arguments");
    return 0;
}
