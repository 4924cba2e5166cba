/* SPDX-License-Identifier: Apache-2.0 */
/* Rule check: blocks that others may write; with a counter, whose flags nobody may overwrite later. */
    .intel_syntax noprefix
    .set base, 0x7f1234560000
    .set distance, -0x1234000000
    .set checked, 1
    .set tool, 1
start:
    mov eax, 0x11223344
    jmp second
second:
    nop
    ret
bad:
    .byte 0x06
