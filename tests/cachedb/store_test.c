/* SPDX-License-Identifier: Apache-2.0
 *
 * The store as a user meets it: created and used by several processes at once, in places where it cannot be, on full disks,
 * with a damaged data file. What needs a mount is left out where that is not allowed.
 */
#include "cachedb/cachedb.h"
#include "cachedb/reader.h"
#include "include/internal/error.h"
#include "tests/cachedb/test.h"

#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

static char message[1000];

static struct cachedb *open_store(const char *dir)
{
    struct cachedb *db;
    int rc = cachedb_open(dir, CACHEDB_CREATE, &db, message, sizeof message);
    if (rc) {
        fprintf(stderr, "%s\n", message);
    }
    CHECK(rc == 0);
    return db;
}

/* It fails with RC and one line that names what it is about and what to do. */
static void check_refused(const char *dir, int rc, const char *word)
{
    struct cachedb *db;
    CHECK(cachedb_open(dir, CACHEDB_CREATE, &db, message, sizeof message) == rc);
    CHECK(strstr(message, word) && strstr(message, "--cache") && !strchr(message, '\n') && strstr(message, dir) == message);
}

static char *below(const char *dir, const char *name)
{
    static char paths[4][500];
    static unsigned n;
    char *p = paths[n++ % 4];
    snprintf(p, sizeof paths[0], "%s/%s", dir, name);
    return p;
}

static int count_entries(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    (void)key;
    (void)key_bytes;
    (void)value;
    (void)value_bytes;
    ++*(int *)user;
    return *(int *)user == 1000; /* far more than there are */
}

static void test_use(void)
{
    char *dir = test_directory(NULL), *cache = below(dir, "a/b/c");
    struct cachedb *db, *none;
    struct stat st;
    void *value;
    size_t bytes;
    int count = 0;
    CHECK(cachedb_open(cache, 0, &none, message, sizeof message) == -BDBI_ENOENT);
    db = open_store(cache);
    CHECK(*message == '\0');
    CHECK(stat(cache, &st) == 0 && (st.st_mode & 07777) == 0700 && stat(below(cache, "v1"), &st) == 0);
    CHECK((st.st_mode & 07777) == 0700);
    CHECK(cachedb_get(db, "ka", 2, &value, &bytes) == -BDBI_ENOENT);
    CHECK(cachedb_put(db, "ka", 2, "one", 3) == 0 && cachedb_put(db, "kb", 2, "two", 3) == 0 &&
          cachedb_put(db, "l", 1, "", 0) == 0);
    CHECK(cachedb_put(db, "ka", 2, "other", 5) == -BDBI_EEXIST);
    CHECK(cachedb_get(db, "ka", 2, &value, &bytes) == 0 && bytes == 3 && memcmp(value, "one", 3) == 0);
    free(value);
    CHECK(cachedb_scan(db, "k", 1, count_entries, &count) == 0 && count == 2);
    CHECK(cachedb_scan(db, "", 0, count_entries, &count) == 0 && count == 5);
    count = 998;
    CHECK(cachedb_scan(db, "k", 1, count_entries, &count) == 1 || count == 1000);
    CHECK(cachedb_put(db, "", 0, "x", 1) == -BDBI_EINVAL);
    cachedb_close(db);
    db = open_store(cache);
    CHECK(*message == '\0' && cachedb_get(db, "kb", 2, &value, &bytes) == 0);
    free(value);
    cachedb_close(db);
    test_remove(dir);
}

/* A value as big as an image starts 16 bytes into a page of the file, and stays there whatever is committed later. */
static void test_big_value_place(void)
{
    char *dir = test_directory(NULL);
    struct cachedb *db = open_store(dir);
    struct cache_reader r;
    static uint8_t value[50000];
    size_t bytes, map_bytes;
    memset(value, 0x5a, sizeof value);
    CHECK(cachedb_put(db, "image", 5, value, sizeof value) == 0);
    uint8_t *map = test_map(below(dir, CACHEDB_DATA), &map_bytes);
    CHECK(cache_reader_init(&r, map, map_bytes, NULL) == 0);
    const uint8_t *place = cache_reader_get(&r, "image", 5, &bytes);
    CHECK(place && bytes == sizeof value && (size_t)(place - map) % 4096 == IMAGE_VALUE_OFFSET);
    for (unsigned i = 0; i < 300; i++) {
        CHECK(cachedb_put(db, &i, sizeof i, value, i % 10 ? 50 : 9000) == 0);
    }
    CHECK(memcmp(place, value, sizeof value) == 0);
    munmap(map, map_bytes);
    cachedb_close(db);
    test_remove(dir);
}

/* ---- several processes ---- */

static void child(const char *dir, unsigned number)
{
    struct cachedb *db = open_store(dir);
    for (unsigned i = 0; i < 40; i++) {
        unsigned key = number * 1000 + i;
        CHECK(cachedb_put(db, &key, sizeof key, &number, sizeof number) == 0);
        int rc = cachedb_put(db, &i, sizeof i, &number, sizeof number);
        CHECK(rc == 0 || rc == -BDBI_EEXIST);
    }
    cachedb_close(db);
}

static void run_children(const char *dir)
{
    enum { CHILDREN = 5 };
    pid_t pids[CHILDREN];
    int status;
    fflush(stdout);
    for (unsigned i = 0; i < CHILDREN; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            child(dir, i + 1);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        CHECK(waitpid(pids[i], &status, 0) == pids[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    struct cachedb *db = open_store(dir);
    for (unsigned i = 0; i < CHILDREN * 40; i++) {
        unsigned key = (i / 40 + 1) * 1000 + i % 40;
        void *value;
        size_t bytes;
        CHECK(cachedb_get(db, &key, sizeof key, &value, &bytes) == 0);
        free(value);
    }
    cachedb_close(db);
    CHECK(cachedb_check_file(below(dir, CACHEDB_DATA)) == 0);
}

static void test_processes(void)
{
    char *dir = test_directory(NULL);
    run_children(dir);
    test_remove(dir);
}

/* A store that is being written, and grows, is never taken for a damaged one. */
static void test_checked_while_it_grows(void)
{
    char *dir = test_directory(NULL);
    static uint8_t value[9000];
    int status = 0;
    unsigned checks = 0;
    cachedb_close(open_store(dir));
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct cachedb *db = open_store(dir);
        for (unsigned i = 0; i < 3000; i++) {
            CHECK(cachedb_put(db, &i, sizeof i, value, i % 3 ? 20 : sizeof value) == 0);
        }
        cachedb_close(db);
        _exit(0);
    }
    for (; waitpid(pid, &status, WNOHANG) == 0; checks++) {
        CHECK(cachedb_check_file(below(dir, CACHEDB_DATA)) == 0);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    printf("checked %u times while it grew\n", checks);
    test_remove(dir);
}

/* ---- damaged ---- */

static void damage(const char *dir, off_t at, size_t bytes)
{
    static const uint8_t junk[4096] = {0xde, 0xad};
    int fd = open(below(dir, CACHEDB_DATA), O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, junk, bytes, at) == (ssize_t)bytes);
    close(fd);
}

static void check_replaced(const char *dir, const char *aside)
{
    struct cachedb *db = open_store(dir);
    CHECK(strstr(message, "damaged") && strstr(message, aside) && !strchr(message, '\n'));
    CHECK(access(below(dir, aside), F_OK) == 0);
    CHECK(cachedb_put(db, "key", 3, "value", 5) == 0);
    cachedb_close(db);
    db = open_store(dir);
    CHECK(*message == '\0');
    cachedb_close(db);
}

static void test_damaged(void)
{
    char *dir = test_directory(NULL);
    struct cachedb *db = open_store(dir);
    CHECK(cachedb_put(db, "key", 3, "value", 5) == 0 && cachedb_put(db, "key2", 4, "value", 5) == 0);
    cachedb_close(db);
    damage(dir, 16, 8); /* a meta page's magic */
    check_replaced(dir, "v1/data.mdb.corrupt-1");
    damage(dir, 2 * 4096, 4096);
    damage(dir, 3 * 4096, 4096);
    check_replaced(dir, "v1/data.mdb.corrupt-2");
    CHECK(truncate(below(dir, CACHEDB_DATA), 2 * 4096) == 0);
    check_replaced(dir, "v1/data.mdb.corrupt-3");
    CHECK(truncate(below(dir, CACHEDB_DATA), 100) == 0);
    check_replaced(dir, "v1/data.mdb.corrupt-4");
    damage(dir, 0, 4096);
    run_children(dir); /* one of them moves it aside, all of them go on */
    CHECK(access(below(dir, "v1/data.mdb.corrupt-5"), F_OK) == 0 && access(below(dir, "v1/data.mdb.corrupt-6"), F_OK) != 0);
    CHECK(truncate(below(dir, CACHEDB_DATA), 0) == 0); /* as if never begun */
    db = open_store(dir);
    CHECK(*message == '\0');
    cachedb_close(db);
    test_remove(dir);
}

/* ---- in the wrong place ---- */

static void test_not_a_directory(void)
{
    char *dir = test_directory(NULL), *file = below(dir, "file");
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
    check_refused(file, -BDBI_EINVAL, "not a directory");
    check_refused(below(file, "deeper"), -BDBI_EINVAL, "not a directory");
    CHECK(symlink("/nowhere/at/all", below(dir, "v1")) == 0);
    struct cachedb *db;
    CHECK(cachedb_open(dir, CACHEDB_CREATE, &db, message, sizeof message) == -BDBI_ENOENT);
    test_remove(dir);
}

/* As an ordinary user, whatever we are. */
static void as_user(void (*test)(const char *), const char *dir)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (getuid() == 0) {
            CHECK(setgid(65534) == 0 && setuid(65534) == 0);
        }
        test(dir);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void unwritable(const char *dir)
{
    check_refused(dir, -BDBI_EACCES, "not writable");
    char *deeper = below(dir, "deeper");
    check_refused(deeper, -BDBI_EACCES, "not writable");
}

static void test_unwritable(void)
{
    char *dir = test_directory(NULL);
    CHECK(chmod(dir, 0555) == 0);
    as_user(unwritable, dir);
    CHECK(chmod(dir, 0700) == 0);
    cachedb_close(open_store(dir));
    CHECK(chmod(dir, 0755) == 0 && chmod(below(dir, "v1"), 0555) == 0);
    as_user(unwritable, dir);
    CHECK(chmod(below(dir, "v1"), 0700) == 0);
    test_remove(dir);
}

static void low_on_addresses(const char *dir)
{
#ifndef __SANITIZE_ADDRESS__
    const struct rlimit limit = {1ull << 30, 1ull << 30};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
#endif
    struct cachedb *db = open_store(dir);
    CHECK(cachedb_put(db, "key", 3, "value", 5) == 0);
    cachedb_close(db);
}

static void test_address_space(void)
{
    char *dir = test_directory(NULL);
    CHECK(chmod(dir, 0777) == 0);
    as_user(low_on_addresses, below(dir, "cache"));
    test_remove(dir);
}

/* ---- mounts ---- */

static bool mount_tmpfs(const char *dir, unsigned kilobytes)
{
    char options[40];
    snprintf(options, sizeof options, "size=%uk", kilobytes);
    return mount("none", dir, "tmpfs", 0, options) == 0;
}

/* A disk that fills up: before, while, or after the store is made. Never a signal, never a store that is not whole. */
static void test_full_disk(const char *dir)
{
    static uint8_t value[30000];
    unsigned refused = 0, filled = 0;
    for (unsigned kilobytes = 4; kilobytes < 200; kilobytes += 4) {
        struct cachedb *db;
        CHECK(mount_tmpfs(dir, kilobytes));
        int rc = cachedb_open(dir, CACHEDB_CREATE, &db, message, sizeof message);
        if (rc) {
            CHECK(rc == -BDBI_ENOSPC && strstr(message, "no space left") && !strchr(message, '\n'));
            refused++;
        }
        for (unsigned i = 0; i < 12 && !rc; i++) {
            rc = cachedb_put(db, &i, sizeof i, value, i % 2 ? sizeof value : 10);
            CHECK(rc == 0 || rc == -BDBI_ENOSPC);
            filled += rc != 0;
            if (rc) {
                cachedb_close(db);
                CHECK(cachedb_check_file(below(dir, CACHEDB_DATA)) == 0);
                db = open_store(dir);
                CHECK(*message == '\0');
                for (unsigned j = 0; j < i; j++) {
                    void *stored;
                    size_t bytes;
                    CHECK(cachedb_get(db, &j, sizeof j, &stored, &bytes) == 0);
                    free(stored);
                }
                cachedb_close(db);
            } else if (i == 11) {
                cachedb_close(db);
            }
        }
        CHECK(umount(dir) == 0);
    }
    printf("full disk: refused to open %u times, filled up %u times\n", refused, filled);
    CHECK(refused > 0 && filled > 0);
}

static void test_read_only(const char *dir)
{
    CHECK(mount_tmpfs(dir, 1000));
    cachedb_close(open_store(dir));
    CHECK(mount("none", dir, "tmpfs", MS_REMOUNT | MS_RDONLY, "size=1000k") == 0);
    check_refused(dir, -BDBI_EACCES, "read-only");
    CHECK(umount(dir) == 0);
}

static void test_mounts(void)
{
    char *dir = test_directory(NULL);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        printf("no mounts here: full disk and read-only disk not tested\n");
    } else {
        test_full_disk(dir);
        test_read_only(dir);
    }
    test_remove(dir);
}

int main(void)
{
    test_use();
    test_big_value_place();
    test_processes();
    test_checked_while_it_grows();
    test_damaged();
    test_not_a_directory();
    test_unwritable();
    test_address_space();
    test_mounts();
    return 0;
}
