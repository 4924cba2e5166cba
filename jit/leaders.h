/* SPDX-License-Identifier: Apache-2.0
 *
 * Which leader an offset is, in constant time: one question per direct branch, millions per large library. And in which order
 * the leaders' blocks are in the code.
 */
#ifndef BDBI_JIT_LEADERS_H
#define BDBI_JIT_LEADERS_H

#include <stdbool.h>
#include <stdint.h>

#define LEADER_NONE 0xffffffffu

struct leader_index {
    const uint32_t *leaders;
    uint32_t nleaders;
    uint32_t first;      /* offset of bit 0 */
    uint64_t *bits;      /* one per byte of module from `first`; NULL: few leaders, searched */
    uint32_t *ranks;     /* leaders before each word of bits */
    uint32_t *order;     /* the leader whose block comes first in the code, second, ...; NULL: they come as the leaders do */
    uint32_t *positions; /* of each leader in that */
    uint32_t nfirst;     /* how many of ORDER come before the others */
};

/* 0 or -BDBI_ENOMEM. LEADERS stays the caller's and must outlive the index. Then any thread may ask. */
int leader_index_init(struct leader_index *index, const uint32_t *leaders, uint32_t nleaders);
/* Blocks of leaders that are FIRST come first in the code. 0 or -BDBI_ENOMEM. */
int leader_index_order(struct leader_index *index, const bool *first);
void leader_index_free(struct leader_index *index);

/* The leader's number, or LEADER_NONE. */
uint32_t leader_find(const struct leader_index *index, uint64_t offset);

static inline uint32_t leader_at(const struct leader_index *index, uint32_t position)
{
    return index->order ? index->order[position] : position;
}

static inline uint32_t leader_position(const struct leader_index *index, uint32_t leader)
{
    return index->positions ? index->positions[leader] : leader;
}

#endif
