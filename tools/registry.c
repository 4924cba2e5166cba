/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of tools, and their arguments: "key=value,key=value".
 */
#include "tools/registry.h"

extern const struct bdbi_tool bbcount_tool;

static const struct bdbi_tool *const tools[] = {&bbcount_tool};

static bool same(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i] || !a[i])
            return false;
    return true;
}

static size_t length(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

const struct bdbi_tool *bdbi_tool_at(unsigned n)
{
    return n < sizeof tools / sizeof *tools ? tools[n] : NULL;
}

const struct bdbi_tool *bdbi_tool_find(const char *name)
{
    const struct bdbi_tool *tool;
    for (unsigned n = 0; (tool = bdbi_tool_at(n)); n++)
        if (length(tool->name) == length(name) && same(tool->name, name, length(name)))
            return tool;
    return NULL;
}

static size_t part_length(const char *args)
{
    size_t n = 0;
    while (args[n] && args[n] != ',')
        n++;
    return n;
}

const char *bdbi_tool_check_args(const char *args)
{
    while (*args) {
        if (!same(args, "out=", 4) || part_length(args) == 4)
            return args;
        args += part_length(args);
        args += *args == ',';
    }
    return NULL;
}

const char *bdbi_tool_arg(const char *args, const char *key, size_t *bytes)
{
    size_t n = length(key);
    while (*args) {
        size_t part = part_length(args);
        if (part > n && same(args, key, n) && args[n] == '=') {
            *bytes = part - n - 1;
            return args + n + 1;
        }
        args += part;
        args += *args == ',';
    }
    return NULL;
}
