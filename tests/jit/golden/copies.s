/* SPDX-License-Identifier: Apache-2.0 */
/* Rules copy and rip: the same bytes but for disp32; ends of blocks without a transfer. */
    .intel_syntax noprefix
start:
    mov rax, rbx
    lock add dword ptr [rip + 0x10], 7
    lea r9, [rip + 0x20]
    mov eax, [eip + 0x20]
    vmovdqu ymm1, [rip - 0x20]
    vpternlogd zmm0, zmm1, [rip + 0x40], 0x5a
    cmp word ptr fs:[rip + 0x11223344], 0x1234
    nop dword ptr [rip]
    int3
    rep movsb
    push qword ptr [rip]
    ud2
overlap:
    .byte 0x48 /* mov rax, imm64 whose immediate is another leader's mov ebx, imm32 */
    .byte 0xb8
inner:
    .byte 0xbb, 1, 2, 3, 4
    .byte 5, 6, 7
    hlt
last:
    nop
