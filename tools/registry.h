/* SPDX-License-Identifier: Apache-2.0
 *
 * The tools that ship. Used by the core and by bdbi-warm: freestanding.
 */
#ifndef BDBI_TOOLS_REGISTRY_H
#define BDBI_TOOLS_REGISTRY_H

#include "bdbi/tool.h"

/* The tool called NAME, or NULL. */
const struct bdbi_tool *bdbi_tool_find(const char *name);
/* The nth tool, or NULL past the last. */
const struct bdbi_tool *bdbi_tool_at(unsigned n);
/* ARGS is "key=value,..."; returns the first key that no tool knows, or NULL. Known: out. */
const char *bdbi_tool_check_args(const char *args);
/* The value of KEY in ARGS, its length in *BYTES; NULL: not given. */
const char *bdbi_tool_arg(const char *args, const char *key, size_t *bytes);

#endif
