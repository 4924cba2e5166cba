/* SPDX-License-Identifier: Apache-2.0 */
/* Rule save-fpu: instructions that store the x87 unit's last instruction address, and then an event. */
    .intel_syntax noprefix
start:
    fnstenv [rsp - 0x40]
after0:
    fnsave [rcx + rdx * 8 + 0x100]
after1:
    fxsave64 [rip + 0x40]
after2:
    fxsave fs:[0x40]
after3:
    fnstenv [eip + 0x40]
after4:
    xsavec [rsp + 0x40]
after5:
    xsave64 [r8 + r9]
after6:
    xsaveopt [rcx]
after7:
    .byte 0x66
    fnstenv [r13]
after8:
    frstor [rax]
    fldenv [rax]
    fxrstor [rax]
    xrstor [rax]
    hlt
