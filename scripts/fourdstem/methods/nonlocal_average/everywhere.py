"""Averages over similar patterns of the whole scan, wherever they lie.

Positions are put in the order of a walk through the graph of neighbours, along which similar ones come close together.
A *group* of positions, as many as memory holds, is averaged at once: the patterns that it needs come by in *chunks*,
in the order of the walk, and each is added to what it is a member of. A sum therefore runs in the order of the walk,
whatever the sizes of groups and chunks and the number of threads. Groups follow each other in scan order, so that
averages are written as they are made; each group reads and interpolates anew what it needs.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from fourdstem.cube import UNIT, Cube, Unit
from fourdstem.errors import InputError
from fourdstem.files import disk_full
from fourdstem.methods.nonlocal_average import sparse
from fourdstem.methods.nonlocal_average.arrays import blocks, flat, padded
from fourdstem.methods.nonlocal_average.source import Source

CHUNKS = (2048, 1024, 512, 256, 128, 64, 32)  # patterns that come by at once, the most that fit into a quarter
LINKS = 8  # nearest neighbours of a position that the walk goes along
TASK = 256  # positions of a task at least


class Places(NamedTuple):
    """Positions anywhere in the scan; stands for a `Unit` where patterns are prepared."""

    where: tuple[np.ndarray, np.ndarray]
    count: int


class Plan(NamedTuple):
    """How many positions are averaged at once, and how many patterns come by at once."""

    positions: int
    chunk: int


@dataclass(frozen=True)
class Entries:
    """What each position of a group takes from the patterns that come by; see `sparse`.

    Attributes
    ----------
    needed : ndarray of int64, shape (patterns,)
        Flat index of all that come by, in the order of the walk.
    slot : ndarray of int64, shape (positions, entries)
        Which member an entry is.
    place : ndarray of int32, shape (positions, entries)
        Place of an entry in ``needed``; beyond its end if the member takes no part.
    queue : ndarray of int64, shape (positions,)
        The positions of the group in the order of the walk.
    """

    needed: np.ndarray
    slot: np.ndarray
    place: np.ndarray
    queue: np.ndarray


@dataclass(frozen=True)
class Bench:
    """What all groups share.

    Attributes
    ----------
    source : Source
    read : callable
        ``read(positions)`` returns patterns as they are stored.
    order, step : ndarray of int64, shape (N,)
        The walk: flat index of each step, and step of each flat index.
    pool : Executor
    chunk : int
    """

    source: Source
    read: Callable
    order: np.ndarray
    step: np.ndarray
    pool: Executor
    chunk: int

    def entries(self, first: int, members: np.ndarray, part: np.ndarray) -> Entries:
        """Return the entries of positions from ``first`` on; ``part`` (bool) tells which members take part."""
        total = len(self.order)
        walk = np.where(part, self.step[members], total)
        slot = np.argsort(walk, axis=1, kind="stable")
        walk = np.take_along_axis(walk, slot, axis=1)
        come = np.zeros(total + 1, bool)
        come[walk] = True
        come[total] = False
        place = (np.cumsum(come) - 1).astype(np.int32)
        place[total] = np.iinfo(np.int32).max
        queue = np.argsort(self.step[first : first + len(members)])
        return Entries(self.order[come[:total]], slot, place[walk], queue)

    def patterns(self, needed: np.ndarray, prepare: Callable, n: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield first, last + 1 and the patterns ``needed[first:last]`` in blocks, each of n prepared numbers."""
        room, nx = blocks(min(self.chunk, len(needed)), n), self.source.cube.scan_shape[1]
        for first in range(0, len(needed), self.chunk):
            now = needed[first : first + self.chunk]

            def fill(begin, now=now):
                some = now[begin : begin + UNIT]
                places = Places((some // nx, some % nx), len(some))
                flat(room)[begin : begin + len(some), :n] = prepare(self.read(some), places)

            list(self.pool.map(fill, range(0, len(now), UNIT)))
            yield first, first + len(now), room

    def tasks(self, entries: Entries, last: int, at: np.ndarray) -> list[tuple[int, int]]:
        """Move ``at`` on to what lies before place ``last``; return ranges of the queue to share out."""
        sparse.advance(entries.place, last, at)
        count, threads = len(entries.queue), self.source.cube.threads
        size = max(TASK, -(-count // (4 * threads)))
        return [(a, min(a + size, count)) for a in range(0, count, size)]


def average_everywhere(source: Source, index, weights, variance, scale, out, scratch) -> np.ndarray:
    """Average every pattern with the members named in a table.

    Parameters
    ----------
    source : Source
    index : ndarray of int32, shape (N, 1 + k)
        Flat index of the position itself, then of its neighbours, nearest first; -1: none.
    weights : ndarray of float32, shape (N, 1 + k), or None
        None: by the published formula, from whole patterns.
    variance : ndarray of float64, shape (scan_y, scan_x)
        σ², for the formula.
    scale : tuple of float
        λ and d₀, for the formula.
    out : Output
    scratch : path-like or None
        Folder for a copy of the stored patterns, deleted afterwards; None: the system's. A NumPy array needs none.

    Returns
    -------
    ndarray of float32, shape (2, scan_y, scan_x)
        Effective number and self-weight.

    Raises
    ------
    InputError
        If not even `UNIT` positions fit into ``cube.memory_mb``, or if the disk has no room for the copy.
    """
    cube = source.cube
    plan = plan_for(cube, index.shape[1], source.n if weights is None else 0)
    trust = np.empty((2, len(index)), np.float32)
    with ThreadPoolExecutor(cube.threads) as pool, _stored(cube, scratch) as read:
        order = walk(index)
        step = np.empty_like(order)
        step[order] = np.arange(len(order))
        bench = Bench(source, read, order, step, pool, plan.chunk)
        for units in groups(cube, plan.positions):
            first = units[0].y * cube.scan_shape[1] + units[0].x0
            last = first + sum(unit.count for unit in units)
            if weights is None:
                found = _weigh(bench, first, index[first:last], variance.ravel(), scale)
            else:
                found = np.where(index[first:last] < 0, 0, weights[first:last])
            total = found.sum(axis=1, dtype=np.float64, keepdims=True)
            trust[0, first:last] = total[:, 0] ** 2 / (found.astype(np.float64) ** 2).sum(axis=1)
            found = (found / total).astype(np.float32)
            trust[1, first:last] = found[:, 0]
            _average(bench, units, first, index[first:last], found, out)
    return trust.reshape(2, *cube.scan_shape)


def walk(index: np.ndarray) -> np.ndarray:
    """Return int64 (N,): all positions in an order in which neighbours come soon after each other.

    Source: Cuthill, McKee, Proc. 24th Nat. Conf. ACM, 157 (1969), doi 10.1145/800195.805928.
    """
    links = index[:, 1 : 1 + LINKS]
    begin = np.concatenate([[0], np.cumsum((links >= 0).sum(axis=1))])
    to = links[links >= 0]
    graph = csr_array((np.ones(len(to), np.int8), to, begin), shape=(len(index),) * 2)
    return reverse_cuthill_mckee(graph, symmetric_mode=False).astype(np.int64)


def groups(cube: Cube, positions: int) -> Iterator[list[Unit]]:
    """Yield the units of the scan in groups of at most so many positions."""
    group = []
    for unit in cube.units():
        if group and sum(one.count for one in group) + unit.count > positions:
            yield group
            group = []
        group.append(unit)
    yield group


def plan_for(cube: Cube, entries: int, n: int) -> Plan:
    """Share out memory; n: pixels compared, 0 if weights are given.

    Raises
    ------
    InputError
        If not even `UNIT` positions fit.
    """
    pixels = int(np.prod(cube.detector_shape))
    total = int(np.prod(cube.scan_shape))
    pattern = 4 * padded(max(n, pixels))
    # Tables of all positions and the walk; patterns on their way in (stored, repaired, corrected); averages going out.
    fixed = total * (8 * entries + 400) + UNIT * 4 * ((6 * pixels + n) * cube.threads + 2 * pixels)
    position = pattern + 64 * entries
    free = cube.memory_mb * 2**20 - fixed
    chunk = next((c for c in CHUNKS if c * pattern <= free / 4), CHUNKS[-1])
    positions = int((free - chunk * pattern) // position)
    if positions < UNIT:
        need = int(np.ceil((fixed + CHUNKS[-1] * pattern + UNIT * position) / 2**20))
        raise InputError(
            f"needs {need} MB for {total} positions with {entries - 1} neighbours",
            where="nonlocal_average job, mem_mb",
            expected=f"at most {cube.memory_mb:g} MB",
            do=f"Run with --set-resources nonlocal_average:mem_mb={need}, or choose fewer neighbours, roi or bin.",
        )
    return Plan(positions, chunk)


@contextmanager
def _stored(cube: Cube, folder) -> Iterator[Callable]:
    """Hand out a function that reads patterns anywhere in the scan, as they are stored.

    Chunks of a file are compressed and hold many patterns, nearly all of which a read would decompress for nothing;
    hence the copy. It is read, not mapped, because mapped pages count as memory; it has no name, so that it
    vanishes with the process.
    """
    nx = cube.scan_shape[1]
    if isinstance(cube.data, np.ndarray):
        yield lambda positions: cube.data[positions // nx, positions % nx]
        return
    dtype, pattern = np.dtype(cube.data.dtype), int(np.prod(cube.detector_shape))
    size = pattern * dtype.itemsize
    folder = tempfile.gettempdir() if folder is None else folder
    _check_space(folder, size * int(np.prod(cube.scan_shape)))
    with tempfile.TemporaryFile(dir=folder) as file:
        _copy(cube, file, folder)

        def read(positions):
            patterns = np.empty((len(positions), *cube.detector_shape), dtype)
            for position, into in zip(positions, patterns.reshape(len(positions), -1), strict=True):
                if os.preadv(file.fileno(), [into], int(position) * size) != size:
                    raise OSError(f"the temporary file in {folder} is cut short")
            return patterns

        yield read


def _copy(cube: Cube, file, folder) -> None:
    for _, patterns in cube.map_stored(lambda patterns, unit: np.ascontiguousarray(patterns)):
        try:
            file.write(patterns)
            file.flush()
        except OSError as error:
            raise disk_full(error, f"a temporary file in {folder}") or error from None


def _check_space(folder, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"the global search needs {needed / 1e9:.3g} GB for temporary files, and {free / 1e9:.3g} GB are free",
            where=str(folder),
            expected="an uncompressed copy of the scan to fit",
            do="Free some space, let TMPDIR name a folder on a larger disk, or set nonlocal_average.search to window.",
        )


def _weigh(bench: Bench, first: int, members: np.ndarray, variance: np.ndarray, scale) -> np.ndarray:
    """Return float32 weights (positions, entries) by the published formula, not normalised."""
    source, n = bench.source, bench.source.n
    mine = np.arange(first, first + len(members))
    own = blocks(len(mine), n)
    for begin, end, room in bench.patterns(mine, source.compared, n):
        own[begin:end] = room[: end - begin]
    known = np.append(variance > 0, False)  # the last is that of -1
    part = known[members] & known[mine][:, None]
    part[:, 0] = False  # itself
    entries = bench.entries(first, members, part)
    sums, at = np.zeros(members.shape), np.zeros((len(mine), 2), np.int64)
    for begin, end, room in bench.patterns(entries.needed, source.compared, n):

        def compare(task, begin=begin, room=room):
            sparse.compare(own, room, entries.place, at, begin, entries.queue, *task, sums)

        list(bench.pool.map(compare, bench.tasks(entries, end, at)))
    out = np.empty(members.shape, np.float32)
    sparse.weights_from(sums, entries.slot, members, variance, first, n, scale, out)
    return out


def _average(bench: Bench, units: list[Unit], first: int, members, weights, out) -> None:
    """Average the positions of a group and write them."""
    source, pixels = bench.source, int(np.prod(bench.source.cube.detector_shape))
    entries = bench.entries(first, members, weights > 0)
    taken = np.take_along_axis(weights, entries.slot, axis=1)
    sums, at = blocks(len(members), pixels), np.zeros((len(members), 2), np.int64)
    for begin, end, room in bench.patterns(entries.needed, source.accumulated, pixels):

        def add(job, begin=begin, room=room):
            block, task = job
            sparse.add(room, entries.place, at, begin, entries.queue, *task, block, taken, sums)

        tasks = bench.tasks(entries, end, at)
        list(bench.pool.map(add, [(block, task) for block in range(sums.shape[1]) for task in tasks]))
    done = 0
    for unit in units:
        here = slice(done, done + unit.count)
        counts = source.from_average(flat(sums)[here, :pixels])
        out.write(unit.y, unit.x0, unit.x1, counts, members[here], weights[here])
        done = here.stop
