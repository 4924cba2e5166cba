# SPDX-License-Identifier: Apache-2.0
"""Runs one case of cases.toml natively and under bdbi in scratch folders and says what differs.

A case has a root folder of its own:

    root/in      made once by the case's `setup` (native); inputs, never written afterwards
    root/w       working folder, empty at the start of each run: the same path in each, so that paths in outputs agree
    root/tmp     TMPDIR, empty at the start of each run
    root/home    HOME
    root/cache   the cache of the mode at hand

What is compared: stdout, stderr, exit status or signal, and the files that the case's `files` globs select in w.
"""
import difflib
import fnmatch
import hashlib
import os
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import threading
import time
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
EOF_SECONDS = 3  # after the program's end its pipes must be closed: nobody may be left holding them

# What may differ between two native runs, by name. env: variables set for all runs. text: applied to stdout and stderr.
# skip: globs of files that are not compared.
RULES = {
    "hash-seed": {"env": {"PYTHONHASHSEED": "0", "PERL_HASH_SEED": "0", "PERL_PERTURB_KEYS": "0"}},
    "git-dates": {
        "env": {
            "GIT_AUTHOR_DATE": "2020-01-02T03:04:05Z",
            "GIT_COMMITTER_DATE": "2020-01-02T03:04:05Z",
            "GIT_CONFIG_NOSYSTEM": "1",
        },
        "skip": [".git/index"],  # holds inode numbers and times
    },
    "addresses": {"text": [(rb"0x[0-9a-f]{5,16}\b", b"ADDRESS")]},
    "line-order": {"sort": True},  # parallel jobs finish in any order
    "sanitizers": {  # process and thread numbers, addresses, checksums of what was built
        "text": [(rb"0x[0-9a-f]{4,16}\b", b"ADDRESS"), (rb"(==|pid=|tid=)\d+", rb"\1N"), (rb"\s*\(BuildId: [0-9a-f]+\)", b""),
                 (rb"(?m)^ *#\d+ .*\n", b""), (rb"(?m)^ *ADDRESS: .*\n|^=>ADDRESS.*\n", b""), (rb"thread T\d", b"thread"), (rb"by T\d", b"by T")]
    },
    "thread-numbers": {"text": [(rb"(thread '[^']*') \(\d+\)", rb"\1")]},
    "job-pids": {"text": [(rb"(line \d+:) +\d+ ", rb"\1 PID ")]},  # bash reports a job that a signal ended, the PID padded to 5
    "temp-names": {"text": [(rb"/cc[A-Za-z0-9]{6}\b", b"/ccXXXXXX")]},
}


class Failure(Exception):
    """The case failed; the text says why."""


class Case:
    def __init__(self, table):
        self.name = table.pop("name")
        self.argv = table.pop("argv", None)
        self.sh = table.pop("sh", None)  # bash -c SH, bash itself running under bdbi
        self.outer = table.pop("outer", None)  # bash -c OUTER natively, $RUN being bdbi's command line
        self.setup = table.pop("setup", None)
        self.stdin = table.pop("stdin", None)  # file in `in`
        self.files = table.pop("files", [])
        self.rules = table.pop("rules", [])
        self.env = table.pop("env", {})
        self.warm = table.pop("warm", None)  # programs for bdbi-warm; default: the program itself
        self.also = table.pop("also", [])  # --also
        self.quick = table.pop("quick", False)
        self.nomiss = table.pop("nomiss", True)  # learned runs are shown to have no miss; of [[programs]] only if it says so
        self.needs = table.pop("needs", [])  # programs or files without which the case is skipped
        self.ci = table.pop("ci", True)  # of tests/suites: run by default
        self.tools = table.pop("tools", True)  # runs with a tool too
        self.subcases = table.pop("subcases", False)  # its stdout is many cases (tests/programs/subcases.h)
        self.timeout = table.pop("timeout", 60)  # of one run
        self.fails = table.pop("fails", False)  # a non-zero status is what the case is about
        if table:
            raise SystemExit(f"cases.toml: {self.name}: unknown keys {list(table)}")
        if sum(x is not None for x in (self.argv, self.sh, self.outer)) != 1:
            raise SystemExit(f"cases.toml: {self.name}: one of argv, sh, outer")
        for rule in self.rules:
            if rule not in RULES:
                raise SystemExit(f"cases.toml: {self.name}: unknown rule {rule}")
        if self.warm is None:
            self.warm = [self.argv[0]] if self.argv else ["bash"]


def load_cases(path=os.path.join(HERE, "cases.toml")):
    with open(path, "rb") as f:
        table = tomllib.load(f)
    cases = {}
    for entry in table["case"]:
        case = Case(dict(entry))
        if case.name in cases:
            raise SystemExit(f"cases.toml: two cases named {case.name}")
        cases[case.name] = case
    for program in table.get("programs", []):
        argv = ["@programs@/" + program["name"]] + program.pop("args", [])
        name = "program." + program.pop("name") + program.pop("suffix", "")
        case = Case({"nomiss": False, **program, "name": name, "argv": argv})
        if case.name in cases:
            raise SystemExit(f"cases.toml: two cases named {case.name}")
        cases[case.name] = case
    return cases


class Result:
    def __init__(self, status, out, err, files):
        self.status, self.out, self.err, self.files = status, out, err, files

    def describe_status(self):
        if self.status < 0:
            return f"killed by {signal.Signals(-self.status).name}"
        return f"exit status {self.status}"


def empty_folder(path):
    for attempt in range(5):  # a learner that is just ending may still be writing into a cache
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.exists(path):
            break
        time.sleep(0.1 * attempt)
    os.makedirs(path)


def file_state(path):
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    if kind == stat.S_IFLNK:
        return ("link", os.readlink(path))
    if kind != stat.S_IFREG:
        return (kind, stat.S_IMODE(s.st_mode))
    with open(path, "rb") as f:
        return ("file", oct(stat.S_IMODE(s.st_mode)), s.st_size, hashlib.sha256(f.read()).hexdigest()[:16])


def run_process(argv, cwd, env, stdin=None, timeout=60, check_eof=True):
    """Returns (status, stdout, stderr). A timeout, or a pipe still open after the end, is a Failure."""
    with open(stdin or os.devnull, "rb") as inp:
        # The program is looked up in env's PATH; argv[0] stays as given, as under `bdbi run`.
        p = subprocess.Popen(argv, executable=shutil.which(argv[0], path=env["PATH"]), cwd=cwd, env=env, stdin=inp, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             start_new_session=True, umask=0o022, restore_signals=True)
    outputs = {}

    def drain(name, pipe):
        outputs[name] = pipe.read()

    readers = [threading.Thread(target=drain, args=(n, s), daemon=True) for n, s in (("out", p.stdout), ("err", p.stderr))]
    for reader in readers:
        reader.start()
    try:
        p.wait(timeout)
    except subprocess.TimeoutExpired:
        kill_group(p)
        p.wait()
        for reader in readers:
            reader.join(1)
        tail = (outputs.get("out", b"")[-500:] + outputs.get("err", b"")[-500:]).decode("utf-8", "replace")
        raise Failure(f"no end after {timeout} s: {' '.join(argv)}\n{tail}")
    end = time.monotonic() + EOF_SECONDS
    for reader in readers:
        reader.join(max(0, end - time.monotonic()) if check_eof else None)
        if reader.is_alive():
            kill_group(p)
            raise Failure(f"stdout or stderr still open {EOF_SECONDS} s after the end of {' '.join(argv)}")
    p.stdout.close()
    p.stderr.close()
    return p.returncode, outputs["out"], outputs["err"]


def kill_group(p):
    try:
        os.killpg(p.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Bench:
    """One case's scratch root and the way to run it natively or under bdbi."""

    def __init__(self, case, bindir, programs, root=None):
        self.case = case
        self.bdbi = os.path.abspath(os.path.join(bindir, "bdbi"))
        self.warmer = os.path.abspath(os.path.join(bindir, "bdbi-warm"))
        self.programs = os.path.abspath(programs)
        self.root = root or tempfile.mkdtemp(prefix="bdbi-test.")
        for name in ("in", "w", "tmp", "home", "cache", "out"):
            empty_folder(os.path.join(self.root, name))
        os.chmod(self.root, 0o755)  # for cases that stop being root
        self.env = {
            "PATH": "/usr/bin:/bin",
            "HOME": self.path("home"),
            "TMPDIR": self.path("tmp"),
            "BDBI_CACHE": self.path("cache"),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "IN": self.path("in"),
            "PROGRAMS": self.programs,
            "RUN": "",
        }
        for rule in case.rules:
            self.env.update(RULES[rule].get("env", {}))
        self.env.update({k: self.expand(v) for k, v in case.env.items()})
        if case.setup:
            status, out, err = run_process(["/bin/bash", "-ec", self.expand(case.setup)], self.path("in"), self.env, timeout=120,
                                           check_eof=False)
            if status != 0:
                raise Failure(f"setup failed: {out.decode()}{err.decode()}")

    def close(self):
        try:
            self.settle()
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.root, *names)

    def expand(self, text):
        return text.replace("@suites@", os.path.join(os.path.dirname(HERE), "suites")).replace("@programs@", self.programs).replace("@in@", self.path("in"))

    def run(self, prefix):
        """Runs the case with PREFIX (a list; empty: natively) in front of its command line."""
        case = self.case
        env = dict(self.env)
        for name in ("w", "tmp"):
            empty_folder(self.path(name))
        if case.outer is not None:
            env["RUN"] = " ".join(prefix)
            argv = ["/bin/bash", "-c", self.expand(case.outer)]
        elif case.sh is not None:
            argv = prefix + ["bash", "-c", self.expand(case.sh)]
        else:
            argv = prefix + [self.expand(a) for a in case.argv]
        stdin = self.path("in", case.stdin) if case.stdin else None
        status, out, err = run_process(argv, self.path("w"), env, stdin, case.timeout)
        return Result(status, self.normalise(out), self.normalise(err), self.collect())

    def normalise(self, text):
        for rule in self.case.rules:
            for pattern, replacement in RULES[rule].get("text", []):
                text = re.sub(pattern, replacement, text)
            if RULES[rule].get("sort"):
                text = b"".join(sorted(text.splitlines(keepends=True)))
        return text

    def collect(self):
        skip = [g for rule in self.case.rules for g in RULES[rule].get("skip", [])]
        found = {}
        if not self.case.files:
            return found
        for folder, folders, names in os.walk(self.path("w")):
            for name in names + [d for d in folders if os.path.islink(os.path.join(folder, d))]:
                path = os.path.join(folder, name)
                relative = os.path.relpath(path, self.path("w"))
                if any(fnmatch.fnmatch(relative, g) for g in self.case.files) and not any(
                        fnmatch.fnmatch(relative, g) for g in skip):
                    found[relative] = file_state(path)
        return found

    # -- bdbi's own commands

    def own_command(self, argv, what):
        status, out, err = run_process(argv, self.path("out"), self.env, timeout=300)
        if status != 0:
            raise Failure(f"{what} ended with status {status}: {' '.join(argv)}\n{(out + err).decode('utf-8', 'replace')[-2000:]}")

    def new_cache(self):
        self.settle()
        empty_folder(self.path("cache"))
        os.rmdir(self.path("cache"))

    def settle(self):
        """Waits for a learner that a run has left in the background."""
        if os.path.isdir(self.path("cache")):
            subprocess.run([self.bdbi, "learn", "--wait", "--cache", self.path("cache")], env=self.env, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300, check=False)

    def learn(self):
        self.own_command([self.bdbi, "learn", "--wait", "--cache", self.path("cache")], "bdbi learn")

    def warm(self, tool):
        options = ["--cache", self.path("cache")]
        if tool != "none":
            options += ["--tool", tool]
        for also in self.case.also:
            options += ["--also", self.expand(also)]
        for program in self.case.warm:
            self.own_command([self.warmer, *options, self.expand(program)], "bdbi-warm")

    def prefix(self, tool, *options):
        empty_folder(self.path("out"))
        os.chmod(self.path("out"), 0o777)
        argv = [self.bdbi, "run", *options]
        if is_bbcount(tool):
            argv += ["--tool", tool + ":out=" + self.path("out", "%p.bbcount")]
        elif tool == "bbcov":
            argv += ["--tool", "bbcov:out=" + self.path("out", "%p.drcov")]
        elif tool != "none":
            argv += ["--tool", tool]
        return argv + ["--"]

    def tool_reports(self):
        """[{blocks: N or [...], ...}] of bbcount or bbcov, one per program run."""
        names = sorted(n for n in os.listdir(self.path("out")) if n.endswith((".bbcount", ".drcov")))
        paths = [self.path("out", name) for name in names]
        if self.case.subcases:  # they kill processes, some between opening and writing their report
            paths = [path for path in paths if os.path.getsize(path)]
        return [report for path in paths for report in (parse_drcov if path.endswith(".drcov") else parse_bbcount)(path)]


def is_bbcount(tool):
    """Built in, or as a shared object."""
    return tool == "bbcount" or tool.endswith("/bbcount.so")


def parse_bbcount(path):
    """The reports in a file: one, or one per program if the process has called execve. Each ends with its totals."""
    reports, modules, blocks = [], [], None
    with open(path, encoding="utf-8") as f:
        for line in f:
            m = re.fullmatch(r"module (.+) blocks (\d+) instructions (\d+)\n", line)
            total = re.fullmatch(r"(blocks|instructions) (\d+)\n", line)
            if m and blocks is None:
                modules.append((m[1], int(m[2]), int(m[3])))
            elif total and total[1] == "blocks" and blocks is None:
                blocks = int(total[2])
            elif total and total[1] == "instructions" and blocks is not None:
                reports.append({"blocks": blocks, "instructions": int(total[2]), "modules": modules})
                modules, blocks = [], None
            else:
                raise Failure(f"bbcount's report has a strange line: {line!r}")
    if modules or blocks is not None:
        raise Failure("bbcount's report is cut off")
    for report in reports:
        blocks, instructions = report["blocks"], report.get("instructions", 0)
        if (blocks, instructions) != (sum(m[1] for m in report["modules"]), sum(m[2] for m in report["modules"])):
            raise Failure(f"bbcount's numbers are not the sums over the modules: {report}")
        if not blocks <= instructions or (blocks == 0) != (instructions == 0):  # a child may be killed before it runs
            raise Failure(f"bbcount's numbers cannot be: {blocks} blocks, {instructions} instructions")
    if not reports:
        raise Failure("bbcount's report is empty")
    return reports


def parse_drcov(path):
    """[{modules: [(path, base, end)], blocks: [(module number, start, bytes)]}] of a file with drcov reports, binary or text, one behind the other."""
    reports = []
    with open(path, "rb") as f:
        while line := f.readline():
            def expect(pattern, what=line):
                m = re.fullmatch(pattern, what)
                if not m:
                    raise Failure(f"a drcov file has a strange line: {what[:80]!r}")
                return m

            expect(rb"DRCOV VERSION: 2\n")
            expect(rb"DRCOV FLAVOR: drcov-64\n", f.readline())
            count = int(expect(rb"Module Table: version 2, count (\d+)\n", f.readline())[1])
            expect(rb"Columns: id, base, end, entry, path\n", f.readline())
            modules = []
            for i in range(count):
                m = expect(rb" *(\d+), 0x([0-9a-f]{16}), 0x([0-9a-f]{16}), 0x0{16}, (.+)\n", f.readline())
                if int(m[1]) != i:
                    raise Failure(f"module {m[1]} where {i} should be")
                modules.append((m[4].decode(), int(m[2], 16), int(m[3], 16)))
            count = int(expect(rb"BB Table: (\d+) bbs\n", f.readline())[1])
            heading, at = b"module id, start, size:\n", f.tell()
            if f.read(len(heading)) == heading:
                found = [expect(rb"module\[ *(\d+)\]: 0x([0-9a-f]{16}), *(\d+)\n", f.readline()) for _ in range(count)]
                blocks = [(int(m[1]), int(m[2], 16), int(m[3])) for m in found]
            else:
                f.seek(at)
                blocks = [(module, start, size) for start, size, module in struct.iter_unpack("<IHH", f.read(8 * count))]
            if len(blocks) != count:
                raise Failure("a drcov file is cut off")
            for module, start, size in blocks:
                if not (module < len(modules) and size and start + size <= modules[module][2] - modules[module][1]):
                    raise Failure(f"a block that cannot be: {module} {start:x} {size}")
            reports.append({"modules": modules, "blocks": blocks})
    if not reports:
        raise Failure("no drcov report")
    return reports


def parse_stats(path):
    """[{path:, key: value}] per process of a --stats=FILE."""
    processes = []
    if not os.path.exists(path):
        return processes
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            fields = line.rstrip("\n").split(" ", 2)
            if fields[0] == "process":
                processes.append({"path": fields[2] if len(fields) > 2 else ""})
            elif processes and len(fields) >= 2 and fields[1].isdigit():
                processes[-1][fields[0]] = int(fields[1])
    return processes


def total(processes, key):
    return sum(p.get(key, 0) for p in processes)


def show(label, a, b, limit=30):
    lines = list(difflib.unified_diff(a.decode("utf-8", "replace").splitlines(), b.decode("utf-8", "replace").splitlines(),
                                      "native " + label, "bdbi " + label, lineterm="", n=1)) if max(len(a), len(b)) < 2_000_000 else []
    text = "\n".join(line[:200] for line in lines[:limit])
    return f"{label} differs: {len(a)} bytes natively, {len(b)} here\n{text}"


def split_subcases(out):
    """{name: what it printed} of a program built on subcases.h. It must have come to its end."""
    found = {}
    for part in re.split(rb"^== (?=\S+\n)", out, flags=re.M)[1:]:
        name, _, text = part.partition(b"\n")
        found[name.decode("utf-8", "replace")] = text
    if found.pop("end", None) != b"":
        raise Failure("the program did not come to its end")
    return found


def agreeing(native, other):
    """How many sub-cases print the same."""
    a, b = split_subcases(native.out), split_subcases(other.out)
    return sum(b.get(name) == text for name, text in a.items())


def compare(native, other, subcases=False):
    """What differs, as a list of texts."""
    found = []
    if native.status != other.status:
        found.append(f"natively {native.describe_status()}, here {other.describe_status()}")
    if subcases:
        a, b = split_subcases(native.out), split_subcases(other.out)
        found += [f"sub-case {name}: " + show("stdout", a.get(name, b""), b.get(name, b""))
                  for name in sorted(set(a) | set(b)) if a.get(name) != b.get(name)]
    elif native.out != other.out:
        found.append(show("stdout", native.out, other.out))
    if native.err != other.err:
        found.append(show("stderr", native.err, other.err))
    for name in sorted(set(native.files) | set(other.files)):
        if native.files.get(name) != other.files.get(name):
            found.append(f"file {name}: natively {native.files.get(name)}, here {other.files.get(name)}")
    return found


resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
