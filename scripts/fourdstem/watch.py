"""What remains to be said when a library crashes the whole process: damaged compressed data do that to HDF5's filters.

Standard library only.
"""

import faulthandler
import os
import signal
import sys
import time
import traceback
from contextlib import contextmanager, suppress

_PATIENCE_S = 60.0


@contextmanager
def watched(say_to, files):
    """Run a block; if the process dies in it, another one still writes the cause.

    Parameters
    ----------
    say_to : path or int
        File to append one line to, or a file descriptor.
    files : sequence of str
        What the block reads.
    """
    reading, writing = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        os.close(writing)
        _wait_and_say(reading, say_to, files)
        os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # the watcher was killed
            os.write(writing, b"lives")
        os.close(writing)
        os.waitpid(watcher, 0)


def _wait_and_say(reading: int, say_to, files) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.read(reading, 5):
        return
    named = ", ".join(files)
    log = "" if isinstance(say_to, int) else f"  [log: {say_to}]"
    text = (
        f"ERROR the process was killed, or a library crashed in it, while it read {named}. Run again; if it ends here"
        f" again a file is damaged so that its reader crashes: copy it again from the microscope.{log}\n"
    )
    target = say_to if isinstance(say_to, int) else os.open(say_to, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(target, text.encode())


def apart(action) -> tuple[int, str]:
    """Do an action in a copy of this process, which may print and write files.

    Parameters
    ----------
    action : function without arguments
        Returns an exit status.

    Returns
    -------
    status : int
        What it returned; 1 after an exception, which is printed, 130 after Ctrl-C.
    died : str
        What the copy died of, "" if it ended by itself.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    copy = os.fork()
    if copy == 0:
        _act_and_leave(action)
    while True:
        try:
            _, status = os.waitpid(copy, 0)
        except KeyboardInterrupt:  # the copy has it too, and ends by it
            continue
        died = signal.strsignal(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else ""
        return (1 if died else os.WEXITSTATUS(status)), died


def _act_and_leave(action) -> None:
    """Do it and end, whatever happens: a copy that went on would do the rest of the program a second time."""
    status = 1
    try:
        status = _status_of(action)
    except KeyboardInterrupt:  # it came late
        status = 130
    finally:
        os._exit(status if isinstance(status, int) else 1)


def _status_of(action) -> int:
    try:
        faulthandler.disable()
        status = action()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def crashes(action) -> str:
    """Try an action in a copy of this process; return what became of the copy, "" if it ended by itself.

    The copy prints nothing and returns nothing: exceptions are for the real run.
    """
    copy = os.fork()
    if copy == 0:
        try:
            faulthandler.disable()
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            action()
        finally:
            os._exit(0)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(copy, os.WNOHANG)
        if ended:
            return signal.strsignal(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else ""
        time.sleep(0.001)
    os.kill(copy, signal.SIGKILL)
    os.waitpid(copy, 0)
    return f"no answer within {_PATIENCE_S:g} s"
