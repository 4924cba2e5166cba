/* SPDX-License-Identifier: Apache-2.0
 *
 * Tools in the host's command lines: choosing them, calling weave, and the line on stderr when that crashes. A tool's fault
 * ends the command: what it would have woven is not known.
 */
#include "cachedb/codegen_key.h"
#include "launcher/host.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_TOOLS 16

static const char *command = "bdbi";
static struct tool_choice *chosen[MOST_TOOLS];
static unsigned nchosen;

/* ---- calls ---- */

static _Thread_local struct {
    const struct bdbi_tool *volatile tool; /* at work in this thread */
    const char *volatile where;
} running;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    char text[HOST_MESSAGE_BYTES], line[HOST_MESSAGE_BYTES + 32];
    if (!running.tool) {
        signal(sig, SIG_DFL); /* happens again, for real */
        return;
    }
    tool_describe_crash(text, sizeof text, running.tool, running.where, sig, (uint64_t)uc->uc_mcontext.gregs[REG_RIP],
                        (uint64_t)info->si_addr);
    int n = snprintf(line, sizeof line, "%s: %s\n", command, text);
    if (write(STDERR_FILENO, line, (size_t)n) < 0) {
        _exit(HOST_FAILED);
    }
    _exit(HOST_FAILED);
}

static void catch_faults(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigemptyset(&act.sa_mask);
    for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) {
        sigaction(faults[i], &act, NULL);
    }
}

void host_weave(const struct bdbi_tool *tool, struct bdbi_block *block)
{
    running.where = "weave";
    running.tool = tool;
    tool->weave(block);
    running.tool = NULL;
}

static void start(const struct bdbi_tool *tool)
{
    catch_faults();
    running.where = "its constructors";
    running.tool = tool;
    tool_start(tool);
    running.tool = NULL;
}

/* ---- choosing ---- */

const struct tool_choice *host_tool(const char *for_command, const char *text, char *message, size_t message_bytes)
{
    message[0] = '\0';
    for (unsigned i = 0; i < nchosen; i++) {
        if (strcmp(chosen[i]->text, text) == 0) {
            return chosen[i];
        }
    }
    struct tool_choice *c = nchosen < MOST_TOOLS ? malloc(sizeof *c) : NULL;
    if (!c) {
        snprintf(message, message_bytes, "tool %s: too many tools", text);
        return NULL;
    }
    if (tool_choose(text, c, message, message_bytes) != 0 || !c->tool) {
        free(c);
        return NULL;
    }
    command = for_command;
    chosen[nchosen++] = c;
    start(c->tool);
    return c;
}

/* ---- names for people ---- */

void host_tool_note(struct cachedb *db, const struct tool_choice *tool)
{
    struct tool_key key = {.type = CACHEDB_TOOL};
    if (tool && tool->is_object) {
        memcpy(key.tool, &tool->fingerprint, sizeof key.tool);
        cachedb_put(db, &key, sizeof key, tool->text, strlen(tool->text));
    }
}

void host_tool_name(struct cachedb *db, const struct codegen_key *codegen, char *name, size_t name_bytes)
{
    struct codegen_key current;
    struct tool_key key = {.type = CACHEDB_TOOL};
    uint64_t fingerprint;
    void *value;
    size_t bytes;
    codegen_key_make(0, &current);
    memcpy(&fingerprint, codegen->tool, sizeof fingerprint);
    memcpy(key.tool, codegen->tool, sizeof key.tool);
    snprintf(name, name_bytes, "%s", fingerprint ? "(another version)" : "none");
    for (unsigned i = 0; tool_builtin(i); i++) {
        if (tool_fingerprint(tool_builtin(i), 0, "") == fingerprint) {
            snprintf(name, name_bytes, "%s", tool_builtin(i)->name);
        }
    }
    if (fingerprint && cachedb_get(db, &key, sizeof key, &value, &bytes) == 0) {
        snprintf(name, name_bytes, "%.*s", (int)bytes, (const char *)value);
        free(value);
    }
    if (memcmp(current.codegen, codegen->codegen, sizeof current.codegen) != 0) {
        snprintf(name, name_bytes, "(another version)");
    }
}
