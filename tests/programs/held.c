/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that leave the flags alone and give a register away: they overwrite it, or end in a branch. With a tool, a counter may
 * keep that register's value elsewhere for part of the block. In each the first instruction faults: the frame must have every
 * register and flag, what the handler changes in it must arrive, and so must all registers at the block's end.
 */
#include "check.h"
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>

#define FLAGS 0x8d5u /* OF SF ZF AF PF CF */

uint64_t in[16], out[16], in_flags, out_flags; /* in encoding order; [4] unused */
void (*block)(void);
void enter_block(void);
static char *page;
static greg_t frame[16], frame_flags;
static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* clang-format off */
__asm__(".text\n"
        "enter_block: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "pushq in_flags(%rip); popfq\n"
        "mov in(%rip), %rax; mov in+8(%rip), %rcx; mov in+16(%rip), %rdx; mov in+24(%rip), %rbx\n"
        "mov in+40(%rip), %rbp; mov in+48(%rip), %rsi; mov in+56(%rip), %rdi; mov in+64(%rip), %r8\n"
        "mov in+72(%rip), %r9; mov in+80(%rip), %r10; mov in+88(%rip), %r11; mov in+96(%rip), %r12\n"
        "mov in+104(%rip), %r13; mov in+112(%rip), %r14; mov in+120(%rip), %r15\n"
        "call *block(%rip)\n"
        "mov %rax, out(%rip); mov %rcx, out+8(%rip); mov %rdx, out+16(%rip); mov %rbx, out+24(%rip)\n"
        "mov %rbp, out+40(%rip); mov %rsi, out+48(%rip); mov %rdi, out+56(%rip); mov %r8, out+64(%rip)\n"
        "mov %r9, out+72(%rip); mov %r10, out+80(%rip); mov %r11, out+88(%rip); mov %r12, out+96(%rip)\n"
        "mov %r13, out+104(%rip); mov %r14, out+112(%rip); mov %r15, out+120(%rip)\n"
        "pushfq; popq out_flags(%rip)\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"
        "leaf_clear: mov $0, %ecx; jmp leaf\n"
        "leaf: pushfq; pop %r9; and $0x8d5, %r9d; ret\n"
        "flags_back: pushq in_flags(%rip); popfq; ret\n"
        /* The name and code of each go to the table below. */
        ".macro one name, code:vararg\n"
        " .pushsection .rodata\n 9: .asciz \"\\name\"\n .popsection\n"
        " 8: movups (%rdi), %xmm1\n \\code\n"
        " .pushsection .data.rel.ro, \"aw\"\n .balign 8\n .quad 9b, 8b\n .popsection\n"
        ".endm\n"
        ".pushsection .data.rel.ro, \"aw\"\n .balign 8\n blocks:\n .popsection\n"
        ".irp r, rax, rcx, rdx, rbx, rbp, rsi, r8, r9, r10, r11, r12, r13, r14, r15\n"
        " one \\r, movabs $0x123456789a, %\\r; ret\n"
        ".endr\n"
        "one mov32, mov %ebx, %ecx; ret\n"
        "one load, mov 8(%rdi), %rcx; ret\n"
        "one lea, lea 5(%rax), %edx; ret\n"
        "one movzx, movzwl %si, %r10d; ret\n"
        "one movsx, movsbq %sil, %r9; ret\n"
        "one movsxd, movslq %esi, %r8; ret\n"
        "one pop, push %rbx; pop %rsi; ret\n"
        "one store_imm, movl $7, %ebp; ret\n"
        "one other_fault, mov $1, %eax; movups 16(%rdi), %xmm2; mov $2, %ecx; ret\n"
        /* None of these overwrites all of it. */
        "one part8, mov $7, %dl; ret\n"
        "one part16, mov $7, %si; ret\n"
        "one set, setc %dl; ret\n"
        "one reads, mov (%rdi, %rcx), %rcx; ret\n"
        "one cmov, cmovc %rsi, %rdx; ret\n"
        "one cmov_not, cmovnc %rsi, %rdx; ret\n"
        /* Its end. */
        "one ret, ret\n"
        "one ret_n, push %rdx; push 8(%rsp); ret $16\n"
        "one ret_far_rcx, mov %cl, %al; ret\n"
        "one jump, jmp *%r11\n"
        "one jump_memory, jmp *jump_target(%rip)\n"
        "one jump_rcx, lea leaf_clear(%rip), %rcx; jmp *%rcx\n"
        "one call, call leaf; jmp flags_back\n"
        "one call_rax, mov %al, %cl; call leaf; jmp flags_back\n"
        "one call_indirect, call *%r11; jmp flags_back\n"
        "one call_memory, call *jump_target(%rip); jmp flags_back\n"
        ".pushsection .data.rel.ro, \"aw\"\n .quad 0\n .balign 8\n jump_target: .quad leaf\n .popsection\n");
/* clang-format on */
extern const struct {
    const char *name;
    void (*code)(void);
} blocks[];
extern void (*jump_target)(void);

static void on_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)sig, (void)info;
    for (int i = 0; i < 16; i++)
        frame[i] = uc->uc_mcontext.gregs[greg_of[i]];
    frame_flags = uc->uc_mcontext.gregs[REG_EFL];
    for (int i = 0; i < 16; i++)
        if (greg_of[i] != REG_RSP && greg_of[i] != REG_RDI && greg_of[i] != REG_R11 && greg_of[i] != REG_RCX)
            uc->uc_mcontext.gregs[greg_of[i]] ^= 0x5500;
    uc->uc_mcontext.gregs[REG_RCX] += 8; /* still an offset in the page */
    mprotect(page, 4096, PROT_READ);
}

static void show(const char *what, const uint64_t *values, uint64_t flags)
{
    printf(" %s:", what);
    for (int i = 0; i < 16; i++)
        if (i != 4 && i != 7 && i != 11 && values[i] != in[i])
            printf(" %s %lx", names[i], (unsigned long)values[i]);
    printf(" flags %lx\n", (unsigned long)(flags & FLAGS));
}

static void try(int n, unsigned flags)
{
    for (int i = 0; i < 16; i++)
        in[i] = 0x1111111111111111u * (unsigned)i;
    in[1] = 8; /* an offset in the page */
    in[7] = (uint64_t)page;
    in[11] = (uint64_t)jump_target;
    in_flags = flags | 0x202;
    block = blocks[n].code;
    mprotect(page, 4096, PROT_NONE);
    for (int fault = 1; fault >= 0; fault--) {
        printf("%s%s\n", blocks[n].name, fault ? ", fault" : "");
        enter_block();
        if (fault)
            show("frame", (uint64_t *)frame, (uint64_t)frame_flags);
        show("end", out, out_flags);
    }
}

int main(void)
{
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaction(SIGSEGV, &act, NULL);
    for (int n = 0; blocks[n].name; n++) {
        try(n, 0);
        try(n, FLAGS);
    }
    return check_end("held");
}
