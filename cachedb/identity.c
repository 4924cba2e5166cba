/* SPDX-License-Identifier: Apache-2.0
 *
 * What a file's content is (BLAKE3), and a short identity to know it by later: device, inode, size, mtime, ctime. The promise
 * is that whatever changes the content after the hash was taken changes the identity too. ctime does that, since nobody can set
 * it, with three gaps that are closed here:
 *
 * 1. Timestamps are coarse. The kernel stamps with CLOCK_REALTIME_COARSE, which moves once a tick (1 to 10 ms); two writes in
 * one tick have the same ctime. So hashing starts only when that clock is 20 ms past ctime: a later change gets a later stamp.
 * (Since Linux 6.13 a stamp that was looked at is followed by a fine one, which only helps.) A file system that keeps whole
 * seconds, or two of them (FAT), shows ctime with 0 ns: there the margin is 2.1 s. Where another machine's clock stamps
 * (network file systems, anything not known here), 2.1 s of our own monotonic time must pass since ctime was first seen,
 * whatever the clocks say.
 * 2. The stamp comes before the change. A long write(2) stamps and then copies; a store to a shared mapping stamps in the page
 *    fault, which may then wait for the disk; and once the page is writable, stores to it leave no trace at all until it is
 *    written back. So nobody may have the file open, or mapped, for writing while the hash starts. A read lease is granted
 * exactly then:
 *
 *        stat -> wait for the clock -> lease granted -> hash -> stat: equal?
 *                                           |____________^ whoever writes from here on opens it first, and stamps later
 *
 *    Somebody has it open for writing: no identity (such a file cannot be executed either, natively: ETXTBSY).
 * 3. A lease is for the file's owner and root, and not every file system has them. Else fsync makes do, on file systems with a
 * disk: it writes dirty pages back and write-protects them, so that the next store faults and stamps. What it cannot see is a
 *    change that was stamped before the first stat and is still under way: against that, ctime must be 2.1 s old. Files in
 * memory (tmpfs, ramfs, hugetlbfs, and overlayfs, which may lie on them) have no writeback: no lease, no identity.
 *
 * Not covered: writing to the block device or the layers underneath, changes of other machines in a network file system that
 * this one has not heard of, and setting the clock back to the very tick of an earlier stamp.
 */
#include "cachedb/cachedb.h"
#include "include/internal/error.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <llvm-c/blake3.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ll
#define TICK_MARGIN_NS 20000000ll
#define COARSE_MARGIN_NS 2100000000ll
#define WAIT_MOST_NS 3000000000ll
#define TRIES 4
#define CHUNK_BYTES (256 * 1024)

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif
#ifndef ZFS_SUPER_MAGIC
#define ZFS_SUPER_MAGIC 0x2fc12fc1
#endif

enum clock_kind { STAMPS_LOCAL, STAMPS_FOREIGN };

void content_hash(const void *bytes, size_t nbytes, uint8_t content[32])
{
    llvm_blake3_hasher hasher;
    llvm_blake3_hasher_init(&hasher);
    llvm_blake3_hasher_update(&hasher, bytes, nbytes);
    llvm_blake3_hasher_finalize(&hasher, content, 32);
}

static void from_stat(const struct stat *st, struct file_id *id)
{
    *id = (struct file_id){
        .dev = st->st_dev,
        .ino = st->st_ino,
        .size = (uint64_t)st->st_size,
        .mtime_sec = st->st_mtim.tv_sec,
        .mtime_nsec = st->st_mtim.tv_nsec,
        .ctime_sec = st->st_ctim.tv_sec,
        .ctime_nsec = st->st_ctim.tv_nsec,
    };
}

int identity_stat(int fd, struct file_id *id)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return -BDBI_EIO;
    }
    if (!S_ISREG(st.st_mode)) {
        return -BDBI_EINVAL;
    }
    from_stat(&st, id);
    return 0;
}

static bool same_id(const struct file_id *a, const struct file_id *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime_sec == b->mtime_sec &&
           a->mtime_nsec == b->mtime_nsec && a->ctime_sec == b->ctime_sec && a->ctime_nsec == b->ctime_nsec;
}

/* ---- time ---- */

static int64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static void nap(void)
{
    const struct timespec t = {0, 5000000};
    nanosleep(&t, NULL);
}

static long file_system(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 ? (long)fs.f_type : 0;
}

static enum clock_kind stamps_of(long type)
{
    switch (type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case ZFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case RAMFS_MAGIC:
    case HUGETLBFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
    case SQUASHFS_MAGIC:
    case EROFS_SUPER_MAGIC_V1:
    case ISOFS_SUPER_MAGIC:
    case MSDOS_SUPER_MAGIC:
        return STAMPS_LOCAL;
    default:
        return STAMPS_FOREIGN;
    }
}

/* Waits until ID's ctime, which was seen at monotonic time SEEN_NS, is MARGIN old. */
static int wait_for_clock(const struct file_id *id, int64_t margin, enum clock_kind stamps, int64_t seen_ns)
{
    int64_t ctime = id->ctime_sec * NS_PER_S + id->ctime_nsec;
    for (;;) {
        int64_t waited = now_ns(CLOCK_MONOTONIC) - seen_ns;
        if (stamps == STAMPS_LOCAL ? now_ns(CLOCK_REALTIME_COARSE) - ctime > margin : waited > COARSE_MARGIN_NS) {
            return 0;
        }
        if (waited > WAIT_MOST_NS) { /* stamped in our future */
            return -BDBI_EBUSY;
        }
        nap();
    }
}

/* ---- writers ---- */

enum writers { WRITERS_NONE, WRITERS_SOME, WRITERS_UNKNOWN };

/* Whether somebody has the file open, or mapped, for writing. Whoever opens it while we hold the lease makes the kernel signal
 * us: with a signal that is ignored by default. */
static enum writers find_writers(int fd)
{
    if (fcntl(fd, F_SETSIG, SIGURG) == 0 && fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
        fcntl(fd, F_SETLEASE, F_UNLCK);
        return WRITERS_NONE;
    }
    return errno == EAGAIN ? WRITERS_SOME : WRITERS_UNKNOWN;
}

static bool is_memory(long type)
{
    return type == TMPFS_MAGIC || type == RAMFS_MAGIC || type == HUGETLBFS_MAGIC || type == OVERLAYFS_SUPER_MAGIC;
}

/* After this whatever changes the content gives it another ctime than ID's. */
static int settle(int fd, const struct file_id *id, int64_t seen_ns)
{
    long type = file_system(fd);
    int64_t margin = id->ctime_nsec == 0 ? COARSE_MARGIN_NS : TICK_MARGIN_NS;
    int rc = wait_for_clock(id, margin, stamps_of(type), seen_ns);
    if (rc) {
        return rc;
    }
    enum writers writers = find_writers(fd);
    if (writers != WRITERS_UNKNOWN) {
        return writers == WRITERS_NONE ? 0 : -BDBI_EBUSY;
    }
    if (is_memory(type)) {
        return -BDBI_EBUSY;
    }
    rc = wait_for_clock(id, COARSE_MARGIN_NS, stamps_of(type), seen_ns);
    if (rc) {
        return rc;
    }
    return fsync(fd) != 0 && errno != EROFS && errno != EINVAL ? -BDBI_EIO : 0;
}

/* ---- hashing ---- */

static int hash_fd(int fd, uint8_t content[32])
{
    llvm_blake3_hasher hasher;
    uint8_t *chunk = malloc(CHUNK_BYTES);
    off_t at = 0;
    ssize_t n;
    if (!chunk) {
        return -BDBI_ENOMEM;
    }
    llvm_blake3_hasher_init(&hasher);
    do {
        n = pread(fd, chunk, CHUNK_BYTES, at);
        if (n > 0) {
            llvm_blake3_hasher_update(&hasher, chunk, (size_t)n);
            at += n;
        }
    } while (n > 0 || (n < 0 && errno == EINTR));
    free(chunk);
    llvm_blake3_hasher_finalize(&hasher, content, 32);
    return n < 0 ? -BDBI_EIO : 0;
}

int identity_hash(int fd, struct file_id *id, uint8_t content[32])
{
    for (int i = 0; i < TRIES; i++) {
        struct file_id after;
        int64_t seen_ns = now_ns(CLOCK_MONOTONIC);
        int rc = identity_stat(fd, id);
        if (rc || (rc = settle(fd, id, seen_ns)) != 0 || (rc = hash_fd(fd, content)) != 0 ||
            (rc = identity_stat(fd, &after)) != 0) {
            return rc;
        }
        if (same_id(id, &after)) {
            return 0;
        }
    }
    return -BDBI_EBUSY;
}
