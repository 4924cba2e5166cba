/* SPDX-License-Identifier: Apache-2.0
 *
 * Block discovery against ground truth.
 *
 *   discover_test labels WITH_SYMBOLS STRIPPED   every symbol truth_* of the first is a leader of the second, no symbol data_*
 * is discover_test trace STEP PROGRAM             every block start that a run of PROGRAM has in PROGRAM itself, as the ptrace
 *                                                tracer STEP saw it, is a leader; also after its section headers are removed
 *   discover_test threads FILE                   the same result with 1, 2 and 3 threads; with and without extra seeds
 */
#include "analyzer/analyzer.h"
#include "check.h"
#include <elf.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct leaders {
    uint32_t *items, n;
};

static struct leaders discover_module(const struct elf_module *m, unsigned threads, const uint32_t *extra, uint32_t nextra)
{
    struct leaders l;
    int error = analyzer_discover(m, extra, nextra, threads, &l.items, &l.n);
    CHECK(error == 0, "%s: error %d", m->path, error);
    return l;
}

static struct elf_module *open_module(const char *path)
{
    char message[300];
    struct elf_module *m;
    CHECK(elf_module_open(path, &m, message, sizeof message) == 0, "%s", message);
    return m;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static bool is_leader(const struct leaders *l, uint32_t offset)
{
    return bsearch(&offset, l->items, l->n, sizeof offset, compare) != NULL;
}

static void check_symbol(const struct elf_module *m, const struct leaders *l, const char *name, uint64_t vaddr, unsigned *count)
{
    uint32_t offset = (uint32_t)(vaddr - m->base_vaddr);
    if (strncmp(name, "truth_", 6) == 0) {
        CHECK(is_leader(l, offset), "%s: %s at %x is not a leader", m->path, name, offset);
        ++*count;
    }
    if (strncmp(name, "data_", 5) == 0)
        CHECK(!is_leader(l, offset), "%s: %s at %x is data", m->path, name, offset);
}

static void test_labels(const char *with_symbols, const char *stripped)
{
    size_t nbytes;
    unsigned count = 0;
    uint8_t *file = read_whole(with_symbols, &nbytes);
    struct elf_module *m = open_module(stripped);
    struct leaders l = discover_module(m, 1, NULL, 0);
    Elf64_Ehdr h;
    memcpy(&h, file, sizeof h);
    for (unsigned i = 0; i < h.e_shnum; i++) {
        Elf64_Shdr table, strings;
        memcpy(&table, file + h.e_shoff + i * sizeof table, sizeof table);
        if (table.sh_type != SHT_SYMTAB)
            continue;
        memcpy(&strings, file + h.e_shoff + table.sh_link * sizeof strings, sizeof strings);
        for (size_t k = 0; k < table.sh_size / sizeof(Elf64_Sym); k++) {
            Elf64_Sym s;
            memcpy(&s, file + table.sh_offset + k * sizeof s, sizeof s);
            check_symbol(m, &l, (const char *)file + strings.sh_offset + s.st_name, s.st_value, &count);
        }
    }
    CHECK(count >= 10, "%s: only %u truths", with_symbols, count);
    free(l.items);
    elf_module_close(m);
    free(file);
}

/* The file without section headers, as it would be after sstrip. */
static struct elf_module *without_sections(const char *path)
{
    char message[300];
    size_t nbytes;
    struct elf_module *m;
    uint8_t *file = read_whole(path, &nbytes);
    Elf64_Ehdr h;
    memcpy(&h, file, sizeof h);
    h.e_shoff = h.e_shnum = h.e_shstrndx = 0;
    memcpy(file, &h, sizeof h);
    CHECK(elf_module_from_memory("without sections", file, nbytes, &m, message, sizeof message) == 0, "%s", message);
    free(file);
    return m;
}

static void trace(const char *step, const char *program, const char *output)
{
    pid_t child = fork();
    int status;
    if (child == 0) {
        CHECK(freopen("/dev/null", "w", stdout), "/dev/null");
        execl(step, step, "blocks", "-o", output, program, (char *)NULL);
        _exit(127);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "%s %s: status %x", step, program, status);
}

static void test_trace(const char *step, const char *program)
{
    char output[] = "/tmp/bdbi-trace-XXXXXX", line[4096];
    char *real = realpath(program, NULL);
    unsigned count = 0, missed[2] = {0, 0};
    struct elf_module *modules[2] = {open_module(program), without_sections(program)};
    struct leaders l[2];
    CHECK(real && mkstemp(output) >= 0, "%s", program);
    for (int i = 0; i < 2; i++)
        l[i] = discover_module(modules[i], 2, NULL, 0);
    trace(step, program, output);
    FILE *f = fopen(output, "r");
    CHECK(f, "%s", output);
    while (fgets(line, sizeof line, f)) {
        char *space = strrchr(line, ' ');
        if (!space || strncmp(line, real, strlen(real)) != 0 || line + strlen(real) != space)
            continue;
        uint32_t offset = (uint32_t)strtoul(space, NULL, 16);
        count++;
        for (int i = 0; i < 2; i++)
            if (!is_leader(&l[i], offset)) {
                fprintf(stderr, "%s: %x is not a leader (%s sections)\n", program, offset, i ? "without" : "with");
                missed[i]++;
            }
    }
    fclose(f);
    unlink(output);
    printf("%s: %u executed block starts, missed %u and %u; %u leaders\n", program, count, missed[0], missed[1], l[0].n);
    CHECK(count > 500, "%u block starts", count);
    CHECK(missed[0] == 0 && missed[1] <= count / 50, "missed %u, %u", missed[0], missed[1]);
    for (int i = 0; i < 2; i++) {
        free(l[i].items);
        elf_module_close(modules[i]);
    }
    free(real);
}

static void test_threads(const char *path)
{
    struct elf_module *m = open_module(path);
    struct leaders one = discover_module(m, 1, NULL, 0);
    for (unsigned threads = 2; threads < 4; threads++) {
        struct leaders more = discover_module(m, threads, NULL, 0);
        CHECK(one.n == more.n && memcmp(one.items, more.items, one.n * sizeof *one.items) == 0, "%u threads: %u, %u leaders",
              threads, one.n, more.n);
        free(more.items);
    }
    uint32_t extra[4] = {one.items[one.n / 2] + 1, 0, UINT32_MAX, (uint32_t)m->span_bytes};
    struct leaders with_extra = discover_module(m, 1, extra, 4);
    CHECK(is_leader(&with_extra, extra[0]) && with_extra.n >= one.n, "extra %x", extra[0]);
    CHECK(!is_leader(&with_extra, UINT32_MAX), "an offset outside");
    free(with_extra.items);
    free(one.items);
    elf_module_close(m);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "labels") == 0)
        test_labels(argv[2], argv[3]);
    else if (argc == 4 && strcmp(argv[1], "trace") == 0)
        test_trace(argv[2], argv[3]);
    else if (argc == 3 && strcmp(argv[1], "threads") == 0)
        test_threads(argv[2]);
    else
        CHECK(false, "arguments");
    return 0;
}
