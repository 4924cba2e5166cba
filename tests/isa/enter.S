/* SPDX-License-Identifier: Apache-2.0
 *
 * Into an item of the corpus with the state of isa_io and back. Included at the start of the corpus's section: where the corpus is
 * copied to, this code and isa_io go with it at the same distances.
 */
        .set IO_FLAGS, 0x80
        .set IO_ITEM, 0x88
        .set IO_SAVED_RSP, 0x90
        .set IO_SAVED_FS, 0x98
        .set IO_COMPONENTS, 0xa0
        .set IO_TAKEN, 0xa8
        .set IO_MXCSR, 0xb0             /* what C code runs with */
        .set IO_OUT, 0x100
        .set IO_OUT_FLAGS, 0x180
        .set IO_XSAVE, 0x1000
        .set IO_OUT_XSAVE, 0x2000
        .set IO_RIP, 0x3000

        .bss
        .balign 4096
        .globl  isa_io
isa_io:
        .skip   IO_RIP
        .globl  isa_io_rip
isa_io_rip:
        .skip   0x1000
        .previous

        .globl  isa_enter
        .type   isa_enter, @function
isa_enter:
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        movq    %rsp, isa_io+IO_SAVED_RSP(%rip)
        rdfsbase %rax
        movq    %rax, isa_io+IO_SAVED_FS(%rip)
        movl    $ISA_FS_BASE, %eax
        wrfsbase %rax
        movl    isa_io+IO_COMPONENTS(%rip), %eax
        xorl    %edx, %edx
        xrstor64 isa_io+IO_XSAVE(%rip)
        pushq   isa_io+IO_FLAGS(%rip)
        movq    isa_io+0x00(%rip), %rax
        movq    isa_io+0x08(%rip), %rcx
        movq    isa_io+0x10(%rip), %rdx
        movq    isa_io+0x18(%rip), %rbx
        movq    isa_io+0x28(%rip), %rbp
        movq    isa_io+0x30(%rip), %rsi
        movq    isa_io+0x38(%rip), %rdi
        movq    isa_io+0x40(%rip), %r8
        movq    isa_io+0x48(%rip), %r9
        movq    isa_io+0x50(%rip), %r10
        movq    isa_io+0x58(%rip), %r11
        movq    isa_io+0x60(%rip), %r12
        movq    isa_io+0x68(%rip), %r13
        movq    isa_io+0x70(%rip), %r14
        movq    isa_io+0x78(%rip), %r15
        popfq
        movq    isa_io+0x20(%rip), %rsp
        jmp     *isa_io+IO_ITEM(%rip)

        .globl  isa_back_taken
isa_back_taken:
        movb    $1, isa_io+IO_TAKEN(%rip)
isa_back:
        movq    %rax, isa_io+IO_OUT+0x00(%rip)
        movq    %rcx, isa_io+IO_OUT+0x08(%rip)
        movq    %rdx, isa_io+IO_OUT+0x10(%rip)
        movq    %rbx, isa_io+IO_OUT+0x18(%rip)
        movq    %rsp, isa_io+IO_OUT+0x20(%rip)
        movq    %rbp, isa_io+IO_OUT+0x28(%rip)
        movq    %rsi, isa_io+IO_OUT+0x30(%rip)
        movq    %rdi, isa_io+IO_OUT+0x38(%rip)
        movq    %r8, isa_io+IO_OUT+0x40(%rip)
        movq    %r9, isa_io+IO_OUT+0x48(%rip)
        movq    %r10, isa_io+IO_OUT+0x50(%rip)
        movq    %r11, isa_io+IO_OUT+0x58(%rip)
        movq    %r12, isa_io+IO_OUT+0x60(%rip)
        movq    %r13, isa_io+IO_OUT+0x68(%rip)
        movq    %r14, isa_io+IO_OUT+0x70(%rip)
        movq    %r15, isa_io+IO_OUT+0x78(%rip)
        movq    isa_io+IO_SAVED_RSP(%rip), %rsp
        pushfq
        popq    isa_io+IO_OUT_FLAGS(%rip)
        movl    isa_io+IO_COMPONENTS(%rip), %eax
        xorl    %edx, %edx
        xsave64 isa_io+IO_OUT_XSAVE(%rip)

/* A handler comes here after a fault. It has kept the state. */
        .globl  isa_back_fault
isa_back_fault:
        movq    isa_io+IO_SAVED_RSP(%rip), %rsp
        pushq   $0x202
        popfq
        fninit
        ldmxcsr isa_io+IO_MXCSR(%rip)
        movq    isa_io+IO_SAVED_FS(%rip), %rax
        wrfsbase %rax
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbp
        popq    %rbx
        ret
        .size   isa_enter, . - isa_enter

/* The signal handler: AC stays as the item had it, which the C half must not have. */
        .globl  isa_on_fault
isa_on_fault:
        pushfq
        andl    $~0x40000, (%rsp)
        popfq
        jmp     on_fault
