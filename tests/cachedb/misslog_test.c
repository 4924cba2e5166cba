/* SPDX-License-Identifier: Apache-2.0
 *
 * The miss log's parser: every record that is there is found, whatever is between them; garbage never leads outside the log.
 */
#include "cachedb/cachedb.h"
#include "tests/cachedb/test.h"

static size_t make_record(uint8_t *to, const char *path, const char *tool, uint32_t noffsets, uint32_t first)
{
    struct misslog_record h = {.magic = MISSLOG_MAGIC, .path_bytes = (uint16_t)strlen(path), .noffsets = noffsets};
    h.tool_bytes = (uint16_t)strlen(tool);
    size_t offsets = sizeof h + (h.path_bytes + h.tool_bytes + 3u) / 4 * 4;
    h.record_bytes = (uint32_t)((offsets + 4 * noffsets + 7) / 8 * 8);
    memset(to, 0, h.record_bytes);
    memcpy(to, &h, sizeof h);
    memcpy(to + sizeof h, path, h.path_bytes);
    memcpy(to + sizeof h + h.path_bytes, tool, h.tool_bytes);
    for (uint32_t i = 0; i < noffsets; i++) {
        uint32_t offset = first + i;
        memcpy(to + offsets + 4 * i, &offset, 4);
    }
    return h.record_bytes;
}

static void check_entry(const struct misslog_entry *e, const char *path, const char *tool, uint32_t noffsets, uint32_t first)
{
    CHECK(e->head.path_bytes == strlen(path) && memcmp(e->path, path, strlen(path)) == 0 && e->head.noffsets == noffsets);
    CHECK(e->head.tool_bytes == strlen(tool) && memcmp(e->tool, tool, strlen(tool)) == 0);
    for (uint32_t i = 0; i < noffsets; i++) {
        uint32_t offset;
        memcpy(&offset, e->offsets + 4 * i, 4);
        CHECK(offset == first + i);
    }
}

static const char *const tools[] = {"", "t", "bbcount:out=x", "/a/tool.so:every=3", "", "12", "123"};
static const char *const paths[] = {"/bin/ls", "/usr/lib/x.so.1", "[vdso]", "/a", "/ab", "/abc", "/abcd"};

/* Records with garbage of every length between them. */
static void test_resync(uint64_t *state)
{
    static uint8_t log[100000];
    for (unsigned garbage = 0; garbage < 200; garbage++) {
        struct misslog_entry e;
        size_t bytes = 0, at = 0;
        for (unsigned i = 0; i < 7; i++) {
            for (unsigned j = 0; j < garbage; j++) {
                log[bytes++] = (uint8_t)(test_random(state) % 100); /* 'L', 'O' and 'G' among them */
            }
            bytes += make_record(log + bytes, paths[i], tools[i], i * 9, 1000 * i);
        }
        for (unsigned i = 0; i < 7; i++) {
            CHECK(misslog_next(log, bytes, &at, &e) == 1);
            check_entry(&e, paths[i], tools[i], i * 9, 1000 * i);
        }
        CHECK(misslog_next(log, bytes, &at, &e) == 0 && at == bytes);
    }
}

/* A record cut short in its header is skipped; the next one is found. (One cut later swallows a part of the next: its offsets
 * are then wrong, which costs a few useless blocks.) */
static void test_cut(void)
{
    static uint8_t record[2000], log[4000];
    size_t whole = make_record(record, "/bin/true", "bbcount", 50, 7);
    for (size_t cut = 0; cut < sizeof(struct misslog_record); cut++) {
        struct misslog_entry e;
        size_t at = 0;
        memcpy(log, record, cut);
        memcpy(log + cut, record, whole);
        CHECK(misslog_next(log, cut + whole, &at, &e) == 1 && e.path == (char *)log + at - whole + sizeof e.head);
        check_entry(&e, "/bin/true", "bbcount", 50, 7);
        CHECK(misslog_next(log, cut + whole, &at, &e) == 0);
    }
}

static void test_garbage(uint64_t *state)
{
    static uint8_t source[3000];
    size_t bytes = 0;
    for (unsigned i = 0; i < 7; i++) {
        bytes += make_record(source + bytes, paths[i], tools[i], i * 5, i);
    }
    for (unsigned round = 0; round < 30000; round++) {
        size_t kept = test_random(state) % (bytes + 1), at = 0;
        uint8_t *log = malloc(kept ? kept : 1); /* exact, for ASAN */
        struct misslog_entry e;
        memcpy(log, source, kept);
        for (unsigned i = 0; i < 10 && kept > 0; i++) {
            log[test_random(state) % kept] = (uint8_t)test_random(state);
        }
        while (misslog_next(log, kept, &at, &e)) {
            CHECK((uint8_t *)e.path >= log && (uint8_t *)e.path + e.head.path_bytes + e.head.tool_bytes <= log + kept);
            CHECK(e.offsets + 4 * (size_t)e.head.noffsets <= log + kept && at <= kept);
        }
        free(log);
    }
}

int main(void)
{
    uint64_t state = 5;
    test_resync(&state);
    test_cut();
    test_garbage(&state);
    return 0;
}
