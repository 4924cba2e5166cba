/* SPDX-License-Identifier: Apache-2.0
 *
 * Synchronous faults with everything the handler is told, and handlers that change what they return to.
 */
#include "subcases.h"
#include <immintrin.h>
#include <setjmp.h>
#include <stddef.h>
#include <ucontext.h>

static greg_t expected_rip;
static long skip; /* bytes the handler moves rip by */
static volatile int seen;
static uintptr_t region;
static int compare_rip = 1;

/* Addresses as what they are, so that they compare. */
static void print_address(const char *what, uintptr_t at)
{
    if (at < 65536 || at > (uintptr_t)0xffff << 48)
        printf(" %s %lx", what, at);
    else if (at == (uintptr_t)expected_rip)
        printf(" %s rip", what);
    else if (at >= region && at < region + 65536)
        printf(" %s region+%lx", what, at - region);
    else
        printf(" %s other", what);
}

static void tell(int sig, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    printf("signal %d code %d errno %d", sig, info->si_code, info->si_errno);
    print_address("at", (uintptr_t)info->si_addr);
    printf(" trapno %lld err %llx", g[REG_TRAPNO], g[REG_ERR]);
    if (g[REG_TRAPNO] == 14)
        print_address("cr2", (uintptr_t)g[REG_CR2]);
    printf(" rip %s", g[REG_RIP] == expected_rip + (sig == SIGTRAP ? skip : 0) || !compare_rip ? "as expected" : "elsewhere");
    printf(" csgsfs %llx\n", g[REG_CSGSFS] & 0xffff);
    seen++;
    g[REG_RIP] += sig == SIGTRAP ? 0 : skip; /* a trap is reported behind its instruction */
}

static void on(int sig, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    MUST(sigaction(sig, &action, NULL) == 0);
}

static void on_faults(void)
{
    static const int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (int i = 0; i < 5; i++)
        on(all[i], tell);
}

/* Runs one instruction that faults; labels 1 and 2 are around it. */
#define FAULT(text, ...)                                                                                                       \
    do {                                                                                                                       \
        on_faults();                                                                                                           \
        __asm__ volatile(                                                                                                      \
            "lea 1f(%%rip), %%rax\n\tmov %%rax, %0\n\tlea 2f(%%rip), %%rcx\n\tsub %%rax, %%rcx\n\tmov %%rcx, %1\n"             \
            "\txor %%eax, %%eax\n\txor %%edx, %%edx\n\txor %%ecx, %%ecx\n1:\t" text "\n2:\n"                                   \
            : "=m"(expected_rip), "=m"(skip)                                                                                   \
            : __VA_ARGS__                                                                                                      \
            : "rax", "rcx", "rdx", "cc", "memory", "xmm0", "xmm1");                                                            \
        printf("on, seen %d\n", seen);                                                                                         \
    } while (0)

static char *pages(int n, int prot)
{
    char *p = mmap(NULL, (size_t)n * 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(p != MAP_FAILED);
    region = (uintptr_t)p;
    return p;
}

SUBCASE(read_unmapped)
{
    char *p = pages(1, PROT_READ);
    munmap(p, 4096);
    FAULT("mov 8(%2), %%rax", "r"(p));
}

SUBCASE(write_unmapped)
{
    char *p = pages(1, PROT_READ);
    munmap(p, 4096);
    FAULT("movb $1, 9(%2)", "r"(p));
}

SUBCASE(write_read_only)
{
    FAULT("incl 4(%2)", "r"(pages(1, PROT_READ)));
}

SUBCASE(read_no_access)
{
    FAULT("testb $1, (%2)", "r"(pages(1, PROT_NONE)));
}

SUBCASE(read_across_pages)
{
    char *p = pages(2, PROT_READ);
    mprotect(p + 4096, 4096, PROT_NONE);
    FAULT("mov 4092(%2), %%rax", "r"(p));
}

SUBCASE(null_pointer)
{
    FAULT("mov 0x10, %%eax", "r"(0L));
}

SUBCASE(non_canonical)
{
    FAULT("mov (%2), %%al", "r"(1L << 62));
}

SUBCASE(kernel_address)
{
    FAULT("mov (%2), %%al", "r"(-4096L));
}

SUBCASE(rip_relative_out_of_file)
{
    if ((uintptr_t)on_faults >> 32) /* as far as that nothing is below */
        FAULT("mov -0x7f000000(%%rip), %%al", "r"(0L));
    else
        FAULT("mov -0x28000000(%%rip), %%al", "r"(0L));
}

SUBCASE(push_to_no_stack)
{
    on_faults();
    region = (uintptr_t)pages(1, PROT_NONE);
    stack_t alternate = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    __asm__ volatile("lea 1f(%%rip), %%rax\n\tmov %%rax, %0\n\tmovq $2, %1\n\tmov %%rsp, %%rbx\n\tlea 64(%2), %%rsp\n"
                     "1:\tpushq %%rdx\n\tnop\n\tmov %%rbx, %%rsp"
                     : "=m"(expected_rip), "=m"(skip)
                     : "r"(region)
                     : "rax", "rbx", "memory");
    printf("on\n");
}

SUBCASE(call_with_no_stack)
{
    region = (uintptr_t)pages(1, PROT_NONE);
    stack_t alternate = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    __asm__ volatile("lea 1f(%%rip), %%rax\n\tmov %%rax, %0\n\tlea 2f(%%rip), %%rcx\n\tsub %%rax, %%rcx\n\tmov %%rcx, %1\n"
                     "\tmov %%rsp, %%rbx\n\tlea 64(%2), %%rsp\n"
                     "1:\tcall 3f\n2:\tmov %%rbx, %%rsp\n\tjmp 4f\n3:\tud2\n4:"
                     : "=m"(expected_rip), "=m"(skip)
                     : "r"(region)
                     : "rax", "rbx", "rcx", "memory");
    printf("on\n");
}

SUBCASE(ret_with_no_stack)
{
    region = (uintptr_t)pages(1, PROT_NONE);
    stack_t alternate = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    __asm__ volatile("lea 1f(%%rip), %%rax\n\tmov %%rax, %0\n\tmovq $1, %1\n\tmov %%rsp, %%rbx\n\tlea 64(%2), %%rsp\n"
                     "1:\tret\n\tmov %%rbx, %%rsp"
                     : "=m"(expected_rip), "=m"(skip)
                     : "r"(region)
                     : "rax", "rbx", "memory");
    printf("on\n");
}

SUBCASE(indirect_jump_through_bad_memory)
{
    FAULT("jmp *24(%2)", "r"(pages(1, PROT_NONE)));
}

SUBCASE(indirect_call_through_bad_memory)
{
    FAULT("call *(%2)", "r"(pages(1, PROT_NONE)));
}

SUBCASE(divide_by_zero)
{
    FAULT("divl %%ecx", "r"(0L));
}

SUBCASE(x87_divide)
{
    __asm__ volatile("fldcw %0" : : "m"((short){0x33b}));
    __asm__ volatile("fldz\n\tfld1\n\tfdivp" ::: "memory");
    FAULT("fwait", "r"(0L));
    __asm__ volatile("fninit");
}

SUBCASE(sse_divide)
{
    unsigned csr = _mm_getcsr();
    _mm_setcsr(csr & ~(unsigned)_MM_MASK_DIV_ZERO);
    float one = 1, zero = 0;
    __asm__ volatile("movss %0, %%xmm0\n\tmovss %1, %%xmm1" : : "m"(one), "m"(zero) : "xmm0", "xmm1");
    FAULT("divss %%xmm1, %%xmm0", "r"(0L));
}

SUBCASE(aligned_access)
{
    FAULT("movaps 1(%2), %%xmm0", "r"(pages(1, PROT_READ)));
}

SUBCASE(undefined_instruction)
{
    FAULT("ud2", "r"(0L));
}

SUBCASE(undefined_bytes)
{
    FAULT(".byte 0x0f, 0xff, 0xc0, 0x90", "r"(0L));
}

SUBCASE(locked_register)
{
    FAULT(".byte 0xf0, 0x01, 0xc8", "r"(0L)); /* lock add eax, ecx */
}

SUBCASE(privileged_hlt)
{
    FAULT("hlt", "r"(0L));
}

SUBCASE(privileged_port)
{
    FAULT("in $0x80, %%al", "r"(0L));
}

SUBCASE(privileged_register)
{
    FAULT("mov %%cr0, %%rax", "r"(0L));
}

SUBCASE(breakpoint)
{
    FAULT(".byte 0xcc", "r"(0L));
}

SUBCASE(breakpoint_long)
{
    FAULT(".byte 0xcd, 3", "r"(0L));
}

SUBCASE(interrupt_vector)
{
    FAULT("int $0x20", "r"(0L));
}

SUBCASE(file_past_its_end)
{
    int fd = memfd_create("short", 0);
    MUST(ftruncate(fd, 4096) == 0);
    char *p = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
    region = (uintptr_t)p;
    FAULT("mov 4100(%2), %%eax", "r"(p));
}

static sigjmp_buf back;

static void tell_and_leap(int sig, siginfo_t *info, void *context)
{
    tell(sig, info, context);
    siglongjmp(back, 1);
}

static void jump_to(void *where)
{
    static const int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (int i = 0; i < 5; i++)
        on(all[i], tell_and_leap);
    expected_rip = (greg_t)where;
    if (sigsetjmp(back, 1) == 0)
        ((void (*)(void))where)();
    if (sigsetjmp(back, 1) == 0)
        __asm__ volatile("jmp *%0" : : "r"(where));
    if (sigsetjmp(back, 1) == 0)
        __asm__ volatile("push %0\n\tret" : : "r"(where));
}

SUBCASE(jump_to_null)
{
    jump_to(NULL);
}

SUBCASE(jump_to_unmapped)
{
    char *p = pages(1, PROT_READ);
    munmap(p, 4096);
    jump_to(p);
}

SUBCASE(jump_to_data)
{
    char *p = pages(1, PROT_READ | PROT_WRITE);
    memset(p, 0xc3, 4096);
    jump_to(p + 5);
}

SUBCASE(jump_to_kernel)
{
    jump_to((void *)-4096L);
}

SUBCASE(jump_to_non_canonical)
{
    compare_rip = 0; /* some CPUs name the branch, some the target */
    jump_to((void *)(1L << 60));
}

SUBCASE(jump_to_page_without_access)
{
    char *p = pages(1, PROT_READ | PROT_WRITE | PROT_EXEC);
    memset(p, 0xc3, 4096);
    ((void (*)(void))p)();
    mprotect(p, 4096, PROT_NONE);
    jump_to(p);
}

SUBCASE(code_into_missing_page)
{
    char *p = pages(2, PROT_READ | PROT_WRITE | PROT_EXEC);
    memset(p, 0x90, 4096);
    munmap(p + 4096, 4096);
    for (int i = 0; i < 5; i++)
        on(SIGSEGV, tell_and_leap);
    expected_rip = (greg_t)(p + 4096);
    if (sigsetjmp(back, 1) == 0)
        ((void (*)(void))(p + 4000))();
}

SUBCASE(instruction_into_missing_page)
{
    char *p = pages(2, PROT_READ | PROT_WRITE | PROT_EXEC);
    memset(p, 0x90, 4096);
    memcpy(p + 4093, "\x48\xb8\x01", 3); /* the start of a movabs */
    munmap(p + 4096, 4096);
    on(SIGSEGV, tell_and_leap);
    expected_rip = (greg_t)(p + 4093);
    if (sigsetjmp(back, 1) == 0)
        ((void (*)(void))(p + 4000))();
}

/* ---- registers at the fault, and changed by the handler ---- */

static void print_registers(int sig, siginfo_t *info, void *context)
{
    static const int all[] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_RBP, REG_R8,
                              REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)sig, (void)info;
    for (int i = 0; i < 15; i++) {
        printf(" %llx", g[all[i]]);
        g[all[i]] = g[all[i]] * 16 + 1;
    }
    printf(" flags %llx\n", g[REG_EFL] & 0x246dd5);
    g[REG_RIP] += 2;
    g[REG_EFL] ^= 0x8d5;
}

static volatile uint64_t after[16] __attribute__((used));

SUBCASE(all_registers)
{
    on(SIGILL, print_registers);
    __asm__ volatile(
        "push %%rbp\n\tpush %%rbx\n\tmov $0x11, %%eax\n\tmov $0x22, %%ebx\n\tmov $0x33, %%ecx\n\tmov $0x44, %%edx\n"
        "\tmov $0x55, %%esi\n\tmov $0x66, %%edi\n\tmov $0x77, %%ebp\n\tmov $0x88, %%r8d\n\tmov $0x99, %%r9d\n"
        "\tmov $0xaa, %%r10d\n\tmov $0xbb, %%r11d\n\tmov $0xcc, %%r12d\n\tmov $0xdd, %%r13d\n\tmov $0xee, %%r14d\n"
        "\tmov $0xff, %%r15d\n\ttest %%eax, %%eax\n\tstc\n\tud2\n"
        "\tmov %%rax, after(%%rip)\n\tmov %%rbx, 8+after(%%rip)\n\tmov %%rcx, 16+after(%%rip)\n"
        "\tmov %%rdx, 24+after(%%rip)\n\tmov %%rsi, 32+after(%%rip)\n\tmov %%rdi, 40+after(%%rip)\n"
        "\tmov %%rbp, 48+after(%%rip)\n\tmov %%r8, 56+after(%%rip)\n\tmov %%r15, 64+after(%%rip)\n"
        "\tpushfq\n\tpopq 72+after(%%rip)\n\tpop %%rbx\n\tpop %%rbp"
        :
        :
        : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    for (int i = 0; i < 9; i++)
        printf(" %lx", after[i]);
    printf(" flags %lx\n", after[9] & 0xdd5);
}

static void change_vectors(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)sig, (void)info;
    struct _libc_fpstate *fp = uc->uc_mcontext.fpregs;
    printf("xmm3 %08x, mxcsr %x, cwd %x, swd %x\n", fp->_xmm[3].element[0], fp->mxcsr, fp->cwd, fp->swd);
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 4; k++)
            fp->_xmm[i].element[k] += 0x01010101u * (unsigned)(i + 1);
    fp->mxcsr ^= 0x8040; /* flush to zero, denormals are zero */
    fp->cwd ^= 0xc00;    /* rounding */
    uc->uc_mcontext.gregs[REG_RIP] += 2;
}

SUBCASE(vector_registers_changed)
{
    unsigned out[4] = {0}, csr, first = 0x30303030;
    unsigned short control = 0;
    on(SIGILL, change_vectors);
    __asm__ volatile("movd %3, %%xmm3\n\tpshufd $0, %%xmm3, %%xmm3\n\tud2\n\tmovups %%xmm3, %0\n\tstmxcsr %1\n\tfnstcw %2"
                     : "=m"(out), "=m"(csr), "=m"(control)
                     : "r"(first)
                     : "xmm3");
    printf("%08x %08x %08x %08x, mxcsr %x, control %x\n", out[0], out[1], out[2], out[3], csr, control);
}

/* The upper halves are in the XSAVE area behind the FXSAVE part. */
static void change_upper(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    char *fp = (char *)uc->uc_mcontext.fpregs;
    uint32_t magic, bytes;
    uint64_t features, present;
    (void)sig, (void)info;
    memcpy(&magic, fp + 464, 4);
    memcpy(&bytes, fp + 468, 4);
    memcpy(&features, fp + 472, 8);
    memcpy(&present, fp + 512, 8);
    uint32_t tail;
    memcpy(&tail, fp + bytes - 4, 4);
    printf("magic %x, magic at the end %x, extended %d, sse and avx present %lx\n", magic, tail, bytes > 576, present & 6);
    uint32_t *upper = (uint32_t *)(fp + 576);
    printf("upper half %08x\n", upper[3 * 4]);
    for (int i = 0; i < 64; i++)
        upper[i] ^= 0xffffffff;
    uc->uc_mcontext.gregs[REG_RIP] += 2;
}

SUBCASE(upper_halves_changed)
{
    unsigned out[8] = {0};
    if (!__builtin_cpu_supports("avx")) {
        printf("no AVX\n");
        return;
    }
    on(SIGILL, change_upper);
    __asm__ volatile("vmovd %1, %%xmm3\n\tvpshufd $0, %%xmm3, %%xmm3\n\tvinsertf128 $1, %%xmm3, %%ymm3, %%ymm3\n\tud2\n"
                     "\tvmovups %%ymm3, %0\n\tvzeroupper"
                     : "=m"(out)
                     : "r"(0x12345678)
                     : "xmm3");
    for (int i = 0; i < 8; i++)
        printf(" %08x", out[i]);
    printf("\n");
}

static void use_all_vectors(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info, (void)context;
    if (__builtin_cpu_supports("avx512f"))
        __asm__ volatile("vpternlogd $255, %%zmm0, %%zmm0, %%zmm0\n\tvmovups %%zmm0, %%zmm3\n\tvmovups %%zmm0, %%zmm19\n"
                         "\tkxnorw %%k1, %%k1, %%k1" ::
                             : "memory");
    else
        __asm__ volatile("pcmpeqd %%xmm3, %%xmm3" ::: "xmm3");
    __asm__ volatile("fninit\n\tfldpi");
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

SUBCASE(wide_registers_kept)
{
    unsigned out[32], mask = 0;
    if (!__builtin_cpu_supports("avx512f")) {
        printf("no AVX-512\n");
        return;
    }
    on(SIGILL, use_all_vectors);
    __asm__ volatile(
        "vpbroadcastd %3, %%zmm3\n\tvpbroadcastd %3, %%zmm19\n\tvpslld $4, %%zmm19, %%zmm19\n\tkmovw %3, %%k1\n\tud2\n"
        "\tvmovups %%zmm3, %0\n\tvmovups %%zmm19, %1\n\tkmovw %%k1, %2\n\tvzeroupper"
        : "=m"(*(unsigned(*)[16])out), "=m"(*(unsigned(*)[16])(out + 16)), "=r"(mask)
        : "r"(0x0badcafe)
        : "xmm3", "memory");
    for (int i = 0; i < 32; i += 5)
        printf(" %08x", out[i]);
    printf(" mask %x\n", mask);
}

SUBCASE(x87_stack_kept)
{
    double a = 0, b = 0;
    on(SIGILL, use_all_vectors);
    __asm__ volatile("fninit\n\tfld1\n\tfldl2e\n\tud2\n\tfstpl %0\n\tfstpl %1" : "=m"(a), "=m"(b));
    printf("%.17g %.17g\n", a, b);
}

static void entry_state(int sig, siginfo_t *info, void *context)
{
    unsigned long flags;
    unsigned csr;
    unsigned short control, status;
    (void)sig, (void)info;
    __asm__ volatile("pushfq\n\tpopq %0\n\tstmxcsr %1\n\tfnstcw %2\n\tfnstsw %3"
                     : "=r"(flags), "=m"(csr), "=m"(control), "=m"(status));
    printf("direction %lx, mxcsr %x, control %x, status %x\n", flags & 0x400, csr, control, status);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

SUBCASE(handler_starts_clean)
{
    unsigned csr = 0x9fc0;
    unsigned long flags;
    on(SIGILL, entry_state);
    __asm__ volatile("ldmxcsr %1\n\tfld1\n\tfldz\n\tstd\n\tud2\n\tpushfq\n\tpopq %0\n\tcld" : "=r"(flags) : "m"(csr) : "cc");
    printf("after: direction %lx, mxcsr %x\n", flags & 0x400, _mm_getcsr());
}

SUBCASE(handler_stack_is_aligned)
{
    on(SIGILL, entry_state);
    __asm__ volatile("mov %%rsp, %%rbx\n\tsub $1000, %%rsp\n\tand $-16, %%rsp\n\tsub $5, %%rsp\n\tud2\n\tmov %%rbx, %%rsp" ::
                         : "rbx", "memory");
}

static void check_red_zone(int sig, siginfo_t *info, void *context)
{
    volatile char big[3000];
    (void)sig, (void)info;
    memset((char *)big, 0x77, sizeof big);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

SUBCASE(red_zone_kept)
{
    long value = 0;
    on(SIGILL, check_red_zone);
    __asm__ volatile("movq $0x1234, -8-512(%%rsp)\n\tsub $400, %%rsp\n\tmovq $0x4321, -128(%%rsp)\n\tud2\n"
                     "\tmov -128(%%rsp), %0\n\tadd $400, %%rsp"
                     : "=r"(value)::"memory");
    printf("%lx\n", value);
}

static void __attribute__((used)) arrived(long a, long b)
{
    printf("arrived with %lx, aligned %d\n", a, (b & 15) == 0);
    exit(seen);
}

static void redirect(int sig, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)sig, (void)info;
    g[REG_RIP] = (greg_t)arrived;
    g[REG_RDI] = 0x123;
    g[REG_RSI] = 0x456;
    g[REG_RSP] = (g[REG_RSP] & -16) - 4096 - 8;
}

SUBCASE(redirected)
{
    on(SIGILL, redirect);
    __asm__ volatile("ud2");
}

static void bad_rip(int sig, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)sig, (void)info;
    if (seen++ == 0)
        g[REG_RIP] = 0x1234;
    else {
        printf("signal %d at %llx\n", sig, g[REG_RIP]);
        g[REG_RIP] = (greg_t)arrived;
        g[REG_RSI] = 0;
        g[REG_RSP] = (g[REG_RSP] & -16) - 8;
    }
}

SUBCASE(redirected_nowhere)
{
    on(SIGILL, bad_rip);
    on(SIGSEGV, bad_rip);
    __asm__ volatile("ud2");
}

static void bad_stack_later(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)info, (void)context;
    __asm__ volatile("mov $15, %eax\n\tmov $64, %rsp\n\tsyscall"); /* rt_sigreturn from nowhere */
}

SUBCASE(sigreturn_from_nowhere)
{
    on(SIGILL, bad_stack_later);
    __asm__ volatile("ud2");
}

static void mask_change(int sig, siginfo_t *info, void *context)
{
    sigset_t *set = &((ucontext_t *)context)->uc_sigmask;
    (void)sig, (void)info;
    printf("mask has USR1 %d, SEGV %d\n", sigismember(set, SIGUSR1), sigismember(set, SIGSEGV));
    sigaddset(set, SIGUSR1);
    sigaddset(set, SIGSEGV);
    sigaddset(set, SIGKILL);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

SUBCASE(handler_changes_mask)
{
    sigset_t now;
    on(SIGILL, mask_change);
    __asm__ volatile("ud2");
    sigprocmask(SIG_BLOCK, NULL, &now);
    for (int sig = 1; sig <= 64; sig++)
        if (sigismember(&now, sig) == 1)
            printf(" %d", sig);
    printf("\n");
}

static ucontext_t kept;
static char kept_fp[16384] __attribute__((aligned(64)));

static void keep_frame(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uint32_t bytes;
    (void)sig, (void)info;
    memcpy(&bytes, (char *)uc->uc_mcontext.fpregs + 468, 4);
    kept = *uc;
    memcpy(kept_fp, uc->uc_mcontext.fpregs, bytes < sizeof kept_fp ? bytes : sizeof kept_fp);
    kept.uc_mcontext.fpregs = (void *)kept_fp;
    uc->uc_mcontext.gregs[REG_RIP] += 2;
}

static void after_sigreturn(void)
{
    printf("arrived by a frame of our own, seen %d\n", ++seen);
    if (seen == 3)
        exit(0);
    kept.uc_mcontext.gregs[REG_RIP] = (greg_t)after_sigreturn;
    kept.uc_mcontext.gregs[REG_RSP] = ((greg_t)malloc(100000) + 90000) / 16 * 16 - 8;
    __asm__ volatile("mov %0, %%rsp\n\tmov $15, %%eax\n\tsyscall" : : "r"(&kept) : "memory");
}

SUBCASE(sigreturn_by_hand)
{
    on(SIGILL, keep_frame);
    __asm__ volatile("ud2");
    after_sigreturn();
}

SUBCASE(sigreturn_by_hand_without_fpu)
{
    on(SIGILL, keep_frame);
    __asm__ volatile("ud2");
    kept.uc_mcontext.fpregs = NULL;
    after_sigreturn();
}

SUBCASE(sigreturn_by_hand_bad_fpu)
{
    on(SIGILL, keep_frame);
    __asm__ volatile("ud2");
    kept.uc_mcontext.fpregs = (void *)64;
    after_sigreturn();
}

static void count_steps(int sig, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (seen++ < 3)
        printf("step %d: signal %d code %d trapno %lld, flags %llx\n", seen, sig, info->si_code, g[REG_TRAPNO],
               g[REG_EFL] & 0x100);
    if (seen == 6)
        g[REG_EFL] &= ~0x100ll;
}

SUBCASE(trap_flag)
{
    on(SIGTRAP, count_steps);
    __asm__ volatile("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop" ::
                         : "cc", "memory");
    printf("steps %d\n", seen);
}

static void set_trap_flag(int sig, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)sig, (void)info;
    g[REG_RIP] += 2;
    g[REG_EFL] |= 0x100;
}

SUBCASE(trap_flag_from_handler)
{
    on(SIGTRAP, count_steps);
    on(SIGILL, set_trap_flag);
    __asm__ volatile("ud2\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop" ::: "cc", "memory");
    printf("steps %d\n", seen);
}

static void step_over(int sig, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)info;
    printf("signal %d, rip - start %lld\n", sig, g[REG_RIP] - expected_rip);
    if (++seen == 4)
        g[REG_EFL] &= ~0x100ll;
}

SUBCASE(trap_flag_positions)
{
    on(SIGTRAP, step_over);
    __asm__ volatile("lea 1f(%%rip), %%rax\n\tmov %%rax, %0\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n"
                     "1:\tnop\n\tlea 2f(%%rip), %%rax\n\tjmp *%%rax\n\tud2\n2:\tcall 3f\n\tnop\n\tjmp 4f\n3:\tret\n4:"
                     : "=m"(expected_rip)::"cc", "memory", "rax");
}

static void unaligned(int sig, siginfo_t *info, void *context)
{
    seen = sig * 100 + info->si_code; /* AC is still set: no library calls */
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x40000ll;
}

SUBCASE(alignment_check)
{
    long value[2] = {1, 2}, got;
    on(SIGBUS, unaligned);
    __asm__ volatile("pushfq\n\torq $0x40000, (%%rsp)\n\tpopfq\n\tmov 1(%1), %0" : "=&r"(got) : "r"(value) : "cc", "memory");
    printf("%lx %d\n", got, seen);
}

SUBCASE(fault_in_repeated_instruction)
{
    char *p = pages(2, PROT_READ | PROT_WRITE);
    long left = 100;
    char *at = p + 4000;
    mprotect(p + 4096, 4096, PROT_NONE);
    on(SIGSEGV, tell_and_leap);
    if (sigsetjmp(back, 1) == 0)
        __asm__ volatile("lea 1f(%%rip), %%rax\n\tmov %%rax, %2\n\tmov $7, %%al\n1:\trep stosb"
                         : "+c"(left), "+D"(at), "=m"(expected_rip)::"rax", "memory");
    printf("last %d\n", p[4095]);
}

static void give_access(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    seen++;
    mprotect((void *)((uintptr_t)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE);
}

SUBCASE(fault_repaired_and_tried_again)
{
    char *p = pages(16, PROT_NONE);
    on(SIGSEGV, give_access);
    for (int i = 0; i < 16; i++)
        p[i * 4096 + i] = (char)i;
    memset(p, 5, 16 * 4096);
    printf("faults %d\n", seen);
}
