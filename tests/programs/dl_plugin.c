/* SPDX-License-Identifier: Apache-2.0
 *
 * A library to dlopen, built twice with different PLUGIN numbers: after dlclose the other one is mapped at the same place, so
 * code kept for the old address would show.
 */
#include <stdio.h>

const char *plugin_name(void);
int plugin_call(int (*callback)(int), int n);
int plugin_switch(int n);
extern __thread int plugin_tls;

__thread int plugin_tls = PLUGIN;

__attribute__((constructor)) static void loaded(void)
{
    if (PLUGIN == 1)
        plugin_tls += 100;
}

const char *plugin_name(void)
{
    return PLUGIN == 1 ? "first" : "second";
}

int plugin_call(int (*callback)(int), int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += callback(i) * PLUGIN;
    return sum + plugin_tls;
}

int plugin_switch(int n)
{
    switch (n) {
    case 0:
        return PLUGIN + 3;
    case 1:
        return PLUGIN * 7;
    case 2:
        return -PLUGIN;
    case 3:
        return PLUGIN << 4;
    case 4:
        return printf("plugin %d prints\n", PLUGIN);
    case 5:
        return PLUGIN ^ 0x55;
    default:
        return 0;
    }
}
