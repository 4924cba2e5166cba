/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line of `bdbi run`. Children are run with the same options through the same syntax (options_child_args), so there
 * is no second format. Strings point into argv before the guest's, or are copies: a guest may write a title over its argv and
 * environment.
 */
#include "launcher/core.h"
#include "tools/args.h"

#define CACHE_PATH_BYTES 512

struct options options;

static const char *const usage =
    "usage: bdbi run [options] [--] PROG [ARGS...]\n"
    "  --cache DIR       the cache (default $BDBI_CACHE, $XDG_CACHE_HOME/bdbi, ~/.cache/bdbi)\n"
    "  --no-cache        translate everything now, store nothing\n"
    "  --no-learn        do not log what was missed\n"
    "  --tool NAME|PATH[:ARGS]  instrument with a tool, built in or a shared object; none: no tool\n"
    "  --stats[=FILE]    what was served and how, to stderr or appended to FILE, at exit\n"
    "  --fail-on-jit     exit with status 125 at the first miss, naming it\n"
    "  --path FILE       run FILE, with PROG as its argv[0]\n"
    "  --native          same placement, no translation\n"
    "  --train           for bdbi-warm --train: translate everything now, note what runs, report nothing\n"
    "  --verbose         say what is run natively and what the program sees otherwise than natively\n";

static const char *environment(char **envp, const char *name)
{
    size_t n = core_strlen(name);
    for (; *envp; envp++)
        if (!memcmp(*envp, name, n) && (*envp)[n] == '=' && (*envp)[n + 1])
            return *envp + n + 1;
    return NULL;
}

static const char *default_cache(char **envp)
{
    static char path[CACHE_PATH_BYTES] CORE_LARGE;
    const char *form = "%s", *dir = environment(envp, "BDBI_CACHE");
    if (!dir) {
        form = "%s/bdbi";
        dir = environment(envp, "XDG_CACHE_HOME");
    }
    if (!dir) {
        form = "%s/.cache/bdbi";
        dir = environment(envp, "HOME");
    }
    if (!dir)
        return NULL;
    format(path, sizeof path, form, dir);
    return path;
}

static void choose_tool(const char *text)
{
    static struct tool_choice chosen CORE_LARGE;
    char message[1024];
    if (tool_choose(text, &chosen, message, sizeof message))
        die(125, "%s", message);
    options.tool = chosen.tool ? &chosen : NULL;
}

struct option_parser {
    int argc, at;
    char **argv;
};

/* Matches `--name VALUE` and `--name=VALUE`. */
static const char *valued(struct option_parser *p, const char *name)
{
    const char *arg = p->argv[p->at];
    size_t n = core_strlen(name);
    if (memcmp(arg, name, n) != 0)
        return NULL;
    if (arg[n] == '=')
        return arg + n + 1;
    if (arg[n])
        return NULL;
    if (p->at + 1 >= p->argc)
        die(125, "%s needs a value: see bdbi run --help", name);
    return p->argv[++p->at];
}

static bool flag(struct option_parser *p, const char *name, bool *out)
{
    if (core_strcmp(p->argv[p->at], name))
        return false;
    *out = true;
    return true;
}

static uint64_t number(const char *text)
{
    uint64_t value = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (uint64_t)(*text - '0');
    return value;
}

static void parse_one(struct option_parser *p, bool *no_cache)
{
    const char *arg = p->argv[p->at], *value;
    if (flag(p, "--no-cache", no_cache) || flag(p, "--no-learn", &options.no_learn) || flag(p, "--native", &options.native) ||
        flag(p, "--fail-on-jit", &options.fail_on_jit) || flag(p, "--verbose", &options.verbose) ||
        flag(p, "--stats", &options.stats) || flag(p, "--child", &options.child) || flag(p, "--train", &options.train))
        return;
    if ((value = valued(p, "--cache")))
        options.cache = value;
    else if ((value = valued(p, "--tool")))
        choose_tool(value);
    else if ((value = valued(p, "--path")))
        options.path = value;
    else if ((value = valued(p, "--execfn")))
        options.execfn = value;
    else if ((value = valued(p, "--comm")))
        options.comm = value;
    else if ((value = valued(p, "--close-fd"))) /* between parent and child: see exec.c */
        options.close_fd = (int)number(value);
    else if ((value = valued(p, "--self-fd"))) {
        options.self_fd = (int)number(value);
        sys3(__NR_fcntl, options.self_fd, 2 /* F_SETFD */, 1);
    } else if ((value = valued(p, "--blocked")))
        options.blocked_sync = number(value);
    else if (!memcmp(arg, "--stats=", 8)) {
        options.stats = true;
        options.stats_file = arg + 8;
    } else if (!core_strcmp(arg, "--help")) {
        sys3(__NR_write, 1, usage, core_strlen(usage));
        sys1(__NR_exit_group, 0);
    } else
        die(125, "unknown option '%s': see bdbi run --help", arg);
}

/* The guest may change directory: the cache's path is made absolute once. */
static void make_absolute(void)
{
    static char absolute[CACHE_PATH_BYTES] CORE_LARGE;
    if (!options.cache || options.cache[0] == '/')
        return;
    long n = sys2(__NR_getcwd, absolute, sizeof absolute - 1);
    if (n <= 0)
        die(125, "the current directory cannot be named: give --cache an absolute path");
    n = (long)core_strlen(absolute);
    format(absolute + n, sizeof absolute - (size_t)n, "/%s", options.cache);
    options.cache = absolute;
}

int options_parse(int argc, char **argv, char **envp)
{
    struct option_parser p = {argc, 2, argv};
    bool no_cache = false;
    for (; p.at < argc && argv[p.at][0] == '-' && argv[p.at][1]; p.at++) {
        if (!core_strcmp(argv[p.at], "--")) {
            p.at++;
            break;
        }
        parse_one(&p, &no_cache);
    }
    if (p.at >= argc)
        die(125, "no program given: bdbi run [options] [--] PROG [ARGS...]");
    if (no_cache)
        options.cache = NULL, options.no_learn = true;
    else if (!options.cache)
        options.cache = default_cache(envp);
    make_absolute();
    if (options.train && !options.tool) {
        choose_tool("bbcov");
        options.own_tool = true;
    }
    if (options.cache && core_strlen(options.cache) >= CACHE_PATH_BYTES - 1) /* what is longer has been cut off */
        die(125, "the name of the cache's directory is too long: give --cache one of less than %d bytes", CACHE_PATH_BYTES - 1);
    size_t n;
    if ((options.stats && !options.stats_file) ||
        (options.tool && (options.tool->is_object || (!options.child && !tool_arg(options.tool->args, "out", &n)))))
        options.report_fd = (int)sys3(__NR_fcntl, 2, 1030 /* F_DUPFD_CLOEXEC */, 900);
    return p.at;
}

int options_child_args(const char **argv, int n, char *buffer, size_t buffer_bytes, const char *path)
{
    argv[n++] = "bdbi";
    argv[n++] = "run";
    argv[n++] = "--child";
    if (options.cache) {
        argv[n++] = "--cache";
        argv[n++] = options.cache;
    } else
        argv[n++] = "--no-cache";
    if (options.no_learn)
        argv[n++] = "--no-learn";
    if (options.train)
        argv[n++] = "--train";
    if (options.tool && !options.own_tool) {
        argv[n++] = "--tool";
        argv[n++] = options.tool->text;
    }
    if (options.stats) {
        format(buffer, buffer_bytes, options.stats_file ? "--stats=%s" : "--stats", options.stats_file);
        argv[n++] = buffer;
    }
    if (options.fail_on_jit)
        argv[n++] = "--fail-on-jit";
    if (options.verbose)
        argv[n++] = "--verbose";
    if (options.native)
        argv[n++] = "--native";
    argv[n++] = "--path";
    argv[n++] = path;
    argv[n++] = "--";
    return n;
}
