"""From a pattern source to the matrix that is factorised: mask, bins, weights."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numba
import numpy as np

from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.methods.nmf.matrix import Matrix
from fourdstem.methods.nmf.settings import Params

NEGATIVE_LIMIT = 0.05  # share of negative counts beyond which a detector's offset is still in them
IN_MEMORY = 0.45  # of what the job may use


@dataclass(frozen=True)
class Features:
    """Which pixels are summed to which number.

    Attributes
    ----------
    index : ndarray of int32, shape (detector_y, detector_x)
        Column of the matrix; -1: not used.
    mask : ndarray of bool, shape (features_y, features_x)
        Which cells of an image of features are columns, in their order.
    """

    index: np.ndarray
    mask: np.ndarray

    @property
    def count(self) -> int:
        """Number of columns."""
        return int(self.mask.sum())

    def image(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (n, columns) as images (n, features_y, features_x), 0 where nothing is used."""
        out = np.zeros((len(rows), *self.mask.shape), np.float32)
        out[:, self.mask] = rows
        return out


@dataclass(frozen=True)
class Data:
    """The matrix, its rows in scan order, and how to come back from it.

    Attributes
    ----------
    matrix : Matrix
        Weighted.
    features : Features
    row, column : ndarray of float32, shapes (n,), (columns,)
        What was divided by; the data are ``matrix * row[:, None] * column`` (and squared, for sqrt).
    lit : ndarray of bool, shape (n,)
        Positions with counts.
    clipped : float
        Share of counts that were negative and set to 0.
    """

    matrix: Matrix
    features: Features
    row: np.ndarray
    column: np.ndarray
    lit: np.ndarray
    clipped: float


def features_of(cube: Cube, params: Params, beam_radius_px: float) -> Features:
    """Return which pixels of corrected patterns are summed to which number.

    Raises
    ------
    InputError
        If the limits and the mask leave nothing.
    """
    ny, nx = cube.detector_shape
    y, x = np.arange(ny)[:, None] - (ny - 1) / 2, np.arange(nx)[None, :] - (nx - 1) / 2
    r = np.hypot(y, x)
    inner = params.inner * beam_radius_px + 1 if params.inner > 0 and np.isfinite(beam_radius_px) else 0.0
    outer = np.inf if params.outer_px is None else params.outer_px
    used = (np.asarray(cube.valid) > 0) & (r >= inner) & (r <= outer)
    if not used.any():
        raise InputError(
            f"no pixel is valid from {inner:.1f} px to {min(outer, r.max()):.1f} px from the beam",
            where="nmf: inner, outer_px, and the mask of the acquisition",
            expected="pixels to factorise",
            do="Let the limits be farther apart, or mask less.",
        )
    if params.representation == "pattern":
        cell_y, cell_x = np.broadcast_arrays(np.arange(ny)[:, None] // params.bin, np.arange(nx)[None, :] // params.bin)
    else:
        cell_y = (r / params.bin).astype(np.int64)
        turn = np.arctan2(y, x) / (2 * np.pi) % 1
        cell_x = (turn * params.sectors).astype(np.int64) % params.sectors
        cell_x = np.zeros_like(cell_x) if params.representation == "radial" else cell_x
    mask = np.zeros((cell_y.max() + 1, cell_x.max() + 1), bool)
    mask[cell_y[used], cell_x[used]] = True
    number = np.cumsum(mask.ravel()).reshape(mask.shape) - 1
    return Features(np.where(used, number[cell_y, cell_x], -1).astype(np.int32), mask)


@contextmanager
def prepare(cube: Cube, params: Params, features: Features, folder: Path, *, keep: bool = True, gain: float = 1.0):
    """Yield the matrix of a scan as `Data`.

    Parameters
    ----------
    cube : Cube
        Corrected patterns.
    params : Params
        ``weighting`` alone counts here.
    features : Features
    folder : Path
        Receives what does not fit into memory, and is left as it was.
    keep : bool
        False: the matrix always lies in the folder.
    gain : float
        Counts are divided by it.

    Raises
    ------
    InputError
        If a pattern holds NaN, if all are empty, or if too many counts are negative.
    """
    n, columns = int(np.prod(cube.scan_shape)), features.count
    inside = keep and 4 * n * columns <= IN_MEMORY * cube.memory_mb * 2**20
    with TemporaryDirectory(dir=folder, prefix=".nmf") as temporary:
        place = np.empty((n, columns), np.float32) if inside else Path(temporary) / "matrix"
        sums, clipped = _fill(cube, features, gain, place)
        matrix = Matrix(place, (n, columns), 0.0, None, cube.threads)
        yield _weighted(matrix, features, params.weighting, sums, clipped)


def _fill(cube: Cube, features: Features, gain: float, place) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """Write the features of every position and return their sums by row and by column, and the share clipped."""
    n, nx = int(np.prod(cube.scan_shape)), cube.scan_shape[1]
    index, row, column = features.index.ravel(), np.zeros(n), np.zeros(features.count)
    negative, positive, scale = 0.0, 0.0, np.float32(1 / gain)

    def work(patterns, unit):
        out = np.zeros((unit.count, features.count), np.float32)
        gather(patterns[: unit.count].reshape(unit.count, -1), index, scale, out)
        below = -float(np.minimum(out, 0).sum(dtype=np.float64))
        return np.maximum(out, 0, out=out), below

    file = None if isinstance(place, np.ndarray) else place.open("wb")
    try:
        for unit, (out, below) in cube.map_units(work):
            total = out.sum(axis=1, dtype=np.float64)
            if not np.isfinite(total).all():
                raise _not_numbers(unit.y, unit.x0 + int(np.flatnonzero(~np.isfinite(total))[0]))
            begin = unit.y * nx + unit.x0
            row[begin : begin + unit.count] = total
            column += out.sum(axis=0, dtype=np.float64)
            negative, positive = negative + below, positive + float(total.sum())
            if file is None:
                place[begin : begin + unit.count] = out
            else:
                out.tofile(file)
    finally:
        if file is not None:
            file.close()
    _check(row, negative, positive)
    return (row, column), negative / (negative + positive)


def _not_numbers(y: int, x: int) -> InputError:
    return InputError(
        f"counts that are not finite at scan position y {y}, x {x}",
        where="the pattern source of nmf",
        expected="numbers in every valid pixel",
        do="Repair the raw file, or mask the pixels by acquisition.mask.",
    )


def _check(row: np.ndarray, negative: float, positive: float) -> None:
    if negative > NEGATIVE_LIMIT * (negative + positive):
        raise InputError(
            f"{100 * negative / (negative + positive):.0f} % of the counts are negative",
            where="the pattern source of nmf",
            expected=f"at most {100 * NEGATIVE_LIMIT:.0f} %, because no mixture of patterns is negative",
            do="Set acquisition.offset_counts to what the detector reads without electrons, sum pixels by nmf.bin, or "
            "take averaged patterns.",
        )
    lit = int((row > 0).sum())
    if lit < 2:
        raise InputError(
            f"{lit} of {len(row)} positions {'has' if lit == 1 else 'have'} counts within the limits of nmf",
            where="the pattern source of nmf",
            expected="at least two patterns to compare",
            do="Scan or select more positions (roi), or let the limits be farther apart.",
        )


def _weighted(matrix: Matrix, features: Features, weighting: str, sums, clipped: float) -> Data:
    """Weight the matrix in place and sum its squares."""
    row, column = np.ones(matrix.shape[0], np.float32), np.ones(matrix.shape[1], np.float32)
    lit = sums[0] > 0
    if weighting == "poisson":
        # Keenan, Kotula, Surf. Interface Anal. 36, 203 (2004), doi 10.1002/sia.1657: expected counts are row times
        # column over the total. What never counted has no weight, and no noise either.
        scale = np.sqrt(sums[0].sum() / len(sums[0]))
        row[lit] = np.sqrt(sums[0][lit]) / scale
        seen = sums[1] > 0
        column[seen] = np.sqrt(sums[1][seen] / len(sums[0]))
    squared = 0.0
    for a, b in matrix.spans():
        block = matrix.block(a, b)
        if weighting != "counts":
            block = np.sqrt(block) if weighting == "sqrt" else block / row[a:b, None] / column
            _put(matrix, block, a)
        squared += float(sum(np.square(part, dtype=np.float64).sum() for part in np.array_split(block, 4)))
    return Data(replace(matrix, squared=squared), features, row, column, lit, clipped)


def _put(matrix: Matrix, block: np.ndarray, a: int) -> None:
    if isinstance(matrix.x, np.ndarray):
        matrix.x[a : a + len(block)] = block
    else:
        with matrix.x.open("r+b") as file:
            file.seek(4 * a * matrix.shape[1])
            block.tofile(file)


@numba.njit(nogil=True, cache=True)
def gather(patterns, index, scale, out):
    """Add pixels (n, detector pixels), times ``scale``, to the numbers that they belong to, ``out`` (n, columns)."""
    for i in range(patterns.shape[0]):
        for p in range(index.size):
            k = index[p]
            if k >= 0:
                out[i, k] += patterns[i, p] * scale
