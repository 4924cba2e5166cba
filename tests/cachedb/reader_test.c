/* SPDX-License-Identifier: Apache-2.0
 *
 * The reader, in the mapping and through a file, against liblmdb: on random databases that grew and shrank, and while other
 * processes commit. The writers here
 * overwrite and delete, which the store never does, so that pages are used again as fast as they can be.
 */
#include "cachedb/cachedb.h"
#include "cachedb/reader.h"
#include "include/internal/error.h"
#include "tests/cachedb/file.h"
#include "tests/cachedb/test.h"

#include <lmdb.h>
#include <signal.h>
#include <sys/wait.h>

#define KEYS 4000

struct db {
    MDB_env *env;
    MDB_dbi dbi;
    char path[400];
};

static void db_open(struct db *db, const char *dir)
{
    MDB_txn *txn;
    CHECK(mdb_env_create(&db->env) == 0 && mdb_env_set_mapsize(db->env, 1ull << 32) == 0);
    CHECK(mdb_env_open(db->env, dir, MDB_NOTLS | MDB_NOSYNC, 0600) == 0);
    CHECK(mdb_txn_begin(db->env, NULL, 0, &txn) == 0 && mdb_dbi_open(txn, NULL, 0, &db->dbi) == 0 && mdb_txn_commit(txn) == 0);
    snprintf(db->path, sizeof db->path, "%s/data.mdb", dir);
}

/* Keys of many lengths, some of them prefixes of others. */
static size_t make_key(unsigned n, uint8_t key[300])
{
    size_t bytes = 1 + n % 7 * 5 + (n % 50 == 0 ? 250 : 0);
    memset(key, 'k', bytes);
    size_t digits = (size_t)snprintf((char *)key, 12, "%u", n);
    return digits > bytes ? digits : bytes;
}

static size_t value_size(uint64_t *state)
{
    static const size_t most[] = {1, 20, 100, 1500, 2020, 5000, 100000};
    return test_random(state) % most[test_random(state) % (test_random(state) % 30 == 0 ? 7 : 5)];
}

static void put(struct db *db, MDB_txn *txn, unsigned n, uint64_t *state)
{
    static uint8_t value[100000];
    uint8_t key[300];
    MDB_val k = {make_key(n, key), key}, v = {value_size(state), value};
    memset(value, (int)test_random(state), v.mv_size);
    CHECK(mdb_put(txn, db->dbi, &k, &v, 0) == 0);
}

static void change(struct db *db, unsigned puts, unsigned deletes, uint64_t *state)
{
    MDB_txn *txn;
    uint8_t key[300];
    CHECK(mdb_txn_begin(db->env, NULL, 0, &txn) == 0);
    for (unsigned i = 0; i < puts; i++) {
        put(db, txn, test_random(state) % KEYS, state);
    }
    for (unsigned i = 0; i < deletes; i++) {
        MDB_val k = {make_key(test_random(state) % KEYS, key), key};
        int rc = mdb_del(txn, db->dbi, &k, NULL);
        CHECK(rc == 0 || rc == MDB_NOTFOUND);
    }
    CHECK(mdb_txn_commit(txn) == 0);
}

/* The seek that found K (NULL: nothing) and V, asked for only the value's start, and only for keys that begin like KEY. */
static void compare_head(const struct cache_reader *r, const void *key, size_t key_bytes, const MDB_val *k, const MDB_val *v)
{
    uint8_t found[CACHE_READER_KEY_MAX], head[CACHE_READER_HEAD_MAX];
    size_t bytes, found_bytes, wanted = key_bytes % 2 ? sizeof head : 20;
    for (size_t prefix = 0; prefix <= key_bytes; prefix += key_bytes > 4 ? key_bytes / 4 : 1) {
        bool same = k && k->mv_size >= prefix && memcmp(k->mv_data, key, prefix) == 0;
        memset(head, 0xee, sizeof head);
        const void *value =
            cache_reader_seek_head(r, key, key_bytes, prefix, found, sizeof found, &found_bytes, head, wanted, &bytes);
        CHECK(same == (value != NULL));
        size_t copied = same && bytes < wanted ? bytes : wanted;
        CHECK(!same || (bytes == v->mv_size && memcmp(head, v->mv_data, copied) == 0));
        CHECK(copied == sizeof head || head[copied] == 0xee);
    }
}

static void compare_key(const struct cache_reader *r, MDB_txn *txn, struct db *db, const void *key, size_t key_bytes)
{
    static uint8_t copy[100000];
    MDB_val k = {key_bytes, (void *)key}, v;
    MDB_cursor *cursor;
    uint8_t found[CACHE_READER_KEY_MAX];
    size_t bytes, found_bytes;
    const void *value = cache_reader_get(r, key, key_bytes, &bytes);
    int rc = mdb_get(txn, db->dbi, &k, &v);
    CHECK((rc == 0) == (value != NULL));
    CHECK(cache_reader_fetch(r, key, key_bytes, copy, sizeof copy, &bytes) == (rc ? -BDBI_ENOENT : 0));
    if (rc == 0) {
        CHECK(bytes == v.mv_size && memcmp(value, v.mv_data, bytes) == 0 && memcmp(copy, v.mv_data, bytes) == 0);
        CHECK(cache_reader_copy(r, key, key_bytes, copy, bytes) == 0);
        CHECK(cache_reader_copy(r, key, key_bytes, copy, bytes + 1) == -BDBI_ENOENT);
        CHECK(bytes == 0 || cache_reader_fetch(r, key, key_bytes, copy, bytes - 1, &bytes) == -BDBI_ETOOBIG);
    }
    CHECK(mdb_cursor_open(txn, db->dbi, &cursor) == 0);
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    value = cache_reader_seek(r, key, key_bytes, found, sizeof found, &found_bytes, &bytes);
    CHECK((rc == 0) == (value != NULL));
    if (rc == 0) {
        CHECK(found_bytes == k.mv_size && memcmp(found, k.mv_data, found_bytes) == 0);
        CHECK(bytes == v.mv_size && memcmp(value, v.mv_data, bytes) == 0);
    }
    compare_head(r, key, key_bytes, rc == 0 ? &k : NULL, &v);
    mdb_cursor_close(cursor);
}

static void compare_all(const struct cache_reader *r, struct db *db, uint64_t *state)
{
    MDB_txn *txn;
    uint8_t key[300];
    CHECK(mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn) == 0);
    for (unsigned i = 0; i < KEYS + 500; i += 1 + i % 3) {
        compare_key(r, txn, db, key, make_key(i, key));
    }
    for (unsigned i = 0; i < 500; i++) { /* keys that mostly are not there */
        size_t key_bytes = 1 + test_random(state) % 20;
        for (size_t j = 0; j < key_bytes; j++) {
            key[j] = (uint8_t)(test_random(state) % 3 ? '0' + test_random(state) % 10 : test_random(state));
        }
        compare_key(r, txn, db, key, key_bytes);
    }
    mdb_txn_abort(txn);
}

static void compare(struct db *db, uint64_t *state)
{
    struct cache_reader r;
    size_t bytes;
    void *map = test_map(db->path, &bytes);
    CHECK(cachedb_check_file(db->path) == 0);
    CHECK(cache_reader_init(&r, map, bytes, NULL) == 0);
    CHECK(!cache_reader_begin(&r) && !cache_reader_end(&r)); /* not without a file */
    compare_all(&r, db, state);
    CHECK(cache_reader_init(&r, map, bytes, test_file(map, bytes)) == 0);
    compare_all(&r, db, state);
    CHECK(cache_reader_begin(&r));
    compare_all(&r, db, state);
    CHECK(cache_reader_end(&r) && !cache_reader_end(&r));
    munmap(map, bytes);
}

static void test_empty(void)
{
    char *dir = test_directory(NULL);
    struct db db;
    struct cache_reader r;
    size_t bytes;
    db_open(&db, dir);
    uint8_t *map = test_map(db.path, &bytes);
    CHECK(cache_reader_init(&r, map, bytes, NULL) == 0);
    CHECK(cache_reader_get(&r, "key", 3, &bytes) == NULL);
    CHECK(cache_reader_init(&r, map, 4096, NULL) == -BDBI_EFORMAT);
    CHECK(cache_reader_init(&r, map, 0, NULL) == -BDBI_EFORMAT);
    CHECK(cache_reader_init(&r, NULL, 0, NULL) == -BDBI_EFORMAT);
    CHECK(cache_reader_get(&r, "key", 3, &bytes) == NULL);
    mdb_env_close(db.env);
    test_remove(dir);
}

static void test_random_databases(void)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        uint64_t state = seed * 0x9e3779b97f4a7c15ull;
        char *dir = test_directory(NULL);
        struct db db;
        db_open(&db, dir);
        compare(&db, &state);
        for (unsigned round = 0; round < 12; round++) {
            change(&db, test_random(&state) % (round % 3 ? 60 : 2500), test_random(&state) % (round % 4 ? 50 : 3000), &state);
            if (round % 2) {
                compare(&db, &state);
            }
        }
        compare(&db, &state);
        mdb_env_close(db.env);
        test_remove(dir);
    }
}

/* ---- while somebody commits ---- */

#define HOT_KEYS 300

static uint32_t checksum(const uint8_t *p, size_t bytes)
{
    uint32_t sum = 1;
    for (size_t i = 0; i < bytes; i++) {
        sum = sum * 31 + p[i];
    }
    return sum;
}

/* Value: key number, checksum, then random bytes. A torn value does not add up. */
static void commit_hot(struct db *db, unsigned n, uint64_t *state)
{
    uint32_t value[300];
    size_t words = 2 + test_random(state) % 298;
    MDB_txn *txn;
    MDB_val k = {sizeof n, &n}, v = {words * 4, value};
    value[0] = n;
    for (size_t i = 2; i < words; i++) {
        value[i] = (uint32_t)test_random(state);
    }
    value[1] = checksum((uint8_t *)(value + 2), (words - 2) * 4);
    CHECK(mdb_txn_begin(db->env, NULL, 0, &txn) == 0 && mdb_put(txn, db->dbi, &k, &v, 0) == 0 && mdb_txn_commit(txn) == 0);
}

static pid_t start_writer(const char *dir, uint64_t seed)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct db db;
        db_open(&db, dir);
        for (;;) {
            commit_hot(&db, (unsigned)(test_random(&seed) % HOT_KEYS), &seed);
        }
    }
    return pid;
}

static bool read_hot(const struct cache_reader *r, unsigned n)
{
    uint32_t value[300];
    size_t bytes;
    if (cache_reader_fetch(r, &n, sizeof n, value, sizeof value, &bytes) != 0) {
        return false;
    }
    CHECK(bytes >= 8 && bytes % 4 == 0 && value[0] == n);
    CHECK(value[1] == checksum((uint8_t *)(value + 2), bytes - 8));
    return true;
}

static void test_concurrent(void)
{
    char *dir = test_directory(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL); /* fast commits */
    struct db db;
    struct cache_reader r;
    uint64_t state = 7, reads = 0, found = 0;
    size_t bytes;
    db_open(&db, dir);
    for (unsigned i = 0; i < HOT_KEYS; i++) {
        commit_hot(&db, i, &state);
    }
    mdb_env_close(db.env);
    pid_t writers[2] = {start_writer(dir, 11), start_writer(dir, 13)};
    for (unsigned round = 0; round < 1500; round++) {
        void *map = test_map(db.path, &bytes);
        CHECK(cache_reader_init(&r, map, bytes, NULL) == 0);
        for (unsigned i = 0; i < 500; i++, reads++) {
            found += read_hot(&r, (unsigned)(test_random(&state) % HOT_KEYS));
        }
        munmap(map, bytes);
    }
    int status;
    for (unsigned i = 0; i < 2; i++) {
        CHECK(waitpid(writers[i], &status, WNOHANG) == 0); /* still at it */
        CHECK(kill(writers[i], SIGKILL) == 0 && waitpid(writers[i], &status, 0) == writers[i]);
    }
    printf("%llu of %llu reads answered while two processes committed\n", (unsigned long long)found, (unsigned long long)reads);
    CHECK(found > reads / 4);
    void *map = test_map(db.path, &bytes);
    CHECK(cache_reader_init(&r, map, bytes, NULL) == 0);
    for (unsigned i = 0; i < HOT_KEYS; i++) {
        CHECK(read_hot(&r, i));
    }
    munmap(map, bytes);
    test_remove(dir);
}

static void commit_pair(struct db *db, unsigned n)
{
    MDB_txn *txn;
    MDB_val first = {1, "1"}, second = {1, "2"}, v = {sizeof n, &n};
    CHECK(mdb_txn_begin(db->env, NULL, 0, &txn) == 0 && mdb_put(txn, db->dbi, &first, &v, 0) == 0);
    CHECK(mdb_put(txn, db->dbi, &second, &v, 0) == 0 && mdb_txn_commit(txn) == 0);
}

/* A batch that counts is answered from one transaction, whatever is committed between its questions; it counts until its
 * transaction's meta page is written again. */
static void test_batches(void)
{
    char *dir = test_directory(NULL);
    struct db db;
    struct cache_reader r;
    unsigned n = 1, first, second;
    size_t bytes;
    db_open(&db, dir);
    commit_pair(&db, n);
    for (unsigned commits = 0; commits < 6; commits++) {
        void *map = test_map(db.path, &bytes);
        CHECK(cache_reader_init(&r, map, bytes, test_file(map, bytes)) == 0 && cache_reader_begin(&r));
        CHECK(cache_reader_copy(&r, "1", 1, &first, sizeof first) == 0 && first == n);
        for (unsigned i = 0; i < commits; i++) {
            commit_pair(&db, ++n);
        }
        bool found = cache_reader_copy(&r, "2", 1, &second, sizeof second) == 0;
        bool counts = cache_reader_end(&r);
        CHECK(counts == (commits < 2));
        CHECK(!counts || (found && first == second));
        munmap(map, bytes);
    }
    mdb_env_close(db.env);
    test_remove(dir);
}

/* A question in a batch reads the pages on the way that are not at hand, and of a large value its start. */
static void test_reads(void)
{
    static uint8_t value[50000];
    uint8_t head[CACHE_READER_HEAD_MAX], found[8];
    char *dir = test_directory(NULL);
    struct db db;
    struct cache_reader r;
    MDB_txn *txn;
    size_t bytes, found_bytes;
    db_open(&db, dir);
    CHECK(mdb_txn_begin(db.env, NULL, 0, &txn) == 0);
    for (uint32_t n = 0; n < 5000; n++) {
        MDB_val k = {sizeof n, &n}, v = {n == 7 ? sizeof value : 30, value};
        CHECK(mdb_put(txn, db.dbi, &k, &v, 0) == 0);
    }
    CHECK(mdb_txn_commit(txn) == 0);
    mdb_env_close(db.env);
    void *map = test_map(db.path, &bytes);
    CHECK(cache_reader_init(&r, map, bytes, test_file(map, bytes)) == 0 && cache_reader_begin(&r));
    for (unsigned round = 0; round < 2; round++) {
        uint32_t n = 7;
        uint64_t before = test_file_state.reads;
        CHECK(cache_reader_seek_head(&r, &n, sizeof n, sizeof n, found, sizeof found, &found_bytes, head, sizeof head, &bytes));
        /* Root (once) and leaf, and the value's start; the tree may have a level between. */
        uint64_t reads = test_file_state.reads - before;
        CHECK(round == 0 ? reads <= 4 : reads <= 3);
    }
    CHECK(cache_reader_end(&r));
    test_remove(dir);
}

int main(void)
{
    test_empty();
    test_random_databases();
    test_concurrent();
    test_batches();
    test_reads();
    return 0;
}
