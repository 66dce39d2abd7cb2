"""What an install contains, built from a copy of the source tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "python/kinobeam": "kinobeam",
    **{r: f"kinobeam/{r}" for r in ("kernels", "engine", "benchmarks")},
}
# Packages of the extras, and those that some platforms lack: a module may need them.
OPTIONAL = ("fastapi", "uvicorn", "prometheus_client", "ray", "matplotlib", "jinja2", "triton")

# An editable install of this repository must not lend what the wheel lacks.
NO_EDITABLE = """
import sys
sys.meta_path[:] = [
    f for f in sys.meta_path if "Editable" not in getattr(f, "__name__", type(f).__name__)
]
sys.path.insert(0, sys.argv[1])
"""

IMPORT_ALL = """
import importlib
from pathlib import Path
target, optional, *names = sys.argv[1:]
for name in names:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] not in optional.split(","):
            raise
        continue
    assert Path(module.__file__).is_relative_to(target), module.__file__
"""


def clean_env(**extra: str) -> dict[str, str]:
    env = {
        k: v for k, v in os.environ.items() if not k.startswith("KINOBEAM_") and k != "PYTHONPATH"
    }
    return {**env, "PYTHONSAFEPATH": "1", **extra}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build needs: the repository's own build folders stay untouched."""
    copy = tmp_path_factory.mktemp("source")
    for name in (
        "setup.py",
        "pyproject.toml",
        "CMakeLists.txt",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
    ):
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, copy / name)
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for name in ("csrc", "python", "kernels", "engine", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    return copy


def build_wheel(source: Path, out: Path, **env: str) -> Path:
    shutil.rmtree(source / "build" / "lib", ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "-w",
        out,
        source,
    ]
    done = subprocess.run(command, env=clean_env(**env), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def native_wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def pure_wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("pure"), KINOBEAM_SKIP_BUILD="1")


def expected_modules(source: Path) -> set[str]:
    return {
        f"{package}/{path.relative_to(source / folder)}"
        for folder, package in FOLDERS.items()
        for path in (source / folder).rglob("*.py")
    }


def run_from(wheel: Path, target: Path, code: str, *arguments: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    done = subprocess.run(
        [sys.executable, "-c", NO_EDITABLE + code, str(target), *arguments],
        cwd=target,
        env=clean_env(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["native_wheel", "pure_wheel"])
def test_a_wheel_contains_every_module(kind, source, request):
    names = set(zipfile.ZipFile(request.getfixturevalue(kind)).namelist())
    assert not expected_modules(source) - names
    assert {n for n in names if n.endswith(".py")} == expected_modules(source)
    assert "kinobeam/py.typed" in names
    assets = source / "python" / "kinobeam" / "assets"
    shipped = {f"kinobeam/assets/{p.relative_to(assets)}" for p in assets.rglob("*") if p.is_file()}
    assert not shipped - names


def test_only_the_native_wheel_has_the_library(native_wheel, pure_wheel):
    def libraries(wheel: Path) -> list[str]:
        return [
            n for n in zipfile.ZipFile(wheel).namelist() if n.endswith((".so", ".pyd", ".dylib"))
        ]

    (library,) = libraries(native_wheel)
    assert library.startswith("kinobeam/kernels/_C.")
    assert libraries(pure_wheel) == []
    assert pure_wheel.name.endswith("-py3-none-any.whl")


def test_every_module_imports_from_the_wheel(native_wheel, source, tmp_path):
    names = [
        name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for name in sorted(expected_modules(source))
        if not name.endswith("__main__.py")
    ]
    run_from(native_wheel, tmp_path, IMPORT_ALL, ",".join(OPTIONAL), *names, "kinobeam.kernels._C")


def test_without_the_library_the_references_serve(pure_wheel, tmp_path):
    code = """
import torch
from kinobeam.kernels import _native
from kinobeam.kernels.beam import beam_prune, counter_normal, root_keys
assert counter_normal(root_keys([0], 2)[0], -1, (3,)).shape == (2, 3)
print(beam_prune(torch.tensor([[0.0, 2.0, 1.0]]), [], num_beams=1).source_GB.tolist())
print(_native.reason_unavailable())
"""
    output = run_from(pure_wheel, tmp_path, code)
    assert output.startswith("[[1]]\n")
    assert "reinstall kinobeam without KINOBEAM_SKIP_BUILD" in output


def build_ext(source: Path, out: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", str(out)],
        cwd=source,
        env=clean_env(**env),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_a_missing_compiler_is_an_error_that_says_what_to_do(source, tmp_path):
    text = build_ext(source, tmp_path, PATH=str(tmp_path), CXX="")
    assert "expected a C++17 compiler" in text and "found none of c++, g++, clang++" in text
    assert "Install one" in text and "KINOBEAM_SKIP_BUILD=1" in text
    assert "found none of no-such-compiler" in build_ext(source, tmp_path, CXX="no-such-compiler")


def test_cuda_is_not_promised_without_cuda_sources(source, tmp_path):
    if list((ROOT / "csrc").rglob("*.cu")):
        pytest.skip("there are CUDA sources now")
    assert "this version has no CUDA sources" in build_ext(source, tmp_path, KINOBEAM_CUDA="1")
