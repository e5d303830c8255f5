"""Parts of a page that opens without a network: one HTML file, its style inside it, bars and lines as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light dark; --page: #fbfaf7; --card: #ffffff; --ink: #1d2327; --soft: #667078; --line: #e3e0d8;
  --bar: #2f6f8f; --whisker: #12303f; --dot: #d2691e; --minus: #b5533c; --heat: 47, 111, 143; }
@media (prefers-color-scheme: dark) { :root { --page: #14181b; --card: #1d2327; --ink: #e8e6e1; --soft: #9aa4ab;
  --line: #333b41; --bar: #5aa9cc; --whisker: #d7ecf5; --dot: #f0a050; --minus: #e07a5f; --heat: 90, 169, 204; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 0 0 .2rem; }
p { margin: .2rem 0 .8rem; } ul { margin: .2rem 0 .8rem; padding-left: 1.2rem; }
.soft { color: var(--soft); font-size: .87rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.2rem;
  margin: 1rem 0; overflow-x: auto; }
svg { display: block; width: 100%; height: auto; min-width: 34rem; } svg text { fill: var(--ink); font-size: 13px; }
svg .soft { fill: var(--soft); font-size: 11.5px; } .bar { fill: var(--bar); } .minus { fill: var(--minus); }
.whisker { stroke: var(--whisker); stroke-width: 1.6; } .axis { stroke: var(--line); } .dot { fill: var(--dot); }
.curve { fill: none; stroke: var(--bar); stroke-width: 2; }
.change { stroke: var(--dot); stroke-width: 2; stroke-dasharray: 5 4; }
table { border-collapse: collapse; font-size: .85rem; } th { font-weight: 500; color: var(--soft); text-align: left; }
th, td { padding: .25rem .5rem; } td { text-align: right; font-variant-numeric: tabular-nums; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; vertical-align: -1px;
  margin: 0 .3rem 0 .9rem; }
"""

_LABEL_WIDTH, _PLOT_WIDTH, _ROW_HEIGHT, _WIDTH, _DATE_WIDTH = 190, 360, 24, 880, 90


@dataclass(frozen=True)
class Bar:
    """One line of a bar chart."""

    label: str
    value: float
    low: float | None
    high: float | None
    note: str
    dot: float | None = None
    """a second value, on the same axis"""


def page(title: str, lead: str, sections: Sequence[str]) -> str:
    """Return a whole page; the sections are HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main><h1>{escape(title)}</h1>{lead}\n"
        + "\n".join(f"<section>{section}</section>" for section in sections)
        + "\n</main></body></html>\n"
    )


def bars(rows: Sequence[Bar]) -> str:
    """Return horizontal bars from zero, with their intervals as whiskers."""
    ends = [one for row in rows for one in (row.value, row.low, row.high, row.dot) if one is not None]
    least, most = min(0.0, *ends), max(0.0, *ends)
    per_unit = _PLOT_WIDTH / ((most - least) or 1.0)

    def x(value: float) -> float:
        return round(_LABEL_WIDTH + (value - least) * per_unit, 1)

    height = _ROW_HEIGHT * len(rows) + 6
    lines = [f'<line class="axis" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{height}"/>']
    for place, row in enumerate(rows):
        top = place * _ROW_HEIGHT + 5
        middle = top + 8
        left, right = sorted((x(0), x(row.value)))
        kind = "bar" if row.value >= 0 else "bar minus"
        label = row.label if len(row.label) <= 28 else f"{row.label[:27]}…"
        lines.append(f'<text x="{_LABEL_WIDTH - 10}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>')
        lines.append(
            f'<rect class="{kind}" x="{left}" y="{top}" width="{max(right - left, 1):.1f}" height="16" rx="2">'
            f"<title>{escape(row.label)}: {row.value:.4g}</title></rect>"
        )
        if row.low is not None and row.high is not None:
            lines.append(f'<line class="whisker" x1="{x(row.low)}" x2="{x(row.high)}" y1="{middle}" y2="{middle}"/>')
            for end in (row.low, row.high):
                lines.append(f'<line class="whisker" x1="{x(end)}" x2="{x(end)}" y1="{middle - 4}" y2="{middle + 4}"/>')
        if row.dot is not None:
            lines.append(f'<circle class="dot" cx="{x(row.dot)}" cy="{middle}" r="4.5"/>')
        at = _LABEL_WIDTH + _PLOT_WIDTH + 14
        lines.append(f'<text class="soft" x="{at}" y="{middle + 4}">{escape(row.note)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(lines)}</svg>'


def heat(row_labels: Sequence[str], column_labels: Sequence[str], cells: Sequence[Sequence[float | None]]) -> str:
    """Return a table whose cells are the darker, the larger their value."""
    most = max((value for row in cells for value in row if value is not None), default=1.0) or 1.0
    head = "".join(f"<th>{escape(label)}</th>" for label in column_labels)
    body = []
    for label, row in zip(row_labels, cells, strict=True):
        shown = "".join(
            "<td></td>"
            if value is None
            else f'<td style="background: rgba(var(--heat), {0.75 * max(value, 0) / most:.2f})">{value:.3g}</td>'
            for value in row
        )
        body.append(f"<tr><th>{escape(label)}</th>{shown}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(body)}</table>"


@dataclass(frozen=True)
class Window:
    """One point of a line over time."""

    label: str
    at: float
    """when it begins, in any unit"""
    value: float
    interval: tuple[float, float] | None


def curve(windows: Sequence[Window], changes: Sequence[float]) -> str:
    """Return a line over windows, each with its interval as a whisker if it has one; `changes` are times."""
    height, left, bottom, width = 200, 60, 170, _WIDTH - 110
    most = max(one for row in windows for one in (row.value, *(row.interval or ()))) or 1.0
    first, last = windows[0].at, windows[-1].at

    def x(at: float) -> float:
        return round(left + (at - first) / ((last - first) or 1.0) * width, 1)

    def y(value: float) -> float:
        return round(bottom - value / most * (bottom - 14), 1)

    lines = [f'<line class="axis" x1="{left}" x2="{left + width}" y1="{bottom}" y2="{bottom}"/>']
    points = " ".join(f"{x(row.at)},{y(row.value)}" for row in windows)
    lines.append(f'<polyline class="curve" points="{points}"/>')
    for row in windows:
        if row.interval is not None:
            low, high = (y(end) for end in row.interval)
            lines.append(f'<line class="whisker" x1="{x(row.at)}" x2="{x(row.at)}" y1="{low}" y2="{high}"/>')
        lines.append(f'<circle class="bar" cx="{x(row.at)}" cy="{y(row.value)}" r="3.5"/>')
    for change in changes:
        lines.append(f'<line class="change" x1="{x(change)}" x2="{x(change)}" y1="10" y2="{bottom}"/>')
    lines += [f'<text class="soft" x="{left - 8}" y="18" text-anchor="end">{most:.3g}</text>']
    lines += [f'<text class="soft" x="{left - 8}" y="{bottom}" text-anchor="end">0</text>']
    free_from = 0.0
    for row in windows:
        if x(row.at) >= free_from:
            free_from = x(row.at) + _DATE_WIDTH
            lines.append(
                f'<text class="soft" x="{x(row.at)}" y="{bottom + 18}" text-anchor="middle">{escape(row.label)}</text>'
            )
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(lines)}</svg>'
