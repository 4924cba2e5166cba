/* SPDX-License-Identifier: Apache-2.0
 *
 * execve: the new program runs under bdbi too. The kernel is asked to execute bdbi itself (/proc/self/exe) with our options,
 * the file and the program's argument vector; what bdbi cannot run is executed as it is. Errors are those the kernel would
 * give, before anything is lost.
 */
#include "launcher/loader.h"

#define MAX_OWN_ARGS 32
#define MAX_SCRIPT_DEPTH 5
#define SMALL_VECTOR 512
#define AT_EMPTY_PATH_ 0x1000
#define AT_SYMLINK_NOFOLLOW_ 0x100

char *script_interpreter(struct exec_target *t, char **argument)
{
    char *p = t->head + 2, *end = t->head + (t->head_bytes < 256 ? t->head_bytes : 256);
    char *line_end = p;
    while (line_end < end && *line_end != '\n' && *line_end)
        line_end++;
    if (line_end == end && t->head_bytes >= 256)
        return NULL; /* longer than the kernel reads */
    if (line_end == t->head + EXEC_HEAD_BYTES)
        return NULL;
    *line_end = 0;
    while (*p == ' ' || *p == '\t')
        p++;
    while (line_end > p && (line_end[-1] == ' ' || line_end[-1] == '\t'))
        *--line_end = 0;
    if (!*p)
        return NULL;
    char *name = p;
    *argument = NULL;
    while (*p && *p != ' ' && *p != '\t')
        p++;
    if (*p) {
        *p++ = 0;
        while (*p == ' ' || *p == '\t')
            p++;
        *argument = p;
    }
    return name;
}

static size_t count_strings(char **vector)
{
    size_t n = 0;
    while (vector && vector[n])
        n++;
    return n;
}

/* One level of #!: [interpreter, argument, script] in place of argv[0]. */
struct arguments {
    const char *front[3 * MAX_SCRIPT_DEPTH + 1]; /* replaces argv[0]; nfront 0: argv as it is */
    int nfront;
    char text[2 * MAX_SCRIPT_DEPTH][256];
    int ntext;
};

static const char *keep(struct arguments *a, const char *text)
{
    char *copy = a->text[a->ntext++];
    format(copy, sizeof a->text[0], "%s", text);
    return copy;
}

long exec_check(const char *path)
{
    long result = sys3(__NR_execve, path, -PAGE_BYTES, 0);
    return result == -E_FAULT ? 0 : result;
}

/* Follows #! lines from PATH, which the kernel would call NAME. Returns the file to run, or NULL with *ERROR. TRACED: a tracer
 * must not see our calls to execve. */
static const char *resolve(struct exec_target *t, const char *path, const char *name, struct arguments *a, bool traced,
                           long *error)
{
    const char *why;
    uint64_t euid = (uint64_t)sys0(__NR_geteuid);
    for (int depth = 0;; depth++) {
        *error = exec_target_try(t, path, euid, &why);
        if (*error < 0)
            return NULL;
        sys1(__NR_close, t->fd);
        if (t->kind != EXEC_NATIVE && !traced && (*error = exec_check(path)) < 0)
            return NULL;
        if (t->kind != EXEC_SCRIPT)
            return path;
        char *argument, *interpreter = script_interpreter(t, &argument);
        *error = interpreter ? -E_LOOP : -E_NOEXEC;
        if (!interpreter || depth >= MAX_SCRIPT_DEPTH - 1)
            return NULL;
        const char *front[3] = {keep(a, interpreter)};
        int n = 1, rest = a->nfront ? 1 : 0;
        if (argument)
            front[n++] = keep(a, argument);
        front[n++] = depth ? path : name;
        /* the former front, but for its first string, follows */
        for (int i = a->nfront - 1; i >= rest; i--)
            a->front[i + n - rest] = a->front[i];
        for (int i = 0; i < n; i++)
            a->front[i] = front[i];
        a->nfront = a->nfront - rest + n;
        path = front[0];
    }
}

void exec_keep_self(void)
{
    if (options.native || options.self_fd)
        return;
    long fd = sys4(__NR_openat, AT_FDCWD_, "/proc/self/exe", O_PATH_ | O_CLOEXEC_, 0);
    if (fd < 0)
        return;
    long kept = sys3(__NR_fcntl, fd, 1030 /* F_DUPFD_CLOEXEC */, 900);
    options.self_fd = kept > 0 ? (int)kept : 0;
    sys1(__NR_close, fd);
}

/* An option between parent and child: goes before the "--" that VECTOR ends with. */
static int add_text(const char **vector, int used, const char *option, const char *value)
{
    vector[used - 1] = option;
    vector[used++] = value;
    vector[used++] = "--";
    return used;
}

static int add_number(const char **vector, int used, const char *option, char *text, size_t bytes, uint64_t value)
{
    format(text, bytes, "%u", value);
    return add_text(vector, used, option, text);
}

static long exec_self(const char **vector, char **envp)
{
    long result = sys3(__NR_execve, "/proc/self/exe", vector, envp);
    if (result != -E_NOENT || !options.self_fd)
        return result;
    sys3(__NR_fcntl, options.self_fd, 2 /* F_SETFD */, 0);
    result = sys5(__NR_execveat, options.self_fd, "", vector, envp, AT_EMPTY_PATH_);
    sys3(__NR_fcntl, options.self_fd, 2, 1);
    return result;
}

/* What the new program finds as its name. */
struct exec_names {
    const char *execfn; /* AT_EXECFN, and with its directory taken off /proc/self/comm */
    const char *comm;   /* NULL: EXECFN's */
};

static long exec_bdbi(const char *path, const struct exec_names *names, int kept, uint64_t blocked, const struct arguments *a,
                      char **argv, char **envp)
{
    const char *small[SMALL_VECTOR], **vector = small;
    char stats_text[600], kept_text[24], blocked_text[24], self_text[24];
    size_t n = count_strings(argv), total = n + MAX_OWN_ARGS + (size_t)a->nfront + 1;
    if (total > SMALL_VECTOR)
        vector = map_or_die(0, PAGE_UP(total * sizeof *vector), PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_);
    int used = options_child_args(vector, 0, stats_text, sizeof stats_text, path);
    if (core_strcmp(names->execfn, path))
        used = add_text(vector, used, "--execfn", names->execfn);
    if (names->comm)
        used = add_text(vector, used, "--comm", names->comm);
    if (kept >= 0)
        used = add_number(vector, used, "--close-fd", kept_text, sizeof kept_text, (uint64_t)kept);
    if (blocked)
        used = add_number(vector, used, "--blocked", blocked_text, sizeof blocked_text, blocked);
    if (options.self_fd)
        used = add_number(vector, used, "--self-fd", self_text, sizeof self_text, (uint64_t)options.self_fd);
    for (int i = 0; i < a->nfront; i++)
        vector[used++] = a->front[i];
    for (size_t i = a->nfront ? 1 : 0; i < n; i++)
        vector[used++] = argv[i];
    if (n == 0 && !a->nfront)
        vector[used++] = ""; /* as the kernel does for an empty argv */
    vector[used] = NULL;
    long result = exec_self(vector, envp);
    if (total > SMALL_VECTOR)
        unmap_own(vector, PAGE_UP(total * sizeof *vector));
    return result;
}

void exec_script(struct exec_target *t, const char *path, char **argv, char **envp)
{
    static struct arguments a CORE_LARGE;
    long error;
    sys1(__NR_close, t->fd);
    t->start = false;
    const char *file = resolve(t, path, path, &a, false, &error);
    if (error == -E_TXTBSY)
        die(126, "%s: " EXEC_BUSY, path);
    if (!file)
        die(126, "%s: its #! line names no usable interpreter", path);
    if (t->kind == EXEC_NATIVE)
        sys3(__NR_execve, path, argv, envp);
    else
        exec_bdbi(file, &(struct exec_names){.execfn = path}, -1, options.blocked_sync, &a, argv, envp);
    die(126, "%s: cannot be executed", path);
}

/* What descriptor FD has open, by name. A file without one (memfd, deleted) is kept open for the child, which closes it. */
static int path_of_descriptor(int fd, char *out, size_t bytes)
{
    char link[40];
    struct kernel_stat by_name, by_fd;
    format(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = sys4(__NR_readlinkat, AT_FDCWD_, link, out, bytes - 1);
    out[n > 0 ? n : 0] = 0;
    if (n > 0 && sys2(__NR_stat, out, &by_name) == 0 && sys2(__NR_fstat, fd, &by_fd) == 0 && by_name.st_ino == by_fd.st_ino &&
        by_name.st_dev == by_fd.st_dev)
        return -1;
    int kept = (int)sys3(__NR_fcntl, fd, 0 /* F_DUPFD */, 600);
    format(out, bytes, "/proc/self/fd/%d", kept);
    return kept;
}

/* Full path for execveat: DIRFD's directory, or the descriptor itself (AT_EMPTY_PATH). */
static int path_at(int dirfd, const char *path, int flags, char *out, size_t bytes, int *kept)
{
    if (!path[0]) {
        if (!(flags & AT_EMPTY_PATH_))
            return -E_NOENT;
        *kept = path_of_descriptor(dirfd, out, bytes);
    } else if (!memcmp(path, "/proc/self/fd/", 14) || !memcmp(path, "/dev/fd/", 8)) {
        int fd = 0;
        for (const char *p = path + (path[1] == 'p' ? 14 : 8); *p >= '0' && *p <= '9'; p++)
            fd = fd * 10 + *p - '0';
        *kept = path_of_descriptor(fd, out, bytes);
    } else if (path[0] == '/' || dirfd == AT_FDCWD_)
        format(out, bytes, "%s", path);
    else
        format(out, bytes, "/proc/self/fd/%d/%s", dirfd, path);
    return 0;
}

static bool readable_vector(char **vector)
{
    for (size_t i = 0; vector; i++) {
        char *s, c;
        if (copy_guest(&s, vector + i, sizeof s))
            return false;
        if (!s)
            break;
        if (copy_guest(&c, s, 1))
            return false;
    }
    return true;
}

static bool is_link(int dirfd, const char *path)
{
    struct kernel_stat st;
    return sys4(__NR_newfstatat, dirfd, path, &st, AT_SYMLINK_NOFOLLOW_) == 0 && (st.st_mode & 0170000) == 0120000;
}

bool guest_ptraces;

/* Whether the tracer of this process is a guest too: a debugger inside bdbi, which puts its breakpoints into the program's own
 * code and reads its own registers. */
static bool traced_by_guest(void)
{
    char status[1024];
    long fd = guest_ptraces ? sys4(__NR_openat, AT_FDCWD_, "/proc/self/status", O_CLOEXEC_, 0) : -1;
    if (fd < 0)
        return false;
    long n = sys3(__NR_read, fd, status, sizeof status - 16);
    sys1(__NR_close, fd);
    status[n > 0 ? n : 0] = 0;
    uint64_t pid = 0;
    for (const char *p = status; *p; p++)
        if (!memcmp(p, "\nTracerPid:\t", 12)) {
            for (p += 12; *p >= '0' && *p <= '9'; p++)
                pid = pid * 10 + (uint64_t)(*p - '0');
            break;
        }
    return pid && remote_is_guest(pid);
}

/* Whether a program executed by descriptor alone is called as its file, not as the descriptor's number: from Linux 6.14 on. */
static bool named_after_file(void)
{
    char names[6][65]; /* struct new_utsname */
    uint64_t version[2] = {0, 0};
    const char *p = names[2];
    if (sys1(__NR_uname, names) < 0)
        return false;
    for (int i = 0; i < 2; i++, p++)
        for (; *p >= '0' && *p <= '9'; p++)
            version[i] = version[i] * 10 + (uint64_t)(*p - '0');
    return version[0] > 6 || (version[0] == 6 && version[1] >= 14);
}

/* The name of PATH's file in its folder, symbolic links followed; "" if that cannot be told. */
static const char *name_of_file(const char *path, char *out, size_t bytes)
{
    char link[40];
    struct kernel_stat st;
    out[0] = 0;
    long fd = open_own(path, O_PATH_ | O_CLOEXEC_, 0);
    if (fd < 0)
        return out;
    format(link, sizeof link, "/proc/self/fd/%d", (int)fd);
    long n = sys4(__NR_readlinkat, AT_FDCWD_, link, out, bytes - 1);
    out[n > 0 ? n : 0] = 0;
    if (n > 10 && sys2(__NR_fstat, fd, &st) == 0 && st.st_nlink == 0)
        out[n - 10] = 0; /* " (deleted)" */
    sys1(__NR_close, fd);
    return core_basename(out);
}

struct exec_work {
    struct exec_target target;
    struct arguments arguments;
    struct exec_names names;
    char path[4096], given[4096], execfn[4096], comm[4096], head[EXEC_HEAD_BYTES] __attribute__((aligned(8)));
};

/* What the kernel calls W->given in DIRFD. */
static const char *name_given(struct exec_work *w, int dirfd)
{
    if (w->given[0] == '/' || (w->given[0] && dirfd == AT_FDCWD_))
        return w->given;
    format(w->execfn, sizeof w->execfn, w->given[0] ? "/dev/fd/%d/%s" : "/dev/fd/%d", dirfd, w->given);
    return w->execfn;
}

/* A script's interpreter gets its name: a name by way of DIRFD means nothing after the exec when that is closed by it. */
static bool script_out_of_reach(const struct exec_work *w, int dirfd)
{
    return w->arguments.nfront && w->names.execfn == w->execfn && sys3(__NR_fcntl, dirfd, 1 /* F_GETFD */, 0) == 1;
}

long sys_execve_guest(struct thread_ctx *ctx, int dirfd, const char *guest_path, char **argv, char **envp, int flags)
{
    struct exec_work work, *w = &work; /* the core stack has room, and its pages stay */
    w->target.start = false;
    w->arguments.nfront = w->arguments.ntext = 0;
    w->target.head = w->head;
    long n = guest_strlen(guest_path, sizeof w->given), error = n < 0 ? n : 0;
    int kept = -1;
    if (!error && copy_guest(w->given, guest_path, (size_t)n + 1))
        error = -E_FAULT;
    if (!error && (!readable_vector(argv) || !readable_vector(envp)))
        error = -E_FAULT;
    if (!error && flags & AT_SYMLINK_NOFOLLOW_ && is_link(dirfd, w->given))
        error = -E_LOOP;
    if (!error)
        error = path_at(dirfd, procfs_is_exe(w->given) ? guest_exe : w->given, flags, w->path, sizeof w->path, &kept);
    bool traced = !error && traced_by_guest();
    if (!error)
        w->names = (struct exec_names){.execfn = name_given(w, dirfd)};
    const char *file = error ? NULL : resolve(&w->target, w->path, w->names.execfn, &w->arguments, traced, &error);
    if (file && script_out_of_reach(w, dirfd)) {
        error = -E_NOENT;
        goto out;
    }
    if (file && kept >= 0 && w->arguments.nfront) { /* the interpreter opens the script by its name */
        sys1(__NR_close, kept);
        kept = -1;
    }
    if (!file && error == -E_MFILE)
        explain("execve gives EMFILE: bdbi needs a descriptor to look at %s", w->path);
    if (!file) {
        /* The kernel may still be able to (no read permission) or knows the error best. */
        if (!n || error == -E_FAULT || error == -E_LOOP)
            goto out;
        if (error == -E_ACCES || error == -E_NOEXEC)
            error = sys5(__NR_execveat, dirfd, guest_path, argv, envp, flags);
        goto out;
    }
    if (w->target.kind != EXEC_NATIVE && traced) {
        w->target.kind = EXEC_NATIVE;
        w->target.why = "a debugger inside bdbi traces it";
    }
    if (!w->given[0] && named_after_file() && *name_of_file(file, w->comm, sizeof w->comm))
        w->names.comm = core_basename(w->comm);
    core_finish(ctx, false);
    signals_for_exec(ctx, false);
    if (w->target.kind == EXEC_NATIVE) {
        explain("%s: %s: it runs natively", w->path, w->target.why);
        sys4(__NR_rt_sigprocmask, SIG_BLOCK_, &ctx->blocked_sync, 0, 8);
        error = dirfd == AT_FDCWD_ && !flags ? sys3(__NR_execve, guest_path, argv, envp) /* what a tracer expects to see */
                                             : sys5(__NR_execveat, dirfd, guest_path, argv, envp, flags);
        sys4(__NR_rt_sigprocmask, SIG_UNBLOCK_, &ctx->blocked_sync, 0, 8);
    } else
        error = exec_bdbi(file, &w->names, kept, ctx->blocked_sync, &w->arguments, argv, envp);
    signals_for_exec(ctx, true);
out:
    if (kept >= 0)
        sys1(__NR_close, kept);
    return error;
}
