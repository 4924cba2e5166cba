/* SPDX-License-Identifier: Apache-2.0
 *
 * Where ld.so looks for a library, in its order:
 *
 *     name with '/'   that path, after expansion
 *     DT_RPATH        of the object, of its loader, its loader's loader, ... and of the program;
 *                     nothing of it when the object has a DT_RUNPATH (an object's own RUNPATH also switches off its RPATH)
 *     LD_LIBRARY_PATH
 *     DT_RUNPATH      of the object only
 *     ld.so.cache     unless the object says DF_1_NODEFLIB
 *     default directories, likewise
 *
 * In each directory the glibc-hwcaps subdirectories of this CPU come first. A file of another machine or class is passed over.
 * (The subdirectories "tls", "haswell", ... that ld.so searched before glibc 2.37 are not: nothing installs there any more.)
 */
#include "analyzer/search.h"
#include "analyzer/elf_view.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Debian's multiarch directories, then other distributions'. */
static const char *const default_directories[] = {
    "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib",
};

static bool is_library(const char *path)
{
    Elf64_Ehdr header;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return false;
    bool ok = read(fd, &header, sizeof header) == sizeof header && memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
              header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_machine == EM_X86_64 && header.e_type == ET_DYN;
    close(fd);
    return ok;
}

/* "DIR/SUB/NAME" when it is a library. */
static char *try_file(const char *directory, const char *middle, const char *hwcap, const char *name)
{
    char *path;
    if (asprintf(&path, "%s%s%s/%s", directory, middle, hwcap, name) < 0)
        return NULL;
    if (is_library(path))
        return path;
    free(path);
    return NULL;
}

static char *search_directory(const char *directory, const char *name)
{
    for (const char *const *hwcap = hwcaps_supported(); *hwcap; hwcap++) {
        char *path = try_file(directory, "/glibc-hwcaps/", *hwcap, name);
        if (path)
            return path;
    }
    return try_file(directory, "", "", name);
}

static const char *lib_directory(void)
{
    return access("/lib/x86_64-linux-gnu", F_OK) == 0 ? "lib/x86_64-linux-gnu" : "lib64";
}

/* The length of "$NAME" or "${NAME}" at TEXT, or 0. */
static size_t token_bytes(const char *text, size_t left, const char *name)
{
    size_t n = strlen(name);
    if (left > n && strncmp(text + 1, name, n) == 0)
        return n + 1;
    if (left > n + 2 && text[1] == '{' && strncmp(text + 2, name, n) == 0 && text[n + 2] == '}')
        return n + 3;
    return 0;
}

static void put_origin(FILE *out, const struct loaded *o)
{
    const char *slash = strrchr(o->found, '/');
    if (slash == o->found)
        fputc('/', out);
    else if (slash)
        fwrite(o->found, 1, (size_t)(slash - o->found), out);
    else
        fputc('.', out);
}

static size_t expand_token(FILE *out, const struct loaded *o, const char *text, size_t left)
{
    size_t n;
    if (*text != '$')
        return 0;
    if ((n = token_bytes(text, left, "ORIGIN")))
        put_origin(out, o);
    else if ((n = token_bytes(text, left, "LIB")))
        fputs(lib_directory(), out);
    else if ((n = token_bytes(text, left, "PLATFORM")))
        fputs("x86_64", out);
    return n;
}

char *search_expand(const struct loaded *o, const char *text, size_t nbytes)
{
    char *result = NULL;
    size_t result_bytes;
    FILE *out = open_memstream(&result, &result_bytes);
    if (!out)
        return NULL;
    for (size_t i = 0; i < nbytes;) {
        size_t n = expand_token(out, o, text + i, nbytes - i);
        if (!n)
            fputc(text[i], out);
        i += n ? n : 1;
    }
    return fclose(out) == 0 ? result : (free(result), NULL);
}

/* A list of directories as in DT_RPATH or LD_LIBRARY_PATH; an empty element is the current directory. */
static char *search_list(const struct loaded *o, const char *list, const char *separators, const char *name)
{
    char *found = NULL;
    while (list && *list && !found) {
        size_t n = strcspn(list, separators);
        char *directory = search_expand(o, list, n);
        size_t bytes = directory ? strlen(directory) : 0;
        while (bytes > 1 && directory[bytes - 1] == '/')
            directory[--bytes] = 0;
        if (directory)
            found = search_directory(bytes ? directory : ".", name);
        free(directory);
        list += n;
        if (*list && !*++list && !found)
            found = search_directory(".", name);
    }
    return found;
}

static const char *rpath_of(const struct loaded *o)
{
    return o->m->runpath ? NULL : o->m->rpath;
}

static char *search_rpaths(const struct link_map *l, uint32_t loader, const char *name)
{
    char *found = NULL;
    bool did_main = false;
    if (l->maps[loader].m->runpath)
        return NULL;
    for (uint32_t i = loader; i != NO_LOADER && !found; i = l->maps[i].loader) {
        found = search_list(&l->maps[i], rpath_of(&l->maps[i]), ":", name);
        did_main |= i == 0;
    }
    return found || did_main ? found : search_list(&l->maps[0], rpath_of(&l->maps[0]), ":", name);
}

static char *search_cache(const struct link_map *l, const char *name)
{
    const char *path = ldcache_find(&l->cache, name);
    return path && is_library(path) ? strdup(path) : NULL;
}

char *search_library(const struct link_map *l, uint32_t loader, const char *name)
{
    const struct loaded *o = &l->maps[loader];
    uint64_t flags = 0;
    if (strchr(name, '/')) {
        char *path = search_expand(o, name, strlen(name));
        return path && is_library(path) ? path : (free(path), NULL);
    }
    char *found = search_rpaths(l, loader, name);
    if (!found)
        found = search_list(&l->maps[0], getenv("LD_LIBRARY_PATH"), ":;", name);
    if (!found)
        found = search_list(o, o->m->runpath, ":", name);
    if (found || (elf_dynamic_value(o->m, DT_FLAGS_1, &flags) && (flags & DF_1_NODEFLIB)))
        return found;
    found = search_cache(l, name);
    for (size_t i = 0; i < sizeof default_directories / sizeof default_directories[0] && !found; i++)
        found = search_directory(default_directories[i], name);
    return found;
}
