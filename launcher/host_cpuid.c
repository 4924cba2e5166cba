/* SPDX-License-Identifier: Apache-2.0
 *
 * What cpuid answers on this machine, for the core to answer with (cpuid.c): asked on every processor, once for each boot,
 * where the instruction is slow because it leaves a virtual machine.
 *
 * Only leaves are asked that describe the model of the processor and what the kernel has switched on at boot. Left out are
 * those that say which processor it is (1: APIC id; 0xb, 0x1f, 0x8000001e), what changes at run time (6: turbo; 0x15, 0x16:
 * frequencies), and the hypervisor's (0x40000000). Of these leaves what differs between processors is left out too. Nothing is
 * remembered
 *
 *   where processors are of several kinds (hybrid)
 *   where cpuid ends a transaction (RTM): a remembered one would not
 *   where a present processor could not be asked
 *   while cpuid faults (ARCH_SET_CPUID)
 */
#include "include/internal/error.h"
#include "launcher/host.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLOW_NS 400 /* an exit takes 1000 or more, the instruction itself 30 to 100 */
#define TRIES 16
#define CPUS_MOST 8192

#define EXTENDED 0x80000000u
#define LEAF7_EBX_RTM (1u << 11)
#define LEAF7_EDX_HYBRID (1u << 15)

/* The most frequent first. */
static const struct {
    uint32_t leaf, nsubleaves; /* 0: it has none */
    bool zeros_only;           /* remembered where it says that what it is about is not there */
} leaves[] = {
    {EXTENDED, 0, false},
    {EXTENDED + 5, 0, false},
    {EXTENDED + 6, 0, false},
    {0, 0, false},
    {7, 3, false},
    {2, 0, false},
    {4, 5, false},
    {0xd, 20, false},
    {0x14, 2, false},
    {0x19, 0, true},
    {0x24, 1, false},
    {EXTENDED + 1, 0, false},
    {EXTENDED + 7, 0, false},
    {EXTENDED + 8, 0, false},
    {EXTENDED + 0x1d, 5, false},
    {EXTENDED + 2, 0, false},
    {EXTENDED + 3, 0, false},
    {EXTENDED + 4, 0, false},
};

static void ask(uint32_t leaf, uint32_t subleaf, struct cpuid_answer *a)
{
    __cpuid_count(leaf, subleaf, a->eax, a->ebx, a->ecx, a->edx);
}

static bool same(const struct cpuid_answer *a, const struct cpuid_answer *b)
{
    return a->eax == b->eax && a->ecx == b->ecx && a->edx == b->edx && a->ebx == b->ebx;
}

/* A leaf that the processor does not have is nothing but zeros on some, another leaf on others. */
static bool is_present(uint32_t leaf)
{
    struct cpuid_answer most;
    ask(leaf & EXTENDED, 0, &most);
    return leaf <= most.eax;
}

static bool is_static(const struct cpuid_answer *a, bool zeros_only)
{
    static const struct cpuid_answer zeros;
    return same(a, &zeros) || (is_present(a->leaf) && !zeros_only);
}

/* Whether A is what this processor says. */
static bool agrees(const struct cpuid_answer *a)
{
    static const uint32_t any[] = {0, 1, 7, 0xffffffff};
    struct cpuid_answer now;
    for (unsigned i = 0; i < (a->subleaf_mask ? 1 : sizeof any / sizeof *any); i++) {
        ask(a->leaf, a->subleaf_mask ? a->subleaf : any[i], &now);
        if (!same(a, &now)) {
            return false;
        }
    }
    return true;
}

/* ---- all processors ---- */

static void first_answers(struct cpuid_record *r)
{
    struct cpuid_answer one;
    ask(1, 0, &one);
    r->processor[0] = one.eax;
    r->processor[1] = one.ecx;
    r->processor[2] = one.edx;
    for (unsigned i = 0; i < sizeof leaves / sizeof *leaves; i++) {
        for (uint32_t s = 0; (s < leaves[i].nsubleaves || s == 0) && r->nanswers < CPUID_ANSWERS_MOST; s++) {
            struct cpuid_answer *a = &r->answers[r->nanswers];
            *a = (struct cpuid_answer){.leaf = leaves[i].leaf, .subleaf = s, .subleaf_mask = leaves[i].nsubleaves ? ~0u : 0};
            ask(a->leaf, s, a);
            r->nanswers += is_static(a, leaves[i].zeros_only);
        }
    }
}

static void keep_what_agrees(struct cpuid_record *r)
{
    struct cpuid_answer one;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < r->nanswers; i++) {
        if (agrees(&r->answers[i])) {
            r->answers[kept++] = r->answers[i];
        }
    }
    ask(1, 0, &one);
    bool other = one.eax != r->processor[0] || one.ecx != r->processor[1] || one.edx != r->processor[2];
    r->nanswers = other ? 0 : kept;
}

/* The numbers in CPUS of the list TEXT ("0-3,8"). False: there are more than it has room for. */
static bool parse_list(const char *text, cpu_set_t *cpus)
{
    unsigned from, to;
    int n;
    CPU_ZERO_S(CPUS_MOST / 8, cpus);
    for (; sscanf(text, "%u%n", &from, &n) == 1; text += n + (text[n] == ',')) {
        to = from;
        if (text[n] == '-') {
            text += n + 1;
            if (sscanf(text, "%u%n", &to, &n) != 1) {
                return false;
            }
        }
        for (; from <= to; from++) {
            if (from >= CPUS_MOST) {
                return false;
            }
            CPU_SET_S(from, CPUS_MOST / 8, cpus);
        }
    }
    return true;
}

static bool present_cpus(cpu_set_t *cpus)
{
    char text[4096] = "";
    FILE *f = fopen("/sys/devices/system/cpu/present", "re");
    bool ok = f && fgets(text, sizeof text, f) && parse_list(text, cpus) && CPU_COUNT_S(CPUS_MOST / 8, cpus) > 0;
    if (f) {
        fclose(f);
    }
    return ok;
}

/* False: this one cannot be asked. */
static bool go_to_cpu(unsigned cpu, cpu_set_t *one)
{
    CPU_ZERO_S(CPUS_MOST / 8, one);
    CPU_SET_S(cpu, CPUS_MOST / 8, one);
    return sched_setaffinity(0, CPUS_MOST / 8, one) == 0 && sched_getcpu() == (int)cpu;
}

static bool is_odd(void)
{
    struct cpuid_answer seven = {0};
    if (is_present(7)) {
        ask(7, 0, &seven);
    }
    return seven.ebx & LEAF7_EBX_RTM || seven.edx & LEAF7_EDX_HYBRID;
}

static bool ask_all(const cpu_set_t *present, cpu_set_t *one, struct cpuid_record *r)
{
    bool first = true;
    for (unsigned cpu = 0; cpu < CPUS_MOST; cpu++) {
        if (!CPU_ISSET_S(cpu, CPUS_MOST / 8, present)) {
            continue;
        }
        if (!go_to_cpu(cpu, one) || is_odd()) {
            return false;
        }
        if (first) {
            first_answers(r);
        }
        keep_what_agrees(r);
        first = false;
    }
    return true;
}

static void collect(struct cpuid_record *r)
{
    cpu_set_t *sets = calloc(3, CPUS_MOST / 8), *mine = sets, *one = (void *)((char *)sets + CPUS_MOST / 8);
    cpu_set_t *present = (void *)((char *)one + CPUS_MOST / 8);
    if (!sets || !present_cpus(present) || sched_getaffinity(0, CPUS_MOST / 8, mine) != 0) {
        free(sets);
        return;
    }
    if (!ask_all(present, one, r)) {
        r->nanswers = 0;
    }
    sched_setaffinity(0, CPUS_MOST / 8, mine);
    free(sets);
}

/* ---- the record ---- */

static bool is_slow(void)
{
    long best = SLOW_NS + 1;
    for (int i = 0; i < TRIES; i++) {
        struct timespec a, b;
        struct cpuid_answer zero;
        clock_gettime(CLOCK_MONOTONIC, &a);
        ask(0, 0, &zero);
        clock_gettime(CLOCK_MONOTONIC, &b);
        long ns = (b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec;
        best = ns < best ? ns : best;
    }
    return best > SLOW_NS;
}

static bool read_boot(char boot[36])
{
    FILE *f = fopen(CPUID_BOOT_PATH, "re");
    bool ok = f && fread(boot, 1, 36, f) == 36;
    if (f) {
        fclose(f);
    }
    return ok;
}

static int see(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    (void)key, (void)key_bytes, (void)value, (void)value_bytes;
    *(bool *)user = true;
    return 1;
}

int host_cpuid_put(struct cachedb *db)
{
    struct cpuid_key key = {.type = CACHEDB_CPUID};
    bool others = false;
    size_t bytes;
    void *value;
    if (syscall(SYS_arch_prctl, ARCH_GET_CPUID, 0) == 0 || !read_boot(key.boot)) {
        return 0;
    }
    int rc = cachedb_get(db, &key, sizeof key, &value, &bytes);
    if (rc != -BDBI_ENOENT) {
        free(rc ? NULL : value);
        return rc;
    }
    bool slow = is_slow();
    rc = cachedb_scan(db, &key, offsetof(struct cpuid_key, boot), see, &others);
    if (rc < 0 || (!slow && !others)) { /* without a record no start of bdbi asks for one */
        return rc < 0 ? rc : 0;
    }
    struct cpuid_record *record = calloc(1, CPUID_RECORD_MOST);
    if (!record) {
        return -BDBI_ENOMEM;
    }
    if (slow) {
        collect(record);
    }
    rc = cachedb_put(db, &key, sizeof key, record, sizeof *record + record->nanswers * sizeof *record->answers);
    free(record);
    return rc == -BDBI_EEXIST ? 0 : rc;
}
