/* SPDX-License-Identifier: Apache-2.0
 *
 * Helpers of the translator's tests: tests/jit/support.h.
 */
#include "support.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "launcher/context.h"

static void die(const char *path, const char *what)
{
    fprintf(stderr, "%s: %s\n", path, what);
    exit(2);
}

static void read_file(struct module *m, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t have = 0;

    if (fd < 0 || fstat(fd, &st) != 0)
        die(path, "cannot open");
    m->file_bytes = (size_t)st.st_size;
    m->file = malloc(m->file_bytes + 1);
    while (m->file && have < m->file_bytes) {
        ssize_t n = read(fd, m->file + have, m->file_bytes - have);
        if (n <= 0)
            die(path, "cannot read");
        have += (size_t)n;
    }
    close(fd);
}

static int by_start(const void *a, const void *b)
{
    const struct text_span *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

void module_read(struct module *m, const char *path)
{
    const Elf64_Ehdr *eh;
    const Elf64_Shdr *sh;

    *m = (struct module){0};
    read_file(m, path);
    eh = (const Elf64_Ehdr *)m->file;
    if (m->file_bytes < sizeof(*eh) || memcmp(eh->e_ident, ELFMAG, SELFMAG) != 0)
        die(path, "not ELF");
    sh = (const Elf64_Shdr *)(m->file + eh->e_shoff);
    for (unsigned i = 0; i < eh->e_shnum; i++) {
        if (sh[i].sh_type != SHT_PROGBITS || !(sh[i].sh_flags & SHF_EXECINSTR) || m->nspans == MODULE_MAX_SPANS)
            continue;
        m->spans[m->nspans++] =
            (struct text_span){(uint32_t)sh[i].sh_addr, (uint32_t)(sh[i].sh_addr + sh[i].sh_size), m->file + sh[i].sh_offset};
    }
    qsort(m->spans, m->nspans, sizeof(m->spans[0]), by_start);
}

static bool in_spans(const struct module *m, int64_t offset)
{
    for (uint32_t i = 0; i < m->nspans; i++)
        if (offset >= m->spans[i].start && offset < m->spans[i].end)
            return true;
    return false;
}

void module_sweep(struct module *m, struct decoder *d)
{
    uint32_t limit = m->nspans ? m->spans[m->nspans - 1].end : 0;
    uint8_t *is_leader = calloc(limit + 1, 1);
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->nspans; i++) {
        const struct text_span *span = &m->spans[i];
        bool start = true;

        for (uint32_t at = span->start; at < span->end;) {
            struct insn insn;

            if (start)
                is_leader[at] = 1;
            start = false;
            if (insn_decode(d, span->bytes + (at - span->start), span->end - at, at, &insn) != 0) {
                at++;
                start = true;
                continue;
            }
            at += insn.length;
            /* Where padding ends a function may begin that nobody here calls. */
            start = insn_ends_block(&insn) || (at % 16 == 0 && !strncmp(insn_opcode_name(insn.opcode), "NOOP", 4));
            if (insn.target && in_spans(m, insn.target))
                is_leader[insn.target] = 1;
        }
    }
    for (uint32_t i = 0; i < limit; i++)
        n += is_leader[i];
    m->leaders = malloc((n + 1) * sizeof(*m->leaders));
    for (uint32_t i = 0; i < limit; i++)
        if (is_leader[i])
            m->leaders[m->nleaders++] = i;
    free(is_leader);
}

void module_free(struct module *m)
{
    free(m->file);
    free(m->leaders);
}

struct jit_unit module_unit(const struct module *m)
{
    return (struct jit_unit){
        .spans = m->spans,
        .nspans = m->nspans,
        .leaders = m->leaders,
        .nleaders = m->nleaders,
        .code_distance = BDBI_CODE_DISTANCE,
        .data_distance = BDBI_CODE_DISTANCE,
    };
}

double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15ull;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}
