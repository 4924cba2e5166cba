/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes to the core's event entry: instructions that cannot be translated, those that store the x87 unit's state, and the
 * check of a block whose bytes somebody may have changed. Lines of the same table as the rules (rules.c).
 */
#include "jit/encode.h"
#include "jit/scan.h"

/* before: what cannot be translated
 * after:  mov home(rcx), rcx; mov ecx, event; mov home(rax), rax; lea rax, [rip -> app pc]; jmp gs:[CTX_ENTRY_EVENT] */
void rule_event(struct emitter *e, uint32_t event, uint64_t offset)
{
    mov_home_reg(e, RCX);
    map_piece(e, STATE_CLEAN);
    put1(e, 0xb9); /* mov ecx, event */
    put4(e, event);
    map_piece(e, STATE_CLEAN);
    mov_home_reg(e, RAX);
    map_piece(e, MAP_RCX);
    load_app_address(e, RAX, (int64_t)offset, MAP_RCX, MAP_RCX | MAP_RAX);
    jmp_context(e, CTX_ENTRY_EVENT);
    map_piece(e, MAP_RCX | MAP_RAX);
}

/* rcx = the address of the operand, without the segment's base. */
static void load_operand_address(struct emitter *e, const struct insn *insn, const uint8_t *bytes, const struct scan *s)
{
    unsigned n = scan_modrm_bytes(bytes + s->modrm_offset, insn->length - s->modrm_offset);
    int64_t target = app_offset(e, (uint64_t)insn->rip_target);

    if (insn->rip_relative && !s->address32) {
        load_app_address(e, RCX, target, MAP_FORWARD, MAP_RCX | MAP_FORWARD);
        return;
    }
    if (s->address32)
        put1(e, 0x67);
    put1(e, 0x48 | (s->rex & 3)); /* lea rcx, m */
    put1(e, 0x8d);
    put1(e, (s->modrm & 0xc7) | RCX << 3);
    if (insn->rip_relative)
        put_rel_app(e, target, 0);
    else
        put_bytes(e, bytes + s->modrm_offset + 1, n - 1);
    map_piece(e, MAP_FORWARD);
}

/* rcx = 0 if bit 0 of eax is; no flags are touched. */
static void rcx_from_bit_of_eax(struct emitter *e)
{
    put1(e, 0x0f); /* movzx ecx, al */
    put1(e, 0xb6);
    put1(e, 0xc8);
    map_piece(e, MAP_FORWARD);
    for (int i = 0; i < 2; i++) {
        put1(e, 0x8d); /* lea ecx, [rcx * 8] */
        put1(e, 0x0c);
        put1(e, 0xcd);
        put4(e, 0);
    }
    put1(e, 0x8d); /* lea ecx, [rcx + rcx] */
    put1(e, 0x0c);
    put1(e, 0x09);
    put1(e, 0x0f); /* movzx ecx, cl */
    put1(e, 0xb6);
    put1(e, 0xc9);
    map_piece(e, MAP_RCX | MAP_FORWARD);
}

/* before: fnstenv m, fnsave m, fxsave m
 * after:  <the same>; mov home(rcx), rcx; lea rcx, m; mov gs:[CTX_OPERAND], rcx; mov ecx, event; mov home(rax), rax;
 *         lea rax, [rip -> app pc]; jmp gs:[CTX_ENTRY_EVENT]
 * before: xsave m, xsaveopt m, xsavec m
 * after:  <the same>; mov home(rcx), rcx; <rcx = bit 0 of eax>; jrcxz 1f; mov rcx, home(rcx); <as above from lea on>;
 *         1: mov rcx, home(rcx); <R>
 * The core puts the app's address into what was stored (launcher/fpu.c). Without the x87 unit's bit nothing was. */
void rule_save_fpu(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    struct scan s;
    size_t skip = 0;
    bool area, header;

    scan_insn(bytes, insn->length, &s);
    area = s.map == SCAN_0F;
    header = area && (s.opcode == 0xc7 || (s.modrm & 0x38));
    put_plain(e, insn, bytes);
    mov_home_reg(e, RCX);
    map_piece(e, MAP_FORWARD);
    if (header) {
        rcx_from_bit_of_eax(e);
        put1(e, 0xe3); /* jrcxz 1f */
        skip = e->chunk->code.n;
        put1(e, 0);
        mov_reg_home(e, RCX);
        map_piece(e, MAP_RCX | MAP_FORWARD);
    }
    load_operand_address(e, insn, bytes, &s);
    mov_context_reg(e, CTX_OPERAND, RCX);
    put1(e, 0xb9); /* mov ecx, event */
    put4(e, BDBI_EVENT_FPU_SAVED | (uint32_t)insn->length << FPU_SAVED_LENGTH_SHIFT | (area ? FPU_SAVED_AREA : 0) |
                (s.rex & 8 ? FPU_SAVED_WIDE : 0) | (s.operand16 && !(s.rex & 8) ? FPU_SAVED_NARROW : 0) |
                (header ? FPU_SAVED_HEADER : 0) | (s.segment == 0x64 ? FPU_SAVED_FS : 0));
    mov_home_reg(e, RAX);
    map_piece(e, MAP_RCX | MAP_FORWARD);
    load_app_address(e, RAX, app_offset(e, insn->pc), MAP_RCX | MAP_FORWARD, MAP_RCX | MAP_RAX | MAP_FORWARD);
    jmp_context(e, CTX_ENTRY_EVENT);
    map_piece(e, MAP_RCX | MAP_RAX | MAP_FORWARD);
    if (header) {
        e->chunk->code.at[skip] = (uint8_t)(e->chunk->code.n - skip - 1);
        mov_reg_home(e, RCX);
        map_piece(e, MAP_RCX | MAP_FORWARD);
    }
    map_advance(e, insn->length);
    if (header)
        rule_continue(e, return_offset(e, insn), STATE_CLEAN);
}

/* jrcxz 1f; jmp FAIL; 1: */
static void jump_unless_zero(struct emitter *e, size_t fail)
{
    put1(e, 0xe3);
    put1(e, 5);
    put1(e, 0xe9);
    put4(e, (uint32_t)(fail - (e->chunk->code.n + 4)));
}

/* after:  mov home(rcx), rcx; mov home(rax), rax; jmp short 1f;
 *         0: mov ecx, event; movabs rax, app pc; jmp gs:[CTX_ENTRY_EVENT];
 *         1: movabs eax, [bytes]; lea ecx, [rax - what they were]; jrcxz 2f; jmp 0b; 2: ...
 *         mov rax, home(rax); mov rcx, home(rcx)
 * The last one to three bytes: movabs al, [byte]; movzx ecx, al; lea ecx, [rcx - what it was]. No flags are touched. */
bool rule_check(struct emitter *e, uint32_t start, uint64_t end)
{
    const unsigned saved = MAP_RAX | MAP_RCX;
    size_t skip, fail;

    if (!emit_reserve(e))
        return false;
    mov_home_reg(e, RCX);
    map_piece(e, STATE_CLEAN);
    mov_home_reg(e, RAX);
    map_piece(e, STATE_CLEAN);
    put1(e, 0xeb); /* jmp short 1f */
    skip = e->chunk->code.n;
    put1(e, 0);
    map_piece(e, saved);
    fail = e->chunk->code.n;
    put1(e, 0xb9); /* mov ecx, event */
    put4(e, BDBI_EVENT_CHANGED);
    movabs_reg_imm(e, RAX, e->unit->fixed_base + start);
    jmp_context(e, CTX_ENTRY_EVENT);
    map_piece(e, saved);
    e->chunk->code.at[skip] = (uint8_t)(e->chunk->code.n - skip - 1);
    for (uint64_t at = start; at < end;) {
        const uint8_t *bytes;
        size_t left = text_bytes(&e->text, at, &bytes);
        bool word = end - at >= 4 && left >= 4;
        uint32_t value = 0;

        if (!left) /* nothing is there, and END is behind it */
            break;
        if (!emit_reserve(e))
            return false;
        memcpy(&value, bytes, word ? 4 : 1);
        put1(e, word ? 0xa1 : 0xa0); /* movabs eax, [bytes] */
        put8(e, e->unit->fixed_base + at);
        if (!word) {
            put1(e, 0x0f); /* movzx ecx, al */
            put1(e, 0xb6);
            put1(e, 0xc8);
        }
        put1(e, 0x8d); /* lea ecx, [rax - value] */
        put1(e, word ? 0x88 : 0x89);
        put4(e, 0u - value);
        jump_unless_zero(e, fail);
        map_piece(e, saved);
        at += word ? 4 : 1;
    }
    mov_reg_home(e, RAX);
    mov_reg_home(e, RCX);
    map_piece(e, saved);
    return emit_reserve(e);
}
