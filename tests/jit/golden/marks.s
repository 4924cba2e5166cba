/* SPDX-License-Identifier: Apache-2.0 */
/* Rule mark: a store that leaves the flags alone, behind the counters of all blocks. */
    .intel_syntax noprefix
    .set tool, 2
first:
    adc eax, 1
    jne first
second:
    ret
