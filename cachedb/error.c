/* SPDX-License-Identifier: Apache-2.0
 *
 * The words for error codes.
 */
#include "include/internal/error.h"

const char *bdbi_strerror(int error)
{
    switch (error < 0 ? -error : error) {
    case 0:
        return "no error";
    case BDBI_ENOMEM:
        return "out of memory";
    case BDBI_EIO:
        return "reading or writing failed";
    case BDBI_ENOSPC:
        return "no space left";
    case BDBI_ENOENT:
        return "not found";
    case BDBI_EACCES:
        return "permission denied";
    case BDBI_EFORMAT:
        return "not in the expected format";
    case BDBI_EARCH:
        return "not for x86-64 Linux";
    case BDBI_EEXIST:
        return "already there";
    case BDBI_EBUSY:
        return "in use by somebody else";
    case BDBI_ETOOBIG:
        return "too big";
    case BDBI_EINVAL:
        return "not possible with this kind of argument";
    default:
        return "unknown error";
    }
}
