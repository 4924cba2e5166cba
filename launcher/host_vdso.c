/* SPDX-License-Identifier: Apache-2.0
 *
 * The vdso: code that the kernel maps into every process, without a file. It is the same in all of them until the next boot, so
 * ours stands for the guest's.
 *
 *   | [vvar] | [vvar_vclock] | [vdso] |     data that it reads lies right below it, found by rip: both move together
 */
#include "include/internal/error.h"
#include "launcher/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

struct range {
    uint64_t start, end;
};

/* The mapping in /proc/self/maps that contains (END false) or ends at (END true) ADDRESS. *VVAR: it is the kernel's data. */
static bool find_mapping(uint64_t address, bool end, struct range *r, bool *vvar)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    bool found = false;
    char line[512];
    while (maps && !found && fgets(line, sizeof line, maps)) {
        unsigned long long from, to;
        if (sscanf(line, "%llx-%llx", &from, &to) == 2 && (end ? to == address : from <= address && address < to)) {
            *r = (struct range){from, to};
            *vvar = strstr(line, "[vvar") != NULL;
            found = true;
        }
    }
    if (maps) {
        fclose(maps);
    }
    return found;
}

/* The data mappings directly below START, lowest first. */
static void find_vvar(uint64_t start, struct vdso_record *record)
{
    struct range r;
    bool vvar;
    while (record->nvvar < VDSO_VVAR_MAX && find_mapping(start, true, &r, &vvar) && vvar) {
        memmove(&record->vvar_sizes[1], &record->vvar_sizes[0], record->nvvar * sizeof record->vvar_sizes[0]);
        record->vvar_sizes[0] = (uint32_t)(r.end - r.start);
        record->vvar_bytes += record->vvar_sizes[0];
        record->nvvar++;
        start = r.start;
    }
}

int host_vdso_read(struct vdso_record *record, void **bytes)
{
    uint64_t base = getauxval(AT_SYSINFO_EHDR);
    struct range r;
    bool vvar;
    memset(record, 0, sizeof *record);
    if (base == 0 || !find_mapping(base, false, &r, &vvar) || r.start != base || r.end - r.start > 1 << 20) {
        return -BDBI_ENOENT;
    }
    record->vdso_bytes = (uint32_t)(r.end - r.start);
    *bytes = malloc(record->vdso_bytes);
    if (!*bytes) {
        return -BDBI_ENOMEM;
    }
    memcpy(*bytes, (const void *)base, record->vdso_bytes); // NOLINT: an address from the kernel
    content_hash(*bytes, record->vdso_bytes, record->content);
    find_vvar(base, record);
    return 0;
}

/* ---- records ---- */

struct newest {
    const void *value;
    size_t bytes;
    bool found, same;
    uint32_t serial;
};

static int see(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct newest *n = user;
    const struct vdso_key *k = key;
    if (key_bytes != sizeof *k) {
        return 0;
    }
    if (!n->found) {
        n->found = true;
        n->serial = cachedb_serial(k->serial);
    }
    n->same = value_bytes == n->bytes && memcmp(value, n->value, value_bytes) == 0;
    return n->same;
}

int host_vdso_put(struct cachedb *db, const struct vdso_record *record, const void *bytes)
{
    size_t value_bytes = sizeof *record + record->vdso_bytes;
    uint8_t *value = malloc(value_bytes);
    if (!value) {
        return -BDBI_ENOMEM;
    }
    memcpy(value, record, sizeof *record);
    memcpy(value + sizeof *record, bytes, record->vdso_bytes);
    const uint8_t prefix = CACHEDB_VDSO;
    struct newest newest = {.value = value, .bytes = value_bytes};
    int rc = cachedb_scan(db, &prefix, 1, see, &newest);
    if (rc >= 0 && !newest.same) {
        struct vdso_key key = {.type = CACHEDB_VDSO};
        cachedb_set_serial(key.serial, newest.found ? newest.serial - 1 : UINT32_MAX);
        rc = cachedb_put(db, &key, sizeof key, value, value_bytes);
    }
    free(value);
    return rc == -BDBI_EEXIST || rc > 0 ? 0 : rc;
}
