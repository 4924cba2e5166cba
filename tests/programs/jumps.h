/* SPDX-License-Identifier: Apache-2.0 */
#ifndef JUMPS_H
#define JUMPS_H
#include <csetjmp>
#include <stdexcept>

struct LibError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

void lib_throw(int n, int *unwound);
int lib_call(int (*callback)(int), int n, int *unwound);
void lib_longjmp(jmp_buf buffer, int depth);
#endif
