/* SPDX-License-Identifier: Apache-2.0
 *
 * Unwind tables: where functions are, and where exceptions land.
 *
 *     PT_GNU_EH_FRAME -> .eh_frame_hdr -> .eh_frame:  CIE, FDE, FDE, CIE, FDE, ... , 0
 *     FDE: CIE pointer, start, length, [LSDA pointer]
 *     LSDA: [landing pad base], type table, call sites { start, length, landing pad, action }
 *
 * All numbers are in one of the DWARF pointer encodings. A record that makes no sense ends the walk: what was read until then
 * holds.
 */
#include "analyzer/discover.h"
#include <stdlib.h>

enum {
    ENCODING_ABSOLUTE = 0x00,
    ENCODING_ULEB = 0x01,
    ENCODING_UDATA2 = 0x02,
    ENCODING_UDATA4 = 0x03,
    ENCODING_UDATA8 = 0x04,
    ENCODING_SLEB = 0x09,
    ENCODING_SDATA2 = 0x0a,
    ENCODING_SDATA4 = 0x0b,
    ENCODING_SDATA8 = 0x0c,
    ENCODING_FORM = 0x0f,
    ENCODING_PCREL = 0x10,
    ENCODING_DATAREL = 0x30,
    ENCODING_BASE = 0x70,
    ENCODING_OMIT = 0xff,
};

/* A place in a table; `bad` is sticky. */
struct cursor {
    const uint8_t *p, *end;
    uint64_t vaddr; /* of p */
    bool bad;
};

struct cie {
    uint64_t vaddr;
    uint8_t fde_encoding, lsda_encoding;
    bool has_augmentation, is_signal_frame, valid;
};

struct frames {
    struct discovery *d;
    struct cie cie; /* the last one read: FDEs come grouped */
};

static const uint8_t *take(struct cursor *c, uint64_t n)
{
    if (c->bad || n > (uint64_t)(c->end - c->p)) {
        c->bad = true;
        return NULL;
    }
    c->p += n;
    c->vaddr += n;
    return c->p - n;
}

static uint64_t take_uint(struct cursor *c, unsigned n)
{
    uint64_t v = 0;
    const uint8_t *p = take(c, n);
    if (p)
        memcpy(&v, p, n);
    return v;
}

static uint64_t take_leb(struct cursor *c, bool is_signed)
{
    uint64_t v = 0;
    unsigned shift = 0;
    uint8_t byte;
    do {
        byte = (uint8_t)take_uint(c, 1);
        if (shift < 64)
            v |= (uint64_t)(byte & 0x7f) << shift;
        shift += 7;
    } while ((byte & 0x80) && !c->bad);
    if (is_signed && (byte & 0x40) && shift < 64)
        v |= ~0ull << shift;
    return v;
}

static uint64_t take_form(struct cursor *c, unsigned form)
{
    switch (form) {
    case ENCODING_ULEB:
        return take_leb(c, false);
    case ENCODING_SLEB:
        return take_leb(c, true);
    case ENCODING_UDATA2:
        return take_uint(c, 2);
    case ENCODING_SDATA2:
        return (uint64_t)(int16_t)take_uint(c, 2);
    case ENCODING_UDATA4:
        return take_uint(c, 4);
    case ENCODING_SDATA4:
        return (uint64_t)(int32_t)take_uint(c, 4);
    case ENCODING_ABSOLUTE:
    case ENCODING_UDATA8:
    case ENCODING_SDATA8:
        return take_uint(c, 8);
    }
    c->bad = true;
    return 0;
}

/* A pointer; 0 stays 0. DATA_BASE: what data-relative ones count from. */
static uint64_t take_pointer(struct cursor *c, unsigned encoding, uint64_t data_base)
{
    uint64_t here = c->vaddr;
    if (encoding == ENCODING_OMIT)
        return 0;
    uint64_t v = take_form(c, encoding & ENCODING_FORM);
    if (v && (encoding & ENCODING_BASE) == ENCODING_PCREL)
        v += here;
    else if (v && (encoding & ENCODING_BASE) == ENCODING_DATAREL)
        v += data_base;
    return v;
}

static struct cursor cursor_at(const struct elf_module *m, uint64_t vaddr)
{
    uint64_t left = 0;
    struct cursor c = {.vaddr = vaddr};
    c.p = elf_from(m, vaddr, &left);
    c.bad = !c.p;
    c.end = c.p ? c.p + left : NULL;
    return c;
}

/* Length field of a record: moves C behind it and gives the record's own cursor. False at the end of the table. */
static bool take_record(struct cursor *c, struct cursor *record)
{
    uint64_t n = take_uint(c, 4);
    if (n == 0xffffffff)
        n = take_uint(c, 8);
    *record = *c;
    if (c->bad || n < 4 || !take(c, n))
        return false;
    record->end = c->p;
    return true;
}

/* What the letters of an augmentation string say about its FDEs. */
static void read_augmentation(struct cursor *c, const char *letters, struct cie *out)
{
    for (; *letters && !c->bad; letters++) {
        if (*letters == 'z') {
            take_leb(c, false);
            out->has_augmentation = true;
        } else if (*letters == 'R') {
            out->fde_encoding = (uint8_t)take_uint(c, 1);
        } else if (*letters == 'L') {
            out->lsda_encoding = (uint8_t)take_uint(c, 1);
        } else if (*letters == 'P') {
            unsigned encoding = (unsigned)take_uint(c, 1);
            take_form(c, encoding & ENCODING_FORM);
        } else if (*letters == 'S') {
            out->is_signal_frame = true;
        } else if (*letters != 'B') {
            c->bad = true;
        }
    }
}

static void read_cie(const struct elf_module *m, uint64_t vaddr, struct cie *out)
{
    struct cursor c = cursor_at(m, vaddr), record;
    *out = (struct cie){.vaddr = vaddr, .fde_encoding = ENCODING_ABSOLUTE, .lsda_encoding = ENCODING_OMIT};
    if (!take_record(&c, &record) || take_uint(&record, 4) != 0)
        return;
    unsigned version = (unsigned)take_uint(&record, 1);
    const char *letters = (const char *)record.p;
    while (take_uint(&record, 1) && !record.bad)
        continue;
    if (record.bad)
        return;
    take_leb(&record, false);
    take_leb(&record, true);
    if (version == 1)
        take_uint(&record, 1);
    else
        take_leb(&record, false);
    read_augmentation(&record, letters, out);
    out->valid = !record.bad;
}

/* RECORD is behind its CIE pointer; CIE is that pointer's target. */
static void read_fde(struct frames *f, struct cursor *record, uint64_t cie)
{
    struct discovery *d = f->d;
    if (cie != f->cie.vaddr)
        read_cie(d->m, cie, &f->cie);
    if (!f->cie.valid)
        return;
    uint64_t vaddr = take_pointer(record, f->cie.fde_encoding, 0);
    uint64_t bytes = take_form(record, f->cie.fde_encoding & ENCODING_FORM);
    if (f->cie.is_signal_frame && bytes > 1) { /* unwinders look one byte before a return address: so it starts one early */
        vaddr++;
        bytes--;
    }
    offset_t start = text_offset(d, vaddr);
    if (record->bad || start == NOWHERE || !bytes)
        return;
    const struct text *t = text_find(d, start);
    range_push(&d->functions, start, bytes < t->end - start ? start + (offset_t)bytes : t->end);
    if (!f->cie.has_augmentation || f->cie.lsda_encoding == ENCODING_OMIT)
        return;
    take_leb(record, false);
    uint64_t lsda = take_pointer(record, f->cie.lsda_encoding, 0) - d->m->base_vaddr;
    if (!record->bad && lsda < d->m->span_bytes)
        ref_push(&d->lsdas, (offset_t)lsda, start);
}

static void read_frames(struct frames *f, uint64_t vaddr)
{
    struct cursor c = cursor_at(f->d->m, vaddr), record;
    while (take_record(&c, &record)) {
        uint64_t here = record.vaddr, back = take_uint(&record, 4);
        if (back)
            read_fde(f, &record, here - back);
    }
}

/* Landing pads of the LSDA at offset LSDA of the function at START; it ends before offset END. */
static void read_lsda(struct worker *w, offset_t lsda, offset_t end, offset_t start)
{
    uint64_t base = w->d->m->base_vaddr, pads = base + start;
    struct cursor c = cursor_at(w->d->m, base + lsda);
    if (!c.bad && end - lsda < c.end - c.p)
        c.end = c.p + (end - lsda);
    unsigned encoding = (unsigned)take_uint(&c, 1);
    if (encoding != ENCODING_OMIT)
        pads = take_pointer(&c, encoding, 0);
    if (take_uint(&c, 1) != ENCODING_OMIT)
        take_leb(&c, false);
    encoding = (unsigned)take_uint(&c, 1);
    uint64_t bytes = take_leb(&c, false);
    if (c.bad)
        return;
    if (bytes < (uint64_t)(c.end - c.p))
        c.end = c.p + bytes;
    while (c.p < c.end && !c.bad) {
        take_form(&c, encoding & ENCODING_FORM);
        take_form(&c, encoding & ENCODING_FORM);
        uint64_t pad = take_form(&c, encoding & ENCODING_FORM);
        take_leb(&c, false);
        offset_t target = pad && !c.bad ? text_offset(w->d, pads + pad) : NOWHERE;
        if (target != NOWHERE)
            mark_leader(w, target);
    }
}

/* Each LSDA once, up to the next: a file that points all functions to one table must not cost more than its size. */
void eh_frame_mark_pads(struct worker *w)
{
    struct ref_list *lsdas = &w->d->lsdas;
    ref_sort(lsdas);
    for (uint32_t i = 0, next; i < lsdas->n; i = next) {
        for (next = i + 1; next < lsdas->n && lsdas->items[next].target == lsdas->items[i].target; next++)
            continue;
        read_lsda(w, lsdas->items[i].target, next < lsdas->n ? lsdas->items[next].target : NOWHERE, lsdas->items[i].at);
    }
}

/* .eh_frame's address from the header that PT_GNU_EH_FRAME points at. */
static bool find_by_header(const struct elf_module *m, uint64_t *vaddr)
{
    Elf64_Phdr p;
    if (!elf_find_phdr(m, PT_GNU_EH_FRAME, &p))
        return false;
    struct cursor c = cursor_at(m, p.p_vaddr);
    unsigned version = (unsigned)take_uint(&c, 1), encoding = (unsigned)take_uint(&c, 1);
    take_uint(&c, 2);
    *vaddr = take_pointer(&c, encoding, p.p_vaddr);
    return !c.bad && version == 1 && *vaddr;
}

static bool find_by_section(const struct elf_module *m, uint64_t *vaddr)
{
    Elf64_Ehdr header;
    Elf64_Shdr names, s;
    memcpy(&header, m->file, sizeof header);
    if (!elf_section(m, header.e_shstrndx, &names))
        return false;
    for (uint32_t i = 0; elf_section(m, i, &s); i++) {
        const uint8_t *name = s.sh_name < names.sh_size ? elf_file_at(m, names.sh_offset + s.sh_name, 10) : NULL;
        if (name && memcmp(name, ".eh_frame", 10) == 0) {
            *vaddr = s.sh_addr;
            return true;
        }
    }
    return false;
}

void eh_frame_read(struct discovery *d)
{
    struct frames f = {.d = d, .cie = {.vaddr = UINT64_MAX}};
    uint64_t vaddr;
    if (find_by_header(d->m, &vaddr) || find_by_section(d->m, &vaddr))
        read_frames(&f, vaddr);
    range_normalize(&d->functions);
}
