/* SPDX-License-Identifier: Apache-2.0
 *
 * The x87 unit keeps the address of its last instruction, which is one of translated code. Whoever stores the unit's state gets
 * the app's: instructions that do are followed by an event (jit/rules.c), signal frames are corrected when they are built.
 *
 * fxsave64, xsave64 and frames hold all of the address. fnstenv, fnsave, fxsave and xsave hold its low 32 bits, which are
 * enough: all code of a window lies in 2 GB.
 */
#include "launcher/core.h"
#include "launcher/signal.h"
#include <asm/prctl.h>

#define ENVIRONMENT_ADDRESS 12 /* in what fnstenv stores, 28 bytes */
#define NARROW_ADDRESS 6       /* the same with 16 bits */
#define AREA_ADDRESS 8         /* in an FXSAVE area */
#define AREA_HEADER 512        /* of XSAVE: which components were stored */

/* The app's address if CODE is of translated code, else CODE. */
static uint64_t app_address(uint64_t code)
{
    struct code_state state = {.known = false};
    if (code)
        state = code_state_at(code);
    return state.known && state.app ? state.app : code;
}

/* The same of an address's low 32 bits. */
static uint64_t app_address_of_low(uint32_t low)
{
    uint64_t code = window_base + (uint32_t)(low - (uint32_t)window_base), app = app_address(code);
    if (app != code)
        return app;
    return app_address(low);
}

/* What a 16-bit form leaves out: the unit still has it, unless fnsave has emptied it. */
static uint32_t address_in_unit(void)
{
    uint32_t environment[7];
    __asm__ volatile("fnstenv %0\n\tfldenv %0" : "+m"(environment));
    return environment[ENVIRONMENT_ADDRESS / 4];
}

static bool was_stored(uint64_t at, uint64_t event)
{
    uint64_t components = 0;
    return !(event & FPU_SAVED_HEADER) || (!copy_guest(&components, (void *)(at + AREA_HEADER), 8) && components & 1);
}

/* The code has gone, or fnsave with 16 bits has left too little. */
static void explain_unknown(void)
{
    static bool said;
    if (!said)
        explain("the x87 unit's last instruction address is stored as one of translated code: whose it was is not known");
    said = true;
}

static bool is_code(uint64_t address)
{
    return address - window_base - BDBI_CODE_DISTANCE < BDBI_WINDOW_BYTES - BDBI_CODE_DISTANCE;
}

void fpu_saved(struct thread_ctx *ctx, uint64_t event)
{
    uint64_t at = ctx->operand, base = 0, address = 0, app;
    size_t bytes = event & FPU_SAVED_NARROW ? 2 : event & FPU_SAVED_AREA && event & FPU_SAVED_WIDE ? 8 : 4;
    if (event & FPU_SAVED_FS)
        sys2(__NR_arch_prctl, ARCH_GET_FS, &base);
    at += base;
    ctx->pc += event >> FPU_SAVED_LENGTH_SHIFT & 15;
    if (was_stored(at, event)) {
        at += event & FPU_SAVED_AREA ? AREA_ADDRESS : event & FPU_SAVED_NARROW ? NARROW_ADDRESS : ENVIRONMENT_ADDRESS;
        copy_guest(&address, (void *)at, bytes);
        if (bytes == 2) {
            uint32_t low = address_in_unit();
            if ((uint16_t)low != address)
                explain_unknown();
            address = (uint16_t)low == address ? low : 0;
        }
        app = bytes == 8 ? app_address(address) : app_address_of_low((uint32_t)address);
        if (bytes == 8 && app == address && is_code(address))
            explain_unknown();
        if (address && app != address)
            copy_guest((void *)at, &app, bytes);
    }
    dispatch_resume(ctx);
}

void fpu_correct_frame(char *fpstate)
{
    uint64_t *address = (uint64_t *)(fpstate + AREA_ADDRESS);
    bool extended = *(const uint32_t *)(fpstate + FP_SW_OFFSET) == FP_XSTATE_MAGIC1;
    if (!extended || *(const uint64_t *)(fpstate + AREA_HEADER) & 1)
        *address = app_address(*address);
}
