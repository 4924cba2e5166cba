/* SPDX-License-Identifier: Apache-2.0 */
/* Jumps through tables of pointers, with a fixed base; and a tool that counts: once for each block, whichever copy runs. */
    .intel_syntax noprefix
    .set constants, 1
    .set base, 0x400000
    .set linked, 1
    .set tool, 1
memory:
    mov eax, edi
memory_proof:
    cmp eax, 2
    jae other
memory_jump:
    jmp [rax*8 + 0x401100]
register:
    and edx, 1
register_load:
    mov rcx, [rdx*8 + 0x401100]
    mov rbp, rbx
    jmp rcx
wide:
    and r9d, 1
wide_jump:
    jmp [r9*8 + 0x401100]
case_0:
    mov edx, 1
case_1:
    ret
other:
    ret
    .org 0x100
    .quad case_0 - memory + 0x401000, case_1 - memory + 0x401000
