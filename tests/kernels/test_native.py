import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from kinobeam.kernels import _native

pytestmark = pytest.mark.skipif(
    _native.reason_unavailable() is not None, reason=str(_native.reason_unavailable())
)


def run_python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONSAFEPATH": "1", **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_torch_and_the_library_share_one_openmp_runtime_and_its_settings():
    code = """
import torch
from kinobeam.kernels import _native
paths = {line.split()[-1] for line in open("/proc/self/maps") if "/" in line}
names = ("gomp", "iomp", "libomp")
print(sorted(p for p in paths if any(n in p.rsplit("/", 1)[-1] for n in names)))
torch.set_num_threads(3)
print(_native.library().num_threads())
"""
    runtimes, threads = run_python(code).splitlines()
    assert len(eval(runtimes)) == 1, runtimes
    assert threads == "3"


def test_switched_off_the_library_keeps_its_reason_and_references_run():
    code = """
from kinobeam.kernels import _native
from kinobeam.kernels.beam import root_keys
print(_native.reason_unavailable())
print(root_keys([1], 2).shape[1])
try: root_keys([1], 2, backend="cpu")
except ValueError as error: print(error)
"""
    assert run_python(code, KINOBEAM_NATIVE="0").splitlines() == [
        "KINOBEAM_NATIVE=0",
        "2",
        "root_keys: backend 'cpu' refuses: KINOBEAM_NATIVE=0; "
        "backends that would work: ['reference']",
    ]


def test_a_stale_library_is_refused(monkeypatch):
    monkeypatch.setattr(
        _native.importlib, "import_module", lambda _: SimpleNamespace(abi_version=lambda: 0)
    )
    _native._load.cache_clear()
    try:
        assert "stale (ABI 0, expected 1); reinstall" in _native.reason_unavailable()
        with pytest.raises(RuntimeError, match="not available: the native module is stale"):
            _native.library()
    finally:
        monkeypatch.undo()
        _native._load.cache_clear()


def test_a_missing_library_is_explained(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(_native.importlib, "import_module", missing)
    _native._load.cache_clear()
    try:
        assert "reinstall kinobeam without KINOBEAM_SKIP_BUILD" in _native.reason_unavailable()
    finally:
        monkeypatch.undo()
        _native._load.cache_clear()


def test_every_status_has_its_words():
    library = _native.library()
    words = [library.status_string(status) for status in range(6)]
    assert words[0] == "ok" and len(set(words)) == 6 and "unknown status" not in words
    assert library.status_string(99) == "unknown status"


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("counter_normal_cpu", (0, 0, 0, 1, 4, 0), "null address"),
        ("counter_normal_cpu", (0, 0, 0, -1, 4, 0), "negative"),
        ("counter_normal_cpu", (0, 0, 0, 2**40, 2**40, 0), "larger than"),
        ("beam_select_cpu", (0, 1, 4, 5, 0, 0, 0, 0), "num_beams must be in"),
        ("beam_select_cpu", (0, 1, 4, 2, 0, 0, 0, 0), "null address"),
        ("root_keys_cpu", (0, 1, 1, 0), "null address"),
        ("child_keys_cpu", (0, 0, 0, 1, 0), "null address"),
        ("philox_cpu", (0, 0, -1, 0), "negative"),
    ],
)
def test_the_c_functions_check_their_arguments(function, arguments, words):
    library = _native.library()
    assert words in library.status_string(getattr(library, function)(*arguments))
    with pytest.raises(RuntimeError, match="kinobeam.kernels._C: status"):
        _native.check(getattr(library, function)(*arguments))


@pytest.mark.parametrize("source", [[4, 1], [-1, 1], [1, 0], [1, 3]])
def test_a_move_whose_destination_is_a_source_is_refused_and_writes_nothing(source):
    library = _native.library()
    rows, row_of = torch.arange(4.0), torch.tensor(source)
    table = torch.tensor([[rows.data_ptr(), 16, 4, 4]])
    status = library.beam_move_cpu(row_of.data_ptr(), 1, 4, 2, table.data_ptr(), 1)
    assert "source" in library.status_string(status)
    assert rows.tolist() == [0, 1, 2, 3]
