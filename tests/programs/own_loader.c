/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that maps itself once more, as a dynamic linker would that does not say MAP_DENYWRITE: all of it readable first,
 * then the text over that, executable; and calls a function of the copy. Then as ld.so does it, also with something between.
 * With an argument, text of another file is mapped there, also by a descriptor that was the first file's.
 */
#include "check.h"
#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

extern const char __executable_start[];

/* Uses nothing but its registers, so a copy that no linker has relocated runs too. */
__attribute__((noinline)) int collatz(unsigned long n)
{
    int steps = 0;
    for (; n != 1; steps++)
        n = n % 2 ? 3 * n + 1 : n / 2;
    return steps;
}

static const Elf64_Phdr *headers(int *n)
{
    const Elf64_Ehdr *e = (const void *)__executable_start;
    *n = e->e_phnum;
    return (const void *)(__executable_start + e->e_phoff);
}

static size_t span(void)
{
    int n;
    size_t end = 0;
    for (const Elf64_Phdr *ph = headers(&n); n > 0; n--, ph++)
        if (ph->p_type == PT_LOAD)
            end = ph->p_vaddr + ph->p_memsz;
    return end;
}

static char *map_whole_how(int fd, int prot, int flags)
{
    char *base = mmap(NULL, span(), prot, MAP_PRIVATE | flags, fd, 0);
    CHECK(base != MAP_FAILED && !memcmp(base, ELFMAG, SELFMAG));
    return base;
}

static char *map_whole(int fd, int prot)
{
    return map_whole_how(fd, prot, 0);
}

static void map_text(char *base, int fd)
{
    int n;
    const Elf64_Phdr *text = headers(&n);
    while (text->p_type != PT_LOAD || !(text->p_flags & PF_X))
        text++;
    char *at = base + text->p_vaddr;
    CHECK(mmap(at, text->p_filesz, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, (off_t)text->p_offset) == at);
}

static void run(const char *name, const char *base)
{
    uintptr_t f = (uintptr_t)base + ((uintptr_t)collatz - (uintptr_t)__executable_start);
    int (*function)(unsigned long) = (int (*)(unsigned long))f;
    printf("%s: %d %d\n", name, function(27), function(97));
}

/* A file with another function in its place. In this program's text, address and file offset differ by whole pages or not at
 * all. */
static int patched_file(int fd)
{
    struct stat st;
    fstat(fd, &st);
    char path[] = "/tmp/own_loader.XXXXXX", *copy = malloc((size_t)st.st_size), *at;
    int other = mkstemp(path);
    CHECK(other >= 0 && copy && pread(fd, copy, (size_t)st.st_size, 0) == st.st_size);
    unlink(path);
    at = memmem(copy, (size_t)st.st_size, (const void *)collatz, 24);
    CHECK(at);
    memcpy(at, "\x8d\x47\x64\xc3", 4); /* lea eax,[rdi+100]; ret */
    CHECK(write(other, copy, (size_t)st.st_size) == st.st_size);
    free(copy);
    return other;
}

/* As ld.so maps, but what is to be replaced has been written to: the file's text must be there afterwards. */
static void written_between(int fd)
{
    char *base = map_whole_how(fd, PROT_READ, MAP_DENYWRITE);
    map_text(base, fd);
    run("as ld.so does it", base);
    base = map_whole_how(fd, PROT_READ, MAP_DENYWRITE);
    char *function = base + ((uintptr_t)collatz - (uintptr_t)__executable_start);
    char *page = (char *)((uintptr_t)function & ~4095ul);
    CHECK(mprotect(page, 8192, PROT_READ | PROT_WRITE) == 0);
    memcpy(function, "\x8d\x47\x64\xc3", 4);
    map_text(base, fd);
    run("written in between", base);
}

static void other_files(int fd)
{
    int other = patched_file(fd);
    char *base = map_whole(fd, PROT_READ);
    map_text(base, other);
    run("another descriptor", base);
    base = map_whole(fd, PROT_READ);
    dup2(other, fd);
    map_text(base, fd);
    run("the same descriptor, another file", base);
}

int main(int argc, char **argv)
{
    int fd = open("/proc/self/exe", O_RDONLY);
    (void)argv;
    CHECK(fd >= 0);
    char *base = map_whole(fd, PROT_READ);
    map_text(base, fd);
    run("readable first", base);
    base = map_whole(fd, PROT_READ | PROT_EXEC);
    map_text(base, fd);
    run("executable at once", base);
    written_between(fd);
    if (argc > 1)
        other_files(fd);
    return check_end("own_loader");
}
