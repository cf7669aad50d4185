"""What is wrong with the text of a configuration, before its meaning: what YAML drops, or reads otherwise than people.

Standard library only (and yaml inside the functions), because every start of Snakemake imports it.
"""

import json
import math
import re
from pathlib import Path

from fourdstem.errors import ConfigError

# YAML aliases can repeat a part without end, or so often that no reader comes to an end.
_MOST_VALUES, _DEEPEST = 20_000, 30
# Beyond, a float does not hold every whole number, and a 64-bit integer overflows in the first product.
_LARGEST_INTEGER = 2**53


def load(path) -> dict:
    """Read a YAML configuration.

    Raises
    ------
    ConfigError
        If the file cannot be read or is not YAML, with line and column, or is no mapping.
    """
    import yaml

    path = Path(path)
    text = _text_of(path)
    try:
        config = yaml.load(text, Loader=_loader(yaml))
    except yaml.YAMLError as error:
        raise ConfigError([f"not readable as YAML: {' '.join(str(error).split())}"], str(path)) from None
    except RecursionError:
        raise ConfigError(["not readable as YAML: brackets within brackets without end"], str(path)) from None
    if not isinstance(config, dict):
        found = "nothing" if config is None else shown(config)
        raise ConfigError([f"expected `samples:` and settings, found {found}"], str(path))
    return config


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = "no such file; give the path of a YAML configuration"
        if not isinstance(error, FileNotFoundError):
            reason = f"cannot be read ({error.strerror}); give the path of a YAML configuration"
        raise ConfigError([f"{path}: {reason}"], str(path)) from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        mistake = f"line {line}: byte {content[error.start]:#04x} is no UTF-8; save the file as UTF-8"
        raise ConfigError([mistake], str(path)) from None


def _loader(yaml):
    """A safe loader whose complaints about a value, a date of month 13 say, name it and its line."""

    class Loader(yaml.SafeLoader):
        def construct_object(self, node, deep=False):
            try:
                return super().construct_object(node, deep)
            except (ValueError, KeyError, AttributeError, IndexError, TypeError, OverflowError) as error:
                reason = f"{shown(node.value)} cannot be read as {node.tag.rpartition(':')[2]} ({error})"
                raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from None

    return Loader


def shown(value) -> str:
    """Return a value as a message shows it, not longer than a line."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write an integer of thousands of digits
        text = f"an integer of {value.bit_length()} bits"
    return text if len(text) <= 80 else f"{text[:70]}... ({len(text)} characters)"


# ---- what the text says twice, or not as it looks ---------------------------------------------------------


def check_text(file: Path) -> list[str]:
    """Return keys that a file gives twice, and numbers that YAML reads otherwise than they look.

    Loading keeps the last value of a key; 010 is eight and 1:30 ninety. Neither shows in what was loaded.
    """
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [f"{file}: cannot be read ({error}); save it as UTF-8"]
    found, again = [], []

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor):
            node = super().compose_mapping_node(anchor)
            again.extend(_given_twice([key for key, _ in node.value]))
            return node

        def compose_scalar_node(self, anchor):
            node = super().compose_scalar_node(anchor)
            if node.tag == "tag:yaml.org,2002:int" and (hint := _misread(node.value)):
                found.append(f"{file}, line {node.start_mark.line + 1}: {hint}")
            elif node.tag == "tag:yaml.org,2002:float" and ":" in node.value:
                found.append(f"{file}, line {node.start_mark.line + 1}: `{node.value}` is read to base 60")
            return node

    try:
        yaml.compose(text, Loader=Loader)
    except (yaml.YAMLError, RecursionError):  # JSON with tabs: Snakemake reads it, YAML does not
        return _given_twice_in_json(text, file)
    return [
        *(
            f"{file}, line {n}: key `{key}` was given before, in line {first}; keep one"
            for n, key, first in sorted(again)
        ),
        *found,
    ]


def _misread(text: str) -> str:
    plain = text.replace("_", "").lstrip("+-")
    if ":" in plain:
        return f"`{text}` is read to base 60; write a plain number, or put text in quotes"
    if re.fullmatch(r"0[0-7]+", plain):
        return f"`{text}` is read to base 8, as {int(plain, 8)}; write {plain.lstrip('0') or 0}, or put text in quotes"
    return ""


def _given_twice(keys: list) -> list[tuple[int, str, int]]:
    first, found = {}, []
    for key in keys:
        line, name = key.start_mark.line + 1, (key.tag, str(key.value))
        if name in first and key.tag != "tag:yaml.org,2002:merge":  # of several `<<` none is lost
            found.append((line, key.value, first[name]))
        first.setdefault(name, line)
    return found


def _given_twice_in_json(text: str, file: Path) -> list[str]:
    found = []

    def pairs(items):
        names = [key for key, _ in items]
        twice = sorted({key for key in names if names.count(key) > 1})
        found.extend(f"{file}: key `{key}` is given {names.count(key)} times; keep one" for key in twice)
        return dict(items)

    try:
        json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        return [f"{file}: neither YAML nor JSON ({error})"]
    return found


# ---- values that no key can have --------------------------------------------------------------------------


def check_structure(config) -> list[str]:
    """Return why a configuration cannot be looked through: it holds itself, or is too deep or too large."""
    count, todo = 0, [(config, 0)]
    while todo:
        node, depth = todo.pop()
        count += 1
        if depth > _DEEPEST:
            return ["blocks within blocks without end: an anchor (&) that holds itself? Write the block out"]
        if count > _MOST_VALUES:
            return [f"more than {_MOST_VALUES} values: anchors (&) that repeat each other? Write the blocks out"]
        if isinstance(node, dict):
            todo += [(value, depth + 1) for value in node.values()]
        elif isinstance(node, list | tuple | set):
            todo += [(value, depth + 1) for value in node]
    return []


def check_values(node, place: str = "") -> list[str]:
    """Return numbers and texts that mean nothing anywhere: not finite, beyond 2**53, empty, unprintable."""
    if isinstance(node, dict):
        return [m for key, value in node.items() for m in check_values(value, f"{place}.{key}".lstrip("."))]
    if isinstance(node, list):
        return [m for i, value in enumerate(node) for m in check_values(value, f"{place}[{i}]")]
    if isinstance(node, float) and not math.isfinite(node):
        return [f"{place}: {node!r} is no finite number"]
    if isinstance(node, int) and abs(node) > _LARGEST_INTEGER:
        return [f"{place}: {shown(node)} is too large; whole numbers go up to 2**53"]
    if isinstance(node, str) and (not node.strip() or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in node)):
        return [f"{place}: {shown(node)} is {'empty' if not node.strip() else 'text with unprintable characters'}"]
    return []
