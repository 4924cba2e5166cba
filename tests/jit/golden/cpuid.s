/* SPDX-License-Identifier: Apache-2.0 */
/* Rule cpuid: with and without prefixes, in the middle of code and at its end. */
    .intel_syntax noprefix
middle:
    mov eax, 7
    xor ecx, ecx
    cpuid
after:
    mov [rsi], ebx
prefixed:
    .byte 0x66, 0x48, 0x0f, 0xa2
after_prefixed:
    jz middle
last:
    cpuid
