/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory whose pages a thread serves (userfaultfd).
 */
#ifndef SERVED_H
#define SERVED_H

#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SERVED_PAGE 4096ul

static int served_fd;

/* False, and a line: the kernel does not let us. */
static bool served_open(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    served_fd = (int)syscall(SYS_userfaultfd, 02000000 /* O_CLOEXEC */);
    if (served_fd >= 0 && ioctl(served_fd, UFFDIO_API, &api) == 0)
        return true;
    printf("error %d\n", errno);
    return false;
}

/* PAGES from P on are asked for when they are touched. */
static bool served_register(void *p, unsigned pages)
{
    struct uffdio_register r = {.range = {(uint64_t)(uintptr_t)p, pages * SERVED_PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    return ioctl(served_fd, UFFDIO_REGISTER, &r) == 0;
}

/* Waits for a touch. The page's address; 0: there will be none any more. */
static uint64_t served_wait(void)
{
    struct uffd_msg m;
    while (read(served_fd, &m, sizeof m) == (ssize_t)sizeof m)
        if (m.event == UFFD_EVENT_PAGEFAULT)
            return m.arg.pagefault.address & -SERVED_PAGE;
    return 0;
}

static void served_give(uint64_t address, const void *page)
{
    struct uffdio_copy copy = {.dst = address, .src = (uint64_t)(uintptr_t)page, .len = SERVED_PAGE};
    ioctl(served_fd, UFFDIO_COPY, &copy);
}

#endif
