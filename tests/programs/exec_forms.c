/* SPDX-License-Identifier: Apache-2.0
 *
 * execve in odd forms: argument vectors, scripts, files without a name, and the errors it must give. Works in the current
 * folder.
 */
#include "check.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char self[4096];
static void *volatile nowhere = (void *)8;
static char *plain[] = {"plain", NULL};

static void put(const char *name, const char *text, mode_t mode)
{
    unlink(name);
    int fd = open(name, O_CREAT | O_WRONLY, 0700);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fchmod(fd, mode) == 0);
    close(fd);
}

static void no_arguments(void)
{
    char *none[] = {NULL};
    execv(self, none);
}

static void many(char *word, int n)
{
    char **vector = calloc((size_t)n + 1, sizeof *vector);
    for (int i = 0; i < n; i++)
        vector[i] = word;
    vector[0] = "count";
    execve(self, vector, environ);
}

static void many_arguments(void)
{
    many("x", 100000);
}

static void too_many_arguments(void)
{
    many("a word of thirty-two characters.", 400000);
}

static void no_environment(void)
{
    char *count[] = {"count", NULL};
    execve(self, count, NULL);
}

static void not_executable(void)
{
    put("text", "hello", 0755);
    execv("./text", plain);
}

static void no_permission(void)
{
    put("script", "#!/bin/sh\n", 0644);
    execv("./script", plain);
}

static void no_interpreter(void)
{
    put("orphan", "#!/nonexistent/interpreter\n", 0755);
    execv("./orphan", plain);
}

static void chain(void)
{
    char *arguments[] = {"zero", "last", NULL};
    put("third", "#!/bin/sh\necho \"$0 $*\"\n", 0755);
    put("second", "#!./third arg2 with  space \n", 0755);
    put("first", "#!./second \t arg1\n", 0755);
    execv("./first", arguments);
}

static void endless_chain(void)
{
    put("endless", "#!./endless\n", 0755);
    execv("./endless", plain);
}

static void link_loop(void)
{
    unlink("loop");
    CHECK(symlink("loop", "loop") == 0);
    execv("./loop", plain);
}

static void link_not_followed(void)
{
    unlink("link");
    CHECK(symlink(self, "link") == 0);
    execveat(AT_FDCWD, "link", plain, environ, AT_SYMLINK_NOFOLLOW);
}

static void bad_pointers(void)
{
    execve(nowhere, plain, environ);
    printf("path: %d\n", errno);
    execve(self, (char **)nowhere, environ);
}

static void a_folder(void)
{
    execv("/", plain);
}

static void memory_file(void)
{
    char buffer[65536], *arguments[] = {"echo", "from memory", NULL};
    int fd = memfd_create("program", MFD_CLOEXEC), in = open("/bin/echo", O_RDONLY);
    for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;)
        CHECK(write(fd, buffer, (size_t)n) == n);
    fexecve(fd, arguments, environ);
}

static void memory_script(void)
{
    static const char text[] = "#!/bin/sh\necho script in memory: $1\n";
    char *arguments[] = {"script", "one", NULL};
    int fd = memfd_create("script", 0);
    CHECK(write(fd, text, sizeof text - 1) == sizeof text - 1);
    fexecve(fd, arguments, environ);
}

static void no_descriptors(void)
{
    char *arguments[] = {"descriptors", NULL};
    for (int fd = 0; fd < 20; fd++)
        close(fd);
    execv(self, arguments);
}

static void *exec_body(void *argument)
{
    execl("/bin/echo", "echo", "from a thread", NULL);
    return argument;
}

static void from_thread(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, exec_body, NULL);
    for (;;)
        pause();
}

/* The roles this program plays when it is executed by itself. */
static int play(int argc, char **argv)
{
    int n = 0;
    if (argc == 0 || !argv[0][0])
        printf("argc %d\n", argc);
    else if (!strcmp(argv[0], "count")) {
        while (environ[n])
            n++;
        printf("argc %d, environment %s\n", argc, n ? "there" : "empty");
    } else if (!strcmp(argv[0], "descriptors"))
        return open("/dev/null", O_RDONLY);
    else
        return -1;
    return 0;
}

static void run(const char *name, void (*body)(void))
{
    printf("%s: ", name);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        body();
        printf("error %d\n", errno);
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("status %x\n", status);
}

#define RUN(body) run(#body, body)

int main(int argc, char **argv)
{
    int result = play(argc, argv);
    if (result >= 0)
        return result;
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    RUN(no_arguments);
    RUN(many_arguments);
    RUN(too_many_arguments);
    RUN(no_environment);
    RUN(not_executable);
    RUN(no_permission);
    RUN(no_interpreter);
    RUN(chain);
    RUN(endless_chain);
    RUN(link_loop);
    RUN(link_not_followed);
    RUN(bad_pointers);
    RUN(a_folder);
    RUN(memory_file);
    RUN(memory_script);
    RUN(no_descriptors);
    RUN(from_thread);
    return check_end("exec_forms");
}
