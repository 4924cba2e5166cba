/* SPDX-License-Identifier: Apache-2.0
 *
 * A program or a library with nothing in it but what it is linked with.
 */
#ifdef WITH_MAIN
int main(void)
{
    return 0;
}
#endif
