/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes a title over its arguments and environment, as servers do for ps, before most of its code runs.
 */
#include <stdio.h>
#include <string.h>

extern char **environ;

int main(int argc, char **argv)
{
    char *end = argv[0];
    size_t length = 0;

    for (int i = 0; i < argc; i++)
        end = argv[i] + strlen(argv[i]);
    for (char **e = environ; *e; e++)
        end = *e + strlen(*e);
    memset(argv[0], 0, (size_t)(end - argv[0]));
    strcpy(argv[0], "title");
    for (int i = 0; i < 100; i++)
        length += (size_t)snprintf(NULL, 0, "%g", i * 0.37);
    printf("%s %zu\n", argv[0], length);
    return 0;
}
