/* SPDX-License-Identifier: Apache-2.0
 *
 * A tool in C++17 with what tools may have: options of both kinds, variables, a constructor, 8-byte relocations in a table of
 * functions, vector code. It counts the blocks whose offset is a multiple of `every` and prints one line:
 *
 *   [label: ]every N blocks N instructions N
 */
#include <bdbi/tool.h>

namespace
{
constexpr size_t line_bytes = 200;

volatile unsigned seed = 1;

struct Primes {
    unsigned values[64];
    Primes() noexcept
    {
        unsigned n = seed - 1;
        for (unsigned i = 2; n < 64; i++) {
            bool prime = true;
            for (unsigned j = 2; j * j <= i; j++)
                prime = prime && i % j != 0;
            if (prime)
                values[n++] = i;
        }
    }
};
const Primes primes; /* filled by a constructor */

uint64_t number(const char *text, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value = value * 10 + static_cast<uint64_t>(text[i] - '0');
    return value;
}

void weave(bdbi_block *block)
{
    size_t bytes;
    const char *text = bdbi_block_option(block, "every", &bytes);
    const uint64_t every = text != nullptr ? number(text, bytes) : 1;
    if (bdbi_block_option(block, "label", &bytes) != nullptr || bdbi_block_option(block, "out", &bytes) != nullptr)
        return; /* weave must not see what is not in the key: nothing is counted, and the test sees 0 */
    if (every != 0 && bdbi_block_offset(block) % every == 0)
        bdbi_block_count(block, bdbi_block_instructions(block));
}

struct Totals {
    uint64_t blocks, instructions;
};

void add(const bdbi_counter *c, void *user)
{
    auto *t = static_cast<Totals *>(user);
    t->blocks += c->count;
    t->instructions += c->count * c->info;
}

struct Line {
    char text[line_bytes];
    size_t used;
};

void put(Line &line, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes && line.used < line_bytes; i++)
        line.text[line.used++] = text[i];
}

void put(Line &line, const char *text)
{
    size_t n = 0;
    while (text[n] != 0)
        n++;
    put(line, text, n);
}

void put(Line &line, uint64_t value)
{
    char digits[20];
    size_t n = 20;
    do
        digits[--n] = static_cast<char>('0' + value % 10);
    while ((value /= 10) != 0);
    put(line, digits + n, 20 - n);
}

using Part = void (*)(Line &, bdbi_run *, const Totals &);

void part_every(Line &line, bdbi_run *run, const Totals &)
{
    size_t bytes;
    const char *label = bdbi_run_option(run, "label", &bytes);
    if (label != nullptr) {
        put(line, label, bytes);
        put(line, ": ");
    }
    const char *every = bdbi_run_option(run, "every", &bytes);
    put(line, "every ");
    put(line, every != nullptr ? number(every, bytes) : 1);
}

void part_blocks(Line &line, bdbi_run *, const Totals &t)
{
    put(line, " blocks ");
    put(line, t.blocks);
}

void part_instructions(Line &line, bdbi_run *, const Totals &t)
{
    put(line, " instructions ");
    put(line, t.instructions);
}

Part parts[] = {part_every, part_blocks, part_instructions};

void report(bdbi_run *run)
{
    Totals totals = {};
    Line line = {};
    double sum = 0;
    for (unsigned p : primes.values)
        sum += static_cast<double>(p) * seed;
    if (sum != 8893) { /* of the first 64 primes */
        bdbi_run_write(run, "the constructor did not run\n", 28);
        return;
    }
    bdbi_run_counters(run, add, &totals);
    for (Part part : parts)
        part(line, run, totals);
    put(line, "\n");
    bdbi_run_write(run, line.text, line.used);
}
} // namespace

const bdbi_tool bdbi_tool_main = {BDBI_TOOL_ABI, 1, "every", "counts every Nth block", "every", "label", weave, report};
