/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions that links.c calls through its procedure linkage table. In assembly: it changes their second instruction's
 * constant.
 */
#define FUNCTION(NAME, N)                                                                                                      \
    __asm__(".globl " #NAME "\n.type " #NAME ", @function\n.balign 16\n" #NAME ": nop\n mov $" #N ", %eax\n ret\n.size " #NAME \
            ", . - " #NAME "\n")

#ifdef OTHER
FUNCTION(nine, 9);
FUNCTION(ten, 10);
#else
FUNCTION(one, 1);
FUNCTION(two, 2);
FUNCTION(three, 3);
FUNCTION(four, 4);
FUNCTION(five, 5);
FUNCTION(six, 6);
FUNCTION(seven, 7);
FUNCTION(eight, 8);
#endif
