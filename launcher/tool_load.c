/* SPDX-License-Identifier: Apache-2.0
 *
 * Mapping a tool's shared object, in any process of bdbi's, into the range that bdbi has for itself:
 *
 *   BDBI_TOOL_BASE                                   BDBI_TOOL_VIEW          BDBI_IMAGE_END
 *   | object: text R X from the file, data R W | ...  | the file, while it is read |
 *
 * Code is mapped from the file and is never writable. Being in that range, a tool is not in the guest's maps, its system calls
 * (it makes none of its own) would be bdbi's, and a signal that finds a thread in it finds it in the core.
 */
#include "launcher/core.h"
#include "tools/object.h"
#include "tools/registry.h"

#include <elf.h>

#define MAX_OBJECTS 16
#define O_NONBLOCK_ 04000

struct loaded {
    struct tool_object object;
    const struct bdbi_tool *tool;
    uint8_t *memory;
    uint64_t content;
    bool started;
    char path[TOOL_TEXT_BYTES];
};

static struct loaded *objects[MAX_OBJECTS]; /* the learner may need several */
static unsigned nobjects;
static uint64_t used_bytes; /* of the range */

/* ---- what tools may call ---- */

static const struct {
    const char *name;
    void *address;
} offered[] = {
    {"bdbi_block_instructions", (void *)bdbi_block_instructions},
    {"bdbi_block_ends_in_transfer", (void *)bdbi_block_ends_in_transfer},
    {"bdbi_block_offset", (void *)bdbi_block_offset},
    {"bdbi_block_bytes", (void *)bdbi_block_bytes},
    {"bdbi_block_option", (void *)bdbi_block_option},
    {"bdbi_block_count", (void *)bdbi_block_count},
    {"bdbi_block_mark", (void *)bdbi_block_mark},
    {"bdbi_run_counters", (void *)bdbi_run_counters},
    {"bdbi_run_marks", (void *)bdbi_run_marks},
    {"bdbi_run_modules", (void *)bdbi_run_modules},
    {"bdbi_run_write", (void *)bdbi_run_write},
    {"bdbi_run_option", (void *)bdbi_run_option},
    {"memcpy", (void *)memcpy},
    {"memmove", (void *)memmove},
    {"memset", (void *)memset},
    {"memcmp", (void *)memcmp},
    {"strlen", (void *)core_strlen},
};

static void *resolve(const char *name)
{
    for (unsigned i = 0; i < sizeof offered / sizeof *offered; i++)
        if (!core_strcmp(offered[i].name, name))
            return offered[i].address;
    return NULL;
}

/* ---- mapping ---- */

/* 0 or -errno. */
static long map_segment(const struct object_segment *s, uint64_t base, int fd)
{
    uint64_t start = base + s->address, file_end = start + s->file_bytes, end = PAGE_UP(start + s->memory_bytes);
    uint64_t from = PAGE_UP(file_end);
    int prot = PROT_READ_ | (s->writable ? PROT_WRITE_ : 0) | (s->executable ? PROT_EXEC_ : 0),
        flags = MAP_PRIVATE_ | MAP_FIXED_NOREPLACE_;
    long p = 0;
    if (s->file_bytes)
        p = core_mmap(PAGE_DOWN(start), from - PAGE_DOWN(start), prot, flags, fd, PAGE_DOWN(s->offset));
    else
        from = PAGE_DOWN(start);
    if (!sys_failed(p) && from < end)
        p = core_mmap(from, end - from, prot, flags | MAP_ANONYMOUS_, -1, 0);
    if (sys_failed(p))
        return p;
    if (s->memory_bytes > s->file_bytes && s->file_bytes)
        memset((void *)file_end, 0, PAGE_UP(file_end) - file_end);
    return 0;
}

/* Maps L's segments at BASE and makes a tool of them. False: one line in MESSAGE. */
static bool map_object(struct loaded *l, uint64_t base, int fd, const char *path, char *message, size_t message_bytes)
{
    struct tool_object *o = &l->object;
    for (unsigned i = 0; i < o->nsegments; i++) {
        long error = map_segment(&o->segments[i], base, fd);
        if (error) {
            format(message, message_bytes, "tool %s: cannot be mapped (error %d): is it on a file system without exec?", path,
                   (int)-error);
            return false;
        }
    }
    l->memory = (uint8_t *)base;
    if (object_relocate(o, l->memory, resolve) && (l->tool = object_tool(o, l->memory)))
        return true;
    format(message, message_bytes, "tool %s: %s%s", path, o->why, o->about);
    return false;
}

/* Reads and maps the open file. */
static bool load_file(struct loaded *l, int fd, const char *path, char *message, size_t message_bytes)
{
    struct kernel_stat st;
    if (sys2(__NR_fstat, fd, &st) < 0 || (st.st_mode & 0170000) != 0100000 || st.st_size <= 0) {
        format(message, message_bytes, "tool %s: not a shared object", path);
        return false;
    }
    if (st.st_size > OBJECT_MAX_SPAN || BDBI_TOOL_BASE + used_bytes + OBJECT_MAX_SPAN > BDBI_TOOL_VIEW) {
        format(message, message_bytes, "tool %s: larger than 16 MB, or too many tools", path);
        return false;
    }
    uint64_t bytes = (uint64_t)st.st_size;
    long view = core_mmap(BDBI_TOOL_VIEW, bytes, PROT_READ_, MAP_PRIVATE_ | MAP_FIXED_NOREPLACE_ | MAP_POPULATE_, fd, 0);
    if (sys_failed(view)) {
        format(message, message_bytes, "tool %s: cannot be mapped (error %d)", path, (int)-view);
        return false;
    }
    l->content = object_hash((void *)view, bytes);
    bool good = object_open(&l->object, (void *)view, bytes);
    if (!good)
        format(message, message_bytes, "tool %s: %s%s", path, l->object.why, l->object.about);
    good = good && map_object(l, BDBI_TOOL_BASE + used_bytes, fd, path, message, message_bytes);
    sys2(__NR_munmap, view, bytes);
    if (good)
        used_bytes += PAGE_UP(l->object.span);
    else
        sys2(__NR_munmap, BDBI_TOOL_BASE + used_bytes, OBJECT_MAX_SPAN);
    return good;
}

const struct bdbi_tool *tool_load(const char *path, uint64_t *content, char *message, size_t message_bytes)
{
    if (nobjects == MAX_OBJECTS) {
        format(message, message_bytes, "tool %s: too many tools", path);
        return NULL;
    }
    long fd = sys4(__NR_openat, AT_FDCWD_, path, O_RDONLY_ | O_CLOEXEC_ | O_NONBLOCK_, 0);
    if (fd < 0) {
        format(message, message_bytes,
               fd == -E_NOENT || fd == -E_NOTDIR ? "tool %s: no such file: check the path"
                                                 : "tool %s: cannot be opened (error %d)",
               path, (int)-fd);
        return NULL;
    }
    struct loaded *l = heap_alloc(sizeof *l);
    bool good = load_file(l, (int)fd, path, message, message_bytes);
    sys1(__NR_close, fd);
    if (!good)
        return NULL;
    format(l->path, sizeof l->path, "%s", path);
    objects[nobjects++] = l;
    *content = l->content;
    return l->tool;
}

/* ---- running ---- */

static struct loaded *loaded_of(const struct bdbi_tool *tool)
{
    for (unsigned i = 0; i < nobjects; i++)
        if (objects[i]->tool == tool)
            return objects[i];
    return NULL;
}

void tool_start(const struct bdbi_tool *tool)
{
    static char *const none[] = {NULL};
    struct loaded *l = loaded_of(tool);
    if (!l || l->started)
        return;
    l->started = true;
    for (unsigned n = 0;; n++) {
        void (*function)(int, char *const *, char *const *) = (void *)object_init(&l->object, l->memory, n);
        if (!function)
            break;
        function(0, none, none);
    }
}

size_t tool_describe_crash(char *line, size_t line_bytes, const struct bdbi_tool *tool, const char *where, int sig, uint64_t pc,
                           uint64_t address)
{
    const struct loaded *l = loaded_of(tool);
    bool inside = l && pc - (uint64_t)l->memory < l->object.span;
    return format(line, line_bytes, "tool %s crashed in %s: signal %d at %s0x%x, address 0x%x", l ? l->path : tool->name, where,
                  sig, inside ? "+" : "", inside ? pc - (uint64_t)l->memory : pc, address);
}
