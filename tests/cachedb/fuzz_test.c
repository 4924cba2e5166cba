/* SPDX-License-Identifier: Apache-2.0
 *
 * Damaged data files and start records. The reader, in the mapping and through a file, must neither crash nor loop on any of
 * them (each is mapped right before an unmapped page). And what cachedb_check_file calls whole must be safe for liblmdb: it is
 * opened, read through and written to in a child process.
 */
#include "cachedb/cachedb.h"
#include "cachedb/reader.h"
#include "tests/cachedb/file.h"
#include "tests/cachedb/test.h"

#include <lmdb.h>
#include <signal.h>
#include <sys/wait.h>

#define MUTANTS 20000
#define LMDB_EVERY 20 /* one in so many is shown to the checker, and to liblmdb if that likes it */

static unsigned checked, accepted;

static void make_store(const char *dir, uint64_t *state)
{
    static uint8_t value[30000];
    char message[500];
    struct cachedb *db;
    CHECK(cachedb_open(dir, CACHEDB_CREATE, &db, message, sizeof message) == 0);
    for (unsigned i = 0; i < 250; i++) {
        char key[80];
        size_t bytes = test_random(state) % (i % 10 ? 300 : sizeof value);
        int n = snprintf(key, sizeof key, "%u%.*s", (unsigned)test_random(state) % 1000, (int)(i % 60),
                         "------------------------------------------------------------");
        memset(value, (int)i, bytes);
        cachedb_put(db, key, (size_t)n, value, bytes);
    }
    cachedb_close(db);
}

static void read_all(const uint8_t *map, size_t bytes, struct cache_file *file)
{
    struct cache_reader r;
    uint8_t key[CACHE_READER_KEY_MAX], copy[500], head[CACHE_READER_HEAD_MAX];
    size_t key_bytes = 1, value_bytes;
    if (cache_reader_init(&r, map, bytes, file) != 0) {
        return;
    }
    cache_reader_begin(&r);
    key[0] = '0';
    for (unsigned i = 0; i < 60; i++) {
        size_t found;
        const uint8_t *value =
            cache_reader_seek_head(&r, key, key_bytes, 0, key, sizeof key - 1, &found, head, sizeof head, &value_bytes);
        if (!value) {
            break;
        }
        CHECK(value >= map && value + value_bytes <= map + bytes && found < CACHE_READER_KEY_MAX);
        volatile uint8_t sink = value_bytes > 0 ? (uint8_t)(value[0] ^ value[value_bytes - 1]) : 0;
        (void)sink;
        cache_reader_fetch(&r, key, found, copy, sizeof copy, &value_bytes);
        key[found] = 0;
        key_bytes = found + 1;
    }
    cache_reader_end(&r);
}

/* Start records: whatever is in one, its sections are inside it. AREA: END is where nothing is mapped. */
static void damage_records(uint8_t *end, uint64_t *state)
{
    enum { WORDS = 400 };
    for (unsigned round = 0; round < 50000; round++) {
        size_t words = test_random(state) % WORDS, next;
        uint32_t *record = (uint32_t *)end - words;
        memset(record, 0, words * 4);
        for (size_t at = 0; at + sizeof(struct start_section) / 4 <= words;) {
            struct start_section *s = (struct start_section *)(record + at);
            *s = (struct start_section){.magic = START_MAGIC, .npairs = (uint32_t)(test_random(state) % 20)};
            at += sizeof *s / 4 + 2 * s->npairs;
        }
        for (uint64_t n = test_random(state) % 4; n > 0 && words > 0; n--) {
            record[test_random(state) % words] = test_random(state) % 2 ? UINT32_MAX : (uint32_t)test_random(state) % 1000;
        }
        const struct start_section *s;
        size_t left = words;
        for (const uint32_t *at = record; (s = start_section_at(at, left, &next)); at += next, left -= next) {
            CHECK(next <= left && (const uint32_t *)(s->pairs + s->npairs) == at + next);
            volatile uint32_t sink = s->npairs ? s->pairs[s->npairs - 1].code : 0;
            (void)sink;
        }
    }
}

/* One to eight damages: bits, bytes, small numbers, page numbers, words from elsewhere; most of them where structure is. */
static size_t mutate(uint8_t *p, size_t bytes, uint64_t *state)
{
    for (uint64_t n = 1 + test_random(state) % 8; n > 0; n--) {
        size_t page = test_random(state) % 3 ? test_random(state) % (bytes / 4096) : test_random(state) % 2;
        size_t at = page * 4096 + test_random(state) % (test_random(state) % 4 ? 160 : 4088);
        uint64_t value = test_random(state);
        switch (test_random(state) % 6) {
        case 0:
            p[at] ^= (uint8_t)(1 << value % 8);
            break;
        case 1:
            p[at] = (uint8_t)value;
            break;
        case 2:
            value %= bytes / 4096 + 2;
            memcpy(p + at, &value, 8);
            break;
        case 3:
            memset(p + at, value & 1 ? 0xff : 0, 1 + value % 8);
            break;
        case 4:
            memmove(p + at, p + value % (bytes - 8), 8);
            break;
        default:
            p[page * 4096 + 10] = (uint8_t)(value % 32);
        }
    }
    return test_random(state) % 20 ? bytes : test_random(state) % bytes;
}

static void use_liblmdb(const char *dir)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_cursor *cursor;
    MDB_val k, v;
    CHECK(mdb_env_create(&env) == 0 && mdb_env_set_mapsize(env, 1 << 28) == 0);
    if (mdb_env_open(env, dir, MDB_NOTLS | MDB_NOSYNC, 0600) != 0) {
        return;
    }
    if (mdb_txn_begin(env, NULL, 0, &txn) != 0) {
        return;
    }
    CHECK(mdb_dbi_open(txn, NULL, 0, &dbi) == 0 && mdb_cursor_open(txn, dbi, &cursor) == 0);
    while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
        volatile uint8_t sink = v.mv_size > 0 ? ((uint8_t *)v.mv_data)[v.mv_size - 1] : 0;
        (void)sink;
    }
    mdb_cursor_close(cursor);
    for (unsigned i = 0; i < 40; i++) {
        static uint8_t value[9000];
        char key[20];
        k = (MDB_val){(size_t)snprintf(key, sizeof key, "%u new", i * 25), key};
        v = (MDB_val){i % 5 ? 100 : sizeof value, value};
        if (mdb_put(txn, dbi, &k, &v, MDB_NOOVERWRITE) != 0) {
            break;
        }
    }
    mdb_txn_commit(txn);
}

/* If the checker accepts it, liblmdb survives it. */
static void check_liblmdb(const char *dir, const uint8_t *bytes, size_t n)
{
    char path[400];
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
    checked++;
    if (cachedb_check_file(path) != 0) {
        return;
    }
    accepted++;
    pid_t pid = fork();
    if (pid == 0) {
        use_liblmdb(dir);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
    uint64_t state = 0x123456789, mutants = argc > 1 ? strtoull(argv[1], NULL, 10) : MUTANTS;
    char *dir = test_directory(NULL), *scratch = test_directory(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL);
    char path[400];
    size_t bytes;
    make_store(dir, &state);
    snprintf(path, sizeof path, "%s/" CACHEDB_DATA, dir);
    uint8_t *good = test_map(path, &bytes);
    uint8_t *area = mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED && mprotect(area + bytes, 4096, PROT_NONE) == 0);
    alarm(100); /* a loop is a failure */
    check_liblmdb(scratch, good, bytes);
    CHECK(accepted == 1);
    for (uint64_t i = 0; i < mutants; i++) {
        memcpy(area, good, bytes);
        size_t kept = mutate(area, bytes, &state);
        memmove(area + bytes - kept, area, kept); /* ends where nothing is mapped */
        read_all(area + bytes - kept, kept, NULL);
        read_all(area + bytes - kept, kept, test_file(area + bytes - kept, kept));
        if (i % LMDB_EVERY == 0) {
            check_liblmdb(scratch, area + bytes - kept, kept);
        }
    }
    damage_records(area + bytes, &state);
    printf("%llu damaged files read, %u checked, %u of them found whole\n", (unsigned long long)mutants, checked, accepted);
    test_remove(dir);
    test_remove(scratch);
    return 0;
}
