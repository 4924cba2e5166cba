/* SPDX-License-Identifier: Apache-2.0
 *
 * One thread runs generated code all the time while another rewrites a function in the same page: the running thread loses the
 * code under its feet again and again, at any instruction.
 */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#define ROUNDS 3000

typedef long (*function)(long);

/*  0: xor eax,eax
 *  2: call 16              calls, returns, branches: much of their code has no app state
 *  7: dec rdi; jnz 2
 * 12: ret
 * 16: call 25
 * 21: inc rax; ret
 * 25: add rax,2; push rdi; pop rdi; ret */
static const unsigned char runner[] = {
    0x31, 0xc0, 0xe8, 9, 0, 0,    0,    0x48, 0xff, 0xcf, 0x75, 0xf6, 0xc3, 0x90, 0x90, 0x90,
    0xe8, 4,    0,    0, 0, 0x48, 0xff, 0xc0, 0xc3, 0x48, 0x83, 0xc0, 2,    0x57, 0x5f, 0xc3,
};
static unsigned char *code;
static atomic_bool stop;

static void *run(void *argument)
{
    long wrong = 0;
    (void)argument;
    while (!atomic_load(&stop))
        wrong += ((function)(void *)code)(500) != 1500;
    return (void *)wrong;
}

int main(void)
{
    pthread_t threads[2];
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(code != MAP_FAILED);
    memcpy(code, runner, sizeof runner);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, run, NULL) == 0);
    long sum = 0;
    unsigned char *other = code + 2048;
    other[0] = 0xb8; /* mov eax,VALUE; ret */
    other[5] = 0xc3;
    for (int i = 0; i < ROUNDS; i++) {
        memcpy(other + 1, &i, 4);
        sum += ((function)(void *)other)(0);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++) {
        void *wrong;
        CHECK(pthread_join(threads[i], &wrong) == 0);
        CHECK(wrong == NULL);
    }
    printf("sum %ld\n", sum);
    return check_end("code_race");
}
