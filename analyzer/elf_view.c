/* SPDX-License-Identifier: Apache-2.0
 *
 * Bounds-checked looks into an ELF module (elf_view.h). The program header table was checked when the module was opened;
 * everything else is checked here, at each look.
 */
#include "analyzer/elf_view.h"

/* Far more than any linker writes; keeps a hostile file from making the look-ups by tag slow. */
enum { MAX_DYNAMIC_ENTRIES = 4096 };

const uint8_t *elf_file_at(const struct elf_module *m, uint64_t offset, uint64_t n)
{
    if (offset > m->file_bytes || n > m->file_bytes - offset)
        return NULL;
    return m->file + offset;
}

const uint8_t *elf_from(const struct elf_module *m, uint64_t vaddr, uint64_t *left)
{
    for (uint32_t i = 0; i < m->nsegments; i++) {
        const struct elf_segment *s = &m->segments[i];
        if (vaddr >= s->vaddr && vaddr - s->vaddr < s->file_bytes) {
            *left = s->file_bytes - (vaddr - s->vaddr);
            return m->file + s->file_offset + (vaddr - s->vaddr);
        }
    }
    return NULL;
}

const uint8_t *elf_at(const struct elf_module *m, uint64_t vaddr, uint64_t n)
{
    uint64_t left;
    const uint8_t *p = elf_from(m, vaddr, &left);
    return p && n <= left ? p : NULL;
}

bool elf_find_phdr(const struct elf_module *m, uint32_t type, Elf64_Phdr *out)
{
    Elf64_Ehdr header;
    memcpy(&header, m->file, sizeof header);
    for (unsigned i = 0; i < header.e_phnum; i++) {
        memcpy(out, m->file + header.e_phoff + i * sizeof *out, sizeof *out);
        if (out->p_type == type)
            return true;
    }
    return false;
}

bool elf_dynamic_entry(const struct elf_module *m, uint32_t index, Elf64_Dyn *out)
{
    Elf64_Phdr dynamic;
    if (index >= MAX_DYNAMIC_ENTRIES || !elf_find_phdr(m, PT_DYNAMIC, &dynamic) || index >= dynamic.p_memsz / sizeof *out)
        return false;
    const uint8_t *p = elf_at(m, dynamic.p_vaddr + index * sizeof *out, sizeof *out);
    if (!p)
        return false;
    memcpy(out, p, sizeof *out);
    return out->d_tag != DT_NULL;
}

bool elf_dynamic_value(const struct elf_module *m, int64_t tag, uint64_t *value)
{
    Elf64_Dyn entry;
    for (uint32_t i = 0; elf_dynamic_entry(m, i, &entry); i++)
        if (entry.d_tag == tag) {
            *value = entry.d_un.d_val;
            return true;
        }
    return false;
}

const char *elf_dynamic_string(const struct elf_module *m, uint64_t index)
{
    uint64_t table, bytes, left;
    if (!elf_dynamic_value(m, DT_STRTAB, &table) || !elf_dynamic_value(m, DT_STRSZ, &bytes) || index >= bytes)
        return NULL;
    const uint8_t *p = elf_from(m, table + index, &left);
    if (!p)
        return NULL;
    if (left > bytes - index)
        left = bytes - index;
    return memchr(p, 0, left) ? (const char *)p : NULL;
}

const uint8_t *elf_dynamic_table(const struct elf_module *m, int64_t address_tag, int64_t size_tag, uint64_t entry_bytes,
                                 uint64_t *count)
{
    uint64_t address, bytes, left;
    *count = 0;
    if (!elf_dynamic_value(m, address_tag, &address) || !elf_dynamic_value(m, size_tag, &bytes))
        return NULL;
    const uint8_t *p = elf_from(m, address, &left);
    if (p)
        *count = (bytes < left ? bytes : left) / entry_bytes;
    return p;
}

bool elf_section(const struct elf_module *m, uint32_t index, Elf64_Shdr *out)
{
    Elf64_Ehdr header;
    memcpy(&header, m->file, sizeof header);
    if (index >= header.e_shnum || header.e_shentsize != sizeof *out || header.e_shoff > m->file_bytes)
        return false;
    const uint8_t *p = elf_file_at(m, header.e_shoff + index * (uint64_t)sizeof *out, sizeof *out);
    if (!p)
        return false;
    memcpy(out, p, sizeof *out);
    return true;
}

bool elf_has_code_sections(const struct elf_module *m)
{
    Elf64_Shdr section;
    for (uint32_t i = 0; elf_section(m, i, &section); i++)
        if (section.sh_type == SHT_PROGBITS && (section.sh_flags & SHF_EXECINSTR))
            return true;
    return false;
}
