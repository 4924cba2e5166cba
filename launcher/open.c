/* SPDX-License-Identifier: Apache-2.0
 *
 * Files of our own in a process whose limits are the guest's.
 */
#include "launcher/core.h"

#define RLIMIT_FSIZE_ 1
#define RLIMIT_NOFILE_ 7
#define SPARE_DESCRIPTORS 16

struct limit {
    uint64_t soft, hard;
};

long open_own(const char *path, int flags, int mode)
{
    struct limit old, more;
    long fd = sys4(__NR_openat, AT_FDCWD_, path, flags, mode);
    if (fd != -E_MFILE || sys4(__NR_prlimit64, 0, RLIMIT_NOFILE_, 0, &old) < 0)
        return fd;
    more = old;
    more.soft += SPARE_DESCRIPTORS;
    if (more.soft > more.hard)
        more.hard = more.soft; /* for root only */
    if (sys4(__NR_prlimit64, 0, RLIMIT_NOFILE_, &more, 0) < 0)
        return fd;
    fd = sys4(__NR_openat, AT_FDCWD_, path, flags, mode);
    sys4(__NR_prlimit64, 0, RLIMIT_NOFILE_, &old, 0);
    return fd;
}

long stat_mount(int fd, struct kernel_stat *st, uint64_t *mount)
{
    struct kernel_statx x;
    *mount = 0;
    if (sys5(332 /* statx */, fd, "", 0x1000 /* AT_EMPTY_PATH */, STATX_WANTED, &x) < 0)
        return sys2(__NR_fstat, fd, st);
    *st = (struct kernel_stat){.st_dev = (x.dev_minor & 0xff) | x.dev_major << 8 | (uint64_t)(x.dev_minor & ~0xffu) << 12,
                               .st_ino = x.ino,
                               .st_nlink = x.nlink,
                               .st_mode = x.mode,
                               .st_uid = x.uid,
                               .st_gid = x.gid,
                               .st_size = (int64_t)x.size,
                               .st_mtime_sec = x.mtime.sec,
                               .st_mtime_nsec = x.mtime.nsec,
                               .st_ctime_sec = x.ctime.sec,
                               .st_ctime_nsec = x.ctime.nsec};
    if (x.mask & STATX_MOUNT)
        *mount = x.mount;
    return 0;
}

long write_own(int fd, const void *bytes, size_t n)
{
    struct limit size;
    struct kernel_stat st;
    if (sys4(__NR_prlimit64, 0, RLIMIT_FSIZE_, 0, &size) == 0 && size.soft != UINT64_MAX && sys2(__NR_fstat, fd, &st) == 0 &&
        (st.st_mode & 0170000) == 0100000 && (uint64_t)st.st_size + n > size.soft)
        return -E_FBIG;
    return sys3(__NR_write, fd, bytes, n);
}
