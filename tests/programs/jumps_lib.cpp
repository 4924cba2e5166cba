// SPDX-License-Identifier: Apache-2.0
//
// Throws through, and calls back into, the program that uses it (jumps.cpp).
#include "jumps.h"
#include <string>

struct Guard {
    int *count;
    ~Guard()
    {
        ++*count;
    }
};

void lib_throw(int n, int *unwound)
{
    Guard guard{unwound};
    if (n == 0)
        throw LibError("from the library");
    lib_throw(n - 1, unwound);
}

int lib_call(int (*callback)(int), int n, int *unwound)
{
    Guard guard{unwound};
    try {
        return callback(n);
    } catch (const std::string &s) {
        return static_cast<int>(s.size()) + 1000;
    }
}

void lib_longjmp(jmp_buf buffer, int depth)
{
    volatile char frame[256] = {static_cast<char>(depth)};
    if (depth == 0)
        longjmp(buffer, 77);
    if (depth > 0)
        lib_longjmp(buffer, depth - 1);
    frame[1] = frame[0];
}
