"""Draw the chart: horizontal bars, as plain SVG for light and dark backgrounds."""

from collections.abc import Iterator
from html import escape
from itertools import groupby
from statistics import median

from .measure import Cell
from .report import Results
from .services import ASGI_SERVERS, OURS

WIDTH, LABELS, NUMBERS, BAR, GAP = 800, 300, 70, 18, 44

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 } .note { fill: #59636e } .bar { fill: #9aa4af } .ours { fill: #7c3aed }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .note { fill: #9198a1 } .bar { fill: #59636e } .ours { fill: #a78bfa }
}
"""


def draw(results: Results) -> str:
    """Return the SVG of the charted workloads, on Hypercorn and on the WSGI servers."""
    top, parts = GAP // 2, []
    cells = (cell for cell in results.rates if cell[0].charted and cell[1].server not in ASGI_SERVERS[1:])
    for work, group in groupby(cells, key=lambda cell: cell[0]):
        rates = {cell: median(results.rates[cell]) for cell in group}
        note = '<tspan class="note">, requests per second</tspan>'
        parts.append(f'<text class="title" x="0" y="{top}">{escape(work.title)}{note}</text>')
        parts += _bars(rates, top + 8)
        top += len(rates) * (BAR + 4) + GAP
    about = escape(f"{results.about['machine']}, {results.about['date']}")
    parts.append(f'<text class="note" x="0" y="{top}">{about}</text>')
    size = f'width="{WIDTH}" height="{top + 10}" viewBox="0 0 {WIDTH} {top + 10}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>\n<style>{STYLE}</style>\n'
    return head + "\n".join(parts) + "\n</svg>\n"


def _bars(rates: dict[Cell, float], top: int) -> Iterator[str]:
    scale = (WIDTH - LABELS - NUMBERS) / max(rates.values())
    for cell, rate in sorted(rates.items(), key=lambda item: -item[1]):
        middle, length = top + BAR - 5, rate * scale
        kind = "ours" if cell[1] in OURS else "bar"
        yield f'<text x="{LABELS - 8}" y="{middle}" text-anchor="end">{escape(str(cell[1]))}</text>'
        yield f'<rect class="{kind}" x="{LABELS}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2"/>'
        yield f'<text x="{LABELS + length + 6:.1f}" y="{middle}">{rate:,.0f}</text>'
        top += BAR + 4
