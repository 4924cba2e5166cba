/* SPDX-License-Identifier: Apache-2.0
 *
 * The three memory functions that code shared by both worlds may call: libc's in the host, the core's own in the core.
 * gcc emits calls to them by itself, so both worlds have them anyway.
 */
#ifndef BDBI_CORE_STRING_H
#define BDBI_CORE_STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#endif
