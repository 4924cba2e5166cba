/* SPDX-License-Identifier: Apache-2.0
 *
 * Serving a module from the cache: the store is mapped once, read-only and executable; an image's code is a second mapping of
 * its pages, at the module's base + D. mremap makes it out of the first (MREMAP_DONTUNMAP leaves that in place), so the store's
 * descriptor is not needed after the start. Kernels before 5.13 cannot: there the file is opened again. On a noexec mount code
 * is copied.
 */
#include "cachedb/codegen_key.h"
#include "launcher/core.h"

#define COPY_OF_MAPPING 7 /* MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP */

static struct {
    struct cache_reader reader;
    struct codegen_key codegen;
    bool open, executable;
    uint64_t dev, ino;
    char path[600];
} cache;

static long map_store(int fd, uint64_t bytes)
{
    long map = core_mmap(0, bytes, PROT_READ_ | PROT_EXEC_, MAP_PRIVATE_, fd, 0);
    cache.executable = !sys_failed(map);
    return cache.executable ? map : core_mmap(0, bytes, PROT_READ_, MAP_PRIVATE_, fd, 0);
}

static long open_store(struct kernel_stat *st)
{
    long fd = sys4(__NR_openat, AT_FDCWD_, cache.path, O_RDONLY_ | O_CLOEXEC_, 0);
    if (fd >= 0 && sys2(__NR_fstat, fd, st) < 0)
        st->st_size = 0;
    return fd;
}

void cache_open(void)
{
    struct kernel_stat st;
    if (!options.cache)
        return;
    format(cache.path, sizeof cache.path, "%s/" CACHEDB_DATA, options.cache);
    long fd = open_store(&st);
    if (fd < 0)
        return;
    close_later((int)fd);
    uint64_t bytes = (uint64_t)st.st_size;
    long map = bytes < 2 * PAGE_BYTES ? -E_INVAL : map_store((int)fd, bytes);
    if (sys_failed(map) || cache_reader_init(&cache.reader, (void *)map, bytes) < 0)
        return;
    own_add((uint64_t)map, bytes);
    cache_codegen(&cache.codegen);
    cache.dev = st.st_dev;
    cache.ino = st.st_ino;
    cache.open = true;
}

void cache_codegen(struct codegen_key *out)
{
    codegen_key_make(options.tool ? options.tool->fingerprint : 0, out);
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

/* From the file itself, if it is still the one that is mapped: a damaged store may have been moved aside. */
static long map_from_file(uint64_t start, uint64_t offset, uint64_t bytes)
{
    struct kernel_stat st;
    long fd = open_store(&st), p = -E_NOENT;
    if (fd >= 0 && st.st_dev == cache.dev && st.st_ino == cache.ino)
        p = core_mmap(start, bytes, PROT_READ_ | PROT_EXEC_, MAP_PRIVATE_ | MAP_FIXED_, (int)fd, offset);
    if (fd >= 0)
        sys1(__NR_close, fd);
    return p;
}

/* BYTES of code from OFFSET of the store, at START. */
static long map_code(uint64_t start, uint64_t offset, uint64_t bytes)
{
    uint64_t from = (uint64_t)cache.reader.map + offset;
    bool ours = !window_shared && (start < BDBI_WINDOW_BYTES || start - window_base < BDBI_WINDOW_BYTES);
    if (!ours || !cache.executable) { /* nothing of the guest's may be there */
        int prot = cache.executable ? 0 : PROT_READ_ | PROT_WRITE_;
        long p = core_mmap(start, bytes, prot, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_FIXED_NOREPLACE_ | MAP_NORESERVE_, -1, 0);
        if (sys_failed(p) || (uint64_t)p != start)
            return -E_EXIST;
    }
    if (!cache.executable) {
        memcpy((void *)start, (void *)from, bytes);
        return core_mprotect(start, bytes, PROT_READ_ | PROT_EXEC_) < 0 ? -E_PERM : (long)start;
    }
    long p = sys5(__NR_mremap, from, bytes, bytes, COPY_OF_MAPPING, start);
    return p == -E_INVAL ? map_from_file(start, offset, bytes) : p;
}

void cache_attach(struct module *m, const struct cached_images *images)
{
    for (uint32_t i = 0; i < images->n; i++) {
        const struct image_header *image = images->images[i];
        uint64_t start = m->base + image->code_distance, bytes = PAGE_UP(image->code_bytes);
        uint64_t offset = (uint64_t)((const uint8_t *)image - cache.reader.map) + image->code_offset;
        if ((image->fixed_base != 0 && image->fixed_base != m->base) || image->span_bytes != m->end - m->base)
            break;
        long p = map_code(start, offset, bytes);
        if (sys_failed(p))
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
}

const uint32_t *cache_hot_list(const struct file_id *exe, size_t *bytes, uint32_t *generation)
{
    struct closure_key key = {.type = CACHEDB_HOT, .exe = *exe, .codegen = cache.codegen}, found;
    size_t found_bytes;
    if (!cache.open)
        return NULL;
    const uint32_t *list = cache_reader_seek(&cache.reader, &key, sizeof key, &found, sizeof found, &found_bytes, bytes);
    bool mine = list && found_bytes == sizeof found && !memcmp(&found, &key, offsetof(struct closure_key, serial));
    *generation = ~hot_serial(&found);
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

void cache_attach_vdso(struct module *m)
{
    struct cached_images images;
    const struct vdso_record *record = cache_vdso((const void *)m->base);
    m->vdso_waits = false;
    if (!record)
        return;
    memcpy(m->content, record->content, 32);
    m->has_content = true;
    cache_images(m->content, &images);
    cache_attach(m, &images);
}
