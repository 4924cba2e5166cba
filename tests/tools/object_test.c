/* SPDX-License-Identifier: Apache-2.0
 *
 * object_test OBJECT...: reads each tool's object as the loader does, whole, cut at every length and damaged in many ways.
 * Nothing may be read or written outside the file's bytes and the object's memory (each is a malloc of exactly its size: run it
 * under ASAN), and what is accepted must be a whole struct bdbi_tool. Also: a tool's arguments.
 */
#include "tools/args.h"
#include "tools/object.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(x)                                                                                                               \
    do {                                                                                                                       \
        if (!(x)) {                                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                                            \
            exit(1);                                                                                                           \
        }                                                                                                                      \
    } while (0)
#define MUTANTS 30000

static unsigned refused, accepted;
static volatile char sink;

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *resolve(const char *name)
{
    static char place;
    size_t n = strlen(name); /* terminated inside the file */
    return n >= 4 && (memcmp(name, "bdbi", 4) == 0 || memcmp(name, "mem", 3) == 0) ? &place : NULL;
}

static void touch(const char *text)
{
    for (; text && *text; text++)
        sink = *text;
}

/* What the loader does, with malloc for memory. True: it is a tool. */
static bool load(const void *file, size_t bytes)
{
    struct tool_object o;
    bool good = object_open(&o, file, bytes);
    if (good) {
        uint8_t *memory = aligned_alloc(4096, (o.span + 4095) & ~4095ull);
        CHECK(memory);
        memset(memory, 0, (o.span + 4095) & ~4095ull);
        for (unsigned i = 0; i < o.nsegments; i++)
            memcpy(memory + o.segments[i].address, o.file + o.segments[i].offset, o.segments[i].file_bytes);
        good = object_relocate(&o, memory, resolve);
        const struct bdbi_tool *tool = good ? object_tool(&o, memory) : NULL;
        good = tool;
        if (tool) {
            touch(tool->name);
            touch(tool->help);
            touch(tool->weave_options);
            touch(tool->report_options);
            CHECK(tool->abi == BDBI_TOOL_ABI && (uint64_t)tool->weave - (uint64_t)memory < o.span);
            for (unsigned i = 0; object_init(&o, memory, i); i++)
                CHECK(object_init(&o, memory, i) - (uint64_t)memory < o.span);
        }
        free(memory);
    }
    if (!good) {
        CHECK(o.why && *o.why && o.about);
        touch(o.about);
    }
    accepted += good;
    refused += !good;
    return good;
}

/* In a malloc of its own, so that ASAN sees every byte too far. */
static bool load_copy(const uint8_t *file, size_t bytes)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);
    CHECK(copy);
    memcpy(copy, file, bytes);
    bool good = load(copy, bytes);
    free(copy);
    return good;
}

/* A place of the whole FILE worth damaging: headers, the dynamic section, relocations, symbols. */
static size_t place(const uint8_t *file, size_t bytes, uint64_t *state)
{
    Elf64_Ehdr e;
    Elf64_Phdr ph;
    memcpy(&e, file, sizeof e);
    switch (next(state) % 4) {
    case 0:
        return next(state) % (sizeof e + e.e_phnum * sizeof ph);
    case 1:
        return next(state) % 0x700;
    case 2:
        for (unsigned i = 0; i < e.e_phnum; i++) {
            memcpy(&ph, file + e.e_phoff + i * sizeof ph, sizeof ph);
            if (ph.p_type == PT_DYNAMIC)
                return ph.p_offset + next(state) % ph.p_filesz;
        }
        break;
    default:
        break;
    }
    return next(state) % bytes;
}

static void damage(uint8_t *file, const uint8_t *whole, size_t bytes, uint64_t *state)
{
    for (uint64_t n = 1 + next(state) % 4; n > 0; n--) {
        size_t at = place(whole, bytes, state), from = place(whole, bytes, state);
        uint64_t value = next(state);
        if (at + 8 > bytes || from + 8 > bytes)
            continue;
        switch (value % 5) {
        case 0:
            file[at] ^= (uint8_t)(1 << (value >> 8) % 8);
            break;
        case 1:
            file[at] = (uint8_t)(value >> 8);
            break;
        case 2:
            memset(file + at, value & 256 ? 0xff : 0, 1 + (value >> 9) % 8);
            break;
        case 3:
            value = (value >> 8) % (2 * bytes);
            memcpy(file + (at & ~7ull), &value, 8);
            break;
        default:
            memmove(file + at, file + from, 8);
        }
    }
}

static void test_object(const char *path, uint64_t *state)
{
    static uint8_t good[1 << 20], bad[1 << 20];
    FILE *f = fopen(path, "rb");
    CHECK(f);
    size_t bytes = fread(good, 1, sizeof good, f);
    fclose(f);
    CHECK(bytes > 4096 && bytes < sizeof good && load_copy(good, bytes));
    uint64_t hash = object_hash(good, bytes);
    for (size_t cut = 0; cut < bytes; cut += cut < 2048 ? 1 : 61) {
        load_copy(good, cut);
        CHECK(object_hash(good, cut) != hash);
    }
    CHECK(!load_copy(good, sizeof(Elf64_Ehdr)) && !load_copy(good, 4096));
    for (size_t i = 0; i < bytes; i++) {
        good[i] ^= 0x10;
        CHECK(object_hash(good, bytes) != hash);
        good[i] ^= 0x10;
    }
    for (unsigned i = 0; i < MUTANTS; i++) {
        memcpy(bad, good, bytes);
        damage(bad, good, bytes, state);
        load_copy(bad, bytes);
    }
}

static bool is(const char *args, const char *key, const char *value)
{
    size_t n = 0;
    const char *found = tool_arg(args, key, &n);
    return value ? found && n == strlen(value) && memcmp(found, value, n) == 0 : !found;
}

static bool bad_at(const char *args, const char *weave, const char *report, int at)
{
    const char *bad = tool_args_check(args, weave, report);
    return at < 0 ? !bad : bad == args + at;
}

static void test_args(void)
{
    CHECK(is("a=1,bc=22,d=", "a", "1") && is("a=1,bc=22,d=", "bc", "22") && is("a=1,bc=22", "b", NULL));
    CHECK(is("a=1,d=,a=2", "d", "") && is("a=1,a=2", "a", "1") && is(NULL, "a", NULL) && is("", "a", NULL));
    CHECK(is("a", "a", NULL) && is("ab=1", "a", NULL) && is("a=b=c", "a", "b=c"));
    CHECK(tool_list_has("one,two", "two", 3) && tool_list_has("one,two", "one", 3) && !tool_list_has("one,two", "on", 2));
    CHECK(!tool_list_has(NULL, "a", 1) && !tool_list_has("", "a", 1) && !tool_list_has("one,two", "twos", 4));
    CHECK(bad_at("", NULL, NULL, -1) && bad_at("out=x", NULL, NULL, -1) && bad_at("out=", NULL, NULL, 0));
    CHECK(bad_at("out=x,y=1", NULL, NULL, 6) && bad_at("out=x,y=1", "y", NULL, -1) && bad_at("y=1,z=2", "z", "y", -1));
    CHECK(bad_at("y", "y", NULL, 0) && bad_at("out=x,=1", "y", NULL, 6) && bad_at("yy=1", "y", "z", 0));
}

int main(int argc, char **argv)
{
    uint64_t state = 0x2545f4914f6cdd1d;
    test_args();
    for (int i = 1; i < argc; i++)
        test_object(argv[i], &state);
    CHECK(argc > 1 && accepted > 1000 && refused > 1000);
    printf("%u objects accepted, %u refused\n", accepted, refused);
    return 0;
}
