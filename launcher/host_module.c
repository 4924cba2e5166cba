/* SPDX-License-Identifier: Apache-2.0
 *
 * Brings the cache up to date for one module and one kind of code (translator and tool).
 *
 *   epoch e:   base image            | extent 1          | extent 2 ...       each on pages of its own, one after the other,
 *              all that was discovered  what was learned                      from module base + BDBI_CODE_DISTANCE on
 *
 * Nothing stored is ever changed, so what runs learned is added as an extent, which knows the blocks before it (they do not
 * know it: their exits to it go through the core's lookup). After eight extents, or when they hold more than a quarter of the
 * base's blocks, everything is translated anew as the next epoch.
 */
#include "include/internal/error.h"
#include "launcher/context.h"
#include "launcher/host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXTENTS_MOST 8
#define MOVES_MOST 16     /* epochs after which a module is not given another place any more */
#define ORDERS_MOST 16    /* epochs after which its counters are not put into another order any more */
#define EXPLORE_MOST 4096 /* blocks that one missed address may bring along */

/* ---- opening ---- */

struct message {
    char *text;
    size_t bytes;
};

static int complain(const struct message *m, const char *path, const char *what, int rc)
{
    if (m->bytes > 0) {
        snprintf(m->text, m->bytes, "%s: %s", path, what);
    }
    return rc;
}

/* Stores IMAGE (NULL: none) and, if that is still to be done, M's identity and a path for people to read. */
static int put_all(struct cachedb *db, struct host_module *m, const struct cachedb_record *image)
{
    struct identity_key identity = {CACHEDB_IDENTITY, m->id};
    struct path_key path = {.type = CACHEDB_PATH};
    struct cachedb_record records[3];
    unsigned n = 0;
    memcpy(path.content, m->content, sizeof path.content);
    if (image) {
        records[n++] = *image;
    }
    if (m->unnamed) {
        records[n++] = (struct cachedb_record){&path, sizeof path, m->path, strlen(m->path)};
    }
    if (m->unnamed && !m->vdso) {
        records[n++] = (struct cachedb_record){&identity, sizeof identity, m->content, sizeof m->content};
    }
    int rc = n > 0 ? cachedb_put_all(db, records, n) : 0;
    m->unnamed = m->unnamed && rc != 0;
    return rc;
}

/* Content of FD by its identity record. */
static int content_known(struct cachedb *db, int fd, struct host_module *m)
{
    void *value;
    size_t bytes;
    int rc = identity_stat(fd, &m->id);
    if (rc) {
        return rc;
    }
    struct identity_key key = {CACHEDB_IDENTITY, m->id};
    rc = cachedb_get(db, &key, sizeof key, &value, &bytes);
    if (rc) {
        return rc;
    }
    rc = bytes == sizeof m->content ? 0 : -BDBI_EFORMAT;
    if (!rc) {
        memcpy(m->content, value, bytes);
    }
    free(value);
    return rc;
}

static int find_content(struct cachedb *db, int fd, struct host_module *m, const struct message *message)
{
    int rc = content_known(db, fd, m);
    if (rc == -BDBI_EINVAL) {
        return complain(message, m->path, "not a regular file", rc);
    }
    if (rc != -BDBI_ENOENT) {
        return rc ? complain(message, m->path, bdbi_strerror(rc), rc) : 0;
    }
    rc = identity_hash(fd, &m->id, m->content);
    if (rc == -BDBI_EBUSY) {
        return complain(message, m->path, "open for writing, or being changed: runs without the cache until it is warmed again",
                        rc);
    }
    m->unnamed = rc == 0;
    return rc ? complain(message, m->path, bdbi_strerror(rc), rc) : 0;
}

int host_module_open(struct cachedb *db, const char *path, struct host_module *m, char *message, size_t message_bytes)
{
    const struct message say = {message, message_bytes};
    memset(m, 0, sizeof *m);
    m->path = strdup(path);
    if (!m->path) {
        return complain(&say, path, bdbi_strerror(BDBI_ENOMEM), -BDBI_ENOMEM);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;
    if (fd < 0) {
        rc = errno == ENOENT || errno == ENOTDIR ? -BDBI_ENOENT : errno == EACCES ? -BDBI_EACCES : -BDBI_EIO;
        complain(&say, path, rc == -BDBI_EACCES ? "not readable" : strerror(errno), rc);
    } else {
        rc = find_content(db, fd, m, &say);
        close(fd);
    }
    if (rc) {
        host_module_close(m);
    }
    return rc;
}

int host_module_open_vdso(struct cachedb *db, struct host_module *m, char *message, size_t message_bytes)
{
    const struct message say = {message, message_bytes};
    struct vdso_record record;
    memset(m, 0, sizeof *m);
    m->path = strdup("[vdso]");
    int rc = m->path ? host_vdso_read(&record, &m->vdso) : -BDBI_ENOMEM;
    if (!rc) {
        m->vdso_bytes = record.vdso_bytes;
        memcpy(m->content, record.content, sizeof m->content);
        rc = host_vdso_put(db, &record, m->vdso);
    }
    m->unnamed = true;
    if (rc) {
        complain(&say, "[vdso]", rc == -BDBI_ENOENT ? "there is none here" : bdbi_strerror(rc), rc);
        host_module_close(m);
    }
    return rc;
}

void host_module_close(struct host_module *m)
{
    if (m->elf) {
        elf_module_close(m->elf);
    }
    free(m->vdso);
    free(m->path);
    memset(m, 0, sizeof *m);
}

static int open_elf(struct host_module *m, const struct message *message)
{
    if (m->elf) {
        return 0;
    }
    if (m->vdso) {
        return elf_module_from_memory(m->path, m->vdso, m->vdso_bytes, &m->elf, message->text, message->bytes);
    }
    return elf_module_open(m->path, &m->elf, message->text, message->bytes);
}

/* Whether the file is still the one whose content was hashed: asked after it was read for translation. */
static bool unchanged(const struct host_module *m)
{
    struct file_id id = {0};
    int fd = m->vdso ? -1 : open(m->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool same = m->vdso || (fd >= 0 && identity_stat(fd, &id) == 0 && memcmp(&id, &m->id, sizeof id) == 0);
    if (fd >= 0) {
        close(fd);
    }
    return same;
}

/* ---- what is there ---- */

struct block {
    uint32_t offset;
    int64_t distance; /* of its code from the module's base */
};

/* The newest epoch. */
struct epoch {
    unsigned number, images; /* images 0: none is there */
    uint32_t base_blocks, extent_blocks;
    int64_t code_end;     /* where the next extent goes */
    uint64_t fixed_base;  /* the module's base that the code is for; 0: any */
    uint32_t nran;        /* blocks that were known to have run when it was made */
    uint64_t data_end;    /* where the next extent's counters go, if not at its code's address */
    struct block *blocks; /* of all images, ascending */
    uint32_t nblocks;
};

static int epoch_add(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct epoch *e = user;
    const struct image_key *k = key;
    const struct image_header *h = value;
    if (key_bytes != sizeof *k || (e->images > 0 && IMAGE_EPOCH_MAX - k->inverse_epoch != (int)e->number)) {
        return 1; /* an older epoch: done */
    }
    if (k->extent != e->images || image_header_check(value, value_bytes) != 0) {
        return 1; /* the core stops here too */
    }
    struct block *blocks = realloc(e->blocks, ((size_t)e->nblocks + h->nblocks + 1) * sizeof *blocks);
    if (!blocks) {
        return -BDBI_ENOMEM;
    }
    const struct image_block *from = (const struct image_block *)((const uint8_t *)value + h->blocks_offset);
    for (uint32_t i = 0; i < h->nblocks; i++) {
        blocks[e->nblocks + i] = (struct block){from[i].app_offset, h->code_distance + from[i].code_offset};
    }
    e->blocks = blocks;
    e->nblocks += h->nblocks;
    *(e->images == 0 ? &e->base_blocks : &e->extent_blocks) += h->nblocks;
    e->number = IMAGE_EPOCH_MAX - k->inverse_epoch;
    e->code_end = image_code_end(h);
    e->fixed_base = h->fixed_base;
    e->nran = e->images == 0 ? h->nran : e->nran;
    e->data_end = h->data_address + (8ull * h->ncounters + h->nmarks + 7) / 8 * 8;
    e->images++;
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct block *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int epoch_load(const struct host_job *job, const uint8_t content[32], struct epoch *e)
{
    struct image_key key = {.type = CACHEDB_IMAGE, .codegen = job->codegen};
    memcpy(key.content, content, sizeof key.content);
    int rc = cachedb_scan(job->db, &key, offsetof(struct image_key, inverse_epoch), epoch_add, e);
    if (e->images > 1) {
        qsort(e->blocks, e->nblocks, sizeof *e->blocks, by_offset);
    }
    return rc < 0 ? rc : 0;
}

/* jit_unit's resolve. */
static int64_t epoch_find(void *user, uint32_t offset)
{
    const struct epoch *e = user;
    const struct block wanted = {offset, 0};
    const struct block *found = e->nblocks ? bsearch(&wanted, e->blocks, e->nblocks, sizeof *e->blocks, by_offset) : NULL;
    return found ? found->distance : 0;
}

/* ---- what is new ---- */

struct search {
    const struct epoch *epoch;
    uint8_t *bitmap; /* offsets already taken in this search */
    uint64_t bits;
};

static int64_t search_known(void *user, uint32_t offset)
{
    const struct search *s = user;
    if (offset < s->bits && s->bitmap[offset / 8] & 1 << offset % 8) {
        return 1;
    }
    return epoch_find((void *)s->epoch, offset);
}

static bool in_spans(const struct elf_module *elf, uint32_t offset)
{
    for (uint32_t i = 0; i < elf->nspans; i++) {
        if (offset >= elf->spans[i].start && offset < elf->spans[i].end) {
            return true;
        }
    }
    return false;
}

static void keep_in_spans(const struct elf_module *elf, struct host_offsets *offsets)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < offsets->count; i++) {
        if (in_spans(elf, offsets->list[i])) {
            offsets->list[kept++] = offsets->list[i];
        }
    }
    offsets->count = kept;
}

int host_module_filter(struct host_module *m, struct host_offsets *offsets, char *message, size_t message_bytes)
{
    const struct message say = {message, message_bytes};
    int rc = open_elf(m, &say);
    if (!rc) {
        keep_in_spans(m->elf, offsets);
    }
    return rc;
}

static int take(struct search *s, struct host_offsets *fresh, const uint32_t *offsets, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (offsets[i] < s->bits) {
            s->bitmap[offsets[i] / 8] |= (uint8_t)(1 << offsets[i] % 8);
        }
        int rc = host_offsets_add(fresh, offsets[i]);
        if (rc) {
            return rc;
        }
    }
    return 0;
}

/* Each of WANTED that no image has, with the blocks around it that none has either. */
static int explore_all(struct search *s, struct jit *j, const struct elf_module *elf, const struct host_offsets *wanted,
                       uint32_t *found, struct host_offsets *fresh)
{
    for (uint32_t i = 0; i < wanted->count; i++) {
        uint32_t offset = wanted->list[i];
        if (search_known(s, offset)) {
            continue;
        }
        uint32_t n = jit_explore(j, elf->spans, elf->nspans, offset, EXPLORE_MOST, search_known, s, found);
        int rc = take(s, fresh, found, n);
        if (rc) {
            return rc;
        }
    }
    host_offsets_sort(fresh);
    return 0;
}

static int find_fresh(const struct epoch *e, const struct elf_module *elf, const struct host_offsets *wanted,
                      struct host_offsets *fresh)
{
    struct search s = {.epoch = e, .bits = elf->span_bytes};
    s.bitmap = calloc(1, elf->span_bytes / 8 + 1);
    uint32_t *found = malloc(EXPLORE_MOST * sizeof *found);
    struct jit *j = jit_new();
    int rc = -BDBI_ENOMEM;
    if (s.bitmap && found && j) {
        rc = explore_all(&s, j, elf, wanted, found, fresh);
    }
    if (j) {
        jit_free(j);
    }
    free(found);
    free(s.bitmap);
    return rc;
}

static bool any_unknown(const struct epoch *e, const struct host_offsets *wanted)
{
    for (uint32_t i = 0; i < wanted->count; i++) {
        if (!epoch_find((void *)e, wanted->list[i])) {
            return true;
        }
    }
    return false;
}

/* ---- translating ---- */

struct work {
    const struct host_job *job;
    struct host_module *m;
    struct host_result *result;
    const struct message *message;
    struct epoch epoch;
    struct host_offsets wanted; /* the code map */
    struct host_offsets ran;    /* blocks that ran */
    uint64_t room;              /* what the base image's code may take at its place; 0: not limited */
    uint64_t needed;            /* what it does take */
};
#define NEEDS_MORE 1 /* of translate: W->needed is more than there is room for */

static int unsuitable(struct work *w, const char *why)
{
    w->result->outcome = HOST_UNSUITABLE;
    return complain(w->message, w->m->path, why, 0);
}

/* Why the code cannot be where it must be, or NULL. BASE: of the module, or 0; CODE_END: distance of its end from that. */
static const char *misplaced(const struct elf_module *elf, uint64_t base, int64_t code_end)
{
    if (elf->is_exec && base == 0) {
        return "linked at address 0: runs by JIT";
    }
    if (elf->span_bytes >= BDBI_MODULES_BYTES || base >= BDBI_MODULES_BYTES || base + elf->span_bytes >= BDBI_MODULES_BYTES) {
        return elf->is_exec ? "linked at an address too high for cached code: runs by JIT"
                            : "too big for cached code: runs by JIT";
    }
    if (base + (uint64_t)code_end >= BDBI_JIT_OFFSET) {
        return "its code is too big to be cached: runs by JIT";
    }
    return NULL;
}

static int store(struct work *w, struct jit_output *code, const struct jit_unit *unit, unsigned epoch, unsigned extent)
{
    struct image_key key = {.type = CACHEDB_IMAGE,
                            .codegen = w->job->codegen,
                            .inverse_epoch = (uint8_t)(IMAGE_EPOCH_MAX - epoch),
                            .extent = (uint8_t)extent};
    void *value;
    size_t bytes;
    memcpy(key.content, w->m->content, sizeof key.content);
    int rc = image_build(code, w->m->content, unit->code_distance, unit->fixed_base, (uint32_t)w->m->elf->span_bytes, extent,
                         &value, &bytes);
    if (rc) {
        return complain(w->message, w->m->path, bdbi_strerror(rc), rc);
    }
    jit_output_free(code); /* liblmdb is about to make another copy of VALUE */
    const char *why = misplaced(w->m->elf, unit->fixed_base, image_code_end(value));
    if (why) {
        rc = unsuitable(w, why);
    } else if (!unchanged(w->m)) {
        rc = complain(w->message, w->m->path, "changed while it was read: not cached", -BDBI_EBUSY);
    } else {
        const struct cachedb_record image = {&key, sizeof key, value, bytes};
        rc = put_all(w->job->db, w->m, &image); /* if it is there, somebody did the same work at the same time */
        if (rc) {
            complain(w->message, w->m->path, bdbi_strerror(rc), rc);
        }
    }
    free(value);
    return rc;
}

/* Where the image's counters are, if not at its code's address: the vdso's code is where the kernel puts the vdso, and what is
 * at that distance from a thread's block is no memory. */
static uint32_t data_address(const struct work *w, unsigned extent)
{
    if (!w->m->vdso || !w->job->tool) {
        return 0;
    }
    return extent > 0 ? (uint32_t)w->epoch.data_end : BDBI_VDSO_COUNTERS;
}

/* Translates LEADERS to an image at CODE_DISTANCE for the module at FIXED_BASE and stores it. */
static int translate(struct work *w, const uint32_t *leaders, uint32_t nleaders, uint64_t fixed_base, int64_t code_distance,
                     unsigned epoch, unsigned extent)
{
    const struct elf_module *elf = w->m->elf;
    struct jit_unit unit = {
        .spans = elf->spans,
        .nspans = elf->nspans,
        .leaders = leaders,
        .nleaders = nleaders,
        .constants = elf->constants,
        .nconstants = elf->nconstants,
        .relro_start = elf->relro_start,
        .relro_end = elf->relro_end,
        .code_distance = code_distance,
        .fixed_base = fixed_base,
        .linked = elf->is_exec,
        .data_distance = (uint64_t)code_distance,
        .data_address = data_address(w, extent),
        .ran = w->ran.list,
        .nran = extent > 0 ? 0 : w->ran.count,
        .resolve = extent > 0 ? epoch_find : NULL,
        .user = &w->epoch,
        .tool = w->job->tool ? w->job->tool->tool : NULL,
        .tool_args = w->job->tool ? w->job->tool->args : NULL,
        .guard = host_weave,
    };
    struct jit_output code;
    struct host_result *r = w->result;
    int rc = jit_translate_parallel(&unit, w->job->threads, &code);
    if (rc) {
        return complain(w->message, w->m->path, bdbi_strerror(rc), rc);
    }
    w->needed = code.ncounters * 8ull + code.nmarks;
    w->needed = (w->needed > code.code_bytes ? w->needed : code.code_bytes) + 4095;
    if (extent == 0 && w->room && w->needed > w->room) {
        jit_output_free(&code);
        return NEEDS_MORE;
    }
    r->outcome = extent > 0 ? HOST_EXTENDED : HOST_TRANSLATED;
    r->blocks = code.nblocks;
    r->code_bytes = code.code_bytes;
    r->undecodable = code.nundecodable;
    r->epoch = epoch;
    r->extent = extent;
    rc = code.code_bytes > 0 ? store(w, &code, &unit, epoch, extent) : unsuitable(w, "nothing to translate");
    jit_output_free(&code);
    return rc;
}

/* What the module takes from its base on, or its code from the base + BDBI_CODE_DISTANCE on, with room for extents: an
 * estimate, or what is known to be needed, if that is more. */
static uint64_t bytes_for(const struct work *w, uint64_t needed)
{
    const struct elf_module *elf = w->m->elf;
    uint64_t code = 0;
    uint64_t span = elf->span_bytes, align = elf->align;
    if (align > 4096) { /* ld.so reserves that, to find an aligned place in it */
        span = span < align ? 2 * align : span + align;
    }
    for (uint32_t i = 0; i < elf->nspans; i++) {
        code += elf->spans[i].end - elf->spans[i].start;
    }
    code = code / 2 * (w->job->tool ? 9 : 7);
    needed = needed / 4 * 5;
    code = code > needed ? code : needed;
    return (code > span ? code : span) + 0x10000;
}

/* The base that the module is translated for; 0: any. */
static int choose_base(struct work *w, uint64_t *base)
{
    const struct epoch *e = &w->epoch;
    uint64_t last = e->images > 0 ? (uint64_t)(e->code_end - BDBI_CODE_DISTANCE) : 0;
    uint64_t bytes = bytes_for(w, last > w->needed ? last : w->needed), least = bytes_for(w, 0);
    *base = w->m->elf->is_exec ? w->m->elf->base_vaddr : 0;
    w->room = 0;
    if (w->m->elf->is_exec || w->m->vdso) { /* the kernel places the vdso */
        return 0;
    }
    if (e->fixed_base && !w->job->displaced && w->needed <= least) { /* each epoch's place has that much */
        *base = e->fixed_base;
        w->room = least;
        return 0;
    }
    int rc = host_place(w->job->db, &w->job->codegen, bytes, w->m->elf->align, base);
    w->room = *base ? bytes : 0;
    return rc ? complain(w->message, w->m->path, bdbi_strerror(rc), rc) : 0;
}

/* Reads which blocks ran, the first time. */
static int load_ran(struct work *w)
{
    int rc = w->ran.list ? 0 : host_codemap_load(w->job->db, CACHEDB_RAN, w->m->content, &w->ran);
    return rc ? complain(w->message, w->m->path, bdbi_strerror(rc), rc) : 0;
}

static int translate_base(struct work *w, unsigned epoch)
{
    const struct elf_module *elf = w->m->elf;
    uint32_t *leaders, nleaders;
    uint64_t base;
    const char *why = misplaced(elf, elf->is_exec ? elf->base_vaddr : 0, BDBI_CODE_DISTANCE);
    if (why || elf->nspans == 0) {
        return unsuitable(w, why ? why : "no code in it");
    }
    int rc = load_ran(w);
    if (rc) {
        return rc;
    }
    rc = analyzer_discover(elf, w->wanted.list, w->wanted.count, w->job->threads, &leaders, &nleaders);
    if (rc) {
        return complain(w->message, w->m->path, bdbi_strerror(rc), rc);
    }
    for (uint32_t i = 0; i < elf->nspans; i++) {
        w->result->text_bytes += elf->spans[i].end - elf->spans[i].start;
    }
    if (nleaders == 0) {
        rc = unsuitable(w, "no code found in it");
    } else {
        do {
            rc = choose_base(w, &base);
            rc = rc ? rc : translate(w, leaders, nleaders, base, BDBI_CODE_DISTANCE, epoch, 0);
        } while (rc == NEEDS_MORE);
    }
    free(leaders);
    return rc;
}

/* An extent with what the code map has and no image has; or a new epoch when that is more than extents are for. */
static int extend(struct work *w)
{
    const struct epoch *e = &w->epoch;
    struct host_offsets fresh = {0};
    unsigned extents = e->images - 1;
    int rc = find_fresh(e, w->m->elf, &w->wanted, &fresh);
    if (rc) {
        complain(w->message, w->m->path, bdbi_strerror(rc), rc);
    } else if (fresh.count > 0) {
        bool too_much = extents >= EXTENTS_MOST || ((uint64_t)e->extent_blocks + fresh.count) * 4 > e->base_blocks;
        if (too_much && e->number < IMAGE_EPOCH_MAX) {
            rc = translate_base(w, e->number + 1);
        } else if (extents < EXTENTS_MOST) {
            rc = translate(w, fresh.list, fresh.count, e->fixed_base, e->code_end, e->number, e->images);
        }
    }
    host_offsets_free(&fresh);
    return rc;
}

static int update(struct work *w)
{
    const struct epoch *e = &w->epoch;
    bool moves = w->job->displaced && e->fixed_base && e->number < MOVES_MOST;
    int rc = w->job->strays ? load_ran(w) : 0;
    if (rc) {
        return rc;
    }
    bool orders = w->job->strays && e->nran < w->ran.count && e->number < ORDERS_MOST;
    bool base = e->images == 0 || w->job->force || moves || orders;
    if (!base && !any_unknown(e, &w->wanted)) {
        return 0;
    }
    rc = open_elf(w->m, w->message);
    if (rc) {
        return rc;
    }
    keep_in_spans(w->m->elf, &w->wanted);
    if (!base) {
        return extend(w);
    }
    if (e->images > 0 && e->number == IMAGE_EPOCH_MAX) {
        return complain(w->message, w->m->path, "translated too many times: start with a new cache directory", -BDBI_ETOOBIG);
    }
    return translate_base(w, e->images > 0 ? e->number + 1 : 0);
}

int host_module_update(const struct host_job *job, struct host_module *m, struct host_result *result, char *message,
                       size_t message_bytes)
{
    const struct message say = {message, message_bytes};
    struct work w = {.job = job, .m = m, .result = result, .message = &say};
    memset(result, 0, sizeof *result);
    if (message_bytes > 0) {
        message[0] = '\0';
    }
    int rc = epoch_load(job, m->content, &w.epoch);
    rc = rc ? rc : host_codemap_load(job->db, CACHEDB_CODEMAP, m->content, &w.wanted);
    rc = rc ? complain(&say, m->path, bdbi_strerror(rc), rc) : update(&w);
    if (!rc && (rc = put_all(job->db, m, NULL)) != 0) {
        complain(&say, m->path, bdbi_strerror(rc), rc);
    }
    free(w.epoch.blocks);
    host_offsets_free(&w.wanted);
    host_offsets_free(&w.ran);
    return rc;
}
