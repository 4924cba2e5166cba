/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to the closure: objects as ld.so has them loaded, and where it looks for a library.
 */
#ifndef BDBI_ANALYZER_SEARCH_H
#define BDBI_ANALYZER_SEARCH_H

#include "analyzer/analyzer.h"
#include "analyzer/ldcache.h"
#include <sys/types.h>

enum { NO_LOADER = UINT32_MAX };

/* One object of the link map. */
struct loaded {
    struct elf_module *m;
    char *found;  /* the path it was found at: $ORIGIN is its directory */
    char **names; /* what it was asked for as */
    uint32_t nnames;
    uint32_t loader; /* whose DT_NEEDED brought it first, or NO_LOADER */
    dev_t dev;
    ino_t ino;
};

/* One link map: the program is maps[0]. */
struct link_map {
    struct loaded *maps;
    uint32_t nmaps;
    struct ldcache cache;
};

/* The path where ld.so finds NAME for the object maps[LOADER] (malloc'd), or NULL. */
char *search_library(const struct link_map *l, uint32_t loader, const char *name);

/* TEXT with $ORIGIN, $LIB and $PLATFORM replaced (malloc'd). */
char *search_expand(const struct loaded *o, const char *text, size_t nbytes);

/* What a "#!" line runs: at most two programs, in the order in which they are executed (the second is env's argument). */
struct script {
    char *programs[2];
};
/* 1 and OUT filled when PATH is a script, 0 when not, -BDBI_ENOENT when env's argument is not found. */
int program_script(const char *path, struct script *out);

#endif
