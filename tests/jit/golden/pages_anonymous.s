/* SPDX-License-Identifier: Apache-2.0 */
/* The same code as in pages.s without a module: the next page may be another one later, so its flags are not dead. */
    .intel_syntax noprefix
    .set base, 0x400000
    .set anonymous, 1
    .set tool, 1
    .org 0xffe
before:
    mov eax, edi
after:
    add eax, 1
    ret
