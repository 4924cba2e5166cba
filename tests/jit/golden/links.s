/* SPDX-License-Identifier: Apache-2.0 */
/* Rule link: jumps through pointers of the page at 0x3000 (.text is at 0x1000); not those that are beside it, misaligned, or reached in
 * another way. Under a tool that counts: no counter may leave rcx in its home, since a linked jump restores nothing. */
    .intel_syntax noprefix
    .set relro, 0x3000
    .set tool, 1
    .set text, 0x1000
plt0:
    push [rip + 0x100]
    jmp [rip + 0x3010 - (text + 12)]
after_plt0:
    nop
first:
    jmp [rip + 0x3000 - (text + 13 + 6)]
second:
    bnd jmp [rip + 0x3ff8 - (text + 19 + 7)]
third:
    endbr64
    notrack jmp [rip + 0x3008 - (text + 26 + 11)]
before:
    jmp [rip + 0x2ff8 - (text + 37 + 6)]
behind:
    jmp [rip + 0x4000 - (text + 43 + 6)]
across:
    jmp [rip + 0x3ffc - (text + 49 + 6)]
thread:
    jmp fs:[rip + 0x3000 - (text + 55 + 7)]
called:
    call [rip + 0x3000 - (text + 62 + 6)]
