/* SPDX-License-Identifier: Apache-2.0
 *
 * Items written by hand, run and compared like those of the corpus: sequences, odd encodings and control flow. Included by the corpus.
 */
        .macro  ITEM group, flags=0
        .type   hand\@, @function
hand\@:
        .pushsection .rodata.items, "a"
        .long   hand\@ - isa_text
        .short  GROUP_\group
        .byte   0, \flags, ISA_NO_REG, ISA_NO_REG, 0, 0
        .popsection
        .endm
        .macro  END
        jo      isa_back
        jno     isa_back
        .endm
        .macro  TAKEN
        jo      isa_back_taken
        jno     isa_back_taken
        .endm

/* ---- the stack as operand and address ---- */
        .irp    insn, "push %rsp", "pop %rsp", "pushq (%rsp)", "popq (%rsp)", "pushq 8(%rsp)", "popq 8(%rsp)", "popq -8(%rsp)", "pushw %sp", "popw %sp", "pushw (%rsp)", "popw 6(%rsp)", "xchg %rsp, %rax", "xchg %rsp, (%rsp)", "mov %rsp, %rbp", "leave", "leavew", "enter $16, $0", "enter $0, $1", "enter $8, $3", "enter $64, $31", "enterw $16, $2", "pushq $-5", "pushw $0x1234", "pushq $0x12345678", "pushfq", "pushfw", "lea -8(%rsp,%rcx), %rsp", "add $8, %rsp", "and $-16, %rsp", "push %fs", "popq isa_io_rip+8(%rip)", "pushq isa_io_rip+16(%rip)", "pushq (%rbx,%rcx,8)", "lock xadd %rsp, (%rbx)", "cmpxchg %rsp, (%rsp)", "bswap %rsp", "movb %spl, %al", "pushq (%esp)", "popq 8(%esp)"
        ITEM    stack, ITEM_FIXED
        \insn
        END
        .endr
        .irp    insn, "push %rsp; pop %rsp", "push %rax; push %rcx; pop %rax; pop %rcx", "enter $32, $0; leave", "pushfq; popfq", "push %rbx; mov %rsp, %rbx; pop (%rbx)", "call 1f; 1: pop %rax", "lea 1f(%rip), %rax; push %rax; ret; ud2; 1:", "lea 1f(%rip), %rax; push %rax; ret $24; ud2; 1:", "lea 1f(%rip), %rax; push %rax; ret $0xfff0; ud2; 1:", "lea 1f(%rip), %rax; push %rax; repz ret; ud2; 1:", "lea 1f(%rip), %rax; push %rax; repnz ret; ud2; 1:", "lea 1f(%rip), %rax; push %rax; rex.W ret; ud2; 1:", "lea 1f(%rip), %rax; push %rax; call *(%rsp); ud2; 1: pop %rdx; pop %rcx", "lea 1f(%rip), %rax; push %rax; push %rax; call *8(%rsp); ud2; 1: pop %rdx", "lea 1f(%rip), %rax; push %rax; jmp *(%rsp); ud2; 1:", "lea 1f(%rip), %rax; mov %rax, -8(%rsp); jmp *-8(%rsp); ud2; 1:", "lea 1f(%rip), %rax; mov %rax, (%rbx); mov $0, %ecx; call *(%rbx,%rcx,8); ud2; 1: pop %rdx", "lea 1f(%rip), %rax; mov %rax, isa_io_rip(%rip); call *isa_io_rip(%rip); ud2; 1: pop %rdx", "lea 1f(%rip), %rax; mov %rax, isa_io_rip(%rip); jmp *isa_io_rip(%rip); ud2; 1:", "lea 1f(%rip), %rax; call *%rax; jmp 2f; 1: mov $5, %edx; ret; 2:", "lea 1f(%rip), %rcx; call *%rcx; jmp 2f; 1: mov $5, %edx; ret; 2:", "lea 1f(%rip), %r11; call *%r11; jmp 2f; 1: mov $5, %edx; ret; 2:", "lea 1f(%rip), %r13; jmp *%r13; ud2; 1:", "lea 1f(%rip), %rax; mov %rax, (%rbx); addr32 call *(%ebx); ud2; 1: pop %rcx", "lea 1f(%rip), %rax; mov %rax, -0x40(%rbx); fs call *-0x80(%rbx); ud2; 1: pop %rcx", "lea 1f(%rip), %rax; mov %rax, (%rbx); notrack call *(%rbx); ud2; 1: pop %rcx", "lea 1f(%rip), %rax; notrack jmp *%rax; ud2; 1: endbr64", "lea 1f(%rip), %rax; bnd jmp *%rax; ud2; 1:", "lea 1f(%rip), %rax; bnd call *%rax; ud2; 1: pop %rax", "bnd call 1f; 1: pop %rax", "bnd jmp 1f; ud2; 1:", "call 1f; jmp 2f; 1: bnd ret; 2:", ".byte 0x48; call 1f; 1: pop %rax", ".byte 0x66,0x66,0x48; call 1f; 1: pop %rax", "cs jmp 1f; ud2; 1:", ".byte 0x3e; call 1f; 1: pop %rdx", ".byte 0x67; call 1f; 1: pop %rdx", ".byte 0x67; jmp 1f; ud2; 1:"
        ITEM    calls, ITEM_FIXED
        \insn
        END
        .endr
/* pop rsp, then a call through what was loaded; a call by rsp itself */
        ITEM    calls, ITEM_FIXED
        lea     1f(%rip), %rax
        mov     %rax, 16(%rbx)
        mov     %rbx, (%rsp)
        popq    %rsp
        call    *16(%rsp)
        ud2
1:      END
        ITEM    calls, ITEM_FIXED
        call    *%rsp                   /* not executable */
        END
        ITEM    calls, ITEM_FIXED
        jmp     *%rsp
        END
        ITEM    calls, ITEM_FIXED
        xor     %esp, %esp
        call    1f                      /* cannot push */
1:      END
        ITEM    calls, ITEM_FIXED
        lea     1f(%rip), %rax
        xor     %esp, %esp
        call    *%rax
1:      END
        ITEM    calls, ITEM_FIXED
        xor     %esp, %esp
        ret
        END
        ITEM    calls, ITEM_FIXED
        xor     %esp, %esp
        push    %rax
        END
        ITEM    calls, ITEM_FIXED       /* recursion */
        mov     $20, %ecx
        call    1f
        jmp     2f
1:      dec     %ecx
        jz      3f
        call    1b
        add     %rcx, %rdx
3:      ret
2:      END
        ITEM    calls, ITEM_FIXED       /* returns to another place than its caller's */
        call    1f
        ud2
1:      lea     2f(%rip), %rax
        mov     %rax, (%rsp)
        ret
        ud2
2:      END
        ITEM    calls, ITEM_FIXED       /* returns twice up */
        call    1f
        jmp     3f
1:      call    2f
        ud2
2:      add     $8, %rsp
        ret
3:      END

/* ---- conditional branches, loops ---- */
        .irp    insn, loop, loope, loopne, jrcxz, jecxz, "addr32 loop", "addr32 loope", "addr32 loopne", "ds loop", "cs loopne", "rex.W loop", ".byte 0xf3; loop"
        .irp    count, 0, 1, 2
        ITEM    branches
        mov     $\count, %ecx
        \insn   1f
        END
1:      TAKEN
        ITEM    branches
        mov     $0x100000000 + \count, %rcx
        \insn   1f
        END
1:      TAKEN
        .endr
        .endr
        .irp    insn, jo, jno, jb, jae, je, jne, jbe, ja, js, jns, jp, jnp, jl, jge, jle, jg
        ITEM    branches
        cs \insn 1f
        END
1:      TAKEN
        ITEM    branches
        bnd \insn 1f
        END
1:      TAKEN
        ITEM    branches
        rex.W \insn 1f
        END
1:      TAKEN
        ITEM    branches
        ds \insn 1f
        ds \insn 2f
        END
1:      TAKEN
2:      TAKEN
        .endr
        ITEM    branches                /* a branch to itself that ends */
        mov     $5, %ecx
1:      loop    1b
        END
        ITEM    branches
        mov     $3, %ecx
1:      dec     %ecx
        jnz     1b
        END

/* ---- into the middle of instructions, overlapping code ---- */
        ITEM    overlap
        jmp     1f + 1
1:      .byte   0xa9, 0x40, 0xb0, 0x07, 0x90    /* test eax, imm; from + 1: rex mov al, 7; nop */
        END
        ITEM    overlap
        clc
1:      jc      isa_back
        .byte   0xb8, 0xf9, 0x90, 0xeb, 0x02    /* mov eax, imm; from + 1: stc; nop; jmp + 2 */
        jnc     1b + 7
        ud2
        END
        ITEM    overlap
        jmp     1f + 2
1:      .byte   0x48, 0xb8                      /* movabs rax, ... */
        mov     $7, %edx
        nop
        nop
        nop
        END
        ITEM    overlap                         /* over a prefix: with and without rep, rex, data16 */
        mov     $4, %ecx
        jmp     1f + 1
1:      rep movsb
        END
        ITEM    overlap
        jmp     1f + 1
1:      .byte   0xf0, 0x01, 0x03                /* lock add [rbx], eax */
        END
        ITEM    overlap
        jmp     1f + 1
1:      .byte   0x66, 0x05, 0x11, 0x22, 0x90, 0x90      /* add ax, imm16; nop; nop or add eax, imm32 */
        END
        ITEM    overlap                         /* both decodings of the same bytes, one after the other */
        mov     $2, %ecx
        mov     $0, %edx
1:      .byte   0xb8                            /* mov eax, imm32: the four bytes that follow */
2:      .byte   0xff, 0xc2, 0xff, 0xc9          /* inc edx; dec ecx */
        test    %ecx, %ecx
        jnz     2b
        END
        ITEM    overlap                         /* jmp -1: ff is the first byte of inc eax */
        .byte   0xeb, 0xff, 0xc0
        END
        ITEM    overlap
        call    1f + 1
1:      .byte   0xa9, 0x58, 0x90, 0x90, 0x90    /* test eax, imm; from + 1: pop rax; nop; nop; nop */
        END

/* ---- prefixes in odd orders, redundant, ignored; long instructions ---- */
        .irp    bytes, "0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90", "0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90", "0x2e,0x3e,0x26,0x36,0x2e,0x3e,0x26,0x36,0x2e,0x3e,0x26,0x36,0x2e,0x01,0xc8", "0x66,0xf3,0x66,0xf2,0x0f,0x58,0xc1", "0xf2,0xf3,0x0f,0x58,0xc1", "0xf3,0xf2,0x0f,0x58,0xc1", "0xf2,0x66,0x0f,0x58,0xc1", "0x66,0xf2,0x0f,0x58,0xc1", "0xf3,0x66,0x0f,0x58,0xc1", "0x48,0x66,0x01,0xc8", "0x66,0x48,0x01,0xc8", "0x48,0x48,0x01,0xc8", "0x48,0x40,0x01,0xc8", "0x41,0x2e,0x01,0xc8", "0x49,0x67,0x01,0x03", "0x67,0x49,0x01,0xc8", "0x48,0xf3,0xa4", "0xf3,0x48,0xa5", "0xf2,0xa4", "0xf2,0xaa", "0xf3,0xac", "0xf2,0xad", "0xf3,0xf2,0xa6", "0xf2,0xf3,0xa6", "0x66,0xf3,0xa5", "0xf3,0x66,0xa7", "0xf3,0x66,0x48,0xaf", "0x67,0xf3,0xa4", "0xf3,0x67,0xaa", "0x64,0xf3,0xa4", "0x64,0xac", "0x3e,0x64,0xac", "0x64,0x3e,0xac", "0x64,0x2e,0x8b,0x03", "0x64,0x67,0x8b,0x03", "0x67,0xe3,0x00", "0x67,0x67,0xe3,0x00", "0xf0,0x48,0x01,0x03", "0x48,0xf0,0x01,0x03", "0xf0,0xf0,0x01,0x03", "0xf0,0x66,0x01,0x03", "0x66,0xf0,0x01,0x03", "0xf0,0x01,0xc8", "0xf0,0x90", "0xf0,0x8b,0x03", "0xf0,0x39,0x03", "0xf0,0x85,0x03", "0xf0,0x87,0x03", "0xf2,0xf0,0x01,0x03", "0xf3,0xf0,0x01,0x03", "0xf2,0x87,0x03", "0xf3,0x89,0x03", "0xf3,0xc6,0x03,0x05", "0xf3,0x01,0xc8", "0xf2,0x01,0xc8", "0xf3,0x90", "0xf2,0x90", "0x66,0x90", "0x41,0x90", "0x49,0x90", "0xf3,0x41,0x90", "0x66,0xf3,0x90", "0x0f,0x1f,0x84,0x00,0x00,0x02,0x00,0x00", "0x66,0x2e,0x0f,0x1f,0x84,0x00,0x00,0x02,0x00,0x00", "0xf3,0x0f,0x1e,0xfa", "0xf3,0x0f,0x1e,0xfb", "0x0f,0x1e,0xfa", "0x66,0x0f,0x1e,0xfa", "0xf3,0x48,0x0f,0x1e,0xc8", "0xf3,0x0f,0x1e,0xc9", "0xf3,0x48,0x0f,0xae,0xe8", "0xf3,0x0f,0xae,0xe9", "0x66,0x0f,0x05,0x90", "0xc4,0xe2,0x7d,0x58,0x03", "0x66,0xc5,0xf8,0x58,0xc1", "0xf3,0xc5,0xf8,0x58,0xc1", "0x48,0xc5,0xf8,0x58,0xc1", "0xf0,0xc5,0xf8,0x58,0xc1", "0x2e,0xc5,0xf8,0x58,0xc1", "0x67,0xc5,0xf8,0x58,0x03", "0x66,0x62,0xf1,0x7c,0x48,0x58,0xc1", "0x48,0x62,0xf1,0x7c,0x48,0x58,0xc1", "0x67,0x62,0xf1,0x7c,0x48,0x58,0x03", "0x2e,0x62,0xf1,0x7c,0x48,0x58,0xc1", "0x62,0x02,0x7e,0x08,0x3a,0xf8", "0x62,0x92,0xfe,0x48,0x2a,0xc9", "0x62,0xb2,0x7e,0x28,0x28,0xd2", "0x62,0xd2,0xfe,0x08,0x38,0xdb", "0xc4,0xc1,0x79,0x93,0xf8", "0xc4,0xc1,0xec,0x45,0xd3", "0x48,0xc0,0xec,0x60", "0x48,0xc0,0xc0,0x20", "0x48,0xc1,0xe0,0x20", "0xc1,0xe0,0x20", "0x40,0x0f,0xb6,0xc4", "0x0f,0xb6,0xc4", "0x88,0xe0", "0x40,0x88,0xe0", "0x44,0x88,0xe0", "0x66,0xb8,0x34,0x12", "0x66,0x48,0xb8,1,2,3,4,5,6,7,8", "0x48,0x66,0xb8,0x34,0x12", "0x67,0xa1,0x00,0x10,0x00,0x10", "0x67,0x48,0xa1,0x00,0x10,0x00,0x10", "0x64,0xa1,0x00,0x10,0x00,0x10,0,0,0,0", "0x66,0x2e,0x64,0x67,0xf0,0x49,0x81,0x44,0x1b,0x08,0x11,0x22,0x33,0x44", "0x2e,0x36,0x67,0x64,0x4f,0x69,0x44,0xdb,0x78,0x12,0x11,0x22,0x33", "0x2e,0x2e,0x2e,0x36,0x67,0x64,0x4f,0x69,0x44,0xdb,0x78,0x12,0x11,0x22,0x33"
        ITEM    prefixes, ITEM_FIXED
        .byte   \bytes
        END
        .endr

/* ---- rip-relative with immediates after it ---- */
        .irp    insn, "addb $5, isa_io_rip+64(%rip)", "addw $0x1234, isa_io_rip+64(%rip)", "addl $0x12345678, isa_io_rip+64(%rip)", "addq $-77, isa_io_rip+64(%rip)", "addq $0x12345678, isa_io_rip+64(%rip)", "movb $5, isa_io_rip+64(%rip)", "movw $0x1234, isa_io_rip+64(%rip)", "movl $0x12345678, isa_io_rip+64(%rip)", "movq $-2, isa_io_rip+64(%rip)", "testb $5, isa_io_rip+64(%rip)", "testl $0x12345678, isa_io_rip+64(%rip)", "imul $3, isa_io_rip+64(%rip), %eax", "imul $0x1234567, isa_io_rip+64(%rip), %rax", "imul $0x1234, isa_io_rip+64(%rip), %ax", "shll $3, isa_io_rip+64(%rip)", "shldl $3, %eax, isa_io_rip+64(%rip)", "btsl $7, isa_io_rip+64(%rip)", "lock btsq $40, isa_io_rip+64(%rip)", "pshufd $0x1b, isa_io_rip+64(%rip), %xmm1", "vpshufd $0x1b, isa_io_rip+64(%rip), %ymm1", "vpternlogd $0x5a, isa_io_rip+64(%rip), %zmm1, %zmm2", "vpternlogd $0x5a, isa_io_rip+64(%rip){1to16}, %zmm17, %zmm2{%k1}{z}", "vpermil2ps $1, %xmm1, isa_io_rip+64(%rip), %xmm2, %xmm3", "pcmpestri $0x3, isa_io_rip+64(%rip), %xmm1", "rorx $7, isa_io_rip+64(%rip), %rax", "vblendvps %xmm1, isa_io_rip+64(%rip), %xmm2, %xmm3", "cmpb $0, isa_io_rip+64(%rip)", "lock cmpxchg16b isa_io_rip+64(%rip)", "fs movl isa_io_rip(%rip), %eax", ".byte 0xf0; lea isa_io_rip+64(%rip), %rdx", ".byte 0xf0; lea isa_io_rip+64(%rip), %r10d", "lea isa_io_rip+64(%rip), %r10", "lea isa_io_rip+64(%rip), %r10d", "lea isa_io_rip+64(%rip), %cx"
        ITEM    riprel, ITEM_FIXED
        \insn
        END
        .endr

/* ---- traps: what the frame says ---- */
        .irp    insn, int3, ".byte 0xcd,0x03", ".byte 0xcd,0x04", ".byte 0xcd,0x01", ".byte 0xcd,0x00", ".byte 0xcd,0xff", ".byte 0xcd,0x2e", ".byte 0xf1", ud2, ".byte 0x0f,0x0b", ".byte 0x0f,0xff,0xc0", ".byte 0x0f,0xb9,0xc0", hlt, cli, sti, "in $0x60, %al", "out %al, $0x60", "in %dx, %eax", "outsb", "rep insb", "mov %cr0, %rax", "mov %rax, %cr3", "mov %dr7, %rax", rdmsr, wrmsr, swapgs, invd, wbinvd, "invlpg (%rax)", "lgdt (%rbx)", "lidt (%rbx)", "ltr %ax", "lldt %ax", clts, "lmsw %ax", ".byte 0x0f,0x07", ".byte 0x48,0x0f,0x07", ".byte 0x0f,0x35", ".byte 0x0f,0xaa", ".byte 0x06", ".byte 0x27", ".byte 0x9a,1,2,3,4,5,6", ".byte 0xea,1,2,3,4,5,6", ".byte 0xce", ".byte 0xd6", ".byte 0x82,0xc0,1", "xbegin 1f; xend; 1:", "xabort $3", xtest, "sgdt (%rbx)", "sidt (%rbx)", "str %rax", "sldt %rax", "smsw %rax", "xgetbv", "xor %ecx, %ecx; xgetbv", "xsetbv", "rdfsbase %rax", "mov $0x1000, %eax; wrfsbase %rax; rdfsbase %rdx", "movabs $0x8000000000000000, %rax; wrfsbase %rax", "mov $-1, %eax; div %eax", "xor %ecx, %ecx; div %ecx", "xor %edx, %edx; xor %ecx, %ecx; idiv %rcx", "mov $-128, %ax; mov $-1, %cl; idiv %cl", "movaps 1(%rbx), %xmm0", "movntdqa 8(%rbx), %xmm0", "movabs 0x8000000000000000, %al", "mov (%rax,%rax,8), %rcx", "nop; nop; mov 0, %eax", "mov %eax, 0", "lock incl 0", "call 0", "jmp 0", "repne scasb", "rep stosq", "movups -1(%rbx), %xmm1; ud2"
        ITEM    traps, ITEM_FIXED
        nop
        \insn
        END
        .endr

/* ---- floating point exceptions: SIGFPE at the right instruction ---- */
        .irp    bit, 0x80, 0x100, 0x200, 0x400, 0x800, 0x1000
        .irp    insn, "divps %xmm1, %xmm2", "addsd (%rbx), %xmm3", "sqrtpd %xmm4, %xmm5", "cvttsd2si %xmm6, %eax", "vdivps %ymm1, %ymm2, %ymm3", "mulss isa_io_rip+64(%rip), %xmm7", "cvtpd2ps %xmm1, %xmm2"
        ITEM    fpe, ITEM_FIXED
        movl    $0x1f80 - \bit, (%rbx)
        ldmxcsr (%rbx)
        \insn
        nop
        END
        .endr
        .endr
        .irp    bit, 1, 2, 4, 8, 16, 32
        .irp    insn, "fdivp", "faddp", "fsqrt", "fistps (%rbx)", "fstps (%rbx)", "fldl (%rbx)", "f2xm1"
        ITEM    fpe, ITEM_FIXED
        fnclex
        movw    $0x37f - \bit, (%rbx)
        fldcw   (%rbx)
        \insn                           /* the exception waits for the next waiting instruction */
        nop
        add     %rax, %rcx
        fnstsw  %ax
        fwait
        END
        .endr
        .endr

/* ---- AC and DF ---- */
        .irp    insn, "mov 1(%rbx), %eax", "mov (%rbx), %eax", "movups 1(%rbx), %xmm0", "push %rax", "mov %ax, 3(%rbx)", "addl $1, 2(%rbx)", "lock addl $1, 2(%rbx)", "call 1f; 1: pop %rax", "movsl", "rep movsb", "cmpxchg8b 4(%rbx)", "fldl 3(%rbx)", "lea 1f(%rip), %rax; call *%rax; 1: pop %rax"
        ITEM    flags, ITEM_FIXED
        pushfq
        orl     $0x40000, (%rsp)
        popfq
        \insn
        END
        ITEM    flags, ITEM_FIXED
        std
        mov     $3, %ecx
        \insn
        nop
        END
        ITEM    flags, ITEM_FIXED
        lahf
        seto    %al
        pushfq
        pushfq
        popq    %rdx
        popfq
        \insn
        cmc
        END
        .endr
        .irp    insn, cld, std, clc, stc, cmc, lahf, sahf, "popfw", "andl $~0x100, (%rsp); popfq", "andl $~0x100, (%rsp); orl $0x200000, (%rsp); popfq", "andl $~0x100, (%rsp); orl $0x5000, (%rsp); popfq; pushfq; pop %rax", "add %eax, %ecx; lahf; seto %al"
        ITEM    flags, ITEM_POPF | ITEM_FIXED
        \insn
        END
        .endr

/* ---- system registers and processor state that programs read ---- */
        .irp    insn, "rdsspq %rax", "xor %ecx, %ecx; rdsspd %ecx", "incsspq %rax", "endbr64", "endbr32", "rdpkru", "clac", "stac", "serialize", "wbnoinvd", "cldemote (%rbx)", "clflush (%rbx)", "clwb (%rbx)", "clzero", "prefetchw (%rbx)", "movdiri %eax, (%rbx)", "lfence; sfence; mfence", "pause", "emms", "vzeroupper", "vzeroall", "fninit", "stmxcsr (%rbx)", "fnstcw (%rbx)", "fnstsw (%rbx)", "ud0 %eax, %eax", "xlatb", "fs xlatb", "addr32 xlatb", "maskmovq %mm0, %mm1", "maskmovdqu %xmm0, %xmm1", "fs maskmovdqu %xmm0, %xmm1"
        ITEM    system, ITEM_FIXED
        \insn
        END
        .endr
