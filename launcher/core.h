/* SPDX-License-Identifier: Apache-2.0
 *
 * The core's own header: its state, and what its files offer each other. Freestanding: no libc, no TLS, general registers only.
 *
 * Who runs this: any guest thread, on its core stack, with the guest's signal mask. An asynchronous signal that arrives
 * meanwhile is only noted (signal.c) and delivered when the thread leaves the core. What threads share is under core_lock.
 */
#ifndef BDBI_CORE_H
#define BDBI_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cachedb/cachedb.h"
#include "cachedb/reader.h"
#include "launcher/context.h"
#include "launcher/layout.h"
#include "launcher/sys.h"
#include "tools/registry.h"

#define PAGE_BYTES 4096ull
/* For arrays that a start does not need: they lie behind the variables that it does (core.ld). */
#define CORE_LARGE __attribute__((section(".bss.LARGE")))
#define STACK_REACH 0x800000ull /* how far an executable stack is taken to grow */
#define PAGE_DOWN(x) ((uint64_t)(x) & ~(PAGE_BYTES - 1))
#define PAGE_UP(x) (((uint64_t)(x) + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1))

/* An address as the guest knows it, and one in translated code: never mixed. */
typedef struct {
    uint64_t value;
} app_pc;
typedef struct {
    uint64_t value;
    bool landing; /* a landing stands before it */
} code_pc;

enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* ---- thread context ---- */

struct signal_state;

struct thread_stats {
    uint64_t enter_syscall, enter_event, enter_fault, enter_signal;
    uint64_t ibl_misses, direct_misses;
    uint64_t cpuid_known, cpuid_executed;
};

/* At the thread's gs base. Offsets that assembly or emitted code use are asserted below. */
struct thread_ctx {
    uint64_t gpr[16];
    uint64_t pc;     /* app pc to go on at, when in the core */
    uint64_t flags;  /* app rflags, when in the core */
    uint64_t resume; /* code address the exit path jumps to */
    uint64_t direct; /* the target of the last direct exit */
    uint64_t entry_other;
    uint64_t entry_jmp; /* the lookup for indirect branches, which core_target_lost goes on to */
    uint64_t operand;   /* address, for BDBI_EVENT_FPU_SAVED */
    uint64_t entry_direct, entry_syscall, entry_event;
    struct ibl_entry *ibl; /* current lookup table */
    struct thread_ctx *self;
    uint64_t core_sp; /* top of the core stack */
    uint64_t pending; /* nonzero: a signal waits in `frame`, every signal is blocked */
    uint64_t ibl_target;
    uint64_t ibl_hits; /* counted only with --stats */
    uint64_t entry_cpuid;

    /* From here on only C. */
    struct thread_ctx *next; /* list of live threads, under core_lock */
    struct signal_state *signals;
    uint64_t clear_child_tid, robust_list, robust_list_len; /* the guest's own registrations */
    uint32_t index;                                         /* thread k */
    int32_t tid;                                            /* 0: not asked yet */
    uint64_t blocked_sync; /* synchronous signals the guest has blocked (never blocked for real) */
    uint64_t altstack_sp, altstack_size;
    uint32_t altstack_flags;
    uint32_t stepping;   /* single-stepping to a clean point with a signal pending */
    uint64_t saved_mask; /* guest mask to store in the signal frame of the pending signal */
    uint64_t suspend_mask;
    struct thread_ctx *vfork_parent; /* it is a process of its own in this one's memory */
    int32_t process;                 /* its number, if nobody waits in a vfork for it */
    struct thread_stats stats;
    uint32_t pending_bytes; /* of fpstate in the pending copy */
    uint64_t seen_drops;    /* drop_generation when this thread last looked its code up */
    uint32_t in_core;       /* in a system call: it looks again before it leaves */
    bool trapped;           /* a filter of the guest made a signal of its call, which was not done */
    bool one_shot;          /* the next instruction is translated alone and not kept */
    bool owns_signals;
    bool targets_there;   /* the target cache is populated */
    bool clears_handlers; /* of a child that starts: CLONE_CLEAR_SIGHAND */
    bool in_translator;
    bool reads_execute;   /* personality READ_IMPLIES_EXEC */
    uint64_t opened;      /* page of dropped code that is executable for one instruction of this thread, with the next */
    const char *in_tool;  /* which part of the tool runs; NULL: none */
    uint64_t crosses;     /* with faults_served: where an instruction was found to go on in the next page */
    uint64_t fetch_fault; /* page where the instruction at `pc` ends, which is absent */
    int32_t last_open;    /* the descriptor of the file that it has opened last */
    bool delivers;        /* has been in core_deliver or sigreturn */
    /* In a call that waits with wait_mask blocked; in one that need not wait, since what it unblocks is held. */
    enum { WAITS_NOT, WAITS_IN_KERNEL, WAITS_ENDED } waits;
    uint64_t wait_mask;
    uint64_t entry_mask; /* what is blocked while the pending signal's handler starts, before its own mask is added */
    uint64_t held_sync;  /* synchronous signals that were sent while blocked, their values in `held` */
    struct kernel_siginfo held[5];
};

void thread_map_counters(struct thread_ctx *ctx);
/* The sums over all threads of the N counters at ADDRESS: in SUMS, or where the only thread's are. */
const uint64_t *thread_sum_counters(uint64_t address, uint32_t n, uint64_t *sums);
/* Gives the pages of counters of [START, END) back: they are 0 again. */
void thread_clear_counters(uint64_t start, uint64_t end);
/* Sets the bytes of OUT whose marks, N from ADDRESS on, some thread has set. */
void thread_merge_marks(uint64_t address, uint32_t n, uint8_t *out);
/* Which of the PAGES of counters from ADDRESS on any thread has touched, by PAGEMAP (/proc/self/pagemap). False: not known. */
bool thread_counters_touched(uint64_t address, uint32_t pages, int pagemap, bool *touched);
/* In a forked child, under core_lock: forgets what was the parent's. */
void core_forked(void);

#define CHECK_OFFSET(field, offset) _Static_assert(offsetof(struct thread_ctx, field) == (offset), #field)
CHECK_OFFSET(gpr, CTX_GPR);
CHECK_OFFSET(pc, CTX_PC);
CHECK_OFFSET(flags, CTX_FLAGS);
CHECK_OFFSET(resume, CTX_RESUME);
CHECK_OFFSET(direct, CTX_DIRECT);
CHECK_OFFSET(entry_other, CTX_ENTRY_OTHER);
CHECK_OFFSET(entry_jmp, CTX_ENTRY_JMP);
CHECK_OFFSET(operand, CTX_OPERAND);
CHECK_OFFSET(entry_direct, CTX_ENTRY_DIRECT);
CHECK_OFFSET(entry_syscall, CTX_ENTRY_SYSCALL);
CHECK_OFFSET(entry_event, CTX_ENTRY_EVENT);
CHECK_OFFSET(ibl, CTX_IBL);
CHECK_OFFSET(self, CTX_SELF);
CHECK_OFFSET(core_sp, CTX_CORE_SP);
CHECK_OFFSET(pending, CTX_PENDING);
CHECK_OFFSET(ibl_target, CTX_IBL_TARGET);
CHECK_OFFSET(ibl_hits, CTX_IBL_HITS);
CHECK_OFFSET(entry_cpuid, CTX_ENTRY_CPUID);

/* The context of the running thread. */
static inline struct thread_ctx *ctx_self(void)
{
    struct thread_ctx *ctx;
    __asm__ volatile("mov %%gs:%c1, %0" : "=r"(ctx) : "i"(CTX_SELF));
    return ctx;
}

/* Pieces of a thread's block of memory, from its gs base. */
static inline void *thread_piece(const struct thread_ctx *ctx, uint64_t offset)
{
    return (char *)ctx + offset;
}

/* Memory for a start: the first thread's target cache, which is filled before the guest runs. */
enum start_scratch { START_SCRATCH_STORE = 0, START_SCRATCH_HEAD = 2 }; /* pages */
_Static_assert(BDBI_TARGET_BYTES >= 3 * PAGE_BYTES, "room for them");
static inline void *start_scratch(enum start_scratch page)
{
    return thread_piece(ctx_self(), CTX_TARGETS + page * PAGE_BYTES);
}

/* ---- options (options.c) ---- */

struct options {
    const char *cache;              /* directory; NULL: no cache */
    const struct tool_choice *tool; /* NULL: none */
    const char *stats_file;         /* NULL: stderr */
    const char *path;               /* file to run when it is not argv[0] */
    const char *execfn, *comm;      /* AT_EXECFN and name of the process when they are not from it; NULL: they are */
    bool no_learn, stats, fail_on_jit, native, verbose, child;
    bool train;    /* translate everything now, and tell the learner what ran: nothing else */
    bool own_tool; /* TOOL is there only for that */
    int report_fd; /* stderr as it was at the start (programs close theirs before they exit), when something may go there */
    uint64_t blocked_sync; /* synchronous signals that the parent had blocked */
    int close_fd;          /* a descriptor the parent kept open for us to find the file by; 0: none */
    int self_fd;           /* bdbi itself, for execs where /proc is not mounted; 0: not needed so far */
};
extern struct options options;

/* Parses argv[2..] of `bdbi run`. Returns the index of PROG in argv; dies with one line and status 125. */
int options_parse(int argc, char **argv, char **envp);
/* Appends the arguments that make a child run with the same options. Returns the new count. */
int options_child_args(const char **argv, int n, char *buffer, size_t buffer_bytes, const char *path);

/* openat from the current folder. Where the guest has used up its descriptors the limit is raised for a moment. */
long open_own(const char *path, int flags, int mode);

/* fstat, and the number of the mount that FD was opened on; 0: the kernel does not say. */
long stat_mount(int fd, struct kernel_stat *st, uint64_t *mount);

/* write to the end of a file; -EFBIG rather than a SIGXFSZ for the guest. */
long write_own(int fd, const void *bytes, size_t n);

/* ---- output (print.c) ---- */

/* Formats: %s %d %u (uint64_t) %x (uint64_t) %c. Returns the length; truncates. */
size_t format(char *out, size_t out_bytes, const char *fmt, ...);
size_t format_list(char *out, size_t out_bytes, const char *fmt, __builtin_va_list list);
/* One line "bdbi: ..." to stderr. */
void warn(const char *fmt, ...);
/* The same under --verbose only. */
void explain(const char *fmt, ...);
_Noreturn void die(int status, const char *fmt, ...);

/* ---- memory of the core (heap.c) ---- */

/* Zeroed memory that is never returned; under core_lock once threads exist. */
void *heap_alloc(size_t bytes);
/* mmap and mprotect, raw, for all of the core: die rather than make memory writable and executable. */
long core_mmap(uint64_t address, uint64_t bytes, int prot, int flags, int fd, uint64_t offset);
long core_mprotect(uint64_t address, uint64_t bytes, int prot);
/* Wrapped mmap: dies with one line when the kernel refuses. unmap_own gives back what it gave. */
void *map_or_die(uint64_t address, size_t bytes, int prot, int flags);
void unmap_own(void *start, size_t bytes);
/* Copies from or to guest memory; nonzero when it faulted. */
int copy_guest(void *to, const void *from, size_t bytes);
/* Length of a guest string, or negative on a fault or when MAX is reached. */
long guest_strlen(const char *s, size_t max);

void lock_take(uint32_t *lock);
void lock_drop(uint32_t *lock);
/* In a forked child, whose parent held it over the fork. */
void lock_inherit(uint32_t *lock);
/* CTX's process ends, or has ended, in the middle of what it did under the lock: who shares its memory goes on. */
void lock_abandon(uint32_t *lock, const struct thread_ctx *ctx);
extern uint32_t core_lock;

/* ---- what of ours is where (place.c) ---- */

struct place {
    uint64_t start, end;
};

/* Notes a mapping of ours, which the guest's maps must not show and the guest must not replace. */
void own_add(uint64_t start, uint64_t bytes);
void own_remove(uint64_t start);
/* Under core_lock. The first mapping of ours that overlaps [start, end); false: none. */
bool place_ours(uint64_t start, uint64_t end, struct place *out);
/* Whether one does that cannot go. */
bool place_stays(uint64_t start, uint64_t end);
/* Those that can go do. */
void place_make_way(uint64_t start, uint64_t end);

/* ---- modules and code (module.c, cache.c) ---- */

#define MODULE_EXTENTS 9

/* Of an image's header, what is asked of its counters and marks: the header itself is in a page of the store that a start and a
 * report need not touch. */
struct image_data {
    uint32_t counters_offset, ncounters, nmarks, ran_counters, ran_marks, address;
};
/* What the cache has for a module: of the images what attaching needs, so that they are not touched before a lookup. */
struct cached_image {
    const struct image_header *image;
    uint64_t code_distance;
    uint32_t code_offset, code_bytes;
    struct image_data data;
};
struct cached_images {
    uint32_t n, span_bytes;
    bool linked; /* struct image_header */
    bool marks;  /* the tool has asked for some */
    uint64_t fixed_base;
    uint64_t code_bytes;                     /* of all pieces, from the module's code start */
    uint64_t checksum;                       /* of the base image's header */
    uint32_t constants_start, constants_end; /* what of the module any of them takes for constant */
    uint32_t relro_start, relro_end;         /* where the pointers of their links are; equal: there are none */
    struct cached_image images[MODULE_EXTENTS];
};

struct code_piece {
    const struct image_header *image; /* NULL: not attached */
    uint64_t start, end;              /* mapped code */
    struct image_data data;
    uint32_t strays; /* pages of counters or marks that a report found touched, of blocks that had not run when it was made */
};
/* Where its counters are, gs-based. */
static inline uint64_t piece_data(const struct code_piece *p)
{
    return p->data.address ? p->data.address : p->start;
}

struct module {
    struct module *next;
    uint64_t base, end; /* the module's span in the guest */
    uint64_t reserved;  /* bytes of window taken from base (code too) */
    uint64_t code_end;  /* end of the code of all its pieces */
    struct file_id id;
    uint64_t mount; /* that the file was opened on; 0: not known */
    uint8_t content[32];
    uint64_t checksum; /* of the base image that is attached */
    bool has_content, dropped;
    bool displaced;                          /* another module was at its images' place */
    bool awaited;                            /* its place is reserved, none of it is mapped */
    bool kept;                               /* dropped, but its code is still mapped, without execute permission */
    bool sealed, linked;                     /* its links' pointers are read-only; the links are made */
    bool settled;                            /* stores of set marks have been taken out of its code */
    bool vdso_waits;                         /* it is the vdso, and its code has not been asked for */
    struct cached_images images;             /* to attach when its text is mapped */
    uint32_t constants_start, constants_end; /* what those, or the attached ones, take for constant; equal: nothing */
    uint32_t relro_start, relro_end;         /* those of its links' pointers; equal: there are none */
    uint32_t npieces;
    struct code_piece pieces[MODULE_EXTENTS];
    uint32_t jit_blocks;
    uint64_t dropped_at;
    char *path;
    struct module *loaded_next;
    uint32_t notes, last_note;  /* hot.c */
    struct kept_counts *counts; /* of images whose place may be another module's by now */
};

/* Code is replaced by whole pages in one call, since other threads may run in them: a private copy of BYTES of code at FROM to
 * write to, which then comes to START. NULL, false: there is no memory; the code is as before. */
char *code_copy(const void *from, uint64_t bytes);
bool code_replace(uint64_t start, char *pages, uint64_t bytes);
/* CPU time of the process; 0: not known. */
uint64_t process_cpu_ns(void);

/* ---- links (links.c), under core_lock ---- */

/* The guest has made [start, end) read-only. */
void links_seal(uint64_t start, uint64_t end);
/* [start, start + bytes) is not constant any more. */
void links_unseal(uint64_t start, uint64_t bytes);
/* What is at [start, start + bytes) now others may change too. */
void links_refuse(uint64_t start, uint64_t bytes);
/* M's code goes, and is not found any more. */
void links_forget(struct module *m);
/* Asked now and then, not under core_lock: the links are made when the process has run for long enough. */
extern bool links_wait;
void links_make(void);
/* M's code is as in the cache again: its links are made anew. */
void links_restore(struct module *m);

/* ---- marks that are set (settle.c) ---- */

/* Some image has marks whose stores can be taken out: asked now and then. */
extern bool marks_wait;
void marks_settle(void);
/* Under core_lock. The marks have been cleared: all their stores are there again. */
void marks_forget(void);

/* A range of guest addresses that the guest may execute. */
struct exec_region {
    uint64_t start, end;
    struct module *module; /* NULL: anonymous code */
    bool writable;         /* the guest may write it too: pages are write-protected while translated */
};

struct module *module_find(uint64_t address);
/* The first one in `modules` that ends above ADDRESS and is not dropped. */
struct module *module_from(uint64_t address);
/* M was added, but nothing is mapped there. */
void module_void(struct module *m);
struct module *module_add(uint64_t base, uint64_t span, const struct file_id *id, const char *path);
void module_drop(struct module *m);
/* counts.c: M's images leave their place, where others may count: what was counted is kept. Forgets it, in a forked child. */
void counts_keep(struct module *m);
void counts_forget(void);
/* The report has ended. */
void counts_done(void);
/* Appends to the miss log which blocks ran, if the images' counters are in an order that does not suit this program. True: the
 * learner has something to do. */
bool counts_learn(void);
/* Takes M's image away, whose code stays as that of a dropped module's does: M runs by JIT from now on. */
void module_detach(struct module *m);
/* Whether code of M's images is, or was, in [start, end). */
bool module_has_code(const struct module *m, uint64_t start, uint64_t end);
/* Of a dropped one. */
void module_unmap_code(struct module *m);
/* A copy that stays. */
char *heap_string(const char *text);
void module_set_path(struct module *m, const char *path);
extern struct module *modules;        /* ascending */
extern struct module *modules_loaded; /* in order of loading, through loaded_next */

const struct exec_region *exec_find(uint64_t address);
uint64_t exec_next(uint64_t address); /* start of the first executable region above ADDRESS */
bool exec_overlaps(uint64_t start, uint64_t end);
/* The same in PID, another guest, of code that it may write too or any. True: perhaps. */
bool exec_overlaps_in(int pid, uint64_t start, uint64_t end, bool writable);
/* The same of what its images take for constant. */
bool constants_overlap_in(int pid, uint64_t start, uint64_t end);
const struct exec_region *exec_of_module(const struct module *m, uint32_t n);
void exec_add(uint64_t start, uint64_t end, struct module *m, bool writable);
/* Forgets [start, end) as executable; drops the code made from it. */
void exec_remove(uint64_t start, uint64_t end);

#define VDSO_LOW 0x20000ull  /* below all places (host_place.c) */
#define VDSO_ROOM 0x20000ull /* a window's start is kept for the vdso, its data and its code (at +D) */
/* The place for a module of SPAN bytes with IMAGES: theirs, or a free one where they do not help. *DISPLACED: another module is
 * there. 0: the window is full. */
uint64_t module_place(const struct cached_images *images, const uint8_t content[32], uint64_t span, uint64_t align,
                      bool *displaced);
void window_init(uint64_t entropy);
extern uint64_t window_base;
/* The guest has mapped memory of its own where code of modules may go. */
extern bool window_shared;
void window_note(uint64_t start, uint64_t bytes);

void cache_open(void);
/* The store's descriptor is being closed. */
void cache_closing(void);
/* Looks up what is stored for the file. False: its content is not known. */
bool cache_find(const struct file_id *id, uint8_t content[32], struct cached_images *images);
void cache_codegen(struct codegen_key *out);
/* P's code is as in the store again. False: there is no memory. */
bool cache_restore(const struct code_piece *p);
void cache_attach(struct module *m, const struct cached_images *images);
/* The vdso's, on its first use. */
void cache_attach_vdso(struct module *m);
/* The newest record of this kernel's vdso, and its images; NULL: there is none. */
const struct vdso_record *cache_vdso(const void *vdso, struct cached_images *images);

/* The program's start record, in place, or NULL; how many there have been before it. What it says of modules is looked up at
 * once: cache_find and cache_vdso then need not. */
const uint32_t *cache_start_record(const struct file_id *exe, size_t *words, uint32_t *generation);

/* ---- cpuid (cpuid.c) ---- */

/* Looks up in R's transaction what cpuid answers here; what it has found counts after cpuid_verify. */
void cpuid_read(const struct cache_reader *r);
void cpuid_verify(void);
/* From now on each cpuid is executed. */
void cpuid_forget(void);
/* Appends to the miss log that this boot's answers are not known. True: the learner has something to do. */
bool cpuid_wanted(void);

/* ---- hot list (hot.c) ---- */

void hot_open(const struct file_id *id);
uint32_t hot_pairs(void);
void hot_fill(const struct module *m);
code_pc hot_code(const struct module *m, uint64_t pc);
void hot_note(uint64_t pc, code_pc code);
void hot_forget(void);
bool hot_write(void);

/* ---- dispatch (dispatch.c) ---- */

struct ibl_entry {
    uint64_t negated_pc; /* 0: free */
    uint64_t code;
};

/* Code for PC: looks in images and JIT code, translates if there is none. code 0: PC is not executable by the guest. */
code_pc code_lookup(struct thread_ctx *ctx, app_pc pc);
void dispatch_init(struct thread_ctx *ctx);
void ibl_point(struct thread_ctx *ctx);
void ibl_fill(struct thread_ctx *ctx, uint64_t pc, code_pc code);
/* A first table that holds PAIRS, before the guest starts; entries for it. */
void ibl_open(uint32_t pairs);
void ibl_prefill(uint64_t pc, code_pc code);
/* PC's code if the table has it; 0: it does not. */
uint64_t ibl_find(uint64_t pc);
void ibl_visit(void (*fn)(void *user, uint64_t pc, code_pc code), void *user);
/* Sets ctx->resume for ctx->pc. */
code_pc dispatch_resume(struct thread_ctx *ctx); /* value 0: PC is not executable */
/* The same for the program's first instruction, which is M's. */
void dispatch_start(struct thread_ctx *ctx, const struct module *m);
void dispatch_resume_inside(struct thread_ctx *ctx);
/* The far return at ctx->pc (far.c). False: one that is not supported, nothing has changed. */
bool far_return(struct thread_ctx *ctx);
void ibl_purge(uint64_t start, uint64_t end);
void ibl_forget(uint64_t pc);
code_pc code_known_for_module(const struct module *m, uint64_t pc);

/* The app state at a code pc. */
struct code_state {
    uint64_t app;
    bool clean;     /* app pc is right once registers are restored from their homes */
    bool known;     /* CODE is translated code at all */
    bool first;     /* where the app instruction's code starts */
    uint32_t homes; /* GPRs to take from their homes */
};
struct code_state code_state_at(uint64_t code);
code_pc code_inside(const struct exec_region *region, uint64_t pc);
static inline const void *image_part(const struct image_header *image, uint32_t offset)
{
    return (const char *)image + offset;
}

/* ---- JIT (jit_glue.c) ---- */

struct jit_chunk {
    struct jit_chunk *next;
    struct module *module;
    uint64_t base; /* what block offsets are relative to */
    uint64_t start, end;
    const struct image_block *blocks;
    const uint8_t *map;
    const struct image_counter *counters;
    const uint32_t *owners;      /* of each counter, then mark: its block */
    uint64_t app_start, app_end; /* guest addresses its blocks may come from */
    uint32_t nblocks, map_bytes, ncounters, nmarks, meta_bytes;
    void *meta; /* where blocks, map, counters and owners are */
    uint64_t dropped_at;
    bool gone;     /* dropped, and its memory is the guest's */
    bool writable; /* made from pages that the guest may write too: they are write-protected */
};
extern struct jit_chunk *jit_chunks, *jit_dropped;
extern uint64_t drop_generation; /* how often code was dropped */
bool code_reusable(uint64_t dropped_at);
void core_leave(struct thread_ctx *ctx);
code_pc jit_lookup(uint64_t pc);
code_pc jit_miss(struct thread_ctx *ctx, uint64_t pc, const struct exec_region *region);
void jit_drop(uint64_t start, uint64_t end);
bool jit_open_dropped(struct thread_ctx *ctx, uint64_t code);
void jit_close_dropped(struct thread_ctx *ctx);
bool jit_write_fault(struct thread_ctx *ctx, uint64_t address, uint64_t pc);
void jit_protect(uint64_t *start, uint64_t *end, uint64_t low, uint64_t high, int prot);
extern bool jit_guards; /* pages of the guest are, or were, write-protected */
void jit_open_argument(uint64_t address);
bool jit_open_all(void);
extern bool reads_later;   /* the guest has an io_uring or AIO: the kernel may write when no call is made */
extern bool faults_served; /* the guest has a userfaultfd: reading its memory may wait for one of its threads */
/* The first part of an arena in [start, end); false: none. */
bool jit_granule(uint64_t start, uint64_t end, struct place *out);
/* The guest wants [start, end): code there is dropped and the arena given up. */
void jit_make_way(uint64_t start, uint64_t end);

/* ---- the tool (tool_run.c) ---- */

/* Before the first call of weave or report: constructors. */
void tool_prepare(struct thread_ctx *ctx);
void tool_report(struct thread_ctx *ctx, struct bdbi_run *run);
/* The fault SIG, at PC on ADDRESS, is the tool's: one line, and the end. */
_Noreturn void tool_crashed(struct thread_ctx *ctx, int sig, uint64_t pc, uint64_t address);

/* ---- loader (loader.c, stack.c) ---- */

/* Closes FD with others of the start, in one call. */
void close_later(int fd);
void close_now(void);

/* ---- guest OS layer ---- */

void signals_init(struct thread_ctx *ctx);
/* The noted signal is a seccomp filter's. */
bool signal_of_filter(const struct thread_ctx *ctx);
long sys_sigaction_guest(struct thread_ctx *ctx);
long sys_sigprocmask_guest(struct thread_ctx *ctx);
long sys_sigaltstack_guest(struct thread_ctx *ctx);
_Noreturn void sys_sigreturn_guest(struct thread_ctx *ctx);
struct signal_state *signals_copy(const struct signal_state *from);
/* What the guest handles goes back to the default. */
void signals_clear(struct thread_ctx *ctx);
void signals_free_copy(struct signal_state *copy);
/* Enters guest code at ctx->resume with registers of ctx, MASK and FPSTATE (NULL: initial) through rt_sigreturn. */
_Noreturn void enter_by_sigreturn(struct thread_ctx *ctx, uint64_t mask, void *fpstate);
void signals_block_all(uint64_t *old); /* asynchronous ones: faults still come to us */
/* Where not even a synchronous signal that somebody sends may arrive. A fault ends the process. */
void signals_block_really_all(uint64_t *old);
void signals_restore(uint64_t mask);
/* Lets faults come through where everything may be blocked. */
void signals_allow_faults(uint64_t *old);

/* Files mapped shared both to write and to execute (alias.c). */
void alias_add(uint64_t start, uint64_t bytes, int fd, uint64_t offset, int prot);
/* A System V segment, and the bytes of the one at START (0: none). */
void alias_add_segment(uint64_t start, uint64_t bytes, int id, int prot);
uint64_t alias_segment_bytes(uint64_t start);
void alias_forget(uint64_t start, uint64_t end);
/* The guest has moved or resized the mapping at START. */
void alias_move(uint64_t start, uint64_t old_bytes, uint64_t to, uint64_t bytes);
/* The guest has changed the protection of [start, end). */
void alias_change(uint64_t start, uint64_t end, int prot);
bool alias_protect(uint64_t start, uint64_t end);
/* Code at ADDRESS: not in shared memory, in what only this process has, or in what others may write. */
enum alias_kind { ALIAS_NONE, ALIAS_OWN, ALIAS_OTHERS };
enum alias_kind alias_view(uint64_t address);
/* FD is a memory file that this process has made; whether it has made any. */
void alias_made(int fd);
extern uint32_t alias_made_count;
/* Others get what this process has mapped or open. Under core_lock. */
void alias_leaves(void);
void alias_add_anonymous(uint64_t start, uint64_t bytes, int prot);
bool alias_open(uint64_t start, uint64_t end);
bool alias_open_all(void);
void alias_file_written(int fd);
void alias_written(const struct kernel_stat *st);
extern bool alias_executable; /* there has been a shared view to execute */

/* The program asked for an executable stack: code and the kernel's own writes (rseq) then share pages. */
extern bool guest_exec_stack;

long sys_seccomp_guest(struct thread_ctx *ctx);
long sys_prctl_seccomp_guest(struct thread_ctx *ctx);
/* Before the guest changes its root directory: execs need bdbi where /proc may not be. */
void exec_keep_self(void);
/* The x87 unit's last instruction address (fpu.c): after EVENT, an instruction that stores it; in a frame. */
void fpu_saved(struct thread_ctx *ctx, uint64_t event);
void fpu_correct_frame(char *fpstate);
/* Memory of other processes (remote.c). */
extern uint32_t code_rewritten; /* set by another guest: code of this one */
bool remote_read(int pid, void *to, const void *from, size_t bytes);
/* Whether PID runs under this bdbi. */
bool remote_is_guest(uint64_t pid);
/* Whether another guest's program is that file. */
bool remote_runs(uint64_t device, uint64_t inode);
void remote_written(int pid, uint64_t start, uint64_t bytes);
long sys_ptrace_guest(struct thread_ctx *ctx);
long sys_process_vm_writev_guest(struct thread_ctx *ctx);
extern bool guest_ptraces; /* the guest, or its parent before the fork, has called ptrace */
/* Before an exec: what the guest ignores is ignored for real; after one that failed it is not. */
void signals_for_exec(const struct thread_ctx *ctx, bool failed);

/* Synchronous signals that were sent (held.c). */
/* SIG is ignored now: what is held of it is lost, in all threads. */
void held_discard(int sig);
void held_add(struct thread_ctx *ctx, const struct kernel_siginfo *info);
void held_release(struct thread_ctx *ctx, uint64_t set);
void held_send(const struct kernel_siginfo *info);
long sys_sigpending_guest(struct thread_ctx *ctx);
long sys_sigtimedwait_guest(struct thread_ctx *ctx);
long sys_wait_masked_guest(struct thread_ctx *ctx, uint64_t mask);

/* Thread 0 at the start: before the options are known, and again when there is a tool. */
struct thread_ctx *thread_first(void);
struct thread_ctx *thread_first_for_tool(void);
/* BYTES of memory behind the first thread's target cache, which are populated together. NULL: there is none so large. */
void *thread_first_table(size_t bytes);
#define FIRST_TABLE_BYTES 0x50000
/* CTX's target cache, and MORE bytes behind it, unless they are there. */
void thread_populate_targets(struct thread_ctx *ctx, size_t more);
struct thread_ctx *thread_new(void);
void thread_free(struct thread_ctx *ctx);
void thread_set_gs(struct thread_ctx *ctx);
extern struct thread_ctx *threads;
extern bool descriptors_shared; /* with another process, by CLONE_FILES */
long sys_clone_guest(struct thread_ctx *ctx, bool is_clone3, bool is_vfork);
_Noreturn void thread_exit_guest(struct thread_ctx *ctx, int status);

long sys_execve_guest(struct thread_ctx *ctx, int dirfd, const char *path, char **argv, char **envp, int flags);
/* What a file is to execve. */
enum exec_kind { EXEC_GUEST, EXEC_SCRIPT, EXEC_NATIVE };

long mem_mmap(struct thread_ctx *ctx);
long mem_munmap(struct thread_ctx *ctx);
long mem_mprotect(struct thread_ctx *ctx);
long mem_mremap(struct thread_ctx *ctx);
long mem_madvise(struct thread_ctx *ctx);
void mem_written(uint64_t start, uint64_t end);
long mem_shmat(struct thread_ctx *ctx);
long mem_shmdt(struct thread_ctx *ctx);
long mem_mseal(struct thread_ctx *ctx);
long mem_brk(struct thread_ctx *ctx);
/* In a forked child: what it does not have of its parent's memory. */
void mem_forked(void);
long sys_landlock_guest(struct thread_ctx *ctx);

/* Last things before the process ends or execs: report, stats, learner. */
void core_finish(struct thread_ctx *ctx, bool ends);
bool log_append(const void *record, size_t bytes);
/* A record about M: *ROOM offsets may be written from what is returned on, the first N of which log_end appends. NULL: nothing
 * is learned, or not about M. Under core_lock. */
uint32_t *log_begin(struct module *m, struct misslog_record **record, uint32_t *room);
bool log_end(struct misslog_record *record, uint32_t *offsets, uint32_t n);
void learn_miss(struct module *m, uint32_t offset, const struct image_block *blocks, uint32_t n);

bool procfs_is_exe(const char *guest_path);
bool procfs_is_maps(const char *guest_path);
/* Says under --verbose when the guest opens what shows bdbi. */
void procfs_explain(const char *guest_path);
/* Whose memory a path like /proc/PID/mem, or what FD has open, is; 0: it is none. */
int procfs_mem_of(const char *guest_path);
int procfs_mem_open_at(int fd);
long procfs_open_maps(int flags);
void procfs_path_at(uint64_t address, char *out, size_t bytes);
uint32_t procfs_below_vdso(uint64_t vdso, uint32_t *sizes, uint32_t max);
extern const char *guest_exe; /* absolute path of the program */
extern struct place_of_file {
    uint64_t device, inode, mount;
} program_file; /* not on a mount without exec */

void report_stats(struct thread_ctx *ctx);
void report_tool(struct thread_ctx *ctx);

struct core_stats {
    uint64_t load_us, jit_us, jit_blocks, jit_batches, cache_blocks, bytes_mapped, modules, modules_cached, links, settled;
};
extern struct core_stats stats;

/* Symbols of entry.S. */
extern char core_exit_restart[], core_exit_end[], guest_syscall_check[], guest_syscall_insn[], guest_syscall_aborted[],
    guest_pass_end[];
extern char core_ibl_micro[], core_ibl_micro_count[], core_ibl_tiny[], core_ibl_tiny_count[];
extern char core_ibl_small[], core_ibl_big[], core_ibl_huge[], core_ibl_small_count[], core_ibl_big_count[],
    core_ibl_huge_count[];
extern char core_entry_syscall[], core_entry_event[], core_entry_cpuid[], core_cpuid_insn[], core_target_lost[],
    core_target_other[], core_entry_direct[];
extern char core_ibl_stale[], core_ibl_begin[], core_ibl_end[], core_deliver_entry[], core_redispatch_entry[];
extern char core_ill_trap[], core_protection_trap[], core_fetch_trap[], core_copy_begin[], core_copy_end[], core_copy_fault[],
    core_signal_return[];
long guest_syscall(struct thread_ctx *ctx);
_Noreturn void core_exit(void);
_Noreturn void call_on_stack(void *argument, void (*fn)(void *), uint64_t stack_top);
/* Hidden: its address must not come from the translator's GOT. */
__attribute__((visibility("hidden"))) void core_signal_handler(int sig, void *info, void *context);
int core_copy(void *to, const void *from, size_t bytes);

#endif
