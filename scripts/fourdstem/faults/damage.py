"""What happens to files: flipped bits, cuts, zeros, more bytes, another suffix; what a reader makes of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fourdstem.errors import ConfigError, InputError
from fourdstem.faults.files import KINDS, Sound
from fourdstem.formats import SUFFIXES, open_raw
from fourdstem.methods import scan

REFUSED, UNCHANGED, HARMLESS, TOLD, OWN, CRASH = "refused", "unchanged", "harmless", "told", "own value", "crash told"


@dataclass(frozen=True)
class Damage:
    """One damage.

    Attributes
    ----------
    kind : str
    content : bytes
        What the file holds afterwards.
    touched : tuple of (int, int)
        Bytes that are not what they were.
    suffix : str
        Another suffix, or "".
    """

    kind: str
    content: bytes
    touched: tuple = ()
    suffix: str = ""


def damages(sound: Sound, rng: np.random.Generator, each: int) -> Iterator[Damage]:
    """Yield ``each`` damages of every kind that a file can take; cuts at every structure besides."""
    whole = sound.damaged.read_bytes()
    for _ in range(4 * each):
        yield _flipped(whole, _places(sound, whole, rng, int(rng.integers(1, 4))), rng)
    for at in _cuts(sound, whole, rng, each):
        yield Damage("cut", whole[:at], ((at, len(whole)),))
    for _ in range(max(each // 2, 1)):
        start = int(_places(sound, whole, rng, 1)[0])
        stop = min(start + int(rng.choice([4, 16, 64, 512])), len(whole))
        yield Damage("zeroed", whole[:start] + bytes(stop - start) + whole[stop:], ((start, stop),))
    for size in (1, 200, 5000)[: max(each // 4, 1)]:
        yield Damage("appended", whole + rng.bytes(size), ((len(whole), len(whole) + size),))
    own = sound.damaged.suffix
    others = [s for s in SUFFIXES if s != own]
    for suffix in (
        rng.choice(others, min(max(each // 3, 1), len(others)), replace=False) if sound.path == sound.damaged else ()
    ):
        yield Damage("suffix", whole, suffix=str(suffix))
    yield Damage("emptied", b"", ((0, len(whole)),))


def _places(sound: Sound, whole: bytes, rng, count: int) -> np.ndarray:
    """Draw bytes, three of four outside of the counts."""
    header = np.ones(len(whole), bool)
    for start, stop, _ in sound.payload:
        header[start:stop] = False
    inside = np.flatnonzero(header)
    told = inside[np.frombuffer(whole, np.uint8)[inside] != 0]  # most zeros of a header mean nothing
    among = (inside[:400], told, inside, np.arange(len(whole)))[int(rng.integers(4))]
    return rng.choice(among if len(among) else len(whole), count)


def _flipped(whole: bytes, places, rng) -> Damage:
    content = bytearray(whole)
    for place in places:
        content[place] ^= 1 << int(rng.integers(8))
    return Damage("flipped bits", bytes(content), tuple((int(p), int(p) + 1) for p in places))


def _cuts(sound: Sound, whole: bytes, rng, each: int) -> list[int]:
    edges = {edge for start, stop, _ in sound.payload for edge in (start, stop)} | {1, 8, 512, 1024, len(whole) - 1}
    edges = sorted(e for e in edges if 0 < e < len(whole))
    if len(edges) > 2 * each:
        edges = sorted(map(int, rng.choice(edges, 2 * each, replace=False)))
    return edges + sorted(map(int, rng.integers(1, len(whole), each)))


# ---- what a reader makes of it -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """All that a raw file gives."""

    counts: np.ndarray
    metadata: dict
    notes: tuple
    saturation: float | None


def read(path: Path, scan_shape) -> Reading:
    """Read a whole file as the jobs do: open, judge the acquisition values and the scan shape, read row by row."""
    with open_raw(path) as raw:
        acquisition, _ = scan.resolve_acquisition(raw.metadata, {"scan_shape": scan_shape}, (), raw.shape[-2:])
        shape = scan.resolve_scan_shape(raw.shape, acquisition.scan_shape)
        chosen = scan.select(raw.data, shape, scan.Params())
        counts = np.stack([chosen[y, 0 : chosen.shape[1]] for y in range(chosen.shape[0])])
        return Reading(counts, dict(raw.metadata), raw.notes, raw.saturation_counts)


def judge(path: Path, sound: Sound, before: Reading, damage: Damage) -> tuple[str, str]:
    """Return what became of a damaged file, and why where it is "unexplained".

    Parameters
    ----------
    path : path
        The file to open, damaged already.
    sound : Sound
    before : Reading
        Of the file without damage.
    damage : Damage
    """
    try:
        after = read(path, sound.scan_shape)
    except InputError as error:
        complete = all((error.found, error.where, error.expected, error.do))
        return (REFUSED, "") if complete else ("unexplained", f"a refusal without its parts: {error}")
    except ConfigError as error:
        return (REFUSED, "") if error.mistakes else ("unexplained", "a refusal that says nothing")
    return _compare(sound, before, after, damage)


def _compare(sound: Sound, before: Reading, after: Reading, damage: Damage) -> tuple[str, str]:
    told = set(after.notes) - set(before.notes)
    if after.counts.shape != before.counts.shape:
        return "unexplained", f"shape {after.counts.shape}, was {before.counts.shape}; {told}"
    wrong = [w for w in (_counts(sound, before, after, damage), *_metadata(sound, before, after, damage)) if w]
    if wrong:
        return (TOLD, "") if told else ("unexplained", "; ".join(wrong))
    if not np.array_equal(before.counts, after.counts, equal_nan=True):
        return HARMLESS, ""
    return (OWN if before.metadata != after.metadata else UNCHANGED), ""


def _counts(sound: Sound, before: Reading, after: Reading, damage: Damage) -> str:
    """Say whether more counts differ than the damaged bytes can explain."""
    different = ~((before.counts == after.counts) | ((before.counts != before.counts) & (after.counts != after.counts)))
    possible = 0
    for start, stop, per_byte in sound.payload:
        hit = sum(max(0, min(stop, b) - max(start, a)) for a, b in damage.touched)
        possible += min(hit, 1) * per_byte if per_byte > 1 else hit
    if different.sum() > possible:
        return f"{different.sum()} counts differ, the damage explains {possible}; {after.counts.dtype}"
    return ""


def _metadata(sound: Sound, before: Reading, after: Reading, damage: Damage) -> Iterator[str]:
    """Say which acquisition values changed although their own bytes did not. Of one that is lost `scan` says so."""
    hit = any(a < stop and start < b for start, stop in sound.own for a, b in damage.touched)
    for key in {**before.metadata, **after.metadata}:
        one, other = before.metadata.get(key), after.metadata.get(key)
        if one != other and other is not None and not hit:
            yield f"{key} is {other}, was {one}"
    if before.saturation != after.saturation and after.saturation is not None and not hit:
        yield f"the largest count is {after.saturation}, was {before.saturation}"


def prepared(kind: str, folder: Path) -> tuple[Sound, Reading]:
    """Write the sound file of a kind and read it."""
    sound = KINDS[kind](folder)
    return sound, read(sound.path, sound.scan_shape)


def place(sound: Sound, damage: Damage) -> Path:
    """Put the damaged content where the sound file lay; return the path to open."""
    if damage.suffix:
        renamed = sound.path.with_name("renamed_000" + damage.suffix)
        renamed.write_bytes(damage.content)
        return renamed
    sound.damaged.write_bytes(damage.content)
    return sound.path
