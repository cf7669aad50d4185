"""Surveys of many mistakes and damages; damaged files are read in another process, so that no crash is missed."""

import contextlib
import logging
import multiprocessing
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase

from fourdstem.faults import damage as faults
from fourdstem.faults import gates, mistakes, valid
from fourdstem.faults.files import KINDS
from fourdstem.watch import watched

MEMORY_BYTES = 8 * 2**30
OUTCOMES = ("refused", "unchanged", "harmless", "own value", "told", "crash told", "unexplained")
COLUMNS = ("subject", "kind", "cases", *(outcome.replace(" ", "_") for outcome in OUTCOMES))


def survey_configurations(folder: Path, each: int, seed: int) -> Iterator[tuple]:
    """Yield (kind of mistake, outcome, why, text) of configurations; a text that came before is left out.

    Parameters
    ----------
    folder : path
        An empty one.
    each : int
        Configurations of a kind.
    seed : int
    """
    valid.prepare(folder)
    with contextlib.chdir(folder):
        for kind in mistakes.KINDS:
            cases = []
            _drawn(kind, each, seed, cases)
            for case in {case.text: case for case in cases}.values():
                try:
                    outcome, why = {"refused": "refused", "accepted": "unchanged"}[gates.judge(case, folder)], ""
                except gates.Unexplained as error:
                    outcome, why = "unexplained", str(error)
                except Exception:
                    outcome, why = "unexplained", traceback.format_exc()
                yield kind, outcome, why, case.text


def _drawn(kind: str, each: int, seed: int, cases: list) -> None:
    """Append configurations with one mistake of a kind, the same ones for the same seed."""
    options = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=each, phases=[Phase.generate], **options)
    @hypothesis.given(mistakes.cases(kind))
    def draw(case):
        cases.append(case)

    draw()


def table(counts: Counter) -> list[tuple]:
    """Return rows of (subject, kind, cases, one column per outcome) with the sums of each subject.

    Parameters
    ----------
    counts : Counter
        Of (subject, kind, outcome).
    """
    rows = [COLUMNS]
    for subject in dict.fromkeys(subject for subject, _, _ in counts):
        kinds = dict.fromkeys(kind for other, kind, _ in counts if other == subject)
        for kind in (*kinds, "all"):
            numbers = [
                sum(n for (s, k, o), n in counts.items() if s == subject and o == outcome and kind in (k, "all"))
                for outcome in OUTCOMES
            ]
            rows.append((subject, kind, sum(numbers), *numbers))
    return rows


def study(configurations: int, damages: int, seed: int, say) -> list[tuple]:
    """Return the table of both surveys; every unexplained case is said."""
    counts = Counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "configurations"
        place.mkdir()
        for kind, outcome, why, text in survey_configurations(place, configurations, seed):
            counts["configuration", kind, outcome] += 1
            if why:
                say(f"configuration, {kind}: {why}\n{text.decode('utf-8', 'replace')}")
        for kind, damage, outcome, why, one in survey_files(list(KINDS), Path(folder) / "files", damages, seed):
            counts["damaged file by format", kind, outcome] += 1
            counts["damaged file by damage", damage, outcome] += 1
            if why:
                say(f"{kind}, {damage} at {one.touched} {one.suffix}: {why}")
    return table(counts)


def survey_files(kinds, folder: Path, each: int, seed: int, limit_s: float = 10.0) -> Iterator[tuple]:
    """Yield (kind of file, kind of damage, outcome, why, damage) of damaged files.

    Parameters
    ----------
    kinds : sequence of str
        Of `files.KINDS`.
    folder : path
        Where the files may be written.
    each : int
        Damages of a kind for each file, about.
    seed : int
    limit_s : float
        A reader that takes longer hangs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    worker = Worker(limit_s, folder / "job.log")
    try:
        for number, kind in enumerate(kinds):
            place = folder / str(number)
            place.mkdir(parents=True)
            sound, before = faults.prepared(kind, place)
            whole = sound.damaged.read_bytes()
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
            for one in faults.damages(sound, rng, each):
                path = faults.place(sound, one)
                yield kind, one.kind, *worker.judge(path, sound, before, one), one
                if one.suffix:
                    path.unlink()
                sound.damaged.write_bytes(whole)
            shutil.rmtree(place)
    finally:
        worker.stop()


class Worker:
    """A process that reads damaged files; started anew when one hangs it or kills it."""

    def __init__(self, limit_s: float, log: Path):
        self.limit_s, self.log = limit_s, log
        self.context = multiprocessing.get_context("fork")  # another kind would run the script of the job again
        self.process = None

    def judge(self, *arguments) -> tuple[str, str]:
        """Return outcome and why, of `damage.judge`."""
        if self.process is None:
            self.pipe, theirs = self.context.Pipe()
            self.process = self.context.Process(target=_work, args=(theirs, str(self.log)), daemon=True)
            self.process.start()
            theirs.close()
            self.pipe.recv()
        self.pipe.send(arguments)
        try:
            if self.pipe.poll(self.limit_s):
                return self.pipe.recv()
            found = f"no answer within {self.limit_s:g} s"
        except EOFError:
            self.process.join()
            found = f"the process ended with {self.process.exitcode}"
            if str(arguments[0]) in self._last_line():
                self.stop()
                return faults.CRASH, ""
        self.stop()
        return "unexplained", found

    def _last_line(self) -> str:
        """Return what a job's log would end with; the watcher needs a moment to write it."""
        deadline = time.monotonic() + self.limit_s
        while time.monotonic() < deadline and not (self.log.exists() and self.log.stat().st_size):
            time.sleep(0.01)
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        return text

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def _work(pipe, log: str) -> None:
    import resource

    logging.getLogger("rsciio").setLevel(logging.CRITICAL)  # it tells of every damaged header
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    pipe.send("ready")
    while True:
        arguments = pipe.recv()
        try:
            with watched(log, [str(arguments[0])]):
                outcome = faults.judge(*arguments)
            pipe.send(outcome)
        except Exception:
            pipe.send(("unexplained", traceback.format_exc()))
