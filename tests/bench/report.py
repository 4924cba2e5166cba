# SPDX-License-Identifier: Apache-2.0
"""What is left of a measurement: a text table, and charts as SVG: bars (one group a row) and lines over a number, all logarithmic."""
import math
from xml.sax.saxutils import escape

COLOURS = ("#4878a8", "#d8843c", "#6aa05c", "#a85c88", "#8c8c8c", "#c0a848")
LEFT, WIDTH, BAR, GAP, TOP = 150, 640, 13, 9, 56
PLOT_LEFT, PLOT_TOP, PLOT_WIDTH, PLOT_HEIGHT = 70, 56, 480, 260


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
    """1, 2, 5, 10, ... from LOW to HIGH; finer ones where these are near each other."""
    out, power = [], 10.0 ** math.floor(math.log10(low))
    while power <= high:
        out += [m * power for m in ((1, 2, 5) if high > 8 * low else (1, 1.2, 1.5, 2, 3, 5, 7)) if low <= m * power <= high]
        power *= 10
    return out


def svg(width, height, title, note, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">\n'
            "<style>line{stroke:#ddd}.v{font-size:9px;fill:#444}</style>\n"
            f'<rect width="100%" height="100%" fill="white"/>\n<text x="12" y="18" font-size="14">{escape(title)}</text>\n'
            f'<text x="12" y="{height - 6}" class="v">{escape(note)}</text>\n' + "\n".join(body) + "\n</svg>\n")


def legend(names, x, y, first=0):
    out = []
    for i, name in enumerate(names, first):
        out.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{COLOURS[i % len(COLOURS)]}"/><text x="{x + 14}" y="{y + 9}">{escape(name)}</text>')
        x += 34 + 7 * len(name)
    return out


def chart(title, groups, names, unit, note):
    """groups: [(label, {name: value})]. A bar's length is the logarithm of its value over the smallest tick."""
    values = [v for _, group in groups for v in group.values() if v > 0]
    low, high = (min(values), max(values)) if values else (1, 1)
    low, high = min(low * 0.9, 0.9), max(high * 1.25, low * 2)
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
    return svg(LEFT + WIDTH + 60, y + 38, title, note, [*legend(names, LEFT, 28), *grid, *out])


def spread(heights, apart=12):
    """Where texts stand that should stand at HEIGHTS, but not over each other."""
    out, last = dict.fromkeys(range(len(heights))), -apart
    for i in sorted(out, key=lambda i: heights[i]):
        out[i] = last = max(heights[i], last + apart)
    return out


def lines(title, x_label, y_label, series, note, linear=None, first=0):
    """series: {name: [(x, y)]}, on logarithmic axes. linear: the name of the series from whose last point a dashed line shows growth in
    proportion to x. first: which colour is the first one's."""
    points = [point for values in series.values() for point in values]
    (x0, x1), (y0, y1) = ((min(v), max(v)) for v in zip(*points))
    x0, x1, y0, y1 = x0 / 1.15, max(x1, 2 * x0) * 1.15, y0 / 1.4, max(y1, 4 * y0) * 1.4

    def place(x, y):
        return PLOT_LEFT + math.log(x / x0) / math.log(x1 / x0) * PLOT_WIDTH, PLOT_TOP + PLOT_HEIGHT * (1 - math.log(y / y0) / math.log(y1 / y0))

    right, bottom = PLOT_LEFT + PLOT_WIDTH, PLOT_TOP + PLOT_HEIGHT
    out = legend(series, PLOT_LEFT, 28, first)
    for t in ticks(y0, y1):
        _, y = place(x0, t)
        out.append(f'<line x1="{PLOT_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/><text x="{PLOT_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{t:g}</text>')
    for x in sorted({x for x, _ in points}):
        at, _ = place(x, y0)
        out.append(f'<line x1="{at:.1f}" y1="{PLOT_TOP}" x2="{at:.1f}" y2="{bottom}"/><text x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{x:g}</text>')
    out.append(f'<text x="{PLOT_LEFT + PLOT_WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">{escape(x_label)}</text>')
    out.append(f'<text transform="translate(16 {PLOT_TOP + PLOT_HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    if linear:
        x, y = series[linear][-1]
        start = max(x0, x * y0 / y)
        (from_x, from_y), (to_x, to_y) = place(start, y / x * start), place(x, y)
        out.append(f'<path d="M{from_x:.1f} {from_y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="#999" stroke-dasharray="4 4"/>'
                   f'<text x="{right}" y="37" text-anchor="end" class="v">dashed: in proportion to {escape(x_label)}</text>')
    last = [place(*values[-1]) for values in series.values()]
    heights = spread([y for _, y in last])
    for i, values in enumerate(series.values()):
        colour, placed = COLOURS[(first + i) % len(COLOURS)], [place(x, y) for x, y in values]
        out.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        out.append(f'<text x="{last[i][0] + 6:.1f}" y="{heights[i] + 4:.1f}" fill="{colour}">{values[-1][1]:.4g}</text>')
    return svg(right + 60, bottom + 60, title, note, out)
