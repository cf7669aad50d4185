"""The most similar patterns of a whole scan: nearest neighbours in a few coordinates per pattern.

Up to `EXACT` positions every pair is compared; beyond, an inverted file (lists of positions around centres that
k-means finds) compares each position with those of the lists nearest to it, which grows in proportion to the number
of positions. A few grains that fill the scan spread over many lists: how many are gone through is doubled until
a sample of positions finds enough of its true neighbours. The library is Faiss (Douze et al., arXiv:2401.08281).
"""

import logging
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely

log = logging.getLogger("fourdstem")

EXACT = 131_072  # positions; beyond, comparing all pairs takes longer than going through the lists
LIST, PROBED = 256, 128  # positions per list, fewest lists gone through: enough for grains of some 20,000 positions
RECALL, SAMPLE = 0.96, 512  # share of true neighbours to be found, of so many positions
TRAINING, ITERATIONS = 64, 10  # positions per list that k-means sees, and how often it moves the centres
TOGETHER = 8192  # queries; fixed, because the last bits of a matrix product depend on its shape
SPARE = 8  # candidates more than are wanted, because the library's distances are rounded


def nearest(coordinates: np.ndarray, k: int, seed: int, threads: int) -> np.ndarray:
    """Find the k positions nearest to each, by Euclidean distance.

    Parameters
    ----------
    coordinates : ndarray of float32, shape (N, r)
        A position with a NaN has no neighbours and is none.
    k : int
    seed : int
        Of k-means; used for more than `EXACT` positions.
    threads : int
        The answer does not depend on it.

    Returns
    -------
    ndarray of int32, shape (N, k)
        Nearest first; the position itself is not among them; -1 where there are no more.
    """
    known = np.flatnonzero(np.isfinite(coordinates).all(axis=1)).astype(np.int32)
    out = np.full((len(coordinates), k), -1, np.int32)
    if len(known) < 2:
        return out
    # About their mean the coordinates are smaller, and so is what rounding takes from |a|² - 2 a·b + |b|².
    mean = coordinates[known].mean(axis=0, dtype=np.float64)
    places = np.ascontiguousarray(coordinates[known] - mean, np.float32)
    wanted = min(k + 1 + SPARE, len(known))
    # Each thread is told to start no others: shared out differently, sums would differ in their last bits.
    with ThreadPoolExecutor(threads) as pool:
        index = pool.submit(_index, places, wanted, seed).result()

        def search(first):
            _alone()
            _, found = index.search(places[first : first + TOGETHER], wanted)
            mine = np.arange(first, first + len(found), dtype=np.int32)
            chosen = _closest(places, mine, np.sort(found.astype(np.int32), axis=1), k)
            out[known[mine], : chosen.shape[1]] = np.where(chosen < 0, -1, known[chosen])

        list(pool.map(search, range(0, len(known), TOGETHER)))
    return out


def _alone():
    """Let the calling thread use no other threads inside Faiss."""
    import faiss  # brings an OpenMP of its own, which only a search should load

    faiss.omp_set_num_threads(1)
    return faiss


def _index(places: np.ndarray, wanted: int, seed: int):
    faiss = _alone()
    count, r = places.shape
    exact = faiss.IndexFlatL2(r)
    if count <= EXACT:
        exact.add(places)
        return exact
    index = faiss.IndexIVFFlat(exact, r, count // LIST)
    index.nprobe = min(PROBED, index.nlist)
    index.cp.seed, index.cp.niter, index.cp.max_points_per_centroid = seed % 2**31, ITERATIONS, TRAINING
    index.train(places)
    index.add(places)
    some = np.ascontiguousarray(places[:: -(-count // SAMPLE)])
    truth = faiss.knn(some, places, wanted)[1]  # of all pairs
    while (recall := _recall(index.search(some, wanted)[1], truth)) < RECALL and index.nprobe < index.nlist:
        index.nprobe = min(2 * index.nprobe, index.nlist)
    text = "%.1f %% of the true neighbours of %d positions are found in %d of %d lists"
    log.info(text, 100 * recall, len(some), index.nprobe, index.nlist)
    return index


def _recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))


def _closest(places: np.ndarray, mine: np.ndarray, candidates: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest of each row of candidates (-1: none), which ascend, without the position itself."""
    distance = np.empty(candidates.shape)
    _distances(places, mine, candidates, distance)
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(candidates, order, axis=1)
    kept[np.isinf(np.take_along_axis(distance, order, axis=1))] = -1
    return kept


@numba.njit(nogil=True, cache=True)
def _distances(places, mine, candidates, out):
    """Fill ``out`` with squared distances, summed in one order; infinite where there is no candidate."""
    for q in range(candidates.shape[0]):
        for c in range(candidates.shape[1]):
            j, total = candidates[q, c], 0.0
            if j < 0 or j == mine[q]:
                out[q, c] = np.inf
                continue
            for axis in range(places.shape[1]):
                step = np.float64(places[mine[q], axis]) - np.float64(places[j, axis])
                total += step * step
            out[q, c] = total
