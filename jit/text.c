/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a module's executable bytes by offset: jit/text.h.
 */
#include "jit/text.h"

#include <string.h>

/* Index of the span that OFFSET is in, or nspans. */
static uint32_t find_span(const struct text *t, uint64_t offset)
{
    uint32_t low = 0, high = t->nspans;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (offset < t->spans[middle].start)
            high = middle;
        else if (offset >= t->spans[middle].end)
            low = middle + 1;
        else
            return middle;
    }
    return t->nspans;
}

bool text_has(struct text *t, uint64_t offset)
{
    uint32_t at;

    if (t->at < t->nspans && offset >= t->spans[t->at].start && offset < t->spans[t->at].end)
        return true;
    at = find_span(t, offset);
    if (at == t->nspans)
        return false;
    t->at = at;
    return true;
}

/* The first TEXT_WINDOW bytes at OFFSET, from as many adjacent spans as that takes. */
static size_t join(struct text *t, uint64_t offset)
{
    size_t n = 0;

    for (uint32_t i = t->at; i < t->nspans && n < TEXT_WINDOW; i++) {
        const struct text_span *span = &t->spans[i];
        size_t part;

        if (offset + n < span->start)
            break;
        part = (size_t)(span->end - (offset + n));
        if (part > TEXT_WINDOW - n)
            part = TEXT_WINDOW - n;
        memcpy(t->joined + n, span->bytes + (offset + n - span->start), part);
        n += part;
    }
    return n;
}

size_t text_bytes(struct text *t, uint64_t offset, const uint8_t **bytes)
{
    const struct text_span *span;
    size_t left;

    if (!text_has(t, offset))
        return 0;
    span = &t->spans[t->at];
    left = (size_t)(span->end - offset);
    *bytes = span->bytes + (offset - span->start);
    if (left >= TEXT_WINDOW || t->at + 1 == t->nspans || t->spans[t->at + 1].start != span->end)
        return left;
    *bytes = t->joined;
    return join(t, offset);
}
