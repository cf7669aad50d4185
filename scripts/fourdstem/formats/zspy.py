"""HyperSpy's .zspy: a zarr store of format 2, a folder or a zip archive, read without the zarr package.

RosettaSciIO reads it only with a zarr older than 3. The format is JSON beside one file per chunk; Blosc, HyperSpy's
compressor, is one of the HDF5 filters that are here anyway.
"""

import bz2
import gzip
import itertools
import json
import lzma
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from fourdstem.errors import InputError
from fourdstem.formats.layouts import hyperspy_metadata
from fourdstem.formats.raw import RawScan
from fourdstem.formats.units import axes_metadata

# HyperSpy's chunks have up to 100 MB: the last one is always kept, several only where they are smaller.
_CACHE_BYTES = 64 * 2**20
_UNPACK = {"zlib": zlib.decompress, "gzip": gzip.decompress, "bz2": bz2.decompress, "lzma": lzma.decompress}


@dataclass(frozen=True)
class ZarrFrames:
    """An array of a zarr store of format 2; only the chunks that are asked for are read.

    Attributes
    ----------
    read : callable
        Name of a chunk, such as "0.1.0.0" -> its bytes as stored.
    described : dict
        The array's ``.zarray``.
    """

    read: Callable[[str], bytes]
    described: dict
    kept: OrderedDict = field(default_factory=OrderedDict, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.described["shape"])

    @property
    def dtype(self) -> np.dtype:
        """Type of a count."""
        return np.dtype(self.described["dtype"])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a chunk; those at the end of an axis are stored whole, too."""
        return tuple(self.described["chunks"])

    def chunk_names(self) -> Iterator[str]:
        """Yield the names of all chunks."""
        counts = (-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))
        for number in itertools.product(*map(range, counts)):
            yield self._name(number)

    def __getitem__(self, where) -> np.ndarray:
        given = where if isinstance(where, tuple) else (where,)
        given = given + (slice(None),) * (self.ndim - len(given))
        wanted = [np.atleast_1d(np.arange(n)[part]) for part, n in zip(given, self.shape, strict=True)]
        out = np.empty([len(w) for w in wanted], self.dtype)
        numbers = [np.unique(w // c) for w, c in zip(wanted, self.chunks, strict=True)]
        for number in itertools.product(*numbers):
            parts = [_run(w, k, c) for w, k, c in zip(wanted, number, self.chunks, strict=True)]
            out[tuple(to for to, _ in parts)] = self._chunk(tuple(map(int, number)))[tuple(at for _, at in parts)]
        return out[tuple(slice(None) if isinstance(part, slice) else 0 for part in given)]

    def _chunk(self, number: tuple[int, ...]) -> np.ndarray:
        if number in self.kept:
            self.kept.move_to_end(number)
            return self.kept[number]
        size = prod(self.chunks) * self.dtype.itemsize
        while self.kept and size * (len(self.kept) + 1) > _CACHE_BYTES:
            self.kept.popitem(last=False)
        counts = _unpacked(self.read(self._name(number)), self.described["compressor"], size)
        self.kept[number] = counts.view(self.dtype).reshape(self.chunks, order=self.described["order"])
        return self.kept[number]

    def _name(self, number: tuple[int, ...]) -> str:
        return self.described.get("dimension_separator", ".").join(map(str, number))


def _run(wanted: np.ndarray, chunk: int, length: int) -> tuple[slice, slice]:
    """Return where in the answer, and where in a chunk, those of the wanted indices lie that are in the chunk."""
    found = np.flatnonzero(wanted // length == chunk)
    inside = wanted[found] - chunk * length
    step = int(inside[1] - inside[0]) if len(inside) > 1 else 1
    return slice(found[0], found[-1] + 1), slice(int(inside[0]), int(inside[-1]) + 1, step)


def _unpacked(packed: bytes, compressor: dict | None, size: int) -> np.ndarray:
    """Return the bytes of a chunk, ``size`` of them."""
    if compressor is not None and compressor["id"] == "blosc":
        return _unpacked_blosc(packed, size)
    plain = packed if compressor is None else _UNPACK[compressor["id"]](packed)
    if len(plain) != size:
        raise ValueError(f"a chunk of {len(plain)} bytes instead of {size}")
    return np.frombuffer(plain, np.uint8)


def _unpacked_blosc(packed: bytes, size: int) -> np.ndarray:
    """Let HDF5's Blosc filter unpack a buffer: it stores the same buffers."""
    says = tuple(int.from_bytes(packed[i : i + 4], "little") for i in (4, 12))
    if says != (size, len(packed)):  # the filter trusts the header of the buffer
        raise ValueError(f"a Blosc chunk of {len(packed)} bytes, whose header says {says[1]} for {says[0]} of {size}")
    with h5py.File("chunk", "w", driver="core", backing_store=False, block_size=len(packed) + 2**16) as file:
        data = file.create_dataset("chunk", (size,), "u1", chunks=(size,), **hdf5plugin.Blosc())
        data.id.write_direct_chunk((0,), packed)
        return data[()]


# ---- the store --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Store:
    read: Callable[[str], bytes]
    names: frozenset[str]
    close: Callable[[], None] | None

    def json(self, name: str) -> dict:
        return json.loads(self.read(name)) if name in self.names else {}


def _open_store(path: Path) -> _Store:
    if path.is_dir():
        names = frozenset(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        return _Store(lambda name: (path / name).read_bytes(), names, None)
    archive = zipfile.ZipFile(path)
    return _Store(archive.read, frozenset(archive.namelist()), archive.close)


def open_zspy(path: Path, dataset: str | None = None) -> RawScan:
    """Open a scan that HyperSpy saved as ``.zspy``, a folder or a zip archive.

    Raises
    ------
    InputError
        If it holds no or several scans, lacks chunks, or is packed in a way that is not read here.
    """
    store = _open_store(path)
    try:
        group = _chosen(store, dataset, path)
        frames = ZarrFrames(lambda name: store.read(f"{group}/data/{name}"), store.json(f"{group}/data/.zarray"))
        _check_array(store, group, frames, path)
        axes = [store.json(f"{group}/axis-{i}/.zattrs") for i in range(frames.ndim)]
        metadata, notes = axes_metadata([(float(a.get("scale", 0)), str(a.get("units", ""))) for a in axes])
        instrument = store.json(f"{group}/metadata/Acquisition_instrument/TEM/.zattrs")
        metadata |= hyperspy_metadata(axes, instrument, f"{path}/{group}/data")
        return RawScan(frames, "zarr (HyperSpy)", metadata, tuple(notes), chunks=frames.chunks, closing=store.close)
    except BaseException:
        if store.close is not None:
            store.close()
        raise


def _chosen(store: _Store, dataset: str | None, path: Path) -> str:
    """Return the group of the scan."""
    ends = "/data/.zarray"
    groups = sorted(n.removesuffix(ends) for n in store.names if n.startswith("Experiments/") and n.endswith(ends))
    scans = [g for g in groups if len(store.json(g + ends)["shape"]) in (3, 4)]
    wanted = dataset.strip("/").removesuffix("/data") if dataset else None
    chosen = [g for g in scans if wanted in (None, g)]
    if len(chosen) == 1:
        return chosen[0]
    if "zarr.json" in store.names:
        found = "a zarr store of format 3"
        do = "Save it where HyperSpy is: `hs.load('scan.zspy', lazy=True).save('scan.hspy')`, and name the .hspy."
    elif scans:
        found = f"no scan `{dataset}`" if dataset else f"{len(scans)} scans"
        do = f"Set `dataset:` of the sample, for example `dataset: {scans[0]}`."
    else:
        found = f"no scan among {', '.join(groups) or 'no signals of HyperSpy'}"
        do = "Check that this is the scan, and that it was copied whole."
    expected = (
        f"one of {', '.join(scans)}" if scans else "a .zspy with one array of 3 or 4 axes (Experiments/NAME/data)"
    )
    raise InputError(found, where=str(path), expected=expected, do=do)


def _check_array(store: _Store, group: str, frames: ZarrFrames, path: Path) -> None:
    described: dict[str, Any] = frames.described
    compressor = (described["compressor"] or {"id": None})["id"]
    known = (None, "blosc", *_UNPACK)
    if compressor not in known or described["filters"] or described["order"] not in "CF":
        found = f"chunks packed by {compressor}, filters {described['filters']}, order {described['order']}"
        expected = f"compressor {', '.join(map(str, known))}, no filters"
        do = "Save it again in HyperSpy, without naming a compressor."
        raise InputError(found, where=str(path), expected=expected, do=do)
    missing = [n for n in frames.chunk_names() if f"{group}/data/{n}" not in store.names]
    if missing:
        # Zarr reads a chunk that is not there as zeros; HyperSpy writes all, so that one was lost.
        raise InputError(
            f"{len(missing)} chunks that are missing, the first of them {group}/data/{missing[0]}",
            where=str(path),
            expected="all chunks of the array",
            do="Copy the .zspy again, whole.",
        )
