/* SPDX-License-Identifier: Apache-2.0
 *
 * Seeds: addresses that the file itself calls code.
 *
 *     e_entry, DT_INIT, DT_FINI, the three arrays       functions
 *     .symtab and .dynsym                               functions, ifunc resolvers, labels of hand-written code
 *     RELATIVE, IRELATIVE, 64-bit absolute, RELR        pointers in data: vtables, callbacks, label tables of computed gotos
 *
 * A module at a fixed address has no relocations for its pointers: there every aligned word of its data is looked at, and
 * constants of instructions too (sweep.c). Such a number counts only if the sweep decoded an instruction there.
 */
#include "analyzer/discover.h"
#include <stdlib.h>

enum { MIN_RUN = 3 /* neighbours that make 4-byte words a table */ };

static void mark_vaddr(struct worker *w, uint64_t vaddr)
{
    offset_t offset = text_offset(w->d, vaddr);
    if (offset != NOWHERE)
        mark_leader(w, offset);
}

typedef void symbol_fn(struct worker *w, const Elf64_Sym *symbol);

static bool is_code_symbol(const Elf64_Sym *s)
{
    unsigned type = ELF64_ST_TYPE(s->st_info);
    return s->st_shndx != SHN_UNDEF && s->st_shndx != SHN_ABS &&
           (type == STT_FUNC || type == STT_GNU_IFUNC || type == STT_NOTYPE);
}

static void each_symbol(struct worker *w, const uint8_t *table, uint64_t count, symbol_fn *fn)
{
    Elf64_Sym s;
    for (uint64_t i = 0; i < count; i++) {
        memcpy(&s, table + i * sizeof s, sizeof s);
        if (is_code_symbol(&s))
            fn(w, &s);
    }
}

/* The number of dynamic symbols, from the GNU hash table: the last chain's end. */
static uint64_t gnu_hash_symbols(const struct elf_module *m, uint64_t vaddr)
{
    uint64_t left, last = 0;
    const uint8_t *p = elf_from(m, vaddr, &left);
    if (!p || left < 16)
        return 0;
    uint64_t buckets = load32(p), first = load32(p + 4), bloom = load32(p + 8);
    uint64_t bucket = 16 + bloom * 8, chain = bucket + buckets * 4;
    if (chain > left)
        return 0;
    for (uint64_t i = 0; i < buckets; i++)
        last = load32(p + bucket + i * 4) > last ? load32(p + bucket + i * 4) : last;
    if (last < first)
        return first;
    while (chain + (last - first) * 4 + 4 <= left && !(load32(p + chain + (last - first) * 4) & 1))
        last++;
    return last + 1;
}

static uint64_t dynamic_symbols(const struct elf_module *m)
{
    uint64_t vaddr, count = 0;
    if (elf_dynamic_value(m, DT_GNU_HASH, &vaddr))
        count = gnu_hash_symbols(m, vaddr);
    const uint8_t *hash = elf_dynamic_value(m, DT_HASH, &vaddr) ? elf_at(m, vaddr, 8) : NULL;
    return hash && load32(hash + 4) > count ? load32(hash + 4) : count;
}

static void each_symbol_table(struct worker *w, symbol_fn *fn)
{
    const struct elf_module *m = w->d->m;
    Elf64_Shdr s;
    uint64_t vaddr, left;
    const uint8_t *p = elf_dynamic_value(m, DT_SYMTAB, &vaddr) ? elf_from(m, vaddr, &left) : NULL;
    if (p) {
        uint64_t count = dynamic_symbols(m);
        each_symbol(w, p, count < left / sizeof(Elf64_Sym) ? count : left / sizeof(Elf64_Sym), fn);
    }
    for (uint32_t i = 0; elf_section(m, i, &s); i++)
        if (s.sh_type == SHT_SYMTAB && (p = elf_file_at(m, s.sh_offset, s.sh_size))) {
            each_symbol(w, p, s.sh_size / sizeof(Elf64_Sym), fn);
            return;
        }
}

static void mark_symbol(struct worker *w, const Elf64_Sym *s)
{
    mark_vaddr(w, s->st_value);
}

static void add_function(struct worker *w, const Elf64_Sym *s)
{
    offset_t start = s->st_size ? text_offset(w->d, s->st_value) : NOWHERE;
    if (start == NOWHERE || ELF64_ST_TYPE(s->st_info) == STT_NOTYPE || function_find(w->d, start) != NOWHERE)
        return;
    const struct text *t = text_find(w->d, start);
    /* `todo` is free until the first descent. */
    ref_push(&w->todo, start, s->st_size < t->end - start ? start + (offset_t)s->st_size : t->end);
}

void seeds_add_functions(struct discovery *d)
{
    struct ref_list *found = &d->workers[0].todo;
    each_symbol_table(&d->workers[0], add_function);
    for (uint32_t i = 0; i < found->n; i++)
        range_push(&d->functions, found->items[i].target, found->items[i].at);
    found->n = 0;
    range_normalize(&d->functions);
}

static uint64_t symbol_value(const struct elf_module *m, uint64_t index)
{
    uint64_t table;
    Elf64_Sym s;
    const uint8_t *p =
        elf_dynamic_value(m, DT_SYMTAB, &table) ? elf_at(m, table + index * sizeof(Elf64_Sym), sizeof(Elf64_Sym)) : NULL;
    if (!p)
        return 0;
    memcpy(&s, p, sizeof s);
    return s.st_shndx == SHN_UNDEF ? 0 : s.st_value;
}

static void mark_rela(struct worker *w, const uint8_t *table, uint64_t count)
{
    Elf64_Rela r;
    for (uint64_t i = 0; i < count; i++) {
        memcpy(&r, table + i * sizeof r, sizeof r);
        unsigned type = ELF64_R_TYPE(r.r_info);
        if (type == R_X86_64_RELATIVE || type == R_X86_64_IRELATIVE)
            mark_vaddr(w, (uint64_t)r.r_addend);
        else if (type == R_X86_64_64 && r.r_addend) /* without addend: the symbol itself is a seed already */
            mark_vaddr(w, symbol_value(w->d->m, ELF64_R_SYM(r.r_info)) + (uint64_t)r.r_addend);
    }
}

static void mark_word(struct worker *w, uint64_t vaddr)
{
    const uint8_t *p = elf_at(w->d->m, vaddr, 8);
    if (p)
        mark_vaddr(w, load64(p));
}

/* RELR: an even word is an address to relocate, an odd one a bitmap of the 63 words that follow. */
static void mark_relr(struct worker *w)
{
    uint64_t count, where = 0;
    const uint8_t *p = elf_dynamic_table(w->d->m, DT_RELR, DT_RELRSZ, 8, &count);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t entry = load64(p + i * 8);
        if (!(entry & 1)) {
            mark_word(w, entry);
            where = entry + 8;
            continue;
        }
        for (unsigned k = 0; k < 63; k++)
            if (entry >> (k + 1) & 1)
                mark_word(w, where + k * 8);
        where += 63 * 8;
    }
}

static void mark_array(struct worker *w, int64_t address_tag, int64_t size_tag)
{
    uint64_t count;
    const uint8_t *p = elf_dynamic_table(w->d->m, address_tag, size_tag, 8, &count);
    for (uint64_t i = 0; i < count; i++)
        mark_vaddr(w, load64(p + i * 8));
}

void seeds_mark(struct worker *w)
{
    const struct elf_module *m = w->d->m;
    uint64_t value, count;
    const uint8_t *table;
    mark_vaddr(w, m->entry);
    if (elf_dynamic_value(m, DT_INIT, &value))
        mark_vaddr(w, value);
    if (elf_dynamic_value(m, DT_FINI, &value))
        mark_vaddr(w, value);
    mark_array(w, DT_INIT_ARRAY, DT_INIT_ARRAYSZ);
    mark_array(w, DT_FINI_ARRAY, DT_FINI_ARRAYSZ);
    mark_array(w, DT_PREINIT_ARRAY, DT_PREINIT_ARRAYSZ);
    each_symbol_table(w, mark_symbol);
    if ((table = elf_dynamic_table(m, DT_RELA, DT_RELASZ, sizeof(Elf64_Rela), &count)))
        mark_rela(w, table, count);
    if ((table = elf_dynamic_table(m, DT_JMPREL, DT_PLTRELSZ, sizeof(Elf64_Rela), &count)))
        mark_rela(w, table, count);
    mark_relr(w);
}

/* Aligned 8-byte words of [p, p + n) that are code addresses. */
static void scan_wide(struct worker *w, const uint8_t *p, uint64_t n, uint64_t vaddr)
{
    for (uint64_t i = -vaddr % 8; i + 8 <= n; i += 8) {
        offset_t target = text_offset(w->d, load64(p + i));
        if (target != NOWHERE)
            ref_push(&w->weak, target, 0);
    }
}

/* Runs of aligned 4-byte words that are code addresses: one alone is too likely just a number. */
static void scan_narrow(struct worker *w, const uint8_t *p, uint64_t n, uint64_t vaddr)
{
    uint64_t run = 0;
    for (uint64_t i = -vaddr % 4; i + 4 <= n; i += 4) {
        run = text_offset(w->d, load32(p + i)) == NOWHERE ? 0 : run + 1;
        for (uint64_t k = run == MIN_RUN ? 0 : MIN_RUN - 1; run >= MIN_RUN && k < MIN_RUN; k++)
            ref_push(&w->weak, text_offset(w->d, load32(p + i - 4 * (MIN_RUN - 1 - k))), 0);
    }
}

/* Data inside of executable segments: whatever no function covers. */
static void scan_text(struct worker *w, const struct elf_segment *s)
{
    const struct discovery *d = w->d;
    uint64_t at = s->vaddr - d->m->base_vaddr, end = at + s->file_bytes;
    for (uint32_t f = 0; f < d->functions.n && at < end; f++) {
        const struct range *r = &d->functions.items[f];
        if (r->end <= at)
            continue;
        if (r->start > at)
            scan_wide(w, elf_at(d->m, d->m->base_vaddr + at, 1), (r->start < end ? r->start : end) - at, d->m->base_vaddr + at);
        at = r->end;
    }
    if (at < end)
        scan_wide(w, elf_at(d->m, d->m->base_vaddr + at, 1), end - at, d->m->base_vaddr + at);
}

void seeds_scan_words(struct worker *w)
{
    const struct elf_module *m = w->d->m;
    for (uint32_t i = 0; m->is_exec && i < m->nsegments; i++) {
        const struct elf_segment *s = &m->segments[i];
        const uint8_t *p = elf_at(m, s->vaddr, s->file_bytes);
        if (!p || !s->file_bytes)
            continue;
        if (s->flags & PF_X) {
            scan_text(w, s);
        } else {
            scan_wide(w, p, s->file_bytes, s->vaddr);
            if (!(s->flags & PF_W))
                scan_narrow(w, p, s->file_bytes, s->vaddr);
        }
    }
}
