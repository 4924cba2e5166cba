/* SPDX-License-Identifier: Apache-2.0
 *
 * Text output of the core: a small format function and lines on stderr. No allocation, any thread.
 */
#include "launcher/core.h"

struct text {
    char *out;
    size_t bytes, used;
};

static void put(struct text *t, char c)
{
    if (t->used + 1 < t->bytes)
        t->out[t->used++] = c;
}

static void put_string(struct text *t, const char *s)
{
    while (*s)
        put(t, *s++);
}

static void put_number(struct text *t, uint64_t value, unsigned base)
{
    char digits[24];
    int n = 0;
    do
        digits[n++] = "0123456789abcdef"[value % base];
    while ((value /= base));
    while (n > 0)
        put(t, digits[--n]);
}

size_t format_list(char *out, size_t out_bytes, const char *fmt, __builtin_va_list list)
{
    struct text t = {out, out_bytes, 0};
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            put(&t, *fmt);
            continue;
        }
        switch (*++fmt) {
        case 's':
            put_string(&t, __builtin_va_arg(list, const char *));
            break;
        case 'c':
            put(&t, (char)__builtin_va_arg(list, int));
            break;
        case 'd': {
            int value = __builtin_va_arg(list, int);
            if (value < 0)
                put(&t, '-');
            put_number(&t, value < 0 ? -(uint64_t)value : (uint64_t)value, 10);
            break;
        }
        case 'u':
            put_number(&t, __builtin_va_arg(list, uint64_t), 10);
            break;
        case 'x':
            put_number(&t, __builtin_va_arg(list, uint64_t), 16);
            break;
        default:
            put(&t, '%');
        }
    }
    out[t.used] = 0;
    return t.used;
}

size_t format(char *out, size_t out_bytes, const char *fmt, ...)
{
    __builtin_va_list list;
    __builtin_va_start(list, fmt);
    size_t n = format_list(out, out_bytes, fmt, list);
    __builtin_va_end(list);
    return n;
}

static void line(const char *fmt, __builtin_va_list list)
{
    char text[1024];
    size_t n = format(text, sizeof text - 1, "bdbi: ");
    n += format_list(text + n, sizeof text - 1 - n, fmt, list);
    text[n++] = '\n';
    sys3(__NR_write, 2, text, n);
}

void warn(const char *fmt, ...)
{
    __builtin_va_list list;
    __builtin_va_start(list, fmt);
    line(fmt, list);
    __builtin_va_end(list);
}

void explain(const char *fmt, ...)
{
    __builtin_va_list list;
    if (!options.verbose)
        return;
    __builtin_va_start(list, fmt);
    line(fmt, list);
    __builtin_va_end(list);
}

void die(int status, const char *fmt, ...)
{
    __builtin_va_list list;
    __builtin_va_start(list, fmt);
    line(fmt, list);
    __builtin_va_end(list);
    if (core_lock && ctx_self()->vfork_parent)
        lock_abandon(&core_lock, ctx_self());
    for (;;)
        sys1(__NR_exit_group, status);
}
