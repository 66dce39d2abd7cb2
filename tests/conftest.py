"""Seeds from the test's own name, the gpu mark, and poisoned memory in kernel tests."""

import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device, torch sees none")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """One seed per test, from its node id: a test draws the same numbers alone and in the suite."""
    value = zlib.crc32(request.node.nodeid.encode())
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
    return value


def _poison(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def allocate_poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = allocate(*args, **kwargs)
        if tensor.is_floating_point() or tensor.is_complex():
            return tensor.fill_(float("nan"))
        return tensor if tensor.dtype == torch.bool else tensor.fill_(torch.iinfo(tensor.dtype).max)

    return allocate_poisoned


@pytest.fixture
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.empty gives NaN (integers: the largest), so that an output left unwritten shows."""
    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, _poison(getattr(torch, name)))


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder like the embedded one, trained for seconds: all in place, nothing learnt."""
    from kinobeam.world.config import tiny_recipe
    from kinobeam.world.train import train_world

    folder = tmp_path_factory.mktemp("tiny-world")
    train_world(tiny_recipe(), folder / "work", folder / "model")
    return folder / "model"
