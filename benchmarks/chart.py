"""A plot of rates with their spread, drawn as SVG by hand: a row for each contender, on a logarithmic scale.

Owns the drawing and nothing of what the figures mean. Text stays text, and the colours follow the reader's light or
dark screen. Called by `page`.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

_WIDTH = 860
_LEFT = 210
_RIGHT = 110
_ROW = 26
_HEAD = 64
_FOOT = 58
_GAP = 58

_STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
  .head { font-weight: 600; font-size: 15px; } .panel { font-weight: 600; } .quiet { fill: #59636e; }
  .grid { stroke: #d1d9e0; stroke-width: 1; } .spread { stroke: #59636e; stroke-width: 3; stroke-linecap: round; }
  .dot { fill: #59636e; } .own .dot { fill: #0969da; } .own .spread { stroke: #0969da; } .own text { font-weight: 600; }
  .bound .dot { fill: none; stroke: #59636e; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; } .spread { stroke: #9198a1; }
    .dot { fill: #9198a1; } .own .dot { fill: #4493f8; } .own .spread { stroke: #4493f8; }
    .bound .dot { stroke: #9198a1; }
  }
"""


@dataclass(frozen=True)
class Row:
    """One contender's rate: the median, and the lowest and highest. `kind` is `own`, `bound` or `peer`."""

    label: str
    value: float
    lowest: float
    highest: float
    kind: str = "peer"


@dataclass(frozen=True)
class Panel:
    """Rows that belong together, under a heading."""

    heading: str
    rows: tuple[Row, ...]


def number(value: float) -> str:
    """Return a rate as people read it."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def plot(title: str, unit: str, panels: tuple[Panel, ...]) -> str:
    """Return the drawing."""
    scale = _Scale([row for panel in panels for row in panel.rows])
    parts = [f'<text class="head" x="12" y="26">{escape(title)}</text>']
    top = _HEAD
    for panel in panels:
        parts += _panel(panel, top, scale)
        top += len(panel.rows) * _ROW + _GAP
    height = top - _GAP + _FOOT
    parts.append(f'<text class="quiet" x="12" y="{height - 12}">{escape(unit)}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n'
        f"{body}\n</svg>\n"
    )


class _Scale:
    def __init__(self, rows: list[Row]) -> None:
        self._low = floor(log10(min(row.lowest for row in rows)))
        self._high = max(ceil(log10(max(row.highest for row in rows))), self._low + 1)

    @property
    def decades(self) -> range:
        return range(self._low, self._high + 1)

    def x(self, value: float) -> float:
        share = (log10(value) - self._low) / (self._high - self._low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _panel(panel: Panel, top: int, scale: _Scale) -> list[str]:
    bottom = top + len(panel.rows) * _ROW
    parts = [f'<text class="panel" x="12" y="{top - 8}">{escape(panel.heading)}</text>']
    for decade in scale.decades:
        x = scale.x(10.0**decade)
        label = f"{10**decade:,}" if decade >= 0 else f"{10.0**decade:g}"
        parts.append(f'<line class="grid" x1="{x}" y1="{top}" x2="{x}" y2="{bottom}"/>')
        parts.append(f'<text class="quiet" x="{x}" y="{bottom + 16}" text-anchor="middle">{label}</text>')
    for at, row in enumerate(panel.rows):
        parts.append(_row(row, top + at * _ROW + _ROW // 2, scale))
    return parts


def _row(row: Row, y: int, scale: _Scale) -> str:
    least, middle, most = scale.x(row.lowest), scale.x(row.value), scale.x(row.highest)
    return (
        f'<g class="{row.kind}"><text x="{_LEFT - 14}" y="{y + 4}" text-anchor="end">{escape(row.label)}</text>'
        f'<line class="spread" x1="{least}" y1="{y}" x2="{most}" y2="{y}"/>'
        f'<circle class="dot" cx="{middle}" cy="{y}" r="5.5"/>'
        f'<text x="{most + 14}" y="{y + 4}">{number(row.value)}</text></g>'
    )
