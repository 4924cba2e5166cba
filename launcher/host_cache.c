/* SPDX-License-Identifier: Apache-2.0
 *
 * bdbi cache: what is in the cache, a line for each module and kind of code; whether it is still what was stored.
 */
#include "cachedb/codegen_key.h"
#include "include/internal/error.h"
#include "launcher/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMAND "bdbi cache"

static const char usage[] =
    "usage: bdbi cache [--check] [--cache DIR]\n"
    "Lists what the cache holds: for each module its blocks, code, the epoch and extents that runs use, and the tool.\n"
    "  --check  reads all code and compares it with the digests that were stored with it: a line for each module with\n"
    "           damaged code, and status 125 if there are any. A start reads headers and indexes only.\n";

/* A module's newest epoch for one kind of code. */
struct line {
    char *path, *tool;
    uint8_t content[32];
    struct codegen_key codegen;
    unsigned epoch, images, older; /* older: images of earlier epochs */
    uint64_t blocks, code_bytes;
};

struct list {
    struct line *lines;
    unsigned count;
    uint64_t bytes; /* of all images */
};

static int add_image(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct list *l = user;
    const struct image_key *k = key;
    const struct image_header *h = value;
    if (key_bytes != sizeof *k || image_header_check(value, value_bytes) != 0) {
        return 0;
    }
    struct line *line = l->count > 0 ? &l->lines[l->count - 1] : NULL;
    unsigned epoch = IMAGE_EPOCH_MAX - k->inverse_epoch;
    l->bytes += value_bytes;
    if (!line || memcmp(line->content, k->content, 32) != 0 || memcmp(&line->codegen, &k->codegen, sizeof k->codegen) != 0) {
        line = realloc(l->lines, (l->count + 1) * sizeof *line);
        if (!line) {
            return -BDBI_ENOMEM;
        }
        l->lines = line;
        line = &l->lines[l->count++];
        *line = (struct line){.codegen = k->codegen, .epoch = epoch};
        memcpy(line->content, k->content, sizeof line->content);
    }
    if (epoch != line->epoch) {
        line->older++;
        return 0;
    }
    line->images++;
    line->blocks += h->nblocks;
    line->code_bytes += h->code_bytes;
    return 0;
}

static char *path_of(struct cachedb *db, const uint8_t content[32])
{
    struct path_key key = {.type = CACHEDB_PATH};
    void *value;
    size_t bytes;
    memcpy(key.content, content, sizeof key.content);
    if (cachedb_get(db, &key, sizeof key, &value, &bytes) != 0) {
        return strdup("(path not known)");
    }
    char *path = strndup(value, bytes);
    free(value);
    return path;
}

static char *tool_of(struct cachedb *db, const struct codegen_key *codegen)
{
    char name[TOOL_TEXT_BYTES];
    host_tool_name(db, codegen, name, sizeof name);
    return strdup(name);
}

static int by_path(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    return order ? order : memcmp(&x->codegen, &y->codegen, sizeof x->codegen);
}

static void print_line(const struct line *line)
{
    char code[32];
    printf("%02x%02x%02x%02x  %8llu blocks  %8s code  epoch %u, %u extents  %s  %s\n", line->content[0], line->content[1],
           line->content[2], line->content[3], (unsigned long long)line->blocks, host_size(line->code_bytes, code), line->epoch,
           line->images > 0 ? line->images - 1 : 0, line->tool, line->path);
}

static int print_all(struct cachedb *db)
{
    struct list l = {0};
    const uint8_t prefix = CACHEDB_IMAGE;
    char size[32];
    int rc = cachedb_scan(db, &prefix, 1, add_image, &l);
    for (unsigned i = 0; i < l.count && !rc; i++) {
        l.lines[i].path = path_of(db, l.lines[i].content);
        l.lines[i].tool = tool_of(db, &l.lines[i].codegen);
        rc = l.lines[i].path && l.lines[i].tool ? 0 : -BDBI_ENOMEM;
    }
    if (!rc) {
        qsort(l.lines, l.count, sizeof *l.lines, by_path);
        for (unsigned i = 0; i < l.count; i++) {
            print_line(&l.lines[i]);
        }
        printf("%u modules, %s of images\n", l.count, host_size(l.bytes, size));
    }
    for (unsigned i = 0; i < l.count; i++) {
        free(l.lines[i].path);
        free(l.lines[i].tool);
    }
    free(l.lines);
    return rc;
}

/* ---- --check ---- */

struct checked {
    struct image_key *damaged;
    unsigned images, count, other; /* other: of other versions of bdbi, whose format is not known */
};

static int check_image(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct checked *c = user;
    const struct image_key *k = key;
    struct codegen_key own;
    codegen_key_make(0, &own);
    if (key_bytes != sizeof *k || memcmp(k->codegen.codegen, own.codegen, sizeof own.codegen) != 0) {
        c->other++;
        return 0;
    }
    c->images++;
    if (image_check_digest(value, value_bytes) != 0) {
        struct image_key *more = realloc(c->damaged, (c->count + 1) * sizeof *more);
        if (!more) {
            return -BDBI_ENOMEM;
        }
        c->damaged = more;
        c->damaged[c->count++] = *k;
    }
    return 0;
}

static void print_damaged(struct cachedb *db, const struct image_key *k)
{
    char *path = path_of(db, k->content), *tool = tool_of(db, &k->codegen);
    printf("damaged: %s (epoch %u, extent %u, %s)\n", path ? path : "", IMAGE_EPOCH_MAX - k->inverse_epoch, k->extent,
           tool ? tool : "");
    free(path);
    free(tool);
}

static int check_all(struct cachedb *db, const char *dir)
{
    struct checked c = {0};
    const uint8_t prefix = CACHEDB_IMAGE;
    int rc = cachedb_scan(db, &prefix, 1, check_image, &c);
    for (unsigned i = 0; i < c.count && !rc; i++) {
        print_damaged(db, &c.damaged[i]);
    }
    if (!rc) {
        printf("%u images checked, %u damaged, %u of other versions of bdbi not checked\n", c.images, c.count, c.other);
    }
    if (!rc && c.count > 0) {
        host_say(COMMAND, "%s: damaged code: remove that folder, and have the disk checked", dir);
        rc = -BDBI_EFORMAT;
    }
    free(c.damaged);
    return rc;
}

/* argv[0] is the subcommand. */
int cache_main(int argc, char **argv)
{
    const char *option = NULL, *value;
    bool check = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return HOST_OK;
        }
        if (strcmp(argv[i], "--check") == 0) {
            check = true;
            continue;
        }
        value = host_option_value(COMMAND, argc, argv, &i, "--cache");
        if (!value) {
            host_say(COMMAND, "unknown option '%s': see bdbi cache --help", argv[i]);
            return HOST_FAILED;
        }
        option = value;
    }
    char *dir = host_cache_choose(COMMAND, option);
    struct cachedb *db = dir ? host_cache_open(COMMAND, dir, 0) : NULL;
    int rc = -BDBI_EIO;
    if (db) {
        rc = check ? check_all(db, dir) : print_all(db);
        if (rc && !(check && rc == -BDBI_EFORMAT)) {
            host_say(COMMAND, "%s: %s", dir, bdbi_strerror(rc));
        }
        cachedb_close(db);
    }
    free(dir);
    return rc ? HOST_FAILED : HOST_OK;
}
