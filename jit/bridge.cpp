/* SPDX-License-Identifier: Apache-2.0
 *
 * LLVM MC behind a C interface: the only C++ of the translator. Without exceptions and RTTI.
 *
 * What never changes (target, register and instruction descriptions) is made once per process; the disassembler and the printer
 * belong to a bridge and so to one thread. The subtarget has no features: LLVM's disassembler uses them only to tell 16, 32 and
 * 64-bit code apart, and the names of nobody's CPU should decide what decodes.
 */
#include "jit/bridge.h"

#include "llvm/MC/MCAsmInfo.h"
#include "llvm/MC/MCContext.h"
#include "llvm/MC/MCDisassembler/MCDisassembler.h"
#include "llvm/MC/MCInst.h"
#include "llvm/MC/MCInstPrinter.h"
#include "llvm/MC/MCInstrInfo.h"
#include "llvm/MC/MCRegisterInfo.h"
#include "llvm/MC/MCSubtargetInfo.h"
#include "llvm/MC/MCTargetOptions.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/raw_ostream.h"

#include <cstring>
#include <new>
#include <pthread.h>
#include <string>

using namespace llvm;

extern "C" void LLVMInitializeX86TargetInfo();
extern "C" void LLVMInitializeX86TargetMC();
extern "C" void LLVMInitializeX86Disassembler();

namespace
{

const char triple[] = "x86_64-unknown-linux-gnu";
const unsigned intel_syntax = 1;

struct shared_tables {
    const Target *target;
    const MCRegisterInfo *registers;
    const MCAsmInfo *assembly;
    const MCSubtargetInfo *subtarget;
    const MCInstrInfo *instructions;
};

pthread_once_t tables_once = PTHREAD_ONCE_INIT;
shared_tables tables;

void make_tables()
{
    std::string error;

    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86Disassembler();
    tables.target = TargetRegistry::lookupTarget(triple, error);
    if (!tables.target)
        return;
    tables.registers = tables.target->createMCRegInfo(triple);
    tables.assembly = tables.target->createMCAsmInfo(*tables.registers, triple, MCTargetOptions());
    tables.subtarget = tables.target->createMCSubtargetInfo(triple, "", "");
    tables.instructions = tables.target->createMCInstrInfo();
}

} // namespace

struct bridge {
    MCContext context;
    MCDisassembler *disassembler;
    MCInstPrinter *printer; /* made when first needed */

    bridge()
        : context(Triple(triple), tables.assembly, tables.registers, tables.subtarget),
          disassembler(tables.target->createMCDisassembler(*tables.subtarget, context)), printer(nullptr)
    {
    }
    ~bridge()
    {
        delete disassembler;
        delete printer;
    }

    bool decode(const uint8_t *bytes, size_t bytes_left, MCInst &inst, uint64_t &length)
    {
        ArrayRef<uint8_t> window(bytes, bytes_left < 15 ? bytes_left : 15);
        return disassembler->getInstruction(inst, length, window, 0, nulls()) != MCDisassembler::Fail;
    }
};

extern "C" struct bridge *bridge_new(void)
{
    pthread_once(&tables_once, make_tables);
    if (!tables.instructions)
        return nullptr;
    return new (std::nothrow) bridge;
}

extern "C" void bridge_free(struct bridge *b)
{
    delete b;
}

extern "C" int bridge_decode(struct bridge *b, const uint8_t *bytes, size_t bytes_left, struct bridge_insn *out)
{
    MCInst inst;
    uint64_t length;

    if (!b->decode(bytes, bytes_left, inst, length) || inst.getNumOperands() > BRIDGE_MAX_OPERANDS)
        return -1;
    out->opcode = (uint16_t)inst.getOpcode();
    out->length = (uint8_t)length;
    out->noperands = (uint8_t)inst.getNumOperands();
    for (unsigned i = 0; i < out->noperands; i++) {
        const MCOperand &operand = inst.getOperand(i);
        out->reg[i] = operand.isReg() ? (uint16_t)(unsigned)operand.getReg() : 0;
        out->imm[i] = operand.isImm() ? operand.getImm() : 0;
    }
    return 0;
}

extern "C" int bridge_print(struct bridge *b, const uint8_t *bytes, size_t bytes_left, uint64_t next_pc, char *out,
                            size_t out_bytes)
{
    MCInst inst;
    uint64_t length;
    std::string text;
    raw_string_ostream stream(text);

    if (!b->decode(bytes, bytes_left, inst, length))
        return -1;
    if (!b->printer) {
        b->printer = tables.target->createMCInstPrinter(Triple(triple), intel_syntax, *tables.assembly, *tables.instructions,
                                                        *tables.registers);
        b->printer->setPrintBranchImmAsAddress(true);
        b->printer->setPrintImmHex(true);
    }
    b->printer->printInst(&inst, next_pc, "", *tables.subtarget, stream);
    stream.flush();
    if (out_bytes) {
        size_t n = text.size() < out_bytes ? text.size() : out_bytes - 1;
        memcpy(out, text.data(), n);
        out[n] = 0;
    }
    return 0;
}

extern "C" const char *bridge_opcode_name(uint16_t opcode)
{
    pthread_once(&tables_once, make_tables);
    if (!tables.instructions || opcode >= tables.instructions->getNumOpcodes())
        return "?";
    return tables.instructions->getName(opcode).data();
}
