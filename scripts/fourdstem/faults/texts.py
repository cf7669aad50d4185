"""Mistakes in the text of a configuration: each returns the bytes of the file, its fate and the words of a refusal."""

from hypothesis import assume
from hypothesis import strategies as st


def _lines(draw, text: str, wanted=lambda line: True) -> tuple[list[str], int]:
    lines = text.splitlines()
    numbers = [i for i, line in enumerate(lines) if line.strip() and wanted(line)]
    assume(numbers)
    return lines, draw(st.sampled_from(numbers))


def _joined(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _tab(draw, text):
    lines, i = _lines(draw, text, lambda line: line.startswith("  "))
    lines[i] = "\t" + lines[i].lstrip()
    return _joined(lines), "either", ()


def _bad_indent(draw, text):
    lines, i = _lines(draw, text)
    lines[i] = " " * draw(st.integers(1, 5)) + lines[i]
    return _joined(lines), "either", ()


def _cut(draw, text):
    return text.encode()[: draw(st.integers(0, len(text.encode())))], "either", ()


def _typo(draw, text):
    at = draw(st.integers(0, len(text) - 1))
    sign = draw(
        st.sampled_from([*"[]{},:&*!|>'\"%@`#?-\\~", " ", "\n", "\0", "\x1b", "\u2028", "\ufeff", "", "é", "\t"])
    )
    return (text[:at] + sign + text[at + draw(st.integers(0, 1)) :]).encode(), "either", ()


def _not_utf8(draw, text):
    at = draw(st.integers(0, len(text)))
    bad = draw(st.sampled_from([b"\xe4", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80"]))
    return text[:at].encode() + b" # " + bad + b"\n" + text[at:].encode(), "refuse", ("UTF-8",)


def _utf16(draw, text):
    return (
        text.encode(draw(st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32"]))),
        "refuse",
        ("YAML", "UTF-8"),
    )


def _byte_order_mark(draw, text):
    return text.encode("utf-8-sig"), "accept", ()


def _line_ends(draw, text):
    return text.replace("\n", "\r\n").encode(), "accept", ()


def _comments(draw, text):
    lines = text.splitlines()
    return _joined(["# ß", "---", *lines, "", "# [", "..."]), "accept", ()


def _no_mapping(draw, text):
    content = draw(st.sampled_from([b"", b"\n", b"# nothing\n", b"---\n", b"- a\n- b\n", b"film\n", b"3\n", b"null\n",
                                    b"[]\n", b"2024-05-01\n", b"{}\n"]))  # fmt: skip
    return content, "refuse", ("expected `samples:`", "`samples` is missing")


def _two_documents(draw, text):
    return f"{text}---\n{text}".encode(), "refuse", ("document",)


def _repeated_key(draw, text):
    lines, i = _lines(draw, text, lambda line: line.startswith(("samples:", "phases:")))
    return (
        _joined([*lines, lines[i].split(":")[0] + ":", "- {name: other, cif: gold.cif, file: scan.npy}"]),
        "refuse",
        ("given before",),
    )


def _replaced(draw, text, values, fate="refuse"):
    """Replace the value of a plain number."""
    lines, i = _lines(draw, text, lambda line: line.partition(": ")[2].replace(".", "").isdigit())
    value, word = draw(st.sampled_from(values))
    key = lines[i].partition(": ")[0]
    lines[i] = f"{key}: {value}"
    return _joined(lines), fate, (word, key.strip(" -"))


def _octal(draw, text):
    content, fate, names = _replaced(
        draw, text, [("010", "`010`"), ("0o17", "0o17"), ("-0_17", "`-0_17`"), ("007", "`007`")]
    )
    return content, fate, names


def _base_60(draw, text):
    return _replaced(draw, text, [("1:30", "`1:30`"), ("20:15:10", "`20:15:10`"), ("1:30.5", "`1:30.5`")])


def _no_yaml_number(draw, text):
    return _replaced(draw, text, [("1e", "'1e'"), ("1,5", "'1,5'"), ("4 nm", "'4 nm'"), ("٣", "٣"), ("${X}", "${X}"),
                                  ("9" * 5000, "99999"), ("0x", "0x"), ("1.2.3", "1.2.3"), ("--4", "--4"),
                                  ("=", "="), (".nan", "nan"), ("-.inf", "inf"), ("1e400", "1e400")])  # fmt: skip


def _other_type(draw, text):
    return _replaced(draw, text, [
        ("on", "boolean"), ("No", "boolean"), ("2024-05-01", "a date"), ("2024-13-45", "2024-13-45"),
        ("2024-05-01T25:61:00Z", "2024-05-01T25"), ("!!binary gold", "gold"), ("!!set {a, b}", "set"),
        ("!!int abc", "abc"), ("!!bool maybe", "maybe"), ("!!timestamp noon", "noon"), ("!own 3", "!own"),
        ("!!python/object/apply:os.system [ls]", "python/object"), ("!!omap [a: 1]", "list"), ("? [a]", "YAML"),
        ("{[a]: 1}", "unhashable"),
    ])  # fmt: skip


def _on_off(draw, text):
    lines, i = _lines(draw, text, lambda line: line.endswith((": true", ": false")))
    key, _, value = lines[i].partition(": ")
    word = draw(st.sampled_from({"true": ["on", "yes", "True", "ON"], "false": ["off", "no", "False", "OFF"]}[value]))
    lines[i] = f"{key}: {word}"
    return _joined(lines), "accept", ()


def _endless(draw, text):
    lines = text.splitlines()
    loop = draw(st.sampled_from([
        "orientation: &a {sources: *a}", "orientation: &a [*a]", "preprocess: &a {centre_method: {b: [*a]}}",
        "orientation: " + "[" * 600 + "]" * 600, "orientation: " + "{a: " * 1500 + "}" * 1500, _laughs(),
    ]))  # fmt: skip
    lines = [line for line in lines if not line.startswith(("orientation:", "preprocess:"))]
    return _joined([*_without(lines), loop]), "refuse", ("without end", "more than", "YAML")


def _without(lines: list[str]) -> list[str]:
    """Leave out the blocks of stages, whose keys are given anew."""
    out, skipping = [], False
    for line in lines:
        if line and not line.startswith((" ", "-")):
            skipping = not line.startswith(("samples", "phases"))
        if not skipping:
            out.append(line)
    return out


def _laughs() -> str:
    levels = ["orientation: {sources: &a0 [x, x, x, x, x, x, x, x, x, x]}"]
    for i in range(1, 9):
        levels.append(f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    return "\n".join(levels)


def _json_of_it(draw, text):
    import json

    import yaml

    content = json.dumps(
        yaml.safe_load(text), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2]))
    )
    if draw(st.booleans()):
        return content.encode(), "accept", ()
    return content.replace('"samples"', '"samples": [],\t"samples"', 1).encode(), "refuse", ("samples", "YAML")


TEXTS = {
    "tab": _tab,
    "bad indent": _bad_indent,
    "cut": _cut,
    "typo": _typo,
    "not utf8": _not_utf8,
    "utf16": _utf16,
    "byte order mark": _byte_order_mark,
    "line ends": _line_ends,
    "comments": _comments,
    "no mapping": _no_mapping,
    "two documents": _two_documents,
    "repeated key": _repeated_key,
    "octal": _octal,
    "base 60": _base_60,
    "no yaml number": _no_yaml_number,
    "other type": _other_type,
    "on off": _on_off,
    "endless": _endless,
    "json of it": _json_of_it,
}
