/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a module's executable bytes by offset.
 */
#ifndef BDBI_JIT_TEXT_H
#define BDBI_JIT_TEXT_H

#include "jit/jit.h"

#define TEXT_WINDOW 15 /* the longest instruction */

/* A cursor over spans: consecutive reads are usually in the span of the last one. */
struct text {
    const struct text_span *spans;
    uint32_t nspans;
    uint32_t at; /* index of the span of the last read */
    uint8_t joined[TEXT_WINDOW];
};

static inline struct text text_of(const struct text_span *spans, uint32_t nspans)
{
    return (struct text){.spans = spans, .nspans = nspans};
}

/* Whether OFFSET is inside a span. */
bool text_has(struct text *t, uint64_t offset);

/* *BYTES: what is at OFFSET. Returns how many can be read there: 0 outside the spans, at least TEXT_WINDOW unless the text ends
 * before. Where an instruction may go on in the next span the bytes are joined in T and valid until the next call. */
size_t text_bytes(struct text *t, uint64_t offset, const uint8_t **bytes);

#endif
