"""A bar chart as SVG, readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_WIDTH, _LABELS, _BAR, _GAP, _TITLE = 720, 190, 18, 8, 40


def bars(charts: Mapping[str, Mapping[str, float]], ours: str) -> str:
    """
    Return one chart below the other, a bar for each name and value.

    Args:
        charts: by title; the longest bar of each takes the whole width.
        ours: what the names of the bars begin with that stand out.
    """
    parts: list[str] = []
    y = 0
    for title, values in charts.items():
        y += _TITLE
        parts.append(f'<text x="8" y="{y - 14}" font-weight="bold">{escape(title)}</text>')
        scale = (_WIDTH - _LABELS - 70) / max(values.values())
        for name, value in values.items():
            length, middle = max(1.0, value * scale), y + _BAR - 5
            shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            colour = "#0b7a75" if name.startswith(ours) else "#9aa5b1"
            parts += [
                f'<text x="{_LABELS - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{_LABELS}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>',
                f'<text x="{_LABELS + length + 6:.1f}" y="{middle}">{shown}</text>',
            ]
            y += _BAR + _GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + _GAP}" '
            'font-family="sans-serif" font-size="13" fill="#1f2933">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )
