"""Weights on disk, in the safetensors format (a JSON header and raw numbers; nothing in it can run)."""

import json
from pathlib import Path

import numpy as np
import torch

from fourdstem.errors import InputError
from fourdstem.networks.centre import Centre
from fourdstem.networks.denoise import Denoise
from fourdstem.networks.ellipse import Ellipse

VERSION = "1"  # of shapes and input; weights of another version are refused
KINDS = {"denoise": Denoise, "centre": Centre, "ellipse": Ellipse}
_LARGEST_HEADER = 10**7
_TYPES = {"F32": "<f4", "F16": "<f2"}


def save(path, kind: str, state: dict, told: dict | None = None, dtype: str = "F32") -> None:
    """Write the weights of a network.

    Parameters
    ----------
    path : path-like
    kind : {"denoise", "centre", "ellipse"}
    state : dict of str to Tensor
        As from ``state_dict()``.
    told : dict of str to str, optional
        What else to write into the header.
    dtype : {"F32", "F16"}
        How the numbers are stored; half of the bits are enough for use, not for training on.
    """
    arrays = {
        k: np.ascontiguousarray(v.detach().float().cpu().numpy(), _TYPES[dtype]) for k, v in sorted(state.items())
    }
    header = {"__metadata__": {"network": kind, "version": VERSION, **(told or {})}}
    offset = 0
    for name, array in arrays.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(array.tobytes())


def load(path, kind: str):
    """Return a network with its weights, ready for use, and what its header tells.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another network or of another version.
    """
    do = "Take the weights that came with this version, or train anew: snakemake train."
    try:
        raw = Path(path).read_bytes()
        header = _header(raw)
    except (OSError, ValueError, KeyError) as error:
        found = f"weights that cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(found, where=str(path), expected="a safetensors file", do=do) from error
    told = header.pop("__metadata__", {})
    expected = f"weights of the network '{kind}', version {VERSION}"
    if (told.get("network"), told.get("version")) != (kind, VERSION):
        found = f"weights of the network '{told.get('network')}', version {told.get('version')}"
        raise InputError(found, where=str(path), expected=expected, do=do)
    network = KINDS[kind]()
    try:
        network.load_state_dict(_tensors(raw, header))
    except (RuntimeError, ValueError, KeyError) as error:
        found = f"weights that do not fit the network: {str(error).splitlines()[0]}"
        raise InputError(found, where=str(path), expected=expected, do=do) from error
    return network.eval().requires_grad_(False), told


def _header(raw: bytes) -> dict:
    size = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or not 0 < size <= min(len(raw) - 8, _LARGEST_HEADER):
        raise ValueError("it is cut short or no safetensors file")
    return json.loads(raw[8 : 8 + size])


def _tensors(raw: bytes, header: dict) -> dict:
    start = 8 + int.from_bytes(raw[:8], "little")
    out = {}
    for name, entry in header.items():
        low, high = entry["data_offsets"]
        if entry["dtype"] not in _TYPES or start + high > len(raw):
            raise ValueError(f"{name} is cut short or of another type than {', '.join(_TYPES)}")
        values = np.frombuffer(raw[start + low : start + high], _TYPES[entry["dtype"]]).reshape(entry["shape"])
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        out[name] = torch.from_numpy(values.astype(np.float32))
    return out
