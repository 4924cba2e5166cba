/* SPDX-License-Identifier: Apache-2.0
 *
 * Build-time generator: asks the LLVM that bdbi links for its X86 instruction table and writes what the C code needs.
 *
 *   gen_opcodes DIR  ->  DIR/opcodes.h         enum OPCODE_<LLVM name>, enum REG_<LLVM name>
 *                        DIR/opcode_table.inc  register number -> GPR, opcode -> row, rows (jit/insn.c says what the columns
 * mean)
 *
 * LLVM knows classes of instructions only by name, and EFLAGS as one register. Both are refined here by the families of LLVM's
 * names. Flags: when unsure an instruction reads all of them and writes none, since `written` means certainly overwritten.
 */
#include "jit/opcode_info.h"
#include "jit/insn_class.h"
#include "launcher/context.h"

#include "llvm/MC/MCInstrInfo.h"
#include "llvm/MC/MCRegisterInfo.h"
#include "llvm/MC/TargetRegistry.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

using namespace llvm;

extern "C" void LLVMInitializeX86TargetInfo();
extern "C" void LLVMInitializeX86TargetMC();

namespace
{

const MCRegisterInfo *registers;
const MCInstrInfo *instructions;
std::vector<uint8_t> reg_gpr; /* register number -> GPR */

bool starts_with(const std::string &s, const char *prefix)
{
    return s.compare(0, strlen(prefix), prefix) == 0;
}

bool ends_with(const std::string &s, const char *suffix)
{
    size_t n = strlen(suffix);

    return s.size() >= n && s.compare(s.size() - n, n, suffix) == 0;
}

bool is_one_of(const std::string &s, std::initializer_list<const char *> names)
{
    for (const char *name : names)
        if (s == name)
            return true;
    return false;
}

bool starts_with_one_of(const std::string &s, std::initializer_list<const char *> prefixes)
{
    for (const char *prefix : prefixes)
        if (starts_with(s, prefix))
            return true;
    return false;
}

/* Whether NAME is FAMILY and then an operand size: ADD32ri is of the family ADD, ADDPSrr is not. */
bool is_family(const std::string &name, std::initializer_list<const char *> families)
{
    for (const char *family : families) {
        if (!starts_with(name, family))
            continue;
        std::string rest = name.substr(strlen(family));
        if (starts_with_one_of(rest, {"8", "16", "32", "64"}))
            return true;
    }
    return false;
}

bool is_string_instruction(const std::string &name)
{
    for (const char *family : {"MOVS", "CMPS", "SCAS", "LODS", "STOS", "INS", "OUTS"})
        if (starts_with(name, family) && name.size() == strlen(family) + 1 && strchr("BWLQ", name.back()))
            return true;
    return false;
}

bool is_prefix(const std::string &name)
{
    return ends_with(name, "_PREFIX");
}

void classify(const std::string &name, opcode_info &row)
{
    row.class_ = INSN_NORMAL;
    if (is_one_of(name, {"JMP_1", "JMP_4"}))
        row.class_ = INSN_JMP;
    else if (is_one_of(name, {"JCC_1", "JCC_4"}))
        row.class_ = INSN_JCC;
    else if (is_one_of(name, {"LOOP", "LOOPE", "LOOPNE", "JRCXZ", "JECXZ"}))
        row.class_ = INSN_LOOP;
    else if (is_one_of(name, {"CALL64pcrel32", "CALLpcrel32"}))
        row.class_ = INSN_CALL;
    else if (is_family(name, {"JMP"}))
        row.class_ = INSN_JMP_IND;
    else if (is_family(name, {"CALL"}))
        row.class_ = INSN_CALL_IND;
    else if (is_one_of(name, {"RET64", "RET32", "RETI64", "RETI32"}))
        row.class_ = INSN_RET;
    else if (name == "SYSCALL")
        row.class_ = INSN_SYSCALL;
    else if (name == "CPUID")
        row.class_ = INSN_CPUID;
    else if (name == "XBEGIN_4")
        row.class_ = INSN_XBEGIN;
    else if (starts_with(name, "UD1") || is_one_of(name, {"TRAP", "HLT"}))
        row.class_ = INSN_STOP;
    else if (is_one_of(name, {"JMP_2", "JCC_2", "CALL64pcrel16", "CALLpcrel16", "XBEGIN_2", "RET16", "RETI16", "JCXZ"})) {
        row.class_ = INSN_UNSUPPORTED;
        row.event = BDBI_EVENT_OPERAND16;
    } else if (starts_with_one_of(name, {"FARJMP", "FARCALL", "LRET", "IRET"}) || name == "UIRET") {
        row.class_ = INSN_UNSUPPORTED;
        row.event = BDBI_EVENT_FAR;
    } else if (starts_with_one_of(name, {"RDGSBASE", "WRGSBASE", "POPGS", "LGS"})) {
        row.class_ = INSN_UNSUPPORTED;
        row.event = BDBI_EVENT_GS;
    } else if (name == "SYSENTER") {
        row.class_ = INSN_UNSUPPORTED;
        row.event = BDBI_EVENT_INT80;
    }
}

/* Marks that jit/insn.c acts upon. */
void mark(const std::string &name, opcode_info &row)
{
    if (is_prefix(name))
        row.marks |= OPCODE_IS_PREFIX;
    if (is_string_instruction(name))
        row.marks |= OPCODE_IS_STRING;
    if (name == "INT")
        row.marks |= OPCODE_IS_INT;
    if (starts_with(name, "NOOP") || is_family(name, {"LEA"}))
        row.marks |= OPCODE_NO_ACCESS;
    if (starts_with(name, "NOOP"))
        row.marks |= OPCODE_IS_NOP;
    if (is_one_of(name, {"XLAT"}) ||
        starts_with_one_of(name, {"MASKMOV", "VMASKMOVDQU", "MONITOR", "UMONITOR", "CLZERO", "INVLPGA", "VMRUN"}))
        row.marks |= OPCODE_HIDDEN_ACCESS;
    if (is_one_of(name, {"JCC_1", "JCC_4", "SETCCr", "SETCCm", "CMOV16rr", "CMOV16rm", "CMOV32rr", "CMOV32rm", "CMOV64rr",
                         "CMOV64rm"}))
        row.marks |= OPCODE_READS_CONDITION;
}

/* Flags read and written by an opcode that has EFLAGS among its implicit uses (READS) or definitions (WRITES). */
void refine_flags(const std::string &name, bool reads, bool writes, opcode_info &row)
{
    const uint16_t arithmetic = FLAG_ALL;
    bool immediate_count = ends_with(name, "i") || ends_with(name, "i8");

    row.flags_read = reads ? FLAG_ALL : 0;
    row.flags_written = 0;
    if (is_family(name, {"ADC", "SBB", "RCL", "RCR", "ADCX"}) || name == "CMC")
        row.flags_read = FLAG_CF;
    if (is_family(name, {"ADOX"}))
        row.flags_read = FLAG_OF;
    if (starts_with(name, "PUSHF") || name == "LAHF" || name == "INT" || name == "INT3")
        row.flags_read = FLAG_ALL;
    if (row.class_ == INSN_SYSCALL || row.class_ == INSN_UNSUPPORTED)
        row.flags_read = FLAG_ALL;
    if (!writes)
        return;

    if (is_family(name, {"ADD", "SUB", "CMP", "TEST", "AND", "OR", "XOR", "NEG", "ADC", "SBB", "XADD"}) ||
        (is_family(name, {"CMPXCHG"}) && !is_one_of(name, {"CMPXCHG8B", "CMPXCHG16B"})))
        row.flags_written = arithmetic;
    else if (is_string_instruction(name)) /* CMPS, SCAS; jit/insn.c takes it back for rep */
        row.flags_written = arithmetic;
    else if (is_family(name, {"INC", "DEC"}))
        row.flags_written = FLAG_ALL & ~FLAG_CF;
    else if (is_family(name, {"SHL", "SHR", "SAR", "SHLD", "SHRD"})) {
        if (immediate_count)
            row.marks |= OPCODE_SHIFT_IMMEDIATE;
        if (immediate_count || name.back() == '1')
            row.flags_written = arithmetic;
    } else if (is_family(name, {"ROL", "ROR"})) {
        if (immediate_count)
            row.marks |= OPCODE_SHIFT_IMMEDIATE;
        if (immediate_count || name.back() == '1')
            row.flags_written = FLAG_CF;
    } else if (is_family(name, {"MUL", "IMUL"})) /* the others are undefined, and some processors keep them */
        row.flags_written = FLAG_CF | FLAG_OF;
    else if (is_family(name, {"BT", "BTC", "BTR", "BTS", "ADCX"}) || is_one_of(name, {"CLC", "STC", "CMC"}))
        row.flags_written = FLAG_CF;
    else if (is_family(name, {"ADOX"}))
        row.flags_written = FLAG_OF;
    else if (is_family(name, {"BSF", "BSR"}) || is_one_of(name, {"CMPXCHG8B", "CMPXCHG16B"}))
        row.flags_written = FLAG_ZF;
    else if (is_family(name, {"LZCNT", "TZCNT"}))
        row.flags_written = FLAG_CF | FLAG_ZF;
    else if (is_family(name, {"ANDN", "BLSI", "BLSR", "BLSMSK", "BZHI"}))
        row.flags_written = FLAG_CF | FLAG_ZF | FLAG_SF | FLAG_OF;
    else if (is_family(name, {"BEXTR"}))
        row.flags_written = FLAG_CF | FLAG_ZF | FLAG_OF;
    else if (is_family(name, {"POPCNT"}) ||
             starts_with_one_of(name, {"COMIS", "UCOMIS", "VCOMIS", "VUCOMIS", "PTEST", "VPTEST", "VTESTP", "PCMPESTR",
                                       "PCMPISTR", "VPCMPESTR", "VPCMPISTR", "KORTEST", "KTEST", "RDRAND", "RDSEED", "POPF"}))
        row.flags_written = FLAG_ALL;
    else if (name == "SAHF")
        row.flags_written = FLAG_ALL & ~FLAG_OF;
}

uint16_t gpr_bit(unsigned reg)
{
    return reg_gpr[reg] < 16 ? (uint16_t)(1u << reg_gpr[reg]) : 0;
}

opcode_info describe(unsigned opcode)
{
    std::string name = instructions->getName(opcode).str();
    const MCInstrDesc &desc = instructions->get(opcode);
    opcode_info row = {};
    bool reads = false, writes = false;

    row.ndefs = (uint8_t)desc.getNumDefs();
    row.memory = OPCODE_NO_MEMORY;
    for (unsigned i = 0; i < desc.getNumOperands() && row.memory == OPCODE_NO_MEMORY; i++)
        if (desc.operands()[i].OperandType == MCOI::OPERAND_MEMORY)
            row.memory = (uint8_t)i;
    for (MCPhysReg reg : desc.implicit_uses()) {
        row.regs_read |= gpr_bit(reg);
        reads |= !strcmp(registers->getName(reg), "EFLAGS");
    }
    for (MCPhysReg reg : desc.implicit_defs()) {
        row.regs_written |= gpr_bit(reg);
        writes |= !strcmp(registers->getName(reg), "EFLAGS");
    }
    classify(name, row);
    mark(name, row);
    refine_flags(name, reads, writes, row);
    return row;
}

FILE *open_output(const char *dir, const char *name)
{
    std::string path = std::string(dir) + "/" + name;
    FILE *f = fopen(path.c_str(), "w");

    if (!f) {
        perror(path.c_str());
        exit(1);
    }
    fprintf(f, "/* Generated by jit/gen_opcodes.cpp from LLVM's tables. */\n");
    return f;
}

/* GPR_NONE, GPR_EXTENDED (r16 and up) or the encoding number of the GPR that REG is a part of. */
uint8_t find_gpr(unsigned reg)
{
    static const char *const names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};

    for (MCPhysReg whole : registers->superregs_inclusive(reg)) {
        const char *name = registers->getName(whole);
        for (unsigned i = 0; i < 16; i++)
            if (!strcmp(name, names[i]))
                return (uint8_t)i;
        if (name[0] == 'R' && atoi(name + 1) >= 16)
            return GPR_EXTENDED;
    }
    return GPR_NONE;
}

void write_header(const char *dir)
{
    FILE *f = open_output(dir, "opcodes.h");

    fprintf(f, "#ifndef BDBI_JIT_OPCODES_H\n#define BDBI_JIT_OPCODES_H\n\nenum opcode {\n");
    for (unsigned i = 0; i < instructions->getNumOpcodes(); i++)
        fprintf(f, "    OPCODE_%s = %u,\n", instructions->getName(i).str().c_str(), i);
    fprintf(f, "    OPCODE_COUNT = %u,\n};\n\nenum reg {\n", instructions->getNumOpcodes());
    for (unsigned i = 1; i < registers->getNumRegs(); i++)
        fprintf(f, "    REG_%s = %u,\n", registers->getName(i), i);
    fprintf(f, "    REG_COUNT = %u,\n};\n\n#endif\n", registers->getNumRegs());
    fclose(f);
}

void write_table(const char *dir)
{
    FILE *f = open_output(dir, "opcode_table.inc");
    std::map<std::string, unsigned> index_of; /* by the row's bytes: most opcodes share one of a few hundred rows */
    std::vector<opcode_info> rows;

    fprintf(f, "static const uint8_t reg_gpr[REG_COUNT] = {");
    for (unsigned i = 0; i < registers->getNumRegs(); i++)
        fprintf(f, "%s%u,", i % 24 ? " " : "\n    ", reg_gpr[i]);
    fprintf(f, "\n};\n\nstatic const uint16_t opcode_rows[OPCODE_COUNT] = {");
    for (unsigned i = 0; i < instructions->getNumOpcodes(); i++) {
        opcode_info row = describe(i);
        auto added = index_of.emplace(std::string((const char *)&row, sizeof(row)), rows.size());
        if (added.second)
            rows.push_back(row);
        fprintf(f, "%s%u,", i % 24 ? " " : "\n    ", added.first->second);
    }
    fprintf(f, "\n};\n\nstatic const struct opcode_info opcode_table[] = {\n");
    for (const opcode_info &r : rows)
        fprintf(f, "    {%u, %u, %u, %u, 0x%x, 0x%x, 0x%x, 0x%x, 0x%x},\n", r.class_, r.event, r.memory, r.ndefs, r.marks,
                r.regs_read, r.regs_written, r.flags_read, r.flags_written);
    fprintf(f, "};\n");
    fclose(f);
}

} // namespace

int main(int argc, char **argv)
{
    const char *triple = "x86_64-unknown-linux-gnu";
    std::string error;

    if (argc != 2) {
        fprintf(stderr, "usage: gen_opcodes DIR\n");
        return 1;
    }
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86TargetMC();
    const Target *target = TargetRegistry::lookupTarget(triple, error);
    if (!target) {
        fprintf(stderr, "gen_opcodes: %s\n", error.c_str());
        return 1;
    }
    registers = target->createMCRegInfo(triple);
    instructions = target->createMCInstrInfo();
    reg_gpr.assign(registers->getNumRegs(), GPR_NONE);
    for (unsigned i = 1; i < registers->getNumRegs(); i++)
        reg_gpr[i] = find_gpr(i);
    write_header(argv[1]);
    write_table(argv[1]);
    return 0;
}
