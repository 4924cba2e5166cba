#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# check_core.sh NM CORE_OBJECT: fails if the core refers to anything but what it may: glibc's entry point, the linker's own symbols and
# the tools' weaving interface, which only the translator's tools call.
undefined=$("$1" -u "$2" | awk '{print $NF}' | grep -vE '^(_start|__ehdr_start|_GLOBAL_OFFSET_TABLE_|bdbi_block_[a-z_]+)$')
if [ -n "$undefined" ]; then
    echo "the core is freestanding, but refers to:" $undefined >&2
    exit 1
fi
if "$1" "$2" | grep -qE ' [bBdD] .*tls'; then
    echo "the core must not use thread-local storage" >&2
    exit 1
fi
