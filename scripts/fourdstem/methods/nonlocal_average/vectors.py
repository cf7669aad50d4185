"""Loops of averaging that are written for the vector units, each with the same in plain Python.

A compiler does not find these by itself: of a loop over pixels it makes vectors whose sums go to memory and back, and
half as wide as the processor has, for fear of its slower clock. So they are stated as vectors of `LANES` or `PIECE`
numbers, which a compiler splits into those that there are.
"""

from llvmlite import ir
from numba.core import cgutils

from fourdstem.methods.nonlocal_average.arrays import BLOCK, LINE, PIECE, TALL
from fourdstem.vectors import (
    DOUBLE,
    FLOAT,
    INDEX,
    LANE,
    LANES,
    ONCE,
    compiled,
    data,
    load,
    scalars,
    spread,
    store,
    vector,
)

SUMS = 2 * TALL  # made together of the same patterns
PARTNERS = 5  # ten sums, two patterns, five partners: no sum waits for itself, and all stay in registers


def ten_squares(values, i, j, partner, stride, out, at):
    """Add to ``out[at:]`` Σ (Z_i - Z_k)² over `BLOCK` numbers of two patterns, i and j, and five partners k.

    Parameters
    ----------
    values : ndarray of float32
    i, j : int
        Where the numbers of the two begin in ``values``, flat.
    partner : int
        Where those of the first partner begin.
    stride : int
        From one partner to the next.
    out : ndarray of float64
        Five sums of i, then five of j; 0 is added to what is left of `LANES`.
    at : int
    """
    flat = values.reshape(-1)
    partners = [flat[partner + k * stride :][:BLOCK] for k in range(PARTNERS)]
    for n, own in enumerate((i, j)):
        for k in range(PARTNERS):
            out[at + n * PARTNERS + k] += ((flat[own : own + BLOCK] - partners[k]) ** 2).sum()


@compiled(ten_squares)
def _ten_squares(context, builder, signature, arguments):
    """Write what `ten_squares` says, for LLVM."""
    values, out = data(context, builder, signature, arguments)
    *own, partner, stride, at = scalars(context, builder, signature, arguments)
    others = [builder.add(partner, builder.mul(stride, INDEX(k))) for k in range(PARTNERS)]
    zero = ir.Constant(ir.VectorType(FLOAT, LANES), None)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(2 * PARTNERS)]
    with cgutils.for_range(builder, INDEX(BLOCK // LANES), intp=INDEX) as loop:
        step = builder.mul(loop.index, INDEX(LANES))
        mine, theirs = (
            [load(builder, values, builder.add(begin, step), LANES) for begin in some] for some in (own, others)
        )
        for n, total in enumerate(sums):
            apart = builder.fsub(mine[n // PARTNERS], theirs[n % PARTNERS])
            square = builder.fmul(apart, apart, flags=ONCE)
            builder.store(builder.fadd(builder.load(total), square, flags=ONCE), total)
    totals = [builder.load(total) for total in sums] + [zero] * (LANES - len(sums))
    more = builder.fpext(_lane_sums(builder, totals), ir.VectorType(DOUBLE, LANES))
    store(builder, builder.fadd(load(builder, out, at, LANES), more), out, at)
    return context.get_dummy_value()


def _lane_sums(builder, vectors):
    """Return one vector whose lane n is the sum of the lanes of vector n; there are `LANES` of them."""
    lanes = ir.VectorType(LANE, LANES)
    even, odd = (ir.Constant(lanes, list(range(first, 2 * LANES, 2))) for first in (0, 1))
    while len(vectors) > 1:
        vectors = [
            builder.fadd(builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


def weighted(values, place, weight, count, out):
    """Fill ``out`` with weighted sums of the same patterns.

    Parameters
    ----------
    values : ndarray of float32, shape (rows, columns, PIECE)
        A piece of patterns.
    place : ndarray of int64, shape (entries,)
        ``row * columns + column`` of a pattern.
    weight : ndarray of float32, shape (entries, SUMS)
        In each sum.
    count : int
        Entries that are taken.
    out : ndarray of float32, shape (SUMS, PIECE)
        Filled.
    """
    out[:] = weight[:count].T @ values.reshape(-1, PIECE)[place[:count]]


@compiled(weighted)
def _weighted(context, builder, signature, arguments):
    """Write what `weighted` says, for LLVM."""
    values, place, weight, out = data(context, builder, signature, arguments)
    (count,) = scalars(context, builder, signature, arguments)
    zero = ir.Constant(ir.VectorType(FLOAT, PIECE), None)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(SUMS)]
    with cgutils.for_range(builder, count, intp=INDEX) as loop:
        at = builder.mul(builder.load(builder.gep(place, [loop.index])), INDEX(PIECE))
        pattern = load(builder, values, at, PIECE)
        for n, total in enumerate(sums):
            own = builder.load(builder.gep(weight, [builder.add(builder.mul(loop.index, INDEX(SUMS)), INDEX(n))]))
            product = builder.fmul(spread(builder, own, PIECE), pattern, flags=ONCE)
            builder.store(builder.fadd(builder.load(total), product, flags=ONCE), total)
    for n, total in enumerate(sums):
        store(builder, builder.load(total), out, INDEX(n * PIECE))
    return context.get_dummy_value()


def copy(numbers, out):
    """Fill ``out`` (PIECE), which begins a cache line, with the first of some float32 numbers, past the cache.

    What is not soon read again is neither loaded before nor kept. Until `settle` only this thread sees it.
    """
    out[:] = numbers[:PIECE]


@compiled(copy)
def _copy(context, builder, signature, arguments):
    source, target = data(context, builder, signature, arguments)
    stored = builder.store(load(builder, source, INDEX(0), PIECE), vector(builder, target, INDEX(0), PIECE))
    stored.align = LINE
    stored.set_metadata("nontemporal", builder.module.add_metadata([LANE(1)]))
    return context.get_dummy_value()


def settle():
    """Wait until every thread sees what passed by the cache."""


@compiled(settle)
def _settle(context, builder, signature, arguments):
    builder.fence("seq_cst")
    return context.get_dummy_value()
