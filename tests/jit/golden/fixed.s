/* SPDX-License-Identifier: Apache-2.0 */
/* ET_EXEC: the base is known and low, so return addresses are immediates. */
    .intel_syntax noprefix
    .set base, 0x400000
start:
    call start
back:
    call rax
operand:
    mov eax, [rip + 0x1000]
    syscall
then:
    jmp .+0x2000
