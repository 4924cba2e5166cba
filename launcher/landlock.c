/* SPDX-License-Identifier: Apache-2.0
 *
 * Landlock: the guest restricts what its process may do with files, and the core lives in that process. Before a ruleset comes
 * into force it gets rules for what running the guest's programs needs: bdbi itself and a tool's object may be read and
 * executed, the cache may be read. Misses are noted no more: that would have to write.
 */
#include "launcher/core.h"
#include <linux/landlock.h>

#define NR_LANDLOCK_ADD_RULE 445
#define O_PATH_CLOEXEC (O_PATH_ | O_CLOEXEC_)

/* The kernel refuses a rule that names an access which the ruleset does not handle: each is tried by itself. */
static void allow(int ruleset, const char *path, uint64_t accesses)
{
    long fd = sys4(__NR_openat, AT_FDCWD_, path, O_PATH_CLOEXEC, 0);
    if (fd < 0)
        return;
    for (uint64_t access = 1; access <= accesses; access <<= 1) {
        struct landlock_path_beneath_attr beneath = {.allowed_access = access, .parent_fd = (int)fd};
        if (accesses & access)
            sys4(NR_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0);
    }
    sys1(__NR_close, fd);
}

long sys_landlock_guest(struct thread_ctx *ctx)
{
    int ruleset = (int)ctx->gpr[RDI];
    if (options.native)
        return guest_syscall(ctx);
    allow(ruleset, "/proc/self/exe", LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE);
    if (options.cache)
        allow(ruleset, options.cache, LANDLOCK_ACCESS_FS_READ_FILE);
    char object[TOOL_TEXT_BYTES];
    if (options.tool && options.tool->is_object)
        allow(ruleset, tool_object_path(options.tool, object, sizeof object), LANDLOCK_ACCESS_FS_READ_FILE);
    long result = guest_syscall(ctx);
    if (result == 0)
        explain("landlock: nothing is learned any more");
    options.no_learn |= result == 0;
    return result;
}
