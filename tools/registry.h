/* SPDX-License-Identifier: Apache-2.0
 *
 * Choosing a tool: one that ships, or a shared object. Used by the core and by the host's command lines: freestanding.
 */
#ifndef BDBI_TOOLS_REGISTRY_H
#define BDBI_TOOLS_REGISTRY_H

#include "bdbi/tool.h"

#define TOOL_TEXT_BYTES 4096

/* A tool with its arguments. */
struct tool_choice {
    const struct bdbi_tool *tool; /* NULL: none */
    const char *args;             /* "key=value,...", checked */
    uint64_t fingerprint;         /* what code that it weaves depends on; 0: no tool */
    bool is_object;
    char text[TOOL_TEXT_BYTES]; /* chooses the same from any working directory */
};

/* Chooses what `--tool TEXT` says: NAME[:ARGS] or PATH[:ARGS] with a '/' in PATH, "::" in PATH for a ':'. OUT must stay where
 * it is. A shared object is mapped once and stays. Not thread-safe. 0; or -1 and one line in MESSAGE. */
int tool_choose(const char *text, struct tool_choice *out, char *message, size_t message_bytes);
/* Where the shared object of CHOICE is, in PATH. */
const char *tool_object_path(const struct tool_choice *choice, char *path, size_t path_bytes);
/* The nth tool that ships, or NULL past the last. */
const struct bdbi_tool *tool_builtin(unsigned n);
/* What code woven by TOOL depends on. CONTENT: hash of its object, 0: it is built in. */
uint64_t tool_fingerprint(const struct bdbi_tool *tool, uint64_t content, const char *args);

/* ---- shared objects (launcher/tool_load.c) ---- */

/* The tool in the shared object PATH, mapped and relocated, and the hash of its CONTENT. NULL: one line in MESSAGE. */
const struct bdbi_tool *tool_load(const char *path, uint64_t *content, char *message, size_t message_bytes);
/* Runs the constructors of TOOL's object, the first time; nothing else may call into it before. */
void tool_start(const struct bdbi_tool *tool);
/* One line about a tool's crash in its part WHERE: "tool NAME crashed in WHERE: signal ...". */
size_t tool_describe_crash(char *line, size_t line_bytes, const struct bdbi_tool *tool, const char *where, int sig, uint64_t pc,
                           uint64_t address);

#endif
