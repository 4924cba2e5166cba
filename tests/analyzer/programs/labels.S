/* SPDX-License-Identifier: Apache-2.0
 *
 * Places that only one signal of discovery leads to, as a library without libc. Symbols truth_* start blocks, data_* are not
 * code; the test looks at a stripped copy, where they are gone.
 */
    .intel_syntax noprefix
    .text
    .globl api
    .type api, @function
api:
    .cfi_startproc
    cmp edi, 5
    ja .Ldefault
    lea rdx, [rip + .Lrelative]
    movsxd rax, [rdx + rdi * 4]
    add rax, rdx
    jmp rax
.Ldefault:
    call local_function
truth_after_call:
    xor eax, eax
    je truth_jcc
truth_not_taken:
    nop
truth_jcc:
    cmp dword ptr [rip + counter], 0
    je truth_behind_lock
    .byte 0xf0
truth_behind_lock:
    cmpxchg [rip + counter], ecx
    ret
    .p2align 4
    /* Reached by tables only, each falling into the next: no unconditional transfer gives them away. */
truth_case0:
    inc eax
truth_case1:
    inc ecx
truth_case2:
    inc edx
truth_absolute0:
    dec eax
truth_absolute1:
    dec ecx
    jmp [rip + data_pointer]
    .cfi_endproc
    .size api, . - api

/* The same by way of distances from a label, as compilers make of "static const int t[] = { &&a - &&b }". */
    .type labelled, @function
labelled:
    .cfi_startproc
    lea rdx, [rip + truth_base]
    lea rcx, [rip + .Ldistances]
    movsxd rax, [rcx + rdi * 4]
    add rax, rdx
    jmp rax
truth_base:
    inc eax
truth_label0:
    inc ecx
truth_label1:
    inc edx
truth_label2:
    inc eax
data_inside: /* (not data, but no block starts here: the table is understood, it is not just everything taken) */
    ret
    .cfi_endproc
    .size labelled, . - labelled

/* Into an unrolled loop by arithmetic: every element may be the first. */
    .type unrolled, @function
unrolled:
    .cfi_startproc
    lea rax, [rip + truth_unrolled0]
    lea rdi, [rdi + rdi * 2]
    add rax, rdi
    jmp rax
truth_unrolled0:
    add rcx, rsi
truth_unrolled1:
    add rcx, rsi
truth_unrolled2:
    add rcx, rsi
truth_unrolled3:
    ret
    .cfi_endproc
    .size unrolled, . - unrolled

    .type local_function, @function
local_function:
    .cfi_startproc
    lea rax, [rip + truth_taken]
    mov [rip + counter], rax
    mov eax, 39
    syscall
truth_after_syscall:
    xbegin truth_abort
truth_in_transaction:
    xend
    ret
truth_abort:
    loop truth_abort
truth_after_loop:
    ud2
truth_after_ud2:
    ret
    .cfi_endproc
    .size local_function, . - local_function

/* Behind bytes that a sweep takes for the start of an instruction (movabs): only the lea and the exception table lead there. */
    .type misleading, @function
misleading:
    .cfi_startproc
    .cfi_lsda 0x1b, .Lexceptions
    lea rax, [rip + truth_lea]
.Lprotected:
    call rax
    ret
    .byte 0x48, 0xb8
truth_lea:
    xor eax, eax
    inc ecx
    inc edx
    ret
    nop
    .byte 0x48, 0xb8
truth_landing_pad:
    inc eax
    inc ecx
    inc edx
    ret
    nop
    .cfi_endproc
    .size misleading, . - misleading

/* As libc's: the unwind information of a signal's return code starts one byte before it. */
    .type restorer, @function
    .cfi_startproc
    .cfi_signal_frame
    .byte 0
restorer:
truth_restorer:
    mov rax, 15
    syscall
    ud2
    .cfi_endproc

/* Without unwind information and without a symbol, behind data; only a gap's sweep and lea find these. */
    .p2align 6
data_constants:
    .quad 0, 0, 0, 0
    .p2align 6
truth_taken:
    push rbp
    pop rbp
    ret
    int3
    int3
truth_gap:
    endbr64
    ret

    .section .rodata, "a"
    .p2align 2
.Lrelative:
    .long truth_case0 - .Lrelative, truth_case1 - .Lrelative, truth_case2 - .Lrelative
    .long .Ldefault - .Lrelative, truth_case0 - .Lrelative, truth_case1 - .Lrelative
.Ldistances:
    .long truth_label0 - truth_base, truth_label1 - truth_base, truth_label2 - truth_base, 0x7fffffff

    .section .gcc_except_table, "a"
.Lexceptions:
    .byte 0xff, 0xff, 0x01 /* no landing pad base, no types, call sites in uleb128 */
    .uleb128 .Lsites_end - .Lsites
.Lsites:
    .uleb128 .Lprotected - misleading, 2, truth_landing_pad - misleading, 0
.Lsites_end:

    .section .data.rel.ro, "aw"
    .p2align 3
data_pointer:
    .quad truth_absolute0, truth_absolute1
    .quad labelled, unrolled
    .data
    .p2align 3
counter:
    .quad 0
    .section .note.GNU-stack, "", @progbits
