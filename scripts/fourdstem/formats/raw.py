"""What every reader returns, and the kinds of lazy frames that are not one HDF5 dataset."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, Self

import numpy as np

from fourdstem.errors import InputError


@dataclass(frozen=True)
class RawScan:
    """A raw file, opened but not read; a context manager.

    Attributes
    ----------
    data : array-like of shape (frames, detector_y, detector_x) or (scan_y, scan_x, detector_y, detector_x)
        Slicing its leading axes reads those frames only.
    format : str
        Name of the format, for people.
    metadata : dict
        `calibration.Acquisition` values that the file states, in their units.
    notes : tuple of str
        What the file says that is no acquisition value, and what was not trusted.
    saturation_counts : float or None
        Largest count that the detector can record, where the file says so.
    chunks : tuple of int or None
        Chunks in which the file stores the data.
    hdf5_location : tuple (file, dataset) or None
        Where the data lie if they are one HDF5 dataset.
    """

    data: Any
    format: str
    metadata: dict = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    saturation_counts: float | None = None
    chunks: tuple[int, ...] | None = None
    hdf5_location: tuple[str, str] | None = None
    closing: Callable[[], None] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as recorded, 3 or 4 axes."""
        return tuple(int(n) for n in self.data.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of a count as recorded."""
        return np.dtype(self.data.dtype)

    def close(self) -> None:
        """Close the file."""
        if self.closing is not None:
            self.closing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


@dataclass(frozen=True)
class GuardedFrames:
    """Any frames, of a named file: what fails in reading them later becomes a message that names it."""

    frames: Any
    path: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames as one array."""
        return self.frames.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of a count."""
        return self.frames.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.frames.shape)

    def __getitem__(self, where) -> np.ndarray:
        try:
            return self.frames[where]
        except Exception as error:  # zlib, HDF5 and the file system each raise their own kinds
            raise InputError(
                f"frames {where} that cannot be read ({type(error).__name__}: {error})",
                where=self.path,
                expected=f"{tuple(self.shape)} counts of type {self.dtype}",
                do="Copy the file again from the microscope; it is damaged or truncated, or changed during the run.",
            ) from error


@dataclass(frozen=True)
class MappedFrames:
    """Frames at equal distances in a binary file.

    Each slicing maps the file anew and copies: pages of a map that is kept count as this process's memory, so
    that one pass over a file would seem to need as much memory as the file is large.

    Attributes
    ----------
    path : str
    record : dtype
        A number; or, where a header precedes each frame, a structure with the field "frame".
    offset : int
        Bytes before the first record.
    records : tuple of int
        Shape in units of ``record``.
    flip_y : bool
        The file stores the lowest detector row first.
    """

    path: str
    record: np.dtype
    offset: int
    records: tuple[int, ...]
    flip_y: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames as one array."""
        return (*self.records, *(self.record["frame"].shape if self.record.names else ()))

    @property
    def dtype(self) -> np.dtype:
        """Type of a count."""
        return self.record["frame"].base if self.record.names else self.record

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, where) -> np.ndarray:
        mapped = np.memmap(self.path, self.record, "r", self.offset, self.records)
        frames = mapped["frame"] if self.record.names else mapped
        return np.array((frames[..., ::-1, :] if self.flip_y else frames)[where])


@dataclass(frozen=True)
class JoinedFrames:
    """Stacks of frames, shape (frames, detector_y, detector_x) each, that follow one another."""

    stacks: tuple

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames as one array."""
        return (sum(s.shape[0] for s in self.stacks), *self.stacks[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Type of a count."""
        return self.stacks[0].dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return 3

    def __getitem__(self, where) -> np.ndarray:
        if not isinstance(where, slice):
            return self[where : where + 1 or None][0]
        wanted = np.arange(self.shape[0])[where]
        parts, first = [], 0
        for stack in self.stacks:
            inside = wanted[(wanted >= first) & (wanted < first + stack.shape[0])] - first
            if inside.size:
                parts.append(stack[inside[0] : inside[-1] + 1 : where.step or 1])
            first += stack.shape[0]
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self.dtype)


@dataclass(frozen=True)
class TurnedFrames:
    """A stored array whose axes lie in another order than ours; only what is asked for is read.

    Attributes
    ----------
    stored : h5py dataset or MappedFrames
    order : tuple of int
        Stored axis of each of our axes.
    """

    stored: Any
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in our order."""
        return tuple(self.stored.shape[axis] for axis in self.order)

    @property
    def dtype(self) -> np.dtype:
        """Type of a count."""
        return self.stored.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.order)

    def __getitem__(self, where) -> np.ndarray:
        given = where if isinstance(where, tuple) else (where,)
        given = given + (slice(None),) * (self.ndim - len(given))
        stored = [slice(None)] * self.ndim
        for axis, part in zip(self.order, given, strict=True):
            stored[axis] = part if isinstance(part, slice) else slice(int(part), int(part) + 1 or None)
        turned = self._read(stored).transpose(self.order)
        return np.ascontiguousarray(turned[tuple(slice(None) if isinstance(part, slice) else 0 for part in given)])

    def _read(self, where: list) -> np.ndarray:
        if not isinstance(self.stored, MappedFrames):
            return self.stored[tuple(where)]
        # A pattern that is scattered over the whole file would map all of it: one map per slice of the first axis.
        first = range(*where[0].indices(self.stored.shape[0]))
        parts = [self.stored[(slice(i, i + 1), *where[1:])] for i in first]
        return np.concatenate(parts) if parts else self.stored[(slice(0, 0), *where[1:])]


@dataclass(frozen=True)
class ListedFrames:
    """Frames that are stored, and read, one by one.

    Attributes
    ----------
    read : callable
        Frame number -> array of shape ``frame``.
    records : tuple of int
        Shape of the list of frames, in the order of their numbers.
    frame : tuple of int
        (detector_y, detector_x).
    dtype : dtype
    """

    read: Callable[[int], np.ndarray]
    records: tuple[int, ...]
    frame: tuple[int, int]
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames as one array."""
        return (*self.records, *self.frame)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, where) -> np.ndarray:
        given = where if isinstance(where, tuple) else (where,)
        lead, within = given[: len(self.records)], given[len(self.records) :]
        numbers = np.arange(prod(self.records)).reshape(self.records)[lead]
        frames = np.empty((numbers.size, *self.frame), self.dtype)
        for place, number in enumerate(numbers.ravel()):
            frames[place] = self.read(int(number))
        return frames.reshape(*numbers.shape, *self.frame)[(slice(None),) * numbers.ndim + within]


def expect_frames(path, frames: int, needed: int, what: str) -> None:
    """Raise `InputError` if a file holds fewer frames than its header announces."""
    if frames < needed:
        raise InputError(
            f"{frames} complete frames, the header announces a {what}: {needed} frames",
            where=str(path),
            expected="a complete file",
            do="Copy it again from the microscope; it is truncated.",
        )
