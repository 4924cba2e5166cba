// SPDX-License-Identifier: Apache-2.0
//
// setjmp and longjmp, and C++ exceptions through a library in both directions, rethrown, nested, from threads, uncaught in a
// noexcept function.
#include "jumps.h"
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <thread>
#include <unistd.h>

static int unwound;

static int callback(int n)
{
    if (n == 1)
        throw std::string("text");
    if (n == 2)
        throw 2.5;
    return n * 10;
}

static int nested(int n)
{
    try {
        try {
            lib_throw(n, &unwound);
        } catch (const LibError &e) {
            throw std::string(e.what()) + " again";
        }
    } catch (const std::string &s) {
        return static_cast<int>(s.size());
    }
    return -1;
}

static void test_jumps()
{
    jmp_buf buffer;
    volatile int rounds = 0;
    int value = setjmp(buffer);
    if (value != 0)
        rounds = rounds + 1;
    if (rounds < 5)
        lib_longjmp(buffer, 10 * rounds);
    std::printf("longjmp value %d, rounds %d\n", value, rounds);

    sigjmp_buf signal_buffer;
    volatile int seen = 0;
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    if (sigsetjmp(signal_buffer, 1) == 0) {
        sigprocmask(SIG_BLOCK, &set, nullptr);
        siglongjmp(signal_buffer, 1);
    }
    sigprocmask(SIG_BLOCK, nullptr, &old);
    seen = sigismember(&old, SIGUSR1);
    std::printf("mask restored: %s\n", seen ? "no" : "yes");
}

static void test_exceptions()
{
    for (int i = 0; i < 20; i++) {
        try {
            lib_throw(i, &unwound);
            std::printf("not reached\n");
        } catch (const std::exception &e) {
            if (i == 19)
                std::printf("caught: %s\n", e.what());
        }
    }
    std::printf("unwound %d frames\n", unwound);
    std::printf("%d %d\n", lib_call(callback, 3, &unwound), lib_call(callback, 1, &unwound));
    try {
        lib_call(callback, 2, &unwound);
    } catch (double d) {
        std::printf("double %.1f through the library\n", d);
    }
    std::printf("nested %d\n", nested(3));
    std::exception_ptr kept;
    try {
        lib_throw(2, &unwound);
    } catch (...) {
        kept = std::current_exception();
    }
    std::thread thread([kept] {
        try {
            std::rethrow_exception(kept);
        } catch (const LibError &e) {
            std::printf("in a thread: %s\n", e.what());
        }
    });
    thread.join();
}

static void no_throw() noexcept
{
    lib_throw(1, &unwound);
}

int main()
{
    test_jumps();
    test_exceptions();
    std::printf("unwound %d frames in all\n", unwound);
    std::fflush(stdout);
    std::set_terminate([] {
        std::printf("terminate called\n");
        std::fflush(stdout);
        _exit(12);
    });
    no_throw();
    return 0;
}
