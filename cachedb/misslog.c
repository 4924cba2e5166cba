/* SPDX-License-Identifier: Apache-2.0
 *
 * Parses the miss log. Each record is one O_APPEND write, so records are whole unless the disk was full or the machine died:
 * what does not look like a record is skipped to the next magic.
 */
#include "cachedb/cachedb.h"

#include <stdbool.h>
#include <string.h>

/* A record of at most LEFT bytes at P: its parts fit in it, and it is as long as they need. */
static bool take(const uint8_t *p, size_t left, struct misslog_entry *e)
{
    if (left < sizeof e->head) {
        return false;
    }
    memcpy(&e->head, p, sizeof e->head);
    const struct misslog_record *h = &e->head;
    if (h->magic != MISSLOG_MAGIC || h->record_bytes > left || h->record_bytes > MISSLOG_MAX_BYTES ||
        h->record_bytes % 8 != 0 || h->path_bytes == 0 || h->noffsets > MISSLOG_MAX_BYTES / 4) {
        return false;
    }
    size_t names = (size_t)h->path_bytes + h->tool_bytes;
    size_t offsets = sizeof *h + ((names + 3) & ~(size_t)3);
    size_t end = offsets + 4 * (size_t)h->noffsets;
    if (end > h->record_bytes || h->record_bytes - end >= 8) {
        return false;
    }
    e->path = (const char *)p + sizeof *h;
    e->tool = e->path + h->path_bytes;
    e->offsets = p + offsets;
    return memchr(e->path, '\0', names) == NULL;
}

int misslog_next(const void *log, size_t log_bytes, size_t *at, struct misslog_entry *entry)
{
    const uint32_t magic = MISSLOG_MAGIC;
    const uint8_t *p = log;
    while (*at < log_bytes) {
        if (take(p + *at, log_bytes - *at, entry)) {
            *at += entry->head.record_bytes;
            return 1;
        }
        const uint8_t *next = memmem(p + *at + 1, log_bytes - *at - 1, &magic, sizeof magic);
        *at = next ? (size_t)(next - p) : log_bytes;
    }
    return 0;
}
