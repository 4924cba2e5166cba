/* SPDX-License-Identifier: Apache-2.0
 *
 * The rewrite rules: what one app instruction becomes. docs/architecture.md, "Translation", has the table; each function here
 * is one of its lines. Registers are saved to their homes only after what may fault without them being saved, and the map's
 * state is always that before the instruction it stands after.
 *
 * L: branch target, R: address of the following app instruction, home(r): gs:[8*r].
 */
#include "internal/error.h"
#include "jit/encode.h"
#include "jit/scan.h"

static const unsigned forward = MAP_FORWARD;

static bool has_prefix(const struct insn *insn, const uint8_t *bytes, uint8_t prefix)
{
    struct scan s;

    scan_insn(bytes, insn->length, &s);
    return prefix == 0x67 ? s.address32 : s.segment == prefix;
}

/* Where code that wants to go to TARGET can go. */
enum way { WAY_LEADER, WAY_KNOWN, WAY_EXIT };

static enum way find_way(struct emitter *e, int64_t target, uint32_t *leader, int64_t *distance)
{
    struct chunk *c = e->chunk;

    if (target < 0 || target > UINT32_MAX)
        return WAY_EXIT;
    *leader = leader_find(e->leaders, (uint64_t)target);
    if (*leader != LEADER_NONE)
        return WAY_LEADER;
    *distance = e->unit->resolve ? e->unit->resolve(e->unit->user, (uint32_t)target) : 0;
    if (*distance && reaches(e, *distance, 16))
        return WAY_KNOWN;
    if (!*distance && text_has(&e->text, (uint64_t)target))
        c->unresolved.at[c->unresolved.n++] = (uint32_t)target;
    return WAY_EXIT;
}

/* before: branch to L outside the unit
 * after:  mov home(rcx), rcx; lea rcx, [rip -> L]; jmp gs:[CTX_ENTRY_DIRECT] */
void rule_direct_exit(struct emitter *e, int64_t target, unsigned state)
{
    mov_home_reg(e, RCX);
    map_piece(e, state);
    load_app_address(e, RCX, target, state, state | MAP_RCX);
    jmp_context(e, CTX_ENTRY_DIRECT);
    map_piece(e, state | MAP_RCX);
}

/* The branch OPCODE rel8 to TARGET, which ends the block at work. False: it is too far. */
static bool put_near(struct emitter *e, unsigned opcode, int64_t target)
{
    struct chunk *c = e->chunk;
    uint32_t leader = target < 0 || target > UINT32_MAX ? LEADER_NONE : leader_find(e->leaders, (uint64_t)target);

    if (leader == LEADER_NONE || !chunk_is_near(e, leader))
        return false;
    if (!array_reserve(&c->near_branches, 1)) {
        c->error = -BDBI_ENOMEM;
        return false;
    }
    put1(e, opcode);
    c->near_branches.at[c->near_branches.n++] = (struct fixup){(uint32_t)c->code.n, leader};
    put1(e, 0);
    return true;
}

/* before: go on at L
 * after:  jmp rel8 or rel32, or a direct exit */
void rule_jump(struct emitter *e, int64_t target, unsigned state)
{
    uint32_t leader;
    int64_t distance;

    if (put_near(e, 0xeb, target)) { /* jmp rel8 */
        map_piece(e, state);
        return;
    }
    switch (find_way(e, target, &leader, &distance)) {
    case WAY_LEADER:
        jmp_rel_leader(e, leader);
        map_piece(e, state);
        break;
    case WAY_KNOWN:
        put1(e, 0xe9); /* jmp rel32 */
        put_rel_app(e, distance, 0);
        map_piece(e, state);
        break;
    case WAY_EXIT:
        rule_direct_exit(e, target, state);
        break;
    }
}

/* Whether the block at OFFSET comes next in the code. */
static bool next_is(const struct emitter *e, int64_t offset)
{
    uint32_t next = chunk_next(e, e->leader);

    return next != LEADER_NONE && e->unit->leaders[next] == offset;
}

void rule_continue(struct emitter *e, int64_t offset, unsigned state)
{
    if (e->trace_at == offset)
        return;
    /* The chunk's last block has its exits behind it. */
    if (next_is(e, offset)) {
        e->falls = true;
        return;
    }
    rule_jump(e, offset, state);
}

/* The rel32 of a conditional branch to L: to its code, or to a direct exit out of line. */
static void put_branch_field(struct emitter *e, int64_t target)
{
    struct chunk *c = e->chunk;
    uint32_t leader;
    int64_t distance;

    switch (find_way(e, target, &leader, &distance)) {
    case WAY_LEADER:
        put_rel_leader(e, leader);
        break;
    case WAY_KNOWN:
        put_rel_app(e, distance, 0);
        break;
    case WAY_EXIT:
        c->far_branches.at[c->far_branches.n++] = (struct far_branch){(uint32_t)c->code.n, target};
        put4(e, 0);
        break;
    }
}

static void rule_copy(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    put_bytes(e, bytes, insn->length);
    map_copy(e, insn->length);
}

/* The same bytes but for disp32. */
static void put_rip(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    unsigned trailing = insn->length - insn->disp_offset - 4u;

    put_bytes(e, bytes, insn->disp_offset);
    put_rel_app(e, app_offset(e, (uint64_t)insn->rip_target), trailing);
    put_bytes(e, bytes + insn->disp_offset + 4, trailing);
}

/* before: op ..., [rip -> x]
 * after:  op ..., [rip -> x] */
static void rule_rip(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    put_rip(e, insn, bytes);
    map_copy(e, insn->length);
}

/* A register that the instruction does not touch, to address memory with. Always found: no instruction with a ModRM memory
 * operand touches more than rax, rcx, rdx, rbx and one register operand. */
static enum gpr scratch_for(const struct insn *insn)
{
    static const uint8_t candidates[] = {RAX, RCX, RDX, RBX, RSI, RDI};
    unsigned touched = insn->regs_read | insn->regs_written;

    for (unsigned i = 0; i < sizeof(candidates); i++)
        if (!(touched >> candidates[i] & 1))
            return candidates[i];
    return RDI;
}

/* The instruction with [r] for its [rip + disp32]: ModRM mod 00 rm r, no displacement, and no extension of rm. */
static void put_with_base(struct emitter *e, const struct insn *insn, const uint8_t *bytes, enum gpr r)
{
    struct scan s;
    size_t start = e->chunk->code.n;
    uint8_t *code;
    unsigned after = insn->disp_offset + 4u;

    scan_insn(bytes, insn->length, &s);
    put_bytes(e, bytes, s.modrm_offset);
    put1(e, (s.modrm & 0x38) | r);
    put_bytes(e, bytes + after, insn->length - after);

    code = e->chunk->code.at + start + s.legacy_bytes; /* REX, VEX, EVEX, XOP or opcode */
    if (s.rex)
        *code &= (uint8_t)~0x01;
    else if (s.map == SCAN_EVEX || (s.map == SCAN_VEX && *code != 0xc5))
        code[1] |= 0x20; /* B is stored inverted */
}

/* before: op ..., [rip -> x], x out of reach
 * after:  mov home(s), s; movabs s, x; op ..., [s]; mov s, home(s) */
static void put_rip_far(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    enum gpr s = scratch_for(insn);
    unsigned saved = state_saved(s);

    mov_home_reg(e, s);
    map_piece(e, STATE_CLEAN);
    load_app_address(e, s, app_offset(e, (uint64_t)insn->rip_target), STATE_CLEAN, saved);
    put_with_base(e, insn, bytes, s);
    map_piece(e, saved);
    mov_reg_home(e, s);
    map_piece(e, saved | forward);
}

/* before: lea r, [rip -> x], x out of reach
 * after:  movabs r, x   or   mov r32, imm32; false: not a form for that */
static bool rule_lea_far(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    struct scan s;
    enum gpr r;

    scan_insn(bytes, insn->length, &s);
    if (s.map != SCAN_PRIMARY || s.opcode != 0x8d || s.lock || !e->unit->fixed_base)
        return false;
    r = (s.modrm >> 3 & 7) | (s.rex & 4) << 1;
    if (s.rex & 8) {
        movabs_reg_imm(e, r, (uint64_t)insn->rip_target);
    } else if (!s.operand16) {
        if (r >= R8)
            put1(e, 0x41); /* mov r32, imm32 */
        put1(e, 0xb8 | (r & 7));
        put4(e, (uint32_t)insn->rip_target);
    } else {
        return false;
    }
    map_piece(e, STATE_CLEAN);
    map_advance(e, insn->length);
    return true;
}

/* Whether its rip-relative operand is. [eip -> x] is modulo 2^32 and so always. */
static bool in_reach(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    return reaches(e, app_offset(e, (uint64_t)insn->rip_target), insn->length) || has_prefix(insn, bytes, 0x67);
}

/* INSN_NORMAL and INSN_STOP */
static void rule_plain(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    if (!insn->rip_relative) {
        rule_copy(e, insn, bytes);
    } else if (in_reach(e, insn, bytes)) {
        rule_rip(e, insn, bytes);
    } else if (!rule_lea_far(e, insn, bytes)) {
        put_rip_far(e, insn, bytes);
        map_advance(e, insn->length);
    }
}

void put_plain(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    if (insn->rip_relative && !in_reach(e, insn, bytes)) {
        put_rip_far(e, insn, bytes);
        return;
    }
    if (insn->rip_relative)
        put_rip(e, insn, bytes);
    else
        put_bytes(e, bytes, insn->length);
    map_piece(e, STATE_CLEAN);
}

/* before: jmp L
 * after:  nothing, jmp rel32 or a direct exit */
static void rule_jmp(struct emitter *e, const struct insn *insn)
{
    rule_continue(e, app_offset(e, (uint64_t)insn->target), STATE_CLEAN);
    map_advance(e, insn->length);
}

/* before: jcc L
 * after:  jcc rel8 or rel32; or, if L's block comes next and the one after this does not, the opposite jump to that */
static void rule_jcc(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    int64_t to = app_offset(e, (uint64_t)insn->target), after = return_offset(e, insn);
    bool turned = !e->copies && next_is(e, to) && !next_is(e, after);
    unsigned condition;
    struct scan s;

    scan_insn(bytes, insn->length, &s);
    condition = (s.opcode & 0xf) ^ turned;
    if (!put_near(e, 0x70 | condition, turned ? after : to)) { /* jcc rel8 */
        put1(e, 0x0f);                                         /* jcc rel32 */
        put1(e, 0x80 | condition);
        put_branch_field(e, turned ? after : to);
    }
    map_piece(e, STATE_CLEAN);
    map_advance(e, insn->length);
    rule_continue(e, turned ? to : after, STATE_CLEAN);
}

/* before: loop L
 * after:  loop 1f; jmp short 2f; 1: jmp rel32; 2: */
static void rule_loop(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    put_bytes(e, bytes, insn->length - 1u);
    put1(e, 2); /* over the jmp short */
    map_piece(e, STATE_CLEAN);
    put1(e, 0xeb); /* jmp short +5 */
    put1(e, 5);
    map_piece(e, forward);
    put1(e, 0xe9); /* jmp rel32 */
    put_branch_field(e, app_offset(e, (uint64_t)insn->target));
    map_piece(e, forward);
    map_advance(e, insn->length);
}

/* before: xbegin L
 * after:  xbegin rel32 */
static void rule_xbegin(struct emitter *e, const struct insn *insn)
{
    put1(e, 0xc7); /* xbegin rel32 */
    put1(e, 0xf8);
    put_branch_field(e, app_offset(e, (uint64_t)insn->target));
    map_piece(e, STATE_CLEAN);
    map_advance(e, insn->length);
}

/* Whether OFFSET is an immediate: sign-extended 32 bits. */
static bool is_low(const struct emitter *e, int64_t offset)
{
    return e->unit->fixed_base && e->unit->fixed_base + (uint64_t)offset < 0x80000000u;
}

/* Whether addresses of the code are: it ends within its window. */
static bool code_is_low(const struct emitter *e)
{
    return is_low(e, e->unit->code_distance);
}

/* rcx -= L; rdx = ~L */
static void compare_target(struct emitter *e, int64_t offset)
{
    if (e->unit->fixed_base) {
        movabs_reg_imm(e, RDX, ~(e->unit->fixed_base + (uint64_t)offset));
    } else {
        put1(e, 0x48); /* lea rdx, [rip -> L] */
        put1(e, 0x8d);
        put1(e, 0x15);
        put_rel_app(e, offset, 0);
        put1(e, 0x48); /* not rdx */
        put1(e, 0xf7);
        put1(e, 0xd2);
    }
    put1(e, 0x48); /* lea rcx, [rcx + rdx + 1] */
    put1(e, 0x8d);
    put1(e, 0x4c);
    put1(e, 0x11);
    put1(e, 1);
}

/* before: L (a leader), where nothing falls through to
 * after:  lea rdx, [rip -> L]; not rdx; lea rcx, [rcx + rdx + 1]; jrcxz 1f; jmp gs:[CTX_ENTRY_OTHER];
 *         1: mov rdx, home(rdx); mov rcx, home(rcx); L
 *   low:  lea rcx, [rcx - L]; jrcxz 1f; mov edx, L; not rdx; jmp gs:[CTX_ENTRY_OTHER]; 1: ...
 *   high: movabs rdx, ~L; lea rcx, ...
 * Indirect branches come here by way of the target cache with their target in rcx; when that is L, rcx becomes 0. No flag is
 * touched, for it may be another address, whose code reads the flags. */
void rule_landing(struct emitter *e, int64_t offset)
{
    bool low = is_low(e, offset);
    uint32_t l = (uint32_t)(e->unit->fixed_base + (uint64_t)offset);

    if (!e->unit->fixed_base && !reaches(e, offset, 7))
        return;
    if (low) {
        put1(e, 0x48); /* lea rcx, [rcx - L] */
        put1(e, 0x8d);
        put1(e, 0x89);
        put4(e, -l);
    } else {
        compare_target(e, offset);
    }
    put1(e, 0xe3); /* jrcxz 1f */
    put1(e, JMP_CONTEXT_BYTES + (low ? 8 : 0));
    if (low) {
        put1(e, 0xba); /* mov edx, L */
        put4(e, l);
        put1(e, 0x48); /* not rdx */
        put1(e, 0xf7);
        put1(e, 0xd2);
    }
    jmp_context(e, CTX_ENTRY_OTHER);
    mov_reg_home(e, RDX);
    mov_reg_home(e, RCX);
    e->landing_end = e->chunk->code.n;
}

/* A call's landing, to which its slot of the target cache points. */
struct call_end {
    size_t field; /* of the distance to it, or 0 */
    bool landing;
};

bool rule_call_saves_rax(const struct emitter *e, const struct insn *insn)
{
    return !(is_low(e, return_offset(e, insn)) && code_is_low(e));
}

/* before: push R
 * after:  mov home(rax), rax; lea rax, [rip -> landing]; mov gs:[CTX_TARGET(R)], rax; lea rax, [rip -> R]; push rax;
 *         mov rax, home(rax)
 *   low:  mov qword gs:[CTX_TARGET(R)], landing; push imm32 */
static struct call_end push_return(struct emitter *e, const struct insn *insn, unsigned state, unsigned jump_bytes)
{
    int64_t r = return_offset(e, insn);
    uint32_t slot = CTX_TARGET(e->unit->fixed_base + (uint64_t)r);
    struct call_end end = {0, next_is(e, r) && (e->unit->fixed_base || (reaches(e, r, 0) && reaches(e, r, CODE_RESERVE)))};

    if (!rule_call_saves_rax(e, insn)) {
        if (end.landing) {
            put1(e, 0x65); /* mov qword gs:[slot], imm32 */
            put1(e, 0x48);
            put1(e, 0xc7);
            put1(e, 0x04);
            put1(e, 0x25);
            put4(e, slot);
            put_self(e, e->chunk->code.n + 4 + 5 + jump_bytes, (uint32_t)e->unit->fixed_base);
            map_piece(e, state);
        }
        put1(e, 0x68); /* push imm32 */
        put4(e, (uint32_t)(e->unit->fixed_base + (uint64_t)r));
        map_piece(e, state);
        return end;
    }
    if (!(state & MAP_RAX)) {
        mov_home_reg(e, RAX);
        map_piece(e, state);
    }
    if (end.landing) {
        put1(e, 0x48); /* lea rax, [rip -> landing] */
        put1(e, 0x8d);
        put1(e, 0x05);
        end.field = e->chunk->code.n;
        put4(e, 0);
        map_piece(e, state);
        state |= MAP_RAX;
        mov_context_reg(e, slot, RAX);
        map_piece(e, state);
    }
    load_app_address(e, RAX, r, state, state | MAP_RAX);
    put1(e, 0x50); /* push rax */
    map_piece(e, state | MAP_RAX);
    mov_reg_home(e, RAX);
    map_piece(e, state | MAP_RAX | forward);
    return end;
}

static void end_call(struct emitter *e, const struct insn *insn, struct call_end end)
{
    if (end.field) {
        uint32_t distance = (uint32_t)(e->chunk->code.n - (end.field + 4));
        memcpy(e->chunk->code.at + end.field, &distance, 4);
    }
    if (end.landing) {
        rule_landing(e, return_offset(e, insn));
        map_piece(e, forward);
    }
    map_advance(e, insn->length);
}

/* before: call L
 * after:  <push R>; jmp rel32, to L's code or a direct exit; R's landing */
static void rule_call(struct emitter *e, const struct insn *insn)
{
    struct call_end end = push_return(e, insn, e->held, 5);

    put1(e, 0xe9); /* jmp rel32 */
    put_branch_field(e, app_offset(e, (uint64_t)insn->target));
    map_piece(e, forward);
    end_call(e, insn, end);
}

/* rcx = the target; the app's is in its home.
 * after:  mov home(rdx), rdx; lea edx, [rcx * 8]; movzx edx, dx; jmp gs:[rdx + CTX_TARGETS]
 * Not rax, which a function returns a value in: what goes through its home is some cycles late. */
static void jump_to_rcx(struct emitter *e, unsigned state)
{
    mov_home_reg(e, RDX);
    map_piece(e, state);
    put1(e, 0x8d); /* lea edx, [rcx * 8] */
    put1(e, 0x14);
    put1(e, 0xcd);
    put4(e, 0);
    map_piece(e, state);
    put1(e, 0x0f); /* movzx edx, dx */
    put1(e, 0xb7);
    put1(e, 0xd2);
    map_piece(e, state | state_saved(RDX));
    put1(e, 0x65); /* jmp gs:[rdx + CTX_TARGETS] */
    put1(e, 0xff);
    put1(e, 0xa2);
    put4(e, CTX_TARGETS);
    map_piece(e, state | state_saved(RDX));
}
#define JUMP_TO_RCX_BYTES (9 + 7 + 3 + 7)

/* mov home(rcx), rcx, if no counter has done that */
static void save_rcx(struct emitter *e)
{
    if (e->held & MAP_RCX)
        return;
    mov_home_reg(e, RCX);
    map_piece(e, STATE_CLEAN);
}

/* before: the operand of jmp r/m, call r/m
 * after:  mov home(rcx), rcx; mov rcx, r/m   (far: mov home(rcx), rcx; movabs rcx, x; mov rcx, [rcx])
 * Segment and address size prefixes and REX.X, REX.B stay. */
static void load_target(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    struct scan s;
    int64_t target = app_offset(e, (uint64_t)insn->rip_target);
    bool far;

    scan_insn(bytes, insn->length, &s);
    save_rcx(e);
    far = insn->rip_relative && !s.address32 && !reaches(e, target, 8);
    if (far)
        load_app_address(e, RCX, target, e->held, MAP_RCX);
    if (s.segment)
        put1(e, s.segment);
    if (s.address32)
        put1(e, 0x67);
    put1(e, 0x48 | (far ? 0 : s.rex & 3)); /* mov rcx, r/m */
    put1(e, 0x8b);
    if (far) {
        put1(e, 0x09); /* [rcx] */
    } else {
        unsigned n = scan_modrm_bytes(bytes + s.modrm_offset, insn->length - s.modrm_offset);
        put1(e, (s.modrm & 0xc7) | RCX << 3);
        if (insn->rip_relative)
            put_rel_app(e, target, 0);
        else
            put_bytes(e, bytes + s.modrm_offset + 1, n - 1);
    }
    map_piece(e, far ? MAP_RCX : e->held);
}

/* before: call r/m
 * after:  <rcx = r/m>; <push R>; <jump to rcx>; R's landing */
static void rule_call_ind(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    struct call_end end;

    load_target(e, insn, bytes);
    end = push_return(e, insn, MAP_RCX, JUMP_TO_RCX_BYTES);
    jump_to_rcx(e, MAP_RCX | forward);
    end_call(e, insn, end);
}

bool rule_has_link(const struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    int64_t pointer = app_offset(e, (uint64_t)insn->rip_target);

    return insn->class == INSN_JMP_IND && insn->rip_relative && pointer >= e->unit->relro_start &&
           pointer + 8 <= e->unit->relro_end && pointer % 8 == 0 && !has_prefix(insn, bytes, 0x67) &&
           !has_prefix(insn, bytes, 0x64);
}

/* before: jmp [rip -> p]
 * after:  jmp rel32 to the next instruction; <what follows without a link> */
static void put_link(struct emitter *e, const struct insn *insn)
{
    struct chunk *c = e->chunk;

    if (!array_reserve(&c->links, 1)) {
        c->error = -BDBI_ENOMEM;
        return;
    }
    put1(e, 0xe9); /* jmp rel32 */
    c->links.at[c->links.n++] = (struct image_link){(uint32_t)c->code.n, (uint32_t)app_offset(e, (uint64_t)insn->rip_target)};
    put4(e, 0);
    map_piece(e, STATE_CLEAN);
}

/* before: jmp r/m
 * after:  <rcx = r/m>; <jump to rcx> */
static void rule_jmp_ind(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    if (rule_has_link(e, insn, bytes))
        put_link(e, insn);
    load_target(e, insn, bytes);
    jump_to_rcx(e, MAP_RCX);
    map_advance(e, insn->length);
}

/* before: ret n
 * after:  mov home(rcx), rcx; pop rcx; lea rsp, [rsp + n]; <jump to rcx> */
static void rule_ret(struct emitter *e, const struct insn *insn)
{
    save_rcx(e);
    put1(e, 0x59); /* pop rcx */
    map_piece(e, e->held);
    if (insn->ret_pop) {
        put1(e, 0x48); /* lea rsp, [rsp + n] */
        put1(e, 0x8d);
        put1(e, 0xa4);
        put1(e, 0x24);
        put4(e, insn->ret_pop);
        map_piece(e, MAP_RCX | forward);
    }
    jump_to_rcx(e, MAP_RCX | forward);
    map_advance(e, insn->length);
}

/* before: syscall
 * after:  lea rcx, [rip -> R]; lea r11, [rip -> 1f]; jmp gs:[CTX_ENTRY_SYSCALL]; 1: <R>
 * rcx is what syscall overwrites, so from then on there is no way back. */
static void rule_syscall(struct emitter *e, const struct insn *insn)
{
    load_app_address(e, RCX, return_offset(e, insn), STATE_CLEAN, forward);
    put1(e, 0x4c); /* lea r11, [rip + 8] */
    put1(e, 0x8d);
    put1(e, 0x1d);
    put4(e, 8); /* the length of the jmp */
    map_piece(e, forward);
    jmp_context(e, CTX_ENTRY_SYSCALL);
    map_piece(e, forward);
    map_advance(e, insn->length);
}

/* before: cpuid
 * after:  mov home(rcx), rcx; mov home(rax), rax; lea rcx, [rip -> R]; lea rax, [rip -> 1f]; jmp gs:[CTX_ENTRY_CPUID]; 1: <R>
 */
static void rule_cpuid(struct emitter *e, const struct insn *insn)
{
    mov_home_reg(e, RCX);
    map_piece(e, STATE_CLEAN);
    mov_home_reg(e, RAX);
    map_piece(e, STATE_CLEAN);
    load_app_address(e, RCX, return_offset(e, insn), STATE_CLEAN, MAP_RCX);
    put1(e, 0x48); /* lea rax, [rip + 8] */
    put1(e, 0x8d);
    put1(e, 0x05);
    put4(e, 8); /* the length of the jmp */
    map_piece(e, MAP_RCX);
    jmp_context(e, CTX_ENTRY_CPUID);
    map_piece(e, MAP_RCX | MAP_RAX);
    map_advance(e, insn->length);
}

void rule_insn(struct emitter *e, const struct insn *insn, const uint8_t *bytes)
{
    switch ((enum insn_class)insn->class) {
    case INSN_NORMAL:
    case INSN_STOP:
        rule_plain(e, insn, bytes);
        return;
    case INSN_JMP:
        rule_jmp(e, insn);
        return;
    case INSN_JCC:
        rule_jcc(e, insn, bytes);
        return;
    case INSN_LOOP:
        rule_loop(e, insn, bytes);
        break;
    case INSN_CALL:
        rule_call(e, insn);
        return;
    case INSN_JMP_IND:
        rule_jmp_ind(e, insn, bytes);
        return;
    case INSN_CALL_IND:
        rule_call_ind(e, insn, bytes);
        return;
    case INSN_RET:
        rule_ret(e, insn);
        return;
    case INSN_SYSCALL:
        rule_syscall(e, insn);
        break;
    case INSN_CPUID:
        rule_cpuid(e, insn);
        break;
    case INSN_XBEGIN:
        rule_xbegin(e, insn);
        break;
    case INSN_SAVE_FPU:
        rule_save_fpu(e, insn, bytes);
        return;
    case INSN_UNSUPPORTED:
        rule_event(e, insn->event, (uint64_t)app_offset(e, insn->pc));
        map_advance(e, insn->length);
        return;
    }
    rule_continue(e, return_offset(e, insn), STATE_CLEAN);
}
