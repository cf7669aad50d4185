"""Pieces of a page: what a notebook cell returns so that it is shown as HTML."""

from dataclasses import dataclass
from html import escape

import numpy as np


@dataclass(frozen=True)
class Text:
    """A piece of HTML."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def table(header, rows, numeric=()) -> Text:
    """Return a table; ``numeric`` are the columns set flush right."""
    css = [' class="number"' if k in numeric else "" for k in range(len(header))]
    head = "".join(f"<th{c}>{escape(str(h))}</th>" for c, h in zip(css, header, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{c}>{_cell(v)}</td>" for c, v in zip(css, row, strict=True)) + "</tr>\n" for row in rows
    )
    return Text(f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>')


def _cell(value) -> str:
    return value.html if isinstance(value, Text) else escape(str(value))


def number(value, digits: int = 4) -> str:
    """Return a number with so many significant digits; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {number(v, digits)}" for key, v in value.items())
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return "; ".join(number(v, digits) for v in value)
    if isinstance(value, list | tuple):
        return " × ".join(number(v, digits) for v in value) or "none"
    if isinstance(value, int | np.integer):
        return f"{value}"
    return f"{value:.{digits}g}" if np.isfinite(value) else "–"


def percent(share: float) -> str:
    """Return a share as per cent, "–" where it is not known."""
    return f"{100 * share:.1f} %" if np.isfinite(share) else "–"
