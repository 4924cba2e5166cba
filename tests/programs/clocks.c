/* SPDX-License-Identifier: Apache-2.0
 *
 * Time from the vdso and from the system call agree and never go back; rdtsc, rdtscp, cpuid, xgetbv, rdrand behave.
 */
#include "check.h"
#include <cpuid.h>
#include <stdint.h>
#include <string.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t ns(struct timespec t)
{
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(void)
{
    clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID};
    for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++)
        for (int k = 0; k < 200; k++) {
            struct timespec a, b, c;
            CHECK(syscall(SYS_clock_gettime, clocks[i], &a) == 0);
            CHECK(clock_gettime(clocks[i], &b) == 0);
            CHECK(syscall(SYS_clock_gettime, clocks[i], &c) == 0);
            CHECK(ns(a) <= ns(b) && ns(b) <= ns(c));
        }
    struct timeval tv;
    CHECK(gettimeofday(&tv, NULL) == 0);
    time_t now = time(NULL);
    CHECK(now + 1 >= tv.tv_sec && now <= tv.tv_sec + 60); /* time() may be a tick behind */
    struct timespec resolution;
    CHECK(clock_getres(CLOCK_MONOTONIC, &resolution) == 0);
    CHECK(clock_gettime(12345, &resolution) == -1);
    CHECK(sched_getcpu() >= 0);

    uint64_t previous = 0;
    for (int i = 0; i < 1000; i++) {
        uint32_t low, high, cpu;
        if (i % 2)
            __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
        else
            __asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(cpu));
        uint64_t tsc = (uint64_t)high << 32 | low;
        CHECK(tsc > previous);
        previous = tsc;
    }
    uint32_t a = 0, b = 0, c = 0, d = 0, text[4] = {0};
    CHECK(__get_cpuid(0, &a, &b, &c, &d));
    memcpy(text, (uint32_t[]){b, d, c}, 12);
    printf("%s %u\n", (char *)text, a);
    CHECK(__get_cpuid(1, &a, &b, &c, &d));
    printf("%08x %08x %08x\n", a, c, d);
    if (c & bit_OSXSAVE) {
        __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
        printf("xcr0 %x\n", a);
    }
    return check_end("clocks");
}
