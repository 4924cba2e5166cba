/* SPDX-License-Identifier: Apache-2.0 */
/* Jumps through tables of offsets: a trace in the block before the proof; targets with a landing and without. */
    .intel_syntax noprefix
    .set constants, 1
switch:
    mov eax, edi
proof:
    cmp eax, 2
    ja other
load:
    lea rcx, [rip + .Ltable]
    movsxd rax, [rcx + rax*4]
    add rax, rcx
    jmp rax
case_0:
    mov edx, 1
case_1:
    ret
case_2:
    ret
other:
    ret
in_rcx:
    and ecx, 1
in_rcx_load:
    lea rax, [rip + .Ltable]
    movsxd rcx, [rax + rcx*4]
    mov rdx, [rsi]
    add rcx, rax
    jmp rcx
unproven:
    mov eax, edi
unproven_proof:
    cmp edi, 2
    ja other
unproven_load:
    lea rcx, [rip + .Ltable]
    movsxd rax, [rcx + rax*4]
    add rax, rcx
    jmp rax
byte:
    movzx eax, dl
byte_load:
    lea rcx, [rip + .Ltable]
    movsxd rax, [rcx + rax*4]
    add rax, rcx
    jmp rax
changed:
    mov eax, edi
changed_proof:
    cmp eax, 2
    ja other
changed_load:
    inc eax
    lea rcx, [rip + .Ltable]
    movsxd rax, [rcx + rax*4]
    add rax, rcx
    jmp rax
.Ltable:
    .long case_0 - .Ltable, case_1 - .Ltable, case_2 - .Ltable
