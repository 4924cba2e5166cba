/* SPDX-License-Identifier: Apache-2.0
 *
 * A hash table of 64-bit numbers: key -> value, key 0 not allowed. Grows by itself; entries are taken out only all together.
 * Running out of memory ends the program.
 */
#ifndef LOCKSTEP_TABLE_H
#define LOCKSTEP_TABLE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct table_entry {
    uint64_t key, value;
};

struct table {
    struct table_entry *at;
    size_t size, used;
};

static inline struct table_entry *table_slot(const struct table *t, uint64_t key)
{
    size_t i = (size_t)((key * 0x9e3779b97f4a7c15ull) >> 20) & (t->size - 1);
    while (t->at[i].key && t->at[i].key != key)
        i = (i + 1) & (t->size - 1);
    return &t->at[i];
}

/* The value's place, or NULL. Valid until the next table_put. */
static inline uint64_t *table_get(const struct table *t, uint64_t key)
{
    struct table_entry *e = t->size ? table_slot(t, key) : NULL;
    return e && e->key ? &e->value : NULL;
}

static inline void table_put(struct table *t, uint64_t key, uint64_t value)
{
    if (t->used * 2 >= t->size) {
        struct table old = *t;
        t->size = old.size ? old.size * 2 : 1024;
        t->at = calloc(t->size, sizeof *t->at);
        if (!t->at) {
            fprintf(stderr, "lockstep: out of memory\n");
            exit(2);
        }
        for (size_t i = 0; i < old.size; i++)
            if (old.at[i].key)
                *table_slot(t, old.at[i].key) = old.at[i];
        free(old.at);
    }
    struct table_entry *e = table_slot(t, key);
    t->used += e->key == 0;
    *e = (struct table_entry){key, value};
}

static inline void table_clear(struct table *t)
{
    free(t->at);
    *t = (struct table){0};
}

#endif
