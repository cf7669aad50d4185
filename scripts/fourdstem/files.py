"""Files that stand under their names only when complete, and what to say where one cannot be written.

Standard library only: the Snakefile's records are written by it too.
"""

import errno
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path

from fourdstem.errors import InputError

# No space, a quota that is used up, a limit on the size of files: all mean that the rest did not fit.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ROOM = "no room left to write to"
DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def complete_or_absent(path):
    """Yield the path of a temporary file beside ``path``, which gets that name when the block ends without an error.

    Raises
    ------
    InputError
        If the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        _begin(temporary)
        yield temporary
        _settle(temporary)
        os.replace(temporary, path)
    except Exception as error:
        if (known := disk_full(error, path)) is not None:
            raise known from None
        raise
    finally:
        with suppress(OSError):  # gone where all went well; where not, the first error is the one to tell
            temporary.unlink()


def _begin(temporary: Path) -> None:
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.open("wb").close()
    except OSError as error:
        if (known := denied(error, temporary.parent)) is not None:
            raise known from None
        raise


def _settle(temporary: Path) -> None:
    """Wait until the bytes are on the disk: file systems over a network, and quotas, tell only then that it is full."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())


def write_text(path, text: str) -> None:
    """Write a text file that stands under its name only when complete."""
    with complete_or_absent(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def disk_full(error: BaseException, where) -> InputError | None:
    """Return what to tell the user if an error, or one that it arose from, is that the disk is full; else None.

    HDF5 says so in its own words, and a second time, as another kind of error, when the file is closed.
    """
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    told = [one for one in chain if isinstance(one, InputError)]
    if not any(map(_is_full, chain)) or told[:1] == chain[:1]:
        return None
    if told:
        return told[0]  # somebody who knew more had told already when closing a file failed once more
    return InputError(
        f"{NO_ROOM} ({os.strerror(next(filter(None, map(_is_full, chain))))})",
        where=str(where),
        expected="space for the whole file",
        do="Free some space and run again: what is finished stays.",
    )


def _is_full(error: BaseException) -> int | None:
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (said := re.search(r"\berrno = (\d+)", str(error))):
        number = int(said[1])
    return number if number in FULL else None


def denied(error: OSError, where) -> InputError | None:
    """Return what to tell the user if an error is that a folder may not be written to; else None."""
    if error.errno not in DENIED:
        return None
    return InputError(
        f"a folder that may not be written to ({os.strerror(error.errno)})",
        where=str(where),
        expected="the right to write there",
        do="Change its rights or owner, or run in a folder of your own: `snakemake --directory FOLDER`.",
    )
