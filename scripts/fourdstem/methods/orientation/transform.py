"""Steps of transforms over azimuth and of the search for peaks, written for the vector units: see `fourdstem.vectors`.

`LANES` patterns lie side by side in a vector; all that is done to one is done to all of them.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from fourdstem.methods.orientation.vectors import product_sum
from fourdstem.vectors import FLOAT, INDEX, LANE, LANES, compiled, data, load, scalars, spread, store

VECTOR = ir.VectorType(FLOAT, LANES)
TALL, WIDE = 6, 4 * LANES  # a matrix product is made in pieces whose sums stay in registers
ROOT = float(np.float32(np.sqrt(0.75)))


def multiply(rows, at, columns, begin, stride, count, out, to):
    """Fill `TALL` rows of `WIDE` numbers with a matrix product.

    Parameters
    ----------
    rows : ndarray of float32
        Flat at ``at`` are ``count`` times `TALL` numbers: a column of the left matrix after the other.
    at : int
    columns : ndarray of float32
        Flat at ``begin``, and each ``stride`` later, are `WIDE` numbers of ``count`` rows.
    begin, stride, count : int
    out : ndarray of float32
    to : int
        Where the first row goes, flat, and each ``stride`` later the others.
    """
    left = rows.reshape(-1)[at : at + count * TALL].reshape(count, TALL)
    right = np.stack([columns.reshape(-1)[begin + n * stride :][:WIDE] for n in range(count)])
    for n, row in enumerate(left.T @ right):
        out.reshape(-1)[to + n * stride :][:WIDE] = row


@compiled(multiply)
def _multiply(context, builder, signature, arguments):
    """Write what `multiply` says, for LLVM; the sums stay in registers."""
    left, right, target = data(context, builder, signature, arguments)
    at, begin, stride, count, to = scalars(context, builder, signature, arguments)
    sums = [_variables(builder, *[_all(0.0)] * (WIDE // LANES)) for _ in range(TALL)]
    with cgutils.for_range(builder, count, intp=INDEX) as loop:
        row = builder.add(begin, builder.mul(loop.index, stride))
        columns = [load(builder, right, builder.add(row, INDEX(n)), LANES) for n in range(0, WIDE, LANES)]
        first = builder.add(at, builder.mul(loop.index, INDEX(TALL)))
        for n, totals in enumerate(sums):
            own = spread(builder, builder.load(builder.gep(left, [builder.add(first, INDEX(n))])), LANES)
            for column, total in zip(columns, totals, strict=True):
                builder.store(product_sum(builder, builder.load(total), (own, column)), total)
    for n, totals in enumerate(sums):
        row = builder.add(to, builder.mul(stride, INDEX(n)))
        for m, total in enumerate(totals):
            store(builder, builder.load(total), target, builder.add(row, INDEX(m * LANES)))
    return context.get_dummy_value()


def radix4(source, at, quarter, beyond, work, to, step, imaginary, turns, angle):
    """One butterfly of four complex vectors.

    Parameters
    ----------
    source : ndarray of float32
        Flat are real parts, and each imaginary part so many numbers, ``beyond``, after its real part.
    at, quarter : int
        Where the first of the four lies, and from one to the next.
    beyond : int
    work : ndarray of float32
        For the results; may be ``source``.
    to, step, imaginary : int
        Where results go, likewise.
    turns : ndarray of float32, shape (n, 6)
        Cosines and sines of once, twice, three times an angle.
    angle : int
        Row.
    """
    given, flat = source.reshape(-1), work.reshape(-1)
    a, b, c, d = (given[n : n + LANES] + 1j * given[n + beyond :][:LANES] for n in range(at, at + 4 * quarter, quarter))
    one, two, three = turns[angle, ::2] + 1j * turns[angle, 1::2]
    results = a + c + b + d, (a - c + 1j * (b - d)) * one, (a + c - b - d) * two, (a - c - 1j * (b - d)) * three
    for n, result in zip(range(to, to + 4 * step, step), results, strict=True):
        flat[n : n + LANES], flat[n + imaginary :][:LANES] = result.real, result.imag


@compiled(radix4)
def _radix4(context, builder, signature, arguments):
    """Write what `radix4` says, for LLVM."""
    numbers, target, angles = data(context, builder, signature, arguments)
    first, quarter, beyond, to, step, imaginary, angle = scalars(context, builder, signature, arguments)
    row = builder.mul(angle, INDEX(6))
    turns = [spread(builder, builder.load(builder.gep(angles, [builder.add(row, INDEX(n))])), LANES) for n in range(6)]
    parts = []
    for n in range(4):
        at = builder.add(first, builder.mul(quarter, INDEX(n)))
        parts.append([load(builder, numbers, where, LANES) for where in (at, builder.add(at, beyond))])
    (ar, ai), (br, bi), (cr, ci), (dr, di) = parts
    add, sub = builder.fadd, builder.fsub
    even, odd = (add(ar, cr), add(ai, ci)), (sub(ar, cr), sub(ai, ci))
    total, turn = (add(br, dr), add(bi, di)), (sub(di, bi), sub(br, dr))  # i (b - d)
    results = [
        (add(even[0], total[0]), add(even[1], total[1])),
        _times(builder, add(odd[0], turn[0]), add(odd[1], turn[1]), *turns[:2]),
        _times(builder, sub(even[0], total[0]), sub(even[1], total[1]), *turns[2:4]),
        _times(builder, sub(odd[0], turn[0]), sub(odd[1], turn[1]), *turns[4:]),
    ]
    for n, (real, other) in enumerate(results):
        at = builder.add(to, builder.mul(step, INDEX(n)))
        store(builder, real, target, at)
        store(builder, other, target, builder.add(at, imaginary))
    return context.get_dummy_value()


def _times(builder, x, y, c, s):
    """(x + i y) (c + i s)."""
    real = product_sum(builder, builder.fmul(x, c), (builder.fneg(y), s))
    return real, product_sum(builder, builder.fmul(y, c), (x, s))


def radix2(work, at, step, to, imaginary):
    """One butterfly of two complex vectors; results go as far apart as the two lie. For the rest see `radix4`."""
    flat = work.reshape(-1)
    a, b = (flat[n : n + LANES] + 1j * flat[n + imaginary :][:LANES] for n in (at, at + step))
    for n, result in ((to, a + b), (to + step, a - b)):
        flat[n : n + LANES], flat[n + imaginary :][:LANES] = result.real, result.imag


@compiled(radix2)
def _radix2(context, builder, signature, arguments):
    numbers, parts, places = _parts(context, builder, signature, arguments, 2)
    a, b = parts
    results = [tuple(map(builder.fadd, a, b)), tuple(map(builder.fsub, a, b))]
    return _put(context, builder, numbers, places, results)


def radix3(work, at, step, to, imaginary):
    """One butterfly of three complex vectors: see `radix2`."""
    flat = work.reshape(-1)
    a, b, c = (flat[n : n + LANES] + 1j * flat[n + imaginary :][:LANES] for n in range(at, at + 3 * step, step))
    turn = 1j * ROOT * (b - c)
    low = a - np.float32(0.5) * (b + c)
    for n, result in zip(range(to, to + 3 * step, step), (a + b + c, low + turn, low - turn), strict=True):
        flat[n : n + LANES], flat[n + imaginary :][:LANES] = result.real, result.imag


@compiled(radix3)
def _radix3(context, builder, signature, arguments):
    numbers, (a, b, c), places = _parts(context, builder, signature, arguments, 3)
    total = tuple(map(builder.fadd, b, c))
    turn = [builder.fmul(_all(ROOT), builder.fsub(x, y)) for x, y in ((c[1], b[1]), (b[0], c[0]))]
    low = [product_sum(builder, x, (_all(-0.5), y)) for x, y in zip(a, total, strict=True)]
    results = [
        tuple(map(builder.fadd, a, total)),
        *(tuple(map(f, low, turn)) for f in (builder.fadd, builder.fsub)),
    ]
    return _put(context, builder, numbers, places, results)


def _parts(context, builder, signature, arguments, count):
    """Numbers of ``work``, complex vectors from ``at`` on, where results and their imaginary parts go."""
    (numbers,) = data(context, builder, signature, arguments)
    at, step, to, imaginary = scalars(context, builder, signature, arguments)
    places = [[builder.add(begin, builder.mul(step, INDEX(n))) for n in range(count)] for begin in (at, to)]
    both = [[(begin, builder.add(begin, imaginary)) for begin in row] for row in places]
    return numbers, [[load(builder, numbers, where, LANES) for where in pair] for pair in both[0]], both[1]


def _put(context, builder, numbers, places, results):
    for pair, result in zip(places, results, strict=True):
        for where, values in zip(pair, result, strict=True):
            store(builder, values, numbers, where)
    return context.get_dummy_value()


def curves(work, at, norm, norms, azimuths, to, score, place, where):
    """Make the curves of a template and its mirror image from the two parts of a transform, and find their tops.

    Parameters
    ----------
    work : ndarray of float32
        Flat are real parts and then imaginary parts, (azimuth, lane). Filled likewise with (real + imaginary) times its
        norm, then with (real - imaginary) times its.
    at : int
        Where the real parts begin.
    norm : ndarray of float32
    norms : tuple of int
        Where the norms (azimuth,) of the two begin, flat.
    azimuths : int
    to : int
        Where the curves begin.
    score, place : ndarray of float32
        Filled with the greatest value of each lane and its azimuth in bins; of equals with the first.
    where : tuple of int
        Where the template's go, flat, and how much later those of the mirror image.
    """
    flat, scale, size = work.reshape(-1), norm.reshape(-1), azimuths * LANES
    real, other = (flat[begin : begin + size].reshape(azimuths, LANES) for begin in (at, at + size))
    for n, (begin, part) in enumerate(zip(norms, (real + other, real - other), strict=True)):
        curve = part * scale[begin : begin + azimuths, None]
        flat[to : to + size] = curve.ravel()
        for values, here in ((score, curve.max(axis=0)), (place, curve.argmax(axis=0))):
            values.reshape(-1)[where[0] + n * where[1] :][:LANES] = here
        to += size


@compiled(curves)
def _curves(context, builder, signature, arguments):
    """Write what `curves` says, for LLVM."""
    numbers, factors, *found = data(context, builder, signature, arguments)
    at, *begins, azimuths, to, first, step = scalars(context, builder, signature, arguments)
    size, lowest = _lanes(builder, azimuths), _all(float("-inf"))
    high, bins, other_high, other_bins, here = _variables(builder, lowest, _all(0.0), lowest, _all(0.0), _all(0.0))
    tops = (high, bins), (other_high, other_bins)
    with cgutils.for_range(builder, azimuths, intp=INDEX) as loop:
        lane, number = _lanes(builder, loop.index), builder.load(here)
        real, other = (load(builder, numbers, builder.add(lane, n), LANES) for n in (at, builder.add(at, size)))
        into = builder.add(to, lane)
        parts = builder.fadd(real, other), builder.fsub(real, other)
        for begin, part, (top, place) in zip(begins, parts, tops, strict=True):
            scale = builder.load(builder.gep(factors, [builder.add(begin, loop.index)]))
            value = builder.fmul(part, spread(builder, scale, LANES))
            store(builder, value, numbers, into)
            higher = builder.fcmp_ordered(">", value, builder.load(top))
            _replace(builder, higher, (top, value), (place, number))
            into = builder.add(into, size)
        builder.store(builder.fadd(number, _all(1.0)), here)
    for n, top in enumerate(tops):
        for values, variable in zip(found, top, strict=True):
            store(builder, builder.load(variable), values, builder.add(first, builder.mul(step, INDEX(n))))
    return context.get_dummy_value()


def second(work, at, azimuths, apart, score, place, to, step):
    """Refine the top of a curve by a parabola, and find the second peak.

    Parameters
    ----------
    work : ndarray of float32
        Flat is the curve, (azimuth, lane). Overwritten near the top.
    at, azimuths : int
        Where it begins, its length.
    apart : int
        The second peak is the highest local maximum above 0 farther from the top than so many bins, 1 or more.
    score, place : ndarray of float32
        Flat at ``to`` are heights and whole azimuths of tops; the latter are refined. ``step`` later: filled with those
        of second peaks; where there is none with 0 and something.
    to, step : int
    """
    curve = work.reshape(-1)[at : at + azimuths * LANES].reshape(azimuths, LANES)
    before, after, lane = np.roll(curve, 1, axis=0), np.roll(curve, -1, axis=0), np.arange(LANES)
    first = place.reshape(-1)[to : to + LANES].astype(int)
    distance = np.abs(np.arange(azimuths)[:, None] - first)
    far = np.minimum(distance, azimuths - distance) > apart
    peak = np.where(far & (curve > before) & (curve > after), curve, 0)
    for n, (values, found) in enumerate(((curve, first), (peak, peak.argmax(axis=0)))):
        left, right = before[found, lane], after[found, lane]
        bend = left - 2 * curve[found, lane] + right
        vertex = np.where(bend < 0, np.float32(0.5) * (left - right) / np.where(bend < 0, bend, -1), 0)
        score.reshape(-1)[to + n * step :][:LANES] = values[found, lane]
        place.reshape(-1)[to + n * step :][:LANES] = found + vertex


@compiled(second)
def _second(context, builder, signature, arguments):
    """Write what `second` says, for LLVM.

    Bins nearer to the top than ``apart`` become NaN, which is greater than nothing and nothing is greater than it. The
    last before ``apart`` is beyond suffices: no neighbour of a bin that was left out is taken.
    """
    numbers, scores, places = data(context, builder, signature, arguments)
    at, azimuths, apart, to, step = scalars(context, builder, signature, arguments)
    curve = builder.gep(numbers, [at])
    height, place = load(builder, scores, to, LANES), load(builder, places, to, LANES)
    store(builder, _refined(builder, curve, azimuths, height, place), places, to)
    whole = _entries(builder, place)
    window = builder.sub(builder.mul(apart, INDEX(2)), INDEX(1))
    with cgutils.for_range(builder, window, intp=INDEX) as loop:
        off = builder.add(builder.sub(loop.index, apart), INDEX(1))
        for where in _round(builder, whole, off, azimuths):
            builder.store(FLOAT(float("nan")), builder.gep(curve, [where]))
    high, bins = _local_maximum(builder, curve, azimuths)
    store(builder, high, scores, builder.add(to, step))
    store(builder, _refined(builder, curve, azimuths, high, bins), places, builder.add(to, step))
    return context.get_dummy_value()


def _local_maximum(builder, curve, azimuths):
    """The highest value above 0 that both neighbours are lower than, 0 where there is none, and its azimuth."""
    last = builder.sub(azimuths, INDEX(1))
    ends = [load(builder, curve, _lanes(builder, n), LANES) for n in (last, INDEX(0))]
    before, here, high, place, number = _variables(builder, *ends, *[_all(0.0)] * 3)
    with cgutils.for_range(builder, azimuths, intp=INDEX) as loop:
        inside = builder.icmp_signed("<", loop.index, last)
        following = builder.select(inside, builder.add(loop.index, INDEX(1)), INDEX(0))
        after = load(builder, curve, _lanes(builder, following), LANES)
        value, bins = builder.load(here), builder.load(number)
        taken = [builder.fcmp_ordered(">", value, other) for other in (builder.load(before), after, builder.load(high))]
        _replace(builder, builder.and_(builder.and_(*taken[:2]), taken[2]), (high, value), (place, bins))
        builder.store(value, before)
        builder.store(after, here)
        builder.store(builder.fadd(bins, _all(1.0)), number)
    return builder.load(high), builder.load(place)


def _refined(builder, curve, azimuths, height, place):
    """Azimuths at the tops of parabolas through values and their neighbours."""
    whole = _entries(builder, place)
    left, right = (_gathered(builder, curve, _round(builder, whole, INDEX(off), azimuths)) for off in (-1, 1))
    bend = builder.fadd(builder.fsub(left, builder.fadd(height, height)), right)
    slope = builder.fmul(_all(0.5), builder.fsub(left, right))
    curved = builder.fcmp_ordered("<", bend, _all(0.0))
    return builder.fadd(place, builder.select(curved, builder.fdiv(slope, bend), _all(0.0)))


def _entries(builder, place):
    """Azimuths, whole numbers, of each lane."""
    whole = builder.fptosi(place, ir.VectorType(LANE, LANES))
    return [builder.sext(builder.extract_element(whole, LANE(n)), INDEX) for n in range(LANES)]


def _round(builder, whole, off, azimuths):
    """Where, flat, the numbers lie that are so many bins off, of each lane."""
    found = []
    for n, one in enumerate(whole):
        bins = builder.add(one, off)
        for bad, back in (
            (builder.icmp_signed("<", bins, INDEX(0)), azimuths),
            (builder.icmp_signed(">=", bins, azimuths), builder.neg(azimuths)),
        ):
            bins = builder.select(bad, builder.add(bins, back), bins)
        found.append(builder.add(_lanes(builder, bins), INDEX(n)))
    return found


def _gathered(builder, numbers, places):
    values = ir.Constant(VECTOR, ir.Undefined)
    for n, where in enumerate(places):
        values = builder.insert_element(values, builder.load(builder.gep(numbers, [where])), LANE(n))
    return values


def _variables(builder, *values):
    kept = [cgutils.alloca_once(builder, VECTOR) for _ in values]
    for variable, value in zip(kept, values, strict=True):
        builder.store(value, variable)
    return kept


def _replace(builder, where, *pairs):
    for variable, value in pairs:
        builder.store(builder.select(where, value, builder.load(variable)), variable)


def _all(value):
    return ir.Constant(VECTOR, [FLOAT(value)] * LANES)


def _lanes(builder, index):
    return builder.mul(index, INDEX(LANES))
