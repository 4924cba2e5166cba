/* SPDX-License-Identifier: Apache-2.0
 *
 * Finding, judging and mapping the files that an exec names.
 */
#ifndef BDBI_LOADER_H
#define BDBI_LOADER_H

#include "launcher/core.h"
#include <elf.h>

#define EXEC_HEAD_BYTES PAGE_BYTES

/* An opened file and what it is. */
struct exec_target {
    enum exec_kind kind;
    bool is_32bit;
    const char *why; /* EXEC_NATIVE: the reason */
    int fd;
    struct file_id id;
    uint64_t mount; /* 0: not known */
    uint32_t mode, uid, gid;
    bool start;   /* it will be loaded into this process: the cache is asked for it */
    bool program; /* and is not the interpreter: its start record is looked for */
    bool known;   /* to the cache, with this content and these images */
    uint8_t content[32];
    struct cached_images images;
    size_t head_bytes;
    char *head; /* its first page: EXEC_HEAD_BYTES, 8-byte aligned, the caller's but for exec_target_open */
};

/* Opens PATH and reads its first page. Dies with 126 or 127 and one line when there is nothing to execute. */
void exec_target_open(struct exec_target *t, const char *path, uint64_t euid, bool is_program);
/* The same without dying: -errno. *WHY is set when there is more to say. */
int exec_target_try(struct exec_target *t, const char *path, uint64_t euid, const char **why);
/* Whether the kernel would execute PATH: 0 or its -errno. It opens the file, which must not be open for writing, and then finds
 * no arguments. */
long exec_check(const char *path);
#define EXEC_BUSY "somebody has it open for writing (text file busy)"
/* Replaces this process by bdbi running the script's interpreter. */
_Noreturn void exec_script(struct exec_target *t, const char *path, char **argv, char **envp);
/* Splits a #! line: the interpreter and at most one argument (NULL: none), in place. NULL: not a usable #! line. */
char *script_interpreter(struct exec_target *t, char **argument);

/* NAME as a shell would find it (PATH). Dies with 127 or 126. */
char *find_program(char *name, char **envp);

struct loaded_elf {
    uint64_t base, end, entry, phdr, phnum;
    uint64_t start_code, end_code, start_data, end_data;
    bool is_exec;
    char interp[512];
    struct module *module;
};

/* Maps the file as the kernel's exec would, text without execute permission, and attaches its cached code. t->fd is closed
 * later. */
void load_elf(struct exec_target *t, const char *path, struct loaded_elf *out, bool is_program);
/* What N program headers want of memory: low to high, at a multiple of align from low; low above high: nothing. */
struct elf_span {
    uint64_t low, high, align;
};
struct elf_span elf_span(const Elf64_Phdr *ph, unsigned n);

#endif
