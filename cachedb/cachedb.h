/* SPDX-License-Identifier: Apache-2.0
 *
 * The store: keys and records (shared by writer, reader and the core), the writer over liblmdb (host only, a process of its
 * own, never inside a guest) and the miss log.
 *
 * Keys are a type byte and a fixed-size struct. Values are written once (MDB_NOOVERWRITE) and never deleted in a generation.
 */
#ifndef BDBI_CACHEDB_H
#define BDBI_CACHEDB_H

#include "cachedb/image.h"
#include <stddef.h>
#include <stdint.h>

#define CACHEDB_VERSION 1 /* of every format below; part of the data file's name: "v1" directory under the cache directory */
#define CACHEDB_SUBDIR "v1"
#define CACHEDB_DATA CACHEDB_SUBDIR "/data.mdb"
#define CACHEDB_LOG CACHEDB_SUBDIR "/misses.log"
#define CACHEDB_LEARN_LOCK CACHEDB_SUBDIR "/learn.lock"

enum cachedb_type {
    CACHEDB_IDENTITY = 'd', /* struct file_id -> content hash (32 bytes) */
    CACHEDB_IMAGE = 'i',    /* struct image_key -> image */
    CACHEDB_CODEMAP = 'm',  /* struct codemap_key -> uint32_t offsets[], ascending, block starts that runs missed */
    CACHEDB_RAN = 'r',      /* struct codemap_key -> the same of blocks that ran, where a tool has told */
    CACHEDB_VDSO = 'v',     /* struct vdso_key -> struct vdso_record and the vdso's bytes */
    CACHEDB_START = 's',    /* struct closure_key -> struct start_section[]: what a start of the program looks up */
    CACHEDB_CLOSURE = 'c',  /* struct closure_key -> struct closure_entry[] in load order */
    CACHEDB_PATH = 'p',     /* struct path_key -> a path that had this content, without NUL; for people to read */
    CACHEDB_TOOL = 't',     /* struct tool_key -> what --tool said, without NUL; for people to read */
    CACHEDB_PLACE = 'a',    /* struct place_key -> uint64_t: the place that was given out last (host_place.c) */
    CACHEDB_CPUID = 'u',    /* struct cpuid_key -> struct cpuid_record */
};

/*
 * Nothing is overwritten, so what is replaced carries a number in its key that counts down from all ones: a seek to the key
 * with this number 0 finds the newest. (The same rule for struct image_key, vdso_key, closure_key and place_key.)
 */
static inline uint32_t cachedb_serial(const uint8_t serial[4])
{
    return (uint32_t)serial[0] << 24 | (uint32_t)serial[1] << 16 | (uint32_t)serial[2] << 8 | serial[3];
}
static inline void cachedb_set_serial(uint8_t serial[4], uint32_t value)
{
    for (int i = 0; i < 4; i++)
        serial[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* What stat says of a file; equal identity: equal content (see identity.c for the care this takes). */
struct file_id {
    uint64_t dev, ino, size;
    int64_t mtime_sec, mtime_nsec, ctime_sec, ctime_nsec;
};
_Static_assert(sizeof(struct file_id) == 56, "file_id has no padding");

/* What translated code depends on besides the module. */
struct codegen_key {
    uint8_t codegen[8]; /* hash of the translator's sources (BDBI_CODEGEN_ID) */
    uint8_t tool[8];    /* tool_fingerprint (tools/registry.h); 0: no tool */
};

/* The base image and its extents form an epoch, which is complete in itself: seek to inverse_epoch 0, extent 0 for the newest
 * epoch's base; its extents 1, 2, .. are the next keys with the same inverse_epoch. */
struct __attribute__((packed)) image_key {
    uint8_t type; /* CACHEDB_IMAGE */
    uint8_t content[32];
    struct codegen_key codegen;
    uint8_t inverse_epoch; /* 0xff - epoch */
    uint8_t extent;        /* 0: base image */
};
_Static_assert(sizeof(struct image_key) == 51, "image_key is packed");
#define IMAGE_EPOCH_MAX 0xff

struct __attribute__((packed)) identity_key {
    uint8_t type; /* CACHEDB_IDENTITY */
    struct file_id id;
};
_Static_assert(sizeof(struct identity_key) == 57, "identity_key is packed");

struct __attribute__((packed)) codemap_key {
    uint8_t type; /* CACHEDB_CODEMAP, CACHEDB_RAN */
    uint8_t content[32];
    uint8_t serial[4]; /* big endian: each learning round adds a record */
};
_Static_assert(sizeof(struct codemap_key) == 37, "codemap_key is packed");

struct __attribute__((packed)) path_key {
    uint8_t type; /* CACHEDB_PATH */
    uint8_t content[32];
};

struct __attribute__((packed)) tool_key {
    uint8_t type; /* CACHEDB_TOOL */
    uint8_t tool[8];
};

struct __attribute__((packed)) vdso_key {
    uint8_t type;      /* CACHEDB_VDSO */
    uint8_t serial[4]; /* big endian, counts down from 0xffffffff: the newest comes first */
};
_Static_assert(sizeof(struct vdso_key) == 5, "vdso_key is packed");

/* The vdso has no file: its content hash is that of its mapped bytes (from AT_SYSINFO_EHDR on, vdso_bytes of them). There is a
 * record for each kernel that was met; the one whose bytes equal the process's own vdso is the one to use. */
#define VDSO_VVAR_MAX 4
struct vdso_record {
    uint8_t content[32];
    uint32_t vdso_bytes; /* mapped size */
    uint32_t vvar_bytes; /* size of the data mappings directly below it (all of them together) */
    uint32_t nvvar;      /* number of those mappings, lowest first */
    uint32_t vvar_sizes[VDSO_VVAR_MAX];
    uint32_t pad;
    /* followed by vdso_bytes of content to compare with */
};
_Static_assert(sizeof(struct vdso_record) == 64, "vdso_record has no padding");

struct __attribute__((packed)) closure_key {
    uint8_t type; /* CACHEDB_CLOSURE */
    struct file_id exe;
    struct codegen_key codegen;
    uint8_t serial[4]; /* big endian, counts down from 0xffffffff: the newest comes first */
};
_Static_assert(sizeof(struct closure_key) == 77, "closure_key is packed");

/* One module that the program maps at its start: the program, its interpreter, then libraries as ld.so loads them. */
struct closure_entry {
    struct file_id id;
    uint8_t content[32];
};
_Static_assert(sizeof(struct closure_entry) == 88, "closure_entry has no padding");

/* One for each place that was given out, to a module that was translated for CODEGEN. */
struct __attribute__((packed)) place_key {
    uint8_t type; /* CACHEDB_PLACE */
    struct codegen_key codegen;
    uint8_t serial[4]; /* big endian, counts down from 0xffffffff: the newest comes first */
};
_Static_assert(sizeof(struct place_key) == 21, "place_key is packed");

/* What cpuid answers where it is slow, in a virtual machine: for each boot of a machine a record. One without answers says that
 * cpuid is fast here, or that nothing may be remembered. */
struct __attribute__((packed)) cpuid_key {
    uint8_t type;  /* CACHEDB_CPUID */
    char boot[36]; /* /proc/sys/kernel/random/boot_id */
};
_Static_assert(sizeof(struct cpuid_key) == 37, "cpuid_key is packed");
#define CPUID_BOOT_PATH "/proc/sys/kernel/random/boot_id"
struct cpuid_answer {
    uint32_t leaf, subleaf;
    uint32_t subleaf_mask; /* 0: the leaf has no subleaves, ecx does not matter; else all ones */
    uint32_t eax, ecx, edx, ebx;
};
struct cpuid_record {
    uint32_t processor[3]; /* eax, ecx, edx of leaf 1, which a start asks for: other ones, another processor */
    uint32_t nanswers;
    struct cpuid_answer answers[];
};
#define CPUID_ANSWERS_MOST 64
#define CPUID_RECORD_MOST (sizeof(struct cpuid_record) + CPUID_ANSWERS_MOST * sizeof(struct cpuid_answer))

/* ---- writer (liblmdb; one process, any thread one at a time) ---- */
struct cachedb;

enum cachedb_flags { CACHEDB_CREATE = 1 << 0 };

/* Opens DIR's store for writing (creates it 0700 with CACHEDB_CREATE). A damaged store is moved aside and a new one made, which
 * MESSAGE says on success (else it is empty). On failure MESSAGE (MESSAGE_BYTES) gets one line naming the path and the remedy.
 */
int cachedb_open(const char *dir, unsigned flags, struct cachedb **out, char *message, size_t message_bytes);
void cachedb_close(struct cachedb *db);
/* One write transaction per call, on disk in an order that a crash of the machine leaves a whole store (it may forget the last
 * transactions). -BDBI_EEXIST if the key is there; -BDBI_ENOSPC, -BDBI_EIO, ... */
int cachedb_put(struct cachedb *db, const void *key, size_t key_bytes, const void *value, size_t value_bytes);
struct cachedb_record {
    const void *key;
    size_t key_bytes;
    const void *value;
    size_t value_bytes;
};
/* All of RECORDS in one transaction; those whose key is there are left as they are. */
int cachedb_put_all(struct cachedb *db, const struct cachedb_record *records, unsigned nrecords);
/* Copies the value out (malloc). -BDBI_ENOENT. */
int cachedb_get(struct cachedb *db, const void *key, size_t key_bytes, void **value, size_t *value_bytes);
/* Visits keys that start with PREFIX in order; FN returns nonzero to stop (returned). Value is valid during the call. */
int cachedb_scan(struct cachedb *db, const void *prefix, size_t prefix_bytes,
                 int (*fn)(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes), void *user);

/* Whether the data file at PATH is whole: every page of the B-trees in its place and used once. liblmdb believes what it reads,
 * so cachedb_open asks this first. 0, -BDBI_EFORMAT, -BDBI_EIO. */
int cachedb_check_file(const char *path);

/* Whether all of an image is what image_build made: 0 or -BDBI_EFORMAT. Reads all of it. */
int image_check_digest(const void *value, size_t bytes);

/* Builds the image value for a translation (malloc'd *VALUE). CONTENT, CODE_DISTANCE, FIXED_BASE, SPAN_BYTES, EXTENT: as in
 * struct image_header. -BDBI_ENOMEM, -BDBI_ETOOBIG. */
struct jit_output;
int image_build(const struct jit_output *code, const uint8_t content[32], int64_t code_distance, uint64_t fixed_base,
                uint32_t span_bytes, uint32_t extent, void **value, size_t *value_bytes);

/* Content hash of the open file FD, and its identity, with the care that no later edit can keep the identity (identity.c says
 * how). -BDBI_EBUSY: it keeps changing, or can be changed without trace: run it without the cache. -BDBI_EIO, -BDBI_EINVAL (not
 * a regular file). May sleep for up to 3 s when the file is brand new. */
int identity_hash(int fd, struct file_id *id, uint8_t content[32]);
/* What stat says of FD. */
int identity_stat(int fd, struct file_id *id);
/* BLAKE3. */
void content_hash(const void *bytes, size_t nbytes, uint8_t content[32]);

/* ---- miss log ---- */
#define MISSLOG_MAGIC 0x474f4c4d /* "MLOG" */
/* One record is one write(2) to a descriptor opened O_APPEND by the core; at most MISSLOG_MAX_BYTES. */
struct misslog_record {
    uint32_t magic;
    uint32_t record_bytes; /* whole record, multiple of 8 */
    struct file_id id;     /* of the module's file, as mapped; all 0 and path "[vdso]" for the vdso */
    struct codegen_key codegen;
    uint16_t path_bytes; /* absolute path without NUL, after this header */
    uint16_t tool_bytes; /* behind it, without NUL: what --tool said (struct tool_choice); 0: no tool */
    uint32_t noffsets;   /* uint32_t module offsets after both (padded to 4) */
};
_Static_assert(sizeof(struct misslog_record) == 88, "misslog_record has no padding");
#define MISSLOG_MAX_BYTES 65536
/* In place of an offset: */
#define MISSLOG_DISPLACED UINT32_MAX    /* the module was not at its image's place, since another module was there */
#define MISSLOG_RAN (UINT32_MAX - 1)    /* those behind it are of blocks that ran, and were not missed */
#define MISSLOG_STRAYS (UINT32_MAX - 2) /* their order is worth another image */

/* A program's start record: the modules that its runs attach, and its hot list, which is the pairs of them all. It goes through
 * the miss log too: path START_PATH, id the program's, the offsets are the record's 32-bit words. */
#define START_PATH "[start]"
#define START_MAGIC 0x54525453  /* "STRT" */
#define START_MODULES_MOST 256  /* that are in a record without pairs */
#define HOTLIST_MAX_PAIRS 65536 /* of a record */
#define START_GENERATIONS 48    /* how often a record is replaced */
#define HOT_LANDING 0x80000000u /* in hot_pair.code: a landing stands before the code */
struct hot_pair {
    uint32_t app;  /* from the module's base */
    uint32_t code; /* from the module's code start */
};
struct start_section {
    uint32_t magic; /* anything else: the record's end */
    uint32_t npairs;
    struct file_id id;   /* of the module as it was mapped; all 0: the vdso */
    uint8_t content[32]; /* of it */
    uint64_t checksum;   /* head_checksum of its base image; another one now: the pairs do not count */
    struct hot_pair pairs[];
};
_Static_assert(sizeof(struct start_section) == 104, "start_section has no padding");
/* The section at AT, of which WORDS 32-bit words are there, or NULL; *NEXT: the words that it takes. */
static inline const struct start_section *start_section_at(const uint32_t *at, size_t words, size_t *next)
{
    const struct start_section *s = (const void *)at;
    size_t head = sizeof *s / 4;
    if (words < head || s->magic != START_MAGIC || s->npairs > (words - head) / 2)
        return NULL;
    *next = head + 2 * (size_t)s->npairs;
    return s;
}
/* In the store a record is padded with zeros to at least this, so that it is read in place. */
#define START_MIN_BYTES 4096

/* Path of a record without offsets: the answers of cpuid are not known for this boot. */
#define CPUID_PATH "[cpuid]"

/* A record in memory: HEAD's fields, checked; PATH and TOOL are not terminated, OFFSETS may be unaligned. */
struct misslog_entry {
    struct misslog_record head;
    const char *path, *tool;
    const uint8_t *offsets;
};
/* Parses the record at *AT of LOG and moves *AT behind it; garbage is skipped up to the next magic. 1: *ENTRY is one, 0: the
 * end. */
int misslog_next(const void *log, size_t log_bytes, size_t *at, struct misslog_entry *entry);

#endif
