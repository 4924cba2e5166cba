/* SPDX-License-Identifier: Apache-2.0
 *
 * A program's start record: the modules that its runs attach, and the hot list: (app pc, code) pairs that they have asked the
 * dispatcher for, in the order of the first use. The next starts of the same program fill their lookup table from it as each
 * image is attached.
 *
 * A record belongs to (identity of the program, codegen); its sections name an image each, by content and checksum, and give
 * offsets only, so they hold at every base. Pairs whose image is another one now are left out. Format: struct start_section in
 * cachedb/cachedb.h.
 *
 * What a process had to ask for although it had a list is noted, and goes to the miss log when the process ends or execs, if
 * that is much compared with the list: the learner then makes a longer record (host_hot.c). So records come to hold what
 * several command lines and forked children need, and those that hold most of it do not change any more.
 */
#include "launcher/core.h"

#define NOTES_MOST 65536
#define FEW_NOTES 8
#define FEW_OF_LIST 128 /* new pairs below this part of the list are not worth a new list */

static const uint32_t *record;
static size_t record_words;
static uint32_t list_pairs;
static bool list_final; /* long or new enough: nothing is added */
static struct file_id program;
static uint32_t nnotes;
static struct note {
    uint64_t pc;
    code_pc code;
    uint32_t next; /* the module's next one, from 1; 0: none */
} notes[NOTES_MOST] __attribute__((section(".bss.LEARNED")));

/* The record's section after S (NULL: the first one). */
static const struct start_section *next_section(const struct start_section *s)
{
    size_t at = s ? (size_t)((const uint32_t *)(s->pairs + s->npairs) - record) : 0, next;
    return record ? start_section_at(record + at, record_words - at, &next) : NULL;
}

/* Finds PROGRAM's record. */
void hot_open(const struct file_id *id)
{
    uint32_t generation;
    program = *id;
    record = cache_start_record(id, &record_words, &generation);
    for (const struct start_section *s = NULL; (s = next_section(s));)
        list_pairs += s->npairs;
    list_final = record && (generation >= START_GENERATIONS || list_pairs >= HOTLIST_MAX_PAIRS);
}

/* How many pairs the list has, for the size of the table. */
uint32_t hot_pairs(void)
{
    return list_pairs;
}

static const struct start_section *section_after(const struct start_section *s, const struct module *m)
{
    while ((s = next_section(s)) && (memcmp(s->content, m->content, sizeof s->content) || s->checksum != m->checksum))
        ;
    return s;
}

/* The record's section for M's image. NULL: there is none. Runs attach modules in much the same order, so it is looked for
 * behind the last one that was found. */
static const struct start_section *section_of(const struct module *m)
{
    static const struct start_section *last;
    const struct start_section *s = m->npieces ? section_after(last, m) : NULL;
    if (!s && m->npieces && last)
        s = section_after(NULL, m);
    last = s ? s : last;
    return s;
}

/* Value 0: the pair is not good. */
static code_pc pair_code(const struct module *m, const struct hot_pair *pair)
{
    code_pc code = {m->base + BDBI_CODE_DISTANCE + (pair->code & ~HOT_LANDING), pair->code & HOT_LANDING};
    return pair->app < m->end - m->base && code.value < m->code_end ? code : (code_pc){0};
}

/* M's image has just been attached. */
void hot_fill(const struct module *m)
{
    const struct start_section *s = section_of(m);
    for (uint32_t i = 0; s && i < s->npairs; i++) {
        code_pc code = pair_code(m, &s->pairs[i]);
        if (code.value)
            ibl_prefill(m->base + s->pairs[i].app, code);
    }
}

/* The code for PC in M if the list has it: the image's tables need not be touched. */
code_pc hot_code(const struct module *m, uint64_t pc)
{
    const struct start_section *s = section_of(m);
    for (uint32_t i = 0; s && i < s->npairs; i++)
        if (m->base + s->pairs[i].app == pc)
            return pair_code(m, &s->pairs[i]);
    return (code_pc){0};
}

/* ---- noting ---- */

/* The dispatcher was asked for PC. Any thread. */
void hot_note(uint64_t pc, code_pc code)
{
    if (options.no_learn || !options.cache || list_final || nnotes >= NOTES_MOST)
        return;
    uint32_t i = __atomic_fetch_add(&nnotes, 1, __ATOMIC_RELAXED);
    if (i < NOTES_MOST)
        notes[i] = (struct note){.pc = pc, .code = code};
}

void hot_forget(void)
{
    nnotes = 0;
}

/* ---- writing ---- */

#define RECORD_HEAD (sizeof(struct misslog_record) + (sizeof START_PATH - 1 + 3) / 4 * 4)

struct writer {
    char *record; /* MISSLOG_MAX_BYTES */
    size_t used;
    struct start_section *section;
    bool written;
};

static bool note_fits(const struct module *m, const struct note *n)
{
    return n->pc >= m->base && n->pc < m->end && n->code.value >= m->base + BDBI_CODE_DISTANCE && n->code.value < m->code_end;
}

static void record_end(struct writer *w)
{
    if (w->used <= RECORD_HEAD)
        return;
    struct misslog_record *r = (void *)w->record;
    *r = (struct misslog_record){.magic = MISSLOG_MAGIC,
                                 .id = program,
                                 .path_bytes = sizeof START_PATH - 1,
                                 .noffsets = (uint32_t)((w->used - RECORD_HEAD) / 4)};
    cache_codegen(&r->codegen);
    memcpy(r + 1, START_PATH, sizeof START_PATH - 1);
    while (w->used % 8)
        w->record[w->used++] = 0;
    r->record_bytes = (uint32_t)w->used;
    w->written |= log_append(r, w->used);
    memset(w->record, 0, w->used);
    w->used = RECORD_HEAD;
    w->section = NULL;
}

/* M's section, and room in it for one pair. */
static void section_begin(struct writer *w, const struct module *m)
{
    if (w->used + sizeof *w->section + sizeof *w->section->pairs + 8 > MISSLOG_MAX_BYTES)
        record_end(w);
    if (w->section)
        return;
    w->section = (struct start_section *)(w->record + w->used);
    *w->section = (struct start_section){.magic = START_MAGIC, .id = m->id, .checksum = m->checksum};
    memcpy(w->section->content, m->content, sizeof w->section->content);
    w->used += sizeof *w->section;
}

static void add_note(struct writer *w, const struct module *m, const struct note *n)
{
    section_begin(w, m);
    w->section->pairs[w->section->npairs++] =
        (struct hot_pair){(uint32_t)(n->pc - m->base),
                          (uint32_t)(n->code.value - m->base - BDBI_CODE_DISTANCE) | (n->code.landing ? HOT_LANDING : 0)};
    w->used += sizeof *w->section->pairs;
}

static bool has_sections(const struct module *m)
{
    return !m->dropped && m->npieces && m->has_content;
}

/* A set of addresses: what the list has, and the notes so far. */
#define SET_SLOTS (4 * (HOTLIST_MAX_PAIRS + NOTES_MOST))

static bool set_add(uint64_t *set, uint64_t pc)
{
    uint64_t i = (pc * 0x9e3779b97f4a7c15ull >> 32) % SET_SLOTS;
    for (; set[i]; i = (i + 1) % SET_SLOTS)
        if (set[i] == pc)
            return false;
    set[i] = pc;
    return true;
}

static void set_add_list(uint64_t *set, const struct module *m)
{
    const struct start_section *s = section_of(m);
    for (uint32_t i = 0; s && i < s->npairs; i++)
        set_add(set, m->base + s->pairs[i].app);
}

/* Keeps one note of each address that the list does not have and that can be in one, with its module. */
static void sift_notes(void)
{
    size_t bytes = SET_SLOTS * sizeof(uint64_t);
    uint64_t *set = map_or_die(0, bytes, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_);
    uint32_t kept = 0;
    for (struct module *m = modules; m; m = m->next) {
        m->notes = m->last_note = 0;
        if (has_sections(m))
            set_add_list(set, m);
    }
    for (uint32_t i = 0; i < nnotes; i++) {
        struct module *m = module_find(notes[i].pc);
        if (!m || !has_sections(m) || !note_fits(m, &notes[i]) || !set_add(set, notes[i].pc))
            continue;
        notes[kept] = (struct note){.pc = notes[i].pc, .code = notes[i].code};
        *(m->last_note ? &notes[m->last_note - 1].next : &m->notes) = ++kept;
        m->last_note = kept;
    }
    nnotes = kept;
    unmap_own(set, bytes);
}

/* Appends to the miss log what this process had to ask for, if it was much. True: the learner has something to do. */
bool hot_write(void)
{
    uint32_t enough = FEW_NOTES + list_pairs / FEW_OF_LIST;
    nnotes = nnotes < NOTES_MOST ? nnotes : NOTES_MOST;
    if (nnotes < enough || options.no_learn)
        return false;
    sift_notes();
    if (nnotes < enough)
        return false;
    struct writer w = {.used = RECORD_HEAD};
    w.record = map_or_die(0, MISSLOG_MAX_BYTES, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_);
    for (const struct module *m = modules; m; m = m->next) {
        w.section = NULL;
        if (has_sections(m))
            section_begin(&w, m);
        for (uint32_t i = m->notes; i; i = notes[i - 1].next)
            add_note(&w, m, &notes[i - 1]);
    }
    record_end(&w);
    unmap_own(w.record, MISSLOG_MAX_BYTES);
    nnotes = 0;
    return w.written;
}
