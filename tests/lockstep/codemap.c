/* SPDX-License-Identifier: Apache-2.0
 *
 * The core's tables, read from outside. Each block's address map lists its code in order (cachedb/image.h); an app
 * instruction's code starts at its copy, or at the first of its pieces. Pieces that no MAP_ADVANCE follows belong to no
 * instruction: they lead to the next block. A direct jmp to the next block has no code at all, so it is not in the table.
 */
#include "tests/lockstep/codemap.h"

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launcher/core.h"

/* ---- symbols ---- */

static uint64_t find_symbol(const char *elf, const char *name)
{
    const Elf64_Ehdr *e = (const void *)elf;
    const Elf64_Shdr *sections = (const void *)(elf + e->e_shoff);
    for (unsigned i = 0; i < e->e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB)
            continue;
        const Elf64_Sym *symbols = (const void *)(elf + sections[i].sh_offset);
        const char *names = elf + sections[sections[i].sh_link].sh_offset;
        for (size_t k = 0; k < sections[i].sh_size / sizeof *symbols; k++)
            if (!strcmp(names + symbols[k].st_name, name))
                return symbols[k].st_value;
    }
    fail("the program under test has no symbol %s: is it bdbi, and not stripped?", name);
}

static void find_extent(const char *elf, struct core_symbols *core)
{
    const Elf64_Ehdr *e = (const void *)elf;
    const Elf64_Phdr *ph = (const void *)(elf + e->e_phoff);
    core->start = UINT64_MAX;
    for (unsigned i = 0; i < e->e_phnum; i++) {
        if (ph[i].p_type != PT_LOAD)
            continue;
        if (ph[i].p_vaddr < core->start)
            core->start = ph[i].p_vaddr;
        if (ph[i].p_vaddr + ph[i].p_memsz > core->end)
            core->end = ph[i].p_vaddr + ph[i].p_memsz;
    }
}

void codemap_init(struct codemap *map, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(Elf64_Ehdr))
        fail("%s: cannot be read", path);
    const char *elf = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (elf == MAP_FAILED || memcmp(elf, ELFMAG, SELFMAG))
        fail("%s: not an ELF file", path);
    *map = (struct codemap){.seen_chunk = 1};
    struct core_symbols *core = &map->core;
    const struct {
        const char *name;
        uint64_t *address;
    } wanted[] = {{"modules", &core->modules},
                  {"jit_chunks", &core->jit_chunks},
                  {"jit_dropped", &core->jit_dropped},
                  {"drop_generation", &core->drop_generation},
                  {"core_exit", &core->exit_begin},
                  {"core_exit_end", &core->exit_end},
                  {"core_ibl_begin", &core->ibl_begin},
                  {"core_ibl_end", &core->ibl_end},
                  {"sigreturn_with", &core->sigreturn_with}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        *wanted[i].address = find_symbol(elf, wanted[i].name);
    find_extent(elf, core);
    munmap((void *)elf, (size_t)st.st_size);
}

/* ---- the address maps ---- */

static void add_place(struct codemap *map, uint64_t code, uint64_t app, uint32_t homes)
{
    if (map->nplaces == map->capacity) {
        map->capacity = map->capacity ? map->capacity * 2 : 4096;
        map->places = realloc(map->places, map->capacity * sizeof *map->places);
        if (!map->places)
            fail("out of memory");
    }
    const uint64_t *first = table_get(&map->code_of, app);
    map->places[map->nplaces++] = (struct code_place){code, first ? (uint32_t)*first : 0};
    table_put(&map->code_of, app, map->nplaces);
    table_put(&map->app_of, code, app);
    if (homes)
        table_put(&map->homes_of, code, homes);
}

static void read_block(struct codemap *map, const uint8_t *at, const uint8_t *end, uint64_t app, uint64_t code)
{
    uint64_t start = 0; /* of the pieces of the instruction at APP */
    uint32_t homes = 0; /* there */
    while (at < end && *at != MAP_END) {
        uint8_t item = *at++;
        if (item <= MAP_COPY_MAX) {
            add_place(map, start ? start : code, app, start ? homes : 0);
            start = 0;
            app += item;
            code += item;
        } else if (item < MAP_PIECE) {
            if (start)
                add_place(map, start, app, homes);
            start = 0;
            app += item & 0x1f;
        } else {
            if (!start && item & MAP_FORWARD)
                map->errors++;
            if (!start) {
                start = code;
                homes = (item & MAP_RAX ? 1u << RAX : 0) | (item & MAP_RCX ? 1u << RCX : 0) |
                        (item & MAP_OTHER && at + 1 < end ? 1u << (at[1] >> 4) : 0);
            }
            code += at < end ? *at : 0;
            at += 1 + (item & MAP_OTHER ? 1 : 0);
        }
    }
}

struct unit {
    uint64_t blocks, map, start, end, base;
    uint32_t nblocks, map_bytes;
};

static void read_unit(struct codemap *map, const struct process *p, const struct unit *u)
{
    map->ranges = realloc(map->ranges, (map->nranges + 1) * sizeof *map->ranges);
    struct image_block *blocks = calloc(u->nblocks + 1, sizeof *blocks);
    uint8_t *bytes = calloc(u->map_bytes + 1, 1);
    if (!blocks || !bytes || !map->ranges)
        fail("out of memory");
    map->ranges[map->nranges++] = (struct code_range){u->start, u->end};
    process_read(p, u->blocks, blocks, u->nblocks * sizeof *blocks);
    process_read(p, u->map, bytes, u->map_bytes);
    for (uint32_t i = 0; i < u->nblocks; i++)
        if (image_map_offset(&blocks[i]) < u->map_bytes && u->start + blocks[i].code_offset < u->end)
            read_block(map, bytes + image_map_offset(&blocks[i]), bytes + u->map_bytes, u->base + blocks[i].app_offset,
                       u->start + blocks[i].code_offset);
    free(blocks);
    free(bytes);
}

/* ---- lists ---- */

static void read_chunks(struct codemap *map, const struct process *p, uint64_t head, uint64_t until)
{
    struct jit_chunk c;
    for (uint64_t at = head; at && at != until; at = (uint64_t)c.next) {
        if (process_read(p, at, &c, sizeof c) != sizeof c)
            fail("the core's list of code cannot be read");
        struct unit u = {(uint64_t)c.blocks, (uint64_t)c.map, c.start, c.end, c.base, c.nblocks, c.map_bytes};
        read_unit(map, p, &u);
    }
}

/* Calls DO for every piece of the live modules; returns a number that changes with them. */
static uint64_t walk_pieces(struct codemap *map, const struct process *p, bool read)
{
    struct module m;
    uint64_t sum = 0;
    for (uint64_t at = process_word(p, map->core.modules); at; at = (uint64_t)m.next) {
        if (process_read(p, at, &m, sizeof m) != sizeof m)
            fail("the core's list of modules cannot be read");
        for (uint32_t i = 0; !m.dropped && i < m.npieces && i < MODULE_EXTENTS; i++) {
            struct image_header h;
            uint64_t image = (uint64_t)m.pieces[i].image;
            sum = (sum + m.pieces[i].start) * 0x9e3779b97f4a7c15ull + m.pieces[i].end;
            if (!read || process_read(p, image, &h, sizeof h) != sizeof h)
                continue;
            struct unit u = {image + h.blocks_offset,
                             image + h.map_offset,
                             m.pieces[i].start,
                             m.pieces[i].end,
                             m.base,
                             h.nblocks,
                             h.map_bytes};
            read_unit(map, p, &u);
        }
    }
    return sum;
}

void codemap_refresh(struct codemap *map, const struct process *p, bool modules_too)
{
    uint64_t head = process_word(p, map->core.jit_chunks), drops = process_word(p, map->core.drop_generation);
    uint64_t pieces = modules_too ? walk_pieces(map, p, false) : map->seen_pieces;
    if (head == map->seen_chunk && drops == map->seen_drops && pieces == map->seen_pieces)
        return;
    map->version++;
    if (drops != map->seen_drops || pieces != map->seen_pieces || map->seen_chunk == 1) {
        table_clear(&map->app_of);
        table_clear(&map->code_of);
        table_clear(&map->homes_of);
        map->nplaces = map->nranges = 0;
        map->rebuilds++;
        walk_pieces(map, p, true);
        read_chunks(map, p, head, 0);
    } else
        read_chunks(map, p, head, map->seen_chunk);
    map->seen_chunk = head;
    map->seen_drops = drops;
    map->seen_pieces = pieces;
}

uint64_t codemap_app(const struct codemap *map, uint64_t code)
{
    const uint64_t *app = table_get(&map->app_of, code);
    return app ? *app : 0;
}

uint32_t codemap_homes(const struct codemap *map, uint64_t code)
{
    const uint64_t *homes = table_get(&map->homes_of, code);
    return homes ? (uint32_t)*homes : 0;
}

bool codemap_is_code(const struct codemap *map, uint64_t pc)
{
    for (uint32_t i = 0; i < map->nranges; i++)
        if (pc >= map->ranges[i].start && pc < map->ranges[i].end)
            return true;
    return false;
}

const struct code_place *codemap_first(const struct codemap *map, uint64_t app)
{
    const uint64_t *first = table_get(&map->code_of, app);
    return first ? &map->places[*first - 1] : NULL;
}

const struct code_place *codemap_next(const struct codemap *map, const struct code_place *place)
{
    return place->next ? &map->places[place->next - 1] : NULL;
}
