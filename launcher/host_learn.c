/* SPDX-License-Identifier: Apache-2.0
 *
 * bdbi learn: turns the miss log into code maps and images. Started by `bdbi run` when a run that missed something ends, in a
 * session of its own and without descriptors; harmless by hand.
 *
 *   misses.log --rename--> misses.work.PID -> groups by module -> code map -> images, for each kind of code that missed
 *
 * One learner at a time (flock on learn.lock); another one leaves at once, since the first looks again after it let go of the
 * lock. Runs append to whichever file they opened, so the work file is read once more before it is removed. A work file that is
 * found was left by a learner that died: it gets one more try under the name misses.again.PID.
 */
#include "cachedb/codegen_key.h"
#include "include/internal/error.h"
#include "launcher/host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define COMMAND "bdbi learn"
#define PATH_BYTES (PATH_MAX + 64)
#define LOG_MOST (256u << 20) /* what is beyond it is dropped */
#define KINDS_MOST 8

static const char usage[] = "usage: bdbi learn [options]\n"
                            "Adds to the cache what earlier runs missed.\n"
                            "  --cache DIR  the cache (default $BDBI_CACHE, $XDG_CACHE_HOME/bdbi, ~/.cache/bdbi)\n"
                            "  --wait       wait for another learner to end instead of leaving the work to it\n"
                            "  --verbose    say what is done\n";

struct learn {
    const char *cache;
    bool wait, verbose;
    char *dir;
    char v1[PATH_MAX];
    struct cachedb *db;
};

/* Who made the code that a run used, and missed. */
struct kind {
    struct codegen_key codegen;
    char *tool;             /* "": none */
    bool displaced, strays; /* struct host_job */
};

/* What was missed in one module. */
struct group {
    struct file_id id;
    char *path;
    struct host_offsets offsets; /* missed */
    struct host_offsets ran;
    struct kind kinds[KINDS_MOST];
    unsigned nkinds;
};

struct groups {
    struct group *list;
    unsigned count;
};

static void __attribute__((format(printf, 2, 3))) tell(const struct learn *l, const char *format, ...)
{
    char line[HOST_MESSAGE_BYTES + 256];
    va_list args;
    if (!l->verbose) {
        return;
    }
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    host_say(COMMAND, "%s", line);
}

/* ---- the log ---- */

static struct group *group_of(struct groups *g, const struct misslog_entry *e)
{
    for (unsigned i = 0; i < g->count; i++) {
        struct group *group = &g->list[i];
        if (memcmp(&group->id, &e->head.id, sizeof group->id) == 0 && strlen(group->path) == e->head.path_bytes &&
            memcmp(group->path, e->path, e->head.path_bytes) == 0) {
            return group;
        }
    }
    struct group *list = realloc(g->list, (g->count + 1) * sizeof *list);
    if (!list) {
        return NULL;
    }
    g->list = list;
    struct group *group = &list[g->count];
    *group = (struct group){.id = e->head.id, .path = strndup(e->path, e->head.path_bytes)};
    if (!group->path) {
        return NULL;
    }
    g->count++;
    return group;
}

/* The kind of code that E is about: NULL: out of memory, or there are too many. */
static struct kind *kind_of(struct group *group, const struct misslog_entry *e)
{
    for (unsigned i = 0; i < group->nkinds; i++) {
        if (memcmp(&group->kinds[i].codegen, &e->head.codegen, sizeof e->head.codegen) == 0) {
            return &group->kinds[i];
        }
    }
    char *tool = group->nkinds < KINDS_MOST ? strndup(e->tool, e->head.tool_bytes) : NULL;
    if (!tool) {
        return NULL;
    }
    group->kinds[group->nkinds] = (struct kind){e->head.codegen, tool, false, false};
    return &group->kinds[group->nkinds++];
}

static int add_entry(struct groups *g, const struct misslog_entry *e)
{
    struct group *group = group_of(g, e);
    struct kind *kind = group ? kind_of(group, e) : NULL;
    if (!group || (!kind && group->nkinds < KINDS_MOST)) {
        return -BDBI_ENOMEM;
    }
    struct host_offsets *to = &group->offsets;
    for (uint32_t i = 0; i < e->head.noffsets; i++) {
        uint32_t offset;
        memcpy(&offset, e->offsets + 4 * (size_t)i, sizeof offset);
        bool displaced = offset == MISSLOG_DISPLACED, ran = offset == MISSLOG_RAN, strays = offset == MISSLOG_STRAYS;
        if (kind) {
            kind->displaced |= displaced;
            kind->strays |= strays;
        }
        to = ran ? &group->ran : to;
        int rc = displaced || ran || strays ? 0 : host_offsets_add(to, offset);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static int parse_log(struct host_hot *hot, const void *log, size_t bytes, struct groups *g)
{
    struct misslog_entry e;
    size_t at = 0;
    int rc = 0;
    while (!rc && misslog_next(log, bytes, &at, &e)) {
        if (e.head.path_bytes == sizeof CPUID_PATH - 1 && memcmp(e.path, CPUID_PATH, e.head.path_bytes) == 0) {
            continue; /* host_cpuid_put has been called */
        }
        bool is_hot = e.head.path_bytes == sizeof START_PATH - 1 && memcmp(e.path, START_PATH, e.head.path_bytes) == 0;
        rc = is_hot ? host_hot_add(hot, &e) : add_entry(g, &e);
    }
    for (unsigned i = 0; i < g->count; i++) {
        host_offsets_sort(&g->list[i].offsets);
        host_offsets_sort(&g->list[i].ran);
    }
    return rc;
}

static void free_groups(struct groups *g)
{
    for (unsigned i = 0; i < g->count; i++) {
        host_offsets_free(&g->list[i].offsets);
        host_offsets_free(&g->list[i].ran);
        free(g->list[i].path);
        for (unsigned k = 0; k < g->list[i].nkinds; k++) {
            free(g->list[i].kinds[k].tool);
        }
    }
    free(g->list);
    *g = (struct groups){0};
}

/* ---- one module ---- */

/* Returns how many offsets were missed for the first time. */
static int add_maps(struct learn *l, const uint8_t content[32], const struct group *group)
{
    int missed = 0, ran = 0;
    if (group->offsets.count > 0) {
        missed = host_codemap_add(l->db, CACHEDB_CODEMAP, content, &group->offsets);
    }
    if (missed >= 0 && group->ran.count > 0) {
        ran = host_codemap_add(l->db, CACHEDB_RAN, content, &group->ran);
    }
    return ran < 0 ? ran : missed;
}

/* The file that was mapped is gone or another now, but its content may be known: then its code map is worth keeping. */
static int keep_codemap(struct learn *l, const struct group *group)
{
    struct identity_key key = {CACHEDB_IDENTITY, group->id};
    void *content;
    size_t bytes;
    int rc = cachedb_get(l->db, &key, sizeof key, &content, &bytes);
    if (rc) {
        return rc == -BDBI_ENOENT ? 0 : rc;
    }
    rc = bytes == 32 ? add_maps(l, content, group) : 0;
    free(content);
    return rc < 0 ? rc : 0;
}

static int open_module(struct learn *l, const struct group *group, struct host_module *m)
{
    static const struct file_id none;
    char message[HOST_MESSAGE_BYTES] = "";
    bool vdso = strcmp(group->path, "[vdso]") == 0 && memcmp(&group->id, &none, sizeof none) == 0;
    if (!vdso && group->path[0] != '/') {
        return -BDBI_EINVAL;
    }
    int rc = vdso ? host_module_open_vdso(l->db, m, message, sizeof message)
                  : host_module_open(l->db, group->path, m, message, sizeof message);
    if (rc) {
        tell(l, "%s", message);
        return rc;
    }
    if (memcmp(&m->id, &group->id, sizeof m->id) != 0) {
        tell(l, "%s: another file now", group->path);
        host_module_close(m);
        return -BDBI_EINVAL;
    }
    return 0;
}

static int learn_kind(struct learn *l, const struct kind *kind, struct host_module *m)
{
    char message[HOST_MESSAGE_BYTES] = "";
    struct host_result result;
    struct host_job job = {.db = l->db, .threads = host_threads(), .displaced = kind->displaced, .strays = kind->strays};
    if (*kind->tool) {
        job.tool = host_tool(COMMAND, kind->tool, message, sizeof message);
    }
    codegen_key_make(job.tool ? job.tool->fingerprint : 0, &job.codegen);
    if (memcmp(&job.codegen, &kind->codegen, sizeof job.codegen) != 0) {
        tell(l, "%s: missed by another version of bdbi or its tool: left out%s%s", m->path, *message ? ": " : "", message);
        return 0;
    }
    host_tool_note(l->db, job.tool);
    int rc = host_module_update(&job, m, &result, message, sizeof message);
    if (rc || result.outcome == HOST_UNSUITABLE) {
        tell(l, "%s", message);
    } else if (result.outcome == HOST_CACHED) {
        tell(l, "%s: nothing new", m->path);
    } else {
        tell(l, "%s: %u blocks in epoch %u extent %u", m->path, result.blocks, result.epoch, result.extent);
    }
    return rc;
}

/* Only what concerns the cache itself is an error; a module that fails is left out. */
static bool is_fatal(int rc)
{
    return rc == -BDBI_ENOSPC || rc == -BDBI_ENOMEM;
}

static int learn_group(struct learn *l, struct group *group)
{
    char message[HOST_MESSAGE_BYTES] = "";
    struct host_module m;
    int rc = open_module(l, group, &m);
    if (rc) {
        return is_fatal(rc) ? rc : keep_codemap(l, group);
    }
    rc = host_module_filter(&m, &group->offsets, message, sizeof message);
    rc = rc ? rc : host_module_filter(&m, &group->ran, message, sizeof message);
    if (rc) {
        tell(l, "%s", message);
    } else if (group->offsets.count > 0 || group->ran.count > 0) {
        rc = add_maps(l, m.content, group);
        tell(l, "%s: %u addresses missed, %d of them new", m.path, group->offsets.count, rc);
        for (unsigned i = 0; i < group->nkinds && !is_fatal(rc); i++) {
            rc = learn_kind(l, &group->kinds[i], &m);
        }
    }
    host_module_close(&m);
    return is_fatal(rc) ? rc : 0;
}

static int learn_bytes(struct learn *l, const void *log, size_t bytes)
{
    struct groups g = {0};
    struct host_hot hot = {0};
    int rc = parse_log(&hot, log, bytes, &g);
    for (unsigned i = 0; i < g.count && !rc; i++) {
        rc = learn_group(l, &g.list[i]);
    }
    for (unsigned i = 0; i < hot.count && !rc; i++) {
        int pairs = host_hot_store(l->db, &hot.list[i]);
        tell(l, "hot list %u of %u: %d pairs", i + 1, hot.count, pairs);
        rc = is_fatal(pairs) ? pairs : 0;
    }
    host_hot_free(&hot);
    free_groups(&g);
    return rc;
}

/* ---- files ---- */

/* Reads FD from *AT to its end; *AT moves there. *BYTES 0: nothing new. */
static int read_rest(int fd, size_t *at, char **data, size_t *bytes)
{
    struct stat st;
    *data = NULL;
    *bytes = 0;
    if (fstat(fd, &st) != 0) {
        return -BDBI_EIO;
    }
    if ((size_t)st.st_size <= *at || *at >= LOG_MOST) {
        return 0;
    }
    size_t want = (size_t)st.st_size - *at;
    want = want > LOG_MOST ? LOG_MOST : want;
    *data = malloc(want);
    if (!*data) {
        return -BDBI_ENOMEM;
    }
    ssize_t n = 0;
    while (*bytes < want && (n = pread(fd, *data + *bytes, want - *bytes, (off_t)(*at + *bytes))) > 0) {
        *bytes += (size_t)n;
    }
    *at += *bytes;
    return n < 0 ? -BDBI_EIO : 0;
}

/* Learns from the file PATH, then removes it. */
static int learn_file(struct learn *l, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t at = 0, bytes = 0;
    char *data;
    if (fd < 0) {
        return -BDBI_EIO;
    }
    int rc;
    do {
        rc = read_rest(fd, &at, &data, &bytes);
        if (!rc && bytes > 0) {
            rc = learn_bytes(l, data, bytes);
        }
        free(data);
    } while (!rc && bytes > 0); /* until nobody has appended any more */
    close(fd);
    if (!rc && unlink(path) != 0) {
        rc = -BDBI_EIO;
    }
    return rc;
}

static void in_v1(const struct learn *l, char path[PATH_BYTES], const char *name)
{
    snprintf(path, PATH_BYTES, "%s/%.50s", l->v1, name);
}

/* What dead learners left behind: a second try, not a third. */
static int learn_leftovers(struct learn *l)
{
    char path[PATH_BYTES], again[PATH_BYTES], name[64];
    DIR *dir = opendir(l->v1);
    struct dirent *entry;
    int rc = 0;
    while (dir && !rc && (entry = readdir(dir))) {
        in_v1(l, path, entry->d_name);
        if (strncmp(entry->d_name, "misses.again.", 13) == 0) {
            tell(l, "%s: given up", path);
            unlink(path);
        } else if (strncmp(entry->d_name, "misses.work.", 12) == 0) {
            snprintf(name, sizeof name, "misses.again.%.32s", entry->d_name + 12);
            in_v1(l, again, name);
            rc = rename(path, again) == 0 ? learn_file(l, again) : -BDBI_EIO;
        }
    }
    if (dir) {
        closedir(dir);
    }
    return rc;
}

static bool log_waits(const struct learn *l)
{
    char path[PATH_BYTES];
    struct stat st;
    in_v1(l, path, "misses.log");
    return stat(path, &st) == 0 && st.st_size > 0;
}

static int learn_log(struct learn *l)
{
    char log[PATH_BYTES], work[PATH_BYTES], name[64];
    snprintf(name, sizeof name, "misses.work.%ld", (long)getpid());
    in_v1(l, log, "misses.log");
    in_v1(l, work, name);
    int rc = 0;
    while (!rc && log_waits(l)) {
        rc = rename(log, work) == 0 ? learn_file(l, work) : -BDBI_EIO;
    }
    return rc;
}

/* ---- all together ---- */

static int report(const struct learn *l, int rc)
{
    if (!rc) {
        return HOST_OK;
    }
    host_say(COMMAND, "%s: %s: what was missed will be tried once more", l->dir, bdbi_strerror(rc));
    return HOST_FAILED;
}

/* The lock's descriptor, -BDBI_EBUSY, or another failure. */
static int take_lock(const struct learn *l)
{
    char path[PATH_BYTES];
    in_v1(l, path, "learn.lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        host_say(COMMAND, "%s: %s", path, strerror(errno));
        return -BDBI_EIO;
    }
    while (flock(fd, l->wait ? LOCK_EX : LOCK_EX | LOCK_NB) != 0) {
        if (errno != EINTR) {
            int rc = errno == EWOULDBLOCK ? -BDBI_EBUSY : -BDBI_EIO;
            close(fd);
            return rc;
        }
    }
    return fd;
}

/* *MINE: the work was ours to do. */
static int learn_once(struct learn *l, bool *mine)
{
    int lock = take_lock(l), status = HOST_FAILED;
    *mine = lock != -BDBI_EBUSY;
    if (!*mine) {
        tell(l, "another learner is at work");
        return HOST_OK;
    }
    if (lock < 0) {
        return HOST_FAILED;
    }
    l->db = host_cache_open(COMMAND, l->dir, CACHEDB_CREATE);
    if (l->db) {
        int rc = learn_leftovers(l);
        rc = rc ? rc : host_cpuid_put(l->db);
        status = report(l, rc ? rc : learn_log(l));
        cachedb_close(l->db);
    }
    close(lock);
    return status;
}

static void parse(struct learn *l, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value;
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            exit(HOST_OK);
        } else if (strcmp(argv[i], "--wait") == 0) {
            l->wait = true;
        } else if (strcmp(argv[i], "--verbose") == 0) {
            l->verbose = true;
        } else if ((value = host_option_value(COMMAND, argc, argv, &i, "--cache"))) {
            l->cache = value;
        } else {
            host_say(COMMAND, "unknown option '%s': see bdbi learn --help", argv[i]);
            exit(HOST_FAILED);
        }
    }
}

/* A run that found the lock taken has left its misses to us: look again after letting go of it. */
static int learn_all(struct learn *l)
{
    bool mine;
    int status;
    do {
        status = learn_once(l, &mine);
    } while (!status && mine && log_waits(l));
    return status;
}

/* argv[0] is the subcommand. */
int learn_main(int argc, char **argv)
{
    struct learn l = {0};
    int status = HOST_OK;
    parse(&l, argc, argv);
    l.dir = host_cache_choose(COMMAND, l.cache);
    if (!l.dir) {
        return HOST_FAILED;
    }
    if (snprintf(l.v1, sizeof l.v1, "%s/" CACHEDB_SUBDIR, l.dir) >= (int)sizeof l.v1) {
        host_say(COMMAND, "%.100s...: too long", l.dir);
        status = HOST_FAILED;
    } else if (access(l.v1, F_OK) != 0) {
        tell(&l, "%s: nothing to learn", l.dir);
    } else {
        setpriority(PRIO_PROCESS, 0, 10);
        status = learn_all(&l);
    }
    free(l.dir);
    return status;
}
