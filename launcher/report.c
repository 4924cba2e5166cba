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
    uint8_t *marks; /* a copy of all, merged over the threads; NULL: not taken */
    uint64_t mark_bytes;
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

/* Most pages of a big module's counters are never touched. Asking the kernel which ones are is a tenth of the time it takes to
 * read them all, each for the first time. */
#define WINDOW_PAGES 512
#define WORTH_ASKING 4 /* pages */

static int pagemap;
static bool pagemap_open;

static void open_pagemap(void)
{
    pagemap = (int)sys4(__NR_openat, AT_FDCWD_, "/proc/self/pagemap", O_RDONLY_ | O_CLOEXEC_, 0);
    pagemap_open = pagemap >= 0;
}

static void close_pagemap(void)
{
    if (pagemap_open)
        sys1(__NR_close, pagemap);
    pagemap_open = false;
}

/* Some of N counters or marks, WIDTH bytes each from ADDRESS on (gs-based). */
struct data_range {
    uint64_t address;
    uint32_t width, n;
    uint32_t module_index;
    const char *module;
    const struct image_counter *info; /* what the tool registered for each */
    const void *kept;                 /* the values, when they are not with the threads */
};

/* The counters and marks of an image, summed over the threads, that was at a place that is or may be another's now. */
struct kept_counts {
    struct kept_counts *next;
    const struct image_header *image;
    uint64_t counters[]; /* and marks behind them */
};

/* Calls FN for all parts of R, of a page each, that some thread may have touched. */
static void each_touched(const struct data_range *r, void (*fn)(void *user, const struct data_range *part), void *user)
{
    static bool touched[WINDOW_PAGES] CORE_LARGE;
    for (uint32_t i = 0; i < r->n;) {
        uint64_t start = PAGE_DOWN(r->address + (uint64_t)r->width * i),
                 pages = (PAGE_UP(r->address + (uint64_t)r->width * r->n) - start) / PAGE_BYTES;
        bool asked = pages >= WORTH_ASKING && pagemap_open;
        pages = pages < WINDOW_PAGES ? pages : WINDOW_PAGES;
        asked = asked && thread_counters_touched(start, (uint32_t)pages, pagemap, touched);
        for (uint64_t page = 0; page < pages; page++) {
            uint64_t after = (start + (page + 1) * PAGE_BYTES - r->address) / r->width;
            uint32_t last = after < r->n ? (uint32_t)after : r->n;
            struct data_range part = *r;
            part.address += (uint64_t)r->width * i;
            part.info += i;
            part.n = last - i;
            if (!asked || touched[page])
                fn(user, &part);
            i = last;
        }
    }
}

static void one_table(uint64_t code, uint32_t ncounters, uint32_t nmarks, const struct image_counter *info,
                      struct data_range *r, void (*fn)(void *user, const struct data_range *r), void *user)
{
    bool marks = r->width == 1;
    r->address = code + (marks ? 8ull * ncounters : 0);
    r->info = info + (marks ? ncounters : 0);
    r->n = marks ? nmarks : ncounters;
    if (r->n)
        fn(user, r);
}

static void chunk_tables(const struct module *m, struct data_range *r, void (*fn)(void *user, const struct data_range *r),
                         void *user)
{
    for (int dropped = 0; dropped < 2; dropped++)
        for (struct jit_chunk *k = dropped ? jit_dropped : jit_chunks; k; k = k->next)
            if (k->module == m)
                one_table(k->start, k->ncounters, k->nmarks, k->counters, r, fn, user);
}

static void kept_table(const struct kept_counts *k, struct data_range *r, void (*fn)(void *user, const struct data_range *r),
                       void *user)
{
    const struct image_header *image = k->image;
    r->kept = r->width == 1 ? (const void *)(k->counters + image->ncounters) : k->counters;
    one_table(0, image->ncounters, image->nmarks, image_part(image, image->counters_offset), r, fn, user);
    r->kept = NULL;
}

static const char *path_of(const struct module *m)
{
    return m->path && m->path[0] ? m->path : "[unknown]";
}

/* Calls FN for the counters (WIDTH 8) or marks (1) of each image and each chunk, module by module in order of loading. */
static void each_table(uint32_t width, void (*fn)(void *user, const struct data_range *r), void *user)
{
    struct data_range r = {.width = width};
    for (struct module *m = modules_loaded; m; m = m->loaded_next) {
        r.module = path_of(m);
        for (uint32_t i = 0; i < m->npieces; i++) {
            const struct image_header *image = m->pieces[i].image;
            one_table(m->pieces[i].start, image->ncounters, image->nmarks, image_part(image, image->counters_offset), &r, fn,
                      user);
        }
        for (const struct kept_counts *k = m->counts; k; k = k->next)
            kept_table(k, &r, fn, user);
        if (m->jit_blocks)
            chunk_tables(m, &r, fn, user);
        r.module_index++;
    }
    r.module = "[anon]";
    r.module_index = UINT32_MAX;
    chunk_tables(NULL, &r, fn, user);
}

/* ---- counters ---- */

struct counter_visit {
    void (*fn)(const struct bdbi_counter *c, void *user);
    void *user;
};

static void visit_counters(void *user, const struct data_range *r)
{
    static uint64_t sums[PAGE_BYTES / 8] CORE_LARGE;
    const struct counter_visit *v = user;
    struct bdbi_counter c = {.module = r->module, .module_index = r->module_index};
    const uint64_t *counts = r->kept ? r->kept : thread_sum_counters(r->address, r->n, sums);
    for (uint32_t i = 0; i < r->n; i++) {
        uint64_t count = counts[i];
        if (!count) /* most are */
            continue;
        c.count = count;
        c.info = r->info[i].info;
        v->fn(&c, v->user);
    }
}

static void visit_table(void *user, const struct data_range *r)
{
    if (r->kept)
        visit_counters(user, r);
    else
        each_touched(r, visit_counters, user);
}

void bdbi_run_counters(struct bdbi_run *run, void (*fn)(const struct bdbi_counter *c, void *user), void *user)
{
    struct counter_visit v = {fn, user};
    (void)run;
    open_pagemap();
    each_table(8, visit_table, &v);
    close_pagemap();
}

/* ---- marks ---- */

/* All marks of all threads, in the order of each_table, as they were when the report first asked. */
struct merge {
    uint8_t *at;    /* of the table at work */
    uint64_t table; /* where that is, gs-based */
};

static void add_bytes(void *user, const struct data_range *r)
{
    *(uint64_t *)user += r->n;
}

static void merge_part(void *user, const struct data_range *r)
{
    struct merge *m = user;
    thread_merge_marks(r->address, r->n, m->at + (r->address - m->table));
}

static void merge_table(void *user, const struct data_range *r)
{
    struct merge *m = user;
    m->table = r->address;
    if (r->kept)
        memcpy(m->at, r->kept, r->n);
    else
        each_touched(r, merge_part, m);
    m->at += r->n;
}

static bool take_marks(struct bdbi_run *run)
{
    if (run->marks)
        return true;
    each_table(1, add_bytes, &run->mark_bytes);
    if (!run->mark_bytes)
        return false;
    long p = core_mmap(0, run->mark_bytes, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_, -1, 0);
    if (sys_failed(p)) {
        warn("no memory for a copy of %u marks", run->mark_bytes);
        run->mark_bytes = 0;
        return false;
    }
    struct merge m = {.at = run->marks = (uint8_t *)p};
    open_pagemap();
    each_table(1, merge_table, &m);
    close_pagemap();
    return true;
}

struct mark_visit {
    void (*fn)(const struct bdbi_mark *m, void *user);
    void *user;
    const uint8_t *at;
    uint64_t set;
};

static void visit_marks(void *user, const struct data_range *r)
{
    struct mark_visit *v = user;
    for (uint32_t i = 0; i < r->n; i++) {
        struct bdbi_mark mark = {.module_index = r->module_index, .info = r->info[i].info};
        if (!v->at[i])
            continue;
        v->set++;
        if (v->fn)
            v->fn(&mark, v->user);
    }
    v->at += r->n;
}

uint64_t bdbi_run_marks(struct bdbi_run *run, void (*fn)(const struct bdbi_mark *m, void *user), void *user)
{
    struct mark_visit v = {.fn = fn, .user = user};
    if (take_marks(run)) {
        v.at = run->marks;
        each_table(1, visit_marks, &v);
    }
    return v.set;
}

uint32_t bdbi_run_modules(struct bdbi_run *run, void (*fn)(const struct bdbi_module *m, void *user), void *user)
{
    uint32_t n = 0;
    (void)run;
    for (struct module *m = modules_loaded; m; m = m->loaded_next) {
        struct bdbi_module module = {.path = path_of(m), .index = n++, .start = m->base, .end = m->end};
        if (fn)
            fn(&module, user);
    }
    return n;
}

/* ---- of modules that have gone ---- */

/* Where the counts of IMAGE are kept: with the first module that had it, or from now on with M. */
static struct kept_counts *keeper_of(struct module *m, const struct image_header *image)
{
    for (struct module *other = modules_loaded; other; other = other->loaded_next)
        for (struct kept_counts *k = other->counts; k; k = k->next)
            if (k->image == image)
                return k;
    struct kept_counts *k = map_or_die(0, sizeof *k + 8ull * image->ncounters + image->nmarks, PROT_READ_ | PROT_WRITE_,
                                       MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_);
    *k = (struct kept_counts){.next = m->counts, .image = image};
    return m->counts = k;
}

struct keeping {
    uint64_t table;
    uint64_t *counters;
    uint8_t *marks;
};

static void keep_part(void *user, const struct data_range *r)
{
    const struct keeping *k = user;
    uint64_t first = (r->address - k->table) / r->width;
    if (r->width == 1)
        thread_merge_marks(r->address, r->n, k->marks + first);
    else {
        static uint64_t sums[PAGE_BYTES / 8] CORE_LARGE;
        const uint64_t *counts = thread_sum_counters(r->address, r->n, sums);
        for (uint32_t i = 0; i < r->n; i++)
            if (counts[i])
                k->counters[first + i] += counts[i];
    }
}

static void keep_table(void *user, const struct data_range *r)
{
    struct keeping *k = user;
    k->table = r->address;
    each_touched(r, keep_part, k);
}

void counts_keep(struct module *m)
{
    for (uint32_t i = 0; i < m->npieces; i++) {
        const struct image_header *image = m->pieces[i].image;
        uint64_t start = m->pieces[i].start, bytes = 8ull * image->ncounters + image->nmarks;
        if (!bytes)
            continue;
        struct kept_counts *kept = keeper_of(m, image);
        struct keeping k = {.counters = kept->counters, .marks = (uint8_t *)(kept->counters + image->ncounters)};
        open_pagemap();
        for (uint32_t width = 1; width <= 8; width += 7) {
            struct data_range r = {.width = width};
            one_table(start, image->ncounters, image->nmarks, image_part(image, image->counters_offset), &r, keep_table, &k);
        }
        close_pagemap();
        thread_clear_counters(start, PAGE_UP(start + bytes));
    }
}

void counts_forget(void)
{
    for (struct module *m = modules_loaded; m; m = m->loaded_next)
        for (struct kept_counts *k = m->counts; k; k = k->next)
            memset(k->counters, 0, 8ull * k->image->ncounters + k->image->nmarks);
}

/* ---- the report ---- */

void report_tool(struct thread_ctx *ctx)
{
    static struct bdbi_run run CORE_LARGE;
    size_t n;
    if (!options.tool || !options.tool->tool->report)
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
    if (run.marks)
        unmap_own(run.marks, run.mark_bytes);
    run.marks = NULL;
    run.mark_bytes = 0;
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
void learn_miss(struct module *m, uint32_t offset, const struct image_block *blocks, uint32_t n)
{
    m->jit_blocks += n;
    if (options.no_learn || !options.cache)
        return;
    if (!m->path || !m->path[0]) { /* a library from the cache: nobody has asked for its name yet */
        char found[1024];
        procfs_path_at(m->base, found, sizeof found);
        module_set_path(m, found);
    }
    static uint64_t buffer[MISSLOG_MAX_BYTES / 8] CORE_LARGE;
    struct misslog_record *record = (void *)buffer;
    const char *path = m->path;
    const char *tool = options.tool ? options.tool->text : "";
    size_t path_bytes = core_strlen(path), tool_bytes = core_strlen(tool), names = path_bytes + tool_bytes;
    size_t room = sizeof buffer - sizeof *record - names - 20;
    if (path_bytes > 4096)
        return;
    if (n > room / 4)
        n = (uint32_t)(room / 4);
    memset(buffer, 0, sizeof *record);
    record->magic = MISSLOG_MAGIC;
    record->id = m->id;
    cache_codegen(&record->codegen);
    record->path_bytes = (uint16_t)path_bytes;
    record->tool_bytes = (uint16_t)tool_bytes;
    char *p = (char *)(record + 1);
    memcpy(p, path, path_bytes);
    memcpy(p + path_bytes, tool, tool_bytes);
    while (names % 4)
        p[names++] = 0;
    uint32_t *offsets = (uint32_t *)(p + names);
    offsets[0] = offset;
    record->noffsets = 1;
    for (uint32_t i = 0; i < n; i++)
        if (blocks[i].app_offset != offset)
            offsets[record->noffsets++] = blocks[i].app_offset;
    if (m->displaced)
        offsets[record->noffsets++] = MISSLOG_DISPLACED;
    size_t bytes = sizeof *record + names + 4ull * record->noffsets;
    while (bytes % 8)
        ((char *)buffer)[bytes++] = 0;
    record->record_bytes = (uint32_t)bytes;
    logged |= log_append(buffer, bytes);
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
