/* SPDX-License-Identifier: Apache-2.0
 *
 * A tool's arguments: "key=value,key=value". Used by the core, by the translator and by bdbi-warm: freestanding.
 */
#ifndef BDBI_TOOLS_ARGS_H
#define BDBI_TOOLS_ARGS_H

#include <stdbool.h>
#include <stddef.h>

/* The value of KEY in ARGS (may be NULL), its length in *BYTES; NULL: not given. */
const char *tool_arg(const char *args, const char *key, size_t *bytes);
/* Whether LIST ("key,key", may be NULL) has the KEY_BYTES at KEY. */
bool tool_list_has(const char *list, const char *key, size_t key_bytes);
/* The first part of ARGS that is not key=value with a key of one of the lists or "out", or NULL. */
const char *tool_args_check(const char *args, const char *weave_options, const char *report_options);

#endif
