"""How much memory a piece of code needs at its worst, measured in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
MEASURE = """
import re, sys
from pathlib import Path

def resident_mb(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
"""
BEGIN = """
before = resident_mb("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
"""
END = """
print(resident_mb("VmHWM") - before)
"""


def peak_growth_mb(prepare: str, work: str, *arguments) -> float:
    """Run ``prepare``, which imports and compiles, then ``work``; return how far ``work`` raised resident memory.

    Both find ``arguments`` in ``sys.argv[1:]``. Counts what really is in memory, compiled code's arrays included.
    """
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read from /proc, which this system does not have")
    program = "\n".join((MEASURE, prepare, BEGIN, work, END))
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    return float(run.stdout)


EACH = """
import os

def one(argument):
    sys.argv[1:] = [argument]
    {begin}
    exec(WORK, {{}})
    print(f"{{argument}}\\t{{resident_mb('VmHWM') - before}}", flush=True)

for argument in sys.argv[1:]:
    child = os.fork()
    if not child:
        one(argument)
        os._exit(0)
    assert not os.waitpid(child, 0)[1], argument
"""


def peak_growths_mb(prepare: str, work: str, arguments) -> dict[str, float]:
    """Likewise for ``work`` on each of the arguments alone, ``sys.argv[1]``, in a fork each of one prepared process."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read from /proc, which this system does not have")
    each = EACH.format(begin=BEGIN.strip().replace("\n", "\n    "))
    program = "\n".join((MEASURE, prepare, f"WORK = {work!r}", each))
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    return {line.split("\t")[0]: float(line.split("\t")[1]) for line in run.stdout.splitlines()}
