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

enum cachedb_type {
    CACHEDB_IDENTITY = 'd', /* struct file_id -> content hash (32 bytes) */
    CACHEDB_IMAGE = 'i',    /* struct image_key -> image */
    CACHEDB_CODEMAP = 'm',  /* struct codemap_key -> uint32_t offsets[], ascending, block starts that runs needed */
    CACHEDB_VDSO = 'v',     /* 'v' alone -> see struct vdso_record; the newest has the highest `serial` */
    CACHEDB_CLOSURE = 'c',  /* struct closure_key -> struct closure_entry[] */
};

/* What stat says of a file; equal identity: equal content (see identity.c for the care this takes). */
struct file_id {
    uint64_t dev, ino, size;
    int64_t mtime_sec, mtime_nsec, ctime_sec, ctime_nsec;
};
_Static_assert(sizeof(struct file_id) == 56, "file_id has no padding");

/* What translated code depends on besides the module. */
struct codegen_key {
    uint8_t codegen[8]; /* hash of the translator's sources (BDBI_CODEGEN_ID) */
    uint8_t tool[8];    /* FNV-1a of tool name, version and options; 0: no tool */
};

/* Big endian fields sort: extents of one image are neighbours. */
struct __attribute__((packed)) image_key {
    uint8_t type; /* CACHEDB_IMAGE */
    uint8_t content[32];
    struct codegen_key codegen;
    uint8_t extent; /* 0: base image */
};
_Static_assert(sizeof(struct image_key) == 50, "image_key is packed");

struct __attribute__((packed)) identity_key {
    uint8_t type; /* CACHEDB_IDENTITY */
    struct file_id id;
};

struct __attribute__((packed)) codemap_key {
    uint8_t type; /* CACHEDB_CODEMAP */
    uint8_t content[32];
    uint8_t serial[4]; /* big endian: each learning round adds a record */
};

/* The vdso has no file: its content hash is that of its mapped ELF image (the bytes from AT_SYSINFO_EHDR on, ELF size). */
struct vdso_record {
    uint8_t content[32];
    uint32_t vdso_bytes; /* mapped size */
    uint32_t vvar_bytes; /* size of the data mappings directly below it (all of them together) */
    uint32_t nvvar;      /* number of those mappings, lowest first */
    uint32_t vvar_sizes[4];
    uint32_t pad;
    /* followed by vdso_bytes of content to compare with */
};

struct __attribute__((packed)) closure_key {
    uint8_t type; /* CACHEDB_CLOSURE */
    struct file_id exe;
    struct codegen_key codegen;
};

/* One module that the program maps at its start. */
struct closure_entry {
    struct file_id id;
    uint8_t content[32];
};

/* ---- writer (liblmdb; one process, any thread one at a time) ---- */
struct cachedb;

enum cachedb_flags { CACHEDB_CREATE = 1 << 0 };

/* Opens DIR's store for writing (creates it 0700 with CACHEDB_CREATE). MESSAGE (MESSAGE_BYTES) gets one line naming the path and the
 * remedy on failure. */
int cachedb_open(const char *dir, unsigned flags, struct cachedb **out, char *message, size_t message_bytes);
void cachedb_close(struct cachedb *db);
/* One write transaction per call, committed and synced. -BDBI_EEXIST if the key is there; -BDBI_ENOSPC, -BDBI_EIO, ... */
int cachedb_put(struct cachedb *db, const void *key, size_t key_bytes, const void *value, size_t value_bytes);
/* Copies the value out (malloc). -BDBI_ENOENT. */
int cachedb_get(struct cachedb *db, const void *key, size_t key_bytes, void **value, size_t *value_bytes);
/* Visits keys that start with PREFIX in order; FN returns nonzero to stop (returned). Value is valid during the call. */
int cachedb_scan(struct cachedb *db, const void *prefix, size_t prefix_bytes,
                 int (*fn)(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes), void *user);

/* Builds the image value for a translation (malloc'd *VALUE). */
struct jit_output;
int image_build(const struct jit_output *code, const uint8_t content[32], int64_t code_distance, uint64_t fixed_base,
                uint32_t span_bytes, uint32_t extent, void **value, size_t *value_bytes);

/* Content hash of the open file FD, and its identity, with the care that no later edit can keep the identity:
 * fsync, stat, hash, stat; a timestamp younger than 2 s of the clock's granularity is waited for and hashed again. */
int identity_hash(int fd, struct file_id *id, uint8_t content[32]);

/* ---- miss log ---- */
#define MISSLOG_MAGIC 0x474f4c4d /* "MLOG" */
/* One record is one write(2) to a descriptor opened O_APPEND by the core; at most MISSLOG_MAX_BYTES. */
struct misslog_record {
    uint32_t magic;
    uint32_t record_bytes; /* whole record, multiple of 8 */
    struct file_id id;     /* of the module's file, as mapped; all 0 and path "[vdso]" for the vdso */
    struct codegen_key codegen;
    uint32_t path_bytes; /* absolute path without NUL, after this header */
    uint32_t noffsets;   /* uint32_t module offsets after the path (padded to 4) */
};
_Static_assert(sizeof(struct misslog_record) == 88, "misslog_record has no padding");
#define MISSLOG_MAX_BYTES 8192

#endif
