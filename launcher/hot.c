/* SPDX-License-Identifier: Apache-2.0
 *
 * The hot list: which (app pc, code) pairs a program's lookup table held at the end of a run that missed nothing. The next
 * starts of the same program fill their table from it as each image is attached, instead of asking the dispatcher for each
 * pair.
 *
 * A list belongs to (identity of the program, codegen); its sections name an image each, by content and checksum, and give
 * offsets only, so they hold at every base. A section whose image is another one now is left out. Format: struct hot_section in
 * cachedb/cachedb.h.
 */
#include "launcher/core.h"

#define HOT_MAX_WORDS ((HOTLIST_MAX_BYTES - sizeof(struct misslog_record) - 64) / 4)

static const uint32_t *list;
static size_t list_words;
static bool any_used, any_stale;
static struct file_id program;

/* Visits the sections; FN returns nonzero to stop. */
static const struct hot_section *next_section(const struct hot_section *s)
{
    const uint32_t *at = s ? (const uint32_t *)(s->pairs + s->npairs) : list;
    size_t left = list_words - (size_t)(at - list);
    const struct hot_section *next = (const void *)at;
    if (left < sizeof *next / 4 || next->npairs == 0 || next->npairs > (left - sizeof *next / 4) / 2)
        return NULL;
    return next;
}

/* Finds PROGRAM's list. Returns how many pairs it has, for the size of the table. */
uint32_t hot_open(const struct file_id *id)
{
    size_t bytes;
    program = *id;
    list = cache_hot_list(id, &bytes);
    if (!list)
        return 0;
    list_words = bytes / 4;
    uint32_t pairs = 0;
    for (const struct hot_section *s = NULL; (s = next_section(s));)
        pairs += s->npairs;
    return pairs;
}

/* M's image has just been attached. */
void hot_fill(const struct module *m)
{
    if (!list || !m->npieces)
        return;
    for (const struct hot_section *s = NULL; (s = next_section(s));) {
        if (memcmp(s->content, m->content, sizeof s->content))
            continue;
        if (s->checksum != m->pieces[0].image->head_checksum) {
            any_stale = true;
            return;
        }
        any_used = true;
        for (uint32_t i = 0; i < s->npairs; i++) {
            uint64_t code = m->base + BDBI_CODE_DISTANCE + s->pairs[i].code;
            if (s->pairs[i].app < m->end - m->base && code < m->code_end)
                ibl_prefill(m->base + s->pairs[i].app, code);
        }
        return;
    }
}

/* ---- writing ---- */

struct writer {
    uint32_t *words;
    size_t used;
    const struct module *m;
    struct hot_section *section;
};

static void add_pair(void *user, uint64_t pc, uint64_t code)
{
    struct writer *w = user;
    const struct module *m = w->m;
    if (pc < m->base || pc >= m->end || code < m->base + BDBI_CODE_DISTANCE || code >= m->code_end ||
        w->used + 2 > HOT_MAX_WORDS)
        return;
    w->section->pairs[w->section->npairs++] =
        (struct hot_pair){(uint32_t)(pc - m->base), (uint32_t)(code - m->base - BDBI_CODE_DISTANCE)};
    w->used += 2;
}

/* Appends the list to the miss log if this run should leave one: it missed nothing, and had none (or an outdated one). True:
 * the learner has something to do. */
bool hot_write(void)
{
    if ((any_used && !any_stale) || options.no_learn || !options.cache || stats.jit_batches || !stats.modules_cached)
        return false;
    char *buffer = map_or_die(0, HOTLIST_MAX_BYTES, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_);
    struct misslog_record *record = (void *)buffer;
    uint32_t *words = (uint32_t *)(buffer + sizeof *record + sizeof HOTLIST_PATH - 1 + 3);
    words = (uint32_t *)((uint64_t)words & ~3ull);
    struct writer w = {.words = words};
    for (w.m = modules; w.m; w.m = w.m->next) {
        if (w.m->dropped || !w.m->npieces || !w.m->has_content || w.used + sizeof *w.section / 4 > HOT_MAX_WORDS)
            continue;
        w.section = (struct hot_section *)(words + w.used);
        memcpy(w.section->content, w.m->content, sizeof w.section->content);
        w.section->checksum = w.m->pieces[0].image->head_checksum;
        w.used += sizeof *w.section / 4;
        ibl_visit(add_pair, &w);
        if (w.section->npairs == 0)
            w.used -= sizeof *w.section / 4;
    }
    *record = (struct misslog_record){
        .magic = MISSLOG_MAGIC, .id = program, .path_bytes = sizeof HOTLIST_PATH - 1, .noffsets = (uint32_t)w.used};
    cache_codegen(&record->codegen);
    memcpy(record + 1, HOTLIST_PATH, sizeof HOTLIST_PATH - 1);
    size_t bytes = (size_t)((char *)(words + w.used) - buffer);
    record->record_bytes = (uint32_t)((bytes + 7) & ~7ull);
    bool written = w.used && log_append(record, record->record_bytes);
    unmap_own(buffer, HOTLIST_MAX_BYTES);
    return written;
}
