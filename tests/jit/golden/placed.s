/* SPDX-License-Identifier: Apache-2.0 */
/* A module at its place: addresses are immediates as in ET_EXEC, but what the file has for pointers is relocated when it is loaded: a
 * table of those is none, one of offsets is. */
    .intel_syntax noprefix
    .set constants, 1
    .set base, 0x20000000
start:
    call other
back:
    and edx, 1
pointers:
    lea rax, [rip + .Lpointers]
    mov rcx, [rax + rdx*8]
    jmp rcx
offsets:
    and esi, 1
offsets_load:
    lea rbx, [rip + .Loffsets]
    movsxd rdi, [rbx + rsi*4]
    add rdi, rbx
    jmp rdi
other:
    ret
.Loffsets:
    .long other - .Loffsets, other - .Loffsets
.Lpointers:
    .quad 0x20001000, 0x20001000
