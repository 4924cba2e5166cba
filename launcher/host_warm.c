/* SPDX-License-Identifier: Apache-2.0
 *
 * bdbi-warm [options] PROG: translates all that PROG maps at its start, and what --also names, and stores it in the cache.
 *
 *   PROG -> closure -> per module: content hash -> image there? -> blocks -> code -> image
 *                                                    yes: only what runs have needed since
 *
 * A library that fails is a line on stderr and runs by JIT; PROG itself failing is an error.
 */
#include "cachedb/codegen_key.h"
#include "include/internal/error.h"
#include "launcher/host.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMAND "bdbi-warm"

static const char usage[] =
    "usage: bdbi-warm [options] PROG [ARGS...]\n"
    "Translates PROG, its interpreter and its libraries ahead of time, for `bdbi run PROG`.\n"
    "ARGS matter to --train only, so the command line of a run can be used as it is.\n"
    "  --cache DIR         the cache (default $BDBI_CACHE, $XDG_CACHE_HOME/bdbi, ~/.cache/bdbi)\n"
    "  --also GLOB|DIR     also these shared objects, and what they need (may be repeated)\n"
    "  --tool NAME|PATH[:ARGS]  instrument with a tool, built in or a shared object; none: no tool\n"
    "  --train             run PROG with its arguments first, once and slowly, and put the code that ran together\n"
    "  --force             translate again what is cached already\n"
    "  --jobs N            use N threads (default: one for each processor)\n"
    "  --verbose           a line for each module, also for those that are cached already\n"
    "  --version, --help\n"
    "Exit status: 0; 127 PROG not found; 126 PROG is nothing bdbi can run; 125 anything else.\n";

struct warm {
    const char *cache, *prog;
    const char **also;
    unsigned nalso;
    const char *tool_text; /* of --tool; NULL: none */
    char **run;            /* PROG and its arguments */
    bool train;
    bool verbose, bar; /* bar: a progress bar instead of lines */
    const char *dir;
    struct host_job job;
    struct closure closure;
    uint32_t nstart; /* modules of the start closure: the first ones */
    struct closure_entry *entries;
    uint32_t nentries;
    /* The summary. */
    unsigned modules, cached, translated, failed;
    uint64_t blocks, text_bytes, code_bytes, ran;
    double started;
};

/* ---- options ---- */

static void fail(const char *what, const char *arg)
{
    host_say(COMMAND, "%s '%s': see bdbi-warm --help", what, arg);
    exit(HOST_FAILED);
}

static void choose_tool(struct warm *w, const char *text)
{
    char message[HOST_MESSAGE_BYTES];
    w->tool_text = text;
    w->job.tool = host_tool(COMMAND, text, message, sizeof message);
    if (*message) {
        host_say(COMMAND, "%s", message);
        exit(HOST_FAILED);
    }
}

static unsigned parse_jobs(const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n < 1 || n > 1024) {
        fail("--jobs: not a number from 1 to 1024:", text);
    }
    return (unsigned)n;
}

static bool parse_valued(struct warm *w, int argc, char **argv, int *at)
{
    const char *value;
    if ((value = host_option_value(COMMAND, argc, argv, at, "--cache"))) {
        w->cache = value;
    } else if ((value = host_option_value(COMMAND, argc, argv, at, "--also"))) {
        w->also[w->nalso++] = value;
    } else if ((value = host_option_value(COMMAND, argc, argv, at, "--tool"))) {
        choose_tool(w, value);
    } else if ((value = host_option_value(COMMAND, argc, argv, at, "--jobs"))) {
        w->job.threads = parse_jobs(value);
    }
    return value != NULL;
}

static void parse(struct warm *w, int argc, char **argv)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--") == 0) {
            i++;
            break;
        }
        if (strcmp(arg, "--help") == 0) {
            fputs(usage, stdout);
            exit(HOST_OK);
        } else if (strcmp(arg, "--version") == 0) {
            puts("bdbi " HOST_VERSION);
            exit(HOST_OK);
        } else if (strcmp(arg, "--force") == 0) {
            w->job.force = true;
        } else if (strcmp(arg, "--train") == 0) {
            w->train = true;
        } else if (strcmp(arg, "--verbose") == 0) {
            w->verbose = true;
        } else if (!parse_valued(w, argc, argv, &i)) {
            fail("unknown option", arg);
        }
    }
    if (i >= argc || !*argv[i]) {
        host_say(COMMAND, "no program given: see bdbi-warm --help");
        exit(HOST_FAILED);
    }
    w->prog = argv[i];
    w->run = argv + i;
}

/* ---- the modules ---- */

/* PROG cannot be run: the status a shell would give. */
static int program_status(int rc)
{
    return rc == -BDBI_ENOENT                                                                     ? HOST_NOT_FOUND
           : rc == -BDBI_EACCES || rc == -BDBI_EINVAL || rc == -BDBI_EFORMAT || rc == -BDBI_EARCH ? HOST_NOT_RUNNABLE
                                                                                                  : HOST_FAILED;
}

static int find_modules(struct warm *w)
{
    char message[HOST_MESSAGE_BYTES] = "";
    char *path = NULL;
    int rc = closure_find_program(w->prog, &path);
    if (rc) {
        host_say(COMMAND, "%s: %s", w->prog,
                 rc == -BDBI_ENOENT   ? "not found: give its path, or check PATH"
                 : rc == -BDBI_EINVAL ? "a directory: give the program in it"
                 : rc == -BDBI_EACCES ? "not executable: check its permissions (chmod +x)"
                                      : bdbi_strerror(rc));
        return program_status(rc);
    }
    rc = closure_resolve(path, &w->closure, message, sizeof message);
    free(path);
    if (rc) {
        host_say(COMMAND, "%s", message);
        return program_status(rc);
    }
    w->nstart = w->closure.npaths;
    for (unsigned i = 0; i < w->nalso; i++) {
        if (closure_add(&w->closure, w->also[i], message, sizeof message) != 0) {
            host_say(COMMAND, "--also: %s", message);
            return HOST_FAILED;
        }
    }
    for (uint32_t i = 0; i < w->closure.nmissing; i++) {
        host_say(COMMAND, "%s: library not found: left out", w->closure.missing[i]);
    }
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void draw_bar(const struct warm *w, uint32_t done, const char *path)
{
    enum { WIDTH = 24 };
    uint32_t total = w->closure.npaths + 1, filled = done * WIDTH / total;
    fprintf(stderr, "\r\033[K[");
    for (uint32_t i = 0; i < WIDTH; i++) {
        fputc(i < filled ? '#' : '.', stderr);
    }
    fprintf(stderr, "] %u/%u %.48s", done, total, base_name(path));
    fflush(stderr);
}

static void clear_bar(const struct warm *w)
{
    if (w->bar) {
        fputs("\r\033[K", stderr);
    }
}

static void report(struct warm *w, const struct host_module *m, const struct host_result *r, const char *message,
                   double seconds)
{
    char text[32], code[32];
    if (r->outcome == HOST_CACHED || r->outcome == HOST_UNSUITABLE) {
        bool unsuitable = r->outcome == HOST_UNSUITABLE;
        w->cached += !unsuitable;
        if (w->verbose || (unsuitable && strcmp(m->path, w->closure.paths[0]) == 0)) {
            clear_bar(w);
            printf("%s%s\n", unsuitable ? message : m->path, unsuitable ? "" : ": cached already");
        }
        return;
    }
    w->translated++;
    w->blocks += r->blocks;
    w->text_bytes += r->text_bytes;
    w->code_bytes += r->code_bytes;
    if (!w->bar || w->verbose) {
        clear_bar(w);
        printf("%s: %u %sblocks, %s text, %s code, %.2f s\n", m->path, r->blocks, r->outcome == HOST_EXTENDED ? "learned " : "",
               host_size(r->text_bytes, text), host_size(r->code_bytes, code), seconds);
        fflush(stdout);
    }
    if (w->verbose && r->undecodable > 0) {
        printf("%s: %u places do not decode: they will trap as natively\n", m->path, r->undecodable);
    }
}

/* The cache itself failed: going on with other modules is of no use. */
static bool is_cache_failure(int rc)
{
    return rc == -BDBI_ENOSPC || rc == -BDBI_EIO || rc == -BDBI_ENOMEM;
}

/* How many of M's blocks are known to have run. */
static uint32_t blocks_ran(const struct warm *w, const struct host_module *m)
{
    struct host_offsets ran = {0};
    uint32_t count = host_codemap_load(w->job.db, CACHEDB_RAN, m->content, &ran) == 0 ? ran.count : 0;
    host_offsets_free(&ran);
    return count;
}

static int warm_module(struct warm *w, struct host_module *m, char *message)
{
    struct host_result result;
    double started = host_seconds();
    int rc = host_module_update(&w->job, m, &result, message, HOST_MESSAGE_BYTES);
    w->ran += w->train && !rc ? blocks_ran(w, m) : 0;
    if (!rc) {
        report(w, m, &result, message, host_seconds() - started);
    }
    return rc;
}

/* Path I of the closure. Its entry of the closure record is made even if it cannot be translated. */
static int warm_path(struct warm *w, uint32_t i, char *message)
{
    struct host_module m;
    int rc = host_module_open(w->job.db, w->closure.paths[i], &m, message, HOST_MESSAGE_BYTES);
    if (rc) {
        return rc;
    }
    if (i < w->nstart) {
        struct closure_entry *e = &w->entries[w->nentries++];
        e->id = m.id;
        memcpy(e->content, m.content, sizeof e->content);
    }
    rc = warm_module(w, &m, message);
    host_module_close(&m);
    return rc;
}

static int warm_vdso(struct warm *w, char *message)
{
    struct host_module m;
    int rc = host_module_open_vdso(w->job.db, &m, message, HOST_MESSAGE_BYTES);
    if (!rc) {
        rc = warm_module(w, &m, message);
        host_module_close(&m);
    }
    return rc == -BDBI_ENOENT ? 0 : rc; /* a kernel may have none */
}

/* 0 to go on, else the exit status. */
static int judge(struct warm *w, int rc, bool is_program, const char *message)
{
    w->modules++;
    if (!rc) {
        return 0;
    }
    clear_bar(w);
    if (rc == -BDBI_ENOSPC) {
        host_say(COMMAND, "%s: no space left for %s: free some or choose another cache directory (--cache DIR)", w->dir,
                 message);
        return HOST_FAILED;
    }
    host_say(COMMAND, "%s", message);
    w->failed++;
    if (rc == -BDBI_EBUSY) { /* it can still be run */
        return 0;
    }
    return is_program ? program_status(rc) : is_cache_failure(rc) ? HOST_FAILED : 0;
}

static int warm_all(struct warm *w)
{
    char message[HOST_MESSAGE_BYTES] = "";
    int status = judge(w, warm_vdso(w, message), false, message);
    for (uint32_t i = 0; i < w->closure.npaths && !status; i++) {
        if (w->bar) {
            draw_bar(w, i + 1, w->closure.paths[i]);
        }
        message[0] = '\0';
        status = judge(w, warm_path(w, i, message), i == 0, message);
    }
    clear_bar(w);
    return status;
}

/* ---- closure record ---- */

struct newest {
    const struct warm *w;
    bool found, same;
    uint32_t serial;
};

static int see_closure(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct newest *n = user;
    const struct closure_key *k = key;
    if (key_bytes != sizeof *k) {
        return 0;
    }
    n->found = true;
    n->same = value_bytes == n->w->nentries * sizeof *n->w->entries && memcmp(value, n->w->entries, value_bytes) == 0;
    n->serial = (uint32_t)k->serial[0] << 24 | (uint32_t)k->serial[1] << 16 | (uint32_t)k->serial[2] << 8 | k->serial[3];
    return 1; /* the first is the newest */
}

static int put_closure(struct warm *w)
{
    struct closure_key key = {.type = CACHEDB_CLOSURE, .codegen = w->job.codegen};
    struct newest newest = {.w = w};
    if (w->nentries == 0) {
        return 0;
    }
    key.exe = w->entries[0].id;
    int rc = cachedb_scan(w->job.db, &key, offsetof(struct closure_key, serial), see_closure, &newest);
    if (rc < 0 || newest.same) {
        return rc < 0 ? rc : 0;
    }
    uint32_t serial = newest.found ? newest.serial - 1 : 0xffffffff;
    for (int i = 0; i < 4; i++) {
        key.serial[i] = (uint8_t)(serial >> (24 - 8 * i));
    }
    rc = cachedb_put(w->job.db, &key, sizeof key, w->entries, w->nentries * sizeof *w->entries);
    return rc == -BDBI_EEXIST ? 0 : rc;
}

/* ---- training ---- */

/* Runs bdbi with ARGV; its wait status. */
static int run_self(char *const *argv)
{
    int status = HOST_FAILED << 8;
    pid_t child;
    if (posix_spawn(&child, "/proc/self/exe", NULL, NULL, argv, environ) == 0) {
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
    }
    return status;
}

/* Runs PROG, where all is translated when it is needed, which says what ran; then lets the learner make of it what it can. */
static int train(struct warm *w)
{
    enum { OWN_ARGS = 10 };
    char name[] = "bdbi", run[] = "run", train[] = "--train", cache[] = "--cache", tool[] = "--tool", end[] = "--",
         learn[] = "learn", wait[] = "--wait", verbose[] = "--verbose", *dir = strdup(w->dir),
         *text = strdup(w->tool_text ? w->tool_text : "none");
    size_t nargs = 0, n = 0;
    while (w->run[nargs]) {
        nargs++;
    }
    char **argv = calloc(nargs + OWN_ARGS, sizeof *argv);
    if (!argv || !dir || !text) {
        return HOST_FAILED;
    }
    char *const first[] = {name, run, train, cache, dir, tool, text, end};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        argv[n++] = first[i];
    }
    memcpy(argv + n, w->run, nargs * sizeof *argv);
    int status = run_self(argv);
    free(argv);
    if (WIFSIGNALED(status)) {
        host_say(COMMAND, "--train: %s was ended by signal %d", w->prog, WTERMSIG(status));
    } else if (WEXITSTATUS(status)) {
        host_say(COMMAND, "--train: %s ended with status %d", w->prog, WEXITSTATUS(status));
    }
    char *const learner[] = {name, learn, wait, cache, dir, w->verbose ? verbose : NULL, NULL};
    status = run_self(learner);
    free(dir);
    free(text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : HOST_FAILED;
}

/* ---- all together ---- */

static void summarize(const struct warm *w)
{
    char text[32], code[32];
    printf("%u modules (%u translated, %u cached already", w->modules, w->translated, w->cached);
    if (w->failed > 0) {
        printf(", %u failed", w->failed);
    }
    printf("), %llu blocks, %s text, %s code, %.2f s\n", (unsigned long long)w->blocks, host_size(w->text_bytes, text),
           host_size(w->code_bytes, code), host_seconds() - w->started);
    if (w->train) {
        printf("%llu blocks have run: their code comes first\n", (unsigned long long)w->ran);
    }
}

static int run(struct warm *w)
{
    int status = find_modules(w);
    if (status) {
        return status;
    }
    char *dir = host_cache_choose(COMMAND, w->cache);
    w->dir = dir;
    if (dir && w->train && (status = train(w)) != 0) {
        free(dir);
        return status;
    }
    w->job.db = dir ? host_cache_open(COMMAND, dir, CACHEDB_CREATE) : NULL;
    w->entries = calloc(w->nstart, sizeof *w->entries);
    if (!w->job.db || !w->entries) {
        free(dir);
        return HOST_FAILED;
    }
    host_tool_note(w->job.db, w->job.tool);
    status = warm_all(w);
    if (!status && host_cpuid_put(w->job.db) != 0) {
        host_say(COMMAND, "%s: what cpuid answers could not be stored", dir);
    }
    if (!status && put_closure(w) != 0) {
        host_say(COMMAND, "%s: the list of modules could not be stored", dir);
    }
    if (!status) {
        summarize(w);
    }
    cachedb_close(w->job.db);
    free(dir);
    return status;
}

int warm_main(int argc, char **argv)
{
    struct warm w = {.started = host_seconds(), .job.threads = host_threads(), .bar = isatty(STDERR_FILENO) == 1};
    w.also = calloc((size_t)argc + 1, sizeof *w.also);
    if (!w.also) {
        return HOST_FAILED;
    }
    parse(&w, argc, argv);
    w.job.strays = w.train;
    codegen_key_make(w.job.tool ? w.job.tool->fingerprint : 0, &w.job.codegen);
    int status = run(&w);
    closure_free(&w.closure);
    free(w.entries);
    free(w.also);
    return status;
}
