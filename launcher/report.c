/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a run: tool report, statistics, the miss log and the learner's start. Also what a forked child forgets.
 */
#include "launcher/core.h"
#include "tools/args.h"

static bool forked, logged, finished;

/* ---- output files ---- */

/* TEMPLATE with the process id for %p and NUMBER for %n; whether it has %n. */
static bool output_path(char *path, size_t path_bytes, const char *template, size_t n, uint64_t number)
{
    size_t used = 0;
    bool numbered = false;
    for (size_t i = 0; i < n && used + 24 < path_bytes; i++) {
        char letter = template[i] == '%' && i + 1 < n ? template[i + 1] : 0;
        if (letter == 'p' || letter == 'n') {
            numbered |= letter == 'n';
            used += format(path + used, path_bytes - used, "%u", letter == 'n' ? number : (uint64_t)sys0(__NR_getpid));
            i++;
        } else
            path[used++] = template[i];
    }
    path[used] = 0;
    return numbered;
}

/* Opens TEMPLATE for appending; with %n, a file that was not there before: the first number that gives one. */
static int open_output(const char *template, size_t n)
{
    char path[1024];
    for (uint64_t number = 0;; number++) {
        bool numbered = output_path(path, sizeof path, template, n, number);
        int fd = (int)open_own(path, O_WRONLY_ | O_CREAT_ | O_APPEND_ | O_CLOEXEC_ | (numbered ? O_EXCL_ : 0), 0666);
        if (!numbered || fd != -E_EXIST)
            return fd;
    }
}

static void write_all(int fd, const char *text, size_t n)
{
    while (n > 0) {
        long done = write_own(fd, text, n);
        if (done <= 0)
            return;
        text += done;
        n -= (size_t)done;
    }
}

/* ---- tool ---- */

struct bdbi_run {
    int fd;
    char buffer[4096];
    size_t used;
};

const char *bdbi_run_option(const struct bdbi_run *run, const char *key, size_t *bytes)
{
    (void)run;
    return tool_arg(options.tool->args, key, bytes);
}

void bdbi_run_write(struct bdbi_run *run, const char *text, size_t bytes)
{
    if (run->used + bytes > sizeof run->buffer) {
        write_all(run->fd, run->buffer, run->used);
        run->used = 0;
    }
    if (bytes > sizeof run->buffer) {
        write_all(run->fd, text, bytes);
        return;
    }
    memcpy(run->buffer + run->used, text, bytes);
    run->used += bytes;
}

/* ---- the report ---- */

void report_tool(struct thread_ctx *ctx)
{
    static struct bdbi_run run CORE_LARGE;
    size_t n;
    if (!options.tool || !options.tool->tool->report || options.train)
        return;
    const char *out = tool_arg(options.tool->args, "out", &n);
    if (!out && (options.child || forked))
        return;
    run.fd = out ? open_output(out, n) : options.report_fd;
    run.used = 0;
    if (run.fd < 0) {
        warn("%s: cannot be written (error %d)", out, -run.fd);
        return;
    }
    tool_report(ctx, &run);
    write_all(run.fd, run.buffer, run.used);
    counts_done();
    if (out)
        sys1(__NR_close, run.fd);
}

/* ---- statistics ---- */

void report_stats(struct thread_ctx *ctx)
{
    static char text[16384] CORE_LARGE;
    size_t n = 0;
    struct thread_stats t = {0};
    uint64_t hits = 0;
    if (!options.stats)
        return;
    (void)ctx;
    for (struct thread_ctx *c = threads; c; c = c->next) {
        t.enter_syscall += c->stats.enter_syscall;
        t.enter_event += c->stats.enter_event;
        t.enter_fault += c->stats.enter_fault;
        t.enter_signal += c->stats.enter_signal;
        t.ibl_misses += c->stats.ibl_misses;
        t.direct_misses += c->stats.direct_misses;
        t.cpuid_known += c->stats.cpuid_known;
        t.cpuid_executed += c->stats.cpuid_executed;
        hits += c->ibl_hits;
    }
    n += format(text + n, sizeof text - n, "process %u %s\n", (uint64_t)sys0(__NR_getpid), guest_exe);
    n += format(text + n, sizeof text - n, "modules %u\nmodules_cached %u\ncache_blocks %u\n", stats.modules,
                stats.modules_cached, stats.cache_blocks);
    n += format(text + n, sizeof text - n, "jit_blocks %u\njit_batches %u\nbytes_mapped %u\n", stats.jit_blocks,
                stats.jit_batches, stats.bytes_mapped);
    n += format(text + n, sizeof text - n, "load_us %u\njit_us %u\nlinks %u\nsettled %u\n", stats.load_us, stats.jit_us,
                stats.links, stats.settled);
    n += format(text + n, sizeof text - n, "ibl_hits %u\ndispatch_ibl_miss %u\ndispatch_direct_miss %u\ndispatch_syscall %u\n",
                hits, t.ibl_misses, t.direct_misses, t.enter_syscall);
    n += format(text + n, sizeof text - n, "cpuid_known %u\ncpuid_executed %u\n", t.cpuid_known, t.cpuid_executed);
    n += format(text + n, sizeof text - n, "dispatch_event %u\ndispatch_fault %u\ndispatch_signal %u\n", t.enter_event,
                t.enter_fault, t.enter_signal);
    for (struct module *m = modules; m && n + 1200 < sizeof text; m = m->next)
        n += format(text + n, sizeof text - n, "module %s %s pieces %u jit_blocks %u\n", m->path ? m->path : "?",
                    m->npieces      ? "cache"
                    : m->vdso_waits ? "unused"
                                    : "jit",
                    (uint64_t)m->npieces, (uint64_t)m->jit_blocks);
    int fd = options.stats_file ? open_output(options.stats_file, core_strlen(options.stats_file)) : options.report_fd;
    write_all(fd, text, n);
    if (options.stats_file && fd >= 0)
        sys1(__NR_close, fd);
}

/* ---- learning ---- */

static long open_log(void)
{
    char path[600];
    format(path, sizeof path, "%s/" CACHEDB_LOG, options.cache);
    return open_own(path, O_WRONLY_ | O_CREAT_ | O_APPEND_ | O_CLOEXEC_, 0600);
}

/* The first run of all: the store's directories are not there yet. */
static void make_directories(void)
{
    char path[600];
    size_t n = format(path, sizeof path, "%s/" CACHEDB_SUBDIR, options.cache);
    for (size_t i = 1; i <= n; i++)
        if (path[i] == '/' || !path[i]) {
            char c = path[i];
            path[i] = 0;
            sys2(__NR_mkdir, path, 0700);
            path[i] = c;
        }
}

bool log_append(const void *record, size_t bytes)
{
    long fd = open_log();
    if (fd == -E_NOENT) {
        make_directories();
        fd = open_log();
    }
    if (fd < 0) { /* not writable: nothing is learned */
        options.no_learn = true;
        return false;
    }
    bool ok = write_own(fd, record, bytes) == (long)bytes;
    sys1(__NR_close, fd);
    return ok;
}

/* One record, one write: it survives whatever happens to this process next. */
uint32_t *log_begin(struct module *m, struct misslog_record **out, uint32_t *room)
{
    static uint64_t buffer[MISSLOG_MAX_BYTES / 8] CORE_LARGE;
    struct misslog_record *record = *out = (void *)buffer;
    if (options.no_learn || !options.cache)
        return NULL;
    if (!m->path || !m->path[0]) { /* a library from the cache: nobody has asked for its name yet */
        char found[1024];
        procfs_path_at(m->base, found, sizeof found);
        module_set_path(m, found);
    }
    const char *tool = options.tool && !options.own_tool ? options.tool->text : "";
    size_t path_bytes = core_strlen(m->path), tool_bytes = core_strlen(tool), names = path_bytes + tool_bytes;
    if (path_bytes > 4096)
        return NULL;
    memset(buffer, 0, sizeof *record + names + 4);
    record->magic = MISSLOG_MAGIC;
    record->id = m->id;
    cache_codegen(&record->codegen);
    record->path_bytes = (uint16_t)path_bytes;
    record->tool_bytes = (uint16_t)tool_bytes;
    char *p = (char *)(record + 1);
    memcpy(p, m->path, path_bytes);
    memcpy(p + path_bytes, tool, tool_bytes);
    names = (names + 3) / 4 * 4;
    *room = (uint32_t)(sizeof buffer - sizeof *record - names - 4) / 4;
    return (uint32_t *)(p + names);
}

bool log_end(struct misslog_record *record, uint32_t *offsets, uint32_t n)
{
    offsets[n] = 0;
    record->noffsets = n;
    record->record_bytes = (uint32_t)((char *)(offsets + n) - (char *)record + 7) / 8 * 8;
    return log_append(record, record->record_bytes);
}

void learn_miss(struct module *m, uint32_t offset, const struct image_block *blocks, uint32_t n)
{
    struct misslog_record *record;
    uint32_t room, *offsets = options.train ? NULL : log_begin(m, &record, &room), used = 0;
    m->jit_blocks += n;
    if (!offsets)
        return;
    offsets[used++] = offset;
    if (m->displaced)
        offsets[used++] = MISSLOG_DISPLACED;
    for (uint32_t i = 0; i < n && used < room; i++)
        if (blocks[i].app_offset != offset)
            offsets[used++] = blocks[i].app_offset;
    logged |= log_end(record, offsets, used);
}

/* A learner that is at work looks at the log again when it has let go of its lock. */
static bool learner_works(void)
{
    char path[600];
    format(path, sizeof path, "%s/" CACHEDB_LEARN_LOCK, options.cache);
    long fd = sys4(__NR_openat, AT_FDCWD_, path, O_RDONLY_ | O_CLOEXEC_, 0);
    if (fd < 0)
        return false;
    bool works = sys2(__NR_flock, fd, 2 | 4 /* LOCK_EX | LOCK_NB */) == -E_AGAIN;
    sys1(__NR_close, fd);
    return works;
}

/* The learner is a grandchild in a session of its own, with no descriptor of ours, so that nobody waits for it or is kept by
 * it. */
static void start_learner(void)
{
    const char *argv[] = {"bdbi", "learn", "--cache", options.cache, NULL};
    const char *envp[] = {NULL};
    uint64_t mask;
    signals_block_all(&mask);
    long child = sys5(__NR_clone, 0 /* no exit signal */, 0, 0, 0, 0);
    if (child == 0) {
        program_file = (struct place_of_file){0}; /* others may write the program now (remote_runs) */
        sys2(__NR_setpgid, 0, 0);
        sys3(436 /* close_range */, 0, ~0u, 0); /* here: when this child has ended, nobody holds what the guest had open */
        if (sys5(__NR_clone, 0, 0, 0, 0, 0) == 0) {
            uint64_t none = 0;
            sys0(__NR_setsid);
            sys4(__NR_openat, AT_FDCWD_, "/dev/null", 2, 0);
            sys1(__NR_dup, 0);
            sys1(__NR_dup, 0);
            sys4(__NR_rt_sigprocmask, SIG_SETMASK_, &none, 0, 8);
            sys3(__NR_execve, "/proc/self/exe", argv, envp);
        }
        for (;;)
            sys1(__NR_exit_group, 0);
    }
    if (child > 0) { /* a stop that job control sends to the guest's group must not keep it */
        sys2(__NR_setpgid, child, child);
        sys2(__NR_kill, child, SIG_CONT);
        sys4(__NR_wait4, child, 0, 0x80000000 /* __WCLONE */, 0);
    }
    signals_restore(mask);
}

/* Files that were written in place while their code was mapped. One that was replaced is another file. */
static void explain_rewritten(void)
{
    struct kernel_stat st;
    for (const struct module *m = modules_loaded; m; m = m->loaded_next)
        if (m->id.ino && m->path && m->path[0] && sys2(__NR_stat, m->path, &st) == 0 && st.st_ino == m->id.ino &&
            st.st_dev == m->id.dev &&
            ((uint64_t)st.st_size != m->id.size || st.st_mtime_sec != m->id.mtime_sec || st.st_mtime_nsec != m->id.mtime_nsec))
            explain("%s was written while it was mapped: the program may have run code that it held before", m->path);
}

void core_finish(struct thread_ctx *ctx, bool ends)
{
    if (options.native || ctx->vfork_parent)
        return;
    lock_take(&core_lock);
    if (!finished) {
        finished = ends;
        if (options.verbose)
            explain_rewritten();
        report_tool(ctx);
        report_stats(ctx);
        logged |= hot_write();
        logged |= counts_learn();
        logged |= !forked && cpuid_wanted();
        if (logged && !options.no_learn && !learner_works())
            start_learner();
        logged = false;
    }
    lock_drop(&core_lock);
}

void core_forked(void)
{
    forked = true;
    logged = finished = false;
    hot_forget();
    memset(&stats.load_us, 0, sizeof stats.load_us);
    stats.jit_us = stats.jit_blocks = stats.jit_batches = 0;
}
