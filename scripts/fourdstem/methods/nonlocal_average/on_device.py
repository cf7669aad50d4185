"""The window search on a graphics card, by torch: the same numbers within rounding."""

from dataclasses import dataclass

import numpy as np
import torch

from fourdstem.methods.nonlocal_average import kernels
from fourdstem.methods.nonlocal_average.source import Source
from fourdstem.methods.nonlocal_average.window import Likeness, members_of

ROWS = 8  # scan rows averaged together
COLUMNS = 128  # whose windows are gathered together


@dataclass(frozen=True)
class Group:
    """What `Likeness.weights` wants to know of scan rows that are averaged together.

    Attributes
    ----------
    table : ndarray of float64, shape (ROWS, scan_x, window)
    core : tuple of int
        All columns.
    scan : tuple of int
        half, ny, nx, 0.
    """

    table: np.ndarray
    core: tuple[int, int]
    scan: tuple[int, int, int, int]


def average_window_on(device: str, source: Source, likeness: Likeness, params, out) -> np.ndarray:
    """Average every pattern over its search window on a device; see `window.average_window`.

    Parameters
    ----------
    device : str
        Of torch: "cuda", or "cpu" to try it.
    source, likeness, params, out
        As there.

    Returns
    -------
    ndarray of float32, shape (2, scan_y, scan_x)
        Effective number and self-weight.
    """
    ny, nx = source.cube.scan_shape
    half = params.window_half_width_px
    width = kernels.window_width(half, ny) * kernels.window_width(half, nx)
    group = Group(np.zeros((ROWS, nx, width)), (0, nx), (half, ny, nx, 0))
    trust, held = np.empty((2, ny, nx), np.float32), {}
    incoming = _rows(source, likeness, device)
    for y0 in range(0, ny, ROWS):
        rows = range(y0, min(y0 + ROWS, ny))
        last = kernels.window_begin(rows[-1], half, ny) + kernels.window_width(half, ny)
        while len(held) == 0 or max(held) < last - 1:
            y, row = next(incoming)
            held[y] = row
        for y in [y for y in held if y < kernels.window_begin(y0, half, ny)]:
            del held[y]
        for y in rows:
            if likeness.n:
                group.table[y % ROWS] = _differences(held, group, y)
            weights = np.empty((nx, width), np.float32)
            trust[:, y] = likeness.weights(group, y, weights)
            counts = source.from_average(_weighted(held, group, y, weights))
            out.write(y, 0, nx, counts, members_of(group, y), weights)
    return trust


def _rows(source: Source, likeness: Likeness, device: str):
    """Yield (y, (roots, values)) of scan rows, on the device."""

    def prepare(patterns, unit):
        roots = source.compared(patterns, unit) if likeness.n else np.empty((unit.count, 0), np.float32)
        return roots, source.accumulated(patterns, unit)

    parts = []
    for unit, found in source.cube.map_stored(prepare):
        parts.append(found)
        if unit.x1 == source.cube.scan_shape[1]:
            yield unit.y, tuple(torch.from_numpy(np.concatenate(p)).to(device) for p in zip(*parts, strict=True))
            parts = []


def _columns(group: Group) -> np.ndarray:
    """Return int64 (scan_x, width): columns of the window of every position of a row."""
    half, _, nx, _ = group.scan
    begin = np.array([kernels.window_begin(x, half, nx) for x in range(nx)])
    return begin[:, None] + np.arange(kernels.window_width(half, nx))


def _windows(held: dict, group: Group, y: int, part: int):
    """Yield (columns, slots, what the windows of these columns hold in one scan row: (columns, width, numbers)).

    ``part`` is 0 for roots, 1 for values. Columns come some at a time, so that memory is bounded.
    """
    half, ny, nx, _ = group.scan
    index = torch.from_numpy(_columns(group)).to(held[y][part].device)
    width = index.shape[1]
    for x0 in range(0, nx, COLUMNS):
        here = slice(x0, min(x0 + COLUMNS, nx))
        for k in range(kernels.window_width(half, ny)):
            row = held[kernels.window_begin(y, half, ny) + k][part]
            yield here, slice(k * width, (k + 1) * width), row[index[here]]


def _differences(held: dict, group: Group, y: int) -> np.ndarray:
    """Return Σ (Z_i - Z_j)² (scan_x, window) of a scan row."""
    own = held[y][0]
    sums = torch.empty(group.table.shape[1:], dtype=torch.float64, device=own.device)
    for here, slots, there in _windows(held, group, y, 0):
        sums[here, slots] = (there - own[here, None]).square_().sum(dim=2, dtype=torch.float64)
    return sums.cpu().numpy()


def _weighted(held: dict, group: Group, y: int, weights: np.ndarray) -> np.ndarray:
    """Return the weighted sums (scan_x, pixels) of a scan row."""
    total = torch.zeros_like(held[y][1])
    shares = torch.from_numpy(weights).to(total.device)
    for here, slots, there in _windows(held, group, y, 1):
        total[here] += torch.bmm(shares[here, None, slots], there)[:, 0]
    return total.cpu().numpy()
