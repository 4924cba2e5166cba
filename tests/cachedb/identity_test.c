/* SPDX-License-Identifier: Apache-2.0
 *
 * Identity: whatever changes a file's content after it was hashed changes what stat says of it, or the file got no identity.
 * The edits here do their best to hide: same size, mtime restored, in the same clock tick, through mappings made before.
 */
#include "cachedb/cachedb.h"
#include "include/internal/error.h"
#include "tests/cachedb/test.h"

#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>

#define BYTES 20000

static char path[400];

static void write_file(uint8_t fill)
{
    static uint8_t bytes[BYTES];
    memset(bytes, fill, sizeof bytes);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, sizeof bytes) == BYTES && close(fd) == 0);
}

static bool as_nobody; /* who may not ask for a lease */

struct answer {
    int rc;
    struct file_id id;
    uint8_t content[32];
};

static void ask_as_nobody(int fd, struct answer *a)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(setuid(65534) == 0);
        a->rc = identity_hash(fd, &a->id, a->content);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static int hash(struct file_id *id, uint8_t content[32])
{
    static struct answer *a;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    if (!a) {
        a = mmap(NULL, sizeof *a, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(a != MAP_FAILED);
    }
    if (as_nobody) {
        ask_as_nobody(fd, a);
    } else {
        a->rc = identity_hash(fd, &a->id, a->content);
    }
    close(fd);
    *id = a->id;
    memcpy(content, a->content, 32);
    return a->rc;
}

/* The identity as a start would see it. */
static struct file_id look(void)
{
    struct file_id id;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && identity_stat(fd, &id) == 0);
    close(fd);
    return id;
}

static void restore_mtime(const struct file_id *id)
{
    const struct timespec times[2] = {{id->mtime_sec, id->mtime_nsec}, {id->mtime_sec, id->mtime_nsec}};
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
}

static void test_content(void)
{
    static const uint8_t empty[32] = {0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d,
                                      0xea, 0x36, 0xdc, 0xc9, 0x49, 0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1,
                                      0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62};
    static uint8_t bytes[BYTES];
    uint8_t content[32], expected[32];
    struct file_id id, seen;
    content_hash("", 0, content);
    CHECK(memcmp(content, empty, 32) == 0);
    write_file(7);
    memset(bytes, 7, sizeof bytes);
    content_hash(bytes, sizeof bytes, expected);
    CHECK(hash(&id, content) == 0 && memcmp(content, expected, 32) == 0);
    seen = look();
    CHECK(memcmp(&id, &seen, sizeof id) == 0 && id.size == BYTES);
}

static void test_not_regular(const char *dir)
{
    struct file_id id;
    uint8_t content[32];
    int fd = open(dir, O_RDONLY | O_CLOEXEC);
    CHECK(identity_hash(fd, &id, content) == -BDBI_EINVAL);
    close(fd);
}

/* Freshly written, hashed at once, edited at once. */
static void test_edit_in_place(void)
{
    for (uint8_t i = 0; i < (as_nobody ? 1 : 30); i++) { /* nobody has to wait longer */
        struct file_id id, seen;
        uint8_t content[32];
        write_file(i);
        CHECK(hash(&id, content) == 0);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        CHECK(fd >= 0 && pwrite(fd, "x", 1, 100) == 1 && close(fd) == 0);
        restore_mtime(&id);
        seen = look();
        CHECK(seen.size == id.size && seen.mtime_sec == id.mtime_sec && seen.mtime_nsec == id.mtime_nsec);
        CHECK(memcmp(&id, &seen, sizeof id) != 0);
    }
}

static uint8_t *map_writable(void)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    uint8_t *map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    close(fd);
    return map;
}

/* Dirtied before hashing, changed after it through the same mapping: no identity meanwhile, or one that the change ends. */
static void test_dirty_mapping(void)
{
    struct file_id id, seen;
    uint8_t content[32];
    write_file(1);
    uint8_t *map = map_writable();
    map[0] = map[5000] = 2;
    int rc = hash(&id, content);
    if (rc == 0) {
        for (unsigned i = 0; i < 3; i++) { /* the first store, and stores after it */
            map[5000 + i] = (uint8_t)(3 + i);
            restore_mtime(&id);
            seen = look();
            CHECK(memcmp(&id, &seen, sizeof id) != 0);
        }
    } else {
        CHECK(rc == -BDBI_EBUSY);
    }
    munmap(map, BYTES);
    if (as_nobody) {
        CHECK(rc == 0);
    }
    CHECK(hash(&id, content) == 0);
}

struct scribbler {
    uint8_t *map;
    volatile bool stop;
};

static void *scribble(void *arg)
{
    struct scribbler *s = arg;
    for (unsigned i = 0; !s->stop; i++) {
        ((volatile uint8_t *)s->map)[i % BYTES] ^= 1;
    }
    return NULL;
}

/* Written to all the time: whatever identity comes out is gone at the next look. */
static void test_scribbler(void)
{
    struct scribbler s = {0};
    struct file_id id, seen;
    uint8_t content[32];
    pthread_t thread;
    write_file(1);
    s.map = map_writable();
    CHECK(pthread_create(&thread, NULL, scribble, &s) == 0);
    usleep(1000);
    if (hash(&id, content) == 0) {
        usleep(50000);
        seen = look();
        CHECK(memcmp(&id, &seen, sizeof id) != 0);
    }
    s.stop = true;
    pthread_join(thread, NULL);
    munmap(s.map, BYTES);
}

static void test_whole_seconds(void)
{
    struct file_id id;
    uint8_t content[32];
    write_file(9);
    const struct timespec past[2] = {{1000000000, 0}, {1000000000, 0}};
    CHECK(utimensat(AT_FDCWD, path, past, 0) == 0);
    CHECK(hash(&id, content) == 0 && id.mtime_sec == 1000000000);
}

static void test_on(const char *parent)
{
    char *dir = test_directory(parent);
    snprintf(path, sizeof path, "%s/file", dir);
    test_content();
    test_not_regular(dir);
    test_edit_in_place();
    test_dirty_mapping();
    test_scribbler();
    test_whole_seconds();
    if (getuid() == 0 && parent && strcmp(parent, ".") == 0) { /* the build directory is on a disk */
        as_nobody = true;
        test_edit_in_place();
        test_dirty_mapping();
        as_nobody = false;
    }
    test_remove(dir);
}

int main(void)
{
    test_on(".");
    test_on(NULL);
    if (access("/dev/shm", W_OK) == 0) {
        test_on("/dev/shm");
    }
    return 0;
}
