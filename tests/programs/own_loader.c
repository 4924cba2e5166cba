/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that maps itself once more, as a dynamic linker would that does not say MAP_DENYWRITE: all of it readable first,
 * then the text over that, executable; and calls a function of the copy. Then as ld.so does it, also with something between.
 * Then into a place that it has reserved, as ld.so does when a library wants its place at more than a page's alignment. With an
 * argument it does something else with what it has reserved, and text of another file is mapped there, also by a descriptor
 * that was the first file's.
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

static size_t alignment(void)
{
    int n;
    const Elf64_Phdr *ph = headers(&n);
    while (ph->p_type != PT_LOAD)
        ph++;
    return ph->p_align;
}

/* The aligned place in what is reserved, which *ROOM and *BYTES are. */
static char *reserve(char **room, size_t *bytes)
{
    size_t align = alignment();
    *bytes = span() < align ? 2 * align : span() + align;
    *room = mmap(NULL, *bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(*room != MAP_FAILED);
    return (char *)(((uintptr_t)*room + align - 1) & -align);
}

/* Where the descriptor is the last one opened: FD is of this program's file. */
static char *map_reserved(int fd, size_t from, int prot)
{
    size_t bytes;
    char *room, *base = reserve(&room, &bytes) + from, *end = base + ((span() + 4095) & ~4095ul);
    CHECK(mmap(base, span(), prot, MAP_PRIVATE | MAP_FIXED, fd, 0) == base);
    CHECK(base == room || munmap(room, (size_t)(base - room)) == 0);
    CHECK(munmap(end, (size_t)(room + bytes - end)) == 0);
    return base;
}

static void reservations(int fd)
{
    char *base = map_reserved(fd, 0, PROT_READ);
    map_text(base, fd);
    run("reserved", base);
    base = map_reserved(fd, 0, PROT_READ | PROT_EXEC);
    CHECK(mprotect(base, 4096, PROT_NONE) == 0 && mprotect(base, 4096, PROT_READ) == 0);
    map_text(base, fd);
    run("reserved, executable at once", base);
}

static void other_use(int fd)
{
    size_t bytes;
    char *room, *base = map_reserved(fd, 4096, PROT_READ);
    map_text(base, fd);
    run("not where the place starts", base);

    base = reserve(&room, &bytes);
    CHECK(mprotect(base, 4096, PROT_READ | PROT_WRITE) == 0);
    memcpy(base, __executable_start, 4096);
    map_text(base, fd);
    run("only text and a copy of the header", base);
    CHECK(munmap(room, bytes) == 0);
    base = reserve(&room, &bytes);
    CHECK(mprotect(base, span(), PROT_READ | PROT_WRITE) == 0);
    for (size_t i = 0; i < span(); i += 4096)
        base[i] = 'x';
    char *other = map_reserved(fd, 0, PROT_READ);
    map_text(other, fd);
    run("another, used for data", other);
    for (size_t i = 0; i < span(); i += 4096)
        CHECK(base[i] == 'x');
    char *function = base + ((uintptr_t)collatz - (uintptr_t)__executable_start);
    memcpy(function, "\x8d\x47\x64\xc3", 4);
    CHECK(mprotect((char *)((uintptr_t)function & ~4095ul), 4096, PROT_READ | PROT_EXEC) == 0);
    run("used for code", base);
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

/* The file that was opened last is this one, whose place is reserved, and another one comes there. */
static void other_file_reserved(void)
{
    int other = patched_file(open("/proc/self/exe", O_RDONLY)), fd = open("/proc/self/exe", O_RDONLY);
    char *base = map_reserved(other, 0, PROT_READ);
    map_text(base, fd);
    run("reserved for another file, its text", base);
    base = map_reserved(other, 0, PROT_READ | PROT_EXEC);
    run("reserved for another file", base);
    base = map_reserved(fd, 0, PROT_READ);
    map_text(base, other);
    run("reserved, text of another file", base);
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
    if (alignment() > 4096)
        reservations(fd);
    if (alignment() > 4096 && argc > 1) {
        other_use(fd);
        other_file_reserved();
    }
    if (argc > 1)
        other_files(fd);
    return check_end("own_loader");
}
