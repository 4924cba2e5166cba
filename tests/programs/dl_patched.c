/* SPDX-License-Identifier: Apache-2.0
 *
 * A library whose text is made writable and executable again, as relocations in text and patching tools do, and libraries that
 * are mapped afterwards.
 */
#include "check.h"
#include <dlfcn.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *open_library(const char *name)
{
    char path[PATH_MAX + 32];
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    CHECK(n > 0);
    path[n] = 0;
    strcpy(strrchr(path, '/') + 1, name);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        printf("%s\n", dlerror());
    CHECK(library != NULL);
    return library;
}

int main(void)
{
    void *first = open_library("dl_first.so");
    int (*plugin_switch)(int) = (int (*)(int))dlsym(first, "plugin_switch");
    printf("%d\n", plugin_switch(1));
    void *page = (void *)((uintptr_t)plugin_switch & ~4095ul);
    CHECK(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
    CHECK(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
    printf("%d\n", plugin_switch(1));
    void *second = open_library("dl_second.so");
    printf("%d\n", ((int (*)(int))dlsym(second, "plugin_switch"))(1));
    printf("%d\n", plugin_switch(5));
    CHECK(dlclose(second) == 0 && dlclose(first) == 0);
    first = open_library("dl_first.so");
    printf("%d\n", ((int (*)(int))dlsym(first, "plugin_switch"))(3));
    return check_end("dl_patched");
}
