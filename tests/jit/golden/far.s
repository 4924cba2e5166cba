/* SPDX-License-Identifier: Apache-2.0 */
/* A known base and code more than 2 GB away from it: rip-far, movabs for every address. */
    .intel_syntax noprefix
    .set base, 0x7f0012345000
    .set distance, 0x123456789000
start:
    mov eax, [rip + 0x10]
    mov [rip + 0x10], rax
    lea r9, [rip + 0x100]
    lea r10d, [rip + 0x100]
    lea ax, [rip + 0x100]
    cmp byte ptr [rip + 0x100], 0x55
    lock cmpxchg [rip + 0x100], rcx
    lock cmpxchg16b [rip + 0x100]
    vpaddd ymm9, ymm10, [rip + 0x100]
    vpshufb xmm1, xmm2, [rip + 0x100]
    vpternlogd zmm17, zmm18, [rip + 0x100], 0x5a
    .byte 0x49, 0x8b, 0x05, 0x10, 0, 0, 0 /* mov rax, [rip + 0x10] with a REX.B that means nothing */
    mov eax, [eip + 0x10]
    push qword ptr fs:[rip + 0x10]
    call start
back:
    call [rip + 0x10]
jump:
    jmp fs:[rip + 0x10]
conditional:
    je .+0x2000
c1:
    syscall
then:
    .byte 0x06
