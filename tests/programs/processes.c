/* SPDX-License-Identifier: Apache-2.0
 *
 * fork with threads, vfork, posix_spawn, execve with an odd argv[0] and an empty environment, exec from a thread, exec
 * failures.
 */
#include "check.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char self[PATH_MAX];

static int status_of(pid_t pid)
{
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void *forker(void *arg)
{
    for (int i = 0; i < 10; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            char *p = malloc(1000);
            memset(p, 1, 1000);
            free(p);
            _exit((int)(long)arg);
        }
        CHECK(status_of(pid) == (int)(long)arg);
    }
    return NULL;
}

static void *executor(void *arg)
{
    execve(self, (char *[]){"from-thread", "child", NULL}, environ);
    return arg;
}

static int child(int argc, char **argv)
{
    printf("child argv[0] \"%s\", %d arguments, environment %s\n", argc > 0 ? argv[0] : "", argc,
           environ[0] ? environ[0] : "empty");
    fflush(stdout);
    return 42;
}

static pid_t execute(const char *path, char **argv, char **env)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execve(path, argv, env);
        _exit(errno == ENOENT ? 50 : errno == EACCES ? 51 : errno == ENOEXEC ? 52 : errno == EFAULT ? 53 : 54);
    }
    return pid;
}

static void write_file(const char *name, const char *text, mode_t mode)
{
    FILE *f = fopen(name, "w");
    CHECK(f != NULL);
    fputs(text, f);
    fclose(f);
    chmod(name, mode);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "child"))
        return child(argc, argv);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    CHECK(n > 0);

    pthread_t threads[4];
    for (long i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, forker, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);

    /* vfork: the child runs on our stack until it has gone. */
    volatile int shared = 1;
    pid_t pid = vfork();
    if (pid == 0) {
        shared = 2;
        _exit(7);
    }
    CHECK(shared == 2 && status_of(pid) == 7);
    fflush(stdout);
    for (volatile int i = 0; i < 5; i++) {
        pid = vfork();
        if (pid == 0) {
            execl("/bin/sh", "sh", "-c", "exit 9", (char *)NULL);
            _exit(1);
        }
        CHECK(status_of(pid) == 9);
    }

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "spawned", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    CHECK(posix_spawnp(&pid, "echo", &actions, &attributes, (char *[]){"echo", "from spawn", NULL}, environ) == 0);
    CHECK(status_of(pid) == 0);
    char line[100] = "";
    FILE *f = fopen("spawned", "r");
    CHECK(f != NULL && fgets(line, sizeof line, f) != NULL && !strcmp(line, "from spawn\n"));
    fclose(f);
    CHECK(posix_spawn(&pid, "/nonexistent", NULL, NULL, (char *[]){"x", NULL}, environ) == ENOENT);

    CHECK(status_of(execute(self, (char *[]){"", "child", NULL}, (char *[]){NULL})) == 42);
    CHECK(status_of(execute(self, (char *[]){"an odd name/with slash", "child", "", NULL}, (char *[]){"A=b", NULL})) == 42);
    CHECK(status_of(execute("/proc/self/exe", (char *[]){"by proc", "child", NULL}, (char *[]){"A=b", NULL})) == 42);
    write_file("script", "#!/bin/sh -u\necho \"script $0 $1\"\nexit 11\n", 0755);
    CHECK(status_of(execute("./script", (char *[]){"ignored", "one", NULL}, environ)) == 11);
    write_file("nested", "#!./script two\n", 0755);
    CHECK(status_of(execute("./nested", (char *[]){"ignored", NULL}, environ)) == 11);
    write_file("text", "no magic\n", 0755);
    CHECK(status_of(execute("./text", (char *[]){"x", NULL}, environ)) == 52);
    write_file("plain", "#!/bin/sh\n", 0644);
    CHECK(status_of(execute("./plain", (char *[]){"x", NULL}, environ)) == 51 || getuid() == 0);
    CHECK(status_of(execute("./missing", (char *[]){"x", NULL}, environ)) == 50);
    CHECK(status_of(execute("/", (char *[]){"x", NULL}, environ)) == 51);
    CHECK(status_of(execute((const char *)16, (char *[]){"x", NULL}, environ)) == 53);
    write_file("dangling", "#!/nonexistent/interpreter\n", 0755);
    CHECK(status_of(execute("./dangling", (char *[]){"x", NULL}, environ)) == 50);

    /* After failures the process goes on as before; fexecve works on a descriptor. */
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        int fd = open(self, O_RDONLY | O_CLOEXEC);
        fexecve(fd, (char *[]){"by descriptor", "child", NULL}, (char *[]){NULL});
        _exit(1);
    }
    CHECK(status_of(pid) == 42);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, executor, NULL);
        for (;;)
            pause();
    }
    CHECK(status_of(pid) == 42);
    int *counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 20; i++)
        if ((pid = fork()) == 0) {
            __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
            if (fork() == 0)
                __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST), _exit(0);
            wait(NULL);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    printf("counter %d\n", *counter);
    return check_end("processes");
}
