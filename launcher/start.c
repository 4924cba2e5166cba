/* SPDX-License-Identifier: Apache-2.0
 *
 * From the kernel's exec of bdbi to the guest's first instruction.
 *
 * core_main decides on the kernel's stack which world this is; for `bdbi run` it takes thread 0's block and goes on there,
 * leaving the kernel's stack to be the guest's. The initial stack is edited in place: the arguments of bdbi are dropped by
 * moving argc up, the auxiliary vector is corrected (System V ABI, AMD64, "Initial Stack and Register State"), so every string
 * is where the kernel put it.
 */
#include "launcher/core.h"
#include "launcher/loader.h"
#include <elf.h>
#include <linux/prctl.h>

#define HWCAP2_FSGSBASE 2
#define USER_END 0x7ffffffff000ull
#define VDSO_CODE_MOST 0x100000 /* more than its translation takes */

const char *guest_exe;
struct place_of_file program_file;
bool have_fsgsbase;
struct core_stats;

struct initial_stack {
    uint64_t *sp; /* -> argc */
    uint64_t argc;
    char **argv, **envp;
    Elf64_auxv_t *auxv;
    size_t nauxv; /* AT_NULL included */
};

static struct initial_stack stack_read(uint64_t *sp)
{
    struct initial_stack s = {.sp = sp, .argc = *sp};
    s.argv = (char **)(sp + 1);
    s.envp = s.argv + s.argc + 1;
    char **p = s.envp;
    while (*p)
        p++;
    s.auxv = (Elf64_auxv_t *)(p + 1);
    while (s.auxv[s.nauxv++].a_type != AT_NULL)
        ;
    return s;
}

static uint64_t *auxv_find(struct initial_stack *s, uint64_t type)
{
    for (size_t i = 0; i < s->nauxv; i++)
        if (s->auxv[i].a_type == type)
            return &s->auxv[i].a_un.a_val;
    return NULL;
}

static uint64_t auxv_value(struct initial_stack *s, uint64_t type)
{
    uint64_t *value = auxv_find(s, type);
    return value ? *value : 0;
}

static void auxv_set(struct initial_stack *s, uint64_t type, uint64_t value)
{
    uint64_t *at = auxv_find(s, type);
    if (at)
        *at = value;
}

/* Drops the first N arguments: argc moves up; when that would misalign the stack, everything up to the strings moves by a word.
 */
static void stack_drop_arguments(struct initial_stack *s, int n)
{
    uint64_t *sp = s->sp + n;
    uint64_t words = (uint64_t)((uint64_t *)(s->auxv + s->nauxv) - sp);
    if (((uint64_t)sp & 15) != 0) {
        memmove(sp - 1, sp, words * 8);
        sp--;
    }
    *sp = s->argc - (uint64_t)n;
    *s = stack_read(sp);
}

static uint64_t monotonic_us(void)
{
    struct kernel_timespec t;
    sys2(__NR_clock_gettime, 1, &t);
    return (uint64_t)t.sec * 1000000 + (uint64_t)t.nsec / 1000;
}

/* Tells the kernel what it would have noted itself: brk, the command line, the auxiliary vector. */
static void set_mm_map(struct initial_stack *s, const struct loaded_elf *exe)
{
    uint64_t argv_end = s->argc ? (uint64_t)s->argv[s->argc - 1] + core_strlen(s->argv[s->argc - 1]) + 1 : 0;
    uint64_t env_end = argv_end;
    for (char **e = s->envp; *e; e++)
        env_end = (uint64_t)*e + core_strlen(*e) + 1;
    uint64_t brk = exe->is_exec ? PAGE_UP(exe->end) : window_base + BDBI_WINDOW_BYTES;
    struct prctl_mm_map map = {
        .start_code = exe->start_code,
        .end_code = exe->end_code,
        .start_data = exe->start_data,
        .end_data = exe->end_data,
        .start_brk = brk,
        .brk = brk,
        .start_stack = (uint64_t)s->sp,
        .arg_start = s->argc ? (uint64_t)s->argv[0] : env_end,
        .arg_end = argv_end,
        .env_start = argv_end,
        .env_end = env_end,
        .auxv = (__u64 *)s->auxv,
        .auxv_size = (uint32_t)(s->nauxv * sizeof *s->auxv),
        .exe_fd = (uint32_t)-1,
    };
    sys5(__NR_prctl, PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
}

/* Moves the vdso at VDSO, of SPAN bytes, and its data to TO. Returns where it is then. */
static uint64_t move_vdso(uint64_t vdso, uint64_t span, uint64_t to)
{
    uint32_t sizes[VDSO_VVAR_MAX + 1], n;
    uint64_t below = 0, code = 0;
    struct cached_images images;
    const struct vdso_record *record = cache_vdso((const void *)vdso, &images);
    if (record && record->nvvar <= VDSO_VVAR_MAX) {
        code = images.code_bytes;
        n = record->nvvar;
        memcpy(sizes, record->vvar_sizes, n * sizeof *sizes);
    } else
        n = procfs_below_vdso(vdso, sizes, VDSO_VVAR_MAX);
    if (n == 0) /* /proc is not there to say where its data is */
        return vdso;
    for (uint32_t i = 0; i < n; i++)
        below += sizes[i];
    sizes[n] = (uint32_t)span;
    if (below + (span > code ? span : code) > VDSO_ROOM)
        return vdso;
    uint64_t from = vdso - below, moved = to + below;
    for (uint32_t i = 0; i <= n; i++) {
        if (sys_failed(sys5(__NR_mremap, from, sizes[i], sizes[i], 3 /* MAYMOVE | FIXED */, to))) /* sealed: it stays */
            return vdso;
        from += sizes[i];
        to += sizes[i];
    }
    return moved;
}

/* The vdso's code is attached when it is first used, at +D like any other's. The vdso is moved only where nothing can be at +D,
 * or below a static-PIE: the kernel places that above the vdso, and glibc's start-up sorts the two by address. */
static void take_vdso(struct initial_stack *s, const struct loaded_elf *exe)
{
    uint64_t *at = auxv_find(s, AT_SYSINFO_EHDR);
    if (!at)
        return;
    const Elf64_Ehdr *e = (const void *)*at;
    struct elf_span of = elf_span((const void *)(*at + e->e_phoff), e->e_phnum);
    uint64_t span = PAGE_UP(of.high - of.low);
    bool static_pie = !exe->is_exec && !exe->interp[0];
    if (static_pie || (!options.native && *at > USER_END - BDBI_CODE_DISTANCE - VDSO_CODE_MOST))
        *at = move_vdso(*at, span, static_pie && exe->base < window_base ? VDSO_LOW : window_base);
    struct module *m = module_add(*at, span, NULL, "[vdso]");
    m->vdso_waits = true;
    exec_add(*at, *at + span, m, false);
}

static void set_exe_path(const char *path)
{
    static char absolute[4096] CORE_LARGE;
    size_t n = 0;
    if (options.close_fd) { /* a file without a name: what the kernel calls it */
        long got = sys4(__NR_readlinkat, AT_FDCWD_, path, absolute, sizeof absolute - 1);
        absolute[got > 0 ? got : 0] = 0;
        guest_exe = absolute;
        return;
    }
    if (path[0] == '/') {
        guest_exe = heap_string(path);
        return;
    }
    long got = sys2(__NR_getcwd, absolute, sizeof absolute);
    if (got > 0) {
        n = core_strlen(absolute);
        if (n > 1)
            absolute[n++] = '/';
    }
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    format(absolute + n, sizeof absolute - n, "%s", path);
    guest_exe = absolute;
}

struct launch {
    uint64_t *sp;
    int prog; /* index in argv */
};

static void run(void *argument)
{
    const struct launch *launch = argument;
    struct initial_stack s = stack_read(launch->sp);
    int prog = launch->prog;
    uint64_t begin = options.stats ? monotonic_us() : 0;
    window_init(auxv_value(&s, AT_SYSINFO_EHDR) >> 12 ^ (uint64_t)s.sp >> 4);

    char *path = options.path ? (char *)options.path : find_program(s.argv[prog], s.envp);
    stack_drop_arguments(&s, prog);
    cache_open();
    struct loaded_elf exe, interp = {0};
    struct exec_target target;
    exec_target_open(&target, path, auxv_value(&s, AT_EUID), true);
    if (target.kind == EXEC_SCRIPT)
        exec_script(&target, path, s.argv, s.envp);
    if (target.kind == EXEC_NATIVE) {
        explain("%s: %s: it runs natively", path, target.why);
        sys3(__NR_execve, path, s.argv, s.envp);
        die(126, "%s: cannot be executed", path);
    }
    set_exe_path(path);
    program_file = (struct place_of_file){target.id.dev, target.id.ino, target.mount};
    if (options.close_fd)
        sys1(__NR_close, options.close_fd);
    load_elf(&target, path, &exe, true);
    if (exe.interp[0]) {
        struct exec_target t;
        exec_target_open(&t, exe.interp, auxv_value(&s, AT_EUID), false);
        if (t.kind != EXEC_GUEST)
            die(126, "%s: its interpreter %s is not an x86-64 ELF file", path, exe.interp);
        load_elf(&t, exe.interp, &interp, false);
    }
    if (!options.child && !options.native)
        explain("addresses: the program is at 0x%x, libraries will be near it or below 0x%x", exe.base,
                (uint64_t)BDBI_MODULES_BYTES);
    cpuid_verify();
    take_vdso(&s, &exe);
    close_now();
    auxv_set(&s, AT_PHDR, exe.phdr);
    auxv_set(&s, AT_PHNUM, exe.phnum);
    auxv_set(&s, AT_PHENT, sizeof(Elf64_Phdr));
    auxv_set(&s, AT_ENTRY, exe.entry);
    auxv_set(&s, AT_BASE, interp.base);
    if (guest_exec_stack && !options.native)
        exec_add(PAGE_DOWN(s.sp) - STACK_REACH, PAGE_UP(auxv_value(&s, AT_EXECFN)), NULL, true);
    const char *execfn = options.execfn ? options.execfn : path;
    auxv_set(&s, AT_EXECFN, (uint64_t)execfn);
    set_mm_map(&s, &exe);
    sys2(__NR_prctl, PR_SET_NAME, options.comm ? options.comm : core_basename(execfn));

    struct thread_ctx *ctx = ctx_self();
    memset(ctx->gpr, 0, sizeof ctx->gpr);
    ctx->gpr[RSP] = (uint64_t)s.sp;
    ctx->pc = interp.entry ? interp.entry : exe.entry;
    ctx->flags = 0x202;
    if (options.native) {
        ctx->resume = ctx->pc;
        core_exit();
    }
    thread_map_counters(ctx);
    signals_init(ctx);
    dispatch_init(ctx);
    dispatch_start(ctx, interp.entry ? interp.module : exe.module);
    if (options.stats)
        stats.load_us = monotonic_us() - begin;
    core_exit();
}

static void read_options(void *argument)
{
    struct launch *launch = argument;
    struct initial_stack s = stack_read(launch->sp);
    launch->prog = options_parse((int)s.argc, s.argv, s.envp);
    if (options.tool)
        call_on_stack(launch, run, thread_first_for_tool()->core_sp);
    run(launch);
}

int core_main(uint64_t *sp);
int core_main(uint64_t *sp)
{
    struct initial_stack s = stack_read(sp);
    if (s.argc < 2 || core_strcmp(s.argv[1], "run") || !core_strcmp(core_basename(s.argv[0]), "bdbi-warm"))
        return 0;
    have_fsgsbase = auxv_value(&s, AT_HWCAP2) & HWCAP2_FSGSBASE;
    static struct launch launch;
    launch.sp = sp;
    call_on_stack(&launch, read_options, thread_first()->core_sp);
}
