/* SPDX-License-Identifier: Apache-2.0
 *
 * Places of modules: the address that a module is translated for, and loaded at if nothing is there.
 *
 * Code that knows its addresses, all below 2 GB, has them as immediates: a call and its return take 13 instructions instead of
 * 19. The store gives out one place after the other for each kind of code, from the top down, so that programs linked at fixed
 * addresses keep what is behind them for their heaps; when it has come to the bottom it begins again at the top: modules whose
 * places overlap are seldom of one program, and if they are, the learner gives one of them another place.
 */
#include "include/internal/error.h"
#include "launcher/context.h"
#include "launcher/host.h"

#include <string.h>

#define PLACES_START 0x8000000ull
#define PLACES_END ((uint64_t)BDBI_MODULES_BYTES)
#define PLACES_LARGEST ((PLACES_END - PLACES_START) / 2)

struct newest {
    uint32_t serial; /* of the record; 0: there is none */
    uint64_t place;
};

static int take(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct newest *n = user;
    const struct place_key *k = key;
    if (key_bytes != sizeof *k || value_bytes != sizeof n->place) {
        return -BDBI_EFORMAT;
    }
    n->serial = cachedb_serial(k->serial);
    memcpy(&n->place, value, sizeof n->place);
    return 1;
}

/* The place of BYTES below LAST. */
static uint64_t below(uint64_t last, uint64_t bytes, uint64_t align)
{
    uint64_t place = last >= bytes ? (last - bytes) & ~(align - 1) : 0;
    return place >= PLACES_START ? place : (PLACES_END - bytes) & ~(align - 1);
}

int host_place(struct cachedb *db, const struct codegen_key *codegen, uint64_t bytes, uint64_t align, uint64_t *place)
{
    struct place_key key = {.type = CACHEDB_PLACE, .codegen = *codegen};
    int rc = -BDBI_EEXIST;
    align = align < BDBI_MODULE_ALIGN ? BDBI_MODULE_ALIGN : align;
    *place = 0;
    if (bytes > PLACES_LARGEST || align > PLACES_LARGEST) {
        return 0;
    }
    while (rc == -BDBI_EEXIST) { /* somebody else has taken that one at the same time */
        struct newest n = {.place = PLACES_END};
        rc = cachedb_scan(db, &key, offsetof(struct place_key, serial), take, &n);
        if (rc < 0) {
            return rc;
        }
        *place = below(n.place, bytes, align);
        cachedb_set_serial(key.serial, n.serial ? n.serial - 1 : UINT32_MAX);
        rc = cachedb_put(db, &key, sizeof key, place, sizeof *place);
    }
    return rc;
}
