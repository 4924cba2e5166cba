/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program maps at its start. A link map is built as ld.so does it, without executing anything:
 *
 *     maps: program, interpreter, LD_PRELOAD and /etc/ld.so.preload, then DT_NEEDED breadth-first
 *
 * An object is loaded once: it is found again by a name it was asked for before, by its soname, or by being the same file. The
 * closure is the realpath of each object, in that order, without repeats. A script adds its interpreter's link map; for
 * "#!/usr/bin/env X" env's and then X's.
 */
#include "analyzer/search.h"
#include "internal/error.h"
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_SCRIPT_DEPTH = 5 /* as the kernel */ };

struct message {
    char *text;
    size_t bytes;
};

static int fail(const struct message *message, int error, const char *path, const char *what)
{
    if (message->bytes)
        snprintf(message->text, message->bytes, "%s: %s", path, what);
    return -error;
}

/* Appends STRING (taken over, may be NULL) to a list. */
static int append(char ***list, uint32_t *n, char *string)
{
    char **grown = string ? realloc(*list, (*n + 1) * sizeof **list) : NULL;
    if (!grown) {
        free(string);
        return -BDBI_ENOMEM;
    }
    *list = grown;
    grown[(*n)++] = string;
    return 0;
}

static int append_distinct(char ***list, uint32_t *n, char *string)
{
    for (uint32_t i = 0; string && i < *n; i++)
        if (strcmp((*list)[i], string) == 0) {
            free(string);
            return 0;
        }
    return append(list, n, string);
}

static void link_map_free(struct link_map *l)
{
    for (uint32_t i = 0; i < l->nmaps; i++) {
        struct loaded *o = &l->maps[i];
        for (uint32_t k = 0; k < o->nnames; k++)
            free(o->names[k]);
        free(o->names);
        free(o->found);
        elf_module_close(o->m);
    }
    free(l->maps);
    ldcache_close(&l->cache);
    memset(l, 0, sizeof *l);
}

static bool has_name(const struct loaded *o, const char *name)
{
    for (uint32_t i = 0; i < o->nnames; i++)
        if (strcmp(o->names[i], name) == 0)
            return true;
    return o->m->soname && strcmp(o->m->soname, name) == 0;
}

/* Loads the file at PATH for LOADER, under NAME. Error messages of the ELF reader go to MESSAGE. */
static int load(struct link_map *l, uint32_t loader, const char *path, const char *name, const struct message *message)
{
    struct stat st;
    struct loaded o = {.loader = loader};
    int error = elf_module_open(path, &o.m, message->text, message->bytes);
    if (error)
        return error;
    if (stat(path, &st) == 0) {
        o.dev = st.st_dev;
        o.ino = st.st_ino;
    }
    for (uint32_t i = 0; i < l->nmaps; i++)
        if (l->maps[i].dev == o.dev && l->maps[i].ino == o.ino) {
            elf_module_close(o.m);
            return append(&l->maps[i].names, &l->maps[i].nnames, strdup(name));
        }
    struct loaded *grown = realloc(l->maps, (l->nmaps + 1) * sizeof *grown);
    if (grown)
        l->maps = grown;
    o.found = strdup(path);
    if (!grown || !o.found || append(&o.names, &o.nnames, strdup(name)) != 0) {
        free(o.found);
        elf_module_close(o.m);
        return -BDBI_ENOMEM;
    }
    l->maps[l->nmaps++] = o;
    return 0;
}

/* Loads library NAME as DT_NEEDED of maps[LOADER]; what cannot be found or read is noted as missing. */
static int need(struct link_map *l, uint32_t loader, const char *name, struct closure *out)
{
    const struct message nowhere = {NULL, 0};
    for (uint32_t i = 0; i < l->nmaps; i++)
        if (has_name(&l->maps[i], name))
            return 0;
    char *path = search_library(l, loader, name);
    int error = path ? load(l, loader, path, name, &nowhere) : -BDBI_ENOENT;
    free(path);
    if (error == 0 || error == -BDBI_ENOMEM)
        return error;
    return append_distinct(&out->missing, &out->nmissing, strdup(name));
}

/* DT_NEEDED of every object from maps[FIRST] on, breadth-first. */
static int need_all(struct link_map *l, uint32_t first, struct closure *out)
{
    int error = 0;
    for (uint32_t i = first; i < l->nmaps && !error; i++)
        for (uint32_t k = 0; k < l->maps[i].m->nneeded && !error; k++)
            error = need(l, i, l->maps[i].m->needed[k], out);
    return error;
}

static int preload_list(struct link_map *l, const char *list, const char *separators, struct closure *out)
{
    int error = 0;
    while (list && *list && !error) {
        size_t n = strcspn(list, separators);
        char *name = search_expand(&l->maps[0], list, n);
        if (name && *name)
            error = need(l, 0, name, out);
        free(name);
        list += n + (list[n] != 0);
    }
    return error;
}

static int preload(struct link_map *l, struct closure *out)
{
    char line[4096];
    int error = preload_list(l, getenv("LD_PRELOAD"), " :", out);
    FILE *f = error ? NULL : fopen("/etc/ld.so.preload", "re");
    while (f && !error && fgets(line, sizeof line, f)) {
        line[strcspn(line, "#")] = 0;
        error = preload_list(l, line, " :\t\n", out);
    }
    if (f)
        fclose(f);
    return error;
}

static int take_paths(const struct link_map *l, struct closure *out)
{
    int error = 0;
    for (uint32_t i = 0; i < l->nmaps && !error; i++)
        error = append_distinct(&out->paths, &out->npaths, realpath(l->maps[i].found, NULL));
    return error;
}

static int resolve_elf(const char *path, struct closure *out, const struct message *message)
{
    struct link_map l = {0};
    char *real = realpath(path, NULL);
    int error = load(&l, NO_LOADER, real ? real : path, path, message);
    free(real);
    if (!error && l.maps[0].m->interp) {
        char text[PATH_MAX + 64];
        struct message inner = {text, sizeof text};
        error = load(&l, NO_LOADER, l.maps[0].m->interp, l.maps[0].m->interp, &inner);
        if (error && message->bytes)
            snprintf(message->text, message->bytes, "%s: interpreter %s", path, text);
    }
    if (!error) {
        ldcache_open(&l.cache, "/etc/ld.so.cache");
        error = l.maps[0].m->interp ? preload(&l, out) : 0;
    }
    if (!error)
        error = need_all(&l, 0, out);
    if (!error)
        error = take_paths(&l, out);
    link_map_free(&l);
    return error;
}

static int resolve(const char *path, unsigned depth, struct closure *out, const struct message *message)
{
    struct script script;
    int is_script = program_script(path, &script);
    if (is_script == -BDBI_ENOENT)
        return fail(message, BDBI_ENOENT, path, "the program that its #! line gives to env is not in PATH");
    if (is_script < 0)
        return fail(message, -is_script, path,
                    is_script == -BDBI_ENOMEM ? "out of memory" : "env's program cannot be executed");
    if (!is_script)
        return resolve_elf(path, out, message);
    int error = depth == MAX_SCRIPT_DEPTH ? fail(message, BDBI_EFORMAT, path, "too many levels of #! lines") : 0;
    for (int i = 0; i < 2 && script.programs[i]; i++) {
        if (!error)
            error = resolve(script.programs[i], depth + 1, out, message);
        free(script.programs[i]);
    }
    return error;
}

int closure_resolve(const char *prog, struct closure *out, char *message, size_t message_bytes)
{
    const struct message to = {message, message_bytes};
    memset(out, 0, sizeof *out);
    if (message_bytes)
        message[0] = 0;
    int error = resolve(prog, 0, out, &to);
    if (error == -BDBI_ENOMEM && message_bytes && !message[0])
        fail(&to, BDBI_ENOMEM, prog, "out of memory");
    if (error)
        closure_free(out);
    return error;
}

/* The closure's objects as a link map again, so that additions find what the program already has. */
static int rebuild(const struct closure *c, struct link_map *l)
{
    const struct message nowhere = {NULL, 0};
    int error = 0;
    memset(l, 0, sizeof *l);
    for (uint32_t i = 0; i < c->npaths && !error; i++)
        error = load(l, i ? 0 : NO_LOADER, c->paths[i], c->paths[i], &nowhere);
    if (!error)
        ldcache_open(&l->cache, "/etc/ld.so.cache");
    return error;
}

/* One file and what it needs. A program among the additions brings its interpreter too. */
static int add_file(struct link_map *l, const char *path, struct closure *out, const struct message *message)
{
    uint32_t first = l->nmaps;
    int error = load(l, first ? 0 : NO_LOADER, path, path, message);
    if (!error && first < l->nmaps && l->maps[first].m->interp) {
        error = need_all(l, first, out);
        const char *interp = l->maps[first].m->interp;
        const struct message nowhere = {NULL, 0};
        return error ? error : (load(l, first, interp, interp, &nowhere) == -BDBI_ENOMEM ? -BDBI_ENOMEM : 0);
    }
    return error ? error : need_all(l, first, out);
}

/* nftw has no argument for its callback. */
static __thread struct {
    struct link_map *l;
    struct closure *out;
} walk;

static int walk_entry(const char *path, const struct stat *st, int type, struct FTW *unused)
{
    const struct message nowhere = {NULL, 0};
    (void)unused;
    if (type == FTW_SL) {
        struct stat target;
        if (stat(path, &target) != 0 || !S_ISREG(target.st_mode))
            return 0;
    } else if (type != FTW_F || !S_ISREG(st->st_mode)) {
        return 0;
    }
    return add_file(walk.l, path, walk.out, &nowhere) == -BDBI_ENOMEM ? -BDBI_ENOMEM : 0;
}

static int add_path(struct link_map *l, const char *path, bool named, struct closure *c, const struct message *message)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        walk.l = l;
        walk.out = c;
        int result = nftw(path, walk_entry, 16, FTW_PHYS);
        return result == -1 ? fail(message, BDBI_EIO, path, "cannot be read") : result;
    }
    int error = add_file(l, path, c, message);
    return named || error == -BDBI_ENOMEM ? error : 0;
}

int closure_add(struct closure *c, const char *glob_or_dir, char *message, size_t message_bytes)
{
    const struct message to = {message, message_bytes};
    struct link_map l;
    glob_t matches;
    if (message_bytes)
        message[0] = 0;
    int found = glob(glob_or_dir, 0, NULL, &matches);
    if (found == GLOB_NOMATCH)
        return fail(&to, BDBI_ENOENT, glob_or_dir, "no such file");
    if (found != 0)
        return fail(&to, found == GLOB_NOSPACE ? BDBI_ENOMEM : BDBI_EIO, glob_or_dir, "cannot be searched");
    bool named = matches.gl_pathc == 1 && strcmp(matches.gl_pathv[0], glob_or_dir) == 0;
    int error = rebuild(c, &l);
    for (size_t i = 0; i < matches.gl_pathc && !error; i++)
        error = add_path(&l, matches.gl_pathv[i], named, c, &to);
    if (!error)
        error = take_paths(&l, c);
    if (error && message_bytes && !message[0])
        fail(&to, -error, glob_or_dir, error == -BDBI_ENOMEM ? "out of memory" : "cannot be added");
    else if (!error && message_bytes)
        message[0] = 0;
    link_map_free(&l);
    globfree(&matches);
    return error;
}

void closure_free(struct closure *c)
{
    for (uint32_t i = 0; i < c->npaths; i++)
        free(c->paths[i]);
    for (uint32_t i = 0; i < c->nmissing; i++)
        free(c->missing[i]);
    free(c->paths);
    free(c->missing);
    memset(c, 0, sizeof *c);
}
