"""The conda environments parse, agree with the pip pins, and hold what each rule's script imports."""

import ast
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from fourdstem import environments

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
TABLE = environments.read_table(ROOT)
PACKAGES = environments.packages(TABLE)
RULES = sorted(TABLE["environments"])
# The job asks for a device only if its script says `job.device`; only then is torch imported.
ON_DEMAND = {(SCRIPTS / "fourdstem" / "stage.py", "fourdstem.device"): "job.device"}
CUDA = ("nvidia-", "cuda-", "triton")  # what torch's Linux build asks for besides


def lines_of(rule):
    """Read an environment file without a YAML library: its form is fixed."""
    text = (ROOT / "envs" / f"{rule}.yaml").read_text(encoding="utf-8")
    lists, key = {}, None
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if line.startswith("  - "):
            lists[key].append(line[4:])
        else:
            key = line.rstrip(":")
            lists[key] = []
    return lists


def conda_name(package):
    return PACKAGES[package].get("conda", package)


# ---- imports, followed through the library -------------------------------------------------------------------


def trees_of(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
        return [ast.parse("".join(c["source"])) for c in cells]
    return [ast.parse(text)]


@functools.cache
def imported_names(path):
    """Every dotted name that a file may import, at any depth; `from a import b` may mean the module a.b."""
    names = set()
    for node in (node for tree in trees_of(path) for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def library_files(name, root):
    """Files that importing a dotted name of the library runs: the packages above it and itself."""
    parts = name.split(".")
    stems = [root.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)]
    return [p for stem in stems for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()]


def third_party(start, root=SCRIPTS):
    """Return {dotted name: file that imports it} of all that is neither standard library nor fourdstem."""
    todo, seen, found = list(start), set(), {}
    asked = {ast.unparse(node) for path in start for tree in trees_of(path) for node in ast.walk(tree)}
    skipped = {edge for edge, condition in ON_DEMAND.items() if condition not in asked}
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imported_names(path):
            top = name.split(".")[0]
            if any(path == file and name.startswith(module) for file, module in skipped):
                continue
            if top == "fourdstem":
                todo += library_files(name, root)
            elif top not in sys.stdlib_module_names:
                found[name] = path
    return found


def provider(name):
    """Return the package of the table that an import comes from, or None."""
    for package, entry in PACKAGES.items():
        own = entry.get("import", package)
        if name == own or name.startswith(own + "."):
            return package
    return None


def sources_of(rule):
    extra = sorted((ROOT / "notebooks").glob("*.ipynb")) if rule == "report" else []
    return [SCRIPTS / f"{rule}.py", *extra]


def needs(rule):
    """Return {package: (name, importing file)}; a name of nobody stands under its own top level."""
    found = third_party(sources_of(rule))
    provided = {name.split(".")[0] for name in found if provider(name)}
    needed = {}
    for name, path in found.items():
        package = provider(name)
        if package is None and name.split(".")[0] in provided:
            continue  # `from diffpy import structure` also names `diffpy`
        needed[package or name.split(".")[0]] = (name, path)
    return needed


# ---- tests ---------------------------------------------------------------------------------------------------


def test_generated_files_are_in_step_with_the_table():
    assert environments.stale(ROOT) == [], "run `python -m fourdstem schema`"


def test_a_stale_missing_or_left_over_file_is_found_and_cured(tmp_path):
    (tmp_path / "envs").mkdir()
    shutil.copy(ROOT / environments.TABLE, tmp_path / "envs")
    assert len(environments.write(tmp_path)) == len(RULES) + 2
    edited, missing, left_over = (tmp_path / "envs" / f"{n}.yaml" for n in (RULES[0], RULES[1], "no_such_rule"))
    edited.write_text(edited.read_text() + "  - left-pad =1.3\n")
    missing.unlink()
    left_over.write_text("channels: []\n")
    assert set(environments.stale(tmp_path)) == {edited, missing, left_over}
    environments.write(tmp_path)
    assert environments.stale(tmp_path) == []
    assert not left_over.exists()


def test_nothing_is_generated_where_there_is_no_checkout(tmp_path):
    assert environments.files(tmp_path) == {}
    assert environments.stale(tmp_path) == []


def test_every_script_has_an_environment_and_every_environment_a_script():
    assert sorted(p.stem for p in SCRIPTS.glob("*.py")) == RULES


def test_every_rule_uses_its_own_script_and_its_own_environment():
    text = "\n".join(p.read_text(encoding="utf-8") for p in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    blocks = re.split(r"^rule (\w+):$", text, flags=re.M)[1:]
    found = {name: body for name, body in zip(blocks[::2], blocks[1::2], strict=True) if "script:" in body}
    assert sorted(found) == RULES
    for rule, body in found.items():
        assert f'conda:\n        "../../envs/{rule}.yaml"' in body
        assert f'script:\n        "../../scripts/{rule}.py"' in body


@pytest.mark.parametrize("rule", RULES)
def test_every_line_is_a_strict_match_spec(rule):
    import rattler

    for line in lines_of(rule)["dependencies"]:
        spec = rattler.MatchSpec(line, strict=True)
        assert spec.name is not None
        assert spec.version is not None


@pytest.mark.parametrize("rule", RULES)
def test_channels_are_conda_forge_alone_and_pip_is_not_used(rule):
    lists = lines_of(rule)
    assert list(lists) == ["channels", "dependencies"]
    assert lists["channels"] == ["conda-forge", "nodefaults"]
    assert not any(line.startswith("pip") for line in lists["dependencies"])


@pytest.mark.parametrize("rule", RULES)
def test_conda_and_pip_agree_on_major_and_minor(rule):
    pins = {r.name: r for r in requirements("requirements.txt") + requirements("requirements-test.txt")}
    pins |= {name: Requirement(f"{name}=={entry['version']}") for name, entry in TABLE["apart"].items()}
    pip_name = {conda_name(package): package for package in PACKAGES}
    for line in lines_of(rule)["dependencies"]:
        name, version = line.split(" =")
        if name == "python":
            assert Version(version) in SpecifierSet(">=3.11,<3.14")
        else:
            pinned = Version(next(iter(pins[pip_name[name]].specifier)).version)
            assert version == f"{pinned.major}.{pinned.minor}"


@pytest.mark.parametrize("rule", RULES)
def test_an_environment_holds_all_that_its_script_can_import(rule):
    have = set(TABLE["environments"][rule])
    missing = {p: f"{name} in {path.relative_to(ROOT)}" for p, (name, path) in needs(rule).items() if p not in have}
    assert missing == {}, f"add to [environments] {rule} in {environments.TABLE}, then `python -m fourdstem schema`"


@pytest.mark.parametrize("rule", RULES)
def test_an_environment_holds_nothing_without_a_reason(rule):
    needless = set(TABLE["environments"][rule]) - set(needs(rule)) - set(TABLE["reasons"])
    assert needless == set(), f"remove from [environments] {rule}, or say why in [reasons], in {environments.TABLE}"


def test_reasons_are_those_of_packages_that_nobody_imports_or_a_rule_lists_without_importing_them():
    found = third_party([*SCRIPTS.rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")])
    nowhere = set(TABLE["packages"]) - {provider(name) for name in found}
    listed = {package for rule in RULES for package in set(TABLE["environments"][rule]) - set(needs(rule))}
    assert set(TABLE["reasons"]) == nowhere | listed, f"give each its reason in {environments.TABLE}, and no other"


def test_the_import_scan_follows_the_library_into_functions_and_packages(tmp_path):
    package = tmp_path / "fourdstem" / "methods"
    package.mkdir(parents=True)
    (tmp_path / "fourdstem" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("import at_the_package\n")
    (package / "one.py").write_text("import os\ndef f():\n    import inside_a_function.deep\n")
    (package / "other.py").write_text("import not_reached\n")
    (tmp_path / "rule.py").write_text("from fourdstem.methods import one\n")
    assert set(third_party([tmp_path / "rule.py"], tmp_path)) == {"at_the_package", "inside_a_function.deep"}


def requirements(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-test.txt"])
def test_every_requirement_is_an_exact_public_pin(file):
    found = requirements(file)
    names = [canonicalize_name(r.name) for r in found]
    assert len(names) == len(set(names))
    for requirement in found:
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert Version(pin.version).local is None
        assert "*" not in pin.version
        assert requirement.url is None


def test_what_stands_apart_is_in_no_environment_of_the_product():
    product = {
        canonicalize_name(r.name) for r in requirements("requirements.txt") + requirements("requirements-test.txt")
    }
    assert TABLE["apart"]
    for package in TABLE["apart"]:
        assert canonicalize_name(package) not in product
        assert [rule for rule in RULES if package in TABLE["environments"][rule]] == ["multislice"]


def closure(names):
    """Return the canonical names of what installed packages need here, by their own metadata."""
    todo, seen = [Requirement(name) for name in names], set()
    while todo:
        asked = todo.pop()
        name = canonicalize_name(asked.name)
        for extra in {"", *asked.extras}:
            if (name, extra) in seen or name.startswith(CUDA):
                continue
            seen.add((name, extra))
            needed = [Requirement(text) for text in metadata.requires(name) or []]
            todo += [r for r in needed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def test_the_pins_are_all_that_the_packages_need_and_no_more():
    """By walking the installed metadata: independent of the freeze that the table came from."""
    product = {canonicalize_name(r.name): r for r in requirements("requirements.txt")}
    here = {name for name, r in product.items() if r.marker is None or r.marker.evaluate()}
    assert closure(TABLE["packages"]) == here
    tools = {canonicalize_name(r.name) for r in requirements("requirements-test.txt")}
    assert closure(TABLE["testing"]) - here == tools


def test_what_is_installed_is_what_is_pinned():
    for requirement in requirements("requirements.txt") + requirements("requirements-test.txt"):
        if requirement.marker is None or requirement.marker.evaluate():
            installed = Version(metadata.version(requirement.name)).public
            assert installed in requirement.specifier, f"{requirement.name} {installed} is not {requirement.specifier}"


def test_the_command_finds_nothing_stale():
    command = [sys.executable, "-m", "fourdstem", "schema", "--check"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
