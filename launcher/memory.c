/* SPDX-License-Identifier: Apache-2.0
 *
 * The guest's memory calls. Nothing the guest maps becomes executable: the permission is taken out and remembered (module.c),
 * so that only translations run. A library's first mapping is recognised and placed in the window, where its code can be
 * attached.
 */
#include "launcher/loader.h"

#define PROT_GROWSDOWN 0x01000000
#define REMAP_FIXED 2     /* MREMAP_FIXED */
#define REMAP_DONTUNMAP 4 /* MREMAP_DONTUNMAP */
#define MAP_HUGE 0x40000  /* MAP_HUGETLB */
#define ADVICE_DONTNEED 4 /* MADV_DONTNEED */
#define ADVICE_REMOVE 9   /* MADV_REMOVE */
#define ADVICE_DONTFORK 10
#define ADVICE_WIPEONFORK 18
#define ADVICE_DONTNEED_LOCKED 24
#define ADVICE_GUARD_INSTALL 102
#define SEGMENT_READ_ONLY 010000 /* SHM_RDONLY, SHM_REMAP, SHM_EXEC */
#define SEGMENT_REMAP 040000
#define SEGMENT_EXEC 0100000
#define SEGMENT_STATUS 2 /* IPC_STAT */

/* None of these calls waits, so a signal need not be able to abandon them. */
static __attribute__((noinline, noclone)) long pass(struct thread_ctx *ctx)
{
    const uint64_t *g = ctx->gpr;
    register uint64_t r10 __asm__("r10") = g[R10], r8 __asm__("r8") = g[R8], r9 __asm__("r9") = g[R9];
    long result;
    /* The guest's filters (seccomp.c) know its calls by this address. */
    __asm__ volatile("syscall\n\t.globl guest_pass_end\nguest_pass_end:"
                     : "=a"(result)
                     : "a"(g[RAX]), "D"(g[RDI]), "S"(g[RSI]), "d"(g[RDX]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    ctx->trapped = ctx->pending && signal_of_filter(ctx);
    return ctx->trapped ? -E_NOSYS : result; /* the kernel leaves the call's number in rax */
}

static bool overlaps(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_end)
{
    return a < b_end && b < a + a_bytes;
}

/* The guest insists on [start, start + bytes): what can go makes way. False: something that cannot is there. */
static bool take_place(uint64_t start, uint64_t bytes, const char *does)
{
    if (place_stays(start, start + bytes)) {
        warn("the program %s memory to 0x%x, which bdbi needs for itself: refused", does, start);
        return false;
    }
    place_make_way(start, start + bytes);
    return true;
}

/* The same where it would not replace anything: that the place is taken is an answer too. */
static bool take_free_place(uint64_t start, uint64_t bytes)
{
    if (!place_stays(start, start + bytes)) {
        place_make_way(start, start + bytes);
        return true;
    }
    explain("the program asks for memory at 0x%x, where bdbi is: told that it is taken", start);
    return false;
}

/* Whether M's images take something there for constant. */
static bool has_constants(const struct module *m, uint64_t start, uint64_t bytes)
{
    return m->constants_start < m->constants_end &&
           overlaps(start, bytes, m->base + m->constants_start, m->base + m->constants_end);
}

static void detach(struct module *m)
{
    m->images.n = m->constants_start = m->constants_end = 0;
    if (m->npieces)
        module_detach(m);
}

/* The guest can write [start, start + bytes) from now on, or something else is there: what was taken for constant is not. Those
 * modules run by JIT, which reads their tables. */
static void constants_changed(uint64_t start, uint64_t bytes)
{
    links_unseal(start, bytes);
    for (struct module *m = module_from(start); m && m->base < start + bytes; m = m->next)
        if (!m->dropped && has_constants(m, start, bytes))
            detach(m);
}

/* They cannot be read there. In code that may be anywhere the program's own load finds that out before the translated table is
 * used; ld.so does it with what lies behind a library's first segment when there are holes, before it maps the others. */
static void constants_hidden(uint64_t start, uint64_t bytes)
{
    links_unseal(start, bytes);
    for (struct module *m = module_from(start); m && m->base < start + bytes; m = m->next)
        if (!m->dropped && (m->images.linked || m->npieces) && has_constants(m, start, bytes))
            detach(m);
}

/* Forgets modules whose mapping the range takes away, but for KEPT. */
static void forget_others(uint64_t start, uint64_t bytes, const struct module *kept)
{
    exec_remove(start, start + bytes);
    alias_forget(start, start + bytes);
    for (struct module *m = module_from(start), *next; m && m->base < start + bytes; m = next) {
        next = m->next;
        if (m != kept && !m->dropped && start <= m->base)
            module_drop(m);
    }
}

static void forget(uint64_t start, uint64_t bytes)
{
    forget_others(start, bytes, NULL);
}

static bool file_identity(int fd, struct file_id *id, uint64_t *mount)
{
    struct kernel_stat st;
    if (stat_mount(fd, &st, mount) < 0 || (st.st_mode & 0170000) != 0100000)
        return false;
    *id = (struct file_id){st.st_dev,        st.st_ino,       (uint64_t)st.st_size, st.st_mtime_sec,
                           st.st_mtime_nsec, st.st_ctime_sec, st.st_ctime_nsec};
    return true;
}

static bool is_shared_object(const Elf64_Ehdr *e)
{
    return !memcmp(e->e_ident, ELFMAG, SELFMAG) && e->e_ident[EI_CLASS] == ELFCLASS64 && e->e_machine == EM_X86_64 &&
           e->e_type == ET_DYN;
}

static bool has_shared_object(int fd)
{
    Elf64_Ehdr e;
    return sys4(__NR_pread64, fd, &e, sizeof e, 0) == sizeof e && is_shared_object(&e);
}

static const char *descriptor_path(int fd, char *out, size_t bytes)
{
    char link[40];
    format(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = sys4(__NR_readlinkat, AT_FDCWD_, link, out, bytes - 1);
    out[n > 0 ? n : 0] = 0;
    return out;
}

/* The library placed last: by what descriptor, in which system call of the thread, mapped how (-1: not by that call). */
static struct {
    struct module *module;
    int fd, prot;
    uint64_t call;
} placed_last;

/* What may be a library gets its place: BYTES of ROOM at a multiple of ALIGN. Returns it, or 0. IS_ELF: its header has been
 * seen. */
static uint64_t place_module(const struct thread_ctx *ctx, int fd, uint64_t bytes, uint64_t room, uint64_t align, bool is_elf)
{
    struct file_id id;
    uint64_t mount;
    uint8_t content[32];
    char path[1024] = "";
    struct cached_images images;
    if (!file_identity(fd, &id, &mount))
        return 0;
    bool known = cache_find(&id, content, &images);
    if (!known && !is_elf && !has_shared_object(fd))
        return 0;
    bool displaced;
    uint64_t base = module_place(&images, content, room, align, &displaced);
    if (!base)
        return 0;
    if (!known || images.n == 0 || options.stats || options.tool || options.verbose)
        descriptor_path(fd, path, sizeof path);
    struct module *m = module_add(base, PAGE_UP(bytes), &id, path);
    if (images.code_bytes > m->reserved)
        m->reserved = images.code_bytes;
    if (known)
        memcpy(m->content, content, 32);
    m->has_content = known;
    m->mount = mount;
    m->displaced = displaced;
    m->images = images;
    m->constants_start = images.constants_start;
    m->constants_end = images.constants_end;
    placed_last.module = m;
    placed_last.fd = fd;
    placed_last.prot = -1;
    placed_last.call = ctx->stats.enter_syscall;
    return base;
}

/* What the file wants of memory. False: it is no shared object. */
static bool read_span(int fd, struct elf_span *out)
{
    _Alignas(8) char head[PAGE_BYTES];
    const Elf64_Ehdr *e = (const void *)head;
    struct file_id id;
    uint64_t mount;
    if (!file_identity(fd, &id, &mount) || id.size < sizeof *e)
        return false;
    long n = sys4(__NR_pread64, fd, head, sizeof head, 0);
    if (n < (long)sizeof *e || !is_shared_object(e) || e->e_phoff % 8 || e->e_phoff > (uint64_t)n ||
        e->e_phnum * sizeof(Elf64_Phdr) > (uint64_t)n - e->e_phoff)
        return false;
    *out = elf_span((const void *)(head + e->e_phoff), e->e_phnum);
    return out->low < out->high;
}

/* A library whose segments are aligned to more than a page (linked for pages of 2 MB): ld.so reserves ROOM bytes, so many that
 * there is an aligned place in them, maps the file there and gives the rest back. Which file the call does not say: it is the
 * one that the thread has opened last, if that would be reserved as much for. */
static bool reserves_for(const struct thread_ctx *ctx, uint64_t room, struct elf_span *out)
{
    if (!read_span(ctx->last_open, out) || out->align == PAGE_BYTES)
        return false;
    uint64_t bytes = out->high - out->low;
    return room == (bytes < out->align ? 2 * out->align : bytes + out->align);
}

/* Whether FD is still the descriptor that M was placed by: nothing has happened since, and nobody else shares our descriptors.
 */
static bool same_descriptor(const struct thread_ctx *ctx, const struct module *m, int fd)
{
    return placed_last.module == m && placed_last.fd == fd && placed_last.call + 1 == ctx->stats.enter_syscall &&
           threads == ctx && !ctx->next && !descriptors_shared;
}

/* Whether the call maps what is there: ld.so maps a library whole and then its segments over that; those that are only read,
 * and text is here, are the same pages of the same file. Nothing has happened in between, so nobody has changed them. Where
 * nothing is learned the guest may have a filter, which judges all its calls. */
static bool is_there(const struct thread_ctx *ctx, uint64_t prot)
{
    const struct module *m = placed_last.module;
    uint64_t address = ctx->gpr[RDI], bytes = ctx->gpr[RSI], flags = ctx->gpr[R10];
    return m && !m->dropped && !options.no_learn && same_descriptor(ctx, m, (int)ctx->gpr[R8]) && prot == PROT_READ_ &&
           placed_last.prot == PROT_READ_ && (flags & ~(uint64_t)MAP_DENYWRITE_) == (MAP_PRIVATE_ | MAP_FIXED_) &&
           address % PAGE_BYTES == 0 && address >= m->base && address < m->end && bytes && bytes <= m->end - address &&
           ctx->gpr[R9] == address - m->base;
}

static bool is_file_of(const struct thread_ctx *ctx, const struct module *m, int fd)
{
    struct file_id id;
    uint64_t mount;
    return same_descriptor(ctx, m, fd) || (file_identity(fd, &id, &mount) && !memcmp(&id, &m->id, sizeof id));
}

/* Something has been mapped at START. A module's own bytes, at the distance that they have in the file, change no constant.
 * Returns the module if it is the one whose place was reserved, all of it. */
static struct module *mapped_over(const struct thread_ctx *ctx, uint64_t start, uint64_t bytes, int prot, int flags, int fd)
{
    struct module *m = module_find(start);
    bool own = m && !(flags & MAP_ANONYMOUS_) && (flags & MAP_TYPE_) == MAP_PRIVATE_ && !(prot & PROT_WRITE_) &&
               prot & (PROT_READ_ | PROT_EXEC_) && ctx->gpr[R9] == start - m->base && start + bytes <= m->end;
    own = own && ((!m->awaited && !has_constants(m, start, bytes)) || is_file_of(ctx, m, fd));
    if (!own)
        constants_changed(start, bytes);
    return own && m->awaited && start == m->base && bytes == m->end - m->base ? m : NULL;
}

/* The end of the executable segment that the module's own program headers put at START, at the call's file offset; 0: none. */
static uint64_t segment_end(const struct thread_ctx *ctx, const struct module *m, int fd, uint64_t start)
{
    uint64_t offset = ctx->gpr[R9];
    Elf64_Ehdr e;
    Elf64_Phdr ph;
    if (!is_file_of(ctx, m, fd))
        return 0;
    if (copy_guest(&e, (void *)m->base, sizeof e))
        return 0;
    for (uint64_t at = e.e_phoff; at < e.e_phoff + e.e_phnum * sizeof ph; at += sizeof ph) {
        if (at > PAGE_BYTES - sizeof ph || copy_guest(&ph, (void *)(m->base + at), sizeof ph))
            return 0;
        if (ph.p_type == PT_LOAD && ph.p_flags & PF_X && m->base + PAGE_DOWN(ph.p_vaddr) == start &&
            PAGE_DOWN(ph.p_offset) == offset)
            return PAGE_UP(m->base + ph.p_vaddr + ph.p_memsz);
    }
    return 0;
}

/* [start, end) became executable: an instruction that ended where nothing was may go on in it now. */
static void add_executable(uint64_t start, uint64_t end, struct module *m, bool writable)
{
    if (exec_find(start - 1))
        jit_drop(start - 15, start);
    exec_add(start, end, m, writable);
}

/* Code of a file that is no module: whether somebody writes the file nobody tells. */
static void explain_private_code(const struct thread_ctx *ctx, int fd)
{
    static bool said;
    char path[512];
    if (said || !options.verbose || (ctx->gpr[R10] & MAP_TYPE_) != MAP_PRIVATE_)
        return;
    said = true;
    explain("code of %s is mapped: if others write that file, what was translated before may run",
            descriptor_path(fd, path, sizeof path));
}

static void became_executable(struct thread_ctx *ctx, uint64_t start, uint64_t bytes, int prot, int fd)
{
    struct module *m = module_find(start);
    uint64_t end = start + PAGE_UP(bytes);
    uint64_t text_end = fd >= 0 && m && !m->awaited && !(prot & PROT_WRITE_) ? segment_end(ctx, m, fd, start) : 0;
    if (!text_end)
        m = NULL;
    if (fd >= 0 && !text_end)
        explain_private_code(ctx, fd);
    if (!text_end || text_end > end)
        text_end = end;
    add_executable(start, text_end, m, prot & PROT_WRITE_);
    if (text_end < end) /* the first segment's mapping reserves the place of the others */
        add_executable(text_end, end, NULL, false);
    if (m && m->has_content && m->npieces == 0)
        cache_attach(m, &m->images);
}

/* A private mapping of a file's start has been made. If it is a library after all, it moves to the window. Returns where it is.
 */
static uint64_t place_mapped(const struct thread_ctx *ctx, uint64_t start, uint64_t bytes, int fd)
{
    Elf64_Ehdr e;
    if (copy_guest(&e, (void *)start, sizeof e) || !is_shared_object(&e))
        return start;
    uint64_t place = place_module(ctx, fd, bytes, bytes, PAGE_BYTES, true), pages = PAGE_UP(bytes);
    if (!place)
        return start;
    long p = core_mmap(place, pages, 0, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_FIXED_NOREPLACE_ | MAP_NORESERVE_, -1, 0);
    if (!sys_failed(p)) {
        p = sys5(__NR_mremap, start, pages, pages, 3 /* MAYMOVE | FIXED */, place);
        if (!sys_failed(p))
            return place;
        sys2(__NR_munmap, place, pages);
    }
    module_void(module_find(place));
    return start;
}

/* The kernel maps whole ones; their size is in the flags, 0: 2 MB. */
static uint64_t whole_huge_pages(uint64_t bytes, int flags)
{
    unsigned shift = (unsigned)flags >> 26;
    uint64_t size = 1ull << (shift ? shift : 21);
    return (bytes + size - 1) & ~(size - 1);
}

/* What the guest can do with memory that it asks PROT for. */
static int with_implied(const struct thread_ctx *ctx, int prot)
{
    return ctx->reads_execute && prot & PROT_READ_ ? prot | PROT_EXEC_ : prot;
}

/* Whether FD is on a mount that nothing may be executed from. What is to go over part of a module is of its file. */
static bool mounted_without_exec(int fd, uint64_t address)
{
    const struct module *m = module_find(address);
    uint64_t status[15]; /* struct statfs; its flags are the word at 80 */
    bool with_program =
        m && (m->mount && program_file.mount ? m->mount == program_file.mount : m->id.dev == program_file.device);
    return !with_program && sys2(__NR_fstatfs, fd, status) == 0 && status[10] & 8 /* ST_NOEXEC */;
}

long mem_mmap(struct thread_ctx *ctx)
{
    uint64_t address = ctx->gpr[RDI], bytes = ctx->gpr[RSI];
    int prot = with_implied(ctx, (int)ctx->gpr[RDX]), flags = (int)ctx->gpr[R10], fd = (int)ctx->gpr[R8];
    if (flags & MAP_HUGE)
        bytes = whole_huge_pages(bytes, flags);
    bool anonymous = flags & MAP_ANONYMOUS_, fixed = flags & (MAP_FIXED_ | MAP_FIXED_NOREPLACE_);
    bool library = !anonymous && !fixed && (flags & MAP_TYPE_) == MAP_PRIVATE_ && !(prot & PROT_WRITE_) && ctx->gpr[R9] == 0 &&
                   !(flags & MAP_32BIT_) && bytes >= sizeof(Elf64_Ehdr);
    /* Data files are mapped like that too. glibc's flag tells before, otherwise the header does afterwards, without a call. */
    bool before = flags & MAP_DENYWRITE_ || !(prot & (PROT_READ_ | PROT_EXEC_));
    uint64_t unexecutable = (uint64_t)(prot & ~PROT_EXEC_) | (prot & PROT_EXEC_ ? PROT_READ_ : 0);
    uint64_t saved[4] = {ctx->gpr[RDI], ctx->gpr[RDX], ctx->gpr[R10], 0}, placed = 0;
    struct elf_span span;
    if (options.native)
        return pass(ctx);
    bool reserves = !address && prot == 0 && flags == (MAP_PRIVATE_ | MAP_ANONYMOUS_) && reserves_for(ctx, bytes, &span);
    lock_take(&core_lock);
    if (prot & PROT_EXEC_ && !anonymous && mounted_without_exec(fd, address)) {
        prot &= ~PROT_EXEC_;
        if (ctx->gpr[RDX] & PROT_EXEC_) {
            lock_drop(&core_lock);
            return -E_PERM;
        }
    }
    if (fixed && address % PAGE_BYTES == 0 && address + PAGE_UP(bytes) > address) {
        bool only_free = flags & MAP_FIXED_NOREPLACE_;
        if (only_free ? !take_free_place(address, PAGE_UP(bytes)) : !take_place(address, PAGE_UP(bytes), "maps")) {
            lock_drop(&core_lock);
            return only_free ? -E_EXIST : -E_NOMEM;
        }
    }
    if (library && before)
        placed = place_module(ctx, fd, bytes, bytes, PAGE_BYTES, false);
    else if (reserves)
        placed = place_module(ctx, ctx->last_open, span.high - span.low, bytes, span.align, true);
    if (placed) {
        ctx->gpr[RDI] = placed;
        ctx->gpr[R10] = (uint32_t)flags | MAP_FIXED_NOREPLACE_;
    }
    ctx->gpr[RDX] = unexecutable;
    bool there = is_there(ctx, unexecutable);
    long result = there ? (long)address : pass(ctx);
    ctx->gpr[RDI] = saved[0];
    ctx->gpr[RDX] = saved[1];
    ctx->gpr[R10] = saved[2];
    if (placed)
        placed_last.prot = sys_failed(result) ? -1 : (int)unexecutable;
    if (placed && reserves)
        placed_last.module->awaited = true;
    if (placed && sys_failed(result)) { /* somebody is there (a module whose image was dropped): where the kernel likes */
        struct module *m = module_find(placed);
        if (m)
            module_void(m);
        ctx->gpr[RDX] = unexecutable;
        result = pass(ctx);
        ctx->gpr[RDX] = saved[1];
    }
    if (!sys_failed(result) && flags & MAP_FIXED_) { /* a call that fails leaves what was there */
        struct module *come = there ? NULL : mapped_over(ctx, address, PAGE_UP(bytes), prot, flags, fd);
        if ((flags & MAP_TYPE_) != MAP_PRIVATE_)
            links_refuse(address, PAGE_UP(bytes));
        forget_others(address, PAGE_UP(bytes), come);
        if (come)
            come->awaited = false;
    }
    if (!sys_failed(result) && library && !before)
        result = (long)place_mapped(ctx, (uint64_t)result, bytes, fd);
    if (!sys_failed(result))
        window_note((uint64_t)result, bytes);
    if (!sys_failed(result) && prot & PROT_EXEC_)
        became_executable(ctx, (uint64_t)result, bytes, prot, anonymous ? -1 : fd);
    if (there) /* the next segment's call may follow it */
        placed_last.call = ctx->stats.enter_syscall;
    if (!sys_failed(result) && !anonymous && (flags & MAP_TYPE_) != MAP_PRIVATE_)
        alias_add((uint64_t)result, bytes, fd, ctx->gpr[R9], prot);
    else if (!sys_failed(result) && anonymous && (flags & MAP_TYPE_) != MAP_PRIVATE_ && prot != PROT_READ_)
        alias_add_anonymous((uint64_t)result, bytes, prot);
    lock_drop(&core_lock);
    return result;
}

/* munmap of [start, end) but for what is ours, of which the guest does not know. */
static long unmap_around(struct thread_ctx *ctx, uint64_t start, uint64_t end)
{
    uint64_t *g = ctx->gpr, saved[2] = {g[RDI], g[RSI]}, at = start;
    struct place ours;
    long result = 0;
    if (start == end || !place_ours(start, end, &ours))
        return pass(ctx);
    for (bool more = true; more && result == 0; at = ours.end) {
        more = at < end && place_ours(at, end, &ours);
        g[RDI] = at;
        g[RSI] = (more ? ours.start : end) - at;
        if (at < end && (!more || ours.start > at))
            result = pass(ctx);
    }
    g[RDI] = saved[0];
    g[RSI] = saved[1];
    return result;
}

long mem_munmap(struct thread_ctx *ctx)
{
    uint64_t start = ctx->gpr[RDI], bytes = PAGE_UP(ctx->gpr[RSI]);
    if (options.native || start % PAGE_BYTES || start + bytes < start)
        return pass(ctx);
    lock_take(&core_lock);
    long result = unmap_around(ctx, start, start + bytes);
    if (result == 0) {
        constants_changed(start, bytes);
        forget(start, bytes);
    }
    lock_drop(&core_lock);
    return result;
}

/* What the kernel is asked for where the guest wants PROT. Other threads may be writing, so what can be written stays so. */
static uint64_t executable(int prot)
{
    return PROT_READ_ | PROT_EXEC_ | (uint64_t)(prot & (PROT_WRITE_ | PROT_GROWSDOWN));
}

/* Whether a range may be executed only the kernel knows (a file on a noexec mount may not): it is asked for that, before the
 * guest's call takes it away again. */
static long ask_executable(struct thread_ctx *ctx, int given)
{
    uint64_t saved = ctx->gpr[RDX];
    ctx->gpr[RDX] = executable(given);
    long result = pass(ctx);
    ctx->gpr[RDX] = saved;
    return result;
}

static uint64_t protect_while_possible(uint64_t start, uint64_t end, uint64_t prot)
{
    while (start < end && sys3(__NR_mprotect, start, PAGE_BYTES, prot) == 0)
        start += PAGE_BYTES;
    return start;
}

/* mprotect failed, having changed what came before a hole or memory that may not have that permission. ASKED: it may have
 * become executable. */
static uint64_t end_of_changed(const struct thread_ctx *ctx, uint64_t start, uint64_t end, bool asked)
{
    if (asked)
        end = protect_while_possible(start, end, executable((int)ctx->gpr[RDX]) & ~(uint64_t)PROT_GROWSDOWN);
    uint64_t at = protect_while_possible(start, end, ctx->gpr[RDX] & ~(uint64_t)PROT_GROWSDOWN);
    if (asked && at < end) /* no more than this, or it could be written */
        sys3(__NR_mprotect, at, end - at, PROT_READ_);
    return at;
}

static void exec_add_changed(uint64_t start, uint64_t end, int prot)
{
    if (prot & PROT_GROWSDOWN && start < end) { /* the stack down to its end, which moves */
        start = end - STACK_REACH;
        exec_remove(start, end);
    }
    if (start < end)
        add_executable(start, end, NULL, prot & PROT_WRITE_);
}

long mem_mprotect(struct thread_ctx *ctx)
{
    uint64_t start = ctx->gpr[RDI], bytes = PAGE_UP(ctx->gpr[RSI]), end = start + bytes;
    int given = (int)ctx->gpr[RDX], prot = with_implied(ctx, given);
    if (options.native || start % PAGE_BYTES || end < start)
        return pass(ctx);
    lock_take(&core_lock);
    const struct exec_region *old = exec_find(start);
    bool same = old && old->end >= end && prot & PROT_EXEC_ && !(prot & PROT_WRITE_) && !old->writable;
    bool ask = prot & PROT_EXEC_ && bytes && !(old && old->end >= end);
    ctx->gpr[RDX] = (uint64_t)(prot & ~PROT_EXEC_) | (prot & PROT_EXEC_ ? PROT_READ_ : 0);
    long result = ask ? ask_executable(ctx, given) : 0;
    if (result == -E_ACCES && !(given & PROT_EXEC_)) { /* only implied */
        end_of_changed(ctx, start, end, true);
        prot &= ~PROT_EXEC_;
        ask = false;
        result = 0;
    }
    if (result == 0)
        result = pass(ctx);
    if (result < 0 && !same)
        end = result == -E_NOMEM || result == -E_ACCES ? end_of_changed(ctx, start, end, ask) : start;
    if (prot & PROT_WRITE_)
        constants_changed(start, end - start);
    else if (!(prot & (PROT_READ_ | PROT_EXEC_)))
        constants_hidden(start, end - start);
    else if (result == 0)
        links_seal(start, end);
    if (!same && exec_overlaps(start, end))
        exec_remove(start, end);
    if (prot & PROT_EXEC_ && !same && bytes)
        exec_add_changed(start, end, prot);
    alias_change(start, end, prot);
    ctx->gpr[RDX] = (uint64_t)given;
    lock_drop(&core_lock);
    return result;
}

static bool fork_leaves_out; /* the guest has said so of some of its memory */

/* Pages that the guest throws away come back empty, or with what the file holds now. */
long mem_madvise(struct thread_ctx *ctx)
{
    uint64_t start = ctx->gpr[RDI], end = start + PAGE_UP(ctx->gpr[RSI]), advice = ctx->gpr[RDX];
    long result = pass(ctx);
    if (options.native || result < 0)
        return result;
    bool left_out = advice == ADVICE_DONTFORK || advice == ADVICE_WIPEONFORK;
    fork_leaves_out |= left_out;
    if (advice == ADVICE_GUARD_INSTALL) /* it cannot be read any more */
        mem_written(start, end);
    if (!left_out && advice != ADVICE_DONTNEED && advice != ADVICE_DONTNEED_LOCKED && advice != ADVICE_REMOVE)
        return result;
    lock_take(&core_lock);
    if (left_out)
        constants_changed(start, end - start); /* in children */
    else
        links_unseal(start, end - start);
    if (!left_out && exec_overlaps(start, end))
        jit_drop(start, end);
    lock_drop(&core_lock);
    return result;
}

void mem_forked(void)
{
    if (fork_leaves_out)
        jit_drop(0, UINT64_MAX);
}

long mem_mremap(struct thread_ctx *ctx)
{
    uint64_t start = ctx->gpr[RDI], old = PAGE_UP(ctx->gpr[RSI]), new = PAGE_UP(ctx->gpr[RDX]);
    if (options.native)
        return pass(ctx);
    lock_take(&core_lock);
    const struct exec_region *region = exec_find(start);
    bool executable = region, writable = region && region->writable;
    if (ctx->gpr[R10] & REMAP_FIXED) {
        if (!take_place(ctx->gpr[R8], new, "moves")) {
            lock_drop(&core_lock);
            return -E_NOMEM;
        }
    }
    long result = pass(ctx);
    if (!sys_failed(result)) {
        constants_changed(start, old);
        if (ctx->gpr[R10] & REMAP_FIXED) {
            constants_changed(ctx->gpr[R8], new);
            links_refuse(ctx->gpr[R8], new);
            forget(ctx->gpr[R8], new);
        }
        window_note((uint64_t)result, new);
        alias_move(start, old, (uint64_t)result, new);
        if (executable)
            exec_remove(start, start + old);
        if (executable && ctx->gpr[R10] & REMAP_DONTUNMAP)
            exec_add(start, start + old, NULL, writable);
        if (executable)
            exec_add((uint64_t)result, (uint64_t)result + new, NULL, writable);
    }
    lock_drop(&core_lock);
    return result;
}

/* The segment's size, which the call that attaches it does not say. */
static uint64_t segment_bytes(int id)
{
    uint64_t status[14]; /* struct shmid64_ds: 48 bytes of permissions, then the size */
    return sys3(__NR_shmctl, id, SEGMENT_STATUS, status) < 0 ? 0 : PAGE_UP(status[6]);
}

/* Where the guest chooses the place, its memory may be where code of modules goes. What it may execute is executable for a
 * moment: only the kernel knows whether it may. */
long mem_shmat(struct thread_ctx *ctx)
{
    uint64_t address = ctx->gpr[RSI], flags = ctx->gpr[RDX];
    int id = (int)ctx->gpr[RDI], prot = PROT_READ_ | (flags & SEGMENT_READ_ONLY ? 0 : PROT_WRITE_);
    if (options.native)
        return guest_syscall(ctx);
    if (flags & SEGMENT_EXEC || ctx->reads_execute)
        prot |= PROT_EXEC_;
    lock_take(&core_lock);
    window_shared |= address != 0;
    uint64_t bytes = segment_bytes(id);
    long result = -E_INVAL;
    bool over = flags & SEGMENT_REMAP && address;
    if (!address ||
        (over ? take_place(PAGE_DOWN(address), bytes, "attaches shared") : take_free_place(PAGE_DOWN(address), bytes))) {
        if (over) {
            constants_changed(PAGE_DOWN(address), bytes);
            links_refuse(PAGE_DOWN(address), bytes);
            forget(address, bytes);
        }
        result = pass(ctx);
    }
    if (!sys_failed(result)) {
        if (flags & SEGMENT_EXEC)
            sys3(__NR_mprotect, result, bytes, prot & ~PROT_EXEC_);
        if (prot & PROT_EXEC_)
            add_executable((uint64_t)result, (uint64_t)result + bytes, NULL, prot & PROT_WRITE_);
        alias_add_segment((uint64_t)result, bytes, id, prot);
    }
    lock_drop(&core_lock);
    return result;
}

long mem_shmdt(struct thread_ctx *ctx)
{
    uint64_t start = ctx->gpr[RDI];
    if (options.native)
        return guest_syscall(ctx);
    lock_take(&core_lock);
    uint64_t bytes = alias_segment_bytes(start);
    long result = pass(ctx);
    if (result == 0 && bytes)
        forget(start, bytes);
    lock_drop(&core_lock);
    return result;
}

/* Pages that the guest may write and execute are write-protected while they are translated; sealed ones could not be. */
long mem_mseal(struct thread_ctx *ctx)
{
    uint64_t end = ctx->gpr[RDI] + PAGE_UP(ctx->gpr[RSI]);
    bool refused = false;
    lock_take(&core_lock);
    for (uint64_t at = ctx->gpr[RDI]; at < end && !refused;) {
        const struct exec_region *region = exec_find(at);
        refused = region && region->writable;
        at = region ? region->end : exec_next(at);
    }
    if (refused)
        explain("mseal gives ENOSYS: the memory may be written and executed");
    long result = refused ? -E_NOSYS : pass(ctx);
    lock_drop(&core_lock);
    return result;
}

/* The heap's end. Where what can be read can be executed, the heap is code too. */
long mem_brk(struct thread_ctx *ctx)
{
    static uint64_t last;
    if (options.native)
        return pass(ctx);
    lock_take(&core_lock);
    uint64_t old = last;
    long result = pass(ctx);
    if (!sys_failed(result)) /* by a filter */
        last = PAGE_UP(result);
    if (old && last > old && ctx->reads_execute)
        add_executable(old, last, NULL, true);
    else if (last < old && exec_overlaps(last, old))
        forget(last, old - last);
    lock_drop(&core_lock);
    return result;
}

/* [start, end) has been written past its protection: what was made from code there goes. */
void mem_written(uint64_t start, uint64_t end)
{
    lock_take(&core_lock);
    constants_changed(start, end - start);
    for (uint64_t at = start; at < end;) {
        const struct exec_region *region = exec_find(at);
        uint64_t low = at, high = region ? region->end : exec_next(at);
        at = high;
        if (!region)
            continue;
        if (region->module) { /* its image is of the file */
            low = region->start;
            exec_remove(low, high);
            exec_add(low, high, NULL, false);
        } else
            jit_drop(low, high < end ? high : end);
    }
    lock_drop(&core_lock);
}
