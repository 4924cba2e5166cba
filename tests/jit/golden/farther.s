/* SPDX-License-Identifier: Apache-2.0 */
/* Operands and targets beyond reach, and the base is not known: the address is added up. */
    .intel_syntax noprefix
start:
    mov eax, [rip - 0x7ffffff0]
    lea rbx, [rip - 0x7ffffff0]
    jne .-0x7ffffff0
c1:
    jmp .-0x7ffffff0
jump:
    jmp [rip - 0x7ffffff0]
