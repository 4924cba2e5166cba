# SPDX-License-Identifier: Apache-2.0
"""What is measured: the two sets of programs, and their inputs, made here from fixed seeds.

A program is a name, the Debian package it comes from, and a function of the inputs' folder that makes what it needs and returns
the command line, or None if something it needs is not installed.
"""
import os
import random
import shutil
import subprocess

SEARCH = "/usr/bin:/bin"


class Program:
    def __init__(self, name, package, command):
        self.name, self.package, self.command = name, package, command


def which(name):
    return shutil.which(name, path=SEARCH)


def tool(name, *arguments):
    """[path, arguments...] or None."""
    path = which(name)
    return [path, *arguments] if path else None


def compiler_proper():
    gcc = which("gcc")
    if not gcc:
        return None
    path = subprocess.run([gcc, "-print-prog-name=cc1"], capture_output=True, text=True, check=True).stdout.strip()
    return path if os.path.isabs(path) else which(path)


def make_file(folder, name, content):
    """Its path; content: str, bytes or a function that returns one of them. Made once."""
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        data = content() if callable(content) else content
        with open(path + ".new", "wb") as f:
            f.write(data.encode() if isinstance(data, str) else data)
        os.rename(path + ".new", path)
    return path


# ---- inputs ----


def words(count, seed=1):
    """Words of a made-up language, the frequent ones short: what compresses and sorts roughly like prose."""
    rng = random.Random(seed)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    vocabulary = ["".join(rng.choice(syllables) for _ in range(1 + i.bit_length() // 4)) for i in range(20000)]
    return rng.choices(vocabulary, weights=[1 / (i + 2) for i in range(len(vocabulary))], k=count)


def text(size):
    """SIZE bytes of prose in lines of twelve words."""
    def build():
        list_ = words(size // 4)
        lines = (" ".join(list_[i : i + 12]) for i in range(0, len(list_), 12))
        return "\n".join(lines)[:size]

    return build


def records():
    rng = random.Random(2)
    names = words(600000, seed=3)
    return "".join(f"{rng.randrange(1 << 30)}\t{name}\t{rng.random():.6f}\n" for name in names)


def random_sat():
    """Random 3-SAT just under the threshold: one order of clauses, so one search, whatever runs it."""
    rng = random.Random(11)
    variables, clauses = 230, 975
    lines = [f"p cnf {variables} {clauses}"]
    for _ in range(clauses):
        chosen = rng.sample(range(1, variables + 1), 3)
        lines.append(" ".join(str(v * rng.choice((1, -1))) for v in chosen) + " 0")
    return "\n".join(lines) + "\n"


def c_source(functions=80):
    """A preprocessed C file with loops, switches, structures and calls."""
    rng = random.Random(4)
    out = ["struct node { int key; long weight; struct node *next; double part[4]; };\nextern void sink(long);\n"]
    for i in range(functions):
        cases = "".join(f"        case {k}: sum += n->weight * {rng.randrange(3, 99)} - (sum >> {rng.randrange(1, 9)}); break;\n"
                        for k in rng.sample(range(40), 9))
        call = f"f{rng.randrange(i)}(n->next, a + {i}, v)" if i else "a"
        out.append(f"""
static long f{i}(struct node *n, long a, double *v)
{{
    long sum = a, table[16];
    for (int i = 0; i < 16; i++)
        table[i] = (a ^ i) * {rng.randrange(1000)} + (i % {rng.randrange(2, 9)} ? sum : -sum);
    for (; n; n = n->next) {{
        switch (n->key % 40) {{
{cases}        default: sum ^= table[n->key & 15];
        }}
        for (int i = 0; i < 4; i++)
            v[i] = v[i] * n->part[i] + {rng.random():.4f} * (double)table[i * {rng.randrange(1, 4)}];
        if (sum > {rng.randrange(1 << 20)} && n->next)
            sum += {call};
    }}
    return sum;
}}
""")
    calls = "".join(f"    sink(f{i}(n, {i}, v));\n" for i in range(functions))
    return "".join(out) + f"\nvoid all(struct node *n, double *v)\n{{\n{calls}}}\n"


MAKEFILE = "all: " + " ".join(f"t{i}" for i in range(20)) + "\n" + "".join(
    f"t{i}:\n\t@echo target {i} | sed s/target/made/ | tr a-z A-Z >/dev/null\n" for i in range(20))

LUA = """
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
local function tree(d) if d == 0 then return {} end return {tree(d - 1), tree(d - 1)} end
local function count(t) if not t[1] then return 1 end return 1 + count(t[1]) + count(t[2]) end
local seed, list, seen = 42, {}, {}
local function rnd() seed = (seed * 1103515245 + 12345) % 2147483648 return seed end
for i = 1, 150000 do list[i] = rnd() end
table.sort(list, function(a, b) return a < b end)
for i = 1, 400000 do local k = "key" .. (rnd() % 5000) seen[k] = (seen[k] or 0) + 1 end
local text = string.rep("the quick brown fox ", 20000)
local n = 0
for word in text:gmatch("%a+") do n = n + #word end
print(fib(32), count(tree(16)), list[1], n, seen.key7)
"""

PYTHON = """
import re
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
class Body:
    def __init__(self, x, v):
        self.x, self.v = x, v
    def step(self, others):
        for o in others:
            d = o.x - self.x
            self.v += d * 0.001 / (abs(d) + 1)
        self.x += self.v
bodies = [Body(float(i * 7 % 11), 0.0) for i in range(8)]
for _ in range(14000):
    for b in bodies:
        b.step(bodies)
seed, counts = 42, {}
for i in range(400000):
    seed = (seed * 1103515245 + 12345) % 2147483648
    key = "k%d" % (seed % 3000)
    counts[key] = counts.get(key, 0) + 1
text = "the quick brown fox jumps over 12 lazy dogs " * 12000
found = sum(len(m) for m in re.findall(r"[a-z]+o[a-z]*|[0-9]+", text))
print(fib(28), len(counts), found, "%.6f" % bodies[3].x, sorted(counts.values())[-1])
"""

PERL = r"""
my (%count, $letters);
open my $in, '<', $ARGV[0] or die;
while (<$in>) {
    for my $w (split / /) { $count{$w}++; $letters += length $w; }
    $letters++ while /(\w)\1|er\b/g;
}
sub fib { my $n = shift; $n < 2 ? $n : fib($n - 1) + fib($n - 2) }
my @top = (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 4];
print "@top $letters ", fib(24), "\n";
"""

SQL = """
create table item(id integer primary key, kind integer, name text, price real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 250000)
  insert into item select i, (i * 7919) % 97, 'item' || ((i * 104729) % 60013), (i * 31 % 1000) / 7.0 from n;
create index by_kind on item(kind, price);
select kind, count(*), round(sum(price), 3) from item group by kind order by 3 desc limit 5;
select count(*) from item a join item b on a.id = b.kind where b.name like '%99%';
select name, round(price, 3) from item where kind between 10 and 40 order by name limit 5;
update item set price = price * 1.1 where kind % 3 = 0;
select round(avg(price), 6), max(length(name)) from item;
with recursive f(a, b, n) as (select 0, 1, 0 union all select b, (a + b) % 1000003, n + 1 from f where n < 600000) select max(a) from f;
"""

BC = """
scale = 700
a = 4 * a(1)
s = 0
for (i = 1; i < 25000; i++) { s = s + (i * i) % 7 }
e = e(1.5)
a
s
e
quit
"""

GAWK = """
{ for (i = 1; i <= NF; i++) { count[$i]++; letters += length($i) } if ($0 ~ /ba.*er/) lines++; gsub(/an/, "<&>"); long += length($0) }
END { for (w in count) if (count[w] > most) { most = count[w]; top = w } printf "%d %d %d %s %d\\n", NR, lines, letters + long, top, most }
"""


# ---- start-up ----


def hello_i(folder):
    cc1 = compiler_proper()
    if not cc1:
        return None
    source = make_file(folder, "hello.c", '#include <stdio.h>\nint main(void)\n{\n    printf("hello\\n");\n    return 0;\n}\n')
    preprocess = [which("gcc"), "-E", "-P", "-o", "-", source]
    i = make_file(folder, "hello.i", lambda: subprocess.run(preprocess, capture_output=True, check=True).stdout)
    return [cc1, "-quiet", "-fpreprocessed", i, "-o", "/dev/null"]


STARTUP = [
    Program("true", "coreutils", lambda d: tool("true")),
    Program("ls", "coreutils", lambda d: tool("ls", "/usr/bin")),
    Program("bash", "bash", lambda d: tool("bash", "-c", ":")),
    Program("perl", "perl-base", lambda d: tool("perl", "-e", "1")),
    Program("git", "git", lambda d: tool("git", "--version")),
    Program("cc1", "gcc", hello_i),
    Program("python3", "python3", lambda d: tool("python3", "-S", "-c", "pass")),
    Program("openssl", "openssl", lambda d: tool("openssl", "version")),
    Program("cmake", "cmake", lambda d: tool("cmake", "--version")),
    Program("gdb", "gdb", lambda d: tool("gdb", "--version")),
    Program("sqlite3", "sqlite3", lambda d: tool("sqlite3", ":memory:", "select 1")),
    Program("make", "make", lambda d: tool("make", "-s", "-f", make_file(d, "pipelines.mk", MAKEFILE))),
]


# ---- steady state ----


def cc1_large(folder):
    cc1 = compiler_proper()
    return cc1 and [cc1, "-quiet", "-fpreprocessed", "-O2", make_file(folder, "large.i", c_source), "-o", "/dev/null"]


def hashing(folder):
    data = make_file(folder, "text.8m", text(8 << 20))
    return tool("openssl", "dgst", "-sha3-512", *[data] * 16)


STEADY = [
    Program("bzip2", "bzip2", lambda d: tool("bzip2", "-9", "-c", make_file(d, "text.6m", text(6 << 20)))),
    Program("xz", "xz-utils", lambda d: tool("xz", "-3", "-T1", "-c", make_file(d, "text.2m", text(2 << 20)))),
    Program("zstd", "zstd", lambda d: tool("zstd", "-q", "-12", "--single-thread", "-c", make_file(d, "text.6m", text(6 << 20)))),
    Program("gzip", "gzip", lambda d: tool("gzip", "-8", "-c", make_file(d, "text.8m", text(8 << 20)))),
    Program("lua5.4", "lua5.4", lambda d: tool("lua5.4", make_file(d, "bench.lua", LUA))),
    Program("python3", "python3", lambda d: tool("python3", "-S", make_file(d, "bench.py", PYTHON))),
    Program("perl", "perl-base", lambda d: tool("perl", make_file(d, "bench.pl", PERL), make_file(d, "text.6m", text(6 << 20)))),
    Program("cc1", "gcc", cc1_large),
    Program("sqlite3", "sqlite3", lambda d: tool("sqlite3", ":memory:", ".read " + make_file(d, "bench.sql", SQL))),
    Program("bc", "bc", lambda d: tool("bc", "-l", make_file(d, "bench.bc", BC))),
    Program("minisat", "minisat", lambda d: tool("minisat", "-verb=0", make_file(d, "random.cnf", random_sat))),
    Program("openssl", "openssl", hashing),
    Program("sort", "coreutils", lambda d: tool("sort", "--parallel=1", "-k2", make_file(d, "records", records))),
    Program("gawk", "gawk", lambda d: tool("gawk", "-f", make_file(d, "bench.awk", GAWK), make_file(d, "text.8m", text(8 << 20)))),
]
