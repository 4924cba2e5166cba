/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of an image's key that says who made the code: the translator and the tool. Only what changes woven code belongs
 * here; a tool's run-time options (where to write its report) do not. Both worlds.
 */
#include "cachedb/codegen_key.h"
#include "codegen_id.h"
#include "include/internal/core_string.h"

void codegen_key_make(uint64_t tool_fingerprint, struct codegen_key *out)
{
    uint64_t codegen = BDBI_CODEGEN_ID;
    memcpy(out->codegen, &codegen, sizeof out->codegen);
    memcpy(out->tool, &tool_fingerprint, sizeof out->tool);
}
