#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Objects that are no tools: one clear line that names the object, status 125, the program does not start; in bdbi run and in
bdbi-warm."""
import os
import shutil

from objects import COUNT, MAIN, REPORT, Objects


def patched(test, name, at, data):
    with open(test.bbcount, "rb") as f:
        content = bytearray(f.read())
    content[at:at + len(data)] = data
    with open(test.path(name), "wb") as f:
        f.write(content)
    return test.path(name)


def cut(test, name, part):
    shutil.copy(test.bbcount, test.path(name))
    os.truncate(test.path(name), part)
    return test.path(name)


def bad_objects(test):
    """(object, what the line says)"""
    good = COUNT + REPORT + MAIN
    with open(test.path("text.so"), "w", encoding="utf-8") as f:
        f.write("just text\n" * 1000)
    open(test.path("empty.so"), "wb").close()
    os.mkdir(test.path("folder.so"))
    os.mkfifo(test.path("pipe.so"))
    yield test.path("missing.so"), "missing.so.*no such file"
    yield test.path("text.so", "below.so"), "below.so.*no such file"
    yield test.path("text.so"), "text.so.*not a shared object"
    yield test.path("empty.so"), "empty.so.*not a shared object"
    yield test.path("folder.so"), "folder.so.*not a shared object"
    yield test.path("pipe.so"), "pipe.so.*not a shared object"
    yield "/usr/bin/true", "true.*bdbi_tool_main"
    yield test.build("other.so", "int f(void); int f(void) { return 1; }\n"), "other.so.*bdbi_tool_main"
    yield test.build("other_sysv.so", "int f(void); int f(void) { return 1; }\n", "-Wl,--hash-style=sysv"), "other_sysv.so.*bdbi_tool_main"
    yield test.build("relocatable.so", good, flags=("-c", "-fPIC")), "relocatable.so.*-shared"
    yield patched(test, "arm.so", 18, b"\xb7\x00"), "arm.so.*architecture"
    yield patched(test, "elf32.so", 4, b"\x01"), "elf32.so.*architecture"
    yield cut(test, "magic.so", 4), "magic.so.*truncated"
    yield cut(test, "header.so", 64), "header.so.*truncated"
    yield cut(test, "half.so", os.path.getsize(test.bbcount) // 2), "half.so.*truncated"
    yield patched(test, "phoff.so", 32, b"\xff" * 8), "phoff.so.*truncated or corrupt"
    yield test.build("abi.so", good.replace("BDBI_TOOL_ABI", "BDBI_TOOL_ABI + 1")), "abi.so.*another version"
    yield test.build("noname.so", good.replace('"mine"', "0")), "noname.so.*incomplete"
    yield test.build("noweave.so", good.replace("weave, report};", "0, report};").replace("static void weave", "void weave")), "noweave.so.*incomplete"
    yield test.build("printf.so", good.replace("static void report", "#include <stdio.h>\nstatic void report").replace("bdbi_run_write", 'puts("x"); bdbi_run_write')), "printf.so.*does not offer.*puts"
    yield test.build("libc.so", good.replace('bdbi_run_write(r, "report\\n", 7)', "extern char **environ; *(char *volatile *)environ = (char *)r")), "libc.so.*does not offer.*environ"
    yield test.build("tls.so", good.replace("static void weave", "static __thread int seen;\nstatic void weave").replace("{ bdbi_block_count", "{ seen++; bdbi_block_count")), "tls.so.*thread-local"
    yield test.build("ifunc.so", good + "static int one(void) { return 1; }\nstatic int (*pick(void))(void) { return one; }\nint f(void) __attribute__((ifunc(\"pick\")));\n"
                     "int (*pointer)(void) = f;\n"), "ifunc.so.*indirect function"
    yield test.build("textrel.so", good + "__asm__(\".text\\n.quad bdbi_block_count\\n\");\n", "-Wl,-z,notext"), "textrel.so.*-fPIC"
    yield test.build("wx.so", good, "-Wl,-N", "-nostdlib"), "wx.so.*(writable and executable|share a page)"
    yield test.build("relr.so", good, "-Wl,-z,pack-relative-relocs", "-nostdlib"), "relr.so.*packed"
    yield test.build("big.so", good.replace("static void report", "char big[20 << 20] = {0};\nstatic void report")), "big.so.*16 MB"


def body(test):
    for path, pattern in bad_objects(test):
        name = os.path.basename(path)
        test.one_line("run " + name, test.bdbi_run(path, "echo", "started"), 125, pattern)
        test.one_line("warm " + name, test.run([test.warmer, "--tool", path, "true"]), 125, pattern)
    # Not even a fault of the program's: the tool comes first. And not in a program that cannot be found.
    test.one_line("unknown option", test.bdbi_run(test.every + ":nonsense=1", "echo"), 125, "nonsense.*out=FILE, every=VALUE, label=VALUE")
    test.one_line("option without value", test.bdbi_run(test.every + ":every=", "echo"), 125, "every=")
    test.one_line("warm, unknown option", test.run([test.warmer, "--tool", test.every + ":nonsense=1", "true"]), 125, "nonsense")
    test.one_line("an option of another tool", test.bdbi_run(test.bbcount + ":every=1", "echo"), 125, "every=1")
    test.one_line("no slash", test.bdbi_run("bbcount.so", "echo"), 125, "bbcount.so.*'/'")
    os.symlink(test.bbcount, test.path("link.so"))
    p = test.bdbi_run("./link.so", "echo", "started")
    test.check(p.returncode == 0 and p.stdout == b"started\n", f"by a relative path and a link: status {p.returncode} {p.stderr[-200:]!r}")
    # Flags that people use.
    good = COUNT + REPORT + MAIN
    for name, options in {"plain": (), "O0": ("-O0",), "debug": ("-g",), "sysv": ("-Wl,--hash-style=sysv",), "nostdlib": ("-nostdlib",), "hidden": ("-fvisibility=hidden",),
                          "lazy": ("-Wl,-z,lazy",), "now": ("-Wl,-z,now",), "norelro": ("-Wl,-z,norelro",), "nosep": ("-Wl,-z,noseparate-code",), "noplt": ("-fno-plt",),
                          "lto": ("-flto",), "native": ("-O3", "-march=x86-64-v2"), "stripped": ("-s",), "bss": ("-DBSS",)}.items():
        source = good.replace("static void report", "static char space[100000];\nstatic void report").replace('r, "report\\n", 7', 'r, space[99999] ? "no\\n" : "report\\n", 7') if name == "bss" else good
        p = test.bdbi_run(test.build(f"good-{name}.so", source, *options), "echo", "started")
        test.check(p.returncode == 0 and p.stdout == b"started\n" and p.stderr == b"report\n", f"built with {options}: status {p.returncode} {p.stderr[-200:]!r}")


if __name__ == "__main__":
    Objects(__doc__).main(body)
