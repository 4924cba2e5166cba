/* SPDX-License-Identifier: Apache-2.0
 *
 * The translator inside a guest's process: glibc's main for argv[0] "bdbi-jit". It waits for requests of the core and answers
 * them; it never returns. Nothing here may use the guest's fs, brk, descriptors or signals.
 */
#include "launcher/host.h"
#include "launcher/jit_glue.h"
#include "launcher/layout.h"
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The process's brk belongs to the guest, so libc gets an arena instead (early TLS, malloc's first chunk). Past its end it gets
 * memory in bdbi's own range; in a program of its own, malloc maps memory. These replace libc's own. */
static char arena[256 * 1024] __attribute__((aligned(4096)));
static size_t arena_used, heap_used;
static bool in_guest, arena_full;
extern void *__curbrk;
void *__curbrk = arena;
void *__sbrk(intptr_t increment);
int __brk(void *address);

static void *no_memory(void)
{
    errno = ENOMEM;
    return (void *)-1;
}

/* INCREMENT: whole pages, as malloc asks for; 0: where the end is. */
static void *heap_grow(size_t increment)
{
    char *end = (char *)BDBI_TRANSLATOR_HEAP + heap_used;
    if (increment > BDBI_TRANSLATOR_HEAP_END - (uint64_t)end)
        return no_memory();
    if (increment && mmap(end, increment, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != end)
        return no_memory();
    heap_used += increment;
    return end;
}

void *__sbrk(intptr_t increment)
{
    if (increment < 0)
        return no_memory();
    arena_full |= in_guest && (size_t)increment > sizeof arena - arena_used;
    if (arena_full)
        return heap_grow(((size_t)increment + 4095) & ~4095ul);
    if ((size_t)increment > sizeof arena - arena_used)
        return no_memory();
    void *old = arena + arena_used;
    arena_used += (size_t)increment;
    return old;
}

void *sbrk(intptr_t increment) __attribute__((alias("__sbrk")));

int __brk(void *address)
{
    (void)address;
    errno = ENOMEM;
    return -1;
}

int brk(void *address) __attribute__((alias("__brk")));

/* Leaves only the instruction at START in the spans: the translation ends with an exit to what follows it. */
static void clip_to_one(struct jit *jit, struct jit_request *r)
{
    struct text_span *s = &r->spans[0];
    struct insn insn;
    s->bytes += r->start - s->start;
    s->start = r->start;
    if (insn_decode(jit_decoder(jit), s->bytes, s->end - s->start, r->base + r->start, &insn) == 0)
        s->end = s->start + insn.length;
    r->nspans = 1;
}

static int translate(struct jit *jit, struct jit_request *r)
{
    if (r->single)
        clip_to_one(jit, r);
    uint32_t leaders[64];
    uint32_t max = r->max_leaders < 64 ? r->max_leaders : 64;
    struct jit_unit unit = {
        .spans = r->spans,
        .nspans = r->nspans,
        .leaders = leaders,
        .nleaders = jit_explore(jit, r->spans, r->nspans, r->start, max, r->known, r->user, leaders),
        .code_distance = (int64_t)(r->code_address - r->base),
        .fixed_base = r->fixed_base,
        .anonymous = r->anonymous,
        .checked = r->checked,
        .data_distance = r->code_address - r->base,
        .resolve = r->known,
        .user = r->user,
        .tool = r->tool,
        .tool_args = r->tool_args,
        .guard = tool_weave,
    };
    return jit_translate(jit, &unit, &r->output);
}

int translator_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    in_guest = true;
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    struct jit *jit = jit_new();
    if (jit)
        decoder_remember(jit_decoder(jit));
    struct jit_request *r = translator_yield();
    for (;;) {
        struct jit_output previous;
        r->error = jit ? translate(jit, r) : -ENOMEM;
        previous = r->output;
        r = translator_yield();
        jit_output_free(&previous);
    }
}
