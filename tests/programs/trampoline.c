/* SPDX-License-Identifier: Apache-2.0
 *
 * Built for an executable stack: trampolines of nested functions, in the main program's stack and a thread's.
 */
#include "check.h"
#include <pthread.h>

static int apply(int (*f)(int), int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += f(i);
    return sum;
}

static void *body(void *argument)
{
    int factor = *(int *)argument;
    int nested(int x)
    {
        return x * factor;
    }
    printf("factor %d: %d\n", factor, apply(nested, 10));
    factor = 7;
    printf("factor %d: %d\n", factor, apply(nested, 10));
    return NULL;
}

int main(void)
{
    int factor = 3;
    pthread_t thread;
    body(&factor);
    CHECK(pthread_create(&thread, NULL, body, &factor) == 0);
    pthread_join(thread, NULL);
    return check_end("trampoline");
}
