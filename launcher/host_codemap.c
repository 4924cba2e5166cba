/* SPDX-License-Identifier: Apache-2.0
 *
 * Code maps: offsets of blocks that runs missed, and of those that ran, kept per content apart from the images, so that they
 * outlive translator and tool versions. Each round of learning adds a record with what is new.
 */
#include "include/internal/error.h"
#include "launcher/host.h"

#include <stdlib.h>
#include <string.h>

int host_offsets_add(struct host_offsets *o, uint32_t offset)
{
    if (o->count == o->room) {
        uint32_t room = o->room ? o->room * 2 : 256;
        uint32_t *list = realloc(o->list, room * sizeof *list);
        if (!list) {
            return -BDBI_ENOMEM;
        }
        o->list = list;
        o->room = room;
    }
    o->list[o->count++] = offset;
    return 0;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void host_offsets_sort(struct host_offsets *o)
{
    uint32_t kept = 0;
    if (o->count == 0) {
        return;
    }
    qsort(o->list, o->count, sizeof *o->list, ascending);
    for (uint32_t i = 0; i < o->count; i++) {
        if (i == 0 || o->list[i] != o->list[kept - 1]) {
            o->list[kept++] = o->list[i];
        }
    }
    o->count = kept;
}

void host_offsets_free(struct host_offsets *o)
{
    free(o->list);
    *o = (struct host_offsets){0};
}

struct load {
    struct host_offsets *out;
    uint32_t next_serial;
};

static int load_record(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct load *load = user;
    const struct codemap_key *k = key;
    if (key_bytes != sizeof *k) {
        return 0;
    }
    load->next_serial =
        ((uint32_t)k->serial[0] << 24 | (uint32_t)k->serial[1] << 16 | (uint32_t)k->serial[2] << 8 | k->serial[3]) + 1;
    for (size_t i = 0; i + 4 <= value_bytes; i += 4) {
        uint32_t offset;
        memcpy(&offset, (const uint8_t *)value + i, sizeof offset);
        int rc = host_offsets_add(load->out, offset);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

static int load_all(struct cachedb *db, enum cachedb_type type, const uint8_t content[32], struct load *load)
{
    uint8_t prefix[33] = {type};
    memcpy(prefix + 1, content, 32);
    int rc = cachedb_scan(db, prefix, sizeof prefix, load_record, load);
    host_offsets_sort(load->out);
    return rc;
}

int host_codemap_load(struct cachedb *db, enum cachedb_type type, const uint8_t content[32], struct host_offsets *out)
{
    struct load load = {.out = out};
    return load_all(db, type, content, &load);
}

static int put_record(struct cachedb *db, enum cachedb_type type, const uint8_t content[32], uint32_t serial,
                      const struct host_offsets *o)
{
    struct codemap_key key = {
        .type = type, .serial = {(uint8_t)(serial >> 24), (uint8_t)(serial >> 16), (uint8_t)(serial >> 8), (uint8_t)serial}};
    memcpy(key.content, content, sizeof key.content);
    return cachedb_put(db, &key, sizeof key, o->list, o->count * sizeof *o->list);
}

/* What is in OFFSETS and not in KNOWN; both ascend. */
static int subtract(const struct host_offsets *offsets, const struct host_offsets *known, struct host_offsets *fresh)
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < offsets->count; i++) {
        while (k < known->count && known->list[k] < offsets->list[i]) {
            k++;
        }
        if (k < known->count && known->list[k] == offsets->list[i]) {
            continue;
        }
        int rc = host_offsets_add(fresh, offsets->list[i]);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

int host_codemap_add(struct cachedb *db, enum cachedb_type type, const uint8_t content[32], const struct host_offsets *offsets)
{
    int rc = -BDBI_EEXIST;
    uint32_t added = 0;
    while (rc == -BDBI_EEXIST) { /* somebody else took the serial: look again at what is known */
        struct host_offsets known = {0}, fresh = {0};
        struct load load = {.out = &known};
        rc = load_all(db, type, content, &load);
        if (rc == 0) {
            rc = subtract(offsets, &known, &fresh);
        }
        if (rc == 0 && fresh.count > 0) {
            rc = put_record(db, type, content, load.next_serial, &fresh);
        }
        added = fresh.count;
        host_offsets_free(&known);
        host_offsets_free(&fresh);
    }
    return rc < 0 ? rc : (int)added;
}
