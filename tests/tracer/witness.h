/* SPDX-License-Identifier: Apache-2.0
 *
 * What the two tracers share: telling a branch by its opcode, finding the module of an address, writing the report.
 * Nothing of bdbi's own.
 */
#ifndef WITNESS_H
#define WITNESS_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <unistd.h>

enum insn_kind { KIND_UNKNOWN, KIND_PLAIN, KIND_BRANCH, KIND_REP_STRING, KIND_SYSCALL };
enum { MAX_MAPS = 4096, PATH_BYTES = 512 };

struct mapping {
    uint64_t start, end, base;
    int module; /* index in modules, -1: not file-backed executable */
};

static struct mapping maps[MAX_MAPS];
static int nmaps;
static char (*modules)[PATH_BYTES];
static int nmodules;
static struct block {
    uint32_t module;
    uint64_t offset;
} * blocks;
static size_t nblocks, blocks_size;

static inline void die(const char *what)
{
    perror(what);
    exit(2);
}

static inline uint64_t rip_of(pid_t tid)
{
    errno = 0;
    long rip = ptrace(PTRACE_PEEKUSER, tid, (void *)offsetof(struct user_regs_struct, rip), NULL);
    if (rip == -1 && errno != 0)
        die("PTRACE_PEEKUSER");
    return (uint64_t)rip;
}

static inline enum insn_kind classify(const uint8_t *p, size_t n)
{
    bool rep = false;
    size_t i = 0;
    for (; i < n; i++) {
        uint8_t b = p[i];
        if (b == 0xf2 || b == 0xf3)
            rep = true;
        else if (!(b == 0x66 || b == 0x67 || b == 0x2e || b == 0x36 || b == 0x3e || b == 0x26 || b == 0x64 || b == 0x65 ||
                   (b & 0xf0) == 0x40))
            break;
    }
    if (i >= n)
        return KIND_PLAIN;
    uint8_t op = p[i], next = i + 1 < n ? p[i + 1] : 0, reg = (next >> 3) & 7;
    if ((op & 0xf0) == 0x70 || (op >= 0xe0 && op <= 0xe3) || op == 0xe8 || op == 0xe9 || op == 0xeb)
        return KIND_BRANCH; /* jcc, loop and jrcxz, call, jmp */
    if (op == 0xc2 || op == 0xc3 || op == 0xca || op == 0xcb || op == 0xcf)
        return KIND_BRANCH; /* ret, retf, iret */
    if (op == 0x0f && (next & 0xf0) == 0x80)
        return KIND_BRANCH;
    if (op == 0x0f && next == 0x05)
        return KIND_SYSCALL;
    if (op == 0xff && reg >= 2 && reg <= 5)
        return KIND_BRANCH; /* call and jmp through a register or memory */
    if (op == 0xc7 && next == 0xf8)
        return KIND_BRANCH; /* xbegin */
    if (rep && ((op >= 0xa4 && op <= 0xa7) || (op >= 0xaa && op <= 0xaf) || (op >= 0x6c && op <= 0x6f)))
        return KIND_REP_STRING;
    return KIND_PLAIN;
}

static inline int module_index(const char *path)
{
    for (int i = 0; i < nmodules; i++)
        if (!strcmp(modules[i], path))
            return i;
    modules = realloc(modules, (size_t)(nmodules + 1) * sizeof *modules);
    if (modules == NULL)
        die("realloc");
    snprintf(modules[nmodules], sizeof *modules, "%s", path);
    return nmodules++;
}

static inline void read_maps(pid_t tid)
{
    char name[64], line[PATH_BYTES + 128], path[PATH_BYTES], permissions[8], low_path[PATH_BYTES] = "";
    uint64_t low_base = 0;
    snprintf(name, sizeof name, "/proc/%d/maps", tid);
    FILE *f = fopen(name, "r");
    if (f == NULL)
        die(name);
    nmaps = 0;
    while (fgets(line, sizeof line, f) && nmaps < MAX_MAPS) {
        unsigned long start, end, offset;
        path[0] = 0;
        if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %511[^\n]", &start, &end, permissions, &offset, path) < 4)
            continue;
        /* A module's first segment maps the file's first byte; the others follow. */
        if (path[0] == '/' && (offset == 0 || strcmp(path, low_path))) {
            strcpy(low_path, path);
            low_base = start - offset;
        }
        bool code = path[0] == '/' && permissions[2] == 'x';
        maps[nmaps++] = (struct mapping){start, end, low_base, code ? module_index(path) : -1};
    }
    fclose(f);
}

static inline void report_block(pid_t tid, uint64_t rip)
{
    if (nmaps == 0)
        read_maps(tid);
    int low = 0, high = nmaps;
    while (low < high) {
        int middle = (low + high) / 2;
        if (maps[middle].end <= rip)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == nmaps || rip < maps[low].start || maps[low].module < 0)
        return;
    if (nblocks == blocks_size) {
        blocks_size = blocks_size ? 2 * blocks_size : 4096;
        blocks = realloc(blocks, blocks_size * sizeof *blocks);
        if (blocks == NULL)
            die("realloc");
    }
    blocks[nblocks++] = (struct block){(uint32_t)maps[low].module, rip - maps[low].base};
}

static inline int compare_blocks(const void *a, const void *b)
{
    const struct block *x = a, *y = b;
    if (x->module != y->module)
        return x->module < y->module ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* "# instructions N" and a line per distinct block; COUNTED 0: without the number; only "instructions N" without blocks. */
static inline void write_blocks(const char *path, uint64_t counted, bool want_blocks)
{
    FILE *f = fopen(path, "w");
    if (f == NULL)
        die(path);
    if (counted)
        fprintf(f, "%sinstructions %llu\n", want_blocks ? "# " : "", (unsigned long long)counted);
    if (nblocks > 0)
        qsort(blocks, nblocks, sizeof *blocks, compare_blocks);
    for (size_t i = 0; i < nblocks; i++)
        if (i == 0 || compare_blocks(&blocks[i - 1], &blocks[i]) != 0)
            fprintf(f, "%s %llx\n", modules[blocks[i].module], (unsigned long long)blocks[i].offset);
    if (fclose(f) != 0)
        die(path);
}

#endif
