/* SPDX-License-Identifier: Apache-2.0
 *
 * The decoder's corners, one line each: prefixes, what LLVM splits or refuses, classes, parts' offsets.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/insn.h"
#include "launcher/context.h"

#define BAD 0 /* length of what does not decode */

static const struct decoder_case {
    const char *bytes;
    const char *opcode; /* NULL: any */
    uint8_t length, class, event, modrm_offset;
} cases[] = {
    /* plain */
    {"90", "NOOP", 1, INSN_NORMAL, 0, 0},
    {"48 89 c8", "MOV64rr", 3, INSN_NORMAL, 0, 2},
    {"c5 f8 77", "VZEROUPPER", 3, INSN_NORMAL, 0, 0},
    {"c5 f9 6f 05 00 00 00 00", "VMOVDQArm", 8, INSN_NORMAL, 0, 3},
    {"c4 e2 7b 49 c0", "TILEZERO", 5, INSN_NORMAL, 0, 4},
    {"c4 e2 f8 f5 c1", "BZHI64rr", 5, INSN_NORMAL, 0, 4},
    {"62 f1 7c 48 58 c1", "VADDPSZrr", 6, INSN_NORMAL, 0, 5},
    {"8f e8 78 c0 c0 01", "VPROTBri", 6, INSN_NORMAL, 0, 4},
    {"8f 00", "POP64rmm", 2, INSN_NORMAL, 0, 1},
    {"0f 0f c1 9e", "PFADDrr", 4, INSN_NORMAL, 0, 2},
    {"66 0f 3a 0f c1 08", "PALIGNRrri", 6, INSN_NORMAL, 0, 4},
    {"f3 0f 1e fa", "ENDBR64", 4, INSN_NORMAL, 0, 3},
    {"f3 90", "PAUSE", 2, INSN_NORMAL, 0, 0},
    {"f3 0f 01 ee", NULL, 4, INSN_NORMAL, 0, 3},
    {"0f 01 d5", "XEND", 3, INSN_NORMAL, 0, 2},
    {"c6 f8 01", "XABORT", 3, INSN_NORMAL, 0, 1},
    {"cc", "INT3", 1, INSN_NORMAL, 0, 0},
    {"cd 03", "INT", 2, INSN_NORMAL, 0, 0},
    {"0f 35", "SYSEXIT", 2, INSN_NORMAL, 0, 0},
    {"fa", "CLI", 1, INSN_NORMAL, 0, 0},
    /* lock, which LLVM makes an instruction of its own */
    {"f0 48 ff 00", "INC64m", 4, INSN_NORMAL, 0, 3},
    {"f0 f0 48 ff 00", "INC64m", 5, INSN_NORMAL, 0, 4},
    {"f0 0f b1 0a", "CMPXCHG32rm", 4, INSN_NORMAL, 0, 3},
    {"2e f0 66 0f c1 02", "XADD16rm", 6, INSN_NORMAL, 0, 5},
    {"f2 f0 48 ff 00", "INC64m", 5, INSN_NORMAL, 0, 4},
    {"f3 f0 48 89 03", "MOV64mr", 5, INSN_NORMAL, 0, 4},
    {"f0 48 81 05 01 00 00 00 02 00 00 00", "ADD64mi32", 12, INSN_NORMAL, 0, 3},
    {"f0 e8 00 00 00 00", NULL, BAD, 0, 0, 0},
    {"f0 0f 05", NULL, BAD, 0, 0, 0},
    {"f0", NULL, BAD, 0, 0, 0},
    /* a REX that does not count; a 66 after one */
    {"48 66 89 c0", "MOV16rr", 4, INSN_NORMAL, 0, 3},
    {"48 66 81 c0 34 12", "ADD16ri", 6, INSN_NORMAL, 0, 3},
    {"48 48 89 c0", "MOV64rr", 4, INSN_NORMAL, 0, 3},
    {"66 48 89 c0", "MOV64rr", 4, INSN_NORMAL, 0, 3},
    {"48 f3 a4", "MOVSB", 3, INSN_NORMAL, 0, 0},
    /* many prefixes, and one too many */
    {"66 66 66 2e 0f 1f 84 00 00 00 00 00", NULL, 12, INSN_NORMAL, 0, 6},
    {"66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", "NOOP", 15, INSN_NORMAL, 0, 0},
    {"66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", NULL, BAD, 0, 0, 0},
    {"f0 f0 f0 f0 f0 f0 f0 f0 f0 f0 f0 f0 f0 48 ff 00", NULL, BAD, 0, 0, 0},
    {"f2 90", "NOOP", 2, INSN_NORMAL, 0, 0},
    {"f3 96", "XCHG32ar", 2, INSN_NORMAL, 0, 0},
    {"66 f2 96", "XCHG16ar", 3, INSN_NORMAL, 0, 0},
    {"f3 48 89 2f", "MOV64mr", 4, INSN_NORMAL, 0, 3},
    {"f3 88 e9", NULL, 3, INSN_NORMAL, 0, 2},
    {"66 f3 d0 f0", NULL, 4, INSN_NORMAL, 0, 3},
    {"66 f3 90", "PAUSE", 3, INSN_NORMAL, 0, 0},
    {"66 f2 0f 38 f1 c0", "CRC32r32r16", 6, INSN_NORMAL, 0, 5},
    /* what LLVM refuses and processors execute */
    {"0f 19 c0", "NOOP", 3, INSN_NORMAL, 0, 2},
    {"0f 1a 44 00 01", "NOOP", 5, INSN_NORMAL, 0, 2},
    {"66 0f 1b 05 00 00 00 00", "NOOP", 8, INSN_NORMAL, 0, 3},
    {"0f 1e fa", "NOOP", 3, INSN_NORMAL, 0, 2},
    {"0f 0d c0", "NOOP", 3, INSN_NORMAL, 0, 2},
    {"d0 f0", NULL, 2, INSN_NORMAL, 0, 1},
    {"48 c1 f0 05", "SHL64ri", 4, INSN_NORMAL, 0, 2},
    {"f6 c8 05", "TEST8ri", 3, INSN_NORMAL, 0, 1},
    {"f7 c8 01 00 00 00", "TEST32ri", 6, INSN_NORMAL, 0, 1},
    {"f1", NULL, 1, INSN_NORMAL, 0, 0},
    {"dc d1", NULL, 2, INSN_NORMAL, 0, 1},
    {"dd c9", NULL, 2, INSN_NORMAL, 0, 1},
    {"de d1", NULL, 2, INSN_NORMAL, 0, 1},
    {"df c9", NULL, 2, INSN_NORMAL, 0, 1},
    {"df d1", NULL, 2, INSN_NORMAL, 0, 1},
    {"db e0", NULL, 2, INSN_NORMAL, 0, 1},
    {"0f ff", NULL, BAD, 0, 0, 0},
    {"0f ff c0", NULL, 2, INSN_STOP, 0, 0},
    {"0f 0b", "TRAP", 2, INSN_STOP, 0, 0},
    {"0f b9 c0", NULL, 3, INSN_STOP, 0, 2},
    {"f4", "HLT", 1, INSN_STOP, 0, 0},
    /* no such instruction */
    {"06", NULL, BAD, 0, 0, 0},
    {"0f 04", NULL, BAD, 0, 0, 0},
    {"82 c0 01", NULL, BAD, 0, 0, 0},
    {"d5 11 89 c0", NULL, BAD, 0, 0, 0},
    {"62 f4 7c 08 01 c0", NULL, BAD, 0, 0, 0},
    {"e8 00 00 00", NULL, BAD, 0, 0, 0},
    {"48", NULL, BAD, 0, 0, 0},
    /* direct branches */
    {"eb 10", "JMP_1", 2, INSN_JMP, 0, 0},
    {"e9 10 00 00 00", "JMP_4", 5, INSN_JMP, 0, 0},
    {"f2 e9 00 00 00 00", "JMP_4", 6, INSN_JMP, 0, 0},
    {"2e 74 05", "JCC_1", 3, INSN_JCC, 0, 0},
    {"3e 0f 84 00 00 00 00", "JCC_4", 7, INSN_JCC, 0, 0},
    {"f2 75 05", "JCC_1", 3, INSN_JCC, 0, 0},
    {"e0 05", "LOOPNE", 2, INSN_LOOP, 0, 0},
    {"67 e2 05", "LOOP", 3, INSN_LOOP, 0, 0},
    {"67 e3 05", "JECXZ", 3, INSN_LOOP, 0, 0},
    {"e3 05", "JRCXZ", 2, INSN_LOOP, 0, 0},
    {"e8 00 00 00 00", "CALL64pcrel32", 5, INSN_CALL, 0, 0},
    {"67 e8 00 00 00 00", "CALL64pcrel32", 6, INSN_CALL, 0, 0},
    {"66 66 48 e8 00 00 00 00", "CALL64pcrel32", 8, INSN_CALL, 0, 0},
    {"64 e8 00 00 00 00", "CALL64pcrel32", 6, INSN_CALL, 0, 0},
    {"65 e8 00 00 00 00", "CALL64pcrel32", 6, INSN_CALL, 0, 0},
    {"c7 f8 00 00 00 00", "XBEGIN_4", 6, INSN_XBEGIN, 0, 1},
    /* the same with 16 bits */
    {"66 e8 00 00 00 00", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 0},
    {"66 e9 00 00", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 0},
    {"66 eb 00", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 0},
    {"66 74 00", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 0},
    {"66 0f 84 00 00 00 00", NULL, 3, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 0},
    {"66 e3 00", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 0},
    {"66 c3", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 0},
    {"66 c2 00 00", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 0},
    {"66 ff d0", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 2},
    {"66 ff 20", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 2},
    {"66 48 ff d0", "CALL64r", 4, INSN_CALL_IND, 0, 3},
    {"66 48 ff e0", "JMP64r", 4, INSN_JMP_IND, 0, 3},
    {"66 c7 f8 00 00", NULL, 5, INSN_UNSUPPORTED, BDBI_EVENT_OPERAND16, 2},
    {"66 ff 30", "PUSH16rmm", 3, INSN_NORMAL, 0, 2},
    {"66 ff c0", "INC16r", 3, INSN_NORMAL, 0, 2},
    /* indirect branches, returns */
    {"ff e0", "JMP64r", 2, INSN_JMP_IND, 0, 1},
    {"3e ff e0", "JMP64r", 3, INSN_JMP_IND, 0, 2},
    {"f2 ff e0", "JMP64r", 3, INSN_JMP_IND, 0, 2},
    {"41 ff 24 24", "JMP64m", 4, INSN_JMP_IND, 0, 2},
    {"ff 25 00 00 00 00", "JMP64m", 6, INSN_JMP_IND, 0, 1},
    {"ff 15 00 00 00 00", "CALL64m", 6, INSN_CALL_IND, 0, 1},
    {"41 ff d3", "CALL64r", 3, INSN_CALL_IND, 0, 2},
    {"64 ff 14 25 10 00 00 00", "CALL64m", 8, INSN_CALL_IND, 0, 2},
    {"c3", "RET64", 1, INSN_RET, 0, 0},
    {"f3 c3", "RET64", 2, INSN_RET, 0, 0},
    {"f2 c3", "RET64", 2, INSN_RET, 0, 0},
    {"48 c3", "RET64", 2, INSN_RET, 0, 0},
    {"c2 ff ff", "RETI64", 3, INSN_RET, 0, 0},
    {"0f 05", "SYSCALL", 2, INSN_SYSCALL, 0, 0},
    {"48 0f 05", "SYSCALL", 3, INSN_SYSCALL, 0, 0},
    {"0f a2", "CPUID", 2, INSN_CPUID, 0, 0},
    {"66 48 0f a2", "CPUID", 4, INSN_CPUID, 0, 0},
    /* far */
    {"cb", NULL, 1, INSN_UNSUPPORTED, BDBI_EVENT_FAR, 0},
    {"ca 01 00", NULL, 3, INSN_UNSUPPORTED, BDBI_EVENT_FAR, 0},
    {"48 cf", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_FAR, 0},
    {"ff 18", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_FAR, 1},
    {"48 ff 28", NULL, 3, INSN_UNSUPPORTED, BDBI_EVENT_FAR, 2},
    {"f3 0f 01 ec", NULL, 4, INSN_UNSUPPORTED, BDBI_EVENT_FAR, 3},
    /* 32-bit system calls */
    {"cd 80", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_INT80, 0},
    {"0f 34", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_INT80, 0},
    /* gs */
    {"65 48 8b 04 25 00 00 00 00", NULL, 9, INSN_UNSUPPORTED, BDBI_EVENT_GS, 3},
    {"65 2e 48 8b 00", NULL, 5, INSN_UNSUPPORTED, BDBI_EVENT_GS, 4},
    {"65 64 48 8b 00", "MOV64rm", 5, INSN_NORMAL, 0, 4},
    {"64 65 48 8b 00", NULL, 5, INSN_UNSUPPORTED, BDBI_EVENT_GS, 4},
    {"f0 65 48 ff 00", NULL, 5, INSN_UNSUPPORTED, BDBI_EVENT_GS, 4},
    {"65 a4", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_GS, 0},
    {"65 d7", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_GS, 0},
    {"65 48 a1 00 00 00 00 00 00 00 00", NULL, 11, INSN_UNSUPPORTED, BDBI_EVENT_GS, 0},
    {"65 66 0f f7 c1", NULL, 5, INSN_UNSUPPORTED, BDBI_EVENT_GS, 4},
    {"65 ff 20", NULL, 3, INSN_UNSUPPORTED, BDBI_EVENT_GS, 2},
    {"65 ff 10", NULL, 3, INSN_UNSUPPORTED, BDBI_EVENT_GS, 2},
    {"65 c4 e2 79 90 04 09", NULL, 7, INSN_UNSUPPORTED, BDBI_EVENT_GS, 5},
    {"65 90", "NOOP", 2, INSN_NORMAL, 0, 0},
    {"65 0f 1f 00", NULL, 4, INSN_NORMAL, 0, 3},
    {"65 48 8d 00", NULL, 4, INSN_NORMAL, 0, 3},
    {"65 ff e0", "JMP64r", 3, INSN_JMP_IND, 0, 2},
    {"65 48 89 c8", "MOV64rr", 4, INSN_NORMAL, 0, 3},
    {"8e e8", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_GS, 1},
    {"8e 28", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_GS, 1},
    {"8c e8", NULL, 2, INSN_NORMAL, 0, 1},
    {"8e e0", NULL, 2, INSN_NORMAL, 0, 1},
    {"0f a8", NULL, 2, INSN_NORMAL, 0, 0},
    {"0f a9", NULL, 2, INSN_UNSUPPORTED, BDBI_EVENT_GS, 0},
    {"0f b5 00", NULL, 3, INSN_UNSUPPORTED, BDBI_EVENT_GS, 2},
    {"f3 48 0f ae d8", NULL, 5, INSN_UNSUPPORTED, BDBI_EVENT_GS, 4},
    {"f3 48 0f ae c8", NULL, 5, INSN_UNSUPPORTED, BDBI_EVENT_GS, 4},
    {"f3 48 0f ae d0", "WRFSBASE64", 5, INSN_NORMAL, 0, 4},
    {"0f 01 f8", NULL, 3, INSN_NORMAL, 0, 2},
};

static int failures;

static void fail(const char *bytes, const char *what, long got, long expected)
{
    printf("FAIL: %s: %s is %ld, not %ld\n", bytes, what, got, expected);
    failures++;
}

static size_t parse(const char *text, uint8_t *bytes)
{
    size_t n = 0;
    char *end;

    for (; *text; text = end) {
        bytes[n++] = (uint8_t)strtoul(text, &end, 16);
        while (*end == ' ')
            end++;
    }
    return n;
}

static void check_case(struct decoder *d, const struct decoder_case *c)
{
    uint8_t bytes[16];
    size_t n = parse(c->bytes, bytes);
    /* An allocation of just that size: AddressSanitizer sees a read past it. */
    uint8_t *exact = malloc(n);
    struct insn insn;

    memcpy(exact, bytes, n);
    if (insn_decode(d, exact, n, 0x1000, &insn) != 0) {
        if (c->length != BAD)
            fail(c->bytes, "length", 0, c->length);
        free(exact);
        return;
    }
    if (insn.length != c->length)
        fail(c->bytes, "length", insn.length, c->length);
    if (insn.class != c->class)
        fail(c->bytes, "class", insn.class, c->class);
    if (insn.class == INSN_UNSUPPORTED && insn.event != c->event)
        fail(c->bytes, "event", insn.event, c->event);
    if (insn.modrm_offset != c->modrm_offset)
        fail(c->bytes, "modrm_offset", insn.modrm_offset, c->modrm_offset);
    if (c->opcode && strcmp(insn_opcode_name(insn.opcode), c->opcode) != 0) {
        printf("FAIL: %s: opcode %s, not %s\n", c->bytes, insn_opcode_name(insn.opcode), c->opcode);
        failures++;
    }
    free(exact);
    /* Cut off anywhere it is no instruction, or one that fits into what is left. */
    for (size_t cut = 1; cut < n; cut++) {
        exact = malloc(cut);
        memcpy(exact, bytes, cut);
        if (insn_decode(d, exact, cut, 0, &insn) == 0 && insn.length > cut)
            fail(c->bytes, "length after a cut", insn.length, (long)cut);
        free(exact);
    }
}

/* Fields that only some instructions have. */
static void check_fields(struct decoder *d)
{
    struct insn i;
    static const uint8_t rip[] = {0xf0, 0x48, 0x81, 0x05, 0x10, 0, 0, 0, 2, 0, 0, 0};
    static const uint8_t eip[] = {0x67, 0x48, 0x8b, 0x05, 0xf0, 0xff, 0xff, 0xff};
    static const uint8_t back[] = {0xeb, 0xfe};
    static const uint8_t call[] = {0x66, 0x66, 0x48, 0xe8, 0x00, 0x01, 0x00, 0x00};
    static const uint8_t ret[] = {0xc2, 0xf0, 0xff};
    static const uint8_t nop[] = {0x0f, 0x1f, 0x05, 0, 0, 0, 0};
    static const uint8_t rep[] = {0xf3, 0xa4};
    static const uint8_t exchange[] = {0xf0, 0x48, 0x0f, 0xb1, 0x0a};

    insn_decode(d, rip, sizeof(rip), 0x1000, &i);
    if (!i.rip_relative || i.rip_target != 0x1000 + 12 + 0x10 || i.disp_offset != 4 || !i.lock)
        fail("lock add qword ptr [rip + 0x10], 2", "rip_target", i.rip_target, 0x101c);
    insn_decode(d, eip, sizeof(eip), 0x1000, &i);
    if (!i.rip_relative || i.rip_target != 0x1000 + 8 - 0x10 || i.disp_offset != 4)
        fail("mov rax, [eip - 0x10]", "rip_target", i.rip_target, 0xff8);
    insn_decode(d, back, sizeof(back), 0x1000, &i);
    if (i.target != 0x1000)
        fail("jmp to itself", "target", i.target, 0x1000);
    insn_decode(d, call, sizeof(call), 0x1000, &i);
    if (i.target != 0x1108)
        fail("data16 call", "target", i.target, 0x1108);
    insn_decode(d, ret, sizeof(ret), 0x1000, &i);
    if (i.ret_pop != 0xfff0)
        fail("ret 0xfff0", "ret_pop", i.ret_pop, 0xfff0);
    insn_decode(d, nop, sizeof(nop), 0x1000, &i);
    if (i.rip_relative)
        fail("nop [rip]", "rip_relative", 1, 0);
    insn_decode(d, rep, sizeof(rep), 0x1000, &i);
    if (i.regs_read != (1 << 1 | 1 << 6 | 1 << 7) || i.regs_written != i.regs_read)
        fail("rep movsb", "regs_read", i.regs_read, 1 << 1 | 1 << 6 | 1 << 7);
    insn_decode(d, exchange, sizeof(exchange), 0x1000, &i);
    if (i.regs_read != (1 << 0 | 1 << 1 | 1 << 2) || i.regs_written != 1 << 0 || i.flags_written != FLAG_ALL)
        fail("lock cmpxchg", "regs_read", i.regs_read, 7);
}

static void check_format(struct decoder *d)
{
    static const uint8_t add[] = {0xf0, 0x48, 0x83, 0x00, 0x01};
    static const uint8_t jump[] = {0x66, 0x66, 0x48, 0xe8, 0x00, 0x01, 0x00, 0x00};
    char text[128];

    insn_format(d, add, sizeof(add), 0x1000, text, sizeof(text));
    if (strcmp(text, "lock add qword ptr [rax], 0x1") != 0) {
        printf("FAIL: formatted as %s\n", text);
        failures++;
    }
    insn_format(d, jump, sizeof(jump), 0x1000, text, sizeof(text));
    if (strcmp(text, "call 0x1108") != 0) {
        printf("FAIL: formatted as %s\n", text);
        failures++;
    }
    if (insn_format(d, jump, 3, 0x1000, text, 4) != -1 || strlen(text) != 3)
        fail("66 66 48", "length of its text", (long)strlen(text), 3);
}

/* Two texts that have the same pc, as an offset and as an address: each has its own instruction. */
static void check_memory(struct decoder *d)
{
    static const uint8_t nop[15] = {0x90}, ret[15] = {0xc3}, far_nop[15] = {0x0f, 0x1f, 0x00};
    struct insn insn;

    decoder_remember(d);
    for (int round = 0; round < 2; round++) {
        if (insn_decode(d, nop, sizeof(nop), 0x400000, &insn) != 0 || insn_ends_block(&insn))
            fail("90", "the same pc as c3", insn.class, INSN_NORMAL);
        if (insn_decode(d, ret, sizeof(ret), 0x400000, &insn) != 0 || !insn_ends_block(&insn))
            fail("c3", "the same pc as 90", insn.class, 0);
        if (insn_decode(d, far_nop, sizeof(far_nop), 0x400000 + 1024, &insn) != 0 || insn.length != 3)
            fail("0f 1f 00", "the same slot", insn.length, 3);
    }
}

int main(void)
{
    struct decoder *d = decoder_new();

    if (!d)
        return 2;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_case(d, &cases[i]);
    check_fields(d);
    check_format(d);
    check_memory(d);
    decoder_free(d);
    printf("%zu cases, %d failures\n", sizeof(cases) / sizeof(cases[0]), failures);
    return failures ? 1 : 0;
}
