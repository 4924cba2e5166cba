/* SPDX-License-Identifier: Apache-2.0 */
/* Rule event: what cannot be translated, and what does not decode. */
    .intel_syntax noprefix
segment:
    mov rax, gs:[0]
far_return:
    mov eax, 1
    .byte 0xcb
old_call:
    int 0x80
narrow:
    data16 ret
bad:
    nop
    .byte 0x06
bad_first:
    .byte 0x06
interrupts:
    int 3
    int 0x81
    mov gs, eax
cut:
    nop
    .byte 0xe8, 0, 0
