/* SPDX-License-Identifier: Apache-2.0
 *
 * Bounds-checked looks into an open ELF module: by file offset, by virtual address, by dynamic tag, by section. Everything here
 * answers NULL or false for what is not there; nothing is assumed about alignment, so values are loaded with load32/load64.
 */
#ifndef BDBI_ANALYZER_ELF_VIEW_H
#define BDBI_ANALYZER_ELF_VIEW_H

#include "analyzer/analyzer.h"
#include <elf.h>
#include <string.h>

static inline uint16_t load16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* [offset, offset + n) of the file, or NULL when it is not all there. */
const uint8_t *elf_file_at(const struct elf_module *m, uint64_t offset, uint64_t n);

/* What the file puts at VADDR, and in *LEFT how many bytes of it follow in the same segment. NULL: nothing (also: bss). */
const uint8_t *elf_from(const struct elf_module *m, uint64_t vaddr, uint64_t *left);

/* [vaddr, vaddr + n) as the file has it, or NULL. */
const uint8_t *elf_at(const struct elf_module *m, uint64_t vaddr, uint64_t n);

/* The string at INDEX of the dynamic string table, or NULL unless it is terminated inside it. */
const char *elf_dynamic_string(const struct elf_module *m, uint64_t index);

/* The first program header of TYPE. */
bool elf_find_phdr(const struct elf_module *m, uint32_t type, Elf64_Phdr *out);

/* The dynamic section's entries: entry INDEX, false behind the last. */
bool elf_dynamic_entry(const struct elf_module *m, uint32_t index, Elf64_Dyn *out);
bool elf_dynamic_value(const struct elf_module *m, int64_t tag, uint64_t *value);

/* Section INDEX, false behind the last (or when the file has no usable section headers). */
bool elf_section(const struct elf_module *m, uint32_t index, Elf64_Shdr *out);

/* Whether the file has section headers that describe at least one executable section. */
bool elf_has_code_sections(const struct elf_module *m);

/* The contents of a table of ENTRY_BYTES-sized entries that two dynamic tags describe: its bytes and the number of entries. */
const uint8_t *elf_dynamic_table(const struct elf_module *m, int64_t address_tag, int64_t size_tag, uint64_t entry_bytes,
                                 uint64_t *count);

#endif
