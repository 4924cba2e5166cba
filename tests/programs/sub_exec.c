/* SPDX-License-Identifier: Apache-2.0
 *
 * Programs as they see themselves after exec, descriptors that bdbi might want, limits, and what a process may ask to be.
 */
#include "limited.h"
#include <dirent.h>
#include <elf.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

extern char **environ;
static int status;

/* ---- what this program does when it is executed by its own cases: argv[1] says ---- */

static void print_file(const char *name)
{
    char text[4096];
    int fd = open(name, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    printf("%s:", name);
    for (ssize_t i = 0; i < n; i++)
        printf("%c", text[i] ? text[i] : '|');
    printf("%s\n", n < 0 ? " cannot be read" : "");
    close(fd);
}

static void role_names(void)
{
    char link[PATH_MAX] = "";
    print_file("/proc/self/cmdline");
    print_file("/proc/self/comm");
    MUST(readlink("/proc/self/exe", link, sizeof link - 1) > 0);
    printf("exe %s\n", strrchr(link, '/') + 1);
    const char *execfn = (char *)getauxval(AT_EXECFN);
    if (!strncmp(execfn, "./", 2) || !strncmp(execfn, "/proc/", 6) || !strncmp(execfn, "/dev/fd/", 8))
        printf("execfn %s\n", execfn);
    char *slash = strrchr(program_invocation_name, '/');
    printf("argv[0] %s\n", slash ? slash + 1 : program_invocation_name);
}

static void role_descriptors(void)
{
    printf("open:");
    for (int fd = 0; fd < 1100; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf(" %d", fd);
    printf("\n");
}

static void role_environment(void)
{
    int n = 0;
    while (environ[n])
        n++;
    printf("%d variables, first %s\n", n, n ? environ[0] : "none");
}

static void role_auxv(void)
{
    printf("pagesz %lu clktck %lu secure %lu uid %d base %d entry %d phdr %d random %d platform %s\n", getauxval(AT_PAGESZ),
           getauxval(AT_CLKTCK), getauxval(AT_SECURE), getauxval(AT_UID) == getuid(), getauxval(AT_BASE) != 0,
           getauxval(AT_ENTRY) != 0, getauxval(AT_PHDR) != 0, getauxval(AT_RANDOM) != 0, (char *)getauxval(AT_PLATFORM));
    int fd = open("/proc/self/auxv", O_RDONLY), same = 0;
    Elf64_auxv_t v[64];
    ssize_t n = read(fd, v, sizeof v);
    for (int i = 0; i < (int)(n / (ssize_t)sizeof *v); i++)
        if (v[i].a_type == AT_ENTRY || v[i].a_type == AT_PHDR || v[i].a_type == AT_BASE || v[i].a_type == AT_PHNUM)
            same += v[i].a_un.a_val == getauxval(v[i].a_type);
    printf("same in /proc %d\n", same);
}

static void role_waits(void)
{
    char line;
    MUST(write(1, "x", 1) == 1);
    MUST(read(0, &line, 1) == 0);
}

int subcase_role(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*play)(void);
    } roles[] = {{"names", role_names},
                 {"descriptors", role_descriptors},
                 {"environment", role_environment},
                 {"auxv", role_auxv},
                 {"waits", role_waits}};
    for (size_t i = 0; argc >= 2 && i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(argv[1], roles[i].name) &&
            (argc == 2 || !strcmp(argv[0], "x") || strstr(argv[2], "the_script") || !strncmp(argv[2], "/dev/fd/", 8))) {
            roles[i].play();
            return 0;
        }
    return -1;
}

static void exec_role(const char *path, char *argv0, char *role)
{
    char *argv[] = {argv0, role, NULL};
    fflush(stdout);
    execv(path, argv);
    printf("exec failed, error %d\n", errno);
}

SUBCASE(names_of_itself)
{
    exec_role(subcase_self, "another name", "names");
}

SUBCASE(names_through_a_link)
{
    MUST(symlink(subcase_self, "the_link") == 0);
    exec_role("./the_link", "x", "names");
}

SUBCASE(exec_through_proc)
{
    exec_role("/proc/self/exe", "x", "environment");
}

SUBCASE(names_empty)
{
    exec_role(subcase_self, "", "names");
}

SUBCASE(names_by_descriptor)
{
    char *argv[] = {"x", "names", NULL}, path[40];
    int fd = open(subcase_self, O_RDONLY | O_CLOEXEC);
    MUST(dup3(fd, 77, O_CLOEXEC) == 77);
    snprintf(path, sizeof path, "/dev/fd/77");
    execveat(77, "", argv, environ, AT_EMPTY_PATH);
    printf("error %d\n", errno);
}

SUBCASE(names_through_proc)
{
    exec_role("/proc/self/exe", "x", "names");
}

SUBCASE(names_by_descriptor_and_path)
{
    char *argv[] = {"x", "names", NULL}, folder[PATH_MAX], *slash;
    strcpy(folder, subcase_self);
    slash = strrchr(folder, '/');
    *slash = 0;
    MUST(dup2(open(folder, O_RDONLY | O_DIRECTORY), 78) == 78);
    execveat(78, slash + 1, argv, environ, 0);
    printf("error %d\n", errno);
}

/* Copies this program to OUT and closes it. */
static void copy_self(int out)
{
    char block[65536];
    int in = open(subcase_self, O_RDONLY);
    for (ssize_t n; (n = read(in, block, sizeof block)) > 0;)
        MUST(write(out, block, (size_t)n) == n);
    close(in);
}

/* Its comm is the file's name from Linux 6.14 on. */
SUBCASE(names_in_memory)
{
    char *argv[] = {"x", "names", NULL};
    int fd = memfd_create("in memory", MFD_CLOEXEC);
    copy_self(fd);
    MUST(dup3(fd, 79, O_CLOEXEC) == 79 && close(fd) == 0);
    fexecve(79, argv, environ);
    printf("error %d\n", errno);
}

static void write_script(void)
{
    FILE *f = fopen("the_script", "w");
    MUST(f && fprintf(f, "#!%s names\n", subcase_self) > 0 && fclose(f) == 0 && chmod("the_script", 0755) == 0);
}

SUBCASE(names_of_script)
{
    char *argv[] = {"x", NULL};
    write_script();
    execv("./the_script", argv);
    printf("error %d\n", errno);
}

SUBCASE(names_of_script_by_descriptor)
{
    char *argv[] = {"x", NULL};
    write_script();
    MUST(dup2(open("the_script", O_RDONLY), 80) == 80);
    SHOW(fcntl(80, F_SETFD, FD_CLOEXEC));
    SHOW(execveat(80, "", argv, environ, AT_EMPTY_PATH));
    SHOW(fcntl(80, F_SETFD, 0));
    execveat(80, "", argv, environ, AT_EMPTY_PATH);
    printf("error %d\n", errno);
}

/* ---- files that somebody writes ---- */

static void exec_busy(const char *path, char *role)
{
    pid_t pid = fork();
    if (pid == 0) {
        exec_role(path, "x", role);
        _exit(9);
    }
    waitpid(pid, &status, 0);
    print_status(path, status);
}

SUBCASE(busy_program)
{
    int fd = open("./busy", O_RDWR | O_CREAT | O_CLOEXEC, 0755);
    copy_self(fd);
    exec_busy("./busy", "names");
    char *argv[] = {"x", "names", NULL};
    SHOW(fexecve(fd, argv, environ));
    int reader = open("./busy", O_RDONLY);
    close(fd);
    exec_busy("./busy", "names");
    close(reader);
}

SUBCASE(busy_script)
{
    write_script();
    int fd = open("the_script", O_WRONLY | O_APPEND | O_CLOEXEC);
    exec_busy("./the_script", "x");
    close(fd);
    exec_busy("./the_script", "x");
}

SUBCASE(busy_interpreter)
{
    int fd = open("./busy", O_RDWR | O_CREAT | O_CLOEXEC, 0755);
    copy_self(fd);
    int script = open("asking", O_WRONLY | O_CREAT, 0755);
    MUST(write(script, "#!./busy names\n", 15) == 15 && close(script) == 0);
    exec_busy("./asking", "x");
}

static void write_running(const char *name)
{
    struct stat st;
    SHOW(open(name, O_WRONLY));
    SHOW(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));
    SHOW(open(name, O_RDONLY | O_TRUNC));
    SHOW(open(name, O_WRONLY | O_CREAT | O_EXCL, 0644));
    SHOW(creat(name, 0644));
    SHOW(syscall(SYS_openat2, AT_FDCWD, name, &(uint64_t[3]){O_WRONLY, 0, 0}, 24));
    SHOW(truncate(name, 1));
    SHOW(open(name, O_WRONLY | O_DIRECTORY));
    SHOW(stat(name, &st) == 0 && st.st_size > 1);
    SHOW(open(name, O_RDONLY) >= 0);
}

/* Programs that run: this one, another one, one that is over. */
SUBCASE(write_to_a_program)
{
    int fd = open("./busy", O_RDWR | O_CREAT | O_CLOEXEC, 0755), in[2], out[2];
    char line;
    copy_self(fd);
    close(fd);
    write_running("/proc/self/exe");
    MUST(pipe(in) == 0 && pipe(out) == 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(in[0], 0);
        close(in[1]);
        dup2(out[1], 1);
        execl("./busy", "x", "waits", NULL);
        _exit(9);
    }
    close(out[1]);
    MUST(read(out[0], &line, 1) == 1);
    write_running("./busy");
    close(in[1]);
    waitpid(pid, &status, 0);
    print_status("busy", status);
    SHOW(open("./busy", O_WRONLY) >= 0);
    SHOW(truncate("./busy", 1));
    SHOW(creat("./busy", 0755) >= 0);
}

/* The errors that come before it and after it. */
SUBCASE(busy_and_wrong)
{
    char *argv[] = {"x", NULL};
    int fd = open("./busy", O_RDWR | O_CREAT | O_CLOEXEC, 0755);
    MUST(write(fd, "no program", 10) == 10);
    SHOW(execv("./busy", argv));
    fchmod(fd, 0644);
    SHOW(execv("./busy", argv));
    close(fd);
    chmod("./busy", 0755);
    SHOW(execv("./busy", argv));
}

SUBCASE(names_set)
{
    char name[17] = "";
    SHOW(prctl(PR_SET_NAME, "a name of more than 15"));
    SHOW(prctl(PR_GET_NAME, name));
    printf("%s\n", name);
    print_file("/proc/self/comm");
    print_file("/proc/thread-self/comm");
    int fd = open("/proc/self/comm", O_WRONLY);
    SHOW(write(fd, "written", 7));
    print_file("/proc/self/comm");
}

static void *names_thread(void *argument)
{
    char name[17] = "";
    pthread_setname_np(pthread_self(), "worker");
    pthread_getname_np(pthread_self(), name, sizeof name);
    printf("%s\n", name);
    print_file("/proc/thread-self/comm");
    return argument;
}

SUBCASE(names_of_threads)
{
    pthread_t t;
    pthread_create(&t, NULL, names_thread, NULL);
    pthread_join(t, NULL);
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    printf("tasks %d\n", n);
}

SUBCASE(environment_empty)
{
    char *argv[] = {"x", "environment", NULL}, *none[] = {NULL};
    execve(subcase_self, argv, none);
}

SUBCASE(environment_odd)
{
    char *argv[] = {"x", "environment", NULL}, *odd[] = {"no equals sign", "=", "A=1", "A=2", "", NULL};
    execve(subcase_self, argv, odd);
}

SUBCASE(environment_large)
{
    static char big[100000], *large[21];
    memset(big, 'v', sizeof big - 1);
    char *argv[] = {"x", "environment", NULL};
    memcpy(big, "BIG=", 4);
    for (int i = 0; i < 18; i++)
        large[i + 1] = big;
    large[0] = "FIRST=1";
    execve(subcase_self, argv, large);
}

SUBCASE(argument_too_long)
{
    char *big = malloc(200000), *argv[] = {"x", "environment", big, NULL};
    memset(big, 'a', 199999);
    big[199999] = 0;
    execv(subcase_self, argv);
    printf("error %d\n", errno);
}

SUBCASE(auxiliary_vector)
{
    exec_role(subcase_self, "x", "auxv");
}

SUBCASE(truncated_program)
{
    char head[200];
    int in = open(subcase_self, O_RDONLY), out = open("short", O_WRONLY | O_CREAT, 0755);
    MUST(read(in, head, sizeof head) == sizeof head && write(out, head, sizeof head) == sizeof head);
    close(out);
    exec_role("./short", "x", "names");
}

/* ---- descriptors ---- */

SUBCASE(descriptors_of_new_program)
{
    exec_role(subcase_self, "x", "descriptors");
}

SUBCASE(descriptors_closed_on_exec)
{
    fcntl(open("/dev/null", O_RDONLY | O_CLOEXEC), F_DUPFD_CLOEXEC, 500);
    dup2(0, 600);
    dup2(0, 901);
    exec_role(subcase_self, "x", "descriptors");
}

SUBCASE(all_descriptors_closed)
{
    SHOW(syscall(SYS_close_range, 3, ~0u, 0));
    closefrom(3);
    for (int fd = 3; fd < 2000; fd++)
        close(fd);
    exec_role(subcase_self, "x", "descriptors");
}

SUBCASE(standard_descriptors_closed)
{
    char *argv[] = {"true", NULL};
    pid_t pid = fork();
    if (pid == 0) {
        close(0);
        close(1);
        close(2);
        execv("/bin/true", argv);
    }
    waitpid(pid, &status, 0);
    print_status("true", status);
}

SUBCASE(lowest_descriptor)
{
    SHOW(open("/dev/null", O_RDONLY));
    SHOW(dup(0));
    FILE *f = popen("true", "r");
    pclose(f);
    SHOW(open("/dev/null", O_RDONLY));
}

SUBCASE(every_number_taken)
{
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            dup2(0, fd);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 1024;
    setrlimit(RLIMIT_NOFILE, &limit);
    SHOW(open("/dev/null", O_RDONLY));
    SHOW(open("/proc/self/maps", O_RDONLY));
    exec_role("/bin/true", "x", "names");
}

SUBCASE(no_descriptors_allowed)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 0;
    setrlimit(RLIMIT_NOFILE, &limit);
    SHOW(open("/dev/null", O_RDONLY));
    SHOW(dup(1));
    exec_role("/bin/true", "x", "names");
}

SUBCASE(descriptors_dup2_everywhere)
{
    struct rlimit limit = {4096, 4096};
    setrlimit(RLIMIT_NOFILE, &limit);
    int wrong = 0;
    for (int fd = 3; fd < 4096; fd++)
        wrong += dup2(0, fd) != fd;
    printf("wrong %d\n", wrong);
    wrong = 0;
    for (int fd = 3; fd < 4096; fd++)
        wrong += close(fd) != 0;
    printf("wrong %d\n", wrong);
}

/* ---- posix_spawn ---- */

static void spawn(const char *what, posix_spawnattr_t *attributes, posix_spawn_file_actions_t *actions, char *script)
{
    char *argv[] = {"sh", "-c", script, NULL};
    pid_t pid = -1;
    fflush(stdout);
    int error = posix_spawnp(&pid, "sh", actions, attributes, argv, environ);
    if (error) {
        printf("%s: error %d\n", what, error);
        return;
    }
    waitpid(pid, &status, 0);
    print_status(what, status);
}

SUBCASE(spawn_attributes)
{
    posix_spawnattr_t a;
    sigset_t set;
    posix_spawnattr_init(&a);
    sigfillset(&set);
    signal(SIGTERM, SIG_IGN);
    posix_spawnattr_setsigdefault(&a, &set);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    posix_spawnattr_setsigmask(&a, &set);
    posix_spawnattr_setflags(&a, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
    spawn("attributes", &a, NULL, "grep -E 'SigBlk|SigIgn|ShdPnd' /proc/self/status; kill -TERM $$; exit 3");
    posix_spawnattr_setflags(&a, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_USEVFORK);
    spawn("group", &a, NULL, "exit 4");
}

SUBCASE(spawn_actions)
{
    posix_spawn_file_actions_t f;
    posix_spawn_file_actions_init(&f);
    posix_spawn_file_actions_addopen(&f, 9, "/etc/hostname", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&f, 1, 8);
    posix_spawn_file_actions_addclose(&f, 0);
    posix_spawn_file_actions_addchdir_np(&f, "/usr");
    posix_spawn_file_actions_addclosefrom_np(&f, 10);
    spawn("actions", NULL, &f, "pwd >&8; test -e /dev/fd/9 && echo nine; test -e /dev/fd/0 || echo no zero");
    posix_spawn_file_actions_addopen(&f, 5, "/nonexistent", O_RDONLY, 0);
    spawn("failing", NULL, &f, "exit 0");
}

/* ---- limits and states ---- */

SUBCASE(limit_stack)
{
    limited(RLIMIT_STACK, 256ul << 10);
    limited(RLIMIT_STACK, 128ul << 10);
}

SUBCASE(limit_stack_unlimited)
{
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_STACK, &limit);
    exec_role(subcase_self, "x", "environment");
}

SUBCASE(limit_files)
{
    limited(RLIMIT_NOFILE, 8);
}

SUBCASE(limit_file_size)
{
    limited(RLIMIT_FSIZE, 4096);
}

SUBCASE(limit_locked)
{
    limited(RLIMIT_MEMLOCK, 65536);
    SHOW(mlockall(MCL_CURRENT | MCL_FUTURE) == 0 || errno == ENOMEM || errno == EPERM);
}

SUBCASE(all_memory_locked)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0)
        SHOW(munlockall());
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    printf("less than 1 GB %d\n", use.ru_maxrss < 1 << 20);
    in_child("child", role_environment);
}

SUBCASE(states_of_prctl)
{
    int value = 0;
    SHOW(prctl(PR_SET_PDEATHSIG, SIGTERM));
    SHOW(prctl(PR_GET_PDEATHSIG, &value));
    printf("%d\n", value);
    SHOW(prctl(PR_GET_DUMPABLE));
    SHOW(prctl(PR_SET_DUMPABLE, 0));
    SHOW(prctl(PR_GET_DUMPABLE));
    SHOW(prctl(PR_SET_CHILD_SUBREAPER, 1));
    SHOW(prctl(PR_GET_CHILD_SUBREAPER, &value));
    SHOW(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SHOW(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    SHOW(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    SHOW(prctl(PR_GET_SECCOMP));
    SHOW(prctl(PR_GET_TSC, &value));
    printf("%d\n", value);
    SHOW(prctl(PR_SET_TIMERSLACK, 12345));
    SHOW(prctl(PR_GET_TIMERSLACK));
    SHOW(prctl(PR_GET_KEEPCAPS));
    SHOW(prctl(-5));
}

SUBCASE(dies_with_parent)
{
    int p[2];
    char c;
    MUST(pipe(p) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            MUST(write(p[1], "x", 1) == 1);
            for (;;)
                pause();
        }
        MUST(read(p[0], &c, 1) == 1);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    close(p[1]);
    printf("end of file %zd\n", read(p[0], &c, 1));
}

static void tsc_fault(int sig)
{
    printf("signal %d\n", sig);
    _exit(9);
}

SUBCASE(no_time_stamps)
{
    signal(SIGSEGV, tsc_fault);
    if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0)
        __builtin_ia32_rdtsc();
    printf("allowed\n");
}

SUBCASE(personality_without_randomization)
{
    SHOW(personality(0xffffffff) & ADDR_NO_RANDOMIZE);
    SHOW(personality(ADDR_NO_RANDOMIZE) >= 0);
    exec_role(subcase_self, "x", "environment");
}

SUBCASE(personality_readable_is_executable)
{
    SHOW(personality(READ_IMPLIES_EXEC) >= 0);
    unsigned char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(p, "\xb8\x2a\x00\x00\x00\xc3", 6);
    SHOW(((int (*)(void))p)());
}

SUBCASE(becomes_a_daemon)
{
    int p[2];
    char text[50] = "";
    MUST(pipe(p) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        MUST(daemon(0, 0) == 0);
        char path[100];
        int n = snprintf(text, sizeof text, "daemon in %s, session %d", getcwd(path, sizeof path),
                         getsid(0) == getpid() || getsid(0) != 0);
        _exit(write(p[1], text, (size_t)n) != n);
    }
    close(p[1]);
    waitpid(pid, &status, 0);
    print_status("first", status);
    while (read(p[0], text + strlen(text), 10) > 0)
        ;
    printf("%s\n", text);
}

SUBCASE(drops_privileges)
{
    if (getuid() != 0 || setgroups(0, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0) {
        printf("not root\n");
        return;
    }
    SHOW(setuid(0));
    SHOW(getuid());
    SHOW(open("/etc/shadow", O_RDONLY));
    execl("/bin/sh", "sh", "-c", "id -u; id -g; cat /etc/shadow 2>/dev/null; echo $?", NULL);
}

SUBCASE(capabilities_dropped)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    SHOW(syscall(SYS_capset, &header, none));
    SHOW(chroot("/"));
    execl("/bin/sh", "sh", "-c", "grep CapPrm /proc/self/status", NULL);
}

SUBCASE(in_a_chroot)
{
    if (getuid() != 0) {
        printf("not root\n");
        return;
    }
    mkdir("root", 0755);
    char command[PATH_MAX * 2];
    snprintf(command, sizeof command, "cp /bin/busybox root/ 2>/dev/null || cp %s root/busybox", subcase_self);
    MUST(system(command) == 0);
    SHOW(chroot("root"));
    SHOW(chdir("/"));
    SHOW(access("/etc", F_OK));
    if (freopen("/errors", "w", stderr)) /* a tool cannot leave its report here */
        execl("/busybox", "sh", "-c", "echo inside; /busybox ls / | /busybox wc -l; exec /busybox true", NULL);
    printf("error %d\n", errno);
}

static int first_of_namespace(void *argument)
{
    (void)argument;
    printf("pid %d, parent %d\n", getpid(), getppid());
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        kill(1, SIGTERM); /* the first one ignores what it does not handle */
        kill(1, SIGSEGV);
        kill(1, SIGKILL);
        _exit(getpid());
    }
    waitpid(pid, &status, 0);
    print_status("child", status);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "echo shell; exit 6", NULL);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    print_status("shell", status);
    exit(7);
}

static void in_namespaces(int flags)
{
    char *stack = malloc(262144);
    pid_t pid = clone(first_of_namespace, stack + 262144, flags | SIGCHLD, NULL);
    if (pid < 0)
        printf("error %d\n", errno);
    else {
        waitpid(pid, &status, 0);
        print_status("first", status);
    }
}

SUBCASE(first_of_pid_namespace)
{
    in_namespaces(CLONE_NEWPID);
}

SUBCASE(user_namespace)
{
    in_namespaces(CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS);
}

static int faulting_first(void *argument)
{
    *(volatile char *)argument = 1;
    return 0;
}

SUBCASE(fault_of_the_first_of_a_namespace)
{
    char *stack = malloc(262144);
    pid_t pid = clone(faulting_first, stack + 262144, CLONE_NEWPID | SIGCHLD, (void *)16);
    if (pid > 0) {
        waitpid(pid, &status, 0);
        print_status("first", status);
    }
}

static int exec_first(void *argument)
{
    (void)argument;
    execl("/bin/sh", "sh", "-c", "echo \"pid $$\"; (exit 3); echo $?; sleep 0 & wait; kill -TERM $$; exit 5", NULL);
    return 1;
}

SUBCASE(shell_as_first_of_a_namespace)
{
    char *stack = malloc(262144);
    pid_t pid = clone(exec_first, stack + 262144, CLONE_NEWPID | SIGCHLD, NULL);
    if (pid > 0) {
        waitpid(pid, &status, 0);
        print_status("first", status);
    }
}

SUBCASE(status_file)
{
    char line[200];
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "Name", 4) || !strncmp(line, "Threads", 7) || !strncmp(line, "SigBlk", 6) ||
            !strncmp(line, "SigIgn", 6) || !strncmp(line, "Seccomp:", 8) || !strncmp(line, "TracerPid", 9))
            printf("%s", line);
    f = fopen("/proc/self/stat", "r");
    char name[100] = "";
    MUST(f && fscanf(f, "%*d (%99[^)])", name) == 1);
    printf("%s\n", name);
}

SUBCASE(maps_file)
{
    char line[400];
    int own = 0, stack = 0, vdso = 0, odd = 0, executable = 0, n = 0;
    unsigned long start, end, last = 0;
    char perms[5];
    FILE *f = fopen("/proc/self/maps", "r");
    while (f && fgets(line, sizeof line, f)) {
        n++;
        MUST(sscanf(line, "%lx-%lx %4s", &start, &end, perms) == 3);
        odd += start < last || end <= start;
        last = end;
        own += strstr(line, "/sub_exec\n") != NULL;
        stack += strstr(line, "[stack]") != NULL;
        vdso += strstr(line, "[vdso]") != NULL;
        executable += perms[2] == 'x';
        odd += strstr(line, "bdbi run") || strstr(line, "data.mdb") || strstr(line, "/bdbi\n");
        unsigned long here = (unsigned long)maps_file;
        if (here >= start && here < end)
            printf("our code is %s\n", perms);
    }
    printf("own %d, stack %d, vdso %d, odd %d, executable %d, lines %d\n", own, stack, vdso, odd, executable >= 3, n > 8);
}
