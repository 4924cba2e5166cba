/* SPDX-License-Identifier: Apache-2.0
 *
 * Libraries that are opened, closed, changed and opened again: at the same path, in a file without a name, over and over.
 */
#include "subcases.h"
#include <dlfcn.h>
#include <libgen.h>
#include <pthread.h>
#include <setjmp.h>

static char bytes[3][1 << 20];
static size_t sizes[3];

static void read_libraries(void)
{
    for (int i = 1; i <= 2; i++) {
        char path[PATH_MAX + 40], self[PATH_MAX];
        strcpy(self, subcase_self);
        snprintf(path, sizeof path, "%s/reloaded_%d.so", dirname(self), i);
        int fd = open(path, O_RDONLY);
        MUST(fd >= 0);
        sizes[i] = (size_t)read(fd, bytes[i], sizeof bytes[i]);
        close(fd);
    }
}

static void write_library(const char *path, int which, int flags)
{
    int fd = open(path, O_WRONLY | O_CREAT | flags, 0700);
    MUST(fd >= 0 && write(fd, bytes[which], sizes[which]) == (ssize_t)sizes[which]);
    close(fd);
}

static int same(int n)
{
    return n;
}

static void use(void *library)
{
    if (!library) {
        printf("%s\n", dlerror());
        return;
    }
    int (*value)(int (*)(int)) = (int (*)(int (*)(int)))dlsym(library, "value");
    int (*other)(int) = (int (*)(int))dlsym(library, "other");
    printf("%d %d %d\n", value(same), value(same), other(10));
}

SUBCASE(opened_again)
{
    read_libraries();
    write_library("./plugin.so", 1, 0);
    for (int i = 0; i < 30; i++) {
        void *library = dlopen("./plugin.so", i % 2 ? RTLD_NOW : RTLD_LAZY);
        use(library);
        SHOW(dlclose(library));
    }
}

SUBCASE(replaced_between)
{
    read_libraries();
    for (int i = 0; i < 20; i++) {
        write_library("./new.so", 1 + i % 2, O_TRUNC);
        MUST(rename("./new.so", "./plugin.so") == 0);
        void *library = dlopen("./plugin.so", RTLD_NOW);
        use(library);
        dlclose(library);
    }
}

SUBCASE(rewritten_between)
{
    read_libraries();
    for (int i = 0; i < 20; i++) {
        write_library("./plugin.so", 1 + i % 2, i % 4 < 2 ? O_TRUNC : 0);
        void *library = dlopen("./plugin.so", RTLD_NOW);
        use(library);
        dlclose(library);
    }
}

/* Both open at once, the file's name being the same. */
SUBCASE(replaced_while_open)
{
    void *libraries[6];
    read_libraries();
    for (int i = 0; i < 6; i++) {
        write_library("./new.so", 1 + i % 2, O_TRUNC);
        MUST(rename("./new.so", "./plugin.so") == 0);
        libraries[i] = dlopen("./plugin.so", RTLD_NOW);
        for (int k = 0; k <= i; k++)
            use(libraries[k]);
    }
    for (int i = 0; i < 6; i++)
        dlclose(libraries[i]);
}

/* The place of one is given to other code in between. */
SUBCASE(place_used_for_other_code)
{
    read_libraries();
    write_library("./plugin.so", 1, O_TRUNC);
    for (int i = 0; i < 10; i++) {
        void *library = dlopen("./plugin.so", RTLD_NOW);
        unsigned char *at = (unsigned char *)((uintptr_t)dlsym(library, "other") & ~4095ul);
        use(library);
        dlclose(library);
        unsigned char *p = mmap(at, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        MUST(p == at);
        const unsigned char code[] = {0xb8, (unsigned char)i, 0, 0, 0, 0xc3};
        for (int k = 0; k < 4096 - 6; k++)
            p[k] = 0x90;
        memcpy(p + 4090, code, 6);
        mprotect(p, 4096, PROT_READ | PROT_EXEC);
        printf("%d\n", ((int (*)(void))(uintptr_t)(p + 100))());
        munmap(p, 4096);
    }
}

static int in_memory(int which)
{
    int fd = memfd_create("library", 0);
    MUST(fd >= 0 && write(fd, bytes[which], sizes[which]) == (ssize_t)sizes[which]);
    return fd;
}

SUBCASE(without_a_name)
{
    char path[60];
    read_libraries();
    for (int i = 0; i < 10; i++) {
        int fd = in_memory(1 + i % 2);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        void *library = dlopen(path, RTLD_NOW);
        use(library);
        if (i % 3 == 0)
            close(fd);
        if (i % 2)
            dlclose(library);
        if (i % 3)
            close(fd);
    }
}

/* The descriptor's file changes once the library is closed; its number and name stay. */
SUBCASE(without_a_name_rewritten)
{
    char path[60];
    read_libraries();
    int fd = in_memory(1);
    for (int i = 0; i < 10; i++) {
        int which = 1 + i % 2;
        MUST(ftruncate(fd, 0) == 0 && pwrite(fd, bytes[which], sizes[which], 0) == (ssize_t)sizes[which]);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        void *library = dlopen(path, RTLD_NOW);
        use(library);
        dlclose(library);
    }
}

SUBCASE(deleted)
{
    read_libraries();
    write_library("./gone.so", 2, O_TRUNC);
    void *library = dlopen("./gone.so", RTLD_NOW);
    unlink("./gone.so");
    use(library);
    in_child("child", (void (*)(void))getpid);
    use(library);
    printf("again %d\n", dlopen("./gone.so", RTLD_NOW) != NULL && dlopen("./nothing.so", RTLD_NOW) == NULL);
    dlclose(library);
}

SUBCASE(broken)
{
    read_libraries();
    write_library("./broken.so", 1, O_TRUNC);
    for (int i = 0; i < 3; i++) {
        MUST(truncate("./broken.so", i == 0 ? 5000 : i == 1 ? 100 : 3) == 0);
        printf("opened %d\n", dlopen("./broken.so", RTLD_NOW) != NULL);
    }
    write_library("./broken.so", 1, O_TRUNC);
    use(dlopen("./broken.so", RTLD_NOW));
}

/* Namespaces: the same file twice in one process. */
SUBCASE(in_namespaces)
{
    read_libraries();
    write_library("./plugin.so", 2, O_TRUNC);
    for (int i = 0; i < 5; i++)
        use(dlmopen(LM_ID_NEWLM, "./plugin.so", RTLD_NOW));
    use(dlopen("./plugin.so", RTLD_NOW));
}

static void *open_and_close(void *argument)
{
    int (*value)(int);
    char path[40];
    long sum = 0;
    snprintf(path, sizeof path, "./plugin%ld.so", (long)argument);
    for (int i = 0; i < 100; i++) {
        void *library = dlopen(path, RTLD_NOW);
        MUST(library);
        value = (int (*)(int))dlsym(library, "other");
        sum += value(5);
        dlclose(library);
    }
    return (void *)sum;
}

SUBCASE(by_threads)
{
    pthread_t t[4];
    read_libraries();
    for (long i = 0; i < 4; i++) {
        char path[40];
        snprintf(path, sizeof path, "./plugin%ld.so", i);
        write_library(path, 1 + (int)i % 2, O_TRUNC);
    }
    for (long i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, open_and_close, (void *)i);
    for (int i = 0; i < 4; i++) {
        void *sum;
        pthread_join(t[i], &sum);
        printf("%ld\n", (long)sum);
    }
}

static sigjmp_buf back;
static void leap(int sig, siginfo_t *info, void *context)
{
    (void)context;
    printf("signal %d code %d\n", sig, info->si_code);
    siglongjmp(back, 1);
}

static int call(const void *leaf)
{
    struct sigaction action = {.sa_sigaction = leap, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    return sigsetjmp(back, 1) ? -1 : ((int (*)(int))(uintptr_t)leaf)(3);
}

/* A library's text by mremap: copied, moved away, moved back, covered. */
SUBCASE(moved_text)
{
    static const unsigned char code[] = {0x8d, 0x47, 0x32, 0xc3}; /* lea eax, [rdi+50]; ret */
    read_libraries();
    write_library("./plugin.so", 2, O_TRUNC);
    for (int i = 0; i < 3; i++) {
        void *library = dlopen("./plugin.so", RTLD_NOW);
        char *leaf = dlsym(library, "leaf"), *page = (char *)((uintptr_t)leaf & ~4095ul);
        size_t at = (size_t)(leaf - page);
        printf("%d\n", call(leaf));
        char *copy = mremap(page, 4096, 4096, MREMAP_MAYMOVE | 4 /* MREMAP_DONTUNMAP */, NULL);
        printf("copied %d\n", copy != MAP_FAILED);
        if (copy != MAP_FAILED)
            printf("%d %d\n", call(copy + at), call(leaf));
        char *away = mremap(page, 4096, 8192, MREMAP_MAYMOVE);
        MUST(away != MAP_FAILED);
        printf("%d\n", call(away + at));
        printf("%d\n", call(leaf));
        MUST(mremap(away, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page);
        printf("%d %d\n", call(leaf), call(away + at));
        char *mine = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memcpy(mine + at, code, sizeof code);
        printf("%d\n", call(mine + at));
        MUST(mremap(mine, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page);
        printf("%d %d\n", call(leaf), call(mine + at));
        page[at + 2]++;
        printf("%d\n", call(leaf));
        SHOW(dlclose(library));
    }
}
