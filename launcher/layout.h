/* SPDX-License-Identifier: Apache-2.0
 *
 * Offsets of struct thread_ctx that only the core's assembly needs, and the layout of a thread's block of memory:
 *
 *   gs base                                                                             CTX_TARGETS      + THREAD_BLOCK_BYTES
 *   | context (1 page) | frame copy of a pending signal | core stack -> | signal stack -> | target cache |
 */
#ifndef BDBI_LAYOUT_H
#define BDBI_LAYOUT_H

#define CTX_RESUME 0x90
#define CTX_DIRECT 0x98
#define CTX_ENTRY_JMP 0xa8
#define CTX_IBL 0xd0
#define CTX_SELF 0xd8
#define CTX_CORE_SP 0xe0
#define CTX_PENDING 0xe8
#define CTX_IBL_TARGET 0xf0
#define CTX_IBL_HITS 0xf8

/* In the code word of an entry of the lookup table: a landing stands before the code. Alone in the top byte. */
#define IBL_LANDING 0x0100000000000000

#define BDBI_IMAGE_BASE 0x554000000000ull /* cmake/link.cmake: everything of bdbi's own file is mapped in here */
#define BDBI_IMAGE_END 0x554020000000ull
/* What the core and the translator allocate: not where the kernel likes, which may be a place that the guest has left and will
 * take back (MAP_FIXED). */
#define BDBI_TRANSLATOR_HEAP 0x554008200000ull
#define BDBI_TRANSLATOR_HEAP_END 0x554010000000ull
#define BDBI_CORE_HEAP 0x554010400000ull /* behind the core's variables: core.ld */
#define BDBI_CORE_HEAP_END 0x554018000000ull
#define BDBI_TOOL_BASE 0x554018000000ull /* tools that are shared objects, one behind the other (tool_load.c) */
#define BDBI_TOOL_VIEW 0x55401f000000ull

#define THREAD_FRAME_OFFSET 0x1000 /* struct rt_sigframe and fpstate of a pending signal */
#define THREAD_FRAME_BYTES 0x5000
#define THREAD_CORE_STACK_TOP 0x1e000 /* grows down to the frame copy */
#define THREAD_SIGNAL_STACK 0x1e000
#define THREAD_SIGNAL_STACK_END CTX_TARGETS
#define THREAD_BLOCK_BYTES (CTX_TARGETS + BDBI_TARGET_BYTES) /* less than BDBI_THREAD_STRIDE: an overflow faults */

#endif
