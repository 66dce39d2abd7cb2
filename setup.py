"""The package map (root folders become sub-packages of kinobeam) and the CMake call."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "cmake"  # fixed, so that a reinstall compiles only what changed
ROOMS = ("kernels", "engine", "benchmarks")

packages = find_packages("python")
for room in ROOMS:
    packages += [f"kinobeam.{room}", *(f"kinobeam.{room}.{p}" for p in find_packages(room))]


def tool(name: str) -> str:
    """The path of a build tool: beside this Python, where its wheel puts it, or on PATH."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=beside) or shutil.which(name)
    if found is None:
        raise SetupError(
            f"kinobeam: expected {name!r} to build with, found none: pip install {name}"
        )
    return found


def require_compiler() -> None:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    if not any(shutil.which(name.split()[0]) for name in names):
        raise SetupError(
            "kinobeam: expected a C++17 compiler to build kinobeam.kernels._C, "
            f"found none of {', '.join(names)} on PATH. Install one (Debian, Ubuntu: apt-get "
            "install g++), or set KINOBEAM_SKIP_BUILD=1 to run on the PyTorch references alone."
        )


class CMakeBuild(build_ext):
    """Builds the one native module with CMake and ninja, and puts it where setuptools wants it."""

    def build_extension(self, ext: Extension) -> None:
        require_compiler()
        if os.environ.get("KINOBEAM_CUDA") == "1" and not list((ROOT / "csrc").rglob("*.cu")):
            raise SetupError(
                "kinobeam: KINOBEAM_CUDA=1, but this version has no CUDA sources; unset it."
            )
        cache, home = BUILD / "CMakeCache.txt", f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n"
        if cache.exists() and home not in cache.read_text():
            shutil.rmtree(BUILD)  # it was configured for another place
        settings = {
            "CMAKE_MAKE_PROGRAM": tool("ninja"),
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": importlib.import_module("pybind11").get_cmake_dir(),
        }
        defines = [f"-D{name}={value}" for name, value in settings.items()]
        configure = [tool("cmake"), "-S", ROOT, "-B", BUILD, "-G", "Ninja", *defines]
        subprocess.run(configure, check=True)
        subprocess.run([tool("cmake"), "--build", BUILD], check=True)
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(BUILD / target.name, target)


native = [Extension("kinobeam.kernels._C", sources=[])]
setup(
    packages=packages,
    package_dir={"": "python", **{f"kinobeam.{room}": room for room in ROOMS}},
    ext_modules=[] if os.environ.get("KINOBEAM_SKIP_BUILD") == "1" else native,
    cmdclass={"build_ext": CMakeBuild},
)
