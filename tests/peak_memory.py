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
