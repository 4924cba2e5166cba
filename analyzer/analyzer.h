/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading ELF files, the closure of a program, and block discovery (host only). Untrusted input: nothing in a file is believed
 * beyond what was checked against its size.
 */
#ifndef BDBI_ANALYZER_H
#define BDBI_ANALYZER_H

#include "jit/jit.h"
#include <stdbool.h>

struct elf_segment {
    uint64_t vaddr, file_offset, file_bytes, mem_bytes;
    uint32_t flags; /* PF_R, PF_W, PF_X */
};

/* An x86-64 Linux ELF file (executable or shared object), or a vdso image, in memory. */
struct elf_module {
    char *path;
    const uint8_t *file; /* whole file, private read-only mapping */
    size_t file_bytes;
    bool is_exec;                 /* ET_EXEC */
    uint64_t base_vaddr;          /* page of the lowest PT_LOAD: module offset 0 */
    uint64_t span_bytes;          /* to the end of the highest PT_LOAD, page rounded */
    uint64_t align;               /* of its base: the most that a PT_LOAD asks for; at least a page */
    uint64_t entry;               /* e_entry */
    char *interp;                 /* PT_INTERP or NULL */
    struct elf_segment *segments; /* PT_LOADs */
    uint32_t nsegments;
    struct text_span *spans; /* executable bytes, as module offsets (file-backed part of PF_X segments) */
    uint32_t nspans;
    struct text_span *constants; /* bytes that nobody writes, at the distance from the base that they have in the file */
    uint32_t nconstants;
    uint32_t relro_start,
        relro_end; /* with BIND_NOW: what ld.so makes read-only after relocation, module offsets; equal: nothing */
    char **needed; /* DT_NEEDED */
    uint32_t nneeded;
    char *soname, *rpath, *runpath;
};

/* Opens PATH. On failure -BDBI_E..., and MESSAGE holds one line that names the file and what is wrong with it. */
int elf_module_open(const char *path, struct elf_module **out, char *message, size_t message_bytes);
/* The same for an ELF image in memory (the vdso); BYTES is copied. */
int elf_module_from_memory(const char *name, const void *bytes, size_t nbytes, struct elf_module **out, char *message,
                           size_t message_bytes);
void elf_module_close(struct elf_module *m);

/* Block starts, ascending and distinct (malloc'd). EXTRA: offsets that runs needed, added to the seeds. THREADS: how many may
 * be used. */
int analyzer_discover(const struct elf_module *m, const uint32_t *extra, uint32_t nextra, unsigned threads, uint32_t **leaders,
                      uint32_t *nleaders);

/* Absolute path of PROG as execvp would find it (malloc'd). -BDBI_ENOENT, -BDBI_EACCES (not executable), -BDBI_EINVAL (a
 * directory). */
int closure_find_program(const char *prog, char **path);

struct closure {
    char **paths; /* the program first, its interpreter second, then libraries, realpath'd, distinct */
    uint32_t npaths;
    char **missing; /* DT_NEEDED names that were not found: a warning, not an error */
    uint32_t nmissing;
};
/* What PROG (a path) maps at its start: PT_INTERP, DT_NEEDED transitively as ld.so searches (DT_RPATH, LD_LIBRARY_PATH,
 * DT_RUNPATH, /etc/ld.so.cache, default directories; $ORIGIN, $LIB, $PLATFORM), glibc-hwcaps subdirectories of this CPU. A #!
 * script: its interpreter's closure. */
int closure_resolve(const char *prog, struct closure *out, char *message, size_t message_bytes);
/* Adds every ELF shared object that GLOB matches, or that is below DIR, with their own closures. */
int closure_add(struct closure *c, const char *glob_or_dir, char *message, size_t message_bytes);
void closure_free(struct closure *c);

#endif
