/* SPDX-License-Identifier: Apache-2.0
 *
 * /etc/ld.so.cache, read with bounds checks. Layout (offsets from the header's own start; all little-endian):
 *
 *     [old-format cache, "ld.so-1.7.0": skipped]
 *     header   20 bytes "glibc-ld.so.cache1.1"; u32 count; u32 string bytes; u8 flags, 3 unused; u32 extension; 3 x u32 unused
 *     entry    count x { u32 flags; u32 name; u32 path; u32 unused; u64 hwcap }      (name, path: string offsets)
 *     strings
 *     extension  u32 magic; u32 sections; section { u32 tag; u32 flags; u32 offset; u32 bytes }
 *                tag 1: u32 string offsets of glibc-hwcaps names, which an entry's hwcap refers to by index
 *
 * Of several entries of one name the one with the best supported hwcap counts, then the first without any.
 */
#include "analyzer/ldcache.h"
#include "analyzer/elf_view.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAGIC_BYTES = 20,
    HEADER_BYTES = 48,
    ENTRY_BYTES = 24,
    OLD_HEADER_BYTES = 16, /* "ld.so-1.7.0", padding, u32 count */
    OLD_ENTRY_BYTES = 12,
    FLAGS_X86_64_LIBC6 = 0x0303,
    TAG_HWCAPS = 1,
};
#define MAGIC "glibc-ld.so.cache1.1"
#define OLD_MAGIC "ld.so-1.7.0"
#define EXTENSION_MAGIC 0xeaa42174u
#define HWCAP_EXTENSION (1ull << 62)
#define HWCAP_LEVEL_MASK (0x3ffull << 32)

static bool inside(const struct ldcache *c, uint64_t offset, uint64_t n)
{
    return offset <= c->nbytes && n <= c->nbytes - offset;
}

static uint32_t field(const struct ldcache *c, uint64_t offset)
{
    return load32(c->bytes + offset);
}

static const char *string_at(const struct ldcache *c, uint32_t offset)
{
    if (offset >= c->nbytes || !memchr(c->bytes + offset, 0, c->nbytes - offset))
        return NULL;
    return (const char *)c->bytes + offset;
}

void ldcache_from_memory(struct ldcache *c, const uint8_t *bytes, size_t nbytes)
{
    memset(c, 0, sizeof *c);
    size_t start = 0;
    if (nbytes >= OLD_HEADER_BYTES && memcmp(bytes, OLD_MAGIC, sizeof OLD_MAGIC - 1) == 0)
        start = (OLD_HEADER_BYTES + (size_t)load32(bytes + OLD_HEADER_BYTES - 4) * OLD_ENTRY_BYTES + 7) & ~(size_t)7;
    if (start > nbytes || nbytes - start < HEADER_BYTES || memcmp(bytes + start, MAGIC, MAGIC_BYTES) != 0)
        return;
    c->bytes = bytes + start;
    c->nbytes = nbytes - start;
    if (!inside(c, HEADER_BYTES, (uint64_t)field(c, MAGIC_BYTES) * ENTRY_BYTES))
        memset(c, 0, sizeof *c);
}

void ldcache_open(struct ldcache *c, const char *path)
{
    memset(c, 0, sizeof *c);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p != MAP_FAILED) {
            ldcache_from_memory(c, p, (size_t)st.st_size);
            c->mapping = p;
            c->mapping_bytes = (size_t)st.st_size;
        }
    }
    close(fd);
}

void ldcache_close(struct ldcache *c)
{
    if (c->mapping)
        munmap(c->mapping, c->mapping_bytes);
    memset(c, 0, sizeof *c);
}

/* Name INDEX of the glibc-hwcaps list. */
static const char *hwcap_name(const struct ldcache *c, uint32_t index)
{
    uint32_t extension = field(c, MAGIC_BYTES + 12);
    if (!extension || !inside(c, extension, 8) || field(c, extension) != EXTENSION_MAGIC)
        return NULL;
    uint32_t sections = field(c, extension + 4);
    for (uint32_t i = 0; i < sections; i++) {
        uint64_t section = extension + 8 + (uint64_t)i * 16;
        if (!inside(c, section, 16))
            return NULL;
        if (field(c, section) != TAG_HWCAPS)
            continue;
        uint64_t list = field(c, section + 8);
        if (index >= field(c, section + 12) / 4 || !inside(c, list + 4ull * index, 4))
            return NULL;
        return string_at(c, field(c, list + 4ull * index));
    }
    return NULL;
}

/* 0: the best supported hwcap, 1: the next, ...; -1: not for this CPU. Entries without one come behind all. */
static int rank(const struct ldcache *c, uint64_t hwcap)
{
    const char *const *supported = hwcaps_supported();
    int n = 0;
    while (supported[n])
        n++;
    if (hwcap == 0)
        return n;
    if ((hwcap & ~HWCAP_LEVEL_MASK & ~0xffffffffull) != HWCAP_EXTENSION)
        return -1;
    const char *name = hwcap_name(c, (uint32_t)hwcap);
    for (int i = 0; name && i < n; i++)
        if (strcmp(name, supported[i]) == 0)
            return i;
    return -1;
}

const char *ldcache_find(const struct ldcache *c, const char *name)
{
    const char *best = NULL;
    int best_rank = 0;
    uint32_t count = c->bytes ? field(c, MAGIC_BYTES) : 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *entry = c->bytes + HEADER_BYTES + (size_t)i * ENTRY_BYTES;
        const char *key = string_at(c, load32(entry + 4)), *path = string_at(c, load32(entry + 8));
        if (load32(entry) != FLAGS_X86_64_LIBC6 || !key || !path || strcmp(key, name) != 0)
            continue;
        int r = rank(c, load64(entry + 16));
        if (r >= 0 && (!best || r < best_rank)) {
            best = path;
            best_rank = r;
        }
    }
    return best;
}
