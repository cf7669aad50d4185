"""Computes expected patterns beside the training: processes that fill shared memory, or this one where none are wanted.

Every example is drawn from its own seed; how many processes share the work changes the order of examples only.
"""

import mmap
import multiprocessing
import os

import numpy as np

from fourdstem.methods.training import patterns, structures

CHUNK = 16  # examples that are handed over together
EXTRA = 4 + 3 * patterns.SPOTS  # numbers that go with an image


def pattern_row(seed: int, share: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (SIZE, SIZE) and (EXTRA,) centre y, x, radius, 0, spots."""
    p = patterns.draw_pattern(seed, share, index)
    return p.image, np.concatenate([p.centre, [p.radius, 0], p.spots.ravel()]).astype(np.float32)


def mean_row(seed: int, share: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a scan mean (SIZE, SIZE) and (EXTRA,) e_1, e_2, radius, orientations, zeros."""
    image, e, radius, count = patterns.draw_scan_mean(seed, share, index)
    return image, np.concatenate([e, [radius, count], np.zeros(EXTRA - 4)]).astype(np.float32)


def rows(seed: int, share: str, first: int, count: int, means: bool = False):
    """Return ``count`` examples: images (count, SIZE, SIZE) and (count, EXTRA)."""
    made = [(mean_row if means else pattern_row)(seed, share, first + i) for i in range(count)]
    return np.stack([m[0] for m in made]), np.stack([m[1] for m in made])


def prepare() -> None:
    """Compute tables and compile kernels now, so that processes that are forked later have them."""
    structures.prepare()
    for index in range(24):
        patterns.draw_pattern(0, "train", index)
    patterns.draw_scan_mean(0, "train", 0)


def together(seed: int, share: str, count: int, means: bool, workers: int):
    """Return what `rows` returns, computed by several processes."""
    jobs = [(seed, share, first, min(CHUNK, count - first), means) for first in range(0, count, CHUNK)]
    if workers < 2:
        made = [rows(*job) for job in jobs]
    else:
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            made = pool.starmap(rows, jobs, chunksize=1)
    return np.concatenate([m[0] for m in made]), np.concatenate([m[1] for m in made])


class Supply:
    """Endless training examples.

    Parameters
    ----------
    seed : int
    workers : int
        Processes; a quarter of them compute scan means. 0: everything is computed when it is asked for.
    slots : int
        Chunks that a process may be ahead.
    """

    def __init__(self, seed: int, workers: int, slots: int = 24):
        self.seed, self.slots = seed, slots
        self._next = {False: 0, True: 0}
        self._stop = None
        self._lanes = {False: [], True: []}
        if workers:
            context = multiprocessing.get_context("fork")  # shared memory, and what is compiled stays compiled
            self._stop = context.Event()
            means = max(workers // 4, 1)
            for k in range(max(workers, 2)):
                self._lanes[k < means].append(self._start(context, k))
            for kind, lanes in self._lanes.items():
                for k, lane in enumerate(lanes):
                    lane.start(kind, k, len(lanes))

    def _start(self, context, k):
        return _Lane(context, self._stop, self.seed, self.slots)

    def take(self, means: bool = False, most: int = 10**6):
        """Yield (images, extras) by chunks: those that are ready, none or many; without processes one.

        The arrays are overwritten later: copy them before the next is asked for.
        """
        if self._stop is None:
            first = self._next[means]
            self._next[means] += CHUNK
            yield rows(self.seed, "train", first, CHUNK, means)
            return
        lanes = self._lanes[means]
        for lane in lanes:
            yield from lane.take(-(-most // CHUNK // len(lanes)))

    @property
    def everything_here(self) -> bool:
        """Whether examples are computed by this process, when they are asked for."""
        return self._stop is None

    def alive(self) -> bool:
        """Whether every process still works."""
        return all(lane.process.is_alive() for lanes in self._lanes.values() for lane in lanes)

    def close(self) -> None:
        """End the processes."""
        if self._stop is None:
            return
        self._stop.set()
        for lanes in self._lanes.values():
            for lane in lanes:
                lane.process.join(5)
                if lane.process.is_alive():
                    lane.process.terminate()


class _Lane:
    """One process and the ring of chunks that it fills."""

    def __init__(self, context, stop, seed: int, slots: int):
        size = patterns.SIZE**2
        self.context, self.stop, self.seed, self.slots = context, stop, seed, slots
        self.images = _shared((slots, CHUNK, patterns.SIZE, patterns.SIZE), size * CHUNK * slots)
        self.extras = _shared((slots, CHUNK, EXTRA), EXTRA * CHUNK * slots)
        self.done, self.taken = context.Semaphore(0), context.Semaphore(slots)
        self.read = 0

    def start(self, means: bool, k: int, of: int) -> None:
        self.process = self.context.Process(target=self._work, args=(means, k, of), daemon=True)
        self.process.start()

    def _work(self, means: bool, k: int, of: int) -> None:
        os.nice(5)  # the process that trains goes first
        chunk, slot = k, 0
        while not self.stop.is_set():
            if not self.taken.acquire(timeout=0.5):
                continue
            self.images[slot], self.extras[slot] = rows(self.seed, "train", chunk * CHUNK, CHUNK, means)
            self.done.release()
            chunk, slot = chunk + of, (slot + 1) % self.slots

    def take(self, most: int):
        """Yield the chunks that are ready, at most so many."""
        for _ in range(most):
            if not self.done.acquire(block=False):
                return
            yield self.images[self.read], self.extras[self.read]
            self.read = (self.read + 1) % self.slots
            self.taken.release()


def _shared(shape, count: int) -> np.ndarray:
    return np.frombuffer(mmap.mmap(-1, 4 * count), np.float32, count).reshape(shape)
