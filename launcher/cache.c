/* SPDX-License-Identifier: Apache-2.0
 *
 * Serving a module from the cache: the store is mapped once, read-only and executable; an image's code is a second mapping of
 * its pages, at the module's base + D. mremap makes it out of the first (MREMAP_DONTUNMAP leaves that in place), so the store's
 * descriptor is not needed after the start. Kernels before 5.13 cannot: there the file is opened again. On a noexec mount code
 * is copied.
 *
 * While the descriptor is open the store is read through it, since the first touch of each piece of a large mapping costs
 * several times as much as a read. What the program's start record names is looked up then, all of it in one transaction.
 */
#include "cachedb/codegen_key.h"
#include "launcher/core.h"

#define COPY_OF_MAPPING 7 /* MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP */

#define VDSO_TRIES 8
#define EXPECTED_MOST 1024 /* modules that are looked up before they are mapped */

_Static_assert(sizeof(struct image_header) <= CACHE_READER_HEAD_MAX && sizeof(struct vdso_record) <= CACHE_READER_HEAD_MAX,
               "what is read of a value in the store");

struct expected {
    const struct start_section *section;
    const struct vdso_record *vdso; /* if it is the vdso */
    struct cached_images images;
};

static struct {
    struct cache_reader reader;
    struct codegen_key codegen;
    struct expected *expected;
    uint32_t nexpected, found; /* behind the one that was found last */
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

static bool read_store(const struct cache_file *f, uint64_t offset, void *to, size_t bytes)
{
    return sys4(__NR_pread64, f->fd, to, bytes, offset) == (long)bytes;
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
    struct cache_file *file = heap_alloc(sizeof *file);
    *file = (struct cache_file){.read = read_store, .fd = (int)fd, .pages = start_scratch(START_SCRATCH_STORE)};
    if (sys_failed(map) || (cache_reader_init(&cache.reader, (void *)map, bytes, file) < 0 &&
                            cache_reader_init(&cache.reader, (void *)map, bytes, NULL) < 0))
        return;
    own_add((uint64_t)map, bytes);
    cache_codegen(&cache.codegen);
    cache.dev = st.st_dev;
    cache.ino = st.st_ino;
    cache.open = true;
}

void cache_codegen(struct codegen_key *out)
{
    codegen_key_make(options.tool && !options.own_tool ? options.tool->fingerprint : 0, out);
}

void cache_closing(void)
{
    cache.reader.file = NULL;
}

static bool image_usable(const struct image_header *image, const struct image_header *head, size_t bytes,
                         const uint8_t content[32])
{
    return bytes >= sizeof *head && ((const uint8_t *)image - cache.reader.map) % PAGE_BYTES == IMAGE_VALUE_OFFSET &&
           image_header_check(head, bytes) == 0 && !memcmp(head->content_hash, content, 32);
}

/* One more image. False: it does not go with the others. */
static bool add_image(struct cached_images *out, const struct image_header *image, const struct image_header *head)
{
    uint64_t end = (uint64_t)head->code_distance - BDBI_CODE_DISTANCE + PAGE_UP(head->code_bytes);
    if (out->n == 0) {
        out->span_bytes = head->span_bytes;
        out->fixed_base = head->fixed_base;
        out->linked = head->linked;
        out->checksum = head->head_checksum;
    }
    out->marks |= head->nmarks > 0;
    if (head->span_bytes != out->span_bytes || head->fixed_base != out->fixed_base)
        return false;
    out->images[out->n++] = (struct cached_image){
        image,
        (uint64_t)head->code_distance,
        head->code_offset,
        head->code_bytes,
        {head->counters_offset, head->ncounters, head->nmarks, head->ran_counters, head->ran_marks, head->data_address}};
    if (end > out->code_bytes)
        out->code_bytes = end;
    if (head->constants_start < head->constants_end) {
        if (out->constants_start == out->constants_end || head->constants_start < out->constants_start)
            out->constants_start = head->constants_start;
        if (head->constants_end > out->constants_end)
            out->constants_end = head->constants_end;
    }
    if (head->nlinks) {
        out->relro_start = head->relro_start;
        out->relro_end = head->relro_end;
    }
    return true;
}

static void no_images(struct cached_images *out)
{
    out->n = out->constants_start = out->constants_end = out->relro_start = out->relro_end = 0;
    out->code_bytes = out->fixed_base = 0;
    out->linked = out->marks = false;
}

/* Extents of the newest epoch are neighbours and come in order. */
static void find_images(const uint8_t content[32], struct cached_images *out)
{
    no_images(out);
    if (options.train)
        return;
    struct image_key key = {.type = CACHEDB_IMAGE, .codegen = cache.codegen}, found;
    size_t same = offsetof(struct image_key, inverse_epoch), found_bytes, bytes;
    memcpy(key.content, content, 32);
    while (out->n < MODULE_EXTENTS) {
        struct image_header head;
        const struct image_header *image = cache_reader_seek_head(&cache.reader, &key, sizeof key, same, &found, sizeof found,
                                                                  &found_bytes, &head, sizeof head, &bytes);
        if (!image || found_bytes != sizeof found || found.extent != out->n || !image_usable(image, &head, bytes, content) ||
            !add_image(out, image, &head))
            break;
        key = found;
        key.extent++;
        same = offsetof(struct image_key, extent);
    }
}

/* They come in much the same order as before. */
static const struct expected *expected_find(const struct file_id *id)
{
    for (uint32_t i = 0; i < cache.nexpected; i++) {
        const struct expected *e = &cache.expected[(cache.found + i) % cache.nexpected];
        if (!memcmp(&e->section->id, id, sizeof *id)) {
            cache.found = (uint32_t)(e - cache.expected) + 1;
            return e;
        }
    }
    return NULL;
}

bool cache_find(const struct file_id *id, uint8_t content[32], struct cached_images *images)
{
    no_images(images);
    if (!cache.open)
        return false;
    const struct expected *e = expected_find(id);
    if (e) {
        memcpy(content, e->section->content, 32);
        *images = e->images;
        return true;
    }
    struct identity_key key = {CACHEDB_IDENTITY, *id};
    bool known = cache_reader_copy(&cache.reader, &key, sizeof key, content, 32) == 0;
    if (known)
        find_images(content, images);
    return known;
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

bool cache_restore(const struct code_piece *p)
{
    uint64_t offset = (uint64_t)((const uint8_t *)p->image - cache.reader.map) + p->image->code_offset;
    uint64_t from = (uint64_t)cache.reader.map + offset, bytes = p->end - p->start;
    long at = sys5(__NR_mremap, from, bytes, bytes, COPY_OF_MAPPING, p->start);
    return !sys_failed(at == -E_INVAL ? map_from_file(p->start, offset, bytes) : at);
}

void cache_attach(struct module *m, const struct cached_images *images)
{
    for (uint32_t i = 0; i < images->n; i++) {
        const struct cached_image *c = &images->images[i];
        uint64_t start = m->base + c->code_distance, bytes = PAGE_UP(c->code_bytes);
        uint64_t offset = (uint64_t)((const uint8_t *)c->image - cache.reader.map) + c->code_offset;
        if ((images->fixed_base != 0 && images->fixed_base != m->base) || images->span_bytes != m->end - m->base)
            break;
        long p = map_code(start, offset, bytes);
        if (sys_failed(p))
            break;
        m->pieces[m->npieces++] = (struct code_piece){c->image, start, start + bytes, c->data, 0};
        m->code_end = start + bytes;
        stats.bytes_mapped += bytes;
        if (options.stats)
            stats.cache_blocks += c->image->nblocks;
    }
    m->checksum = images->checksum;
    m->constants_start = images->constants_start;
    m->constants_end = images->constants_end;
    m->relro_start = images->relro_start;
    m->relro_end = images->relro_end;
    if (m->npieces) {
        marks_wait |= images->marks && cache.executable;
        stats.modules_cached++;
        hot_fill(m);
    }
}

/* ---- the vdso ---- */

/* The first vdso record from *KEY on, which moves behind it; *HEAD: its fixed part. */
static const struct vdso_record *next_vdso(struct vdso_key *key, struct vdso_record *head)
{
    struct vdso_key found;
    size_t found_bytes, bytes;
    const struct vdso_record *record = cache_reader_seek_head(&cache.reader, key, sizeof *key, 1, &found, sizeof found,
                                                              &found_bytes, head, sizeof *head, &bytes);
    if (!record || found_bytes != sizeof found || bytes < sizeof *record || bytes < sizeof *record + head->vdso_bytes)
        return NULL;
    *key = found;
    for (int i = 3; i >= 0 && ++key->serial[i] == 0; i--)
        ;
    return record;
}

static const struct vdso_record *find_vdso(const void *vdso, struct cached_images *images)
{
    struct vdso_key key = {.type = CACHEDB_VDSO};
    struct vdso_record head;
    for (int tries = 0; tries < VDSO_TRIES; tries++) {
        const struct vdso_record *record = next_vdso(&key, &head);
        if (!record)
            return NULL;
        if (memcmp(record + 1, vdso, head.vdso_bytes))
            continue;
        find_images(head.content, images);
        return record;
    }
    return NULL;
}

const struct vdso_record *cache_vdso(const void *vdso, struct cached_images *images)
{
    static const struct file_id none;
    const struct expected *e = expected_find(&none);
    no_images(images);
    if (!cache.open)
        return NULL;
    if (e && e->vdso && !memcmp(e->vdso + 1, vdso, e->vdso->vdso_bytes)) {
        *images = e->images;
        return e->vdso;
    }
    bool batch = cache_reader_begin(&cache.reader);
    const struct vdso_record *record = find_vdso(vdso, images);
    if (batch && !cache_reader_end(&cache.reader))
        record = find_vdso(vdso, images);
    return record;
}

void cache_attach_vdso(struct module *m)
{
    struct cached_images images;
    const struct vdso_record *record = cache_vdso((const void *)m->base, &images);
    m->vdso_waits = false;
    if (!record)
        return;
    memcpy(m->content, record->content, 32);
    m->has_content = true;
    cache_attach(m, &images);
}

/* ---- the start record ---- */

static void expect(const struct start_section *section)
{
    static const struct file_id none;
    struct expected *e = &cache.expected[cache.nexpected];
    *e = (struct expected){.section = section};
    if (!memcmp(&section->id, &none, sizeof none)) {
        struct vdso_key key = {.type = CACHEDB_VDSO};
        struct vdso_record head;
        for (int tries = 0; !e->vdso && tries < VDSO_TRIES; tries++) {
            const struct vdso_record *record = next_vdso(&key, &head);
            if (!record)
                return;
            if (!memcmp(head.content, section->content, sizeof head.content))
                e->vdso = record;
        }
    }
    find_images(section->content, &e->images);
    cache.nexpected += e->images.n > 0; /* none now: it is asked for again when it is mapped */
}

static void expect_all(const uint32_t *record, size_t words)
{
    const struct start_section *s;
    uint32_t n = 0;
    size_t next;
    cache.nexpected = 0;
    for (size_t at = 0; n < EXPECTED_MOST && start_section_at(record + at, words - at, &next); at += next)
        n++;
    cache.expected = heap_alloc(n * sizeof *cache.expected);
    for (size_t at = 0; n-- > 0 && (s = start_section_at(record + at, words - at, &next)); at += next)
        expect(s);
}

static const uint32_t *find_record(const struct file_id *exe, size_t *words, uint32_t *generation)
{
    struct closure_key key = {.type = CACHEDB_START, .exe = *exe, .codegen = cache.codegen}, found;
    size_t found_bytes, bytes;
    const uint32_t *record = cache_reader_seek_head(&cache.reader, &key, sizeof key, offsetof(struct closure_key, serial),
                                                    &found, sizeof found, &found_bytes, NULL, 0, &bytes);
    bool mine = record && found_bytes == sizeof found;
    *generation = mine ? ~cachedb_serial(found.serial) : 0;
    *words = bytes / 4;
    return mine && bytes >= START_MIN_BYTES ? record : NULL;
}

/* Writers that commit all the time cost the record, nothing more. */
const uint32_t *cache_start_record(const struct file_id *exe, size_t *words, uint32_t *generation)
{
    for (int tries = 0; cache.open && tries < 3 && cache_reader_begin(&cache.reader); tries++) {
        const uint32_t *record = find_record(exe, words, generation);
        cpuid_read(&cache.reader);
        if (record)
            expect_all(record, *words);
        if (cache_reader_end(&cache.reader))
            return record;
        cache.nexpected = 0;
        cpuid_forget();
    }
    return NULL;
}
