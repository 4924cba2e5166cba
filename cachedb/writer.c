/* SPDX-License-Identifier: Apache-2.0
 *
 * The store's writer, over liblmdb. A process that uses it runs no guest.
 *
 *   DIR/v1/data.mdb    the store; the core maps it read-only (reader.c)
 *   DIR/v1/lock.mdb    liblmdb's lock between writers; the core does not register as a reader
 *   DIR/v1/open.lock   held while the store is checked and opened, so that only one process moves a damaged one aside
 *
 * All that is stored is written once and stays: readers have it mapped without liblmdb knowing. So there is one write function,
 * with MDB_NOOVERWRITE, and none that deletes.
 */
#include "cachedb/cachedb.h"
#include "include/internal/error.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MAP_BYTES_MOST (256ull << 30) /* address space, not memory */
#define MAP_BYTES_LEAST (64ull << 20)
#define PATH_BYTES (PATH_MAX + 64) /* a path below v1 */
#define LOCK_BYTES 8192            /* what liblmdb makes lock.mdb for its default number of readers */

struct cachedb {
    MDB_env *env;
    MDB_dbi dbi;
};

struct message {
    char *text;
    size_t bytes;
};

/* errno's and LMDB's codes in our terms. */
static int translate(int error)
{
    switch (error) {
    case 0:
        return 0;
    case MDB_KEYEXIST:
        return -BDBI_EEXIST;
    case MDB_NOTFOUND:
    case ENOENT:
        return -BDBI_ENOENT;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return -BDBI_ENOSPC;
    case ENOMEM:
        return -BDBI_ENOMEM;
    case EACCES:
    case EPERM:
    case EROFS:
        return -BDBI_EACCES;
    case EAGAIN:
    case MDB_READERS_FULL:
        return -BDBI_EBUSY;
    case MDB_BAD_VALSIZE:
    case EINVAL:
        return -BDBI_EINVAL;
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INCOMPATIBLE:
    case MDB_PANIC:
        return -BDBI_EFORMAT;
    default:
        return -BDBI_EIO;
    }
}

static void __attribute__((format(printf, 2, 3))) say(const struct message *m, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (m->bytes > 0) {
        vsnprintf(m->text, m->bytes, format, args);
    }
    va_end(args);
}

/* What failed at PATH, and what to do. */
static int complain(const struct message *m, const char *path, int error)
{
    switch (error) {
    case ENOTDIR:
    case EEXIST:
        say(m, "%s: not a directory: choose another cache directory (--cache DIR)", path);
        break;
    case EROFS:
        say(m, "%s: on a read-only file system: choose another cache directory (--cache DIR)", path);
        break;
    case EACCES:
    case EPERM:
        say(m, "%s: not writable: make it writable or choose another cache directory (--cache DIR)", path);
        break;
    case ENOSPC:
    case EDQUOT:
        say(m, "%s: no space left on its disk: free some or choose another cache directory (--cache DIR)", path);
        break;
    case ENOENT:
        say(m, "%s: no cache here: bdbi-warm makes one", path);
        break;
    default:
        say(m, "%s: %s: choose another cache directory (--cache DIR)", path, error > 0 ? strerror(error) : mdb_strerror(error));
    }
    return error == ENOTDIR || error == EEXIST ? -BDBI_EINVAL : translate(error);
}

/* ---- directories ---- */

/* 0 or errno; that it is there already is fine. */
static int make_directory(const char *path)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : errno;
}

/* mkdir -p; what is made is 0700. An unwritable parent matters only if its child is missing. 0 or errno. */
static int make_directories(char *path)
{
    struct stat st;
    int error = 0;
    for (char *slash = path; (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        int this_error = make_directory(path);
        *slash = '/';
        error = error && this_error == ENOENT ? error : this_error; /* the cause is above */
    }
    int last = make_directory(path);
    if (last) {
        return error && last == ENOENT ? error : last;
    }
    if (stat(path, &st) != 0) {
        return errno;
    }
    return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
}

static int prepare(const char *dir, unsigned flags, char *v1, const struct message *m)
{
    if (snprintf(v1, PATH_MAX, "%s/" CACHEDB_SUBDIR, dir) > PATH_MAX - 64) {
        say(m, "%.100s...: too long: choose another cache directory (--cache DIR)", dir);
        return -BDBI_EINVAL;
    }
    int error = 0;
    if (flags & CACHEDB_CREATE) {
        error = make_directories(v1);
    }
    if (!error && access(v1, W_OK | X_OK) != 0) {
        error = errno;
    }
    if (error == ENOENT && (flags & CACHEDB_CREATE)) {
        say(m, "%s: cannot be made: choose another cache directory (--cache DIR)", dir);
        return -BDBI_ENOENT;
    }
    return error ? complain(m, dir, error) : 0;
}

/* ---- a damaged store ---- */

/* Renames data.mdb to data.mdb.corrupt-N. The lock file goes: whoever has the old data file open keeps the old lock file too.
 */
static int move_aside(const char *v1, const struct message *m)
{
    char data[PATH_BYTES], aside[PATH_BYTES], lock[PATH_BYTES];
    snprintf(data, sizeof data, "%s/data.mdb", v1);
    snprintf(lock, sizeof lock, "%s/lock.mdb", v1);
    for (int n = 1; n < 1000; n++) {
        snprintf(aside, sizeof aside, "%s/data.mdb.corrupt-%d", v1, n);
        if (access(aside, F_OK) != 0) {
            break;
        }
    }
    if (rename(data, aside) != 0 || (unlink(lock) != 0 && errno != ENOENT)) {
        return complain(m, v1, errno);
    }
    say(m, "%s: damaged: moved to %s, starting a new one", data, aside);
    return 0;
}

/* An empty data.mdb is a new one: liblmdb fills it in. */
static int check_store(const char *v1, unsigned flags, const struct message *m)
{
    char data[PATH_BYTES];
    struct stat st;
    snprintf(data, sizeof data, "%s/data.mdb", v1);
    if (stat(data, &st) != 0) {
        return (flags & CACHEDB_CREATE) && errno == ENOENT ? 0 : complain(m, v1, errno);
    }
    if (st.st_size == 0) {
        return 0;
    }
    int rc = cachedb_check_file(data);
    if (rc == -BDBI_EFORMAT) {
        return move_aside(v1, m);
    }
    if (rc) {
        say(m, "%s: %s: choose another cache directory (--cache DIR)", data, bdbi_strerror(rc));
    }
    return rc;
}

/* ---- liblmdb ---- */

/* liblmdb writes to lock.mdb through a mapping, which on a full disk would be a SIGBUS: get the disk space first. 0 or errno.
 */
static int reserve_lock_file(const char *v1)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/lock.mdb", v1);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno;
    }
    int error = fallocate(fd, 0, 0, LOCK_BYTES) == 0 || errno == EOPNOTSUPP ? 0 : errno;
    close(fd);
    return error;
}

/* 0 or an error of errno's or LMDB's. */
static int open_env(const char *v1, size_t map_bytes, MDB_env **out)
{
    MDB_env *env = NULL;
    int error = mdb_env_create(&env);
    if (error) {
        return error;
    }
    error = mdb_env_set_mapsize(env, map_bytes);
    if (!error) {
        error = mdb_env_open(env, v1, MDB_NOTLS | MDB_NORDAHEAD | MDB_NOMETASYNC, 0600);
    }
    if (error) {
        mdb_env_close(env);
        return error;
    }
    *out = env;
    return 0;
}

/* Another process may have made the store's map bigger than ours: follow it. */
static int begin(const struct cachedb *db, unsigned flags, MDB_txn **txn)
{
    int error = mdb_txn_begin(db->env, NULL, flags, txn);
    if (error == MDB_MAP_RESIZED) {
        error = mdb_env_set_mapsize(db->env, 0);
        error = error ? error : mdb_txn_begin(db->env, NULL, flags, txn);
    }
    return error;
}

static int open_dbi(struct cachedb *db)
{
    MDB_txn *txn;
    int error = begin(db, MDB_RDONLY, &txn);
    if (error) {
        return error;
    }
    error = mdb_dbi_open(txn, NULL, 0, &db->dbi);
    if (error) {
        mdb_txn_abort(txn);
        return error;
    }
    return mdb_txn_commit(txn);
}

static int open_store(const char *v1, struct cachedb *db, const struct message *m)
{
    int error = reserve_lock_file(v1);
    if (!error) {
        error = ENOMEM;
        for (size_t bytes = MAP_BYTES_MOST; error == ENOMEM && bytes >= MAP_BYTES_LEAST; bytes /= 4) {
            error = open_env(v1, bytes, &db->env); /* less where RLIMIT_AS is low */
        }
    }
    if (!error) {
        mdb_reader_check(db->env, NULL); /* slots of processes that died */
        error = open_dbi(db);
    }
    return error ? complain(m, v1, error) : 0;
}

static int lock_open(const char *v1, const struct message *m)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/open.lock", v1);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return complain(m, v1, errno);
    }
    while (flock(fd, LOCK_EX) != 0) {
        if (errno != EINTR) {
            int rc = complain(m, v1, errno);
            close(fd);
            return rc;
        }
    }
    return fd;
}

int cachedb_open(const char *dir, unsigned flags, struct cachedb **out, char *message, size_t message_bytes)
{
    const struct message m = {message, message_bytes};
    char v1[PATH_MAX];
    say(&m, "%s", "");
    int rc = prepare(dir, flags, v1, &m);
    if (rc) {
        return rc;
    }
    struct cachedb *db = calloc(1, sizeof *db);
    if (!db) {
        return complain(&m, dir, ENOMEM);
    }
    int lock = lock_open(v1, &m);
    rc = lock < 0 ? lock : check_store(v1, flags, &m);
    if (!rc) {
        rc = open_store(v1, db, &m);
    }
    if (lock >= 0) {
        close(lock);
    }
    if (rc) {
        cachedb_close(db);
        return rc;
    }
    *out = db;
    return 0;
}

void cachedb_close(struct cachedb *db)
{
    if (db && db->env) {
        mdb_env_close(db->env);
    }
    free(db);
}

/* liblmdb calls a write that was cut short EIO, which on a disk with hardly any space left means that it is full. */
static int commit(struct cachedb *db, MDB_txn *txn, size_t value_bytes)
{
    int fd, error = mdb_txn_commit(txn);
    struct statvfs fs;
    if (error == EIO && mdb_env_get_fd(db->env, &fd) == 0 && fstatvfs(fd, &fs) == 0 &&
        fs.f_bavail * (uint64_t)fs.f_frsize < value_bytes + (1 << 20)) {
        return ENOSPC;
    }
    return error;
}

/* KEEP: a key that is there is fine. */
static int put_records(struct cachedb *db, const struct cachedb_record *records, unsigned nrecords, bool keep)
{
    size_t bytes = 0;
    MDB_txn *txn;
    int error = begin(db, 0, &txn);
    for (unsigned i = 0; i < nrecords && !error; i++) {
        MDB_val k = {records[i].key_bytes, (void *)records[i].key}, v = {records[i].value_bytes, (void *)records[i].value};
        error = mdb_put(txn, db->dbi, &k, &v, MDB_NOOVERWRITE);
        error = keep && error == MDB_KEYEXIST ? 0 : error;
        if (error) {
            mdb_txn_abort(txn);
        }
        bytes += records[i].value_bytes;
    }
    return translate(error ? error : commit(db, txn, bytes));
}

int cachedb_put(struct cachedb *db, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    const struct cachedb_record record = {key, key_bytes, value, value_bytes};
    return put_records(db, &record, 1, false);
}

int cachedb_put_all(struct cachedb *db, const struct cachedb_record *records, unsigned nrecords)
{
    return put_records(db, records, nrecords, true);
}

int cachedb_get(struct cachedb *db, const void *key, size_t key_bytes, void **value, size_t *value_bytes)
{
    MDB_val k = {key_bytes, (void *)key}, v;
    MDB_txn *txn;
    int error = begin(db, MDB_RDONLY, &txn);
    if (error) {
        return translate(error);
    }
    error = mdb_get(txn, db->dbi, &k, &v);
    if (!error) {
        *value = malloc(v.mv_size + 1);
        *value_bytes = v.mv_size;
        if (*value) {
            memcpy(*value, v.mv_data, v.mv_size);
        } else {
            error = ENOMEM;
        }
    }
    mdb_txn_abort(txn);
    return translate(error);
}

int cachedb_scan(struct cachedb *db, const void *prefix, size_t prefix_bytes,
                 int (*fn)(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes), void *user)
{
    MDB_val k = {prefix_bytes, (void *)prefix}, v;
    MDB_cursor *cursor;
    MDB_txn *txn;
    int stop = 0, error = begin(db, MDB_RDONLY, &txn);
    if (error) {
        return translate(error);
    }
    error = mdb_cursor_open(txn, db->dbi, &cursor);
    if (!error) {
        error = mdb_cursor_get(cursor, &k, &v, prefix_bytes > 0 ? MDB_SET_RANGE : MDB_FIRST);
        while (!error && k.mv_size >= prefix_bytes && memcmp(k.mv_data, prefix, prefix_bytes) == 0) {
            stop = fn(user, k.mv_data, k.mv_size, v.mv_data, v.mv_size);
            if (stop) {
                break;
            }
            error = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return stop ? stop : error == MDB_NOTFOUND ? 0 : translate(error);
}
