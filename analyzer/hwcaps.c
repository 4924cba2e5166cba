/* SPDX-License-Identifier: Apache-2.0
 *
 * The glibc-hwcaps subdirectories of this CPU. The levels are those of the x86-64 psABI; the features tested here are the ones
 * that came last to processors of each level.
 */
#include "analyzer/ldcache.h"

static int level(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("ssse3") || !__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("popcnt"))
        return 1;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2") ||
        !__builtin_cpu_supports("fma"))
        return 2;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512cd") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return 3;
    return 4;
}

const char *const *hwcaps_supported(void)
{
    static const char *const names[] = {"x86-64-v4", "x86-64-v3", "x86-64-v2", NULL};
    return names + (4 - level());
}
