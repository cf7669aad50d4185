"""Kernels of averaging: weighted sums of the windows.

Two neighbours share nearly all of their window, so that both take what is loaded of a pattern. A piece of both sums,
`PIECE` numbers each, stays in registers while the patterns of the window go by: nothing is stored in between, and
arithmetic alone bounds the speed. For that the same piece of all patterns lies together (see `arrays.pieces`): what
the windows of a row of positions hold of it fits into the cache.

A compiler does not find this by itself. It would make vectors of a loop over the pixels, whose sums go to memory
and back with every few patterns. So `two_sums` states it: vectors of `PIECE` numbers, which a compiler splits into
those that the processor has.

Bits depend neither on threads nor on memory: a number is summed over its window in one order, whoever does it.
"""

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from fourdstem.methods.nonlocal_average.arrays import LINE, PIECE
from fourdstem.methods.nonlocal_average.kernels import window_begin, window_width
from fourdstem.methods.nonlocal_average.source import root

FLOAT, INDEX = ir.FloatType(), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, PIECE)
TOGETHER = 4  # pieces of a pattern that are put away one after the other
ONCE = ("contract",)  # multiply and add may be rounded once


def two_sums(values, place, weight, count, out):
    """Fill ``out`` with two weighted sums of the same patterns.

    Parameters
    ----------
    values : ndarray of float32, shape (rows, columns, PIECE)
        A piece of patterns.
    place : ndarray of int64, shape (entries,)
        ``row * columns + column`` of a pattern.
    weight : ndarray of float32, shape (entries, 2)
        In either sum.
    count : int
        Entries that are taken.
    out : ndarray of float32, shape (2, PIECE)
        Filled.
    """
    out[:] = weight[:count].T @ values.reshape(-1, PIECE)[place[:count]]


@overload(two_sums)
def _compiled(values, place, weight, count, out):
    def call(values, place, weight, count, out):
        _two_sums(values, place, weight, count, out)

    return call


@intrinsic
def _two_sums(_, values, place, weight, count, out):
    return types.void(values, place, weight, count, out), _build


def _build(context, builder, signature, arguments):
    """Write what `two_sums` says, for LLVM."""
    values, place, weight, out = _data(context, builder, signature, arguments)
    count = context.cast(builder, arguments[3], signature.args[3], types.int64)
    sums = [cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None)) for _ in range(2)]
    with cgutils.for_range(builder, count, intp=INDEX) as loop:
        at = builder.mul(builder.load(builder.gep(place, [loop.index])), INDEX(PIECE))
        pattern = builder.load(_piece(builder, values, at))
        pattern.align = 4
        for n, total in enumerate(sums):
            own = builder.load(builder.gep(weight, [builder.add(builder.add(loop.index, loop.index), INDEX(n))]))
            product = builder.fmul(_spread(builder, own), pattern, flags=ONCE)
            builder.store(builder.fadd(builder.load(total), product, flags=ONCE), total)
    for n, total in enumerate(sums):
        stored = builder.store(builder.load(total), _piece(builder, out, INDEX(n * PIECE)))
        stored.align = 4
    return context.get_dummy_value()


def _data(context, builder, signature, arguments):
    """Return where the numbers of the arrays among the arguments begin; they are taken to lie together."""
    arrays = [(kind, value) for kind, value in zip(signature.args, arguments, strict=True) if hasattr(kind, "layout")]
    if any(kind.layout != "C" or kind.dtype not in (types.float32, types.int64) for kind, _ in arrays):
        raise TypeError(f"not C-contiguous float32 or int64: {signature.args}")
    return [context.make_array(kind)(context, builder, value).data for kind, value in arrays]


def _piece(builder, numbers, at):
    """Return where PIECE numbers begin, as a vector."""
    return builder.bitcast(builder.gep(numbers, [at]), VECTOR.as_pointer())


def _spread(builder, number):
    """Return a vector of one number."""
    nothing, lane = ir.Constant(VECTOR, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(nothing, number, lane(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(lane, PIECE), None))


def copy(numbers, out):
    """Fill ``out`` (PIECE), which begins a cache line, with the first of some float32 numbers, past the cache.

    What is not soon read again is neither loaded before nor kept. Until `settle` only this thread sees it.
    """
    out[:] = numbers[:PIECE]


@overload(copy)
def _compiled_copy(numbers, out):
    def call(numbers, out):
        _copy(numbers, out)

    return call


@intrinsic
def _copy(_, numbers, out):
    def build(context, builder, signature, arguments):
        source, target = _data(context, builder, signature, arguments)
        loaded = builder.load(_piece(builder, source, INDEX(0)))
        loaded.align = 4
        stored = builder.store(loaded, _piece(builder, target, INDEX(0)))
        stored.align = LINE
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(numbers, out), build


def settle():
    """Wait until every thread sees what passed by the cache."""


@overload(settle)
def _compiled_settle():
    def call():
        _settle()

    return call


@intrinsic
def _settle(_):
    def build(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), build


@numba.njit(nogil=True, cache=True)
def entries(weights, y0, core, scan, rows, columns):
    """Return what the windows of pairs of neighbours hold, but for what neither of the two takes.

    Parameters
    ----------
    weights : ndarray of float32, shape (scan rows, core columns, window)
        Of scan rows from y0 on and columns from ``core`` on.
    y0, core : int
    scan : tuple of int
        half, ny, nx, left; see `kernels`.
    rows, columns : int
        Of the values, as they are stored.

    Returns
    -------
    place : ndarray of int64, shape (scan rows, pairs, entries)
        See `two_sums`.
    weight : ndarray of float32, shape (scan rows, pairs, entries, 2)
        0 beyond a window; the last column of an odd number is its own neighbour.
    count : ndarray of int64, shape (scan rows, pairs)
    """
    half, ny, nx, left = scan
    width_y, width_x = window_width(half, ny), window_width(half, nx)
    pairs, most = (weights.shape[1] + 1) // 2, width_y * (width_x + 1)
    place = np.empty((weights.shape[0], pairs, most), np.int64)
    weight = np.empty((weights.shape[0], pairs, most, 2), np.float32)
    count = np.zeros((weights.shape[0], pairs), np.int64)
    for y in range(weights.shape[0]):
        for pair in range(pairs):
            i, j = 2 * pair, min(2 * pair + 1, weights.shape[1] - 1)
            begin, shifted = window_begin(core + i, half, nx), window_begin(core + j, half, nx)
            for k in range(width_y):
                row = (window_begin(y0 + y, half, ny) + k) % rows
                for x in range(begin, shifted + width_x):
                    a = weights[y, i, k * width_x + x - begin] if x < begin + width_x else np.float32(0)
                    b = weights[y, j, k * width_x + x - shifted] if x >= shifted else np.float32(0)
                    if a != 0 or b != 0:
                        n = count[y, pair]
                        place[y, pair, n] = row * columns + x - left
                        weight[y, pair, n, 0], weight[y, pair, n, 1] = a, b
                        count[y, pair] += 1
    return place, weight, count


@numba.njit(nogil=True, cache=True)
def weighted_sums(values, place, weight, count, pieces, square, offset, out):
    """Fill pieces of ``out`` with the weighted sums of all windows.

    Parameters
    ----------
    values : ndarray of float32, shape (pieces, rows, columns, PIECE)
        See `put`.
    place, weight, count : ndarray
        From `entries`.
    pieces : tuple of int
        First and last + 1 that is filled.
    square : bool
        Fill in the square of a sum plus the offset.
    offset : float
    out : ndarray of float32, shape (scan rows, core columns, pieces, PIECE)
        Begins a cache line.
    """
    both, low = np.empty((2, PIECE), np.float32), np.float32(offset)
    for piece in range(*pieces):
        for y in range(count.shape[0]):
            for pair in range(count.shape[1]):
                two_sums(values[piece], place[y, pair], weight[y, pair], count[y, pair], both)
                for n in range(2):
                    if square:
                        for p in range(PIECE):
                            both[n, p] = both[n, p] * both[n, p] + low
                    copy(both[n], out[y, min(2 * pair + n, out.shape[1] - 1), piece])
    settle()


@numba.njit(nogil=True, cache=True)
def put(patterns, root_of, offset, row, column, values):
    """Store patterns (n_patterns, n), or the roots of what exceeds an offset, in ``values[:, row, column:]``.

    Parameters
    ----------
    patterns : ndarray, shape (n_patterns, n)
    root_of : bool
    offset : float
    row, column : int
    values : ndarray of float32, shape (pieces, rows, columns, PIECE)
        Begins a cache line; numbers that fill up a piece mean nothing.
    """
    low = np.float32(offset)
    some = np.zeros((patterns.shape[0], TOGETHER * PIECE), np.float32)
    for begin in range(0, patterns.shape[1], some.shape[1]):
        width = min(some.shape[1], patterns.shape[1] - begin)
        for i in range(patterns.shape[0]):
            taken, own = patterns[i, begin : begin + width], some[i]
            if root_of:
                for p in range(width):
                    own[p] = root(taken[p], low)
            else:
                for p in range(width):
                    own[p] = taken[p]
        for piece in range(-(-width // PIECE)):
            for i in range(patterns.shape[0]):
                copy(some[i, piece * PIECE :], values[begin // PIECE + piece, row, column + i])
    settle()
