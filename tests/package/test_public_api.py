"""The public names: they resolve, are documented, load lazily, and their examples run."""

import doctest
import importlib
import inspect
import subprocess
import sys

import pytest

import kinobeam

OBJECTS = [name for name in kinobeam.__all__ if not name.startswith("__")]
MODULES = sorted({module for module in kinobeam._MODULE_OF.values()})


@pytest.mark.parametrize("name", OBJECTS)
def test_a_public_name_resolves_and_is_documented(name):
    value = getattr(kinobeam, name)
    assert name in dir(kinobeam)
    if inspect.isclass(value) or callable(value):
        doc = inspect.getdoc(value)
        assert doc and not doc.startswith(f"{name}("), "a docstring of its own"
        assert value.__module__.startswith("kinobeam")


@pytest.mark.parametrize("name", [n for n in OBJECTS if inspect.isclass(getattr(kinobeam, n))])
def test_public_methods_are_documented_and_typed(name):
    for method_name, method in inspect.getmembers(getattr(kinobeam, name), inspect.isfunction):
        own = method.__module__.startswith("kinobeam") and method.__qualname__.startswith(name)
        if method_name.startswith("_") or not own:
            continue
        assert method.__doc__, f"{name}.{method_name}"
        parameters = list(inspect.signature(method).parameters.values())[1:]
        assert all(p.annotation is not p.empty for p in parameters), f"{name}.{method_name}"


def test_the_table_of_contents_stays_short():
    assert len(kinobeam.__all__) <= 20
    assert kinobeam.__all__ == ["__version__", *sorted(OBJECTS)]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'kinobeam' has no attribute 'nope'"):
        kinobeam.nope  # noqa: B018


def test_importing_is_light():
    """An embedder of the operators and the settings pays for torch alone."""
    code = (
        "import sys, kinobeam\n"
        "assert 'torch' not in sys.modules, 'the package itself needs nothing'\n"
        "kinobeam.beam_prune, kinobeam.SearchConfig, kinobeam.RewardOutput, kinobeam.WORLD_LATTE\n"
        "import kinobeam.engine.search.beam\n"
        "heavy = {'diffusers', 'transformers', 'accelerate', 'rich', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module_name", [*MODULES, "kinobeam.testing.numeric"])
def test_docstring_examples_run(module_name):
    module = importlib.import_module(module_name)
    examples = doctest.DocTestFinder(exclude_empty=True).find(module)
    needs_model = not (kinobeam.WORLD_LATTE / "model_index.json").is_file()
    runner = doctest.DocTestRunner()
    for example in examples:
        if needs_model and "WORLD_LATTE" in (example.docstring or ""):
            continue
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0
