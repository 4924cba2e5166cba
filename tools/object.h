/* SPDX-License-Identifier: Apache-2.0
 *
 * A tool's shared object, as bytes: everything about it that can be judged and done without running it. Nothing in the file is
 * trusted. Freestanding; no system calls: launcher/tool_load.c maps what this says.
 */
#ifndef BDBI_TOOLS_OBJECT_H
#define BDBI_TOOLS_OBJECT_H

#include "bdbi/tool.h"

#define OBJECT_MAX_SEGMENTS 12
#define OBJECT_MAX_SPAN (16u << 20) /* bytes of memory, and of file */

struct object_segment {
    uint64_t address, memory_bytes; /* address 0 is the object's first byte in memory */
    uint64_t offset, file_bytes;    /* offset and address are equal within a page */
    bool writable, executable;      /* never both */
};

struct tool_object {
    const uint8_t *file;
    uint64_t bytes;
    struct object_segment segments[OBJECT_MAX_SEGMENTS]; /* ascending; no two of them share a page */
    unsigned nsegments;
    uint64_t span; /* bytes of memory from address 0 */
    /* From the dynamic section; addresses and sizes, 0: not there. */
    uint64_t strings, string_bytes, symbols, hash, gnu_hash, rela, rela_bytes, plt_rela, plt_rela_bytes;
    uint64_t init, init_array, init_array_bytes;
    uint64_t main; /* bdbi_tool_main */
    /* After a failure, one phrase: WHY, and what it is about (a symbol's name), or "". Both live as long as the file's bytes.
     */
    const char *why, *about;
};

/* Reads the BYTES of FILE, which stay where they are while O is used. False: O->why. */
bool object_open(struct tool_object *o, const void *file, size_t bytes);
/* Applies the relocations to MEMORY, where the segments are mapped, for running there. RESOLVE: the address of an undefined
 * symbol, or NULL. False: O->why. */
bool object_relocate(struct tool_object *o, uint8_t *memory, void *(*resolve)(const char *name));
/* The tool in relocated MEMORY, all its pointers checked. NULL: O->why. */
const struct bdbi_tool *object_tool(struct tool_object *o, uint8_t *memory);
/* The Nth function to run before the tool's own (DT_INIT, then DT_INIT_ARRAY), or 0 past the last. Of relocated MEMORY. */
uint64_t object_init(const struct tool_object *o, const uint8_t *memory, unsigned n);
/* A hash of BYTES of FILE: any change of a single word changes it. Never 0. */
uint64_t object_hash(const void *file, size_t bytes);

#endif
