/* SPDX-License-Identifier: Apache-2.0
 *
 * The host side of the program: command lines that run under glibc, in a process of their own, never in a guest. What bdbi-warm
 * and the learner share: opening modules, and bringing the cache up to date for one.
 */
#ifndef BDBI_HOST_H
#define BDBI_HOST_H

#include "analyzer/analyzer.h"
#include "cachedb/cachedb.h"
#include "tools/registry.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum host_exit {
    HOST_OK = 0,
    HOST_FAILED = 125,       /* bdbi's own: options, cache */
    HOST_NOT_RUNNABLE = 126, /* as a shell would say it */
    HOST_NOT_FOUND = 127,
};

#define HOST_MESSAGE_BYTES 1024
#define HOST_VERSION "0.1"

/* A list of module offsets; host_offsets_sort makes it ascending and distinct. */
struct host_offsets {
    uint32_t *list;
    uint32_t count, room;
};
int host_offsets_add(struct host_offsets *o, uint32_t offset);
void host_offsets_sort(struct host_offsets *o);
void host_offsets_free(struct host_offsets *o);

/* What to translate for, and with how many threads. */
struct host_job {
    struct cachedb *db;
    const struct tool_choice *tool; /* NULL: none */
    struct codegen_key codegen;     /* of tool */
    unsigned threads;
    bool force;     /* a new epoch even if an image is there */
    bool displaced; /* its image's place was another module's in some run */
    bool strays;    /* a run's counters were on many pages */
};

/* ---- modules (host_module.c) ---- */
struct host_module {
    char *path;             /* "[vdso]" for the vdso */
    struct elf_module *elf; /* opened when first needed */
    struct file_id id;      /* all 0 for the vdso */
    uint8_t content[32];
    bool unnamed; /* its identity and path are still to be stored: with its image, in one transaction */
    void *vdso;   /* its bytes */
    size_t vdso_bytes;
};

/* Finds PATH's content hash, by its identity record if there is one, else by hashing it, and then stores that record. On
 * failure MESSAGE holds one line. */
int host_module_open(struct cachedb *db, const char *path, struct host_module *m, char *message, size_t message_bytes);
/* This process's vdso, which is every process's; stores its vdso record. */
int host_module_open_vdso(struct cachedb *db, struct host_module *m, char *message, size_t message_bytes);
void host_module_close(struct host_module *m);

enum host_outcome {
    HOST_CACHED,     /* nothing to do */
    HOST_TRANSLATED, /* a base image was stored */
    HOST_EXTENDED,   /* an extent was stored */
    HOST_UNSUITABLE, /* cannot be cached (message says why): runs by JIT */
};
struct host_result {
    enum host_outcome outcome;
    uint32_t blocks;
    uint64_t text_bytes, code_bytes; /* of what was translated now */
    uint32_t undecodable;
    unsigned epoch, extent;
};

/* Brings the cache up to date for M: stores a base image if there is none (or with force), an extent or a new epoch if the code
 * map has offsets that no image has. 0 or more: see RESULT; on failure MESSAGE holds one line. */
int host_module_update(const struct host_job *job, struct host_module *m, struct host_result *result, char *message,
                       size_t message_bytes);

/* Drops the OFFSETS that are not in M's text. */
int host_module_filter(struct host_module *m, struct host_offsets *offsets, char *message, size_t message_bytes);

/* ---- places (host_place.c) ---- */
/* A place for a module that takes BYTES, code or not, at a multiple of ALIGN, for code of CODEGEN. *PLACE 0: it is too big to
 * have one. */
int host_place(struct cachedb *db, const struct codegen_key *codegen, uint64_t bytes, uint64_t align, uint64_t *place);

/* ---- code map (host_codemap.c) ---- */
/* TYPE: CACHEDB_CODEMAP or CACHEDB_RAN. What is there is added to OUT, which is sorted then. */
int host_codemap_load(struct cachedb *db, enum cachedb_type type, const uint8_t content[32], struct host_offsets *out);
/* Stores those of OFFSETS (sorted) that are new. Returns how many. */
int host_codemap_add(struct cachedb *db, enum cachedb_type type, const uint8_t content[32], const struct host_offsets *offsets);

/* ---- start records (host_hot.c) ---- */
struct hot_part { /* a module, and the pairs of its image, in the order of first use */
    struct file_id id;
    uint8_t content[32];
    uint64_t checksum;
    struct hot_pair *pairs;
    uint32_t count, room;
    bool is_old; /* its module has another image now */
};
struct host_hot_list { /* what a program's processes have attached and asked for */
    struct file_id exe;
    struct codegen_key codegen;
    struct hot_part *parts;
    unsigned nparts;
};
struct host_hot {
    struct host_hot_list *list;
    unsigned count;
};
/* Adds the record, whose path is START_PATH. 0 or -BDBI_ENOMEM; what is not a section in it is left out. */
int host_hot_add(struct host_hot *hot, const struct misslog_entry *e);
/* Stores the program's record with what is new in LIST behind it. Returns how many pairs it has now, 0 if nothing was to be
 * stored. */
int host_hot_store(struct cachedb *db, struct host_hot_list *list);
void host_hot_free(struct host_hot *hot);

/* ---- vdso (host_vdso.c) ---- */
/* Copies this process's vdso (malloc) and says where its data mappings are. -BDBI_ENOENT: there is none. */
int host_vdso_read(struct vdso_record *record, void **bytes);
/* Stores the record if the newest is another. */
int host_vdso_put(struct cachedb *db, const struct vdso_record *record, const void *bytes);

/* ---- cpuid (host_cpuid.c) ---- */
/* Stores what cpuid answers since this boot, if that is not known and worth it. 0, or why it could not be stored. */
int host_cpuid_put(struct cachedb *db);

/* ---- what command lines share (host_common.c) ---- */
/* OPTION if not NULL, else $BDBI_CACHE, $XDG_CACHE_HOME/bdbi, $HOME/.cache/bdbi (malloc); NULL: none of them is set. */
char *host_cache_directory(const char *option);
/* The same for COMMAND, which says so if there is none. */
char *host_cache_choose(const char *command, const char *option);
/* Opens the cache DIR for COMMAND, or says why not (NULL). */
struct cachedb *host_cache_open(const char *command, const char *dir, unsigned flags);
/* One line on stderr: "COMMAND: ..." */
void host_say(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Options: `--name VALUE` and `--name=VALUE` at argv[*at] (which then moves to the value), or NULL. A missing value ends the
 * program with a line on stderr. */
const char *host_option_value(const char *command, int argc, char **argv, int *at, const char *name);
/* Processors this process may use. */
unsigned host_threads(void);
double host_seconds(void);
/* "1.4 MB" */
const char *host_size(uint64_t bytes, char text[32]);

/* ---- tools (host_tool.c) ---- */
/* The tool that TEXT chooses for COMMAND, kept as long as the process lives. NULL: "none" (MESSAGE is empty), or it cannot be
 * had (one line in MESSAGE). Not thread-safe. */
const struct tool_choice *host_tool(const char *command, const char *text, char *message, size_t message_bytes);
/* Calls weave (struct jit_unit). If it crashes, COMMAND ends with one line and status 125. Any thread. */
void host_weave(const struct bdbi_tool *tool, struct bdbi_block *block);
/* Notes TOOL (may be NULL) in the cache, so that its images have a name. */
void host_tool_note(struct cachedb *db, const struct tool_choice *tool);
/* The name of the tool that wove code of CODEGEN. */
void host_tool_name(struct cachedb *db, const struct codegen_key *codegen, char *name, size_t name_bytes);

int warm_main(int argc, char **argv);
int learn_main(int argc, char **argv);
int cache_main(int argc, char **argv);

#endif
