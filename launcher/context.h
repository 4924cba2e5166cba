/* SPDX-License-Identifier: Apache-2.0
 *
 * The per-thread context that gs points at while translated code runs, and where everything lives.
 *
 * Emitted code, the core's assembly and the core's C all use this layout, so every offset that code or assembly
 * names is an enum constant here and is checked by a _Static_assert in launcher/core.h. Changing one changes the codegen id.
 *
 *   window (2 GB, one at 0 for what has a place, one at a random W)
 *   W            +1 GB                      +1.75 GB        +2 GB
 *   | modules ... | code of module at A: A+D | JIT arena     |        D = BDBI_CODE_DISTANCE
 *
 *   gs base of thread k = BDBI_THREAD_BASE + k * BDBI_THREAD_STRIDE, with a tool BDBI_COUNTING_BASE + k * BDBI_COUNTING_STRIDE
 *   a thread's private copy of the 8-byte counter at code address X sits at X + gs base, which is what
 *   `inc qword ptr gs:[rip+disp]` addresses: per-thread counters in one instruction, no relocation, no scratch.
 */
#ifndef BDBI_CONTEXT_H
#define BDBI_CONTEXT_H

#define BDBI_CODE_DISTANCE 0x40000000 /* D: code of the module at A starts at A + D */
#define BDBI_WINDOW_BYTES 0x80000000  /* modules, their code and the JIT arena: all within rip reach */
#define BDBI_MODULES_BYTES 0x30000000 /* modules may use [W, W + this) */
#define BDBI_MODULE_ALIGN 0x2000      /* the translator knows the slot in the target cache of a module's addresses */
#define BDBI_JIT_OFFSET 0x70000000    /* the JIT arena is [W + this, W + BDBI_WINDOW_BYTES) */
/* gs base of thread 0 and the distance to the next thread's. Without a tool: behind bdbi's own image, in a part of the address
 * space that programs with fixed shadow memory (the sanitizers) leave alone. */
#define BDBI_THREAD_BASE 0x554020000000
#define BDBI_THREAD_STRIDE 0x80000ull
/* With a tool: far enough apart for a copy of all counters each, low enough for the sum of a code address and a gs base. */
#define BDBI_COUNTING_BASE 0x101000000000
#define BDBI_COUNTING_STRIDE 0x100000000ull
/* The vdso's counters, gs-based: where those of a module in the first 64 KB would be, which the kernel maps nothing into. */
#define BDBI_VDSO_COUNTERS BDBI_CODE_DISTANCE

/* gs-relative byte offsets. GPRs are in encoding order (rax rcx rdx rbx rsp rbp rsi rdi r8..r15); CTX_GPR + 8 * n is the
 * home of register n: where emitted code spills it and where the dispatcher saves it. */
#define CTX_GPR 0x00
#define CTX_RAX 0x00
#define CTX_RCX 0x08
#define CTX_RDX 0x10
#define CTX_RBX 0x18
#define CTX_RSP 0x20
#define CTX_RBP 0x28
#define CTX_RSI 0x30
#define CTX_RDI 0x38
#define CTX_PC 0x80
#define CTX_FLAGS 0x88
/* Entry points that emitted code jumps to with `jmp gs:[off]`. */
#define CTX_ENTRY_OTHER 0xa0 /* another address than the landing's, L: rcx = target - L, rdx = ~L, the app's in their homes */
#define CTX_OPERAND 0xb0
#define CTX_ENTRY_DIRECT 0xb8  /* direct branch to code outside the unit: rcx = app target, app rcx in its home */
#define CTX_ENTRY_SYSCALL 0xc0 /* syscall: rcx = app pc after it, r11 = code address to continue at */
#define CTX_ENTRY_EVENT 0xc8   /* rcx = enum bdbi_event, app rcx in its home; rax = app pc, app rax in its home */
#define CTX_ENTRY_CPUID 0x100  /* rcx = app pc after it, rax = code address to continue at, the app's in their homes */

/* The target cache: slot CTX_TARGET(pc) has the landing of an app pc with the same low bits, or core_target_lost. An indirect
 * branch goes there with rcx = app target and the app's rcx and rdx in their homes. */
#define CTX_TARGETS 0x30000
#define BDBI_TARGET_BITS 13
#define BDBI_TARGET_BYTES (8 << BDBI_TARGET_BITS)
#define CTX_TARGET(pc) (CTX_TARGETS + 8 * (unsigned)((pc) & ((1u << BDBI_TARGET_BITS) - 1)))
#define BDBI_LANDING_BYTES 43 /* a landing stands directly before its block */
#define LANDING_END_BYTES 9   /* mov rcx, home(rcx), its end: who knows the target arrives here */

#ifndef __ASSEMBLER__
enum bdbi_event {
    BDBI_EVENT_UNDECODABLE = 1, /* no instruction here as far as the decoder knows: SIGILL, or a fetch fault */
    BDBI_EVENT_GS = 2,          /* the guest uses gs or writes its base */
    BDBI_EVENT_FAR = 3,         /* far jmp, call, ret; iret */
    BDBI_EVENT_INT80 = 4,       /* 32-bit system call, sysenter */
    BDBI_EVENT_OPERAND16 = 5,   /* near branch with a 16-bit operand */
    BDBI_EVENT_TOO_LONG = 6,    /* more than 15 bytes: general protection, or a fetch fault */
    BDBI_EVENT_FPU_SAVED = 7, /* the instruction has stored the x87 unit's state at CTX_OPERAND; enum bdbi_fpu_saved says how */
    BDBI_EVENT_CHANGED = 8,   /* a checked block's bytes are not those that it is made from */
};
#define BDBI_EVENT_MASK 0xff

/* Above the event. */
enum bdbi_fpu_saved {
    FPU_SAVED_LENGTH_SHIFT = 8, /* of the instruction, 4 bits */
    FPU_SAVED_AREA = 1 << 12,   /* by fxsave or an xsave, not fnstenv or fnsave */
    FPU_SAVED_WIDE = 1 << 13,   /* with REX.W: the address has 64 bits */
    FPU_SAVED_NARROW = 1 << 14, /* with an operand size of 16 bits: it has 16 */
    FPU_SAVED_HEADER = 1 << 15, /* by an xsave: its header says whether the state was stored */
    FPU_SAVED_FS = 1 << 16,     /* the operand is relative to fs */
};
#endif

#endif
