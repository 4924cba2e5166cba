/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that have run come first, with those that they go on to; a branch over one that has not is turned. The counters of what has
 * run come first too; they are where `data` says. */
    .intel_syntax noprefix
    .set tool, 1
    .set data, 0x40000000
    .set ran_1, 0x1000
    .set ran_2, 0x1009
first:
    test edi, edi
    je taken
seldom:
    mov eax, 1
taken:
    add eax, edi
inside:
    add eax, 2
    jne again
    ret
again:
    dec eax
    jmp seldom
