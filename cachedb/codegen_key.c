/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of an image's key that says who made the code: the translator and the tool. Only what changes woven code belongs
 * here; a tool's run-time options (where to write its report) do not. Both worlds.
 */
#include "cachedb/codegen_key.h"
#include "codegen_id.h"
#include "include/internal/core_string.h"

static uint64_t fnv1a(uint64_t hash, const void *bytes, size_t nbytes)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < nbytes; i++) {
        hash = (hash ^ p[i]) * 0x100000001b3ull;
    }
    return hash;
}

void codegen_key_make(const struct bdbi_tool *tool, struct codegen_key *out)
{
    uint64_t codegen = BDBI_CODEGEN_ID, hash = 0;
    if (tool) {
        size_t name_bytes = 1; /* with its NUL */
        for (const char *p = tool->name; *p; p++) {
            name_bytes++;
        }
        hash = fnv1a(0xcbf29ce484222325ull, tool->name, name_bytes);
        hash = fnv1a(hash, &tool->version, sizeof tool->version);
    }
    memcpy(out->codegen, &codegen, sizeof out->codegen);
    memcpy(out->tool, &hash, sizeof out->tool);
}
