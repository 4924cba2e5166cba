/* SPDX-License-Identifier: Apache-2.0
 *
 * The JIT as the core sees it: on a miss, start the translator in this process if it does not run yet, hand it a request, map
 * the code it makes, and remember which blocks it holds.
 *
 * The translator is a coroutine: glibc's _start on a stack of its own, with its own fs. Code goes to fresh pages of the
 * window's JIT arena, written while writable, then made executable once; a page is never opened again, so memory is never
 * writable and executable.
 */
#include "launcher/jit_glue.h"
#include "launcher/core.h"
#include <asm/prctl.h>
#include <elf.h>

#define TRANSLATOR_STACK_BYTES (1024 * 1024)
#define ARENA_GROW_BYTES (1024 * 1024ull)
#define BATCH_BYTES (128 * 1024ull) /* what a batch's code is at most */
#define META_BYTES 2048u            /* tables of a chunk that may be used again, at least */
#define POPULATE_BYTES (64 * 1024ull)
#define XSAVE_BYTES 16384
#define MAX_LEADERS 32
#define ANONYMOUS_REACH 0x10000
#define ARGUMENT_REACH 0x10000ull /* how far a system call is taken to write from its argument */

extern bool have_fsgsbase;
extern char __ehdr_start[];
void translator_switch(uint64_t *save_sp, uint64_t new_sp);
void translator_start(uint64_t *save_sp, uint64_t initial_sp);

/* ---- switching worlds ---- */

static struct {
    bool started, running;
    uint64_t core_sp, translator_sp, fs;
    struct jit_request *request;
} world;
static char xsave[XSAVE_BYTES] CORE_LARGE __attribute__((aligned(64)));

static uint64_t fs_get(void)
{
    uint64_t fs;
    if (have_fsgsbase)
        __asm__ volatile("rdfsbase %0" : "=r"(fs));
    else
        sys2(__NR_arch_prctl, ARCH_GET_FS, &fs);
    return fs;
}

static void fs_set(uint64_t fs)
{
    if (have_fsgsbase)
        __asm__ volatile("wrfsbase %0" : : "r"(fs));
    else
        sys2(__NR_arch_prctl, ARCH_SET_FS, fs);
}

void fp_save(void)
{
    static const uint32_t mxcsr = 0x1f80;
    __asm__ volatile("xsave64 %0\n\tfninit\n\tldmxcsr %1" : "+m"(xsave) : "m"(mxcsr), "a"(-1), "d"(-1));
}

void fp_restore(void)
{
    __asm__ volatile("xrstor64 %0" : : "m"(xsave), "a"(-1), "d"(-1));
}

struct jit_request *translator_yield(void)
{
    translator_switch(&world.translator_sp, world.core_sp);
    return world.request;
}

/* A process's initial stack for glibc: argv { "bdbi-jit" }, an environment that keeps it from registering rseq, an auxiliary
 * vector of this program's own headers. */
static uint64_t initial_stack(void)
{
    static const char no_rseq[] = "GLIBC_TUNABLES=glibc.pthread.rseq=0";
    static char random[16], tunables[sizeof no_rseq]; /* glibc writes to it */
    memcpy(random, "bdbi translator", sizeof random);
    memcpy(tunables, no_rseq, sizeof no_rseq);
    const Elf64_Ehdr *e = (const void *)__ehdr_start;
    const uint64_t words[] = {
        1,
        (uint64_t) "bdbi-jit",
        0,
        (uint64_t)tunables,
        0,
        AT_PHDR,
        (uint64_t)__ehdr_start + e->e_phoff,
        AT_PHENT,
        sizeof(Elf64_Phdr),
        AT_PHNUM,
        e->e_phnum,
        AT_PAGESZ,
        PAGE_BYTES,
        AT_RANDOM,
        (uint64_t)random,
        AT_SECURE,
        0,
        AT_ENTRY,
        e->e_entry,
        AT_CLKTCK,
        100,
        AT_NULL,
        0,
    };
    char *stack =
        map_or_die(0, TRANSLATOR_STACK_BYTES, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_);
    uint64_t *sp = (uint64_t *)(((uint64_t)stack + TRANSLATOR_STACK_BYTES - sizeof words) & ~15ull);
    memcpy(sp, words, sizeof words);
    return (uint64_t)sp;
}

/* glibc's start-up registered its own thread with the kernel: put the guest's back. */
static void restore_registrations(const struct thread_ctx *ctx)
{
    sys1(__NR_set_tid_address, ctx->clear_child_tid);
    sys2(__NR_set_robust_list, ctx->robust_list, ctx->robust_list ? ctx->robust_list_len : 24);
}

static void call_translator(struct thread_ctx *ctx, struct jit_request *request)
{
    uint64_t mask, guest_fs = fs_get();
    if (world.running) /* its stack is not what its stack pointer says */
        die(125, "a child that shares this memory was killed while it translated");
    signals_block_all(&mask);
    world.running = true;
    fp_save();
    ctx->in_translator = true;
    if (!world.started) {
        translator_start(&world.core_sp, initial_stack());
        world.fs = fs_get();
        world.started = true;
        restore_registrations(ctx);
    }
    world.request = request;
    fs_set(world.fs);
    translator_switch(&world.core_sp, world.translator_sp);
    fs_set(guest_fs);
    world.running = false;
    ctx->in_translator = false;
    fp_restore();
    signals_restore(mask);
}

/* ---- blocks ---- */

struct jit_entry {
    uint64_t pc;
    uint64_t code; /* with IBL_LANDING; 0: dropped */
};

static struct {
    struct jit_entry *entries;
    uint64_t capacity, used;
} table;

struct jit_chunk *jit_chunks, *jit_dropped;
bool jit_guards;
uint64_t drop_generation;

static uint64_t hash(uint64_t pc)
{
    return (pc * 0x9e3779b97f4a7c15ull) >> 20;
}

static struct jit_entry *table_find(uint64_t pc)
{
    uint64_t i = hash(pc) & (table.capacity - 1);
    while (table.entries[i].pc && table.entries[i].pc != pc)
        i = (i + 1) & (table.capacity - 1);
    return &table.entries[i];
}

static void table_put(uint64_t pc, uint64_t code)
{
    if (table.used * 2 >= table.capacity) {
        struct jit_entry *old = table.entries;
        uint64_t n = table.capacity, more = n ? n * 2 : 4096;
        table.entries = map_or_die(0, more * sizeof *old, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_);
        table.capacity = more;
        for (uint64_t i = 0; i < n; i++)
            if (old[i].pc)
                *table_find(old[i].pc) = old[i];
        if (n)
            unmap_own(old, n * sizeof *old);
    }
    struct jit_entry *e = table_find(pc);
    table.used += e->pc == 0;
    *e = (struct jit_entry){pc, code};
}

code_pc jit_lookup(uint64_t pc)
{
    uint64_t code = table.capacity ? table_find(pc)->code : 0;
    return (code_pc){code & ~IBL_LANDING, code & IBL_LANDING};
}

/* The chunk's code is not executable any more; code and tables stay, for stragglers, until no thread can be in it
 * (code_reusable). AT: where the list has it. */
static void drop_chunk(struct jit_chunk **at)
{
    struct jit_chunk *c = *at;
    *at = c->next;
    c->next = jit_dropped;
    jit_dropped = c;
    c->dropped_at = __atomic_add_fetch(&drop_generation, 1, __ATOMIC_SEQ_CST);
    core_mprotect(c->start, c->end - c->start, PROT_READ_);
    for (uint32_t i = 0; table.capacity && i < c->nblocks; i++) {
        struct jit_entry *e = table_find(c->base + c->blocks[i].app_offset);
        if ((e->code & ~IBL_LANDING) >= c->start && (e->code & ~IBL_LANDING) < c->end)
            e->code = 0;
        if (e->pc)
            ibl_forget(e->pc);
    }
}

/* Drops every chunk that holds a block of [start, end). */
void jit_drop(uint64_t start, uint64_t end)
{
    for (struct jit_chunk **at = &jit_chunks; *at;)
        if ((*at)->app_start < end && (*at)->app_end > start)
            drop_chunk(at);
        else
            at = &(*at)->next;
}

/* Dropped code at ADDRESS whose memory is still ours: from its page on, one page more if there is one. An image's code is
 * dropped with its module. */
static bool dropped_code(uint64_t address, struct place *out)
{
    out->start = PAGE_DOWN(address);
    out->end = out->start + 2 * PAGE_BYTES;
    uint64_t end = 0;
    for (struct jit_chunk *c = jit_dropped; c && !end; c = c->next)
        if (!c->gone && address >= c->start && address < c->end)
            end = c->end;
    for (struct module *m = modules; m && !end; m = m->next)
        for (uint32_t i = 0; m->kept && i < m->npieces; i++)
            if (address >= m->pieces[i].start && address < m->pieces[i].end)
                end = m->pieces[i].end;
    if (out->end > end)
        out->end = end;
    return end != 0;
}

/* The thread is at CODE, which was dropped, where it has no app state: it may execute one instruction more, by
 * single-stepping. False: no such code. */
bool jit_open_dropped(struct thread_ctx *ctx, uint64_t code)
{
    struct place pages;
    lock_take(&core_lock);
    bool found = dropped_code(code, &pages);
    if (found) {
        core_mprotect(pages.start, pages.end - pages.start, PROT_READ_ | PROT_EXEC_);
        ctx->opened = pages.start;
    }
    lock_drop(&core_lock);
    return found;
}

void jit_close_dropped(struct thread_ctx *ctx)
{
    struct place pages;
    lock_take(&core_lock);
    if (dropped_code(ctx->opened, &pages)) /* else the guest has its place */
        core_mprotect(pages.start, pages.end - pages.start, PROT_READ_);
    ctx->opened = 0;
    lock_drop(&core_lock);
}

/* No thread is in code that was dropped then, nor will go there: each has been in the core since, where its target cache was
 * emptied, or is there now and looks again before it leaves (core_leave). */
bool code_reusable(uint64_t dropped_at)
{
    for (struct thread_ctx *t = threads; t; t = t->next)
        if (!__atomic_load_n(&t->in_core, __ATOMIC_SEQ_CST) && t->seen_drops < dropped_at)
            return false;
    return true;
}

/* A dropped chunk that may be used again, writable. Not with a tool: its counters are still to be reported. */
static struct jit_chunk *chunk_recycle(bool low)
{
    struct jit_chunk *c;
    if (options.tool)
        return NULL;
    for (struct jit_chunk **at = &jit_dropped; (c = *at); at = &c->next) {
        if (c->gone || (c->start < BDBI_WINDOW_BYTES) != low || !code_reusable(c->dropped_at) ||
            core_mprotect(c->start, c->end - c->start, PROT_READ_ | PROT_WRITE_) < 0)
            continue;
        *at = c->next;
        return c;
    }
    return NULL;
}

/* Called when a thread leaves the core after a system call, where code may have been dropped while it waited. */
void core_leave(struct thread_ctx *ctx)
{
    __atomic_store_n(&ctx->in_core, 0, __ATOMIC_SEQ_CST);
    if (ctx->seen_drops == __atomic_load_n(&drop_generation, __ATOMIC_SEQ_CST) && !code_rewritten)
        return;
    __atomic_store_n(&ctx->in_core, 1, __ATOMIC_SEQ_CST);
    if (__atomic_exchange_n(&code_rewritten, 0, __ATOMIC_ACQUIRE)) /* some of it */
        mem_written(0, UINT64_MAX);
    dispatch_resume(ctx);
}

/* ---- arenas ---- */

/* An arena grows by granules, which follow each other but for those where the guest is. */
#define GRANULES ((BDBI_WINDOW_BYTES - BDBI_JIT_OFFSET) / ARENA_GROW_BYTES)

static struct arena {
    uint64_t next, end, limit;
    uint64_t populated; /* pages below are there */
    uint64_t start;
    bool mapped[GRANULES];
} arenas[2]; /* the window at 0, the window at W */

static uint64_t granule_of(const struct arena *a, uint64_t address)
{
    return address <= a->start ? 0 : (address - a->start) / ARENA_GROW_BYTES;
}

/* The first granule of A in [start, end); false: none. */
static bool granule_in(const struct arena *a, uint64_t start, uint64_t end, struct place *out)
{
    for (uint64_t i = granule_of(a, start); a->end && i < GRANULES && a->start + i * ARENA_GROW_BYTES < end; i++)
        if (a->mapped[i]) {
            out->start = a->start + i * ARENA_GROW_BYTES;
            out->end = out->start + ARENA_GROW_BYTES;
            return true;
        }
    return false;
}

bool jit_granule(uint64_t start, uint64_t end, struct place *out)
{
    return granule_in(&arenas[0], start, end, out) || granule_in(&arenas[1], start, end, out);
}

static bool has_code(const struct jit_chunk *c, const struct place *place)
{
    return c->start < place->end && place->start < c->end;
}

static void give_up(struct arena *a, const struct place *granule)
{
    for (struct jit_chunk **at = &jit_chunks; *at;)
        if (has_code(*at, granule))
            drop_chunk(at);
        else
            at = &(*at)->next;
    for (struct jit_chunk *c = jit_dropped; c; c = c->next)
        c->gone |= has_code(c, granule);
    if (a->next < granule->end && granule->start < a->end)
        a->next = a->populated = a->end;
    a->mapped[granule_of(a, granule->start)] = false;
    sys2(__NR_munmap, granule->start, ARENA_GROW_BYTES);
}

void jit_make_way(uint64_t start, uint64_t end)
{
    struct place granule;
    for (int i = 0; i < 2; i++)
        while (granule_in(&arenas[i], start, end, &granule))
            give_up(&arenas[i], &granule);
}

/* A batch takes a page or two: one call for several batches' is cheaper than a fault for each. */
static void populate(struct arena *a)
{
    if (a->next + 2 * PAGE_BYTES <= a->populated)
        return;
    uint64_t from = a->populated > a->next ? a->populated : a->next, bytes = a->end - from;
    bytes = bytes < POPULATE_BYTES ? bytes : POPULATE_BYTES;
    sys3(__NR_madvise, from, bytes, 23 /* MADV_POPULATE_WRITE; older kernels fault */);
    a->populated = from + bytes;
}

/* BYTES of fresh writable pages. */
static uint64_t arena_take(struct arena *a, uint64_t window, uint64_t bytes)
{
    if (!a->next) {
        a->next = a->end = a->start = window + BDBI_JIT_OFFSET;
        a->limit = window + BDBI_WINDOW_BYTES;
    }
    while (a->end - a->next < bytes) {
        if (a->end + ARENA_GROW_BYTES > a->limit)
            die(125, "the space for JIT code is full");
        long p = core_mmap(a->end, ARENA_GROW_BYTES, PROT_READ_ | PROT_WRITE_,
                           MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_FIXED_NOREPLACE_ | MAP_NORESERVE_, -1, 0);
        if (p == -E_EXIST) { /* the guest is there */
            a->next = a->end = a->end + ARENA_GROW_BYTES;
            continue;
        }
        if (sys_failed(p))
            die(125, "no memory for JIT code (error %d): raise the address space limit (ulimit -v)", (int)-p);
        a->mapped[granule_of(a, a->end)] = true;
        a->end += ARENA_GROW_BYTES;
    }
    populate(a);
    return a->next;
}

/* ---- a miss ---- */

static bool readable(uint64_t page)
{
    char byte;
    return copy_guest(&byte, (void *)page, 1) == 0;
}

static void add_span(struct jit_request *r, uint64_t base, uint64_t start, uint64_t end)
{
    if (r->nspans < 8 && start < end)
        r->spans[r->nspans++] = (struct text_span){(uint32_t)(start - base), (uint32_t)(end - base), (const uint8_t *)start};
}

/* Whether the guest can execute PAGE and may write to it too. */
static bool page_writable(uint64_t page)
{
    const struct exec_region *region = exec_find(page);
    return region && region->writable;
}

/* Protects [START, END) of the mapping [LOW, HIGH). Huge pages have one protection each: the range grows to them. */
void jit_protect(uint64_t *start, uint64_t *end, uint64_t low, uint64_t high, int prot)
{
    long result = core_mprotect(*start, *end - *start, prot);
    for (uint64_t size = 2 << 20; result == -E_INVAL && size <= 1 << 30; size <<= 9) {
        uint64_t from = *start & ~(size - 1), to = (*end + size - 1) & ~(size - 1);
        from = from > low ? from : low;
        to = to < high ? to : high;
        result = core_mprotect(from, to - from, prot);
        if (result == 0) {
            *start = from;
            *end = to;
        }
    }
}

static void protect_pages(uint64_t *start, uint64_t *end, int prot)
{
    const struct exec_region *region = exec_find(*start);
    jit_protect(start, end, region ? region->start : *start, region ? region->end : *end, prot);
}

bool reads_later;

/* Code whose pages may change without this process' doing. */
static void explain_unseen(uint64_t pc, bool writable)
{
    static bool said_shared, said_later;
    if (!said_shared && alias_view(pc) == ALIAS_OWN) {
        said_shared = true;
        explain("code in a memory file of the program's is translated: what others write there by way of /proc is not seen");
    }
    if (!said_later && reads_later && writable) {
        said_later = true;
        explain("code that may be written is translated: an io_uring's or AIO's later read into its page gives EFAULT");
    }
}

/* What others may write is translated, and compared later, as it was at one moment. */
static void take_snapshot(struct jit_request *r, uint64_t low, uint64_t high)
{
    static uint8_t bytes[2 * PAGE_BYTES] CORE_LARGE;
    if (copy_guest(bytes, (void *)low, high - low))
        r->nspans = 0;
    r->spans[0].bytes = bytes;
}

/* Anonymous code: the readable pages around PC. Where the guest may write too, this page and the next, write-protected first.
 * The next page belongs to it whatever region it is in: an instruction may cross. What a thread of the guest serves is read
 * when it is executed, not before. True: the guest may write to some of it. */
static bool anonymous_span(struct jit_request *r, const struct thread_ctx *ctx, uint64_t pc, const struct exec_region *region)
{
    uint64_t low = PAGE_DOWN(pc), high = low + PAGE_BYTES;
    r->checked = alias_view(pc) == ALIAS_OTHERS;
    bool more = !faults_served && !r->checked, next = !faults_served || ctx->crosses == pc;
    uint64_t reach = region->writable ? PAGE_BYTES : ANONYMOUS_REACH;
    if (!readable(low))
        return false;
    while (more && !region->writable && low > region->start && pc - low < ANONYMOUS_REACH && readable(low - PAGE_BYTES))
        low -= PAGE_BYTES;
    while (more && high < region->end && high - pc < reach && readable(high))
        high += PAGE_BYTES;
    if (next && high - pc < PAGE_BYTES && exec_find(high) && readable(high))
        high += PAGE_BYTES;
    bool writable = region->writable || page_writable(high - PAGE_BYTES);
    uint64_t from = region->writable ? low : high - PAGE_BYTES, to = high;
    if (writable && !r->single)
        protect_pages(&from, &to, PROT_READ_);
    if (alias_protect(low, high))
        jit_guards = true;
    if (options.verbose)
        explain_unseen(pc, writable);
    add_span(r, r->base, low, high);
    if (r->checked)
        take_snapshot(r, low, high);
    return writable;
}

static void module_spans(struct jit_request *r, const struct module *m, uint64_t pc)
{
    const struct exec_region *region;
    if (!readable(PAGE_DOWN(pc)))
        return;
    for (uint32_t n = 0; (region = exec_of_module(m, n)); n++)
        if (!region->writable)
            add_span(r, m->base, region->start, region->end);
}

/* The guest, at app pc PC, writes to a page that holds translated code: the code goes, the page opens. True: done, try again.
 * When the writing instruction may be in that page itself, it is run alone, so that it gets on. */
bool jit_write_fault(struct thread_ctx *ctx, uint64_t address, uint64_t pc)
{
    lock_take(&core_lock);
    const struct exec_region *region = exec_find(address);
    bool ours = region && region->writable;
    uint64_t start = PAGE_DOWN(address), end = start + PAGE_BYTES;
    if (!ours)
        ours = alias_open(start, end);
    else {
        protect_pages(&start, &end, PROT_READ_ | PROT_WRITE_);
        jit_drop(start, end);
        ctx->one_shot = pc + 2 * PAGE_BYTES > start && pc < end + PAGE_BYTES;
    }
    lock_drop(&core_lock);
    return ours;
}

/* Opens [start, end) where the guest may write and execute: the code made from it goes. False: there was none. */
static bool open_writable(uint64_t start, uint64_t end)
{
    bool any = false;
    for (struct jit_chunk *c = jit_chunks; c && !any; c = c->next)
        any = c->writable && c->app_start < end && c->app_end > start;
    if (any) {
        protect_pages(&start, &end, PROT_READ_ | PROT_WRITE_);
        jit_drop(start, end);
    }
    return any;
}

/* A system call gets ADDRESS: the kernel, which takes no fault of ours, may write there. */
void jit_open_argument(uint64_t address)
{
    lock_take(&core_lock);
    const struct exec_region *region = exec_find(address);
    if (region && region->writable) {
        uint64_t start = PAGE_DOWN(address), end = start + ARGUMENT_REACH;
        open_writable(start, end < region->end ? end : region->end);
    }
    lock_drop(&core_lock);
}

/* A system call failed with EFAULT. True: it may have been pages of ours, which are open now. */
bool jit_open_all(void)
{
    bool any = false;
    lock_take(&core_lock);
    for (uint64_t at = 0; (at = exec_next(at)) != UINT64_MAX;) {
        const struct exec_region *region = exec_find(at);
        if (region->writable)
            any |= open_writable(region->start, region->end);
        at = region->end;
    }
    any |= alias_open_all();
    lock_drop(&core_lock);
    return any;
}

static int64_t known_block(void *user, uint32_t offset)
{
    const struct module *m = user;
    code_pc code = code_known_for_module(m, m->base + offset);
    int64_t distance = (int64_t)(code.value - m->base);
    return code.value && distance > 0 && distance < (int64_t)BDBI_WINDOW_BYTES ? distance : 0;
}

static bool in_windows(uint64_t base)
{
    return base < BDBI_MODULES_BYTES || (base >= window_base && base < window_base + BDBI_MODULES_BYTES);
}

static uint32_t meta_bytes_of(const struct jit_output *o, const struct module *m)
{
    size_t n =
        o->nblocks * sizeof *o->blocks + (o->ncounters + o->nmarks) * (sizeof *o->counters + sizeof *o->owners) + o->map_bytes;
    return !m && n < META_BYTES ? META_BYTES : (uint32_t)n;
}

/* Remembers the blocks of a batch whose code is in place. C: a recycled chunk, or NULL. */
static void keep_chunk(const struct jit_request *r, struct module *m, uint64_t start, uint64_t end, struct jit_chunk *c)
{
    const struct jit_output *o = &r->output;
    if (!c) {
        c = heap_alloc(sizeof *c);
        c->meta_bytes = meta_bytes_of(o, m);
        c->meta = heap_alloc(c->meta_bytes);
    }
    struct image_counter *counters = c->meta;
    struct image_block *blocks = (struct image_block *)(counters + o->ncounters + o->nmarks);
    uint32_t *owners = (uint32_t *)(blocks + o->nblocks);
    uint8_t *map = (uint8_t *)(owners + o->ncounters + o->nmarks);
    memcpy(counters, o->counters, (o->ncounters + o->nmarks) * sizeof *counters);
    memcpy(blocks, o->blocks, o->nblocks * sizeof *blocks);
    memcpy(owners, o->owners, (o->ncounters + o->nmarks) * sizeof *owners);
    memcpy(map, o->map, o->map_bytes);
    *c = (struct jit_chunk){.next = jit_chunks,
                            .module = m,
                            .base = r->base,
                            .start = start,
                            .end = end,
                            .blocks = blocks,
                            .map = map,
                            .counters = counters,
                            .owners = owners,
                            .nblocks = o->nblocks,
                            .map_bytes = (uint32_t)o->map_bytes,
                            .ncounters = o->ncounters,
                            .nmarks = o->nmarks,
                            .meta = c->meta,
                            .meta_bytes = c->meta_bytes};
    c->app_start = r->base + blocks[0].app_offset;
    c->app_end = r->base + o->app_end;
    jit_chunks = c;
    for (uint32_t i = 0; i < o->nblocks && !r->single; i++)
        table_put(r->base + blocks[i].app_offset,
                  (start + blocks[i].code_offset) | (blocks[i].map_offset & IMAGE_LANDING ? IBL_LANDING : 0));
}

static uint64_t microseconds(void)
{
    struct kernel_timespec t;
    sys2(__NR_clock_gettime, 1, &t);
    return (uint64_t)t.sec * 1000000 + (uint64_t)t.nsec / 1000;
}

static void refuse(uint64_t pc, const struct module *m)
{
    if (m)
        die(125, "--fail-on-jit: missed %s+0x%x", m->path && m->path[0] ? m->path : "module", pc - m->base);
    die(125, "--fail-on-jit: missed anonymous code at 0x%x", pc);
}

code_pc jit_miss(struct thread_ctx *ctx, uint64_t pc, const struct exec_region *region)
{
    struct module *m = region->module && !region->module->dropped && !region->writable ? region->module : NULL;
    if (options.fail_on_jit)
        refuse(pc, m);
    uint64_t begin = options.stats ? microseconds() : 0;
    struct jit_request r = {.base = m ? m->base : region->start, .max_leaders = MAX_LEADERS};
    if (options.tool) {
        tool_prepare(ctx);
        r.tool = options.tool->tool;
        r.tool_args = options.tool->args;
    }
    bool in_window = in_windows(r.base);
    r.fixed_base = m && in_window && r.base >= BDBI_WINDOW_BYTES ? 0 : r.base;
    r.anonymous = !m || !in_window;
    r.start = (uint32_t)(pc - r.base);
    r.single = ctx->one_shot;
    ctx->one_shot = false;
    bool writable = false;
    if (m && in_window) {
        module_spans(&r, m, pc);
        r.known = known_block;
        r.user = m;
    } else
        writable = anonymous_span(&r, ctx, pc, region);
    if (r.nspans == 0)
        return (code_pc){0};
    bool low = r.base < BDBI_WINDOW_BYTES;
    struct arena *arena = &arenas[!low];
    struct jit_chunk *recycled = m ? NULL : chunk_recycle(low);
    r.code_address = recycled ? recycled->start : arena_take(arena, low ? 0 : window_base, BATCH_BYTES);
    call_translator(ctx, &r);
    uint64_t bytes = PAGE_UP(r.output.code_bytes);
    if (recycled && !r.error &&
        (bytes > recycled->end - recycled->start || meta_bytes_of(&r.output, m) > recycled->meta_bytes)) {
        core_mprotect(recycled->start, recycled->end - recycled->start, PROT_READ_);
        recycled->next = jit_dropped;
        jit_dropped = recycled;
        recycled = NULL;
        r.code_address = arena_take(arena, low ? 0 : window_base, BATCH_BYTES);
        call_translator(ctx, &r);
        bytes = PAGE_UP(r.output.code_bytes);
    }
    if (r.error || r.output.nblocks == 0 || bytes > BATCH_BYTES)
        die(125, "translation failed at 0x%x (error %d): please report it", pc, -r.error);
    if (recycled)
        bytes = recycled->end - recycled->start;
    memcpy((void *)r.code_address, r.output.code, r.output.code_bytes);
    memset((void *)(r.code_address + r.output.code_bytes), 0xcc, bytes - r.output.code_bytes);
    if (!recycled)
        arena->next += bytes; /* first: a vfork child that is killed here leaves its parent a gap */
    if (core_mprotect(r.code_address, bytes, PROT_READ_ | PROT_EXEC_) < 0)
        die(125, "the kernel refuses executable memory: bdbi cannot translate here");
    keep_chunk(&r, m, r.code_address, r.code_address + bytes, recycled);
    jit_chunks->writable = writable;
    jit_guards |= writable;
    stats.jit_blocks += r.output.nblocks;
    stats.jit_batches++;
    if (m)
        learn_miss(m, (uint32_t)(pc - m->base), r.output.blocks, r.output.nblocks);
    if (options.stats)
        stats.jit_us += microseconds() - begin;
    return r.single ? (code_pc){.value = r.code_address + r.output.blocks[0].code_offset} : jit_lookup(pc);
}
