/* SPDX-License-Identifier: Apache-2.0
 *
 * A reader's file (struct cache_file) that is bytes in memory: one at a time.
 */
#ifndef BDBI_TESTS_CACHEDB_FILE_H
#define BDBI_TESTS_CACHEDB_FILE_H

#include "cachedb/reader.h"
#include <string.h>

static struct {
    const uint8_t *bytes;
    size_t size;
    uint64_t reads;
} test_file_state;

static bool test_file_read(const struct cache_file *f, uint64_t offset, void *to, size_t bytes)
{
    (void)f;
    test_file_state.reads++;
    if (offset > test_file_state.size || bytes > test_file_state.size - offset) {
        return false;
    }
    memcpy(to, test_file_state.bytes + offset, bytes);
    return true;
}

/* What cache_reader_init takes. */
static struct cache_file *test_file(const void *bytes, size_t size)
{
    static struct cache_file file;
    static uint8_t pages[2 * LMDB_PAGE];
    test_file_state.bytes = bytes;
    test_file_state.size = size;
    file = (struct cache_file){.read = test_file_read, .pages = pages};
    return &file;
}

#endif
