/* SPDX-License-Identifier: Apache-2.0
 *
 * Switches and computed gotos. A jump whose target comes out of a table that does not change goes through a translated table of
 * the same indexes: no lookup, no target cache, no check where it arrives.
 *
 *   app                              trace                                      translated table, at table + delta
 *     cmp   edx, 10                    cmp    edx, 10
 *     ja    default                    ja     default
 *     lea   rcx, [rip + table]         lea    rcx, [rip + table]
 *     mov   eax, edx                   mov    eax, edx
 *     movsxd rax, [rcx + rax*4]        mov    home(rcx), rcx
 *                                      lea    rcx, [rcx + rax*4]
 *                                      movsxd rax, [rcx]
 *                                      movsxd rcx, [rcx + delta]                  .long code of target - target, ...
 *     add   rax, rcx                   add    rax, home(rcx)
 *     jmp   rax                        lea    rcx, [rcx + rax]
 *                                      jmp    rcx     -> mov rcx, home(rcx); code of target   (the end of its landing)
 *
 * That is right only when the index is below the table's end and the table is this one. Both are proven from instructions that
 * have just run, one after the other. So a trace is a copy of the blocks that hold the proof and the jump, which only the
 * instruction before them falls into: a block H ends with the first instruction of the proof, the trace follows in H's own code
 * and map. Everybody else (a branch to the middle, a signal handler's return, which may come with other registers) finds the
 * blocks themselves, with the jump as usual: the address map leads from app addresses to the block that starts there, and the
 * analyzer makes the instruction behind the proof's first one a leader.
 *
 *   | H: ... cmp | ja default | lea mov movsxd add jmp |  landing | ja default |  landing | lea mov movsxd add jmp |
 *                ^ trace: copies of both                            ^ a leader              ^ a leader
 *
 * That the table does not change is the core's part: an image says which bytes of its module it took for constants, and is
 * detached when the guest makes one of them writable or maps something over it (launcher/memory.c).
 */
#include "jit/table.h"

#include <stdlib.h>

#include "internal/error.h"
#include "jit/encode.h"
#include "jit/scan.h"

/* Offset of what entry I of the table at BYTES leads to. */
static int64_t entry_target(const struct jit_unit *unit, enum table_kind kind, int64_t addend, const uint8_t *bytes, uint32_t i)
{
    int32_t offset;
    uint64_t pointer;

    if (kind == TABLE_OFFSETS) {
        memcpy(&offset, bytes + 4ull * i, 4);
        return addend + offset;
    }
    memcpy(&pointer, bytes + 8ull * i, 8);
    return (int64_t)(pointer - unit->fixed_base);
}

static unsigned entry_bytes(enum table_kind kind)
{
    return kind == TABLE_OFFSETS ? 4 : 8;
}

bool table_find(struct emitter *e, const struct insn *insns, uint32_t from, uint32_t n, struct table_site *site)
{
    const struct jit_unit *unit = e->unit;
    const uint8_t *bytes;

    if (!unit->nconstants || !table_prove(unit, &e->text, insns, from, n, site))
        return false;
    bytes = table_constants(unit, site->table, (uint64_t)site->count * entry_bytes(site->kind));
    for (uint32_t i = 0; i < site->count; i++) {
        int64_t target = entry_target(unit, site->kind, site->addend, bytes, i);
        if (target < 0 || leader_find(e->leaders, (uint64_t)target) == LEADER_NONE)
            return false;
    }
    for (uint32_t i = site->load; i < n; i++) /* no registers' homes for that while one is in use */
        if (insns[i].rip_relative && !reaches(e, app_offset(e, (uint64_t)insns[i].rip_target), CODE_RESERVE))
            return false;
    return true;
}

/* ---- emission ---- */

static void put_table_field(struct emitter *e, const struct table_site *site)
{
    struct chunk *c = e->chunk;

    if (!array_reserve(&c->tables, 1)) {
        c->error = -BDBI_ENOMEM;
        return;
    }
    c->tables.at[c->tables.n++] =
        (struct table_ref){(uint32_t)c->code.n, (uint8_t)site->kind, site->table, site->count, site->addend};
    put4(e, 0);
}

/* before: jmp [x*8 + table]
 * after:  jmp [x*8 + translated table] */
static void put_jump_through(struct emitter *e, const struct table_site *site)
{
    if (site->index >= R8)
        put1(e, 0x42); /* REX.X */
    put1(e, 0xff);
    put1(e, 0x24);
    put1(e, 0xc5 | (site->index & 7) << 3); /* no base */
    put_table_field(e, site);
    map_piece(e, STATE_CLEAN);
}

/* before: movsxd r, [b + x*4]   or   mov r, [x*8 + table]; s is rcx, or rax
 * after:  mov home(s), s; lea s, [b + x*4]; movsxd r, [s]; movsxd s, [s + delta] */
static void put_load(struct emitter *e, const struct table_site *site, const struct insn *insn, const uint8_t *bytes)
{
    unsigned s = site->scratch, saved = state_saved((enum gpr)s);
    struct scan scan;

    scan_insn(bytes, insn->length, &scan);
    mov_home_reg(e, (enum gpr)s);
    map_piece(e, STATE_CLEAN);
    put1(e, 0x48 | (scan.rex & 3)); /* lea s, m */
    put1(e, 0x8d);
    put1(e, (scan.modrm & 0xc7) | s << 3);
    put_bytes(e, bytes + scan.modrm_offset + 1, insn->length - scan.modrm_offset - 1u);
    map_piece(e, STATE_CLEAN);
    put1(e, 0x48 | (site->target >= R8 ? 4 : 0)); /* movsxd r, [s]; mov r, [s] */
    put1(e, scan.opcode);
    put1(e, (site->target & 7) << 3 | s);
    map_piece(e, saved);
    map_advance(e, insn->length);
    put1(e, 0x48); /* movsxd s, [s + delta]; mov s, [s + delta]: the next instruction's */
    put1(e, scan.opcode);
    put1(e, 0x80 | s << 3 | s);
    put_table_field(e, site);
    map_piece(e, saved);
}

/* before: add r, s
 * after:  add r, home(s) */
static void put_add(struct emitter *e, const struct table_site *site)
{
    put1(e, 0x65);
    put1(e, 0x48 | (site->target >= R8 ? 4 : 0));
    put1(e, 0x03);
    put1(e, 0x04 | (site->target & 7) << 3);
    put1(e, 0x25);
    put4(e, CTX_GPR + 8 * site->scratch);
    map_piece(e, state_saved((enum gpr)site->scratch));
}

/* before: jmp r
 * after:  lea s, [s + r] (a table of offsets); jmp s
 *    rax: lea rax, [rax + rcx]; mov home(rcx), rcx; mov rcx, rax; mov rax, home(rax); jmp rcx */
static void put_jump(struct emitter *e, const struct table_site *site)
{
    unsigned s = site->scratch, saved = state_saved((enum gpr)s);

    if (site->kind == TABLE_OFFSETS) {
        unsigned base = site->target, index = s;
        put1(e, 0x48 | (base >= R8 ? 1 : 0)); /* lea s, [r + s + 0] */
        put1(e, 0x8d);
        put1(e, 0x44 | s << 3);
        put1(e, index << 3 | (base & 7));
        put1(e, 0);
        map_piece(e, saved);
    }
    if (s == RAX) {
        mov_home_reg(e, RCX);
        map_piece(e, saved);
        put1(e, 0x48); /* mov rcx, rax */
        put1(e, 0x89);
        put1(e, 0xc1);
        map_piece(e, saved);
        saved |= MAP_RCX;
        mov_reg_home(e, RAX);
        map_piece(e, saved);
        saved = MAP_RCX;
    }
    put1(e, 0xff); /* jmp rcx */
    put1(e, 0xe1);
    map_piece(e, saved);
}

/* What is between the load and the jump, with a register in its home. */
static void put_between(struct emitter *e, const struct table_site *site, const struct insn *insn, const uint8_t *bytes)
{
    if (insn->rip_relative) {
        unsigned trailing = insn->length - insn->disp_offset - 4u;
        put_bytes(e, bytes, insn->disp_offset);
        put_rel_app(e, app_offset(e, (uint64_t)insn->rip_target), trailing);
        put_bytes(e, bytes + insn->disp_offset + 4, trailing);
    } else {
        put_bytes(e, bytes, insn->length);
    }
    map_piece(e, state_saved((enum gpr)site->scratch));
}

void table_insn(struct emitter *e, const struct table_site *site, uint32_t i, const struct insn *insn, const uint8_t *bytes)
{
    if (site->kind == TABLE_JUMP) {
        put_jump_through(e, site);
    } else if (i == site->load) {
        put_load(e, site, insn, bytes);
        return;
    } else if (i == site->jump) {
        put_jump(e, site);
    } else if (i == site->add && site->kind == TABLE_OFFSETS && insn->regs_read >> site->scratch & 1) {
        put_add(e, site);
    } else {
        put_between(e, site, insn, bytes);
    }
    map_advance(e, insn->length);
}

/* ---- the tables ---- */

#define ENTRY_BYTES (LANDING_END_BYTES + 5) /* mov rcx, home(rcx); jmp rel32 */
#define TABLE_ALIGN 64                      /* data and code in no cache line together */

static int by_table(const void *a, const void *b)
{
    const struct table_ref *x = a, *y = b;

    if (x->table != y->table)
        return x->table < y->table ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->count != y->count)
        return x->count < y->count ? -1 : 1;
    return (x->addend > y->addend) - (x->addend < y->addend);
}

static int by_leader(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static uint32_t entry_leader(const struct jit_unit *unit, const struct leader_index *leaders, const struct table_ref *t,
                             uint32_t i)
{
    const uint8_t *bytes = table_constants(unit, t->table, (uint64_t)t->count * entry_bytes(t->kind));

    return leader_find(leaders, (uint64_t)entry_target(unit, t->kind, t->addend, bytes, i));
}

static bool collect_tables(struct table_layout *l, const struct chunk *chunks, uint32_t nchunks)
{
    size_t n = 0;

    for (uint32_t i = 0; i < nchunks; i++) {
        const struct chunk *c = &chunks[i];
        if (!array_reserve(&l->tables, c->tables.n))
            return false;
        for (size_t k = 0; k < c->tables.n; k++)
            l->tables.at[l->tables.n++] = c->tables.at[k];
    }
    if (!l->tables.n)
        return true;
    qsort(l->tables.at, l->tables.n, sizeof(*l->tables.at), by_table);
    for (size_t i = 0; i < l->tables.n; i++)
        if (n == 0 || by_table(&l->tables.at[n - 1], &l->tables.at[i]))
            l->tables.at[n++] = l->tables.at[i];
    l->tables.n = n;
    return true;
}

static bool has_landing(const struct leader_index *leaders, const struct chunk *chunks, uint32_t leader)
{
    uint32_t position = leader_position(leaders, leader);

    return chunks[position / CHUNK_LEADERS].blocks[position % CHUNK_LEADERS].map_offset & IMAGE_LANDING;
}

/* Targets that need an entry of their own. */
static bool collect_entries(struct table_layout *l, const struct jit_unit *unit, const struct leader_index *leaders,
                            const struct chunk *chunks)
{
    size_t n = 0;

    for (size_t i = 0; i < l->tables.n; i++) {
        const struct table_ref *t = &l->tables.at[i];
        for (uint32_t k = 0; k < t->count && t->kind != TABLE_JUMP; k++) {
            uint32_t leader = entry_leader(unit, leaders, t, k);
            if (has_landing(leaders, chunks, leader))
                continue;
            if (!array_reserve(&l->entries, 1))
                return false;
            l->entries.at[l->entries.n++] = leader;
        }
    }
    if (l->entries.n)
        qsort(l->entries.at, l->entries.n, sizeof(*l->entries.at), by_leader);
    for (size_t i = 0; i < l->entries.n; i++)
        if (n == 0 || l->entries.at[n - 1] != l->entries.at[i])
            l->entries.at[n++] = l->entries.at[i];
    l->entries.n = n;
    return true;
}

int tables_place(const struct jit_unit *unit, const struct leader_index *leaders, const struct chunk *chunks, uint32_t nchunks,
                 uint32_t code_bytes, struct table_layout *l)
{
    uint64_t end = code_bytes;

    *l = (struct table_layout){.entries_place = code_bytes, .tables_place = code_bytes, .end = code_bytes};
    if (!collect_tables(l, chunks, nchunks) || !collect_entries(l, unit, leaders, chunks))
        return -BDBI_ENOMEM;
    if (!l->tables.n)
        return 0;
    end = (end + l->entries.n * ENTRY_BYTES + TABLE_ALIGN - 1) & ~(TABLE_ALIGN - 1ull);
    l->tables_place = (uint32_t)end;
    l->constants_start = l->tables.at[0].table;
    for (size_t i = 0; i < l->tables.n; i++) {
        struct table_ref *t = &l->tables.at[i];
        uint32_t bytes = t->count * entry_bytes(t->kind);
        t->at = (uint32_t)end;
        end += (bytes + 7) & ~7u;
        if (t->table + bytes > l->constants_end)
            l->constants_end = t->table + bytes;
    }
    if (end > BDBI_MODULES_BYTES)
        return -BDBI_ETOOBIG;
    l->end = (uint32_t)end;
    return 0;
}

/* Code offset where a jump with the app's rcx in its home arrives for LEADER. */
static uint32_t entry_place(const struct table_layout *l, const struct jit_output *out, uint32_t leader)
{
    const struct image_block *b = &out->blocks[leader];
    const uint32_t *found;

    if (b->map_offset & IMAGE_LANDING)
        return b->code_offset - LANDING_END_BYTES;
    found = bsearch(&leader, l->entries.at, l->entries.n, sizeof(leader), by_leader);
    return l->entries_place + (uint32_t)(found - l->entries.at) * ENTRY_BYTES;
}

static void write_entries(const struct table_layout *l, struct jit_output *out)
{
    for (size_t i = 0; i < l->entries.n; i++) {
        uint32_t at = l->entries_place + (uint32_t)i * ENTRY_BYTES;
        uint32_t distance = out->blocks[l->entries.at[i]].code_offset - (at + ENTRY_BYTES);
        uint8_t bytes[ENTRY_BYTES] = {0x65, 0x48, 0x8b, 0x0c, 0x25, CTX_RCX, 0, 0, 0, 0xe9};
        memcpy(bytes + ENTRY_BYTES - 4, &distance, 4);
        memcpy(out->code + at, bytes, sizeof bytes);
    }
}

static void write_table(const struct jit_unit *unit, const struct leader_index *leaders, const struct table_layout *l,
                        const struct table_ref *t, struct jit_output *out)
{
    for (uint32_t i = 0; i < t->count; i++) {
        uint32_t leader = entry_leader(unit, leaders, t, i);
        int64_t place = t->kind == TABLE_JUMP ? out->blocks[leader].code_offset : entry_place(l, out, leader);
        place += unit->code_distance;
        if (t->kind == TABLE_OFFSETS) {
            int32_t value = (int32_t)(place - unit->leaders[leader]);
            memcpy(out->code + t->at + 4ull * i, &value, 4);
        } else {
            uint64_t value = unit->fixed_base + (uint64_t)place;
            memcpy(out->code + t->at + 8ull * i, &value, 8);
        }
    }
}

void tables_write(const struct jit_unit *unit, const struct leader_index *leaders, const struct chunk *chunks, uint32_t nchunks,
                  const struct table_layout *l, struct jit_output *out)
{
    if (l->tables.n)
        memset(out->code + l->entries_place, 0xcc, l->end - l->entries_place);
    write_entries(l, out);
    for (size_t i = 0; i < l->tables.n; i++)
        write_table(unit, leaders, l, &l->tables.at[i], out);
    for (uint32_t i = 0; i < nchunks; i++)
        for (size_t k = 0; k < chunks[i].tables.n; k++) {
            const struct table_ref *r = &chunks[i].tables.at[k];
            const struct table_ref *t = bsearch(r, l->tables.at, l->tables.n, sizeof(*r), by_table);
            int64_t place = unit->code_distance + t->at;
            uint32_t field = (uint32_t)(r->kind == TABLE_JUMP ? place + (int64_t)unit->fixed_base : place - r->table);
            memcpy(out->code + chunks[i].code_place + r->at, &field, 4);
        }
}

void tables_free(struct table_layout *l)
{
    free(l->tables.at);
    free(l->entries.at);
}
