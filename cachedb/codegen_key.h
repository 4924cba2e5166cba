/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes the part of an image's key that says who made the code. Both worlds.
 */
#ifndef BDBI_CODEGEN_KEY_H
#define BDBI_CODEGEN_KEY_H

#include "bdbi/tool.h"
#include "cachedb/cachedb.h"

/* What code woven by TOOL (NULL: no tool) by this program's translator depends on. */
void codegen_key_make(const struct bdbi_tool *tool, struct codegen_key *out);

#endif
