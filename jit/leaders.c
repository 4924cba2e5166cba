/* SPDX-License-Identifier: Apache-2.0
 *
 * Leader lookup: a bitmap over the module with a running count per word; small units, the JIT's, are searched instead.
 */
#include "jit/leaders.h"

#include <stdlib.h>
#include <string.h>

#include "internal/error.h"

#define SEARCH_MAX 512 /* up to so many leaders a bitmap over the module does not pay */

int leader_index_init(struct leader_index *index, const uint32_t *leaders, uint32_t nleaders)
{
    size_t words;
    uint32_t rank = 0;

    *index = (struct leader_index){.leaders = leaders, .nleaders = nleaders};
    if (nleaders <= SEARCH_MAX)
        return 0;
    index->first = leaders[0];
    words = (leaders[nleaders - 1] - index->first) / 64 + 1;
    index->bits = calloc(words, sizeof(*index->bits));
    index->ranks = malloc(words * sizeof(*index->ranks));
    if (!index->bits || !index->ranks) {
        leader_index_free(index);
        return -BDBI_ENOMEM;
    }
    for (uint32_t i = 0; i < nleaders; i++)
        index->bits[(leaders[i] - index->first) / 64] |= 1ull << ((leaders[i] - index->first) % 64);
    for (size_t i = 0; i < words; i++) {
        index->ranks[i] = rank;
        rank += (uint32_t)__builtin_popcountll(index->bits[i]);
    }
    return 0;
}

int leader_index_order(struct leader_index *index, const bool *first)
{
    uint32_t others = 0;

    index->order = malloc(index->nleaders * sizeof(*index->order));
    index->positions = malloc(index->nleaders * sizeof(*index->positions));
    if (!index->order || !index->positions)
        return -BDBI_ENOMEM;
    for (uint32_t i = 0; i < index->nleaders; i++) {
        if (first[i])
            index->order[index->nfirst++] = i;
        else
            index->positions[others++] = i; /* for now */
    }
    memcpy(index->order + index->nfirst, index->positions, others * sizeof(*index->order));
    for (uint32_t i = 0; i < index->nleaders; i++)
        index->positions[index->order[i]] = i;
    return 0;
}

void leader_index_free(struct leader_index *index)
{
    free(index->bits);
    free(index->ranks);
    free(index->order);
    free(index->positions);
    *index = (struct leader_index){0};
}

static uint32_t search(const struct leader_index *index, uint64_t offset)
{
    uint32_t low = 0, high = index->nleaders;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->leaders[middle] < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < index->nleaders && index->leaders[low] == offset ? low : LEADER_NONE;
}

uint32_t leader_find(const struct leader_index *index, uint64_t offset)
{
    uint64_t bit, word;

    if (!index->bits)
        return search(index, offset);
    if (offset < index->first || offset > index->leaders[index->nleaders - 1])
        return LEADER_NONE;
    bit = offset - index->first;
    word = index->bits[bit / 64];
    if (!(word >> (bit % 64) & 1))
        return LEADER_NONE;
    return index->ranks[bit / 64] + (uint32_t)__builtin_popcountll(word & ((1ull << (bit % 64)) - 1));
}
