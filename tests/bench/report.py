# SPDX-License-Identifier: Apache-2.0
"""What is left of a measurement: a text table, and a bar chart as SVG (one group of bars a row, logarithmic)."""
import math
from xml.sax.saxutils import escape

COLOURS = ("#4878a8", "#d8843c", "#6aa05c", "#a85c88", "#8c8c8c", "#c0a848")
LEFT, WIDTH, BAR, GAP, TOP = 150, 640, 13, 9, 56


def columns(rows):
    """Rows of texts as aligned lines; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [" ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip() for row in rows]


def ratio_table(results, names, clock):
    """Ratios to native by program, then geomean and worst, then what was skipped or failed."""
    others = [n for n in names if n != "native"]
    counters = [("jit_blocks", "jit"), ("dispatch_ibl_miss", "ibl miss"), ("dispatch_syscall", "syscalls"), ("ibl_hits", "ibl hits")]
    rows = [["program", f"native ms ({clock})", *[n + " x" for n in others], *[label for _, label in counters]]]
    for r in results:
        if "skipped" in r:
            continue
        stats = next(iter(r["stats"].values()), {})
        rows.append([r["name"], f"{r['native_seconds'] * 1000:.1f}",
                     *[f"{r['ratios'][n]:.2f}" if n in r["ratios"] else "-" for n in others],
                     *[str(stats.get(key, "-")) for key, _ in counters]])
    return rows


def text(results, summary, names, clock):
    lines = []
    rows = ratio_table(results, names, clock)
    others = [n for n in names if n != "native"]
    for label, key in ("geomean", "geomean"), ("worst", "worst"):
        rows.append([label, "", *[f"{summary[n][key]:.2f}" if n in summary else "-" for n in others], *[""] * 4])
    lines += columns(rows)
    for r in results:
        if "skipped" in r:
            lines.append(f"{r['name']}: skipped, {r['skipped']}")
        lines += [f"{r['name']}: {name} failed, {why}" for name, why in r["failed"].items()]
    return "\n".join(lines) + "\n"


def ticks(low, high):
    """1, 2, 5, 10, ... from LOW to HIGH."""
    out, power = [], 10.0 ** math.floor(math.log10(low))
    while power <= high:
        out += [m * power for m in (1, 2, 5) if low <= m * power <= high]
        power *= 10
    return out


def chart(title, groups, names, unit):
    """groups: [(label, {name: value})]. A bar's length is the logarithm of its value over the smallest tick."""
    values = [v for _, group in groups for v in group.values() if v > 0]
    low, high = (min(values), max(values)) if values else (1, 1)
    low, high = min(low * 0.9, 0.9) if unit == "x" else low * 0.7, max(high * 1.25, low * 2)
    scale = WIDTH / math.log(high / low)
    out, y = [], TOP
    for label, group in groups:
        shown = [n for n in names if n in group]
        middle = y + len(shown) * BAR / 2 + 4
        out.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(label)}</text>')
        for name in shown:
            length = max(1.0, math.log(max(group[name], low) / low) * scale)
            colour = COLOURS[names.index(name) % len(COLOURS)]
            out.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 1}" fill="{colour}"/>'
                       f'<text x="{LEFT + length + 4:.1f}" y="{y + BAR - 3}" class="v">{group[name]:.3g}</text>')
            y += BAR
        y += GAP
    grid = [f'<line x1="{LEFT + math.log(t / low) * scale:.1f}" y1="{TOP - 6}" x2="{LEFT + math.log(t / low) * scale:.1f}" y2="{y}"/>'
            f'<text x="{LEFT + math.log(t / low) * scale:.1f}" y="{y + 14}" text-anchor="middle">{t:g}{unit}</text>' for t in ticks(low, high)]
    legend, x = [], LEFT
    for i, name in enumerate(names):
        legend.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{COLOURS[i % len(COLOURS)]}"/><text x="{x + 14}" y="37">{escape(name)}</text>')
        x += 34 + 7 * len(name)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" height="{y + 24}" font-family="sans-serif" font-size="11">\n'
            "<style>line{stroke:#ddd}.v{font-size:9px;fill:#444}</style>\n"
            f'<rect width="100%" height="100%" fill="white"/>\n<text x="{LEFT}" y="18" font-size="14">{escape(title)}</text>\n'
            + "".join(legend) + "\n" + "\n".join(grid) + "\n" + "\n".join(out) + "\n</svg>\n")
