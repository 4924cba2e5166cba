/* SPDX-License-Identifier: Apache-2.0
 *
 * /proc/self as the guest must see it: exe is its program, maps has its mappings with the permissions it asked for, and not
 * ours.
 *
 * maps is a copy made when it is opened (a memory file): lines of ours are left out, lines with executable regions are split
 * and given their x (and w) back.
 */
#include "launcher/core.h"

#define TEXT_BYTES (1024 * 1024ull)

/* ---- names under /proc ---- */

/* Copies GUEST_PATH if it is /proc/{self,thread-self,PID of this process}/..., and returns what follows. */
static const char *own_entry(const char *guest_path, char *copy, size_t bytes)
{
    char number[24];
    if (copy_guest(copy, guest_path, 6) || memcmp(copy, "/proc/", 6))
        return NULL;
    long n = guest_strlen(guest_path, bytes);
    if (n < 0 || copy_guest(copy, guest_path, (size_t)n + 1))
        return NULL;
    const char *rest = copy + 6;
    if (!memcmp(rest, "self/", 5))
        return rest + 5;
    if (!memcmp(rest, "thread-self/", 12))
        return rest + 12;
    size_t digits = format(number, sizeof number, "%u/", (uint64_t)sys0(__NR_getpid));
    return memcmp(rest, number, digits) ? NULL : rest + digits;
}

static bool is_entry(const char *guest_path, const char *name)
{
    char copy[64] = "";
    const char *entry = own_entry(guest_path, copy, sizeof copy);
    return entry && !core_strcmp(entry, name);
}

bool procfs_is_exe(const char *guest_path)
{
    return is_entry(guest_path, "exe");
}

int procfs_mem_of(const char *guest_path)
{
    char copy[64] = "";
    const char *entry = own_entry(guest_path, copy, sizeof copy);
    int pid = 0;
    if (entry)
        return core_strcmp(entry, "mem") ? 0 : (int)sys0(__NR_getpid);
    if (memcmp(copy, "/proc/", 6))
        return 0;
    const char *p = copy + 6;
    for (; *p >= '0' && *p <= '9'; p++)
        pid = pid * 10 + *p - '0';
    return core_strcmp(p, "/mem") ? 0 : pid;
}

int procfs_mem_open_at(int fd)
{
    char link[40], name[64];
    format(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = sys4(__NR_readlinkat, AT_FDCWD_, link, name, sizeof name - 1);
    name[n > 0 ? n : 0] = 0;
    return procfs_mem_of(name);
}

bool procfs_is_maps(const char *guest_path)
{
    return is_entry(guest_path, "maps");
}

static bool shows_mappings(const char *entry)
{
    return !core_strcmp(entry, "smaps") || !memcmp(entry, "map_files", 9);
}

void procfs_explain(const char *guest_path)
{
    char copy[64] = "";
    const char *entry = own_entry(guest_path, copy, sizeof copy), *p = copy + 6;
    uint64_t pid = 0;
    if (!entry && !memcmp(copy, "/proc/", 6)) { /* another process */
        for (; *p >= '0' && *p <= '9'; p++)
            pid = pid * 10 + (uint64_t)(*p - '0');
        if (pid && *p++ == '/' && (!core_strcmp(p, "maps") || shows_mappings(p)) && remote_is_guest(pid))
            explain("%s shows bdbi's mappings too", copy);
    }
    if (entry && shows_mappings(entry))
        explain("%s shows bdbi's mappings too", copy);
}

/* ---- maps ---- */

static uint64_t hex(const char **p)
{
    uint64_t value = 0;
    for (;; (*p)++) {
        char c = **p;
        if (c >= '0' && c <= '9')
            value = value * 16 + (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (uint64_t)(c - 'a' + 10);
        else
            return value;
    }
}

struct maps_line {
    uint64_t start, end, offset;
    char perms[5];
    const char *rest; /* from the device on, with the newline */
    size_t rest_bytes;
    bool file;
};

static const char *parse_line(const char *p, const char *end, struct maps_line *line)
{
    line->start = hex(&p);
    p++;
    line->end = hex(&p);
    p++;
    memcpy(line->perms, p, 4);
    line->perms[4] = 0;
    p += 5;
    line->offset = hex(&p);
    line->rest = p;
    while (p < end && *p != '\n')
        p++;
    line->rest_bytes = (size_t)(p - line->rest) + (p < end);
    line->file = line->rest_bytes > 9 && memcmp(line->rest, " 00:00 0 ", 9) != 0;
    return p < end ? p + 1 : end;
}

static size_t put_padded(char *out, uint64_t value)
{
    char digits[24];
    size_t n = format(digits, sizeof digits, "%x", value), used = 0;
    while (n + used < 8)
        out[used++] = '0';
    memcpy(out + used, digits, n);
    return used + n;
}

static size_t put_line(char *out, const struct maps_line *line, uint64_t start, uint64_t end, const struct exec_region *region)
{
    size_t n = put_padded(out, start);
    out[n++] = '-';
    n += put_padded(out + n, end);
    out[n++] = ' ';
    memcpy(out + n, line->perms, 4);
    if (region) {
        out[n + 2] = 'x';
        if (region->writable)
            out[n + 1] = 'w';
    }
    n += 4;
    out[n++] = ' ';
    n += put_padded(out + n, line->file ? line->offset + (start - line->start) : line->offset);
    memcpy(out + n, line->rest, line->rest_bytes);
    return n + line->rest_bytes;
}

/* The part of LINE from START to LIMIT, by what the guest may execute. */
static size_t put_split(char *out, const struct maps_line *line, uint64_t start, uint64_t limit)
{
    size_t n = 0;
    for (uint64_t at = start; at < limit;) {
        const struct exec_region *region = exec_find(at);
        uint64_t end = region ? region->end : exec_next(at);
        if (end > limit)
            end = limit;
        n += put_line(out + n, line, at, end, region);
        at = end;
    }
    return n;
}

/* LINE without what is ours: the kernel makes one line of neighbours. */
static size_t put_guest(char *out, const struct maps_line *line)
{
    struct place ours;
    size_t n = 0;
    uint64_t at = line->start;
    while (at < line->end && place_ours(at, line->end, &ours)) {
        if (ours.start > at)
            n += put_split(out + n, line, at, ours.start);
        at = ours.end;
    }
    return n + (at < line->end ? put_split(out + n, line, at, line->end) : 0);
}

static size_t read_all(const char *path, char *out, size_t bytes)
{
    long fd = sys4(__NR_openat, AT_FDCWD_, path, O_RDONLY_ | O_CLOEXEC_, 0), got = 0;
    size_t n = 0;
    while (fd >= 0 && n < bytes && (got = sys3(__NR_read, fd, out + n, bytes - n)) > 0)
        n += (size_t)got;
    if (fd >= 0)
        sys1(__NR_close, fd);
    return n;
}

/* This process's maps, to be unmapped (TEXT_BYTES). NULL: no memory. */
static char *read_maps(size_t *n)
{
    long in = core_mmap(0, TEXT_BYTES, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_, -1, 0);
    if (sys_failed(in))
        return NULL;
    *n = read_all("/proc/self/maps", (char *)in, TEXT_BYTES);
    return (char *)in;
}

static bool is_vvar(const struct maps_line *line)
{
    size_t at = 0;
    while (at < line->rest_bytes && line->rest[at] != '[')
        at++;
    return line->rest_bytes - at > 5 && !memcmp(line->rest + at, "[vvar", 5);
}

/* The kernel's data mappings directly below the vdso at VDSO, lowest first. Returns how many of MAX. */
uint32_t procfs_below_vdso(uint64_t vdso, uint32_t *sizes, uint32_t max)
{
    size_t bytes;
    char *in = read_maps(&bytes);
    uint32_t n = 0;
    uint64_t end = 0;
    for (const char *p = in; in && p < in + bytes;) {
        struct maps_line line;
        p = parse_line(p, in + bytes, &line);
        if (line.start == vdso)
            break;
        if (!is_vvar(&line) || line.start != end)
            n = 0;
        if (is_vvar(&line) && n < max)
            sizes[n++] = (uint32_t)(line.end - line.start);
        end = line.end;
    }
    if (in)
        sys2(__NR_munmap, in, TEXT_BYTES);
    return end == vdso ? n : 0;
}

/* The path of the file mapped at ADDRESS. Empty: none. */
void procfs_path_at(uint64_t address, char *out, size_t bytes)
{
    size_t n;
    char *in = read_maps(&n);
    out[0] = 0;
    if (!in)
        return;
    for (const char *p = in; p < in + n;) {
        struct maps_line line;
        p = parse_line(p, in + n, &line);
        if (address < line.start || address >= line.end)
            continue;
        size_t at = 0;
        while (at < line.rest_bytes && line.rest[at] != '/')
            at++;
        size_t length = line.rest_bytes - at;
        if (length > 1 && length < bytes) {
            memcpy(out, line.rest + at, length - 1);
            out[length - 1] = 0;
        }
    }
    sys2(__NR_munmap, in, TEXT_BYTES);
}

/* A descriptor to read the guest's maps from, or -errno. */
long procfs_open_maps(int flags)
{
    long fd = sys2(319 /* memfd_create */, "maps", flags & O_CLOEXEC_ ? 1 : 0);
    if (fd < 0)
        return fd;
    char *in =
        (char *)core_mmap(0, 4 * TEXT_BYTES, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_, -1, 0);
    if (sys_failed((long)in))
        return -E_NOMEM;
    own_add((uint64_t)in, 4 * TEXT_BYTES);
    char *out = in + TEXT_BYTES;
    lock_take(&core_lock);
    size_t bytes = read_all("/proc/self/maps", in, TEXT_BYTES), used = 0;
    for (const char *p = in; p < in + bytes && used < 3 * TEXT_BYTES - 65536;) {
        struct maps_line line;
        p = parse_line(p, in + bytes, &line);
        used += put_guest(out + used, &line);
    }
    lock_drop(&core_lock);
    sys3(__NR_write, fd, out, used);
    sys3(__NR_lseek, fd, 0, 0);
    unmap_own(in, 4 * TEXT_BYTES);
    return fd;
}
