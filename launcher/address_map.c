/* SPDX-License-Identifier: Apache-2.0
 *
 * The address map: from a code pc to the app state there (faults, signals), and from an app pc inside a block to its code. The
 * encoding is enum image_map (cachedb/image.h). Code of dropped modules and chunks is unmapped, but its tables are kept:
 * stragglers find their way back through them.
 */
#include "launcher/core.h"

/* The tables of an image or a chunk. */
struct tables {
    const struct image_block *blocks;
    const uint32_t *order; /* indexes of blocks by code offset; NULL: as they are */
    uint32_t nblocks, map_bytes;
    const uint8_t *map;
};

static struct tables tables_of_image(const struct image_header *image)
{
    const uint32_t *order = image->nran ? image_part(image, image_order_offset(image)) : NULL;
    return (struct tables){image_part(image, image->blocks_offset), order, image->nblocks, image->map_bytes,
                           image_part(image, image->map_offset)};
}

static struct tables tables_of_chunk(const struct jit_chunk *c)
{
    return (struct tables){c->blocks, NULL, c->nblocks, c->map_bytes, c->map};
}

/* The block whose code comes at POSITION; NULL: there is none (the store is not trusted). */
static const struct image_block *block_by_code(const struct tables *t, uint32_t position)
{
    uint32_t i = position < t->nblocks && t->order ? t->order[position] : position;
    return i < t->nblocks ? &t->blocks[i] : NULL;
}

/* How many blocks begin at VALUE or before it: BY_CODE, of their code offsets, else of their app offsets. */
static uint32_t blocks_until(const struct tables *t, bool by_code, uint32_t value)
{
    uint32_t low = 0, high = t->nblocks;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        const struct image_block *b = by_code ? block_by_code(t, middle) : &t->blocks[middle];
        if (b && (by_code ? b->code_offset : b->app_offset) <= value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Walks the address map of the block that CODE_OFFSET is in. */
static struct code_state walk_map(const struct tables *t, uint64_t base, uint32_t code_offset)
{
    struct code_state state = {.known = true};
    const uint8_t *map = t->map;
    uint32_t map_bytes = t->map_bytes, until = blocks_until(t, true, code_offset);
    const struct image_block *block = until ? block_by_code(t, until - 1) : NULL, *next = block_by_code(t, until);
    if (next && next->map_offset & IMAGE_LANDING && code_offset + LANDING_END_BYTES == next->code_offset) {
        /* Whoever is here goes to that block: what comes out of a translated table has not been before. */
        state.app = base + next->app_offset;
        state.homes = 1u << RCX;
        state.clean = true;
        return state;
    }
    if (!block)
        return state;
    uint64_t app = base + block->app_offset;
    uint32_t code = block->code_offset, instruction = code;
    for (uint32_t i = image_map_offset(block); i < map_bytes && map[i] != MAP_END;) {
        uint8_t item = map[i++];
        state.first = code_offset == instruction;
        if (item <= MAP_COPY_MAX) {
            if (code_offset < code + item) {
                state.app = app;
                state.clean = code_offset == code; /* inside an instruction: not a place to be */
                return state;
            }
            code += item;
            app += item;
            instruction = code;
        } else if (item < MAP_PIECE) {
            app += item & 0x1f;
            instruction = code;
        } else {
            uint8_t length = i < map_bytes ? map[i++] : 0;
            uint32_t other = item & MAP_OTHER && i < map_bytes ? map[i++] >> 4 : 16;
            if (code_offset < code + length) {
                state.app = app;
                state.clean = !(item & MAP_FORWARD);
                state.homes =
                    (item & MAP_RAX ? 1u << RAX : 0) | (item & MAP_RCX ? 1u << RCX : 0) | (other < 16 ? 1u << other : 0);
                return state;
            }
            code += length;
        }
    }
    state.first = false;
    return state;
}

/* The other way: the code of the app instruction at APP_OFFSET, which may be inside a block. */
static uint32_t walk_map_to(const struct tables *t, uint32_t app_offset)
{
    const uint8_t *map = t->map;
    uint32_t map_bytes = t->map_bytes, until = blocks_until(t, false, app_offset);
    if (!until)
        return UINT32_MAX;
    const struct image_block *block = &t->blocks[until - 1];
    uint32_t app = block->app_offset, code = block->code_offset;
    for (uint32_t i = image_map_offset(block); i < map_bytes && map[i] != MAP_END && app <= app_offset;) {
        uint8_t item = map[i++];
        if (app == app_offset && (item <= MAP_COPY_MAX || item >= MAP_PIECE))
            return code;
        if (item <= MAP_COPY_MAX)
            code += item, app += item;
        else if (item < MAP_PIECE)
            app += item & 0x1f;
        else {
            code += i < map_bytes ? map[i++] : 0;
            i += item & MAP_OTHER ? 1 : 0;
        }
    }
    return UINT32_MAX;
}

/* Code of the app instruction at PC if it is inside a translated block; 0: it is not. */
code_pc code_inside(const struct exec_region *region, uint64_t pc)
{
    const struct module *m = region->module;
    for (uint32_t i = 0; m && !m->dropped && i < m->npieces; i++) {
        const struct image_header *image = m->pieces[i].image;
        struct tables t = tables_of_image(image);
        uint32_t offset = walk_map_to(&t, (uint32_t)(pc - m->base));
        if (offset < image->code_bytes)
            return (code_pc){.value = m->pieces[i].start + offset};
    }
    for (struct jit_chunk *c = jit_chunks; c; c = c->next) {
        if (pc < c->app_start || pc >= c->app_end)
            continue;
        struct tables t = tables_of_chunk(c);
        uint32_t offset = walk_map_to(&t, (uint32_t)(pc - c->base));
        if (offset < c->end - c->start)
            return (code_pc){.value = c->start + offset};
    }
    return (code_pc){0};
}

static bool state_in_modules(uint64_t code, bool dropped, struct code_state *out)
{
    for (struct module *m = modules; m; m = m->next)
        for (uint32_t i = 0; m->dropped == dropped && i < m->npieces; i++)
            if (code >= m->pieces[i].start && code < m->pieces[i].end) {
                struct tables t = tables_of_image(m->pieces[i].image);
                *out = walk_map(&t, m->base, (uint32_t)(code - m->pieces[i].start));
                return true;
            }
    return false;
}

static struct code_state look_up(uint64_t code)
{
    struct code_state state;
    if (state_in_modules(code, false, &state) || state_in_modules(code, true, &state))
        return state;
    for (int dropped = 0; dropped < 2; dropped++)
        for (struct jit_chunk *c = dropped ? jit_dropped : jit_chunks; c; c = c->next)
            if (code >= c->start && code < c->end) {
                struct tables t = tables_of_chunk(c);
                return walk_map(&t, c->base, (uint32_t)(code - c->start));
            }
    return (struct code_state){.known = false};
}

/* Called by a thread that is not in the core. The lists may change meanwhile: what is not found is looked for again. */
struct code_state code_state_at(uint64_t code)
{
    struct code_state state = look_up(code);
    if (!state.known) {
        lock_take(&core_lock);
        state = look_up(code);
        lock_drop(&core_lock);
    }
    return state;
}
