/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that restricts itself by landlock. Not run with a tool: its report goes where these may not write (docs/limits.md).
 */
#include "subcases.h"
#include <linux/landlock.h>

static void say(int value) /* from memory that is written and executed */
{
    unsigned char code[6] = {0xb8, 0, 0, 0, 0, 0xc3};
    unsigned char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(p != MAP_FAILED);
    memcpy(code + 1, &value, 4);
    memcpy(p, code, sizeof code);
    printf("%d\n", ((int (*)(void))(uintptr_t)p)());
}

static int rules_for(uint64_t handled)
{
    struct landlock_ruleset_attr attr = {.handled_access_fs = handled};
    return (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
}

static long allow(int rules, const char *path, uint64_t access)
{
    struct landlock_path_beneath_attr beneath = {.allowed_access = access, .parent_fd = open(path, O_PATH)};
    long r = beneath.parent_fd < 0 ? 0 : syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0);
    close(beneath.parent_fd);
    return r;
}

static int start(int rules)
{
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    return (int)syscall(SYS_landlock_restrict_self, rules, 0);
}

SUBCASE(files)
{
    SHOW(syscall(SYS_landlock_create_ruleset, NULL, 0, 1) > 0);
    int rules = rules_for(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE);
    if (rules < 0) {
        printf("error %d\n", errno);
        return;
    }
    SHOW(allow(rules, "/usr", LANDLOCK_ACCESS_FS_READ_FILE));
    SHOW(start(rules));
    SHOW(open("/etc/passwd", O_RDONLY));
    int fd = open("/usr/bin/env", O_RDONLY);
    printf("below /usr %d\n", fd >= 0);
    SHOW(open("/dev/null", O_WRONLY));
    say(41);
    in_child("child", (void (*)(void))getpid);
}

static void executes(void)
{
    execl("/bin/sh", "sh", "-c", "/bin/true && exit 7", NULL);
    printf("error %d\n", errno);
}

static void executes_env(void)
{
    execl("/usr/bin/env", "env", "-i", "/usr/bin/env", "A=b", "/usr/bin/env", NULL);
    printf("error %d\n", errno);
}

SUBCASE(exec)
{
    uint64_t read_and_run = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE;
    int rules =
        rules_for(read_and_run | LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG);
    if (rules < 0)
        return;
    static const char *const paths[] = {"/usr", "/bin", "/lib", "/lib64"};
    for (int i = 0; i < 4; i++)
        SHOW(allow(rules, paths[i], read_and_run));
    SHOW(allow(rules, "/etc", LANDLOCK_ACCESS_FS_READ_FILE));
    SHOW(start(rules));
    in_child("shell", executes);
    in_child("env", executes_env);
    SHOW(open("/proc/self/status", O_RDONLY));
}

SUBCASE(no_exec)
{
    int rules = rules_for(LANDLOCK_ACCESS_FS_EXECUTE);
    if (rules < 0)
        return;
    SHOW(start(rules));
    in_child("shell", executes);
    int second = rules_for(LANDLOCK_ACCESS_FS_READ_FILE);
    SHOW(start(second));
    SHOW(open("/usr/bin/env", O_RDONLY));
    say(42);
}

SUBCASE(exec_only)
{
    /* To be executed a file need not be readable. */
    int rules = rules_for(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE);
    if (rules < 0)
        return;
    SHOW(allow(rules, "/", LANDLOCK_ACCESS_FS_EXECUTE));
    SHOW(allow(rules, "/lib", LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE));
    SHOW(allow(rules, "/usr/lib", LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE));
    SHOW(allow(rules, "/etc", LANDLOCK_ACCESS_FS_READ_FILE));
    SHOW(start(rules));
    in_child("shell", executes);
}
