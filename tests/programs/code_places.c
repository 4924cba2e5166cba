/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that maps memory where bdbi has put translated code, as it may: nothing of its own is there. It must get the place,
 * keep what it writes there, and go on. The distances are those of launcher/context.h; natively they mean nothing.
 */
#include "check.h"
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)
#define CODE 0x40000000ul  /* of the module at A at A + this */
#define ARENA 0x70000000ul /* from the window's start, a little below the program */
#define ROOM 0x30000ul

extern char __executable_start[];

/* Whether nothing of the program's is in [start, start + bytes), by its maps. */
static int is_free(char *start, size_t bytes)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    int free = 1;
    while (fgets(line, sizeof line, f)) {
        unsigned long low, high;
        if (sscanf(line, "%lx-%lx", &low, &high) == 2 && low < (unsigned long)start + bytes && (unsigned long)start < high)
            free = 0;
    }
    fclose(f);
    return free;
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static volatile sig_atomic_t signals;

static void on_signal(int signal)
{
    (void)signal;
    signals++;
}

/* Code old and new: of libraries, of this program, written now, in a signal handler. */
static unsigned work(unsigned seed)
{
    int numbers[300];
    char text[64];
    unsigned sum = 0;
    for (int i = 0; i < 300; i++)
        numbers[i] = (int)((seed = seed * 1103515245 + 12345) >> 8);
    qsort(numbers, 300, sizeof *numbers, compare);
    for (int i = 0; i < 300; i++)
        sum = sum * 31 + (unsigned)numbers[i];
    snprintf(text, sizeof text, "%u %.3f", sum, seed / 3.0);
    raise(SIGUSR1);
    static unsigned char *page;
    if (!page)
        page = mmap(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, "\xb8\0\0\0\0\xc3", 6); /* mov eax,LENGTH; ret */
    page[1] = (unsigned char)strlen(text);
    return sum + ((unsigned (*)(void))(void *)page)();
}

static void check_pattern(const char *what, const char *p, size_t bytes)
{
    size_t wrong = 0;
    for (size_t i = 0; i < bytes; i += PAGE)
        wrong += p[i] != 'x' || p[i + PAGE - 1] != 'x';
    printf("%s: %zu pages wrong\n", what, wrong);
}

static void use(const char *what, char *p, size_t bytes)
{
    size_t touched = bytes < 64 * PAGE ? bytes : 64 * PAGE;
    memset(p, 'x', touched);
    printf("%s: work %08x, shown in maps: %d\n", what, work(17), !is_free(p, PAGE) && !is_free(p + bytes - PAGE, PAGE));
    check_pattern(what, p, touched);
}

static void take(const char *what, char *place, size_t bytes, int flags)
{
    if (!is_free(place, bytes)) { /* natively the heap may be anywhere */
        place = NULL;
        flags = 0;
    }
    char *p = mmap(place, bytes, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    CHECK(p != MAP_FAILED && (p == place || !place));
    use(what, p, bytes);
}

static void take_by_moving(const char *what, char *place, size_t bytes)
{
    char *p = mmap(NULL, bytes, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (is_free(place, bytes))
        CHECK((p = mremap(p, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place)) == place);
    use(what, p, bytes);
}

static void take_by_segment(const char *what, char *place, size_t bytes, int flags)
{
    int id = shmget(IPC_PRIVATE, bytes, IPC_CREAT | 0600);
    char *p = shmat(id, is_free(place, bytes) ? place : NULL, is_free(place, bytes) ? flags : 0);
    shmctl(id, IPC_RMID, NULL);
    CHECK(p != (char *)-1);
    use(what, p, bytes);
    CHECK(shmdt(p) == 0);
    printf("%s, gone: work %08x\n", what, work(18));
}

static void take_code(void)
{
    char *code = __executable_start + CODE;
    take("over this program's code", code, PAGE, MAP_FIXED);
    take("over all modules' code", code, 0x20000000, MAP_FIXED);
}

static void take_arena(void)
{
    char *arena = __executable_start + ARENA - ROOM;
    take("not replacing", arena, 0x200000, MAP_FIXED_NOREPLACE);
    take_by_moving("moved there", arena + 0x200000, 0x200000);
    take_by_segment("a segment", arena + 0x400000, 0x200000, 0);
    take_by_segment("a segment over it", arena + 0x600000, 0x200000, SHM_REMAP);
    take("mapped", arena + 0x800000, 0x4000000, MAP_FIXED);
}

/* munmap over places where the program has nothing. */
static void unmap(void)
{
    printf("unmapped: %d %d %d\n", munmap((void *)0x554000000000, 0x100000000), munmap((void *)0x101000000000, 0x1000000000),
           munmap(__executable_start + ARENA - ROOM, 0x9000000));
    printf("work %08x\n", work(19));
}

int main(int argc, char **argv)
{
    struct timespec soon = {0, 100};
    signal(SIGUSR1, on_signal);
    printf("at first: work %08x\n", work(17));
    if (argc > 1 && !strcmp(argv[1], "code"))
        take_code();
    take_arena();
    unmap();
    nanosleep(&soon, NULL);
    printf("signals %d\n", (int)signals);
    return check_end("code_places");
}
