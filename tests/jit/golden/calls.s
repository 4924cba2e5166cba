/* SPDX-License-Identifier: Apache-2.0 */
/* Rules call, call-ind, jmp-ind, ret, syscall; the module's base is not known. */
    .intel_syntax noprefix
direct:
    call indirect
outside:
    .byte 0x66
    .byte 0x66
    rex.w call .+0x5000
indirect:
    call rax
c1:
    call r11
c2:
    call rcx
c3:
    call rsp
c4:
    call [rsp + 8]
c5:
    call [rip + 0x100]
c6:
    call fs:[0x10]
c7:
    notrack call rbx
jumps:
    jmp rax
c8:
    jmp r15
c9:
    jmp [rcx + 8 * r12 + 0x12345678]
c10:
    jmp [r13]
c11:
    jmp [rip - 0x10]
c12:
    jmp [eip + 0x10]
c13:
    notrack jmp rdx
c14:
    bnd jmp [rbx]
c15:
    addr32 jmp [eax]
c16:
    jmp fs:[rax]
returns:
    ret
c17:
    ret 0xfff0
c18:
    bnd ret
c19:
    repz ret
system:
    syscall
after_system:
    syscall
c20:
    jmp system
