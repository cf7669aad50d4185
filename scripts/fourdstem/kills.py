"""Kills runs of the workflow at random moments and compares what the next run makes with a run left alone.

Linux only: the processes of a run are found in ``/proc``.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fourdstem import provenance

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("kill", "run", "stage", "moment_s", "signal", "target", "files_wrong_after_kill", "resumed", "identical")
# What ends a run: the signal, and whom it meets. Ctrl-C and a closed terminal meet all processes of the run, the
# system that has no memory left meets the job or Snakemake alone; in the last case the job goes on.
OF_RUN = (("KILL", "all"), ("KILL", "job"), ("KILL", "snakemake"), ("TERM", "all"), ("INT", "all"))
OF_JOB = (("KILL", "job"), ("KILL", "job"), ("TERM", "job"), ("KILL", "job"), ("INT", "job"), ("KILL", "job"))
_PROMISED = (".h5", ".ang", ".ctf", ".csv", ".png", ".pdf")
_SCRIPT = re.compile(r"/\.snakemake/scripts/tmp\w+\.(\w+)\.py$")


@dataclass(frozen=True)
class Run:
    """A workflow that was run to its end, and all that its copies need.

    Attributes
    ----------
    folder : Path
        Working directory.
    config : Path
    promised : dict
        ``{file: sha256}`` of the results whose bytes a rerun must give again.
    scripts : dict
        ``{job: script}`` as Snakemake started them.
    seconds : float
        How long it took.
    """

    folder: Path
    config: Path
    promised: dict
    scripts: dict
    seconds: float


def study(folder, config, each: int, seed: int, say: Callable[[str], None]) -> list[tuple]:
    """Return the rows of the table; the first names the columns.

    Parameters
    ----------
    folder : path-like
        Empty; takes the runs.
    config : path-like
        A configuration of one small sample.
    each : int
        How often each job is killed in the ways of `OF_JOB`, beside the kills of one whole run.
    seed : int
        Of the moments.
    say : callable
        Is told of every row.
    """
    chance = random.Random(seed)
    run = _reference(Path(folder) / "reference", Path(config).resolve())
    jobs = sorted((run.folder / "results").glob("*/provenance/*.json"))
    rows = [COLUMNS]
    for kills in (_kill_whole(run, chance), *(_kill_job(run, job, OF_JOB * each, chance) for job in jobs)):
        for kill in kills:
            rows.append((len(rows), *kill))
            say(" ".join(map(str, rows[-1])))
    return rows


def _reference(folder: Path, config: Path) -> Run:
    folder.mkdir()
    (folder / "config").symlink_to(ROOT / "config")
    began = time.monotonic()
    subprocess.run(_command(folder, config), env=_environment(), check=True, capture_output=True)
    return Run(folder, config, _promised(folder), _scripts(folder), time.monotonic() - began)


def _scripts(folder: Path) -> dict:
    """Return ``{job: script}``; a job's sidecar tells how it was started."""
    jobs = (folder / "results").glob("*/provenance/*.json")
    return {job.stem: Path(provenance.read_record(job)["command"]) for job in jobs}


def _command(folder: Path, config: Path) -> list[str]:
    """Snakemake as a user types it; ``--nolock`` is for what ``--unlock`` would do in a run of its own."""
    options = ["--snakefile", str(ROOT / "Snakefile"), "--profile", str(ROOT / "profiles" / "default")]
    options += ["--directory", str(folder), "--configfile", str(config), "--cores", "1", "--nolock"]
    return [sys.executable, "-m", "snakemake", "--skip-script-cleanup", *options]


def _environment() -> dict:
    """All runs share what this job has compiled."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SNAKEMAKE_PROFILE")}


def _promised(folder: Path) -> dict:
    files = (p for p in sorted((folder / "results").rglob("*")) if p.suffix in _PROMISED and p.parent.name != "logs")
    return {p.relative_to(folder).as_posix(): provenance.sha256(p) for p in files if p.name != "summary.csv"}


# ---- runs that are killed again and again ------------------------------------------------------------------------


def _kill_whole(run: Run, chance: random.Random):
    """Yield rows: a run from nothing is killed, resumed and killed again, until it comes to its end."""
    folder = run.folder.parent / "whole"
    folder.mkdir()
    (folder / "config").symlink_to(ROOT / "config")
    rows, status = [], None
    while status is None:
        way, process = OF_RUN[len(rows) % len(OF_RUN)], _start(folder, _command(folder, run.config))
        # A stage that was killed twice gets more time, else a long one would never end.
        patience = 2 ** max(0, sum(row[1] == rows[-1][1] for row in rows) - 2) if rows else 1
        moment = _wait(process, chance.uniform(0.02, 0.12) * patience * run.seconds)
        stage = _kill(process, way)
        if stage is None:
            status = process.returncode
        else:
            rows.append(("whole", stage or "between jobs", f"{moment:.2f}", *way, _wrong(folder, run.promised)))
    good = _wrong(folder, run.promised, missing=True) == 0 and provenance.audit(folder / "results") == []
    shutil.rmtree(folder)
    yield from ((*row, status == 0, good) for row in rows)


def _kill_job(run: Run, sidecar: Path, ways, chance: random.Random):
    """Yield rows: a job's script, all of whose inputs are there, is killed at a moment of its time, again and again."""
    folder, record = run.folder.parent / "job", provenance.read_record(sidecar)
    shutil.copytree(run.folder, folder, symlinks=True)
    made = [sidecar.relative_to(run.folder).as_posix(), *(entry["path"] for entry in record["outputs"])]
    command = [sys.executable, str(run.scripts[sidecar.stem])]
    promised, rows, todo = {path: run.promised[path] for path in made if path in run.promised}, [], list(ways)
    while todo:
        for path in made:
            (folder / path).unlink(missing_ok=True)
        process, limit = _start(folder, command), chance.uniform(0, 0.95 * record["seconds"])
        moment = _wait(process, limit)
        if _kill(process, todo[0]) is not None:  # else it was done before
            rows.append((sidecar.stem, record["stage"], f"{moment:.2f}", *todo.pop(0), _wrong(folder, promised)))
    status = _start(folder, command).wait()
    good = _wrong(folder, promised, missing=True) == 0 and not list((folder / "results").rglob("*.part"))
    shutil.rmtree(folder)
    yield from ((*row, status == 0, good) for row in rows)


# ---- processes -----------------------------------------------------------------------------------------------------


def _start(folder: Path, command: list[str]) -> subprocess.Popen:
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=folder, env=_environment(), start_new_session=True, **nowhere)


def _wait(process: subprocess.Popen, limit: float) -> float:
    """Wait so many seconds, or to the end; return how long it was."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < limit:
        time.sleep(0.01)
    return time.monotonic() - began


def _jobs(process: subprocess.Popen) -> dict[int, str]:
    """Return ``{process: stage}`` of the jobs that a Snakemake started."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_text().split("\0") if entry.name.isdigit() else []
            script = next(filter(None, map(_SCRIPT.search, words[1:2])), None)
            if script and os.getpgid(int(entry.name)) == process.pid:
                found[int(entry.name)] = script[1]
        except OSError:  # it ended meanwhile
            continue
    return found


def _kill(process: subprocess.Popen, way) -> str | None:
    """Kill, wait for Snakemake's end, and return the stage that ran ("" between jobs); None if all was done before."""
    name, target = way
    number, jobs = signal.Signals[f"SIG{name}"], _jobs(process)
    if process.poll() is not None:
        return None
    try:
        if target == "all":
            os.killpg(process.pid, number)
        else:
            os.kill(next(iter(jobs), process.pid) if target == "job" else process.pid, number)
    except ProcessLookupError:
        return None
    process.wait()
    return next(iter(jobs.values()), "")


def _wrong(folder: Path, promised: dict, *, missing: bool = False) -> int:
    """Count the promised files that stand under their names with other bytes than those of the reference."""
    return sum(
        provenance.sha256(folder / path) != wanted if (folder / path).exists() else missing
        for path, wanted in promised.items()
    )
