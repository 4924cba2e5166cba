/* SPDX-License-Identifier: Apache-2.0 */
/* Rule count: with inc where the flags die, without flags where they live on. */
    .intel_syntax noprefix
    .set tool, 1
dies:
    mov eax, 1
    xor ecx, ecx
    ret
lives:
    mov eax, 1
    ret
carry:
    sbb eax, eax
    ret
read_first:
    sete al
    test eax, eax
    ret
increments:
    inc eax
    ret
shift_by_cl:
    shl eax, cl
    ret
shift_by_0:
    shl eax, 32
    ret
into_next:
    mov eax, 2
next:
    add eax, 2
both_ways:
    mov eax, 3
    loop next
    cmp eax, 5
one_way:
    loop lives
    cmp eax, 5
conditional:
    je next
    cmp eax, 5
repeated:
    repe cmpsb
    ret
no_block:
    .byte 0x06
