/* SPDX-License-Identifier: Apache-2.0
 *
 * verify LIBRARY [objdump]: translates a whole library and reads the result back, block by block along the address map. Every
 * app instruction must be there, copied verbatim (but for a moved displacement) or rewritten as its rule says, with the targets
 * it had. With `objdump`, instruction lengths are also compared with what `objdump -d` says of the same file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cachedb/image.h"
#include "launcher/context.h"
#include "support.h"

#define D BDBI_CODE_DISTANCE
#define MAX_PIECES 16

static const struct module *module;
static struct jit_output out;
static struct decoder *decoder;
static uint32_t *after;      /* of each block, the one whose code comes next; out of range: it is the last */
static uint32_t *block_code; /* module offset -> code offset of its block, + 1; 0: no leader */
static uint32_t limit;
static unsigned long copied, moved, rewritten, failures;

static void fail(uint32_t app, size_t code, const char *what)
{
    char text[128] = "?";

    for (uint32_t i = 0; i < module->nspans; i++) {
        const struct text_span *span = &module->spans[i];
        if (app >= span->start && app < span->end)
            insn_format(decoder, span->bytes + (app - span->start), span->end - app, app, text, sizeof(text));
    }
    if (failures++ < 20)
        printf("FAIL: %x: %s (code %zx): %s\n", app, text, code, what);
}

static const uint8_t *app_bytes(uint32_t app, size_t *left)
{
    for (uint32_t i = 0; i < module->nspans; i++) {
        const struct text_span *span = &module->spans[i];
        if (app >= span->start && app < span->end) {
            *left = span->end - app;
            return span->bytes + (app - span->start);
        }
    }
    *left = 0;
    return NULL;
}

/* Decodes the code at CODE, in the terms of module offsets. */
static bool code_insn(size_t code, struct insn *i)
{
    return code < out.code_bytes && insn_decode(decoder, out.code + code, out.code_bytes - code, D + code, i) == 0;
}

static bool is_name(const struct insn *i, const char *name)
{
    return strcmp(insn_opcode_name(i->opcode), name) == 0;
}

static bool is_jmp_context(size_t code, uint32_t offset)
{
    static const uint8_t start[4] = {0x65, 0xff, 0x24, 0x25};

    return code + 8 <= out.code_bytes && memcmp(out.code + code, start, 4) == 0 && memcmp(out.code + code + 4, &offset, 4) == 0;
}

/* mov gs:[8*r], r (opcode 89) or back (8b) */
static bool is_home(size_t code, unsigned opcode, unsigned r)
{
    const uint8_t expected[9] = {0x65, 0x48, (uint8_t)opcode, (uint8_t)(0x04 | r << 3), 0x25, (uint8_t)(8 * r)};

    return code + 9 <= out.code_bytes && memcmp(out.code + code, expected, 9) == 0;
}

/* lea r, [rip -> TARGET]. Out of reach: lea r, [rip -> here], then lea r, [r + d]... Returns its length, 0: it is not there. */
static unsigned address_length(size_t code, unsigned r, int64_t target)
{
    size_t at = code + 7;
    struct insn i;
    int64_t value;

    if (!code_insn(code, &i) || !is_name(&i, "LEA64r") || !i.rip_relative || i.regs_written != 1u << r || i.length != 7)
        return 0;
    for (value = i.rip_target; value != target; at += 7) {
        int32_t step;
        if (!code_insn(at, &i) || !is_name(&i, "LEA64r") || i.regs_read != 1u << r || i.regs_written != 1u << r ||
            i.length != 7)
            return 0;
        memcpy(&step, out.code + at + 3, 4);
        value += step;
    }
    return (unsigned)(at - code);
}

/* Returns the length of a direct exit to TARGET, 0: it is not there. */
static unsigned direct_exit_length(size_t code, int64_t target)
{
    unsigned n = is_home(code, 0x89, 1) ? address_length(code + 9, 1, target) : 0;

    return n && is_jmp_context(code + 9 + n, CTX_ENTRY_DIRECT) ? 9 + n + 8 : 0;
}

/* Whether code that continues at CODE continues at the app's TARGET. */
static bool is_at(int64_t code, int64_t target)
{
    if (target >= 0 && target < limit && block_code[target])
        return code == (int64_t)block_code[target] - 1;
    return code >= 0 && direct_exit_length((size_t)code, target) != 0;
}

/* Whether the code at CODE of LENGTH bytes (0: nothing) goes on at TARGET. */
static bool goes_on(size_t code, size_t length, int64_t target)
{
    struct insn i;

    if (!length)
        return is_at((int64_t)code, target);
    if (length != 5 && length != 2)
        return direct_exit_length(code, target) == length;
    return code_insn(code, &i) && i.length == length && is_name(&i, length == 2 ? "JMP_1" : "JMP_4") &&
           is_at(i.target - D, target);
}

static bool is_code(size_t code, const char *bytes, unsigned n)
{
    return code + n <= out.code_bytes && memcmp(out.code + code, bytes, n) == 0;
}

/* Whether the landing of TARGET is at CODE. */
static bool is_landing(size_t code, int64_t target)
{
    return address_length(code, 2, target) == 7 && is_code(code + 7, "\x48\xf7\xd2\x48\x8d\x4c\x11\x01\xe3\x08", 10) &&
           is_jmp_context(code + 17, CTX_ENTRY_OTHER) && is_home(code + 25, 0x8b, 2) && is_home(code + 34, 0x8b, 1);
}

/* Returns the length of the push of TARGET, 0: it is not there. *LANDING: where the landing is that it puts into the target
 * cache, or 0. */
static unsigned push_length(size_t code, int64_t target, size_t *landing)
{
    unsigned n = 9;
    struct insn i;

    *landing = 0;
    if (!is_home(code, 0x89, 0) || !code_insn(code + 9, &i))
        return 0;
    if (is_code(code + 16, "\x65\x48\x89\x04\x25", 5)) { /* mov gs:[slot], rax */
        uint32_t slot;
        memcpy(&slot, out.code + code + 21, 4);
        if (!is_name(&i, "LEA64r") || !i.rip_relative || slot != CTX_TARGET((uint64_t)target))
            return 0;
        *landing = (size_t)(i.rip_target - D);
        n += 7 + 9;
    }
    unsigned m = address_length(code + n, 0, target);
    n += m;
    return m && out.code[code + n] == 0x50 && is_home(code + n + 1, 0x8b, 0) ? n + 1 + 9 : 0;
}

/* Whether what follows a call's jump, from CODE on and LENGTH bytes, is the landing at LANDING, or nothing if that is 0. */
static bool ends_call(size_t code, size_t length, size_t landing, int64_t target)
{
    return landing ? landing == code && length == BDBI_LANDING_BYTES && is_landing(code, target) : length == 0;
}

/* Returns the length of the jump to what rcx is, by way of the target cache, 0: it is not there. */
static unsigned jump_length(size_t code)
{
    static const char load[] = "\x8d\x14\xcd\0\0\0\0\x0f\xb7\xd2\x65\xff\xa2\0\0\x03";

    _Static_assert(CTX_TARGETS == 0x30000, "as in the bytes");
    return is_home(code, 0x89, 2) && is_code(code + 9, load, sizeof(load)) ? 9 + sizeof(load) : 0;
}

/* Returns the length of what loads the operand of INSN, jmp or call r/m, into rcx, 0: it is not there. */
static unsigned load_length(size_t code, const struct insn *insn)
{
    const unsigned rsp = 1 << 4; /* call reads it for its push */
    unsigned n = 0;
    struct insn i;

    if (!is_home(code, 0x89, 1) || !code_insn(code + 9, &i))
        return 0;
    if (insn->rip_relative && is_name(&i, "LEA64r")) {
        static const uint8_t through_rcx[] = {0x48, 0x8b, 0x09};
        n = address_length(code + 9, 1, insn->rip_target);
        return n && memcmp(out.code + code + 9 + n, through_rcx, 3) == 0 ? 9 + n + 3 : 0;
    }
    if (strncmp(insn_opcode_name(i.opcode), "MOV64r", 6) != 0 || i.regs_written != 1 << 1 ||
        i.rip_relative != insn->rip_relative || i.rip_target != insn->rip_target ||
        (i.regs_read | rsp) != (insn->regs_read | rsp))
        return 0;
    return 9 + i.length;
}

/* mov home(s), s; s = address; op with [s]; mov s, home(s) */
static bool is_rip_far(const struct insn *insn, size_t code, size_t length)
{
    unsigned r = out.code[code + 3] >> 3 & 7, n;
    struct insn i;

    if (!is_home(code, 0x89, r) || (insn->regs_read | insn->regs_written) >> r & 1)
        return false;
    n = address_length(code + 9, r, insn->rip_target);
    return n && code_insn(code + 9 + n, &i) && i.opcode == insn->opcode && !i.rip_relative &&
           i.regs_read == (insn->regs_read | 1u << r) && i.regs_written == insn->regs_written && i.length == insn->length - 4 &&
           is_home(code + 9 + n + i.length, 0x8b, r) && length == 9 + n + i.length + 9;
}

static bool is_syscall(const struct insn *insn, size_t code, size_t length)
{
    unsigned n = address_length(code, 1, (int64_t)(insn->pc + insn->length));

    return n && address_length(code + n, 11, D + (int64_t)code + n + 15) && is_jmp_context(code + n + 7, CTX_ENTRY_SYSCALL) &&
           length == n + 15;
}

static bool is_cpuid(const struct insn *insn, size_t code, size_t length)
{
    unsigned n = address_length(code + 18, 1, (int64_t)(insn->pc + insn->length));

    return is_home(code, 0x89, 1) && is_home(code + 9, 0x89, 0) && n &&
           address_length(code + 18 + n, 0, D + (int64_t)code + 18 + n + 15) &&
           is_jmp_context(code + 18 + n + 7, CTX_ENTRY_CPUID) && length == 18 + n + 15;
}

static unsigned turned_count;

/* The conditional branch INSN, or the opposite one to what comes after INSN; *NEXT: where the code behind it goes on. */
static const char *check_jcc(const struct insn *insn, const struct insn *i, size_t code, size_t length, int64_t *next)
{
    size_t left;
    const uint8_t *bytes = app_bytes((uint32_t)insn->pc, &left), *made = out.code + code;
    bool wide = insn->length >= 6 && bytes[insn->length - 6] == 0x0f && (bytes[insn->length - 5] & 0xf0) == 0x80;
    unsigned condition = (bytes[insn->length - (wide ? 5 : 2)] ^ made[length == 2 ? 0 : 1]) & 0xf;
    int64_t target = insn->target;

    if (condition & 1) {
        target = *next;
        *next = insn->target;
        turned_count++;
    }
    return is_name(i, length == 2 ? "JCC_1" : "JCC_4") && i->length == length && condition <= 1 && is_at(i->target - D, target)
               ? NULL
               : "wrong jcc";
}

/* *CONTINUES: where the code behind goes on, if it does. */
static const char *check_rewritten(const struct insn *insn, size_t code, size_t length, int64_t *continues)
{
    int64_t next = (int64_t)(insn->pc + insn->length);
    struct insn i;
    unsigned n, m, k;
    size_t landing;

    if (insn->class != INSN_JMP && !code_insn(code, &i))
        return "code does not decode";
    switch ((enum insn_class)insn->class) {
    case INSN_NORMAL:
        return insn->rip_relative && is_rip_far(insn, code, length) ? NULL : "wrong far operand";
    case INSN_JMP:
        return goes_on(code, length, insn->target) ? NULL : "wrong jmp";
    case INSN_JCC:
        return check_jcc(insn, &i, code, length, continues);
    case INSN_LOOP:
        if (length != insn->length + 7u || i.opcode != insn->opcode || i.length != insn->length ||
            i.target != D + (int64_t)code + i.length + 2 || !goes_on(code + i.length + 2, 5, insn->target))
            return "wrong loop";
        return NULL;
    case INSN_XBEGIN:
        return length == 6 && is_name(&i, "XBEGIN_4") && is_at(i.target - D, insn->target) ? NULL : "wrong xbegin";
    case INSN_CALL:
        n = push_length(code, next, &landing);
        return n && length >= n + 5 && goes_on(code + n, 5, insn->target) &&
                       ends_call(code + n + 5, length - n - 5, landing, next)
                   ? NULL
                   : "wrong call";
    case INSN_CALL_IND:
        n = load_length(code, insn);
        m = push_length(code + n, next, &landing);
        k = jump_length(code + n + m);
        return n && m && k && ends_call(code + n + m + k, length - n - m - k, landing, next) ? NULL : "wrong indirect call";
    case INSN_JMP_IND:
        n = load_length(code, insn);
        k = jump_length(code + n);
        return n && k && length == n + k ? NULL : "wrong indirect jmp";
    case INSN_RET:
        n = insn->ret_pop ? 8 : 0;
        k = jump_length(code + 10 + n);
        return is_home(code, 0x89, 1) && out.code[code + 9] == 0x59 && k && length == 10 + n + k ? NULL : "wrong ret";
    case INSN_SYSCALL:
        return is_syscall(insn, code, length) ? NULL : "wrong syscall";
    case INSN_SAVE_FPU:
        k = is_home(code + length - 9, 0x8b, 1) ? 9 : 0; /* an xsave may go on */
        return (insn->rip_relative || i.opcode == insn->opcode) && is_jmp_context(code + length - k - 8, CTX_ENTRY_EVENT)
                   ? NULL
                   : "wrong save of the x87 unit";
    case INSN_CPUID:
        return is_cpuid(insn, code, length) ? NULL : "wrong cpuid";
    case INSN_UNSUPPORTED:
        return is_jmp_context(code + length - 8, CTX_ENTRY_EVENT) ? NULL : "wrong event";
    default:
        return "rewritten, but there is no rule for it";
    }
}

/* [eip + disp] is modulo 2^32. */
static bool same_address(const uint8_t *bytes, const struct insn *a, const struct insn *b)
{
    if (memchr(bytes, 0x67, b->modrm_offset))
        return (uint32_t)a->rip_target == (uint32_t)b->rip_target;
    return a->rip_target == b->rip_target;
}

static const char *check_copied(const struct insn *insn, const uint8_t *bytes, size_t code)
{
    struct insn i;
    uint8_t expected[16];

    if (insn->class != INSN_NORMAL && insn->class != INSN_STOP)
        return "copied, but it has a rule";
    memcpy(expected, bytes, insn->length);
    if (insn->rip_relative) {
        memcpy(expected + insn->disp_offset, out.code + code + insn->disp_offset, 4);
        if (!code_insn(code, &i) || i.length != insn->length || !same_address(bytes, &i, insn) || i.opcode != insn->opcode ||
            i.regs_read != insn->regs_read || i.regs_written != insn->regs_written)
            return "the copy is another instruction";
        moved++;
    }
    if (memcmp(expected, out.code + code, insn->length) != 0)
        return "the copy has other bytes";
    copied++;
    return NULL;
}

/* Where the code of the block behind block N's begins. */
static size_t code_after(uint32_t n)
{
    return after[n] < out.nblocks ? out.blocks[after[n]].code_offset : out.code_bytes;
}

/* Reads the map of block N and checks the code along it. */
static void check_block(uint32_t n)
{
    const struct image_block *block = &out.blocks[n];
    const uint8_t *map = out.map + image_map_offset(block);
    uint32_t app = block->app_offset;
    size_t code = block->code_offset, piece_start = code;
    bool ends = false;
    int64_t next = app;

    for (; *map != MAP_END; map++) {
        struct insn insn;
        size_t left;
        const uint8_t *bytes = app_bytes(app, &left);
        const char *wrong;

        if (*map & MAP_PIECE) {
            code += map[1];
            map += *map & MAP_OTHER ? 2 : 1;
            continue;
        }
        if (!bytes || insn_decode(decoder, bytes, left, app, &insn) != 0 || insn.length != (*map & 0xf)) {
            fail(app, code, "map disagrees on the length");
            return;
        }
        if (*map & MAP_ADVANCE) {
            next = app + insn.length;
            wrong = check_rewritten(&insn, piece_start, code - piece_start, &next);
            rewritten++;
        } else {
            next = app + *map;
            wrong = code == piece_start ? check_copied(&insn, bytes, code) : "a piece before a copy";
            code += *map;
        }
        if (wrong)
            fail(app, piece_start, wrong);
        app += *map & 0xf;
        piece_start = code;
        ends = insn_ends_block(&insn) && !insn_falls_through(&insn);
        ends |= insn.class == INSN_CALL || insn.class == INSN_CALL_IND;
        ends |= insn.class == INSN_SAVE_FPU && is_jmp_context(code - 8, CTX_ENTRY_EVENT); /* the core goes on */
    }
    if (ends) {
        if (code != piece_start)
            fail(app, code, "code after the end");
    } else if (code - piece_start == 9 + 5 + 9 + 7 + 8) {
        struct insn insn;
        size_t left;
        const uint8_t *bytes = app_bytes(app, &left);
        if (!address_length(piece_start + 23, 0, app) || (bytes && insn_decode(decoder, bytes, left, app, &insn) == 0))
            fail(app, code, "wrong event");
    } else if (!goes_on(piece_start, code - piece_start, next)) {
        fail(app, code, "does not go on at the next instruction");
    }
    if (block->map_offset & IMAGE_LANDING && !is_landing(block->code_offset - BDBI_LANDING_BYTES, block->app_offset))
        fail(block->app_offset, block->code_offset, "no landing before it");
    if (code_after(n) < code)
        fail(app, code, "runs into the next block");
}

/* Linear sweep against what objdump prints: "  address:\tmnemonic ...". It is not asked about bytes that it does not know, and
 * where data is taken for code it makes instructions of prefixes and knows registers that do not exist. */
static void compare_with_objdump(const char *path)
{
    char command[512], line[512], previous[512];
    uint32_t last = 0;
    unsigned long compared = 0;
    bool last_known = false;
    FILE *f;

    snprintf(command, sizeof(command), "objdump -d --no-show-raw-insn '%s'", path);
    f = popen(command, "r");
    while (f && fgets(line, sizeof(line), f)) {
        char *end;
        uint32_t at = (uint32_t)strtoul(line, &end, 16);
        size_t left;
        const uint8_t *bytes;
        struct insn insn;

        if (line[0] != ' ' || *end != ':') {
            last = 0;
            continue;
        }
        bytes = last ? app_bytes(last, &left) : NULL;
        if (bytes && last_known && at > last) {
            if (insn_decode(decoder, bytes, left, last, &insn) != 0)
                printf("FAIL: undecodable here, not for objdump: %s", previous), failures++;
            else if (insn.length != at - last && insn.class != INSN_UNSUPPORTED)
                printf("FAIL: objdump has another length: %s", previous), failures++;
            compared++;
        }
        last = at;
        strcpy(previous, line);
        last_known = !strstr(line, "(bad)") && !strstr(line, "rex") && !strstr(line, "%?");
    }
    if (!f || pclose(f) != 0 || !compared) {
        printf("FAIL: objdump did not work\n");
        failures++;
    }
    printf("%lu instructions compared with objdump\n", compared);
}

/* Runs of leaders have run, and runs have not. SEED: which ones, how long the runs are and how many. */
static void choose_ran(struct jit_unit *unit, uint32_t seed)
{
    uint32_t *ran = malloc(unit->nleaders * sizeof(*ran)), n = 0;

    for (uint32_t i = 0; i < unit->nleaders; i++)
        if (((i / (1 + seed % 5) + seed) * 2654435761u >> 16 & ((4u << seed % 4) - 1)) == 0)
            ran[n++] = unit->leaders[i];
    unit->ran = ran;
    unit->nran = n;
}

/* Fills `after`, and checks that each block is in the order once. */
static void note_order(void)
{
    after = malloc(out.nblocks * sizeof(*after));
    for (uint32_t i = 0; i < out.nblocks; i++)
        after[i] = UINT32_MAX - 1;
    for (uint32_t i = 0; i < out.nblocks; i++) {
        uint32_t block = out.order ? out.order[i] : i;
        if (block >= out.nblocks || after[block] != UINT32_MAX - 1) {
            printf("FAIL: the order has a block twice\n");
            failures++;
            return;
        }
        after[block] = i + 1 == out.nblocks ? UINT32_MAX : out.order ? out.order[i + 1] : i + 1;
    }
}

int main(int argc, char **argv)
{
    struct jit *j = jit_new();
    struct module m;
    struct jit_unit unit;
    double start;

    if (argc < 2 || !j)
        return 2;
    decoder = jit_decoder(j);
    module_read(&m, argv[1]);
    module_sweep(&m, decoder);
    module = &m;
    unit = module_unit(&m);
    if (argc > 2 && !strcmp(argv[2], "order"))
        choose_ran(&unit, argc > 3 ? (uint32_t)atoi(argv[3]) : 0);
    start = seconds_now();
    if (jit_translate(j, &unit, &out) != 0)
        return 1;
    printf("%u leaders, %u instructions in %.3f s: %zu bytes of code, %zu of map\n", out.nblocks, out.ninsns,
           seconds_now() - start, out.code_bytes, out.map_bytes);

    note_order();
    limit = m.spans[m.nspans - 1].end;
    block_code = calloc(limit, sizeof(*block_code));
    for (uint32_t i = 0; i < out.nblocks; i++)
        block_code[out.blocks[i].app_offset] = out.blocks[i].code_offset + 1;
    for (uint32_t i = 0; i < out.nblocks; i++)
        check_block(i);
    for (uint32_t i = 1; i < out.nblocks; i++)
        if (out.blocks[i].app_offset <= out.blocks[i - 1].app_offset || code_after(i - 1) < out.blocks[i - 1].code_offset)
            fail(out.blocks[i].app_offset, out.blocks[i].code_offset, "does not ascend");
    printf("%u conditional branches turned\n", turned_count);
    printf("%lu copied (%lu with another displacement), %lu rewritten, %u blocks end in undecodable bytes\n", copied, moved,
           rewritten, out.nundecodable);
    if (copied + rewritten != out.ninsns) {
        printf("FAIL: instructions are missing\n");
        failures++;
    }
    if (argc > 2 && !strcmp(argv[2], "objdump"))
        compare_with_objdump(argv[1]);
    printf("%lu failures\n", failures);
    free(after);
    free((uint32_t *)unit.ran);
    jit_output_free(&out);
    free(block_code);
    module_free(&m);
    jit_free(j);
    return failures ? 1 : 0;
}
