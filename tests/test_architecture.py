"""The rules of the house, read from syntax trees: who imports whom, sizes, docstrings, the parts of a method."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
LIBRARY = SCRIPTS / "fourdstem"
FILES = sorted(LIBRARY.rglob("*.py"))
METHODS = sorted({p.stem for p in (LIBRARY / "methods").iterdir() if not p.name.startswith("_")})

# Unit of the library -> units that it may import; a unit is a module or package right under fourdstem.
BASE = {
    "errors",
    "files",
    "schema",
    "device",
    "calibration",
    "geometry",
    "cube",
    "crystal",
    "rotations",
    "jit",
    "cache",
    "networks",
    "vectors",
}
ALLOWED = {
    "__init__": set(),
    "errors": set(),
    "files": {"errors"},
    "device": set(),
    "schema": {"errors"},
    "calibration": {"schema"},
    "jit": set(),
    "cache": {"jit"},
    "geometry": {"jit"},
    "cube": {"calibration", "geometry"},
    "crystal": {"errors", "calibration", "jit"},
    "rotations": {"crystal"},
    "networks": {"errors"},
    "vectors": set(),
    # Simulated specimens, whose multislice code is no part of the product.
    "specimens": {"errors", "files"},
    "multislice": {"errors", "specimens"},
    "methods": BASE,
    "watch": set(),
    "formats": {"calibration", "errors", "files", "schema", "watch"},
    "io": {"cube", "calibration", "geometry", "formats", "schema", "errors", "files"},
    # What the Snakefile reads, before any environment exists.
    "provenance": {"errors", "files"},
    "config_text": {"errors"},
    "config": {"config_text", "errors"},
    # What surrounds a job.
    "origins": set(),
    "stage": {"device", "origins", "provenance", "errors", "files", "schema", "watch"},
    "estimate": {"calibration", "errors"},
    # What people read: results in, pictures and words out.
    "figures": {"schema", "methods", "crystal", "geometry", "calibration", "rotations", "io", "files", "jit"},
    "page": set(),
    "notebook": {"errors", "files", "page"},
    "report": {"io", "crystal", "calibration", "figures", "methods", "schema", "provenance"},
    "summary": {"page"},
    "kills": {"provenance"},
    "study": {"errors", "files"},
    # What the command line runs.
    "inspection": {"calibration", "formats", "methods", "errors", "schema"},
    "environments": set(),
    "headers": {"config", "crystal", "formats", "methods", "errors", "schema"},
    "generated": {"config", "calibration", "schema"},
    "faults": {"calibration", "config", "formats", "headers", "methods", "errors", "schema", "watch"},
    "__main__": {
        *("errors", "provenance", "config", "environments", "generated", "headers", "inspection", "figures", "watch")
    },
}
RULE_EDGES = {  # method -> methods whose results it reads, or that it evaluates
    "evaluation": {"orientation"},
    "clusters": {"orientation"},
    "evaluate_preprocess": {"preprocess", "training"},
}
ONLY_IN = {  # third party -> the units that may import it
    "abtem": {"multislice"},
    "ase": {"multislice"},
    "h5py": {"io", "formats", "faults"},
    "hdf5plugin": {"io", "formats", "faults"},
    "hypothesis": {"faults"},  # no user needs it
    "rsciio": {"formats", "faults"},
    "dask": {"formats"},
    "imageio": {"formats"},
    "matplotlib": {"figures"},
    "papermill": {"notebook"},
    "nbconvert": {"notebook"},
    "nbformat": {"notebook"},
    "jsonschema": {"config"},
    "yaml": {"config_text", "faults"},
    "spglib": {"crystal"},
    "snakemake": set(),
}


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def unit_of(path):
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def names_imported(tree):
    """Dotted names that a tree imports; `from fourdstem import io` counts as fourdstem.io."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            joined = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= joined if node.module in ("fourdstem", "fourdstem.methods") else {node.module}
    return names


def library_names(tree):
    return {n.removeprefix("fourdstem.") for n in names_imported(tree) if n.startswith("fourdstem.")}


def top_level_statements(tree):
    return ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])


def ids(path):
    return path.relative_to(ROOT).as_posix()


# ---- who may import whom -------------------------------------------------------------------------------------


def test_every_unit_of_the_library_has_its_place_in_the_table():
    assert {unit_of(p) for p in FILES} == set(ALLOWED), "say in ALLOWED what the unit may import"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_a_module_imports_only_what_its_unit_may(path):
    unit = unit_of(path)
    used = {name.split(".")[0] for name in library_names(parse(path))} - {"__version__"}
    assert used - ALLOWED[unit] <= {unit}


def test_the_table_of_imports_has_no_circle():
    done = set()
    while len(done) < len(ALLOWED):
        ready = {unit for unit, needs in ALLOWED.items() if unit not in done and needs <= done}
        assert ready, f"a circle among {sorted(set(ALLOWED) - done)}"
        done |= ready


@pytest.mark.parametrize("path", sorted((LIBRARY / "methods").rglob("*.py")), ids=ids)
def test_a_method_reads_another_only_along_a_rule_edge(path):
    own = path.relative_to(LIBRARY / "methods").parts[0].removesuffix(".py")
    others = {n.split(".")[1] for n in library_names(parse(path)) if n.startswith("methods.")} - {own}
    assert others <= RULE_EDGES.get(own, set())


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_a_third_party_package_is_imported_only_where_it_belongs(path):
    for name in names_imported(parse(path)):
        places = ONLY_IN.get(name.split(".")[0])
        assert places is None or unit_of(path) in places, name


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_only_the_device_module_asks_what_torch_has(path):
    asked = [n for n in ast.walk(parse(path)) if isinstance(n, ast.Attribute) and ast.unparse(n) == "torch.cuda"]
    assert not asked or unit_of(path) == "device"


@pytest.mark.parametrize("name", ["config", "config_text", "provenance", "errors", "files"])
def test_what_the_snakefile_reads_needs_jsonschema_at_most(name):
    names = {n.split(".")[0] for n in names_imported(top_level_statements(parse(LIBRARY / f"{name}.py")))}
    assert names <= set(sys.stdlib_module_names) | {"fourdstem", "jsonschema"}


def test_rule_files_import_only_config_provenance_and_errors():
    files = [ROOT / "Snakefile", ROOT / "workflow" / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]
    statement = re.compile(r"^\s*(?:from\s+(\S+)\s+import\s+([\w, ]+)|import\s+(.+))$", re.M)
    for path in files:
        for module, names, plain in statement.findall(path.read_text(encoding="utf-8")):
            if module == "fourdstem":
                units = {n.split()[0] for n in names.split(",")}
            elif module.startswith("fourdstem."):
                units = {module.split(".")[1]}
            else:
                tops = {(module or n).split(".")[0].strip() for n in (plain or module).split(",")}
                assert tops <= set(sys.stdlib_module_names) | {"snakemake"}, path
                units = set()
            assert units <= {"config", "provenance", "errors"}, path


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=ids)
def test_a_script_loads_nothing_but_stage_before_log_and_threads_exist(path):
    tree = parse(path)
    assert names_imported(top_level_statements(tree)) == {"fourdstem.stage"}
    inside = {n.split(".")[0] for n in names_imported(tree)}
    assert inside <= set(sys.stdlib_module_names) | {"fourdstem"}, "a script holds no numerics"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_the_library_never_imports_a_script(path):
    # Scripts and methods share names; what matters is that all imports of our own go through fourdstem.
    own = {p.stem for p in SCRIPTS.glob("*.py")}
    assert not {n.split(".")[0] for n in names_imported(parse(path))} & own


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=ids)
def test_a_notebook_holds_no_numerics(path):
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    names = set().union(*(names_imported(ast.parse("".join(c["source"]))) for c in cells))
    assert names <= {"fourdstem.io", "fourdstem.figures", "fourdstem.report"}


# ---- sizes and manners ---------------------------------------------------------------------------------------


TOLD = [p for folder in (SCRIPTS, ROOT / "tests", ROOT / "benchmarks") for p in sorted(folder.glob("*.py"))]


@pytest.mark.parametrize("path", [*FILES, *TOLD], ids=ids)
def test_a_file_has_at_most_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def functions_of(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_of_code(function):
    """Lines from `def` to the end without the docstring: a long explanation is no fault."""
    count = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        count -= function.body[0].end_lineno - function.body[0].lineno + 1
    return count


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_a_function_has_at_most_40_lines_of_code(path):
    assert {f.name: lines_of_code(f) for f in functions_of(parse(path)) if lines_of_code(f) > 40} == {}


def test_lines_of_code_leave_out_the_docstring():
    text = 'def f(\n    a,\n):\n    """One.\n\n    Two.\n    """\n    b = a\n    return b\n'
    assert lines_of_code(functions_of(ast.parse(text))[0]) == 5


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_only_the_command_line_prints(path):
    calls = [n for n in ast.walk(parse(path)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]
    assert not calls or path.name == "__main__.py"


def public_things(tree):
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_"))


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_public_modules_functions_and_classes_have_docstrings(path):
    tree = parse(path)
    assert ast.get_docstring(tree)
    assert [n.name for n in public_things(tree) if not ast.get_docstring(n)] == []


@pytest.mark.parametrize("path", [*FILES, *sorted(SCRIPTS.glob("*.py"))], ids=ids)
def test_no_path_of_a_machine_stands_in_the_code(path):
    assert re.findall(r"/(?:home|root|work|Users|mnt)/", path.read_text(encoding="utf-8")) == []


# ---- the parts of a method -----------------------------------------------------------------------------------


def definitions(method):
    """Return {name: (file, node)} of Params, Result and compute, wherever in the method they are defined."""
    base = LIBRARY / "methods" / method
    files = sorted(base.glob("*.py")) if base.is_dir() else [base.with_suffix(".py")]
    found = {}
    for path in files:
        for node in parse(path).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in ("Params", "Result", "compute"):
                assert node.name not in found, f"{node.name} is defined twice"
                found[node.name] = (path, node)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_params_result_and_compute_in_this_order(method):
    found = definitions(method)
    assert set(found) == {"Params", "Result", "compute"}
    for first, second in [("Params", "Result"), ("Params", "compute"), ("Result", "compute")]:
        (file, node), (other, later) = found[first], found[second]
        assert file != other or node.lineno < later.lineno


@pytest.mark.parametrize("method", METHODS)
def test_params_result_and_compute_can_be_imported_from_the_method(method):
    base = LIBRARY / "methods" / method
    tree = parse(base / "__init__.py" if base.is_dir() else base.with_suffix(".py"))
    names = {n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    names |= {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert {"Params", "Result", "compute"} <= names


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "maker"), [("Params", "setting"), ("Result", "quantity")])
def test_params_and_result_are_frozen_and_every_field_declares_itself(method, name, maker):
    _, node = definitions(method)[name]
    assert [ast.unparse(d).replace("dataclasses.", "") for d in node.decorator_list] == ["dataclass(frozen=True)"]
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    for field in fields:
        made = isinstance(field.value, ast.Call) and ast.unparse(field.value.func).split(".")[-1] == maker
        assert made, f"{field.target.id} is not made by {maker}"
