/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of tools that ship, and the choice of one, or of a shared object, by the text of --tool.
 */
#include "tools/registry.h"
#include "launcher/core.h"
#include "tools/args.h"

extern const struct bdbi_tool bbcount_tool, bbcov_tool;

static const struct bdbi_tool *const tools[] = {&bbcount_tool, &bbcov_tool};

const struct bdbi_tool *tool_builtin(unsigned n)
{
    return n < sizeof tools / sizeof *tools ? tools[n] : NULL;
}

static uint64_t fnv1a(uint64_t hash, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * 0x100000001b3ull;
    return hash;
}

uint64_t tool_fingerprint(const struct bdbi_tool *tool, uint64_t content, const char *args)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    size_t n, bytes;
    if (content)
        hash = fnv1a(hash, &content, sizeof content);
    else {
        hash = fnv1a(hash, tool->name, core_strlen(tool->name) + 1);
        hash = fnv1a(hash, &tool->version, sizeof tool->version);
    }
    for (const char *key = tool->weave_options; key && *key; key += n + (key[n] == ',')) {
        const char *value = tool_arg(args, key, &bytes);
        for (n = 0; key[n] && key[n] != ',';)
            n++;
        if (!value)
            continue;
        hash = fnv1a(hash, key, n);
        hash = fnv1a(fnv1a(hash, "=", 1), value, bytes);
        hash = fnv1a(hash, ",", 1);
    }
    return hash ? hash : 1;
}

/* The part of TEXT before the ':' that begins the arguments, "::" made one ':'; returns the rest, from that ':' on. */
static const char *split(const char *text, char *name, size_t name_bytes)
{
    size_t n = 0;
    for (; *text && !(text[0] == ':' && text[1] != ':'); text++) {
        text += *text == ':';
        if (n + 1 < name_bytes)
            name[n++] = *text;
    }
    name[n] = 0;
    return text;
}

const char *tool_object_path(const struct tool_choice *choice, char *path, size_t path_bytes)
{
    split(choice->text, path, path_bytes);
    return path;
}

static bool has_slash(const char *name)
{
    while (*name && *name != '/')
        name++;
    return *name;
}

/* PATH from the root, and the text that says so: with "::" for ':' and ARGUMENTS (from their ':' on). False: too long, or the
 * working directory has no name. */
static bool name_object(struct tool_choice *c, char *path, size_t path_bytes, const char *given, const char *arguments)
{
    char directory[TOOL_TEXT_BYTES];
    directory[0] = 0;
    if (given[0] != '/') {
        long got = sys2(__NR_getcwd, directory, sizeof directory);
        if (got <= 0 || directory[0] != '/')
            return false;
        while (given[0] == '.' && given[1] == '/')
            given += 2;
    }
    size_t n = format(path, path_bytes, directory[0] && directory[1] ? "%s/%s" : "%s%s", directory, given);
    if (n + 1 >= path_bytes)
        return false;
    n = 0;
    for (const char *p = path; *p && n + 2 < sizeof c->text; p++) {
        if (*p == ':')
            c->text[n++] = ':';
        c->text[n++] = *p;
    }
    n += format(c->text + n, sizeof c->text - n, "%s", arguments);
    return n + 1 < sizeof c->text;
}

static int find_builtin(struct tool_choice *c, const char *name, const char *text, char *message, size_t message_bytes)
{
    for (unsigned i = 0; !c->tool && tool_builtin(i); i++)
        if (!core_strcmp(tool_builtin(i)->name, name))
            c->tool = tool_builtin(i);
    size_t n = format(c->text, sizeof c->text, "%s", text);
    if (c->tool && n + 1 < sizeof c->text)
        return 0;
    n = format(message, message_bytes, "unknown tool '%s': the tools are none", name);
    for (unsigned i = 0; tool_builtin(i); i++)
        n += format(message + n, message_bytes - n, ", %s", tool_builtin(i)->name);
    format(message + n, message_bytes - n, ", or the path of a shared object (with a '/')");
    return -1;
}

static int complain_option(const struct bdbi_tool *tool, const char *bad, char *message, size_t message_bytes)
{
    const char *const lists[] = {tool->weave_options, tool->report_options};
    size_t n = format(message, message_bytes, "tool %s: unknown option '%s': it takes out=FILE", tool->name, bad);
    for (unsigned i = 0; i < 2; i++)
        for (const char *p = lists[i]; p && *p; p += *p == ',') {
            n += format(message + n, message_bytes - n, ", ");
            for (; *p && *p != ','; p++)
                n += format(message + n, message_bytes - n, "%c", *p);
            n += format(message + n, message_bytes - n, "=VALUE");
        }
    return -1;
}

int tool_choose(const char *text, struct tool_choice *c, char *message, size_t message_bytes)
{
    char name[TOOL_TEXT_BYTES], path[TOOL_TEXT_BYTES];
    const char *arguments = split(text, name, sizeof name);
    uint64_t content = 0;
    memset(c, 0, sizeof *c);
    if (!core_strcmp(text, "none"))
        return 0;
    c->is_object = has_slash(name);
    if (!c->is_object) {
        if (find_builtin(c, name, text, message, message_bytes))
            return -1;
    } else if (!name_object(c, path, sizeof path, name, arguments)) {
        format(message, message_bytes, "tool %s: its path cannot be made absolute, or is too long", name);
        return -1;
    } else if (!(c->tool = tool_load(path, &content, message, message_bytes)))
        return -1;
    c->args = *arguments ? c->text + core_strlen(c->text) - core_strlen(arguments) + 1 : "";
    const char *bad = tool_args_check(c->args, c->tool->weave_options, c->tool->report_options);
    if (bad) {
        complain_option(c->tool, bad, message, message_bytes);
        c->tool = NULL;
        return -1;
    }
    c->fingerprint = tool_fingerprint(c->tool, content, c->args);
    return 0;
}
