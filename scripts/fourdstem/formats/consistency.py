"""Whether what a file says of its counts agrees with itself: a damaged header often still reads, as something else.

No format but the newer HDF5 has checksums; so everything that is stated twice is compared, sizes first.
"""

from math import prod
from pathlib import Path

import h5py
import numpy as np

from fourdstem.errors import InputError

_LARGEST_FRAME_BYTES = 2**30
_SUPERBLOCK_BYTES = 96
_LOOKED_UP_BYTES = 64 * 2**20
_MOST_OBJECTS = 20_000


def damaged(path, found: str, expected: str) -> InputError:
    """Return the refusal of a file that contradicts itself."""
    return InputError(found, where=str(path), expected=expected, do="Copy it again from the microscope; it is damaged.")


def check_file_size(path: Path, needed: int, what: str, record: int = 0) -> list[str]:
    """Compare the size of a file with what its header announces.

    Parameters
    ----------
    path : path
    needed : int
        Bytes up to the end of the last count.
    what : str
        What the header announces, for the message.
    record : int, optional
        Bytes of one frame. Less than that may follow the counts, and is told; 0: nothing may follow.

    Returns
    -------
    list of str
        Notes.
    """
    size = Path(path).stat().st_size
    if needed <= size and (size == needed or size - needed < record):
        return [] if size == needed else [f"{size - needed} bytes after the last frame are left out"]
    kind = "truncated or damaged" if size < needed else "damaged, or more was appended to it"
    raise damaged(
        path, f"a file of {size} bytes whose header announces {what}: {needed} bytes; it is {kind}", "both alike"
    )


def check_frame(shape, dtype, path) -> None:
    """Refuse frames that no detector records, before memory is asked for one."""
    if prod(shape[-2:]) * dtype.itemsize > _LARGEST_FRAME_BYTES:
        found = f"frames of {shape[-2]} by {shape[-1]} px of type {dtype}"
        raise damaged(path, found, f"frames of at most {_LARGEST_FRAME_BYTES} bytes")


def told_of_counts(frame: np.ndarray) -> list[str]:
    """Say where counts look as if the bytes of each were stored in the other order."""
    if frame.dtype.kind not in "ui" or frame.dtype.itemsize < 2 or not frame.any():
        return []
    if np.abs(frame.byteswap().astype(np.float64)).max() * 200 < np.abs(frame.astype(np.float64)).max():
        return ["counts look as if their bytes stood in the other order than the header says: check them by `inspect`"]
    return []


# ---- HDF5 -------------------------------------------------------------------------------------------------


def check_storage(dataset: h5py.Dataset, headers=None) -> list[str]:
    """Compare the shape of an HDF5 dataset with what is stored of it.

    HDF5 returns zeros for chunks that it does not find, and reads whatever stands at the place that the header names.

    Parameters
    ----------
    dataset : h5py.Dataset
    headers : ndarray, optional
        Where something else begins, ascending; by default all objects of the file are looked for.

    Returns
    -------
    list of str
        Notes: frames that were never written, numbers of unusual width.

    Raises
    ------
    InputError
        If pieces are missing by a damage, overlap, or lie outside of the file or on its headers.
    """
    path, layout = dataset.file.filename, dataset.id.get_create_plist()
    kind = layout.get_layout()
    if kind == h5py.h5d.CONTIGUOUS and layout.get_external_count() == 0:
        pieces, notes = _contiguous(dataset, path)
    elif kind == h5py.h5d.CHUNKED:
        pieces, notes = _chunks(dataset, path)
    else:
        return []
    _check_pieces(dataset, pieces, path, headers)
    stored = dataset.id.get_type()
    if not stored.equal(h5py.h5t.py_create(dataset.dtype)):
        notes.append(f"counts are stored as numbers of an unusual kind, which HDF5 turns into {dataset.dtype}")
    return notes


def _contiguous(dataset, path):
    size, needed = dataset.id.get_storage_size(), prod(dataset.shape) * dataset.dtype.itemsize
    if size != needed:
        found = (
            f"{size} bytes stored for {dataset.shape} counts of type {dataset.dtype}" if size else "no counts written"
        )
        raise damaged(path, f"{found} in {dataset.name}", f"{needed} bytes")
    return [(dataset.id.get_offset(), size)], []


def _chunks(dataset, path):
    chunks, whole = dataset.chunks, prod(dataset.chunks) * dataset.dtype.itemsize
    seen, pieces, odd = set(), [], []
    filters = dataset.id.get_create_plist().get_nfilters()

    def look(info):
        inside = all(o % c == 0 and o < n for o, c, n in zip(info.chunk_offset, chunks, dataset.shape, strict=True))
        unfiltered = not filters or info.filter_mask
        if not inside or info.chunk_offset in seen or (unfiltered and info.size != whole):
            odd.append(info.chunk_offset)
        seen.add(info.chunk_offset)
        pieces.append((info.byte_offset, info.size))

    dataset.id.chunk_iter(look)
    if odd:
        found = f"{len(odd)} of {len(pieces)} chunks of {dataset.name} out of place, the first at {odd[0]}"
        raise damaged(path, found, f"chunks of {chunks} within {dataset.shape}, each once")
    needed = prod(-(-n // c) for n, c in zip(dataset.shape, chunks, strict=True))
    if not pieces:
        raise damaged(path, f"no counts written in {dataset.name}", f"{needed} chunks")
    _look_up(dataset, sorted(seen), sum(size for _, size in pieces), path)
    missing = needed - len(pieces)
    return pieces, [f"{missing} of {needed} chunks were never written: their counts read as 0"] if missing else []


def _look_up(dataset, offsets: list, stored_bytes: int, path) -> None:
    """Find chunks by their places, as reading does: HDF5 returns zeros for one that its index no longer leads to.

    In a large file only some, since to find one is to read it.
    """
    step = -(-stored_bytes // _LOOKED_UP_BYTES) or 1
    for offset in offsets[::step]:
        try:
            dataset.id.read_direct_chunk(offset)
        except (OSError, RuntimeError, ValueError):
            raise damaged(
                path, f"a chunk of {dataset.name} at {offset} that is stored but not found", "an index"
            ) from None


def _occupied(dataset) -> np.ndarray:
    """Return where headers of objects and the other datasets of a file begin, ascending."""
    own, todo = h5py.h5o.get_info(dataset.id).addr, [dataset.file["/"]]
    headers, data = {own, h5py.h5o.get_info(dataset.file.id).addr}, set()
    while todo and len(headers) < _MOST_OBJECTS:
        group = todo.pop()
        for key in group:
            link = group.get(key, getlink=True)
            item = group.get(key) if isinstance(link, h5py.HardLink) else None
            if item is None or (address := h5py.h5o.get_info(item.id).addr) in headers:
                continue
            headers.add(address)
            todo += [item] if isinstance(item, h5py.Group) else []
            if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
                data.add(item.id.get_offset())
    return np.array(sorted(headers | data))


def _check_pieces(dataset, pieces: list[tuple[int, int]], path, headers=None) -> None:
    pieces, size = sorted(pieces), Path(path).stat().st_size
    headers = _occupied(dataset) if headers is None else headers
    for (start, length), (after, _) in zip(pieces, [*pieces[1:], (size, 0)], strict=True):
        inside = np.searchsorted(headers, start + length) - np.searchsorted(headers, start)
        if start < _SUPERBLOCK_BYTES or inside or start + length > after:
            expected = "counts that lie apart from each other and from the headers"
            raise damaged(path, f"counts of {dataset.name} that overlap something else at byte {start}", expected)


def _own_header(data) -> np.ndarray:
    return np.array(sorted(h5py.h5o.get_info(item.id).addr for item in (data.parent, data)))


def check_frame_dataset(data: h5py.Dataset, shape, dtype) -> np.ndarray:
    """Return one frame that is a dataset of its own; refuses one of another shape or kind."""
    told = check_storage(data, _own_header(data))
    if told or (data.shape, data.dtype) != (shape, dtype):
        raise damaged(
            data.file.filename, f"{data.name} of shape {data.shape}, {data.dtype} {told}", f"{shape}, {dtype}"
        )
    return data[()]


def check_number(data: h5py.Dataset):
    """Return a number or numbers that HDF5 stores beside the counts.

    Raises
    ------
    InputError
        If their header was changed: a number of another kind, or not where it was written.
    """
    if data.dtype.kind not in "uif":  # text has a length of its own
        return data[()]
    told = check_storage(data, _own_header(data))
    if told or data.size > 10**6:
        raise damaged(data.file.filename, f"{data.name}, {data.shape} numbers of an unusual kind", "plain numbers")
    return data[()]


def check_attributes(item) -> dict:
    """Return the attributes of an HDF5 object; refuses numbers of an unusual kind as `check_number` does."""
    for key in item.attrs:
        stored = item.attrs.get_id(key)
        if stored.dtype.kind in "uif" and not stored.get_type().equal(h5py.h5t.py_create(stored.dtype)):
            raise damaged(
                item.file.filename, f"attribute {key} of {item.name}, a number of an unusual kind", "a number"
            )
    return item.attrs
