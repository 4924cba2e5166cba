/* SPDX-License-Identifier: Apache-2.0
 *
 * The core's memory: a bump allocator for what lives as long as the process, fault-safe copies from the guest, a futex lock.
 */
#include "launcher/core.h"

#define HEAP_CHUNK_BYTES (256 * 1024ull)

/* The first chunk comes with the program: no system call on the way to the guest. */
static char first_chunk[HEAP_CHUNK_BYTES] CORE_LARGE __attribute__((aligned(4096)));
static struct {
    char *next;
    size_t left;
} heap;
uint32_t core_lock;

/* No memory of ours is ever writable and executable, nor executable here and writable elsewhere. Every mapping the core makes
 * comes through these two. */
static void check_protection(int prot, int flags)
{
    if (!options.native && prot & PROT_EXEC_ && (prot & PROT_WRITE_ || flags & MAP_SHARED_))
        die(125, "internal error: memory would be writable and executable: please report it");
}

long core_mmap(uint64_t address, uint64_t bytes, int prot, int flags, int fd, uint64_t offset)
{
    check_protection(prot, flags);
    return sys6(__NR_mmap, address, bytes, (uint64_t)prot, (uint64_t)flags, (uint64_t)(int64_t)fd, offset);
}

long core_mprotect(uint64_t address, uint64_t bytes, int prot)
{
    check_protection(prot, 0);
    return sys3(__NR_mprotect, address, bytes, prot);
}

static uint64_t used_bytes; /* of what is for the core's own mappings */

/* The next place for BYTES; 0, where the kernel likes, when all is used. What is given back last is used again. */
static uint64_t own_place(size_t bytes)
{
    uint64_t pages = PAGE_UP(bytes), at = __atomic_fetch_add(&used_bytes, pages, __ATOMIC_RELAXED);
    if (at + pages <= BDBI_CORE_HEAP_END - BDBI_CORE_HEAP)
        return BDBI_CORE_HEAP + at;
    __atomic_fetch_sub(&used_bytes, pages, __ATOMIC_RELAXED);
    return 0;
}

void *map_or_die(uint64_t address, size_t bytes, int prot, int flags)
{
    long p = core_mmap(address ? address : own_place(bytes), bytes, prot, flags, -1, 0);
    if (sys_failed(p))
        die(125, "the kernel refused %u bytes of memory (error %d): raise the address space limit (ulimit -v)", (uint64_t)bytes,
            (int)-p);
    own_add((uint64_t)p, bytes);
    return (void *)p;
}

void unmap_own(void *start, size_t bytes)
{
    uint64_t end = (uint64_t)start + PAGE_UP(bytes) - BDBI_CORE_HEAP, left = end - PAGE_UP(bytes);
    sys2(__NR_munmap, start, bytes);
    own_remove((uint64_t)start);
    __atomic_compare_exchange_n(&used_bytes, &end, left, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

void *heap_alloc(size_t bytes)
{
    bytes = (bytes + 15) & ~15ull;
    if (!heap.next) {
        heap.next = first_chunk;
        heap.left = sizeof first_chunk;
    }
    if (heap.left < bytes) {
        size_t chunk = bytes > HEAP_CHUNK_BYTES / 4 ? PAGE_UP(bytes) : HEAP_CHUNK_BYTES;
        char *p = map_or_die(0, chunk, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_NORESERVE_);
        if (chunk != HEAP_CHUNK_BYTES)
            return p;
        heap.next = p;
        heap.left = chunk;
    }
    void *result = heap.next;
    heap.next += bytes;
    heap.left -= bytes;
    return result;
}

char *heap_string(const char *text)
{
    size_t bytes = core_strlen(text) + 1;
    return memcpy(heap_alloc(bytes), text, bytes);
}

int copy_guest(void *to, const void *from, size_t bytes)
{
    return core_copy(to, from, bytes);
}

long guest_strlen(const char *s, size_t max)
{
    for (size_t n = 0; n < max; n++) {
        char c;
        if (copy_guest(&c, s + n, 1))
            return -E_FAULT;
        if (!c)
            return (long)n;
    }
    return -E_NAMETOOLONG;
}

/* A lock is 0, or its holder's number and whether somebody waits for it. */
#define LOCK_WAITED 1u

static uint32_t held_by(const struct thread_ctx *ctx)
{
    return (ctx->index + 1) << 1;
}

void lock_take(uint32_t *lock)
{
    uint32_t seen = 0, mine = held_by(ctx_self());
    while (!__atomic_compare_exchange_n(lock, &seen, mine, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        if (seen & LOCK_WAITED ||
            __atomic_compare_exchange_n(lock, &seen, seen | LOCK_WAITED, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            sys4(__NR_futex, lock, 128 /* FUTEX_WAIT_PRIVATE */, seen | LOCK_WAITED, 0);
        mine |= LOCK_WAITED; /* others may wait still */
        seen = 0;
    }
}

void lock_drop(uint32_t *lock)
{
    if (__atomic_exchange_n(lock, 0, __ATOMIC_RELEASE) & LOCK_WAITED)
        sys3(__NR_futex, lock, 129 /* FUTEX_WAKE_PRIVATE */, 1);
}

void lock_inherit(uint32_t *lock)
{
    *lock = held_by(ctx_self());
}

void lock_abandon(uint32_t *lock, const struct thread_ctx *ctx)
{
    if ((__atomic_load_n(lock, __ATOMIC_RELAXED) & ~LOCK_WAITED) == held_by(ctx))
        lock_drop(lock);
}
