"""What the tests of raw files share: counts, how a refusal is checked, the vendors' files."""

import os
from pathlib import Path

import pytest

from fourdstem.errors import InputError
from fourdstem.faults.writers import COUNTS, blosc, write_dm4, write_merlin, write_seq, write_zspy
from fourdstem.formats import open_raw

__all__ = [
    "COUNTS", "SHAPE", "blosc", "merlin_words", "refuses", "vendor_folder", "write_dm4", "write_merlin", "write_seq",
    "write_zspy",
]  # fmt: skip

SHAPE = COUNTS.shape


def vendor_folder():
    """Folder of the files that vendors' programs wrote; skips where they are not there."""
    folder = os.environ.get("FOURDSTEM_TEST_DATA")
    if not folder:
        pytest.skip("FOURDSTEM_TEST_DATA is not set")
    return Path(folder) / "rsciio_formats"


def refuses(path, *words, **options):
    """The error has its four parts and names the file and the given words."""
    with pytest.raises(InputError) as caught:
        open_raw(path, **options)
    error = caught.value
    assert error.found and error.expected and error.do and Path(path).name in error.where
    for word in words:
        assert word in str(error), str(error)
    return error


def merlin_words(rows, depth):
    """Pack rows of counts as a chip sends them: 64-bit words, highest byte first, the first pixel lowest."""
    bits = {1: 1, 6: 8, 12: 16}[depth]
    per_word = 64 // bits
    words = (row[i : i + per_word] for row in rows.tolist() for i in range(0, len(row), per_word))
    return b"".join(sum(count << (bits * i) for i, count in enumerate(word)).to_bytes(8, "big") for word in words)
