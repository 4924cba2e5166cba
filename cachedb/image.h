/* SPDX-License-Identifier: Apache-2.0
 *
 * The image: the translated code of one module, as it is stored and mapped. Everything is little endian and relative to the
 * start of the value, so an image needs no relocation and is read in place by the core (freestanding), bdbi-warm and tests.
 *
 * Layout (IMAGE_VERSION changes when any of it does):
 *   header | buckets | blocks | counters | owners | order | map | pad | code
 * A large LMDB value starts 16 bytes into a page, so `code_offset` is chosen with (16 + code_offset) % 4096 == 0 and the code
 * can be mapped straight from data.mdb. Trailing pad fills the last code page with int3.
 */
#ifndef BDBI_IMAGE_H
#define BDBI_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define IMAGE_MAGIC 0x31474d4949424442ull /* "BDBIIMG1" */
#define IMAGE_VERSION 7
#define IMAGE_BUCKET_SHIFT 8  /* a bucket covers 256 bytes of module */
#define IMAGE_VALUE_OFFSET 16 /* where LMDB puts a large value in its first page */

struct image_header {
    uint64_t magic;
    uint32_t version;
    uint32_t linked;                  /* 1: of an ET_EXEC, whose jumps through memory read a translated table instead; else 0 */
    uint8_t content_hash[32];         /* BLAKE3 of the module's file */
    uint64_t fixed_base;              /* the only base of the module that the code is right for; 0: for each */
    int64_t code_distance;            /* code starts at module base + this */
    uint64_t image_bytes;             /* whole value */
    uint32_t code_offset, code_bytes; /* code_bytes without the trailing pad */
    uint32_t buckets_offset, nbuckets; /* uint32_t[nbuckets + 1]: index of the first block at or after bucket i */
    uint32_t blocks_offset, nblocks;
    uint32_t counters_offset, ncounters; /* image_counter[ncounters + nmarks], then for each the index of its block */
    uint32_t nmarks, nlinks;             /* image_link[nlinks] */
    uint32_t ran_counters, ran_marks;    /* the first ones, which are of blocks that had run when it was made */
    uint32_t nran;         /* how many blocks were known to have; 0: none, and there is no list of blocks by code */
    uint32_t data_address; /* where the counters are, gs-based; 0: at the code's own address */
    uint32_t map_offset, map_bytes;
    uint32_t span_bytes; /* module's span in memory; offsets are below it */
    uint32_t extent;     /* 0: the base image; n: the nth learned extent */
    /* What of the module, by offset, the code has taken for constant (jumps through tables); equal: nothing. */
    uint32_t constants_start, constants_end;
    uint32_t relro_start, relro_end; /* where the links' pointers are; equal: there are no links */
    uint8_t digest[32];              /* BLAKE3 of all that follows the header; no start reads that much */
    uint64_t head_checksum;          /* FNV-1a 64 of the header with this field 0 */
};
_Static_assert(sizeof(struct image_header) == 200, "image header is 200 bytes");

/* Ascending by app_offset; code_offset ascends with it, or by the list at image_order_offset. */
struct image_block {
    uint32_t app_offset;  /* from the module's base */
    uint32_t code_offset; /* from the code's first byte */
    uint32_t map_offset;  /* of this block's address map, from the map's first byte; IMAGE_LANDING: a landing before its code */
};
#define IMAGE_LANDING 0x80000000u
_Static_assert(sizeof(struct image_block) == 12, "image block is 12 bytes");

static inline uint32_t image_map_offset(const struct image_block *b)
{
    return b->map_offset & ~IMAGE_LANDING;
}

/* A jump through a pointer that does not change once ld.so has relocated it (the procedure linkage table): `jmp rel32` to the
 * next instruction, where the code begins that reads the pointer. In a process that runs for a while it leads to the target. */
struct image_link {
    uint32_t at;      /* of the rel32, from the code's first byte */
    uint32_t pointer; /* from the module's base */
};
_Static_assert(sizeof(struct image_link) == 8, "image link is 8 bytes");

/* The list of links is the code's end. */
static inline uint32_t image_links_offset(const struct image_header *h)
{
    return h->code_offset + h->code_bytes - h->nlinks * (uint32_t)sizeof(struct image_link);
}

/* What a tool registered for counter i, or mark i - ncounters (include/bdbi/tool.h). */
struct image_counter {
    uint64_t info;
};
_Static_assert(sizeof(struct image_counter) == 8, "image counter is 8 bytes");

/* For each counter, then each mark, the index of its block. */
static inline uint32_t image_owners_offset(const struct image_header *h)
{
    return h->counters_offset + (h->ncounters + h->nmarks) * (uint32_t)sizeof(struct image_counter);
}

/* If nran is not 0: the indexes of blocks by ascending code_offset. */
static inline uint32_t image_order_offset(const struct image_header *h)
{
    return image_owners_offset(h) + (h->ncounters + h->nmarks) * (uint32_t)sizeof(uint32_t);
}

/* Address map, per block: a byte string that lists the code in order. Lengths are in bytes. */
enum image_map {
    MAP_COPY_MAX = 0x0f,  /* 0x01..0x0f: one app instruction of n bytes copied to n bytes of code */
    MAP_ADVANCE = 0x20,   /* 0x20 | n: the app pc advances by n (1..15); no code. Ends an expanded instruction */
    MAP_PIECE = 0x40,     /* 0x40 | state, then u8 code length: code that belongs to the instruction at the app pc */
    MAP_RAX = 1 << 0,     /* state: app rax is in its home (gs:CTX_RAX), the register holds something else */
    MAP_RCX = 1 << 1,     /* the same for rcx */
    MAP_OTHER = 1 << 2,   /* the same for the register whose number is in the high nibble of an extra byte after the length */
    MAP_FORWARD = 1 << 3, /* the instruction has already had an effect: step forward to a clean point, do not roll back */
    MAP_END = 0x00,       /* end of the block's map */
};

/* Whether VALUE (BYTES of it, 8-byte aligned) is an image that this program can use: magic, version, checksum, every table
 * inside the value and aligned, the code on a page boundary of the file. Says nothing of what is in the tables. 0 or
 * -BDBI_EFORMAT. Both worlds. */
int image_header_check(const void *value, size_t bytes);
/* All of it: tables ascend, offsets are inside what they index, each block's map is a list. 0 or -BDBI_EFORMAT. Both worlds. */
int image_check(const void *value, size_t bytes);
/* The block at APP_OFFSET, or NULL. The header has passed image_header_check; the tables are not trusted. Both worlds. */
const struct image_block *image_find(const struct image_header *h, uint32_t app_offset);

/* Bytes of file pages that the code takes when it is mapped, trailing pad included. */
static inline uint64_t image_code_pages(const struct image_header *h)
{
    return ((uint64_t)h->code_bytes + 4095) & ~(uint64_t)4095;
}

/* Distance from the module's base to the first page that neither this image's code nor its counters and marks (8 bytes and 1
 * byte each from code_distance on, gs-based) take: the next extent's code_distance. */
static inline int64_t image_code_end(const struct image_header *h)
{
    uint64_t counters = ((uint64_t)h->ncounters * 8 + h->nmarks + 4095) & ~(uint64_t)4095;
    uint64_t code = image_code_pages(h);
    return h->code_distance + (int64_t)(code > counters ? code : counters);
}

#endif
