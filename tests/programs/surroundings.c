/* SPDX-License-Identifier: Apache-2.0
 *
 * Depends on what it ought not to look at, as vectorised strlen does: the bytes in front of argv[0], and the stack below the
 * stack pointer at its start. For the lockstep checker, which must make them the same in both runs.
 */
__asm__(".globl _start\n"
        "_start:\n"
        "    mov 8(%rsp),%rdi\n" /* argv[0] */
        "    mov $-64,%rcx\n"
        "    xor %eax,%eax\n"
        "1:  movzbl (%rdi,%rcx),%edx\n"
        "    rol $5,%rax\n"
        "    xor %rdx,%rax\n"
        "    inc %rcx\n"
        "    jnz 1b\n"
        "    mov $-2048,%rcx\n"
        "2:  rol $5,%rax\n"
        "    xor (%rsp,%rcx),%rax\n"
        "    add $8,%rcx\n"
        "    jnz 2b\n"
        "    mov $60,%eax\n"
        "    xor %edi,%edi\n"
        "    syscall\n");
