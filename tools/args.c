/* SPDX-License-Identifier: Apache-2.0
 *
 * A tool's arguments.
 */
#include "tools/args.h"

static size_t part_length(const char *args)
{
    size_t n = 0;
    while (args[n] && args[n] != ',')
        n++;
    return n;
}

/* Bytes before the first '=' of a part; the part's own length if it has none. */
static size_t key_length(const char *part)
{
    size_t n = 0, bytes = part_length(part);
    while (n < bytes && part[n] != '=')
        n++;
    return n;
}

static const char *next_part(const char *part)
{
    part += part_length(part);
    return part + (*part == ',');
}

static bool same(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    if (a_bytes != b_bytes)
        return false;
    for (size_t i = 0; i < a_bytes; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

const char *tool_arg(const char *args, const char *key, size_t *bytes)
{
    size_t key_bytes = key_length(key);
    for (; args && *args; args = next_part(args)) {
        size_t n = key_length(args), part = part_length(args);
        if (n < part && same(args, n, key, key_bytes)) {
            *bytes = part - n - 1;
            return args + n + 1;
        }
    }
    return NULL;
}

bool tool_list_has(const char *list, const char *key, size_t key_bytes)
{
    for (; list && *list; list = next_part(list))
        if (same(list, part_length(list), key, key_bytes))
            return true;
    return false;
}

const char *tool_args_check(const char *args, const char *weave_options, const char *report_options)
{
    for (; *args; args = next_part(args)) {
        size_t key = key_length(args);
        if (key + 1 >= part_length(args) ||
            !(same(args, key, "out", 3) || tool_list_has(weave_options, args, key) || tool_list_has(report_options, args, key)))
            return args;
    }
    return NULL;
}
