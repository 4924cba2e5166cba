/* SPDX-License-Identifier: Apache-2.0
 *
 * The ELF loader: what fs/binfmt_elf.c does, in user space, with the program's text mapped readable only.
 *
 * Adjacent read-only segments whose file pages are adjacent too become one mapping: text is not executable here anyway, and a
 * mapping costs a system call. What exec would refuse is refused with one line and the shell's exit status (127 not found,
 * 126 not executable).
 */
#include "launcher/loader.h"

#define MODE_TYPE 0170000
#define MODE_DIR 0040000
#define MODE_REG 0100000
#define ADDRESS_LIMIT (1ull << 46) /* what is above is the kernel's and ours to place */

bool guest_exec_stack;

static void id_of(const struct kernel_stat *st, struct file_id *id)
{
    *id = (struct file_id){st->st_dev,        st->st_ino,       (uint64_t)st->st_size, st->st_mtime_sec,
                           st->st_mtime_nsec, st->st_ctime_sec, st->st_ctime_nsec};
}

static int judge(struct exec_target *t, const char **why)
{
    const Elf64_Ehdr *e = (const void *)t->head;
    t->kind = EXEC_GUEST;
    t->is_32bit = false;
    if (t->head_bytes >= 2 && t->head[0] == '#' && t->head[1] == '!') {
        t->kind = EXEC_SCRIPT;
        return 0;
    }
    *why = "not an ELF file and not a script with a #! line";
    if (t->head_bytes < 4 || memcmp(t->head, ELFMAG, SELFMAG))
        return -E_NOEXEC;
    *why = "truncated ELF file";
    if (t->head_bytes < sizeof *e)
        return -E_NOEXEC;
    if (e->e_ident[EI_CLASS] == ELFCLASS32) {
        *why = "a 32-bit program: bdbi runs x86-64 only";
        t->kind = EXEC_NATIVE;
        t->is_32bit = true;
        return e->e_machine == EM_386 ? 0 : -E_NOEXEC;
    }
    *why = "an ELF file for another architecture: bdbi runs x86-64 only";
    if (e->e_machine != EM_X86_64 || e->e_ident[EI_DATA] != ELFDATA2LSB)
        return -E_NOEXEC;
    *why = "not an executable ELF file";
    if (e->e_type != ET_EXEC && e->e_type != ET_DYN)
        return -E_NOEXEC;
    *why = "truncated ELF file";
    if (e->e_phentsize != sizeof(Elf64_Phdr) || e->e_phnum == 0 || e->e_phoff + e->e_phnum * sizeof(Elf64_Phdr) > t->head_bytes)
        return -E_NOEXEC;
    const Elf64_Phdr *ph = (const void *)(t->head + e->e_phoff);
    for (unsigned i = 0; i < e->e_phnum; i++)
        if (ph[i].p_type == PT_LOAD && (ph[i].p_filesz > t->id.size || ph[i].p_offset > t->id.size - ph[i].p_filesz))
            return -E_NOEXEC;
    if ((t->mode & 04000 || (t->mode & 02010) == 02010) && !options.native) {
        *why = "a set-id program";
        t->kind = EXEC_NATIVE;
        return 0;
    }
    if (e->e_type == ET_EXEC && e->e_entry >= BDBI_IMAGE_BASE && e->e_entry < BDBI_IMAGE_END) {
        *why = "bdbi itself";
        t->kind = EXEC_NATIVE;
        return 0;
    }
    *why = NULL;
    return 0;
}

/* ---- descriptors of the start ---- */

static int late[4];
static uint32_t nlate;

void close_now(void)
{
    cache_closing(); /* it is among them */
    int low = INT32_MAX, high = -1;
    for (uint32_t i = 0; i < nlate; i++) {
        low = late[i] < low ? late[i] : low;
        high = late[i] > high ? late[i] : high;
    }
    bool all = nlate > 1 && high - low + 1 == (int)nlate && sys3(436 /* close_range */, low, high, 0) == 0;
    for (uint32_t i = 0; i < nlate && !all; i++)
        sys1(__NR_close, late[i]);
    nlate = 0;
}

void close_later(int fd)
{
    if (nlate == sizeof late / sizeof *late)
        close_now();
    late[nlate++] = fd;
}

/* ---- opening ---- */

static void ask_cache(struct exec_target *t)
{
    if (t->program && !options.native)
        hot_open(&t->id);
    t->known = cache_find(&t->id, t->content, &t->images);
}

int exec_target_try(struct exec_target *t, const char *path, uint64_t euid, const char **why)
{
    struct kernel_stat st;
    *why = NULL;
    long fd = open_own(path, O_RDONLY_ | O_CLOEXEC_, 0);
    if (fd == -E_MFILE && nlate) {
        close_now();
        fd = open_own(path, O_RDONLY_ | O_CLOEXEC_, 0);
    }
    if (fd < 0) {
        if (fd == -E_ACCES)
            *why = "permission denied (bdbi must be able to read what it runs)";
        return (int)fd;
    }
    t->fd = (int)fd;
    long result = stat_mount(t->fd, &st, &t->mount);
    if (result < 0)
        goto fail;
    result = -E_ACCES;
    *why = "is a directory";
    if ((st.st_mode & MODE_TYPE) == MODE_DIR)
        goto fail;
    *why = "not a regular file";
    if ((st.st_mode & MODE_TYPE) != MODE_REG)
        goto fail;
    *why = "permission denied (no execute permission)";
    if (!(st.st_mode & 0111) ||
        (euid != 0 && sys4(439 /* faccessat2 */, AT_FDCWD_, path, 1, 0x200 /* AT_EACCESS */) == -E_ACCES))
        goto fail;
    id_of(&st, &t->id);
    t->mode = st.st_mode;
    t->uid = st.st_uid;
    t->gid = st.st_gid;
    if (t->start)
        ask_cache(t);
    result = sys4(__NR_pread64, t->fd, t->head, EXEC_HEAD_BYTES, 0);
    if (result < 0)
        goto fail;
    t->head_bytes = (size_t)result;
    result = judge(t, why);
    if (result == 0) {
        t->why = *why;
        return 0;
    }
fail:
    sys1(__NR_close, fd);
    return (int)result;
}

void exec_target_open(struct exec_target *t, const char *path, uint64_t euid, bool is_program)
{
    const char *why;
    t->head = start_scratch(START_SCRATCH_HEAD); /* one file after the other */
    t->start = true;
    t->program = is_program;
    t->known = false;
    t->images.n = 0;
    int result = exec_target_try(t, path, euid, &why);
    if (result == 0 && t->kind == EXEC_NATIVE && !options.child)
        if (t->is_32bit)
            die(126, "%s: %s", path, t->why);
    /* Nobody wrote to what the cache knows when it was recorded; a guest's execve has asked. */
    if (result == 0 && t->kind == EXEC_GUEST && !t->known && !options.child && exec_check(path) == -E_TXTBSY)
        die(126, "%s: " EXEC_BUSY, path);
    if (result == 0)
        return;
    if (result == -E_NOENT || result == -E_NOTDIR)
        die(127, "%s: no such file: check the path", path);
    die(126, "%s: %s", path, why ? why : "cannot be opened");
}

static const char *path_variable(char **envp)
{
    for (; *envp; envp++)
        if (!memcmp(*envp, "PATH=", 5))
            return *envp + 5;
    return "/usr/local/bin:/usr/bin:/bin";
}

char *find_program(char *name, char **envp)
{
    for (char *p = name; *p; p++)
        if (*p == '/')
            return name;
    static char found[4096] CORE_LARGE;
    bool denied = false;
    const char *p = path_variable(envp);
    while (*name) {
        size_t n = 0;
        while (p[n] && p[n] != ':')
            n++;
        if (n + core_strlen(name) + 2 < sizeof found) {
            memcpy(found, p, n);
            format(found + n, sizeof found - n, n ? "/%s" : "./%s", name);
            struct kernel_stat st;
            if (sys2(__NR_stat, found, &st) == 0 && (st.st_mode & MODE_TYPE) == MODE_REG) {
                if (st.st_mode & 0111)
                    return found;
                denied = true;
            }
        }
        if (!p[n])
            break;
        p += n + 1;
    }
    die(denied ? 126 : 127, denied ? "%s: found in PATH, but without execute permission" : "%s: command not found in PATH",
        name);
}

/* ---- mapping ---- */

struct elf_span elf_span(const Elf64_Phdr *ph, unsigned n)
{
    struct elf_span s = {UINT64_MAX, 0, PAGE_BYTES};
    for (unsigned i = 0; i < n; i++) {
        if (ph[i].p_type != PT_LOAD)
            continue;
        if (PAGE_DOWN(ph[i].p_vaddr) < s.low)
            s.low = PAGE_DOWN(ph[i].p_vaddr);
        if (ph[i].p_vaddr + ph[i].p_memsz > s.high)
            s.high = ph[i].p_vaddr + ph[i].p_memsz;
        if (ph[i].p_align > s.align && (ph[i].p_align & (ph[i].p_align - 1)) == 0 && ph[i].p_align <= 0x40000000)
            s.align = ph[i].p_align;
    }
    return s;
}

static int segment_prot(const Elf64_Phdr *ph)
{
    int prot = (ph->p_flags & PF_R ? PROT_READ_ : 0) | (ph->p_flags & PF_W ? PROT_WRITE_ : 0);
    if (ph->p_flags & PF_X)
        prot |= options.native ? PROT_EXEC_ | PROT_READ_ : PROT_READ_;
    return prot;
}

/* Whether B can be mapped by extending A's mapping. */
static bool adjoins(const Elf64_Phdr *a, const Elf64_Phdr *b)
{
    return b->p_type == PT_LOAD && segment_prot(a) == segment_prot(b) && !(segment_prot(a) & PROT_WRITE_) &&
           a->p_memsz == a->p_filesz && PAGE_UP(a->p_vaddr + a->p_filesz) == PAGE_DOWN(b->p_vaddr) &&
           b->p_vaddr - a->p_vaddr == b->p_offset - a->p_offset && b->p_memsz == b->p_filesz;
}

static void map_file(const char *path, int fd, uint64_t at, uint64_t bytes, int prot, uint64_t offset)
{
    long p = core_mmap(at, bytes, prot, MAP_PRIVATE_ | MAP_FIXED_, fd, offset);
    if (sys_failed(p))
        die(126, "%s: cannot be mapped (error %d)", path, (int)-p);
}

static void map_bss(const char *path, const Elf64_Phdr *ph, uint64_t bias)
{
    uint64_t file_end = bias + ph->p_vaddr + ph->p_filesz, end = bias + ph->p_vaddr + ph->p_memsz;
    if (ph->p_memsz <= ph->p_filesz)
        return;
    if (ph->p_filesz && (ph->p_flags & PF_W) && file_end != PAGE_UP(file_end))
        memset((void *)file_end, 0, PAGE_UP(file_end) - file_end); /* to the page's end: ld.so's first malloc relies on it */
    uint64_t from = ph->p_filesz ? PAGE_UP(file_end) : PAGE_DOWN(file_end);
    if (PAGE_UP(end) > from) {
        long p = core_mmap(from, PAGE_UP(end) - from, segment_prot(ph), MAP_PRIVATE_ | MAP_FIXED_ | MAP_ANONYMOUS_, -1, 0);
        if (sys_failed(p))
            die(126, "%s: its data cannot be mapped (error %d)", path, (int)-p);
    }
}

static void map_segments(const struct exec_target *t, const char *path, const Elf64_Phdr *ph, unsigned n, uint64_t bias)
{
    for (unsigned i = 0; i < n; i++) {
        if (ph[i].p_type != PT_LOAD || ph[i].p_memsz == 0)
            continue;
        unsigned last = i;
        while (last + 1 < n && adjoins(&ph[last], &ph[last + 1]))
            last++;
        uint64_t start = PAGE_DOWN(ph[i].p_vaddr), end = PAGE_UP(ph[last].p_vaddr + ph[last].p_filesz);
        if (ph[i].p_filesz)
            map_file(path, t->fd, bias + start, end - start, segment_prot(&ph[i]), PAGE_DOWN(ph[i].p_offset));
        map_bss(path, &ph[last], bias);
        i = last;
    }
}

static void note_layout(const Elf64_Phdr *ph, unsigned n, uint64_t bias, struct loaded_elf *out)
{
    out->start_code = UINT64_MAX;
    for (unsigned i = 0; i < n; i++) {
        if (ph[i].p_type != PT_LOAD)
            continue;
        uint64_t start = bias + ph[i].p_vaddr, end = start + ph[i].p_filesz;
        if (start < out->start_code)
            out->start_code = start;
        if (ph[i].p_flags & PF_X && end > out->end_code)
            out->end_code = end;
        if (start > out->start_data)
            out->start_data = start;
        if (end > out->end_data)
            out->end_data = end;
    }
}

static void read_interp(struct exec_target *t, const Elf64_Phdr *ph, const char *path, struct loaded_elf *out)
{
    if (ph->p_filesz == 0 || ph->p_filesz > sizeof out->interp)
        die(126, "%s: its interpreter's name is too long or empty", path);
    if (ph->p_offset + ph->p_filesz <= t->head_bytes)
        memcpy(out->interp, t->head + ph->p_offset, ph->p_filesz);
    else if (sys4(__NR_pread64, t->fd, out->interp, ph->p_filesz, ph->p_offset) != (long)ph->p_filesz)
        die(126, "%s: truncated ELF file", path);
    out->interp[ph->p_filesz - 1] = 0;
}

void load_elf(struct exec_target *t, const char *path, struct loaded_elf *out, bool is_program)
{
    const Elf64_Ehdr *e = (const void *)t->head;
    const Elf64_Phdr *ph = (const void *)(t->head + e->e_phoff);
    struct elf_span s = elf_span(ph, e->e_phnum);
    memset(out, 0, sizeof *out);
    if (s.low > s.high)
        die(126, "%s: no usable segments", path);
    if (s.high >= ADDRESS_LIMIT)
        die(126, "%s: its addresses are fixed at 0x%x and above, where bdbi does not run programs", path, s.low);
    if (is_program && !options.native)
        ibl_open(hot_pairs());
    out->is_exec = e->e_type == ET_EXEC;
    bool displaced = false;
    out->base = out->is_exec ? s.low : module_place(&t->images, t->content, s.high - s.low, s.align, &displaced);
    if (!out->base && !out->is_exec)
        die(126, "%s: too large: program and libraries may span %u bytes", path, (uint64_t)BDBI_MODULES_BYTES);
    uint64_t bias = out->base - s.low;
    map_segments(t, path, ph, e->e_phnum, bias);
    out->end = bias + s.high;
    out->entry = bias + e->e_entry;
    out->phnum = e->e_phnum;
    out->phdr = out->base + e->e_phoff;
    note_layout(ph, e->e_phnum, bias, out);
    struct module *m = module_add(out->base, PAGE_UP(s.high) - s.low, &t->id, is_program ? guest_exe : path);
    out->module = m;
    if (t->images.code_bytes > m->reserved)
        m->reserved = t->images.code_bytes;
    m->displaced = displaced;
    m->mount = t->mount;
    if (t->known && !options.native) { /* natively only the place is the same */
        memcpy(m->content, t->content, 32);
        m->has_content = true;
        cache_attach(m, &t->images);
    }
    for (unsigned i = 0; i < e->e_phnum; i++) {
        if (ph[i].p_type == PT_LOAD && ph[i].p_flags & PF_X)
            exec_add(bias + PAGE_DOWN(ph[i].p_vaddr), PAGE_UP(bias + ph[i].p_vaddr + ph[i].p_memsz), m, ph[i].p_flags & PF_W);
        if (ph[i].p_type == PT_INTERP && is_program)
            read_interp(t, &ph[i], path, out);
        if (ph[i].p_type == PT_GNU_STACK && is_program)
            guest_exec_stack = ph[i].p_flags & PF_X;
        if (ph[i].p_type == PT_PHDR)
            out->phdr = bias + ph[i].p_vaddr;
    }
    close_later(t->fd);
}
