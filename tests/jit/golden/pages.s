/* SPDX-License-Identifier: Apache-2.0 */
/* A module with a fixed base under a tool that counts: flags that the next page overwrites are dead. */
    .intel_syntax noprefix
    .set base, 0x400000
    .set tool, 1
    .org 0xffe
before:
    mov eax, edi
after:
    add eax, 1
    ret
