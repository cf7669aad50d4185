"""Time the factorisation of all starts at one rank against positions, pixels and rank: a table and its figure.

    PYTHONPATH=scripts python benchmarks/nmf_cost.py studies

writes ``nmf_cost.csv``, ``nmf_cost.png`` and ``nmf_cost.pdf`` there. Processor time, one thread, three starts, the
compression and the two passes for true losses included; mixtures of nine patterns, 1,000 electrons each.
"""

import csv
import os
import sys
import time
from pathlib import Path

POSITIONS = (2048, 4096, 8192, 16384, 32768)
DETECTORS = (16, 32, 64, 128)  # pixels along a side
RANKS = (3, 5, 8, 12, 16, 20)
TYPICAL = {"positions": 8192, "detector": 64, "rank": 10}
REPEATS = 2  # the shorter time counts: other work on the machine only adds


def seconds(positions: int, detector: int, rank: int) -> tuple[float, float]:
    """Return processor seconds of a sweep at one rank, and iterations of its fits in the mean."""
    from fourdstem.methods.nmf import sweep
    from nmf import simulate

    v = simulate(positions, detector, 9, 1000)
    taken = []
    for _ in range(REPEATS):
        begin = time.process_time()
        fits = sweep(v, [rank], 3).fits[rank]
        taken.append(time.process_time() - begin)
    return min(taken), sum(one.iterations for one in fits) / len(fits)


def main() -> None:
    """Write the table and draw it."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from fourdstem.figures import study_nmf

    folder = Path(sys.argv[1])
    seconds(512, 16, 3)  # compiles
    rows = [("against", "positions", "pixels", "rank", "processor_s", "iterations")]
    for against, values in (("positions", POSITIONS), ("detector", DETECTORS), ("rank", RANKS)):
        for value in values:
            case = TYPICAL | {against: value}
            took, iterations = seconds(**case)
            name = "pixels" if against == "detector" else against
            told = (name, case["positions"], case["detector"] ** 2, case["rank"], f"{took:.3f}", f"{iterations:.0f}")
            rows.append(told)
            sys.stdout.write(f"{told}\n")
            sys.stdout.flush()
    with (folder / "nmf_cost.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    study_nmf.cost(rows, folder)


if __name__ == "__main__":
    main()
