/* SPDX-License-Identifier: Apache-2.0
 *
 * The core's assembly: the program's entry point, the ways from translated code into the core and back.
 *
 * Rules for everything between core_ibl_begin and core_ibl_end: the guest's registers are in flight, so a signal there
 * is carried by single-stepping to the next clean point (signal.c). No flag is touched and the guest's stack is not used, because the
 * red zone and the flags are the guest's. Flag-free comparison: keys are stored negated, lea adds, jrcxz tests.
 */
#include "launcher/context.h"
#include "launcher/layout.h"
#include <asm/unistd.h>

#define G(off) %gs:off

        .text

/* ---- the ELF entry point: rsp -> argc ---- */
        .globl  core_entry_point
        .type   core_entry_point, @function
core_entry_point:
        xorl    %ebp, %ebp
        pushq   %rdx                    /* glibc's _start wants it back */
        leaq    8(%rsp), %rdi
        subq    $8, %rsp
        call    core_main               /* returns only if this is not `bdbi run` */
        addq    $8, %rsp
        popq    %rdx
        jmp     _start
        .size   core_entry_point, . - core_entry_point

/* void call_on_stack(argument, fn, stack_top): never returns */
        .globl  call_on_stack
call_on_stack:
        movq    %rdx, %rsp
        xorl    %ebp, %ebp
        call    *%rsi
        ud2

/* ---- indirect-branch lookup: rcx = app target, app rcx in its home ----
 * Entry i of the table is { -pc, code }, 16 bytes; from i on until a free one (ibl.c is the other half).
 * h = crc32c(pc), which sets no flags; i by table size, without a shift or a mask: micro al + 4 * ah; tiny al + 16 * ah; small al + 64 * ah;
 * big ax; huge ax + 1024 * byte 2. What is found with a landing goes into the target cache. */
        .macro  IBL name, size, miss, counted
        .globl  \name
        .balign 64
\name:
        movq    %rax, G(CTX_RAX)
        movq    %rdx, G(CTX_RDX)
        movl    $0, %eax
        crc32q  %rcx, %rax
    .ifc \size,micro
        movzbl  %ah, %edx
        movzbl  %al, %eax
        leaq    (%rax,%rdx,4), %rax
    .endif
    .ifc \size,tiny
        movzbl  %ah, %edx
        movzbl  %al, %eax
        leaq    (%rdx,%rdx), %rdx
        leaq    (%rax,%rdx,8), %rax
    .endif
    .ifc \size,small
        movzbl  %ah, %edx
        movzbl  %al, %eax
        leaq    (,%rdx,8), %rdx
        leaq    (%rax,%rdx,8), %rax
    .endif
    .ifc \size,big
        movzwl  %ax, %eax
    .endif
    .ifc \size,huge
        movl    %eax, %edx
        bswapl  %edx
        movzbl  %dh, %edx
        movzwl  %ax, %eax
        leaq    (,%rdx,8), %rdx
        leaq    (,%rdx,8), %rdx
        leaq    (%rdx,%rdx), %rdx
        leaq    (%rax,%rdx,8), %rax
    .endif
        leaq    (%rax,%rax), %rax
        movq    G(CTX_IBL), %rdx
        leaq    (%rdx,%rax,8), %rdx
        movq    %rcx, G(CTX_PC)
3:      movq    (%rdx), %rax
        leaq    (%rcx,%rax), %rcx
        jrcxz   1f
        movq    %rax, %rcx
        jrcxz   4f
        movq    G(CTX_PC), %rcx
        leaq    16(%rdx), %rdx
        jmp     3b
4:      jmp     \miss
1:
    .ifc \counted,counted
        movq    G(CTX_IBL_HITS), %rax
        leaq    1(%rax), %rax
        movq    %rax, G(CTX_IBL_HITS)
    .endif
        movq    8(%rdx), %rax
        movq    %rax, %rcx
        bswapq  %rcx
        movzbl  %cl, %ecx
        jrcxz   2f
        movabsq $-IBL_LANDING, %rcx
        leaq    (%rax,%rcx), %rax
        movq    G(CTX_PC), %rcx
        leal    (,%rcx,8), %ecx
        movzwl  %cx, %ecx
        leaq    -BDBI_LANDING_BYTES(%rax), %rdx
        movq    %rdx, %gs:CTX_TARGETS(%rcx)
2:      movq    %rax, G(CTX_IBL_TARGET)
        movq    G(CTX_RAX), %rax
        movq    G(CTX_RCX), %rcx
        movq    G(CTX_RDX), %rdx
        jmp     *G(CTX_IBL_TARGET)
        .endm

        .balign 64
        .globl  core_ibl_begin
core_ibl_begin:
        IBL     core_ibl_micro, micro, miss_indirect, plain
        IBL     core_ibl_tiny, tiny, miss_indirect, plain
        IBL     core_ibl_small, small, miss_indirect, plain
        IBL     core_ibl_big, big, miss_indirect, plain
        IBL     core_ibl_huge, huge, miss_indirect, plain
        IBL     core_ibl_micro_count, micro, miss_indirect, counted
        IBL     core_ibl_tiny_count, tiny, miss_indirect, counted
        IBL     core_ibl_small_count, small, miss_indirect, counted
        IBL     core_ibl_big_count, big, miss_indirect, counted
        IBL     core_ibl_huge_count, huge, miss_indirect, counted

/* A direct branch to code outside the unit: remembered only to be counted when it misses. */
        .balign 64
        .globl  core_entry_direct
core_entry_direct:
        movq    %rcx, G(CTX_DIRECT)
        jmp     *G(CTX_ENTRY_JMP)

/* An indirect branch has come to another address's landing, L's: rcx = target - L, rdx = ~L. */
        .balign 64
        .globl  core_target_other
core_target_other:
        notq    %rdx
        leaq    (%rcx,%rdx), %rcx
/* Or its slot of the target cache is empty: rcx = target. */
        .globl  core_target_lost
core_target_lost:
        movq    G(CTX_RDX), %rdx
        jmp     *G(CTX_ENTRY_JMP)

/* From here the homes of rax, rcx and rdx are right and CTX_PC is the target. */
        .macro  SAVE_REST
        movq    %rbx, G(CTX_RBX)
        movq    %rsp, G(CTX_RSP)
        movq    %rbp, G(CTX_RBP)
        movq    %rsi, G(CTX_RSI)
        movq    %rdi, G(CTX_RDI)
        movq    %r8,  G(0x40)
        movq    %r9,  G(0x48)
        movq    %r10, G(0x50)
        movq    %r11, G(0x58)
        movq    %r12, G(0x60)
        movq    %r13, G(0x68)
        movq    %r14, G(0x70)
        movq    %r15, G(0x78)
        movq    G(CTX_CORE_SP), %rsp
        pushfq
        popq    G(CTX_FLAGS)
        pushq   $2                      /* DF, AC, TF off */
        popfq
        movq    G(CTX_SELF), %rdi
        .endm

/* What a lookup finds for a pc whose code has gone: the app's registers are back, their homes still hold them. */
        .globl  core_ibl_stale
core_ibl_stale:
miss_indirect:
        SAVE_REST
        call    core_miss_indirect
        jmp     core_exit

        .globl  core_entry_syscall
core_entry_syscall:                     /* rcx = app pc after it, r11 = where its code goes on */
        movq    %rcx, G(CTX_PC)
        movq    %r11, G(CTX_RESUME)
        movq    %rax, G(CTX_RAX)
        movq    %rcx, G(CTX_RCX)
        movq    %rdx, G(CTX_RDX)
        SAVE_REST
        call    core_syscall
        jmp     core_exit

        .globl  core_entry_cpuid
core_entry_cpuid:                       /* rcx = app pc after it, rax = where its code goes on */
        movq    %rcx, G(CTX_PC)
        movq    %rax, G(CTX_RESUME)
        movq    %rdx, G(CTX_RDX)
        SAVE_REST
        call    core_cpuid
        jmp     core_exit

        .globl  core_entry_event
core_entry_event:                       /* rcx = enum bdbi_event, rax = app pc */
        movq    %rax, G(CTX_PC)
        movq    %rcx, G(CTX_IBL_TARGET)
        movq    %rdx, G(CTX_RDX)
        SAVE_REST
        movq    G(CTX_IBL_TARGET), %rsi
        call    core_event
        jmp     core_exit
        .globl  core_ibl_end
core_ibl_end:

/* ---- out of the core: restartable up to its last instruction, so that a signal noted on the way out is seen ---- */
        .globl  core_exit
core_exit:
        .globl  core_exit_restart
core_exit_restart:
        movq    G(CTX_CORE_SP), %rsp
        cmpq    $0, G(CTX_PENDING)
        jne     core_deliver_entry
        pushq   G(CTX_FLAGS)
        popfq
        movq    G(CTX_RAX), %rax
        movq    G(CTX_RCX), %rcx
        movq    G(CTX_RDX), %rdx
        movq    G(CTX_RBX), %rbx
        movq    G(CTX_RBP), %rbp
        movq    G(CTX_RSI), %rsi
        movq    G(CTX_RDI), %rdi
        movq    G(0x40), %r8
        movq    G(0x48), %r9
        movq    G(0x50), %r10
        movq    G(0x58), %r11
        movq    G(0x60), %r12
        movq    G(0x68), %r13
        movq    G(0x70), %r14
        movq    G(0x78), %r15
        movq    G(CTX_RSP), %rsp
        jmp     *G(CTX_RESUME)
        .globl  core_exit_end
core_exit_end:

/* The signal handler sends a thread here with its app state in the context; core_exit may have loaded the app's flags. */
        .globl  core_deliver_entry
core_deliver_entry:
        movq    G(CTX_CORE_SP), %rsp
        pushq   $2
        popfq
        movq    G(CTX_SELF), %rdi
        call    core_deliver
        ud2
        .globl  core_redispatch_entry
core_redispatch_entry:
        movq    G(CTX_CORE_SP), %rsp
        movq    G(CTX_SELF), %rdi
        call    core_redispatch
        jmp     core_exit

/* An undecodable instruction becomes a real SIGILL; the handler reports the app pc. */
        .globl  core_ill_trap
core_ill_trap:
        ud2
/* One that is too long becomes a real general protection fault. */
        .globl  core_protection_trap
core_protection_trap:
        hlt
/* A jump to where nothing of the guest's is but something of ours: the handler makes the fault that it would be. */
        .globl  core_fetch_trap
core_fetch_trap:
        hlt

/* ---- long guest_syscall(ctx): the guest's system call with the guest's arguments ----
 * Up to and including the syscall instruction a signal makes it return -BDBI restart (0x8000...): nothing has happened yet. */
        .globl  guest_syscall
guest_syscall:
        pushq   %rbx
        movq    %rdi, %rbx
        movq    0x00(%rbx), %rax
        movq    0x30(%rbx), %rsi
        movq    0x10(%rbx), %rdx
        movq    0x50(%rbx), %r10
        movq    0x40(%rbx), %r8
        movq    0x48(%rbx), %r9
        movq    0x38(%rbx), %rdi
        .globl  guest_syscall_check
guest_syscall_check:
        cmpq    $0, G(CTX_PENDING)
        jne     guest_syscall_aborted
        .globl  guest_syscall_insn
guest_syscall_insn:
        syscall
        popq    %rbx
        ret
        .globl  guest_syscall_aborted
guest_syscall_aborted:
        movabsq $0x8000000000000000, %rax
        popq    %rbx
        ret

/* ---- void cpuid_execute(gpr): the instruction itself, on rax to rbx of the array; where it may fault the thread is at
 * core_cpuid_insn ---- */
        .globl  cpuid_execute
cpuid_execute:
        pushq   %rbx
        movl    CTX_RAX(%rdi), %eax
        movl    CTX_RCX(%rdi), %ecx
        .globl  core_cpuid_insn
core_cpuid_insn:
        cpuid
        movq    %rax, CTX_RAX(%rdi)
        movq    %rcx, CTX_RCX(%rdi)
        movq    %rdx, CTX_RDX(%rdi)
        movq    %rbx, CTX_RBX(%rdi)
        popq    %rbx
        ret

/* ---- int core_copy(to, from, bytes): 0, or -1 on a fault (the signal handler jumps to core_copy_fault) ---- */
        .globl  core_copy
core_copy:
        movq    %rdx, %rcx
        .globl  core_copy_begin
core_copy_begin:
        rep movsb
        .globl  core_copy_end
core_copy_end:
        xorl    %eax, %eax
        ret
        .globl  core_copy_fault
core_copy_fault:
        movl    $-1, %eax
        ret

/* ---- signals ---- */
        .globl  core_signal_return
core_signal_return:
        movl    $__NR_rt_sigreturn, %eax
        syscall

/* void sigreturn_with(frame): frame -> struct kernel_sigframe */
        .globl  sigreturn_with
sigreturn_with:
        leaq    8(%rdi), %rsp
        movl    $__NR_rt_sigreturn, %eax
        syscall
        ud2

/* ---- clone ---- long clone_raw(nr, a1..a5 in args[0..4], start, argument)
 * rdi = number, rsi = args, rdx = fn for the child, rcx = its argument. The child starts on the stack named in args. */
        .globl  clone_raw
clone_raw:
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        movq    %rdx, %r12
        movq    %rcx, %r13
        movq    %rdi, %rax
        movq    %rsi, %rbx
        movq    0(%rbx), %rdi
        movq    8(%rbx), %rsi
        movq    16(%rbx), %rdx
        movq    24(%rbx), %r10
        movq    32(%rbx), %r8
        syscall
        testq   %rax, %rax
        jz      1f
        popq    %r13
        popq    %r12
        popq    %rbx
        ret
1:      movq    %r13, %rdi
        xorl    %ebp, %ebp
        andq    $-16, %rsp
        call    *%r12
        ud2

/* ---- the translator: void translator_switch(save_sp, new_sp) ---- callee-saved registers only; C decides the rest */
        .globl  translator_switch
translator_switch:
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbp
        popq    %rbx
        ret
/* First entry: translator_start(save_sp, initial_sp): jumps to glibc's _start there */
        .globl  translator_start
translator_start:
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        xorl    %edx, %edx
        xorl    %ebp, %ebp
        jmp     _start

        .section .note.GNU-stack, "", @progbits
