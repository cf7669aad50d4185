"""The matrix that is factorised: patterns as rows, read block by block from memory or from a file.

Blocks depend on the number of columns alone, and sums over blocks are made in float64 in their order: bits depend
neither on threads nor on where the rows lie.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

BLOCK = 2**22  # numbers of a block, about; fixed
MOST_ROWS, LEAST_ROWS = 4096, 32


def rows_of(columns: int) -> int:
    """Return the number of rows of a block, a power of two."""
    return int(np.clip(2 ** int(np.log2(max(BLOCK / columns, 1))), LEAST_ROWS, MOST_ROWS))


@dataclass(frozen=True)
class Matrix:
    """Rows ``x @ basis``, float32 (n, columns); without a basis the rows are ``x`` itself.

    Attributes
    ----------
    x : ndarray of float32, shape (n, d), or a path
        A file holds the same numbers, row after row.
    shape : tuple of int
        (n, d).
    basis : ndarray of float32, shape (d, columns), or None
        Orthonormal rows.
    squared : float
        Sum of squares of all rows, what a basis leaves out included.
    left_out : float
        Sum of squares of what a basis leaves out.
    threads : int
        Never changes a result.
    """

    x: Any
    shape: tuple[int, int]
    squared: float
    basis: np.ndarray | None = None
    threads: int = 1
    left_out: float = 0.0

    @property
    def columns(self) -> int:
        """Number of columns of the rows."""
        return self.shape[1] if self.basis is None else self.basis.shape[1]

    @cached_property
    def turned(self) -> np.ndarray:
        """The basis (columns, d) in the order in memory by which components are multiplied fastest."""
        return np.ascontiguousarray(self.basis.T)

    def spans(self) -> list[tuple[int, int]]:
        """Return first and last + 1 row of every block."""
        n, step = self.shape[0], rows_of(self.shape[1])
        return [(a, min(a + step, n)) for a in range(0, n, step)]

    def block(self, a: int, b: int) -> np.ndarray:
        """Return rows a..b-1 of x, float32 (b - a, d)."""
        if isinstance(self.x, np.ndarray):
            return self.x[a:b]
        d = self.shape[1]
        return np.fromfile(self.x, np.float32, (b - a) * d, offset=4 * a * d).reshape(b - a, d)

    def map(self, work: Callable[[np.ndarray, int, int], Any]) -> Iterator[Any]:
        """Yield ``work(rows of x, a, b)`` of every block, in order, computed by several threads."""
        if self.threads == 1:
            yield from (work(self.block(*span), *span) for span in self.spans())
            return
        with ThreadPoolExecutor(self.threads) as pool:
            yield from pool.map(lambda span: work(self.block(*span), *span), self.spans())


def wrap(v, threads: int = 1) -> Matrix:
    """Return an array (n, columns) as a `Matrix`; a `Matrix` is returned as it is."""
    if isinstance(v, Matrix):
        return v
    x = np.ascontiguousarray(v, np.float32)
    squared = float(sum(np.square(x[a : a + MOST_ROWS], dtype=np.float64).sum() for a in range(0, len(x), MOST_ROWS)))
    return Matrix(x, x.shape, squared, None, threads)
