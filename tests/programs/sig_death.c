/* SPDX-License-Identifier: Apache-2.0
 *
 * Ends in the way its argument says; the parent sees the same status as natively.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *exit_from_thread(void *arg)
{
    (void)arg;
    exit(21);
}

static void *spin(void *arg)
{
    for (volatile unsigned long i = 0;; i++)
        if (i == (unsigned long)-1)
            return arg;
}

static void *slow(void *arg)
{
    usleep(20000);
    puts("thread ends after main");
    fflush(stdout);
    return arg;
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    volatile long near_null = 16;
    pthread_t thread;
    printf("ending by %s\n", how);
    fflush(stdout);
    if (!strcmp(how, "segv"))
        *(volatile int *volatile)(uintptr_t)near_null = 1;
    if (!strcmp(how, "abort"))
        abort();
    if (!strcmp(how, "ill"))
        __asm__ volatile("ud2");
    if (!strcmp(how, "trap"))
        __asm__ volatile("int3");
    if (!strcmp(how, "fpe"))
        __asm__ volatile("xor %%ecx, %%ecx\n div %%ecx" ::: "rax", "rcx", "rdx");
    if (!strcmp(how, "hlt"))
        __asm__ volatile("hlt");
    if (!strcmp(how, "jump"))
        ((void (*)(void))(long)0x10000)();
    if (!strcmp(how, "kill"))
        kill(getpid(), SIGKILL);
    if (!strcmp(how, "term"))
        raise(SIGTERM);
    if (!strcmp(how, "pipe"))
        raise(SIGPIPE);
    if (!strcmp(how, "rt"))
        kill(getpid(), SIGRTMIN + 3);
    if (!strcmp(how, "exit-thread")) {
        pthread_create(&thread, NULL, exit_from_thread, NULL);
        for (;;)
            pause();
    }
    if (!strcmp(how, "exit-group")) {
        for (int i = 0; i < 6; i++)
            pthread_create(&thread, NULL, spin, NULL);
        _exit(22);
    }
    if (!strcmp(how, "main-first")) {
        pthread_create(&thread, NULL, slow, NULL);
        pthread_exit(NULL);
    }
    if (!strcmp(how, "only-thread"))
        syscall(SYS_exit, 23);
    return 24;
}
