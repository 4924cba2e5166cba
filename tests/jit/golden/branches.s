/* SPDX-License-Identifier: Apache-2.0 */
/* Rules jmp, jcc, loop, xbegin and the ends of blocks: known, next, other leader, outside. */
    .intel_syntax noprefix
    .set known_9000, 0x40100000
next:
    mov eax, ebx
fall:
    add eax, 1
    jmp after
after:
    jne after
c1:
    jmp fall
condition:
    jg next
hinted:
    .byte 0x3e
    je condition
c2:
    jz .+0x4000
outside:
    jl .+0x4000
c3:
    jmp .+0x4000
known:
    jmp next + 0x8000
loops:
    loop next
short:
    jecxz .+4
c4:
    jrcxz .+0x20
c5:
    loopne loops
transaction:
    xbegin transaction
c6:
    xabort 1
    xend
    bnd jmp next
text_target:
    jo inside
c7:
    jo inside
c8:
    .byte 0x0f, 0x1f, 0x40
inside = . - 1
    .byte 0x00
    ud2
