# SPDX-License-Identifier: Apache-2.0
"""How cost grows: start-up against loaded libraries, against the images in the cache and against the size of the program; CPU time
against threads, memory against concurrent processes.

The guests are generated and compiled here. Each point is native and bdbi in turn, several rounds, medians; `extra` is what bdbi
costs over native per library, thread or process: it must not grow with their number.
"""
import os
import re
import statistics
import subprocess
import time

import programs
from measure import Failure, Plan, one_round

LIBRARIES = (1, 5, 20, 50, 100, 200, 500)
THREADS = (1, 2, 4, 8, 16, 32, 64)
PROCESSES = (1, 5, 20, 100)
IMAGES = (10, 100, 1000, 10000)
MEGABYTES = (1, 15, 150)  # of text
FUNCTIONS = 40  # in each library

THREADS_C = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned long step(unsigned long x, unsigned long i) { return x * 6364136223846793005ul + (i ^ (x >> 33)); }
static unsigned long other(unsigned long x, unsigned long i) { return (x ^ i) + (x << 7); }
static unsigned long (*volatile table[2])(unsigned long, unsigned long) = {step, other};

static void *work(void *seed)
{
    unsigned long x = (unsigned long)seed;
    for (unsigned long i = 0; i < 4000000; i++)
        x = table[x >> 40 & 1](x, i);
    return (void *)x;
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 1;
    pthread_t threads[64];
    unsigned long sum = 0;
    for (long i = 0; i < n; i++)
        pthread_create(&threads[i], NULL, work, (void *)(i + 1));
    for (int i = 0; i < n; i++) {
        void *x;
        pthread_join(threads[i], &x);
        sum += (unsigned long)x;
    }
    printf("%lu\n", sum);
    return 0;
}
"""

# One function of 64 bytes, as often as it takes; a few of them are called.
BIG_S = """
        .text
        .globl  many
        .type   many, @function
        .balign 64
many:   .rept   {count}
        push    %rbx
        mov     %rdi, %rbx
        imul    $7, %rdi, %rax
        test    $1, %al
        je      1f
        add     %rbx, %rax
1:      pop     %rbx
        ret
        .balign 64, 0xcc
        .endr
        .section .note.GNU-stack, "", @progbits
"""
BIG_C = """
long many(long);
int main(void)
{{
    long x = 1;
    for (long i = 0; i < 1000; i++) {{
        long (*f)(long) = (long (*)(long))(void *)((char *)many + 64 * (i * 977 % {count}));
        x = f(x);
    }}
    return (x & 1) * 0;
}}
"""

# The process that the memory is read from: a Python with a few modules, as idle servers are.
WAITER = "import json, re, socket, sys; print('ready', flush=True); sys.stdin.read()"


def compile_(scratch, source, output, *options):
    scratch.must([programs.which("gcc"), "-O1", "-o", output, source, *options])
    return output


def libraries(scratch, n):
    """A program that calls into N libraries of FUNCTIONS functions each."""
    folder = scratch.folder(f"libraries.{n}")
    objects = []
    for i in range(n):
        path = os.path.join(folder, f"libscale{i}.so")
        body = "".join(f"long scale{i}_{k}(long x) {{ return x % {k + 2} ? x * {2 * k + 3} + {i} : x - {k}; }}\n" for k in range(FUNCTIONS))
        calls = "".join(f"    x = scale{i}_{k}(x);\n" for k in range(FUNCTIONS))
        source = programs.make_file(folder, f"scale{i}.c", body + f"long scale{i}(long x)\n{{\n{calls}    return x;\n}}\n")
        objects.append(compile_(scratch, source, path, "-shared", "-fPIC", "-nostdlib"))
    declared = "".join(f"long scale{i}(long);\n" for i in range(n))
    calls = "".join(f"    x = scale{i}(x);\n" for i in range(n))
    main = programs.make_file(folder, "main.c", declared + f"int main(void)\n{{\n    long x = 1;\n{calls}    return (x & 1) * 0;\n}}\n")
    return [compile_(scratch, main, os.path.join(folder, "main"), *objects, "-Wl,-rpath," + folder)]


def threads(scratch, n):
    source = programs.make_file(scratch.folder("threads"), "threads.c", THREADS_C)
    program = os.path.join(scratch.folder("threads"), "threads")
    if not os.path.exists(program):
        compile_(scratch, source, program, "-pthread")
    return [program, str(n)]


def big(scratch, megabytes):
    folder, count = scratch.folder(f"big.{megabytes}"), megabytes * (1 << 20) // 64
    path = os.path.join(folder, "big")
    if not os.path.exists(path):
        source = programs.make_file(folder, "many.s", BIG_S.format(count=count))
        compile_(scratch, programs.make_file(folder, "main.c", BIG_C.format(count=count)), path, source)
    return [path]


def image_points(scratch, runners, rounds):
    """Start-up of one program while libraries that it does not use fill the cache. Each is the same but for a number in its data."""
    folder, points, made = scratch.folder("images"), [], 0
    source = programs.make_file(folder, "one.c", "const volatile char number[16] = \"@@@@@@@@@@@@@@@\";\nint one(int x) { return x + number[0]; }\n")
    with open(compile_(scratch, source, os.path.join(folder, "one.so"), "-shared", "-fPIC", "-nostdlib"), "rb") as f:
        template = f.read()
    argv = programs.tool("true")
    for r in runners:
        r.prepare(argv)
    for n in IMAGES:
        new = []
        for i in range(made, n):
            new.append(os.path.join(folder, f"image{i}.so"))
            with open(new[-1], "wb") as f:
                f.write(template.replace(b"@@@@@@@@@@@@@@@", b"%015d" % i))
            os.chmod(new[-1], 0o755)
        made = n
        for r in runners[1:]:
            for at in range(0, len(new), 1000):
                scratch.must([r.warmer, "--cache", r.cache, *r.tool, *new[at : at + 1000]])
        points += timed_points(scratch, runners, "images", (n,), lambda *_: argv, Plan("wall", 20, 1.0), rounds)
    return points


def timed_points(scratch, runners, name, numbers, command, plan, rounds):
    points = []
    for n in numbers:
        argv = command(scratch, n)
        begin = time.perf_counter()
        for r in runners:
            r.prepare(argv)
        prepared = time.perf_counter() - begin
        taken = [one_round(scratch, runners, argv, plan) for _ in range(rounds)]
        seconds = {r.name: statistics.median(t[r.name] for t in taken) for r in runners}
        extra = {r.name: (seconds[r.name] - seconds["native"]) / n for r in runners[1:]}
        points.append({"n": n, "seconds": seconds, "extra_seconds_each": extra, "prepare_seconds": prepared})
        print(f"{name} {n:4}: " + ", ".join(f"{k} {v * 1000:.2f} ms" for k, v in seconds.items())
              + "".join(f", {k}: {v * 1e6:.2f} us more for each" for k, v in extra.items()) + f" (prepared in {prepared:.1f} s)", flush=True)
    return points


def rollup(pid):
    """Private, shared and proportional kB of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as f:
        kb = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+): +(\d+) kB", f.read(), re.M)}
    return {"private": kb["Private_Clean"] + kb["Private_Dirty"], "shared": kb["Shared_Clean"] + kb["Shared_Dirty"], "pss": kb["Pss"]}


def memory_of(scratch, argv, n):
    """The means over N processes that run at the same time."""
    running = []
    try:
        for _ in range(n):
            running.append(subprocess.Popen(argv, env=scratch.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        for p in running:
            if p.stdout.readline() != b"ready\n":
                raise Failure(f"did not get ready: {' '.join(argv)}")
        all_ = [rollup(p.pid) for p in running]
        return {key: round(statistics.mean(m[key] for m in all_)) for key in all_[0]}
    finally:
        for p in running:
            p.stdin.close()
            p.stdout.close()
            p.wait()


def memory_points(scratch, runners):
    python = programs.tool("python3", "-S", "-c", WAITER)
    points = []
    if not python:
        print("processes: skipped, not installed: Debian package python3")
        return points
    for r in runners:
        r.prepare(python)
    for n in PROCESSES:
        kb = {r.name: memory_of(scratch, r.wrap(python), n) for r in runners}
        points.append({"n": n, "kb_each": kb})
        print(f"processes {n:3}: " + "; ".join(f"{name} private {m['private']} shared {m['shared']} pss {m['pss']} kB each" for name, m in kb.items()),
              flush=True)
    return points


def run(scratch, runners, rounds, only):
    """The JSON object of the scale set: points of libraries, threads, processes, images in the cache, megabytes of text."""
    out = {}
    if not programs.which("gcc"):
        print("libraries, threads, images, megabytes: skipped, not installed: Debian package gcc")
    else:
        if only in (None, "libraries"):
            out["libraries"] = timed_points(scratch, runners, "libraries", LIBRARIES, libraries, Plan("wall", 10, 1.0), rounds)
        if only in (None, "threads"):
            out["threads"] = timed_points(scratch, runners, "threads", THREADS, threads, Plan("cpu"), rounds)
        if only in (None, "images"):
            out["images"] = image_points(scratch, runners, rounds)
        if only in (None, "megabytes"):
            out["megabytes"] = timed_points(scratch, runners, "megabytes", MEGABYTES, big, Plan("wall", 20, 1.0), rounds)
    if only in (None, "processes"):
        out["processes"] = memory_points(scratch, runners)
    return out


def groups(result):
    """For the chart: what each library or thread costs (ms), a start by images and megabytes (ms), the memory of each process (MB)."""
    out = []
    for name in ("libraries", "threads"):
        out += [(f"{p['n']} {name}, ms each", {k: v * 1000 / p["n"] for k, v in p["seconds"].items()}) for p in result.get(name, [])]
    for name in ("images", "megabytes"):
        out += [(f"{p['n']} {name}, ms", {k: v * 1000 for k, v in p["seconds"].items()}) for p in result.get(name, [])]
    for key in ("private", "pss"):
        out += [(f"{p['n']} processes, MB {key}", {k: m[key] / 1024 for k, m in p["kb_each"].items()}) for p in result.get("processes", [])]
    return out
