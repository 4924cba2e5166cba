/* SPDX-License-Identifier: Apache-2.0
 *
 * What the library search needs besides directories: /etc/ld.so.cache and the glibc-hwcaps names of this CPU.
 */
#ifndef BDBI_ANALYZER_LDCACHE_H
#define BDBI_ANALYZER_LDCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A cache file in memory; all zero is an empty one. */
struct ldcache {
    const uint8_t *bytes; /* from its "glibc-ld.so.cache1.1" on */
    size_t nbytes;
    void *mapping;
    size_t mapping_bytes;
};

/* Opens the cache at PATH; a file that is missing or not a cache gives an empty one. */
void ldcache_open(struct ldcache *c, const char *path);
/* The same over BYTES, which stay the caller's. */
void ldcache_from_memory(struct ldcache *c, const uint8_t *bytes, size_t nbytes);
void ldcache_close(struct ldcache *c);

/* The path that ld.so would take for NAME on this CPU, inside the cache's memory; NULL: not in it. */
const char *ldcache_find(const struct ldcache *c, const char *name);

/* "x86-64-v4", "x86-64-v3", ... that this CPU supports, best first, ends with NULL. */
const char *const *hwcaps_supported(void);

#endif
