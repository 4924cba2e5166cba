/* SPDX-License-Identifier: Apache-2.0
 *
 * Block discovery: which addresses of a module start a block. The order of signals:
 *
 *     seeds      entry, init/fini, symbols, relocations, landing pads                        seeds.c, eh_frame.c
 *     sweep      every function (FDE, sized symbol) linearly, in parallel                    sweep.c
 *     descend    from every leader that the sweep did not decode: overlapping code, code without an FDE
 *     tables     jump tables, label tables, lea and constants; descend again, until nothing new turns up    tables.c
 *     gaps       what is still unknown between functions, linearly; descend and tables again
 *
 * Sweeping first is what makes the rest simple: compilers put no data into functions, so after the sweep the bitmap of decoded
 * instructions decides whether a number that may be a code address is one. Recall goes before precision: a leader too many
 * costs bytes, a leader too few a translation at run time.
 */
#include "analyzer/discover.h"
#include "internal/error.h"
#include <stdlib.h>

enum {
    MERGE_BYTES = 64,      /* sections closer than this are one run */
    MARGIN_BYTES = 4096,   /* without sections: code around what the unwind tables cover */
    MAX_ROUNDS = 16,       /* table targets lead to code with tables ...; two or three in practice */
    MIN_PARALLEL = 1 << 20 /* bytes of text below which threads do not pay */
};

void ref_push(struct ref_list *l, offset_t target, offset_t at)
{
    if (l->n == l->room) {
        uint32_t room = l->room ? l->room * 2 : 256;
        struct ref *grown = room > l->room ? realloc(l->items, room * sizeof *grown) : NULL;
        if (!grown) {
            l->failed = true;
            return;
        }
        l->items = grown;
        l->room = room;
    }
    l->items[l->n++] = (struct ref){target, at};
}

void range_push(struct range_list *l, offset_t start, offset_t end)
{
    if (l->n == l->room) {
        uint32_t room = l->room ? l->room * 2 : 256;
        struct range *grown = room > l->room ? realloc(l->items, room * sizeof *grown) : NULL;
        if (!grown) {
            l->failed = true;
            return;
        }
        l->items = grown;
        l->room = room;
    }
    l->items[l->n++] = (struct range){start, end};
}

static int compare_refs(const void *a, const void *b)
{
    const struct ref *x = a, *y = b;
    if (x->target != y->target)
        return x->target < y->target ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

void ref_sort(struct ref_list *l)
{
    uint32_t n = 0;
    if (l->n)
        qsort(l->items, l->n, sizeof *l->items, compare_refs);
    for (uint32_t i = 0; i < l->n; i++)
        if (!n || compare_refs(&l->items[n - 1], &l->items[i]) != 0)
            l->items[n++] = l->items[i];
    l->n = n;
}

void range_normalize(struct range_list *l)
{
    uint32_t n = 0;
    offset_t covered = 0;
    if (l->n)
        qsort(l->items, l->n, sizeof *l->items, compare_ranges);
    for (uint32_t i = 0; i < l->n; i++) {
        struct range r = l->items[i];
        covered = r.end > covered ? r.end : covered;
        offset_t next = i + 1 < l->n ? l->items[i + 1].start : NOWHERE;
        r.end = covered < next ? covered : next;
        if (r.start < r.end)
            l->items[n++] = r;
    }
    l->n = n;
}

struct text *text_find(const struct discovery *d, offset_t offset)
{
    uint32_t low = 0, high = d->ntexts;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct text *t = &d->texts[middle];
        if (offset < t->start)
            high = middle;
        else if (offset >= t->end)
            low = middle + 1;
        else
            return t;
    }
    return NULL;
}

uint32_t function_find(const struct discovery *d, offset_t offset)
{
    uint32_t low = 0, high = d->functions.n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct range *f = &d->functions.items[middle];
        if (offset < f->start)
            high = middle;
        else if (offset >= f->end)
            low = middle + 1;
        else
            return middle;
    }
    return NOWHERE;
}

offset_t text_offset(const struct discovery *d, uint64_t vaddr)
{
    uint64_t offset = vaddr - d->m->base_vaddr;
    return offset < d->m->span_bytes && text_find(d, (offset_t)offset) ? (offset_t)offset : NOWHERE;
}

bool plausible(const struct discovery *d, offset_t offset)
{
    const struct text *t = text_find(d, offset);
    return t && (bit_get(t->decoded, offset - t->start) || function_find(d, offset) == NOWHERE);
}

void mark_leader(struct worker *w, offset_t offset)
{
    struct text *t = text_find(w->d, offset);
    if (!t)
        return;
    if (w->descending && !bit_get(t->decoded, offset - t->start) && !bit_get(t->leaders, offset - t->start))
        ref_push(&w->todo, offset, 0);
    bit_set(t->leaders, offset - t->start);
}

/* Executable sections, if they are there and hold the entry point: else a packer or a hostile hand has been at them. */
static void code_sections(const struct discovery *d, struct range_list *out)
{
    const struct elf_module *m = d->m;
    Elf64_Shdr s;
    bool has_entry = m->entry == 0;
    for (uint32_t i = 0; elf_section(m, i, &s); i++) {
        uint64_t start = s.sh_addr - m->base_vaddr;
        if (s.sh_type != SHT_PROGBITS || !(s.sh_flags & SHF_EXECINSTR) || !(s.sh_flags & SHF_ALLOC))
            continue;
        if (start >= m->span_bytes || s.sh_size > m->span_bytes - start)
            continue;
        range_push(out, (offset_t)start, (offset_t)(start + s.sh_size));
        has_entry |= m->entry >= s.sh_addr && m->entry - s.sh_addr < s.sh_size;
    }
    if (!has_entry)
        out->n = 0;
}

/* The part of RANGE inside of SPAN becomes a run of text, or extends the last one. */
static void add_text(struct discovery *d, const struct text_span *span, struct range range)
{
    struct text *last = d->ntexts ? &d->texts[d->ntexts - 1] : NULL;
    offset_t start = range.start > span->start ? range.start : span->start;
    offset_t end = range.end < span->end ? range.end : span->end;
    if (start >= end)
        return;
    if (last && last->limit == span->end && start <= last->end + MERGE_BYTES) {
        last->end = end > last->end ? end : last->end;
        return;
    }
    d->texts[d->ntexts++] =
        (struct text){.start = start, .end = end, .limit = span->end, .bytes = span->bytes + (start - span->start)};
}

static int make_texts(struct discovery *d)
{
    const struct elf_module *m = d->m;
    struct range_list sections = {0};
    code_sections(d, &sections);
    range_normalize(&sections);
    d->texts = calloc((size_t)sections.n + m->nspans + 1, sizeof *d->texts);
    bool failed = sections.failed || !d->texts;
    uint32_t section = 0;
    for (uint32_t i = 0; i < m->nspans && !failed; i++) {
        const struct text_span *span = &m->spans[i];
        if (!sections.n)
            add_text(d, span, (struct range){span->start, span->end});
        while (section < sections.n && sections.items[section].end <= span->start)
            section++;
        while (section < sections.n && sections.items[section].start < span->end) {
            add_text(d, span, sections.items[section]);
            if (sections.items[section].end > span->end)
                break;
            section++;
        }
    }
    d->has_sections = sections.n != 0;
    free(sections.items);
    return failed ? -BDBI_ENOMEM : 0;
}

/* Without sections a segment may be half read-only data: what is far from every function is taken for that. */
static void trim_text(const struct discovery *d, struct text *t)
{
    offset_t start = NOWHERE, end = 0;
    for (uint32_t i = 0; i < d->functions.n; i++) {
        const struct range *f = &d->functions.items[i];
        if (f->start < t->start || f->start >= t->end)
            continue;
        start = f->start < start ? f->start : start;
        end = f->end > end ? f->end : end;
    }
    if (!end)
        return;
    if (start - t->start > MARGIN_BYTES) {
        t->bytes += start - MARGIN_BYTES - t->start;
        t->start = start - MARGIN_BYTES;
    }
    if (end < t->end && t->end - end > MARGIN_BYTES)
        t->end = end + MARGIN_BYTES;
}

static int make_bitmaps(struct discovery *d)
{
    for (uint32_t i = 0; i < d->ntexts; i++) {
        struct text *t = &d->texts[i];
        if (!d->has_sections)
            trim_text(d, t);
        size_t words = (t->end - t->start + 63) / 64;
        t->decoded = calloc(words, 8);
        t->leaders = calloc(words, 8);
        if (!t->decoded || !t->leaders)
            return -BDBI_ENOMEM;
    }
    return 0;
}

static int make_workers(struct discovery *d, unsigned threads)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < d->ntexts; i++)
        bytes += d->texts[i].end - d->texts[i].start;
    d->nworkers = bytes < MIN_PARALLEL || threads < 1 ? 1 : threads;
    d->workers = calloc(d->nworkers, sizeof *d->workers);
    if (!d->workers)
        return -BDBI_ENOMEM;
    for (unsigned i = 0; i < d->nworkers; i++) {
        d->workers[i].d = d;
        d->workers[i].decoder = decoder_new();
        if (!d->workers[i].decoder)
            return -BDBI_ENOMEM;
    }
    return 0;
}

static void merge_list(struct ref_list *to, struct ref_list *from)
{
    for (uint32_t i = 0; i < from->n; i++)
        ref_push(to, from->items[i].target, from->items[i].at);
    to->failed |= from->failed;
    from->n = 0;
}

/* What all workers noted goes to workers[0]. */
static void merge_workers(struct discovery *d)
{
    struct worker *w = &d->workers[0];
    for (unsigned i = 1; i < d->nworkers; i++) {
        merge_list(&w->tables, &d->workers[i].tables);
        merge_list(&w->labels, &d->workers[i].labels);
        merge_list(&w->jumps, &d->workers[i].jumps);
        merge_list(&w->weak, &d->workers[i].weak);
    }
}

/* Descends and follows tables until both find nothing new. */
static void settle(struct worker *w)
{
    sweep_descend(w);
    for (int round = 0; round < MAX_ROUNDS; round++) {
        tables_mark(w);
        if (!sweep_descend(w))
            break;
    }
}

static bool any_failed(const struct discovery *d)
{
    const struct worker *w = &d->workers[0];
    return d->functions.failed || d->lsdas.failed || w->todo.failed || w->tables.failed || w->labels.failed ||
           w->jumps.failed || w->weak.failed;
}

/* All leaders that decode. */
static int collect(struct discovery *d, uint32_t **leaders, uint32_t *nleaders)
{
    size_t count = 0, n = 0;
    for (uint32_t i = 0; i < d->ntexts; i++)
        for (size_t k = 0; k < (d->texts[i].end - d->texts[i].start + 63) / 64; k++)
            count += (size_t)__builtin_popcountll(d->texts[i].leaders[k] & d->texts[i].decoded[k]);
    *leaders = malloc((count ? count : 1) * sizeof **leaders);
    if (!*leaders)
        return -BDBI_ENOMEM;
    for (uint32_t i = 0; i < d->ntexts; i++) {
        const struct text *t = &d->texts[i];
        for (size_t k = 0; k < (t->end - t->start + 63) / 64; k++)
            for (uint64_t bits = t->leaders[k] & t->decoded[k]; bits; bits &= bits - 1)
                (*leaders)[n++] = t->start + (uint32_t)(k * 64) + (uint32_t)__builtin_ctzll(bits);
    }
    *nleaders = (uint32_t)n;
    return 0;
}

static void release(struct discovery *d)
{
    for (unsigned i = 0; d->workers && i < d->nworkers; i++) {
        struct worker *w = &d->workers[i];
        if (w->decoder)
            decoder_free(w->decoder);
        free(w->todo.items);
        free(w->tables.items);
        free(w->labels.items);
        free(w->jumps.items);
        free(w->weak.items);
    }
    for (uint32_t i = 0; i < d->ntexts; i++) {
        free(d->texts[i].decoded);
        free(d->texts[i].leaders);
    }
    free(d->workers);
    free(d->texts);
    free(d->functions.items);
    free(d->lsdas.items);
}

static void discover(struct discovery *d, const uint32_t *extra, uint32_t nextra)
{
    struct worker *w = &d->workers[0];
    eh_frame_mark_pads(w);
    seeds_add_functions(d);
    seeds_mark(w);
    for (uint32_t i = 0; i < nextra; i++)
        mark_leader(w, extra[i]);
    sweep_functions(d);
    merge_workers(d);
    seeds_scan_words(w);
    settle(w);
    sweep_gaps(w);
    settle(w);
    tables_split(w);
}

int analyzer_discover(const struct elf_module *m, const uint32_t *extra, uint32_t nextra, unsigned threads, uint32_t **leaders,
                      uint32_t *nleaders)
{
    struct discovery d = {.m = m};
    *leaders = NULL;
    *nleaders = 0;
    int error = make_texts(&d);
    if (!error) {
        eh_frame_read(&d);
        error = make_bitmaps(&d);
    }
    if (!error)
        error = make_workers(&d, threads);
    if (!error) {
        discover(&d, extra, nextra);
        error = any_failed(&d) ? -BDBI_ENOMEM : collect(&d, leaders, nleaders);
    }
    release(&d);
    return error;
}
