/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program learns about itself: /proc/self, auxv, environment, brk. Only what must be equal is printed.
 */
#include "check.h"
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;
extern const char __executable_start[], etext[];
void _start(void);

static size_t slurp(const char *path, char *buffer, size_t size)
{
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    size_t n = 0;
    ssize_t got;
    while (fd >= 0 && n < size - 1 && (got = read(fd, buffer + n, size - 1 - n)) > 0)
        n += (size_t)got;
    close(fd);
    buffer[n] = 0;
    return n;
}

static const char *last(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void test_exe(char **argv)
{
    char path[PATH_MAX] = "", other[PATH_MAX] = "";
    CHECK(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
    printf("exe %s\n", last(path));
    snprintf(other, sizeof other, "/proc/%d/exe", getpid());
    char again[PATH_MAX] = "";
    CHECK(readlink(other, again, sizeof again - 1) > 0 && !strcmp(path, again));
    memset(again, 0, sizeof again);
    CHECK(readlinkat(AT_FDCWD, "/proc/thread-self/exe", again, sizeof again - 1) > 0 && !strcmp(path, again));
    CHECK(readlink("/proc/self/exe", other, 3) == 3);
    struct stat a, b;
    CHECK(stat("/proc/self/exe", &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino);
    Elf64_Ehdr header;
    int fd = open("/proc/self/exe", O_RDONLY);
    CHECK(fd >= 0 && read(fd, &header, sizeof header) == sizeof header && fstat(fd, &a) == 0 && a.st_ino == b.st_ino);
    close(fd);
    uintptr_t slide = header.e_type == ET_EXEC ? 0 : (uintptr_t)__executable_start;
    CHECK(header.e_entry + slide == getauxval(AT_ENTRY));
    char text[65536];
    size_t n = slurp("/proc/self/cmdline", text, sizeof text);
    CHECK(n > strlen(argv[0]) && !strcmp(text, argv[0]));
    printf("cmdline %zu arguments bytes after argv[0]\n", n - strlen(argv[0]));
    slurp("/proc/self/comm", text, sizeof text);
    printf("comm %s", text);
    slurp("/proc/self/stat", text, sizeof text);
    CHECK(strstr(text, "(self)") != NULL || strstr(text, "(self_") != NULL);
    n = slurp("/proc/self/environ", text, sizeof text);
    CHECK(n == 0 || !strcmp(text, environ[0]));
    prctl(PR_SET_NAME, "renamed");
    slurp("/proc/self/comm", text, sizeof text);
    printf("comm %s", text);
}

static void test_maps(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[PATH_MAX + 200], permissions[8], name[PATH_MAX];
    unsigned long start, end, previous = 0;
    int stack = 0, vdso = 0, text = 0, data = 0, strange = 0, local = 0;
    while (fgets(line, sizeof line, maps)) {
        name[0] = 0;
        CHECK(sscanf(line, "%lx-%lx %7s %*x %*s %*d %[^\n]", &start, &end, permissions, name) >= 3);
        CHECK(start >= previous && end > start);
        previous = end;
        CHECK(!(strchr(permissions, 'w') && strchr(permissions, 'x')));
        stack += !strcmp(name, "[stack]") && start <= (uintptr_t)&local && (uintptr_t)&local < end;
        vdso += !strcmp(name, "[vdso]") && start == getauxval(AT_SYSINFO_EHDR);
        if (start <= (uintptr_t)test_maps && (uintptr_t)test_maps < end)
            text = !strncmp(last(name), "self", 4) && permissions[2] == 'x';
        if (start <= (uintptr_t)&check_failures && (uintptr_t)&check_failures < end)
            data = permissions[1] == 'w';
        strange += strstr(name, "(deleted)") != NULL;
    }
    fclose(maps);
    printf("maps: stack %d vdso %d text %d data %d deleted %d\n", stack, vdso, text, data, strange);
}

static void test_auxv(int argc, char **argv)
{
    char text[4096];
    size_t n = slurp("/proc/self/auxv", text, sizeof text);
    Elf64_auxv_t *kernel = (Elf64_auxv_t *)(void *)text;
    char **p = environ;
    while (*p)
        p++;
    Elf64_auxv_t *stack = (Elf64_auxv_t *)(void *)(p + 1);
    CHECK(argv[argc] == NULL && &argv[argc] + 1 == environ);
    printf("auxv types:");
    for (size_t i = 0; i < n / sizeof *stack; i++) {
        printf(" %lu", stack[i].a_type);
        CHECK(stack[i].a_type == kernel[i].a_type && stack[i].a_un.a_val == kernel[i].a_un.a_val);
        if (stack[i].a_type == AT_NULL)
            break;
    }
    printf("\n");
    CHECK((uintptr_t)_start == getauxval(AT_ENTRY));
    CHECK(getauxval(AT_PAGESZ) == 4096 && getauxval(AT_CLKTCK) == 100);
    CHECK(getauxval(AT_UID) == getuid() && getauxval(AT_EUID) == geteuid() && getauxval(AT_GID) == getgid());
    CHECK(getauxval(AT_PHENT) == sizeof(Elf64_Phdr));
    const Elf64_Phdr *ph = (const Elf64_Phdr *)getauxval(AT_PHDR);
    int loads = 0, interpreted = 0;
    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++) {
        loads += ph[i].p_type == PT_LOAD;
        interpreted |= ph[i].p_type == PT_INTERP;
    }
    CHECK(loads >= 2);
    const unsigned char *base = (const unsigned char *)getauxval(AT_BASE);
    CHECK(interpreted ? !memcmp(base, ELFMAG, SELFMAG) : base == NULL);
    printf("execfn %s platform %s secure %lu flags %lu\n", last((char *)getauxval(AT_EXECFN)), (char *)getauxval(AT_PLATFORM),
           getauxval(AT_SECURE), getauxval(AT_FLAGS));
    CHECK(getauxval(AT_RANDOM) != 0 && getauxval(AT_SYSINFO_EHDR) != 0 && getauxval(AT_HWCAP) != 0);
    const uint64_t *random = (const uint64_t *)getauxval(AT_RANDOM);
    CHECK(random[0] != 0 && random[1] != 0 && random[0] != random[1]);
    CHECK(((uintptr_t)(argv - 1) & 15) == 0); /* rsp at entry */
}

static void test_brk(void)
{
    char *start = sbrk(0);
    CHECK(start != NULL && (uintptr_t)start > (uintptr_t)&check_failures);
    char *old = sbrk(10 * 4096);
    CHECK(old == start && sbrk(0) == start + 10 * 4096);
    memset(start, 1, 10 * 4096);
    CHECK(brk(start + 4096) == 0 && sbrk(0) == start + 4096);
    CHECK(sbrk(4 * 4096) == start + 4096 && start[2 * 4096] == 0); /* new pages are zero */
    CHECK(brk(start) == 0);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    CHECK(page != MAP_FAILED && (uintptr_t)page < 0x80000000u);
    munmap(page, 4096);
    char *fixed = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mmap(fixed + 4096, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == fixed + 4096);
    CHECK(mmap(fixed, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED);
    fixed[0] = 7;
    char *moved = mremap(fixed, 4096, 64 * 4096, MREMAP_MAYMOVE);
    CHECK(moved != MAP_FAILED && moved[0] == 7 && moved[63 * 4096] == 0);
}

static int print_object(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size;
    (void)user;
    const char *name = last(info->dlpi_name);
    printf(" %s", *name ? name : "main");
    return 0;
}

int main(int argc, char **argv)
{
    test_exe(argv);
    test_maps();
    test_auxv(argc, argv);
    test_brk();
    printf("objects:");
    dl_iterate_phdr(print_object, NULL);
    printf("\nenvironment:");
    for (char **e = environ; *e; e++)
        printf(" %.*s", (int)strcspn(*e, "="), *e);
    printf("\n");
    return check_end("self");
}
