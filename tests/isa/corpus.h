/* SPDX-License-Identifier: Apache-2.0
 *
 * What the generator writes (corpus.S) and the runner reads. Included by C and by assembly.
 *
 * An item in the corpus, in code:
 *
 *   <the instruction>    jo back; jno back            back: every register is kept, no flag is touched
 *   a direct branch:     ... then at +12, where it goes when taken: jo back_taken; jno back_taken
 *
 * The pair of conditional jumps always leaves, but what follows stays reachable for a translator that looks ahead, so the items
 * of a corpus are one long chain of blocks.
 *
 * Memory operands point into the arena, whose address is one constant, or (rip-relative) into isa_io.rip, at one distance from
 * the code.
 */
#ifndef ISA_CORPUS_H
#define ISA_CORPUS_H

#define ISA_ARENA 0x10000000 /* [ISA_ARENA, + ISA_ARENA_BYTES): read, write; nothing is mapped around it */
#define ISA_ARENA_BYTES 0x2000
#define ISA_MIDDLE 0x1000 /* base registers point about here */
#define ISA_RIP_BYTES 0x400
#define ISA_FS_BASE 0x40  /* while an item runs: fs:[p] is 64 bytes after [p] */
#define ISA_NEXT_BYTES 12 /* jo rel32; jno rel32 */

#define ISA_NO_REG 0xff

#define ITEM_FIXED 1   /* shows a code or rip address in parts: only where those are fixed */
#define ITEM_POPF 2    /* pops flags: not TF */
#define ITEM_VSIB 4    /* index is a vector register */
#define ITEM_UNKNOWN 8 /* the translator's decoder knows no instruction here */

#define ITEM_INDIRECT 16 /* goes to an address that it loads */

#ifndef __ASSEMBLER__
#include <stdint.h>

struct isa_item {
    uint32_t offset; /* of the instruction from isa_text */
    uint16_t group;
    uint8_t length;
    uint8_t flags;
    uint8_t base, index; /* registers of its memory operand; ISA_NO_REG: none */
    uint8_t pad[2];
};

extern const struct isa_item isa_items[];
extern const uint32_t isa_nitems, isa_ngroups;
extern const char *const isa_groups[];
extern const unsigned char isa_text[], isa_text_end[];

/* splitmix64: the same numbers from the same seed, everywhere. */
static uint64_t random_state;

static inline uint64_t next_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static inline unsigned below(unsigned n)
{
    return (unsigned)(next_random() % n);
}
#endif

#endif
