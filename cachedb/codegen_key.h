/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes the part of an image's key that says who made the code. Both worlds.
 */
#ifndef BDBI_CODEGEN_KEY_H
#define BDBI_CODEGEN_KEY_H

#include "cachedb/cachedb.h"

/* What code by this program's translator depends on, woven by the tool with this fingerprint (tools/registry.h; 0: no tool). */
void codegen_key_make(uint64_t tool_fingerprint, struct codegen_key *out);

#endif
