/* SPDX-License-Identifier: Apache-2.0
 *
 * A unit: leaders are cut into chunks, chunks are emitted by any number of threads in any order, then put one after the other
 * and their references to what was not known before are filled in.
 *
 *   leaders  | 4096 | 4096 | rest |                         in their order: those that have run before come first
 *   chunks   code, map, blocks, fix-ups, counters of each
 *   output   code | code | code | translated tables     map | map | map     ...
 */
#include "jit/jit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "internal/error.h"
#include "jit/emit.h"
#include "jit/table.h"
#include "launcher/context.h"

#define MAX_THREADS 64

struct job {
    const struct jit_unit *unit;
    struct leader_index leaders;
    struct chunk *chunks;
    uint32_t nchunks;
    atomic_uint next_chunk;
    struct table_layout tables;
};

struct jit *jit_new(void)
{
    struct jit *j = calloc(1, sizeof(*j));

    if (!j)
        return NULL;
    j->decoder = decoder_new();
    if (!j->decoder) {
        free(j);
        return NULL;
    }
    return j;
}

void jit_free(struct jit *j)
{
    if (!j)
        return;
    decoder_free(j->decoder);
    for (uint32_t i = 0; i < BLOCKS_KEPT; i++)
        free(j->blocks[i].insns.at);
    free(j->trace.at);
    free(j);
}

struct decoder *jit_decoder(struct jit *j)
{
    return j->decoder;
}

static void emit_chunks(struct job *job, struct jit *j)
{
    for (;;) {
        uint32_t i = atomic_fetch_add(&job->next_chunk, 1);

        if (i >= job->nchunks)
            return;
        chunk_emit(j, job->unit, &job->leaders, &job->chunks[i]);
    }
}

/* A helper thread. Without memory it helps nobody, and the others do its part. */
static void *emit_in_thread(void *arg)
{
    struct jit *j = jit_new();

    if (j)
        emit_chunks(arg, j);
    jit_free(j);
    return NULL;
}

static int check_unit(const struct jit_unit *unit)
{
    /* Code that does not know the module's base refers to it by distances; load_by_steps adds up only so much. */
    if (!unit->fixed_base && (unit->code_distance > UINT32_MAX || unit->code_distance < -(int64_t)UINT32_MAX))
        return -BDBI_EINVAL;
    for (uint32_t i = 1; i < unit->nleaders; i++)
        if (unit->leaders[i] <= unit->leaders[i - 1])
            return -BDBI_EINVAL;
    for (uint32_t i = 0; i < unit->nspans; i++)
        if (unit->spans[i].end < unit->spans[i].start || (i && unit->spans[i].start < unit->spans[i - 1].end))
            return -BDBI_EINVAL;
    return 0;
}

/* Blocks that have run before come first. */
static int put_in_order(struct job *job, struct jit *j)
{
    const struct jit_unit *unit = job->unit;
    bool *ran = calloc(unit->nleaders, sizeof(*ran));
    int error = -BDBI_ENOMEM;

    for (uint32_t i = 0, k = 0; ran && i < unit->nleaders; i++) {
        while (k < unit->nran && unit->ran[k] < unit->leaders[i])
            k++;
        ran[i] = k < unit->nran && unit->ran[k] == unit->leaders[i];
    }
    if (ran) {
        chunk_mark_ran(j, unit, ran);
        error = leader_index_order(&job->leaders, ran);
    }
    free(ran);
    return error;
}

/* Cuts the unit into chunks. 0 or -BDBI_E... */
static int job_init(struct job *job, const struct jit_unit *unit, struct jit *j)
{
    int error = check_unit(unit);

    *job = (struct job){.unit = unit, .nchunks = (unit->nleaders + CHUNK_LEADERS - 1) / CHUNK_LEADERS};
    if (error)
        return error;
    job->chunks = calloc(job->nchunks + 1, sizeof(*job->chunks));
    if (!job->chunks)
        return -BDBI_ENOMEM;
    for (uint32_t i = 0; i < job->nchunks; i++) {
        uint32_t first = i * CHUNK_LEADERS, left = unit->nleaders - first;
        job->chunks[i].first = first;
        job->chunks[i].count = left < CHUNK_LEADERS ? left : CHUNK_LEADERS;
    }
    error = leader_index_init(&job->leaders, unit->leaders, unit->nleaders);
    return !error && unit->nran && unit->nleaders ? put_in_order(job, j) : error;
}

static void job_free(struct job *job)
{
    for (uint32_t i = 0; job->chunks && i < job->nchunks; i++)
        chunk_free(&job->chunks[i]);
    free(job->chunks);
    tables_free(&job->tables);
    leader_index_free(&job->leaders);
}

/* Where the list of links begins behind BYTES of code. */
static size_t links_place(size_t bytes)
{
    return (bytes + 7) / 8 * 8;
}

static void write_links(const struct job *job, struct jit_output *out)
{
    size_t place = links_place(job->tables.end);

    memset(out->code + job->tables.end, 0xcc, place - job->tables.end);
    for (uint32_t i = 0; i < job->nchunks; i++) {
        const struct chunk *c = &job->chunks[i];
        for (size_t k = 0; k < c->links.n; k++, place += sizeof(struct image_link)) {
            struct image_link link = c->links.at[k];
            link.at += c->code_place;
            memcpy(out->code + place, &link, sizeof link);
        }
    }
    out->code_bytes = place;
    out->linked = job->unit->linked;
    out->relro_start = job->unit->relro_start;
    out->relro_end = job->unit->relro_end;
}

/* Gives every chunk its place and makes the output's arrays. 0 or -BDBI_E... */
static int place_chunks(struct job *job, struct jit_output *out)
{
    size_t code = 0, map = 0, counters = 0, marks = 0, unresolved = 0, links = 0;

    for (uint32_t i = 0; i < job->nchunks; i++) {
        struct chunk *c = &job->chunks[i];
        if (c->error)
            return c->error;
        c->code_place = (uint32_t)code;
        c->counter_place = (uint32_t)counters;
        c->mark_place = (uint32_t)marks;
        code += c->code.n;
        map += c->map.n;
        counters += c->counters.n;
        marks += c->marks.n;
        unresolved += c->unresolved.n;
        links += c->links.n;
        out->ninsns += c->ninsns;
        out->nundecodable += c->nundecodable;
        if (out->app_end < c->app_end)
            out->app_end = c->app_end;
    }
    if (code <= BDBI_MODULES_BYTES) {
        int error = tables_place(job->unit, &job->leaders, job->chunks, job->nchunks, (uint32_t)code, &job->tables);
        if (error)
            return error;
        code = job->tables.end;
    }
    out->nlinks = (uint32_t)links;
    if (links)
        code = links_place(code) + links * sizeof(struct image_link);
    /* Up to here `reaches` has promised that everything fits, wherever a chunk is. Counters are checked at both ends. */
    if (code > BDBI_MODULES_BYTES || map >= IMAGE_LANDING || counters > BDBI_MODULES_BYTES / 8 || marks > BDBI_MODULES_BYTES)
        return -BDBI_ETOOBIG;
    if ((counters || marks) && job->unit->data_address) {
        if (job->unit->data_address + 8 * counters + marks > INT32_MAX)
            return -BDBI_ETOOBIG;
    } else if (counters || marks) {
        int64_t first = (int64_t)job->unit->data_distance - job->unit->code_distance;
        if (first - (int64_t)code < INT32_MIN || first + 8 * (int64_t)counters + (int64_t)marks > INT32_MAX)
            return -BDBI_ETOOBIG;
    }
    out->code = malloc(code + 1);
    out->blocks = malloc(((size_t)job->unit->nleaders + 1) * sizeof(*out->blocks));
    out->map = malloc(map + 1);
    out->counters = malloc((counters + marks + 1) * sizeof(*out->counters));
    out->owners = malloc((counters + marks + 1) * sizeof(*out->owners));
    out->ncounters = (uint32_t)counters;
    out->nmarks = (uint32_t)marks;
    out->unresolved = malloc((unresolved + 1) * sizeof(*out->unresolved));
    return out->code && out->blocks && out->map && out->counters && out->owners && out->unresolved ? 0 : -BDBI_ENOMEM;
}

/* Appends D at PLACE of the output's lists. Returns how many of D are of blocks that have run before. */
static uint32_t append_data(const struct job *job, const struct data *d, size_t place, struct jit_output *out)
{
    uint32_t ran = 0;

    for (size_t i = 0; i < d->n; i++) {
        out->counters[place + i].info = d->at[i].info;
        out->owners[place + i] = d->at[i].leader;
        ran += leader_position(&job->leaders, d->at[i].leader) < job->leaders.nfirst;
    }
    return ran;
}

static void append_chunk(const struct job *job, struct chunk *c, struct jit_output *out)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct image_block *b = &out->blocks[leader_at(&job->leaders, c->first + i)];
        *b = c->blocks[i];
        b->code_offset += c->code_place;
        b->map_offset += (uint32_t)out->map_bytes;
    }
    out->nblocks += c->count;
    if (c->code.n)
        memcpy(out->code + out->code_bytes, c->code.at, c->code.n);
    out->code_bytes += c->code.n;
    if (c->map.n)
        memcpy(out->map + out->map_bytes, c->map.at, c->map.n);
    out->map_bytes += c->map.n;
    out->ran_counters += append_data(job, &c->counters, c->counter_place, out);
    out->ran_marks += append_data(job, &c->marks, (size_t)out->ncounters + c->mark_place, out);
    if (c->unresolved.n)
        memcpy(out->unresolved + out->nunresolved, c->unresolved.at, c->unresolved.n * sizeof(*c->unresolved.at));
    out->nunresolved += (uint32_t)c->unresolved.n;
    /* Only the fix-ups are still needed: a large unit is not held twice. */
    free(c->code.at);
    free(c->map.at);
    free(c->blocks);
    c->code.at = c->map.at = NULL;
    c->blocks = NULL;
}

/* What the field AT (of the unit's code) holds that refers to counter or mark I. */
static uint32_t datum_field(const struct job *job, bool mark, size_t i, size_t at, const struct jit_output *out)
{
    const struct jit_unit *unit = job->unit;
    uint64_t data = mark ? 8ull * out->ncounters + i : 8 * (uint64_t)i;

    if (unit->data_address)
        return (uint32_t)(unit->data_address + data);
    return (uint32_t)(unit->data_distance + data - ((uint64_t)unit->code_distance + at + 4 + mark));
}

static void apply_fixups(const struct job *job, const struct chunk *c, struct jit_output *out)
{
    for (size_t i = 0; i < c->fixups.n; i++) {
        const struct fixup *f = &c->fixups.at[i];
        uint8_t *field = out->code + c->code_place + f->at;
        uint32_t value;

        memcpy(&value, field, 4);
        if (f->target == FIXUP_SELF) {
            value += c->code_place;
            memcpy(field, &value, 4);
            continue;
        }
        if (f->target == FIXUP_COUNTER || f->target == FIXUP_MARK) {
            bool mark = f->target == FIXUP_MARK;
            size_t first = mark ? c->mark_place : c->counter_place;
            value = datum_field(job, mark, first + value, (size_t)c->code_place + f->at, out);
        } else {
            value -= c->code_place;
            if (f->target != FIXUP_APP)
                value += out->blocks[f->target].code_offset;
        }
        memcpy(field, &value, 4);
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void sort_unresolved(struct jit_output *out)
{
    uint32_t n = 0;

    qsort(out->unresolved, out->nunresolved, sizeof(*out->unresolved), by_value);
    for (uint32_t i = 0; i < out->nunresolved; i++)
        if (i == 0 || out->unresolved[i] != out->unresolved[i - 1])
            out->unresolved[n++] = out->unresolved[i];
    out->nunresolved = n;
}

static int finish(struct job *job, struct jit_output *out)
{
    int error = place_chunks(job, out);

    if (error) {
        jit_output_free(out);
        return error;
    }
    for (uint32_t i = 0; i < job->nchunks; i++)
        append_chunk(job, &job->chunks[i], out);
    for (uint32_t i = 0; i < job->nchunks; i++)
        apply_fixups(job, &job->chunks[i], out);
    out->data_address = job->unit->data_address;
    out->nran = job->leaders.order ? job->unit->nran : 0;
    out->code_bytes = job->tables.end;
    out->tables_offset = job->tables.tables_place;
    out->constants_start = job->tables.constants_start;
    out->constants_end = job->tables.constants_end;
    tables_write(job->unit, &job->leaders, job->chunks, job->nchunks, &job->tables, out);
    if (out->nlinks)
        write_links(job, out);
    sort_unresolved(out);
    out->order = job->leaders.order;
    job->leaders.order = NULL;
    return 0;
}

int jit_translate(struct jit *j, const struct jit_unit *unit, struct jit_output *out)
{
    struct job job;
    int error = job_init(&job, unit, j);

    *out = (struct jit_output){0};
    if (!error) {
        emit_chunks(&job, j);
        error = finish(&job, out);
    }
    job_free(&job);
    return error;
}

int jit_translate_parallel(const struct jit_unit *unit, unsigned nthreads, struct jit_output *out)
{
    struct job job = {0};
    struct jit *j = jit_new();
    pthread_t threads[MAX_THREADS];
    unsigned started = 0;
    int error = j ? job_init(&job, unit, j) : -BDBI_ENOMEM;

    *out = (struct jit_output){0};
    if (!error) {
        if (nthreads > MAX_THREADS)
            nthreads = MAX_THREADS;
        while (started + 1 < nthreads && started + 1 < job.nchunks &&
               pthread_create(&threads[started], NULL, emit_in_thread, &job) == 0)
            started++;
        emit_chunks(&job, j);
        for (unsigned i = 0; i < started; i++)
            pthread_join(threads[i], NULL);
        error = finish(&job, out);
    }
    jit_free(j);
    job_free(&job);
    return error;
}

void jit_output_free(struct jit_output *out)
{
    free(out->code);
    free(out->blocks);
    free(out->map);
    free(out->counters);
    free(out->owners);
    free(out->order);
    free(out->unresolved);
    *out = (struct jit_output){0};
}
