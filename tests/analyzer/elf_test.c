/* SPDX-License-Identifier: Apache-2.0
 *
 * elf_module_open on good and on hostile files. Argument: a small shared object with all that discovery reads (relocations,
 * unwind tables, jump tables). It is truncated everywhere and mutated at random; whatever still opens goes through discovery.
 * Memory errors are for the sanitizers to see (BDBI_ASAN); without them this is still a test for crashes and endless loops.
 */
#include "analyzer/analyzer.h"
#include "check.h"
#include "internal/error.h"
#include <elf.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MUTATIONS = 3000 };

static char message[300];

/* Opens and discovers; the error, or the number of leaders. */
static int try_image(const uint8_t *bytes, size_t nbytes)
{
    struct elf_module *m;
    uint32_t *leaders, n;
    int error = elf_module_from_memory("image", bytes, nbytes, &m, message, sizeof message);
    CHECK((error == 0) == (m != NULL), "error %d", error);
    if (error) {
        CHECK(strncmp(message, "image: ", 7) == 0 && !strchr(message, '\n'), "message '%s'", message);
        return error;
    }
    error = analyzer_discover(m, NULL, 0, 2, &leaders, &n);
    CHECK(error == 0, "error %d", error);
    for (uint32_t i = 1; i < n; i++)
        CHECK(leaders[i - 1] < leaders[i], "leaders %x %x", leaders[i - 1], leaders[i]);
    free(leaders);
    elf_module_close(m);
    return (int)n;
}

static void expect(const uint8_t *bytes, size_t nbytes, int error, const char *text)
{
    int got = try_image(bytes, nbytes);
    CHECK(got == error && strstr(message, text), "got %d '%s', wanted %d '%s'", got, message, error, text);
}

static void test_headers(const uint8_t *good, size_t nbytes)
{
    uint8_t *bytes = malloc(nbytes);
    Elf64_Ehdr h;
    CHECK(bytes, "out of memory");
#define WITH(change, error, text)                                                                                              \
    do {                                                                                                                       \
        memcpy(bytes, good, nbytes);                                                                                           \
        memcpy(&h, bytes, sizeof h);                                                                                           \
        change;                                                                                                                \
        memcpy(bytes, &h, sizeof h);                                                                                           \
        expect(bytes, nbytes, error, text);                                                                                    \
    } while (0)
    WITH(h.e_ident[0] = '#', -BDBI_EFORMAT, "not an ELF file");
    WITH(h.e_ident[EI_CLASS] = ELFCLASS32, -BDBI_EARCH, "32-bit ELF");
    WITH(h.e_ident[EI_DATA] = ELFDATA2MSB, -BDBI_EARCH, "big-endian ELF");
    WITH(h.e_machine = EM_ARM, -BDBI_EARCH, "ELF for ARM");
    WITH(h.e_machine = EM_AARCH64, -BDBI_EARCH, "ELF for AArch64");
    WITH(h.e_type = ET_REL, -BDBI_EFORMAT, "relocatable object");
    WITH(h.e_type = ET_CORE, -BDBI_EFORMAT, "core dump");
    WITH(h.e_phnum = 0, -BDBI_EFORMAT, "no program headers");
    WITH(h.e_phentsize = 1, -BDBI_EFORMAT, "program header table");
    WITH(h.e_phoff = UINT64_MAX - 8, -BDBI_EFORMAT, "truncated");
    WITH(h.e_phoff = nbytes, -BDBI_EFORMAT, "truncated");
#undef WITH
    memcpy(bytes, good, nbytes);
    memcpy(&h, bytes, sizeof h);
    h.e_shoff = UINT64_MAX - 8;
    h.e_shnum = 0xffff;
    memcpy(bytes, &h, sizeof h);
    CHECK(try_image(bytes, nbytes) > 20, "impossible section headers do not matter: %s", message);
    free(bytes);
}

/* One PT_LOAD after the other made impossible. */
static void test_segments(const uint8_t *good, size_t nbytes)
{
    uint8_t *bytes = malloc(nbytes);
    Elf64_Ehdr h;
    CHECK(bytes, "out of memory");
    memcpy(&h, good, sizeof h);
    for (unsigned i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr p, changed;
        memcpy(&p, good + h.e_phoff + i * sizeof p, sizeof p);
        if (p.p_type != PT_LOAD)
            continue;
        for (unsigned what = 0; what < 6; what++) {
            static const char *const texts[] = {"malformed", "truncated", "malformed", "not aligned", "", "4 GB"};
            changed = p;
            changed.p_filesz = what == 0 ? p.p_memsz + 1 : p.p_filesz;
            changed.p_offset = what == 1 ? (1ull << 40) + p.p_offset : what == 3 ? p.p_offset ^ 8 : p.p_offset;
            changed.p_vaddr = what == 2 ? UINT64_MAX - 100 : what == 4 ? 0x7000 + p.p_vaddr % 4096 : p.p_vaddr;
            changed.p_memsz = what == 5 ? 1ull << 33 : p.p_memsz;
            memcpy(bytes, good, nbytes);
            memcpy(bytes + h.e_phoff + i * sizeof p, &changed, sizeof p);
            int error = try_image(bytes, nbytes);
            /* (3 may leave the file, 5 overlap the next segment instead: refused all the same.) */
            CHECK(what == 4 || (error < 0 && (what == 3 || what == 5 || strstr(message, texts[what]))),
                  "segment %u change %u: %d %s", i, what, error, message);
        }
    }
    free(bytes);
}

static void test_truncated(const uint8_t *good, size_t nbytes)
{
    size_t loaded = 0;
    Elf64_Ehdr h;
    memcpy(&h, good, sizeof h);
    for (unsigned i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr p;
        memcpy(&p, good + h.e_phoff + i * sizeof p, sizeof p);
        if (p.p_type == PT_LOAD && p.p_offset + p.p_filesz > loaded)
            loaded = p.p_offset + p.p_filesz;
    }
    for (size_t n = 0; n < nbytes; n += n < 1200 ? 1 : 101) {
        uint8_t *bytes = malloc(n ? n : 1); /* exact, so that a sanitizer sees one byte too far */
        CHECK(bytes, "out of memory");
        memcpy(bytes, good, n);
        int error = try_image(bytes, n);
        CHECK((error < 0) == (n < loaded), "%zu of %zu bytes: %d %s", n, nbytes, error, message);
        CHECK(n < 4 || error >= 0 || strstr(message, "truncated"), "%zu bytes: %s", n, message);
        free(bytes);
    }
}

/* Mostly in the headers and tables, where a wrong byte matters. */
static void test_mutated(const uint8_t *good, size_t nbytes)
{
    uint64_t seed = 42;
    uint8_t *bytes = malloc(nbytes);
    CHECK(bytes, "out of memory");
    for (int i = 0; i < MUTATIONS; i++) {
        memcpy(bytes, good, nbytes);
        for (unsigned k = 0, n = 1 + next_random(&seed) % 8; k < n; k++) {
            size_t at = next_random(&seed) % (next_random(&seed) % 2 ? nbytes : nbytes < 1024 ? nbytes : 1024);
            uint32_t kind = next_random(&seed) % 3;
            bytes[at] = kind == 0   ? 0xff
                        : kind == 1 ? (uint8_t)next_random(&seed)
                                    : bytes[at] ^ (uint8_t)(1u << next_random(&seed) % 8);
        }
        try_image(bytes, nbytes);
    }
    free(bytes);
}

static void expect_file(const char *path, int error, const char *text)
{
    struct elf_module *m;
    int got = elf_module_open(path, &m, message, sizeof message);
    CHECK(got == error && strstr(message, text) && (error == 0 || strncmp(message, path, strlen(path)) == 0), "%s: %d %s", path,
          got, message);
    elf_module_close(m);
}

static void test_files(const char *good)
{
    char directory[] = "/tmp/bdbi-elf-XXXXXX", path[sizeof directory + 8];
    CHECK(mkdtemp(directory), "mkdtemp");
    snprintf(path, sizeof path, "%s/x", directory);
    expect_file(good, 0, "");
    expect_file(path, -BDBI_ENOENT, "No such file");
    expect_file(directory, -BDBI_EINVAL, "a directory");
    CHECK(mkfifo(path, 0600) == 0, "mkfifo");
    expect_file(path, -BDBI_EFORMAT, "not a regular file");
    unlink(path);
    FILE *f = fopen(path, "w");
    CHECK(f, "%s", path);
    fclose(f);
    expect_file(path, -BDBI_EFORMAT, "empty");
    chmod(path, 0);
    if (geteuid() != 0)
        expect_file(path, -BDBI_EACCES, "Permission denied");
    unlink(path);
    rmdir(directory);
}

static void test_vdso(void)
{
    const uint8_t *image = (const uint8_t *)(uintptr_t)getauxval(AT_SYSINFO_EHDR);
    if (!image)
        return;
    int n = try_image(image, 2 * 4096);
    if (n < 0 && strstr(message, "truncated"))
        n = try_image(image, 4096);
    CHECK(n > 10, "vdso: %d %s", n, message);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2, "argument: an ELF file");
    size_t nbytes;
    uint8_t *good = read_whole(argv[1], &nbytes);
    CHECK(try_image(good, nbytes) > 20, "%s", message);
    test_files(argv[1]);
    test_headers(good, nbytes);
    test_segments(good, nbytes);
    test_truncated(good, nbytes);
    test_mutated(good, nbytes);
    test_vdso();
    free(good);
    return 0;
}
