/* SPDX-License-Identifier: Apache-2.0
 *
 * The guest's cpuid. In a virtual machine each one is an exit to the hypervisor (1 to 10 us), and ld.so executes some forty.
 * What the learner has found to be the same on all processors and at all times (host_cpuid.c) is answered from a table, with
 * the fences that the instruction is as well; everything else is executed.
 *
 *   the machine's boot id -> the cache's record of it -> is leaf 1 the record's, and does no tracer make cpuid fault? -> table
 */
#include "launcher/core.h"
#include <asm/prctl.h>

#define LEAF_PROCESSOR 1

static struct cpuid_record *table; /* CPUID_RECORD_MOST bytes; NULL: none, cpuid is executed */
static bool missing;               /* the cache knows other boots, not this one */

void cpuid_execute(uint64_t gpr[4]);

static bool read_boot(char boot[36])
{
    long fd = sys4(__NR_openat, AT_FDCWD_, CPUID_BOOT_PATH, O_RDONLY_ | O_CLOEXEC_, 0);
    if (fd < 0)
        return false;
    close_later((int)fd);
    return sys3(__NR_read, fd, boot, 36) == 36;
}

static bool whole(const struct cpuid_record *r, size_t bytes)
{
    return bytes >= sizeof *r && r->nanswers <= CPUID_ANSWERS_MOST && bytes == sizeof *r + r->nanswers * sizeof *r->answers;
}

void cpuid_read(const struct cache_reader *r)
{
    struct cpuid_key key = {.type = CACHEDB_CPUID}, any;
    size_t key_bytes, bytes;
    if (!cache_reader_seek_head(r, &key, sizeof key, 1, &any, sizeof any, &key_bytes, NULL, 0, &bytes) || !read_boot(key.boot))
        return;
    struct cpuid_record *record = heap_alloc(CPUID_RECORD_MOST);
    missing = cache_reader_fetch(r, &key, sizeof key, record, CPUID_RECORD_MOST, &bytes) < 0;
    if (!missing && whole(record, bytes) && record->nanswers)
        table = record;
}

void cpuid_forget(void)
{
    table = NULL;
}

void cpuid_verify(void)
{
    uint64_t gpr[4] = {LEAF_PROCESSOR};
    if (!table)
        return;
    if (sys2(__NR_arch_prctl, ARCH_GET_CPUID, 0) == 0) { /* it faults */
        cpuid_forget();
        return;
    }
    cpuid_execute(gpr);
    if (gpr[RAX] != table->processor[0] || gpr[RCX] != table->processor[1] || gpr[RDX] != table->processor[2])
        cpuid_forget();
    else if (!options.child)
        explain("cpuid: %u answers are those that were given since this boot", (uint64_t)table->nanswers);
}

static const struct cpuid_answer *find(uint32_t leaf, uint32_t subleaf)
{
    const struct cpuid_record *t = __atomic_load_n(&table, __ATOMIC_RELAXED);
    for (uint32_t i = 0; t && i < t->nanswers; i++)
        if (t->answers[i].leaf == leaf && t->answers[i].subleaf == (subleaf & t->answers[i].subleaf_mask))
            return &t->answers[i];
    return NULL;
}

void core_cpuid(struct thread_ctx *ctx);
void core_cpuid(struct thread_ctx *ctx)
{
    const struct cpuid_answer *a = find((uint32_t)ctx->gpr[RAX], (uint32_t)ctx->gpr[RCX]);
    if (!a) {
        ctx->stats.cpuid_executed++;
        cpuid_execute(ctx->gpr);
        return;
    }
    __asm__ volatile("mfence\n\tlfence" ::: "memory");
    ctx->stats.cpuid_known++;
    ctx->gpr[RAX] = a->eax;
    ctx->gpr[RCX] = a->ecx;
    ctx->gpr[RDX] = a->edx;
    ctx->gpr[RBX] = a->ebx;
}

bool cpuid_wanted(void)
{
    struct {
        struct misslog_record head;
        char path[8];
    } record = {.head = {.magic = MISSLOG_MAGIC, .record_bytes = sizeof record, .path_bytes = sizeof CPUID_PATH - 1},
                .path = CPUID_PATH};
    if (!missing || options.no_learn)
        return false;
    cache_codegen(&record.head.codegen);
    return log_append(&record, sizeof record);
}
