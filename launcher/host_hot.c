/* SPDX-License-Identifier: Apache-2.0
 *
 * Start records as the learner makes them: a program's newest record, and behind it what its processes have attached and asked
 * for since.
 *
 *   record n (store) + records of the log -> without doubles, without images that have been replaced -> record n + 1
 */
#include "include/internal/error.h"
#include "launcher/host.h"

#include <stdlib.h>
#include <string.h>

/* ---- collecting ---- */

static struct host_hot_list *list_of(struct host_hot *hot, const struct file_id *exe, const struct codegen_key *codegen)
{
    for (unsigned i = 0; i < hot->count; i++) {
        struct host_hot_list *l = &hot->list[i];
        if (memcmp(&l->exe, exe, sizeof *exe) == 0 && memcmp(&l->codegen, codegen, sizeof *codegen) == 0) {
            return l;
        }
    }
    struct host_hot_list *list = realloc(hot->list, (hot->count + 1) * sizeof *list);
    if (!list) {
        return NULL;
    }
    hot->list = list;
    list[hot->count] = (struct host_hot_list){.exe = *exe, .codegen = *codegen};
    return &list[hot->count++];
}

/* The part of S's image; S may be a newer file with that content. */
static struct hot_part *part_of(struct host_hot_list *l, const struct start_section *s)
{
    for (unsigned i = 0; i < l->nparts; i++) {
        struct hot_part *p = &l->parts[i];
        if (p->checksum == s->checksum && memcmp(p->content, s->content, sizeof p->content) == 0) {
            p->id = s->id;
            return p;
        }
    }
    struct hot_part *parts = realloc(l->parts, (l->nparts + 1) * sizeof *parts);
    if (!parts) {
        return NULL;
    }
    l->parts = parts;
    parts[l->nparts] = (struct hot_part){.id = s->id, .checksum = s->checksum};
    memcpy(parts[l->nparts].content, s->content, sizeof s->content);
    return &parts[l->nparts++];
}

static int add_pairs(struct hot_part *p, const struct hot_pair *pairs, uint32_t n)
{
    if (n == 0) {
        return 0;
    }
    if (p->count + n > p->room) {
        uint32_t room = 2 * p->room + n;
        struct hot_pair *bigger = realloc(p->pairs, room * sizeof *bigger);
        if (!bigger) {
            return -BDBI_ENOMEM;
        }
        p->pairs = bigger;
        p->room = room;
    }
    memcpy(p->pairs + p->count, pairs, n * sizeof *pairs);
    p->count += n;
    return 0;
}

/* The sections in WORDS, which anything may follow. */
static int add_sections(struct host_hot_list *l, const uint32_t *at, size_t words)
{
    const struct start_section *s;
    size_t next;
    int rc = 0;
    for (; !rc && (s = start_section_at(at, words, &next)); at += next, words -= next) {
        struct hot_part *p = part_of(l, s);
        rc = p ? add_pairs(p, s->pairs, s->npairs) : -BDBI_ENOMEM;
    }
    return rc;
}

int host_hot_add(struct host_hot *hot, const struct misslog_entry *e)
{
    struct host_hot_list *l = list_of(hot, &e->head.id, &e->head.codegen);
    size_t bytes = 4 * (size_t)e->head.noffsets;
    uint32_t *copy = l ? malloc(bytes + 4) : NULL; /* aligned */
    if (!copy) {
        return -BDBI_ENOMEM;
    }
    memcpy(copy, e->offsets, bytes);
    int rc = add_sections(l, copy, bytes / 4);
    free(copy);
    return rc;
}

static void free_parts(struct host_hot_list *l)
{
    for (unsigned i = 0; i < l->nparts; i++) {
        free(l->parts[i].pairs);
    }
    free(l->parts);
    l->parts = NULL;
    l->nparts = 0;
}

void host_hot_free(struct host_hot *hot)
{
    for (unsigned i = 0; i < hot->count; i++) {
        free_parts(&hot->list[i]);
    }
    free(hot->list);
    *hot = (struct host_hot){0};
}

/* ---- the next record ---- */

struct stored {
    struct host_hot_list list;
    uint32_t serial; /* of it; 0: there is none */
    int rc;
};

static int take_newest(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct stored *s = user;
    if (key_bytes != sizeof(struct closure_key)) {
        return 0;
    }
    s->serial = cachedb_serial(((const struct closure_key *)key)->serial);
    s->rc = add_sections(&s->list, value, value_bytes / 4);
    return 1;
}

static int take_checksum(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    (void)key;
    (void)key_bytes;
    if (value_bytes >= sizeof(struct image_header)) {
        *(uint64_t *)user = ((const struct image_header *)value)->head_checksum;
    }
    return 1;
}

/* A start takes the record's word for it. */
static bool has_content(struct cachedb *db, const struct hot_part *p)
{
    static const struct file_id vdso;
    struct identity_key key = {CACHEDB_IDENTITY, p->id};
    void *content = NULL;
    size_t bytes;
    if (memcmp(&p->id, &vdso, sizeof vdso) == 0) {
        return true;
    }
    int rc = cachedb_get(db, &key, sizeof key, &content, &bytes);
    bool same = rc == 0 && bytes == sizeof p->content && memcmp(content, p->content, bytes) == 0;
    free(content);
    return same;
}

/* Whether the part is of the newest image of its module. */
static bool is_current(struct cachedb *db, const struct codegen_key *codegen, const struct hot_part *p)
{
    struct image_key key = {.type = CACHEDB_IMAGE, .codegen = *codegen};
    uint64_t checksum = 0;
    memcpy(key.content, p->content, sizeof key.content);
    cachedb_scan(db, &key, offsetof(struct image_key, inverse_epoch), take_checksum, &checksum);
    return checksum == p->checksum && has_content(db, p);
}

struct place {
    uint32_t app, index;
};

static int by_app(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int order = (x->app > y->app) - (x->app < y->app);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* Of pairs for the same address the first stays. */
static int drop_doubles(struct hot_part *p)
{
    struct place *places = malloc(p->count * sizeof *places);
    uint8_t *is_double = calloc(1, p->count);
    uint32_t kept = 0;
    if (!places || !is_double) {
        free(places);
        free(is_double);
        return -BDBI_ENOMEM;
    }
    for (uint32_t i = 0; i < p->count; i++) {
        places[i] = (struct place){p->pairs[i].app, i};
    }
    qsort(places, p->count, sizeof *places, by_app);
    for (uint32_t i = 1; i < p->count; i++) {
        is_double[places[i].index] = places[i].app == places[i - 1].app;
    }
    for (uint32_t i = 0; i < p->count; i++) {
        if (!is_double[i]) {
            p->pairs[kept++] = p->pairs[i];
        }
    }
    p->count = kept;
    free(places);
    free(is_double);
    return 0;
}

/* L behind what is stored. */
static int append(struct host_hot_list *to, const struct host_hot_list *l)
{
    int rc = 0;
    for (unsigned i = 0; i < l->nparts && !rc; i++) {
        struct start_section head = {.id = l->parts[i].id, .checksum = l->parts[i].checksum};
        memcpy(head.content, l->parts[i].content, sizeof head.content);
        struct hot_part *p = part_of(to, &head);
        rc = p ? add_pairs(p, l->parts[i].pairs, l->parts[i].count) : -BDBI_ENOMEM;
    }
    return rc;
}

static bool is_kept(const struct host_hot_list *l, unsigned i)
{
    return !l->parts[i].is_old && (l->parts[i].count > 0 || i < START_MODULES_MOST);
}

struct extent {
    uint32_t sections, pairs;
};

static int tidy(struct cachedb *db, struct host_hot_list *l, struct extent *e)
{
    int rc = 0;
    *e = (struct extent){0};
    for (unsigned i = 0; i < l->nparts && !rc; i++) {
        struct hot_part *p = &l->parts[i];
        p->is_old = !is_current(db, &l->codegen, p);
        if (p->is_old) {
            p->count = 0;
        }
        rc = p->count ? drop_doubles(p) : 0;
        if (p->count > HOTLIST_MAX_PAIRS - e->pairs) {
            p->count = HOTLIST_MAX_PAIRS - e->pairs;
        }
        e->pairs += p->count;
        e->sections += is_kept(l, i);
    }
    return rc;
}

static int put(struct cachedb *db, const struct host_hot_list *l, struct closure_key *key, const struct extent *e)
{
    size_t bytes = e->sections * sizeof(struct start_section) + e->pairs * sizeof(struct hot_pair);
    bytes = bytes < START_MIN_BYTES ? START_MIN_BYTES : bytes;
    uint8_t *value = calloc(1, bytes), *at = value;
    if (!value) {
        return -BDBI_ENOMEM;
    }
    for (unsigned i = 0; i < l->nparts; i++) {
        const struct hot_part *p = &l->parts[i];
        struct start_section head = {.magic = START_MAGIC, .npairs = p->count, .id = p->id, .checksum = p->checksum};
        if (!is_kept(l, i)) {
            continue;
        }
        memcpy(head.content, p->content, sizeof head.content);
        memcpy(at, &head, sizeof head);
        if (p->count > 0) {
            memcpy(at + sizeof head, p->pairs, p->count * sizeof *p->pairs);
        }
        at += sizeof head + p->count * sizeof *p->pairs;
    }
    int rc = cachedb_put(db, key, sizeof *key, value, bytes);
    free(value);
    return rc;
}

int host_hot_store(struct cachedb *db, struct host_hot_list *list)
{
    struct stored s = {.list = {.exe = list->exe, .codegen = list->codegen}};
    struct closure_key key = {.type = CACHEDB_START, .exe = list->exe, .codegen = list->codegen};
    struct extent before, after;
    int rc = cachedb_scan(db, &key, offsetof(struct closure_key, serial), take_newest, &s);
    rc = rc < 0 ? rc : s.rc;
    if (!rc) {
        rc = tidy(db, &s.list, &before);
    }
    if (!rc) {
        rc = append(&s.list, list);
    }
    if (!rc) {
        rc = tidy(db, &s.list, &after);
    }
    uint32_t serial = s.serial ? s.serial - 1 : 0xffffffff;
    bool longer = !rc && (after.pairs > before.pairs || after.sections > before.sections) && ~serial <= START_GENERATIONS;
    if (longer) {
        cachedb_set_serial(key.serial, serial);
        rc = put(db, &s.list, &key, &after);
    }
    free_parts(&s.list);
    return rc < 0 ? rc : longer ? (int)after.pairs : 0;
}
