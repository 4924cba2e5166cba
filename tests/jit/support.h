/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the translator share: the executable bytes of an ELF file and a plain way to find leaders in them.
 */
#ifndef TESTS_JIT_SUPPORT_H
#define TESTS_JIT_SUPPORT_H

#include "jit/jit.h"

#define MODULE_MAX_SPANS 16

struct module {
    uint8_t *file;
    size_t file_bytes;
    struct text_span spans[MODULE_MAX_SPANS]; /* executable sections; offset = virtual address */
    uint32_t nspans;
    uint32_t *leaders;
    uint32_t nleaders;
};

/* Reads PATH or exits. */
void module_read(struct module *m, const char *path);
/* Finds leaders by linear sweep: section starts, branch targets, what follows a transfer, padding or undecodable bytes. */
void module_sweep(struct module *m, struct decoder *d);
void module_free(struct module *m);

/* A unit of the module's sections and leaders, as bdbi-warm would set it up. */
struct jit_unit module_unit(const struct module *m);

double seconds_now(void);
/* Random numbers that are the same in every run. */
uint64_t next_random(uint64_t *state);

#endif
