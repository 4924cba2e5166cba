/* SPDX-License-Identifier: Apache-2.0
 *
 * Error codes of bdbi's own components. Functions return 0 or more for success and -BDBI_E... for failure; errno and
 * LMDB's codes are translated at the edge of the module that met them.
 */
#ifndef BDBI_ERROR_H
#define BDBI_ERROR_H

enum bdbi_error {
    BDBI_ENOMEM = 1, /* out of memory */
    BDBI_EIO,        /* read or write failed */
    BDBI_ENOSPC,     /* the disk or the cache's address space is full */
    BDBI_ENOENT,     /* no such file or key */
    BDBI_EACCES,     /* permission denied */
    BDBI_EFORMAT,    /* not what it should be: not ELF, truncated, corrupt */
    BDBI_EARCH,      /* ELF, but not for x86-64 Linux */
    BDBI_EEXIST,     /* the key is already there (not overwritten) */
    BDBI_EBUSY,      /* somebody else holds the lock */
    BDBI_ETOOBIG,    /* beyond a documented limit */
    BDBI_EINVAL,     /* wrong argument */
};

/* A short English phrase for -BDBI_E... or BDBI_E...; never NULL. Any thread. */
const char *bdbi_strerror(int error);

#endif
