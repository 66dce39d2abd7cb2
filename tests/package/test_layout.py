"""The direction of imports and the guards of the package map, read from the source files."""

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"kernels": ROOT / "kernels", "engine": ROOT / "engine", "benchmarks": ROOT / "benchmarks"}
PUBLIC = ROOT / "python" / "kinobeam"

# A module imports from its own floor and from those below, never from above.
FLOORS = {
    "kernels": 0,
    "engine": 1,
    "pipeline": 2, "outputs": 2, "processes": 2, "assets": 2,
    "adapters": 2, "rewards": 2, "world": 2, "testing": 2,
    "training": 3, "videogen": 3,
    "cli": 4, "serve": 4, "report": 4, "benchmarks": 4, "__main__": 4,
}  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module that ships."""
    for prefix, folder in [("kinobeam", PUBLIC), *((f"kinobeam.{r}", f) for r, f in ROOMS.items())]:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([prefix, *parts]).removesuffix(".__init__"), path


def imports(path: Path, module: str = "") -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in the file, relative ones resolved."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def floor_of(name: str) -> int | None:
    """The floor of a dotted kinobeam name; None outside kinobeam and for kinobeam itself."""
    parts = name.split(".")
    if parts[0] != "kinobeam" or len(parts) == 1 or parts[1] == "__version__":
        return None
    # A public name taken from the package itself may come from any floor.
    return FLOORS.get(parts[1], max(FLOORS.values()))


def upward(module: str, path: Path) -> list[str]:
    own = floor_of(module)
    return [
        f"{module}:{line} imports {name}"
        for line, name in imports(path, module)
        if own is not None and (floor_of(name) or 0) > own
    ]


def test_every_module_has_a_floor():
    unknown = {m.split(".")[1] for m, _ in modules() if m.count(".")} - set(FLOORS)
    assert not unknown, f"give {sorted(unknown)} a place in FLOORS"


def test_imports_never_go_up():
    assert not [fault for module, path in modules() for fault in upward(module, path)]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("kinobeam.kernels.beam.api", "from kinobeam.engine import step"),
        ("kinobeam.kernels.beam.api", "import kinobeam.engine.step"),
        ("kinobeam.kernels.beam.api", "from ...engine import step"),
        ("kinobeam.kernels.beam.api", "from kinobeam import beam_prune"),
        ("kinobeam.engine.step", "def f():\n    from kinobeam.rewards import x"),
        ("kinobeam.world.scenes", "from kinobeam.training import x"),
    ],
)
def test_an_upward_import_is_noticed(tmp_path, module, line):
    path = tmp_path / "module.py"
    path.write_text(line)
    assert upward(module, path)


def test_the_engine_never_imports_diffusers():
    for module, path in modules():
        if module.startswith(("kinobeam.engine", "kinobeam.kernels")):
            assert not [n for _, n in imports(path, module) if n.split(".")[0] == "diffusers"], path


def test_csrc_knows_neither_torch_nor_python():
    for path in (ROOT / "csrc").rglob("*"):
        if path.is_file():
            headers = re.findall(r"#\s*include\s*[<\"]([^>\"]+)", path.read_text())
            assert not [h for h in headers if h.startswith(("torch/", "ATen", "c10", "Python"))], (
                path
            )
            if path.name != "bindings.cpp":
                assert not [h for h in headers if h.startswith("pybind11")], path


# Trap 1: with the root on sys.path our kernels/ would hide the package that diffusers imports.
def test_the_root_stays_off_the_path():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--import-mode=importlib" in settings["addopts"]
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert [p.name for p in ROOT.glob("*.py")] == ["setup.py"], "no runnable script in the root"
    assert "export PYTHONSAFEPATH := 1" in (ROOT / "Makefile").read_text()
    spec = importlib.util.find_spec("kernels")
    assert spec is None or not str(spec.origin).startswith(str(ROOT / "kernels"))


# Trap 2: a re-exported function hides the folder of the same name.
def test_no_name_hides_a_folder_or_a_file():
    body = ast.parse((ROOT / "kernels" / "__init__.py").read_text()).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr), (
        "kernels/__init__.py is a docstring only"
    )
    for folder in (p for p in (ROOT / "kernels").iterdir() if (p / "__init__.py").exists()):
        files = {p.stem for p in folder.glob("*.py")}
        assert folder.name not in files, (
            f"{folder.name}/{folder.name}.py is named after its operator"
        )
        for _, name in imports(folder / "__init__.py", f"kinobeam.kernels.{folder.name}"):
            assert name.rpartition(".")[2] not in files, f"{name} hides the file of the same name"


# Trap 3: `import kernels.x` would run a second copy of kinobeam.kernels.x.
def test_rooms_are_imported_by_their_full_names():
    folders = [
        *ROOMS.values(),
        PUBLIC,
        ROOT / "tests",
        ROOT / "examples",
        ROOT / "docs",
        ROOT / "scripts",
    ]
    for path in (p for folder in folders for p in folder.rglob("*.py")):
        for line, name in imports(path, "kinobeam.x.y.z"):
            assert name.split(".")[0] not in ("engine", "benchmarks", "csrc", "python"), (
                f"{path}:{line}"
            )
            # the package `kernels` itself has no submodules that we would import
            assert not re.match(r"kernels\.(beam|sinkhorn|temporal_attention|_)", name), (
                f"{path}:{line}"
            )


# Trap 4: a folder without __init__.py works in an editable install and is missing from the wheel.
# (tests/package/test_build.py imports every module from a wheel.)
def test_every_folder_with_modules_is_a_package():
    for folder in [*ROOMS.values(), PUBLIC]:
        assert (folder / "__init__.py").exists(), folder
    for _, path in modules():
        assert (path.parent / "__init__.py").exists(), path.parent


# Trap 5: mypy does not follow the finder of an editable install.
def test_types_are_checked_on_an_ordinary_install():
    recipe = (ROOT / "Makefile").read_text().split("\ntypes:")[1].split("\n\n")[0]
    assert "--target build/types" in recipe and "MYPYPATH=build/types" in recipe
    assert " -e " not in recipe
    assert (PUBLIC / "py.typed").exists()


def test_native_sources_are_listed_once():
    listed = re.findall(r"csrc/\S+\.(?:cpp|cu)", (ROOT / "CMakeLists.txt").read_text())
    there = [
        str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*") if p.suffix in (".cpp", ".cu")
    ]
    assert sorted(listed) == sorted(there)
