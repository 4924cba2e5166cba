/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes what static discovery alone finds in a file: one hexadecimal module offset per line.
 *
 *   leaders FILE
 */
#include "analyzer/analyzer.h"
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    char message[512];
    struct elf_module *module;
    uint32_t *leaders, count;
    if (argc != 2) {
        fprintf(stderr, "usage: leaders FILE\n");
        return 2;
    }
    if (elf_module_open(argv[1], &module, message, sizeof message) < 0) {
        fprintf(stderr, "leaders: %s\n", message);
        return 1;
    }
    if (analyzer_discover(module, NULL, 0, 2, &leaders, &count) < 0) {
        fprintf(stderr, "leaders: %s: discovery failed\n", argv[1]);
        return 1;
    }
    for (uint32_t i = 0; i < count; i++)
        printf("%x\n", leaders[i]);
    free(leaders);
    elf_module_close(module);
    return 0;
}
