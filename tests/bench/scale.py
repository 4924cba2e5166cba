# SPDX-License-Identifier: Apache-2.0
"""How cost grows: start-up against loaded libraries, against the images in the cache and against the size of the program; CPU time
against threads, memory against concurrent processes.

The guests are generated and compiled here. Times are CPU time, user and system, the tenth percentile of many runs of native and
bdbi in turn: what else the machine does moves it little, and runs that are lucky (a large program's pages in huge ones) do not
count. Linear growth is an exponent of 1 between two points; a program may itself grow faster (ld.so looks a symbol up in one
library after the other), bdbi's ratio to native must then not grow.
"""
import math
import os
import re
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor

import programs
import report
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


def low(values):
    return sorted(values)[len(values) // 10]


def compile_(scratch, source, output, *options):
    scratch.must([programs.which("gcc"), "-O1", "-o", output, source, *options])
    return output


def library(scratch, folder, i):
    path = os.path.join(folder, f"libscale{i}.so")
    if not os.path.exists(path):
        body = "".join(f"long scale{i}_{k}(long x) {{ return x % {k + 2} ? x * {2 * k + 3} + {i} : x - {k}; }}\n" for k in range(FUNCTIONS))
        calls = "".join(f"    x = scale{i}_{k}(x);\n" for k in range(FUNCTIONS))
        source = programs.make_file(folder, f"scale{i}.c", body + f"long scale{i}(long x)\n{{\n{calls}    return x;\n}}\n")
        compile_(scratch, source, path, "-shared", "-fPIC", "-nostdlib")
    return path


def libraries(scratch, n):
    """A program that calls into N libraries of FUNCTIONS functions each."""
    folder = scratch.folder("libraries")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda i: library(scratch, folder, i), range(n)))
    declared = "".join(f"long scale{i}(long);\n" for i in range(n))
    calls = "".join(f"    x = scale{i}(x);\n" for i in range(n))
    main = programs.make_file(folder, f"main{n}.c", declared + f"int main(void)\n{{\n    long x = 1;\n{calls}    return (x & 1) * 0;\n}}\n")
    return [compile_(scratch, main, os.path.join(folder, f"main{n}"), *objects, "-Wl,-rpath," + folder)]


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


def fill_cache(scratch, runners, program, n):
    """Libraries up to the Nth, each the same but for a number in its data, warmed beside PROGRAM, which does not use them."""
    folder, template, new = scratch.folder("images"), scratch.path("image.so"), 0
    if not os.path.exists(template):
        source = programs.make_file(scratch.root, "image.c", "const volatile char number[16] = \"@@@@@@@@@@@@@@@\";\nint one(int x) { return x + number[0]; }\n")
        compile_(scratch, source, template, "-shared", "-fPIC", "-nostdlib")
    with open(template, "rb") as f:
        content = f.read()
    for i in range(n):
        path = os.path.join(folder, f"image{i}.so")
        if not os.path.exists(path):
            with open(path, "wb") as f:
                f.write(content.replace(b"@@@@@@@@@@@@@@@", b"%015d" % i))
            os.chmod(path, 0o755)
            new += 1
    for r in runners[1:]:
        said = scratch.must([r.warmer, "--cache", r.cache, *r.tool, "--also", folder, program]).stdout.decode().splitlines()[-1]
        if int(re.search(r"\((\d+) translated", said)[1]) < new:
            raise Failure(f"not {new} new images: {said}")


def start_of_true(scratch, runners, n):
    argv = programs.tool("true")
    fill_cache(scratch, runners, argv[0], n)
    return argv


def timed_points(scratch, runners, name, numbers, command, plan, rounds):
    """command(n) makes the program's command line."""
    points = []
    for n in numbers:
        argv = command(n)
        warming = {r.name: scratch.run([r.warmer, "--cache", r.cache, *r.tool, argv[0]]).cpu for r in runners[1:]}
        for r in runners:
            r.prepare(argv)
        taken = [one_round(scratch, runners, argv, plan) for _ in range(rounds)]
        seconds = {r.name: statistics.median(t[r.name] for t in taken) for r in runners}
        points.append({"n": n, "seconds": seconds, "warming_seconds": warming})
        print(f"{name} {n:5}: " + ", ".join(f"{k} {v * 1000:.2f} ms ({v / seconds['native']:.2f} x)" for k, v in seconds.items())
              + "".join(f"; {k} warmed in {v:.2f} s" for k, v in warming.items()), flush=True)
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


def memory_points(scratch, runners, numbers):
    python = programs.tool("python3", "-S", "-c", WAITER)
    points = []
    if not python:
        print("processes: skipped, not installed: Debian package python3")
        return points
    for r in runners:
        r.prepare(python)
    for n in numbers:
        kb = {r.name: memory_of(scratch, r.wrap(python), n) for r in runners}
        points.append({"n": n, "kb_each": kb})
        print(f"processes {n:3}: " + "; ".join(f"{name} private {m['private']} shared {m['shared']} pss {m['pss']} kB each" for name, m in kb.items()),
              flush=True)
    return points


def run(scratch, runners, rounds, only, most):
    """The JSON object of the scale set: points of libraries, threads, processes, images in the cache, megabytes of text, up to MOST."""
    plans = {
        "libraries": (LIBRARIES, lambda n: libraries(scratch, n), Plan("cpu", 25, 4.0, low)),
        "threads": (THREADS, lambda n: threads(scratch, n), Plan("cpu", 5, 10.0, low)),
        "images": (IMAGES, lambda n: start_of_true(scratch, runners, n), Plan("cpu", 100, 4.0, low)),
        "megabytes": (MEGABYTES, lambda n: big(scratch, n), Plan("cpu", 50, 4.0, low)),
    }
    out = {}
    for name, (numbers, command, plan) in plans.items():
        if only not in (None, name):
            continue
        if not programs.which("gcc"):
            print(f"{name}: skipped, not installed: Debian package gcc")
            continue
        out[name] = timed_points(scratch, runners, name, [n for n in numbers if n <= most], command, plan, rounds)
    if only in (None, "processes"):
        out["processes"] = memory_points(scratch, runners, [n for n in PROCESSES if n <= most])
    return out


def exponent(points, value):
    """Of the growth between the last two points; 1 is linear."""
    (n, before), (m, after) = ((p["n"], value(p)) for p in points[-2:])
    return math.log(after / before) / math.log(m / n)


def tables(result, names):
    """Rows of text, by test: milliseconds and ratio, or MB for each process; then the growth."""
    out = []
    for name, points in result.items():
        if name == "processes":
            columns = [(f"{n} {key} MB", lambda p, n=n, key=key: p["kb_each"][n][key] / 1024) for n in names for key in ("private", "shared", "pss")]
        else:
            columns = [(f"{n} ms", lambda p, n=n: p["seconds"][n] * 1000) for n in names]
            columns += [(f"{n} x native", lambda p, n=n: p["seconds"][n] / p["seconds"]["native"]) for n in names[1:]]
        if name == "megabytes":
            columns += [(f"{n} warming s", lambda p, n=n: p["warming_seconds"][n]) for n in names[1:]]
        rows = [[name, *[label for label, _ in columns]]]
        rows += [[str(p["n"]), *[f"{value(p):.2f}" for _, value in columns]] for p in points]
        if len(points) > 1:
            rows.append(["exponent of the last step", *[f"{exponent(points, value):.2f}" for _, value in columns]])
        out += [*report.columns(rows), ""]
    return "\n".join(out)


def charts(result, names, note):
    """{name of the file: SVG}."""
    out = {}

    def add(name, *args, **keys):
        out["scale-" + name] = report.lines(*args, note, **keys)

    def seconds(name, factor=1000.0):
        return {r: [(p["n"], p["seconds"][r] * factor) for p in result[name]] for r in names}

    if result.get("libraries"):
        add("libraries", "Start-up of a program by its libraries", "libraries", "CPU ms", seconds("libraries"), linear="bdbi")
    if result.get("threads"):
        add("threads", "Four million indirect calls in each thread", "threads", "CPU ms of all threads", seconds("threads"), linear="bdbi")
    if result.get("images"):
        add("images", "Start-up of true by what is in the cache", "images in the cache", "CPU ms", seconds("images"))
    if result.get("megabytes"):
        add("megabytes", "Start-up of a program by its size", "MB of text", "CPU ms", seconds("megabytes"))
        add("warming", "Warming a program by its size", "MB of text", "CPU s", {r: [(p["n"], p["warming_seconds"][r]) for p in result["megabytes"]] for r in names[1:]},
            linear="bdbi", first=1)
    if result.get("processes"):
        add("processes", "Memory of each of many python3 processes", "processes at the same time", "MB each",
            {f"{r} {key}": [(p["n"], p["kb_each"][r][key] / 1024) for p in result["processes"]] for key in ("private", "shared") for r in names})
    return out
