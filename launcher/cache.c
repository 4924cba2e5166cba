/* SPDX-License-Identifier: Apache-2.0
 *
 * Serving a module from the cache: the store is mapped once, read-only; an image's code is mapped straight from the file at the
 * module's base + D, executable and never writable.
 */
#include "cachedb/codegen_key.h"
#include "launcher/core.h"

static struct {
    struct cache_reader reader;
    struct codegen_key codegen;
    int fd;
    bool open;
} cache = {.fd = -1};

/* Descriptors of the core live high, out of the guest's sight and numbering, and only while it starts. The store's file is
 * opened again for a library that is mapped later. */
static char data_path[600];

static struct kernel_stat store;

static int open_store(void)
{
    return (int)sys4(__NR_openat, AT_FDCWD_, data_path, O_RDONLY_ | O_CLOEXEC_, 0);
}

/* The store again, if it is still the file that is mapped: a damaged one may have been moved aside. */
static int reopen_store(void)
{
    struct kernel_stat st;
    int fd = open_store();
    if (fd >= 0 && (sys2(__NR_fstat, fd, &st) < 0 || st.st_dev != store.st_dev || st.st_ino != store.st_ino)) {
        sys1(__NR_close, fd);
        return -1;
    }
    return fd;
}

void cache_open(void)
{
    if (!options.cache)
        return;
    format(data_path, sizeof data_path, "%s/" CACHEDB_DATA, options.cache);
    cache.fd = open_store();
    if (cache.fd < 0)
        return;
    if (sys2(__NR_fstat, cache.fd, &store) < 0 || store.st_size < 2 * (int64_t)PAGE_BYTES)
        return;
    long map = core_mmap(0, store.st_size, PROT_READ_, MAP_SHARED_, cache.fd, 0);
    if (sys_failed(map) || cache_reader_init(&cache.reader, (void *)map, store.st_size) < 0)
        return;
    own_add((uint64_t)map, (uint64_t)store.st_size);
    codegen_key_make(options.tool, &cache.codegen);
    cache.open = true;
}

void cache_close_descriptor(void)
{
    if (cache.fd >= 0)
        sys1(__NR_close, cache.fd);
    cache.fd = -1;
}

void cache_codegen(struct codegen_key *out)
{
    codegen_key_make(options.tool, out);
}

bool cache_find(const struct file_id *id, uint8_t content[32])
{
    if (!cache.open)
        return false;
    struct identity_key key = {CACHEDB_IDENTITY, *id};
    return cache_reader_copy(&cache.reader, &key, sizeof key, content, 32) == 0;
}

static bool image_usable(const struct image_header *image, size_t bytes, const uint8_t content[32])
{
    return bytes >= sizeof *image && ((const uint8_t *)image - cache.reader.map) % PAGE_BYTES == IMAGE_VALUE_OFFSET &&
           image_header_check(image, bytes) == 0 && !memcmp(image->content_hash, content, 32);
}

/* Extents of the newest epoch are neighbours and come in order. */
void cache_images(const uint8_t content[32], struct cached_images *out)
{
    out->n = 0;
    out->code_bytes = 0;
    if (!cache.open)
        return;
    struct image_key key = {.type = CACHEDB_IMAGE, .codegen = cache.codegen}, found;
    memcpy(key.content, content, 32);
    while (out->n < MODULE_EXTENTS) {
        size_t found_bytes, bytes;
        const struct image_header *image =
            cache_reader_seek(&cache.reader, &key, sizeof key, &found, sizeof found, &found_bytes, &bytes);
        if (!image || found_bytes != sizeof found || memcmp(&found, &key, offsetof(struct image_key, inverse_epoch)) ||
            (out->n > 0 && found.inverse_epoch != key.inverse_epoch) || found.extent != out->n ||
            !image_usable(image, bytes, content))
            break;
        out->images[out->n++] = image;
        uint64_t end = image->code_distance - BDBI_CODE_DISTANCE + PAGE_UP(image->code_bytes);
        if (end > out->code_bytes)
            out->code_bytes = end;
        key = found;
        key.extent++;
    }
}

void cache_attach(struct module *m, const struct cached_images *images)
{
    int fd = cache.fd >= 0 ? cache.fd : images->n ? reopen_store() : -1;
    if (fd < 0)
        return;
    for (uint32_t i = 0; i < images->n; i++) {
        const struct image_header *image = images->images[i];
        uint64_t start = m->base + image->code_distance, bytes = PAGE_UP(image->code_bytes);
        uint64_t offset = (uint64_t)((const uint8_t *)image - cache.reader.map) + image->code_offset;
        if ((image->fixed_base != 0 && image->fixed_base != m->base) || image->span_bytes != m->end - m->base)
            break;
        long p = core_mmap(start, bytes, PROT_READ_ | PROT_EXEC_, MAP_PRIVATE_ | MAP_FIXED_NOREPLACE_, fd, offset);
        if (p == -E_PERM || p == -E_ACCES) { /* a noexec mount: a copy, never writable and executable at once */
            p = core_mmap(start, bytes, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_FIXED_NOREPLACE_, -1, 0);
            if (!sys_failed(p)) {
                memcpy((void *)p, cache.reader.map + offset, image->code_bytes);
                core_mprotect(p, bytes, PROT_READ_ | PROT_EXEC_);
            }
        }
        if (sys_failed(p) || (uint64_t)p != start)
            break;
        m->pieces[m->npieces++] = (struct code_piece){image, start, start + bytes};
        m->code_end = start + bytes;
        stats.cache_blocks += image->nblocks;
        stats.bytes_mapped += bytes;
    }
    if (m->npieces) {
        stats.modules_cached++;
        hot_fill(m);
    }
    if (fd >= 0 && fd != cache.fd)
        sys1(__NR_close, fd);
}

const uint32_t *cache_hot_list(const struct file_id *exe, size_t *bytes)
{
    struct closure_key key = {.type = CACHEDB_HOT, .exe = *exe, .codegen = cache.codegen}, found;
    size_t found_bytes;
    if (!cache.open)
        return NULL;
    const uint32_t *list = cache_reader_seek(&cache.reader, &key, sizeof key, &found, sizeof found, &found_bytes, bytes);
    bool mine = list && found_bytes == sizeof found && !memcmp(&found, &key, offsetof(struct closure_key, serial));
    return mine && *bytes >= HOTLIST_MIN_BYTES ? list : NULL;
}

/* The newest vdso record whose content is that of this kernel's vdso. */
const struct vdso_record *cache_vdso(const void *vdso)
{
    if (!cache.open)
        return NULL;
    struct vdso_key key = {.type = CACHEDB_VDSO}, found;
    for (int tries = 0; tries < 8; tries++) {
        size_t found_bytes, bytes;
        const struct vdso_record *record =
            cache_reader_seek(&cache.reader, &key, sizeof key, &found, sizeof found, &found_bytes, &bytes);
        if (!record || found_bytes != sizeof found || found.type != CACHEDB_VDSO || bytes < sizeof *record ||
            bytes < sizeof *record + record->vdso_bytes)
            return NULL;
        if (!memcmp(record + 1, vdso, record->vdso_bytes))
            return record;
        key = found;
        for (int i = 3; i >= 0 && ++key.serial[i] == 0; i--)
            ;
    }
    return NULL;
}
