/* SPDX-License-Identifier: Apache-2.0
 *
 * Far returns of the guest: lret and iret to the same 64-bit code segment, done here; what changes segments is not supported.
 *
 *   [66] [REX.W] cb        lret         rip, cs
 *   [REX.W] ca imm16       lret imm16   rip, cs; then imm16 bytes more are popped
 *   [REX.W] cf             iret         rip, cs, flags, rsp, ss
 *
 * Each word popped is 8 bytes with REX.W, else 4; 2 are not supported.
 */
#include "launcher/core.h"
#include "launcher/signal.h"

#define USER_CS 0x33
#define USER_SS 0x2b
#define EFLAGS_IRET (EFLAGS_GUEST | 0x204000) /* and NT and ID, which signal frames do not set */
#define EFLAGS_KEPT 0x202

struct far_insn {
    uint8_t opcode;
    uint16_t pops;
    unsigned word; /* bytes of each word on the stack */
};

static bool decode(uint64_t pc, struct far_insn *out)
{
    uint8_t bytes[4], at = 0;
    if (copy_guest(bytes, (void *)pc, 1))
        return false;
    bool wide = (bytes[0] & 0xf8) == 0x48;
    if (wide && copy_guest(bytes + ++at, (void *)(pc + 1), 1))
        return false;
    *out = (struct far_insn){.opcode = bytes[at], .word = wide ? 8 : 4};
    if (out->opcode == 0xca)
        return !copy_guest(&out->pops, (void *)(pc + at + 1), 2);
    return out->opcode == 0xcb || out->opcode == 0xcf;
}

static bool pop(struct thread_ctx *ctx, unsigned n, unsigned word, uint64_t *values)
{
    for (unsigned i = 0; i < n; i++) {
        values[i] = 0;
        if (copy_guest(&values[i], (void *)(ctx->gpr[RSP] + i * word), word))
            return false;
    }
    return true;
}

bool far_return(struct thread_ctx *ctx)
{
    struct far_insn insn;
    uint64_t v[5];
    if (!decode(ctx->pc, &insn))
        return false;
    bool is_iret = insn.opcode == 0xcf;
    unsigned n = is_iret ? 5 : 2;
    if (!pop(ctx, n, insn.word, v) || (v[1] & 0xffff) != USER_CS || (is_iret && (v[4] & 0xffff) != USER_SS))
        return false;
    ctx->pc = v[0];
    ctx->gpr[RSP] = is_iret ? v[3] : ctx->gpr[RSP] + 2 * insn.word + insn.pops;
    if (is_iret)
        ctx->flags = (v[2] & EFLAGS_IRET) | EFLAGS_KEPT;
    dispatch_resume(ctx);
    return true;
}
