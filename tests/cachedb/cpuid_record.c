/* SPDX-License-Identifier: Apache-2.0
 *
 * cpuid_record CACHE BOOT              says how many answers of cpuid the record of that boot has; "none": there is no record
 * cpuid_record CACHE BOOT PROCESSOR    stores one with a wrong answer for leaf 0x12345678: eax 1, ebx 2, ecx 3, edx 4
 *
 * BOOT: this, or 36 characters. PROCESSOR: this, other.
 */
#include "cachedb/cachedb.h"

#include <cpuid.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void boot_of(const char *text, char boot[36])
{
    FILE *f = strcmp(text, "this") == 0 ? fopen(CPUID_BOOT_PATH, "re") : NULL;
    if (f ? fread(boot, 1, 36, f) != 36 : strlen(text) != 36) {
        exit(2);
    }
    if (f) {
        fclose(f);
    } else {
        memcpy(boot, text, 36);
    }
}

static int put(struct cachedb *db, const struct cpuid_key *key, bool other)
{
    struct cpuid_answer wrong = {.leaf = 0x12345678, .eax = 1, .ebx = 2, .ecx = 3, .edx = 4};
    struct cpuid_record record = {.nanswers = 1};
    uint8_t value[sizeof record + sizeof wrong];
    uint32_t ebx;
    __cpuid(1, record.processor[0], ebx, record.processor[1], record.processor[2]);
    record.processor[1] ^= other;
    memcpy(value, &record, sizeof record);
    memcpy(value + sizeof record, &wrong, sizeof wrong);
    return cachedb_put(db, key, sizeof *key, value, sizeof value);
}

int main(int argc, char **argv)
{
    struct cpuid_key key = {.type = CACHEDB_CPUID};
    struct cachedb *db;
    char message[1024];
    void *value;
    size_t bytes;
    int rc = 0;
    if (argc < 3 || cachedb_open(argv[1], CACHEDB_CREATE, &db, message, sizeof message) != 0) {
        return 2;
    }
    boot_of(argv[2], key.boot);
    if (argc > 3) {
        rc = put(db, &key, strcmp(argv[3], "other") == 0);
    } else if (cachedb_get(db, &key, sizeof key, &value, &bytes) == 0) {
        printf("%u\n", ((const struct cpuid_record *)value)->nanswers);
        free(value);
    } else {
        puts("none");
    }
    cachedb_close(db);
    return rc != 0;
}
