"""The one comparison of numbers."""

from __future__ import annotations

import torch
from torch import Tensor

# Of the largest reference value: a few roundings of the type.
FLOORS: dict[torch.dtype, float] = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}


def assert_close(
    name: str,
    actual: Tensor,
    reference: Tensor,
    baseline: Tensor | None = None,
    *,
    floor: float | None = None,
) -> None:
    """Fail unless `actual` is as near to `reference` as its type allows.

    |actual - reference| <= 2 max|baseline - reference| + floor max|reference|, with NaN and both
    infinities in the same places.

    Args:
        name: of the quantity, for the message.
        actual: what is tested.
        reference: the same quantity in higher precision.
        baseline: the same quantity by plain PyTorch in the precision of `actual`.
        floor: a share of the largest reference value; by default that of the type of `actual`.

    Raises:
        AssertionError: with the name, the worst index and both values there.

    Example:
        >>> assert_close("sum", torch.tensor([1.0, 2.0]).sum(), torch.tensor(3.0))
        >>> assert_close("sum", torch.tensor([1.0]), torch.tensor([3.0]))
        Traceback (most recent call last):
        ...
        AssertionError: sum: |1.0 - 3.0| = 2 at [0], allowed 6e-06
    """
    assert actual.shape == reference.shape, (
        f"{name}: expected shape {tuple(reference.shape)}, got {tuple(actual.shape)}"
    )
    limit = FLOORS[actual.dtype] if floor is None else floor
    got, expected = actual.detach().double().cpu(), reference.detach().double().cpu()
    for kind, where in (("NaN", torch.isnan), ("+inf", torch.isposinf), ("-inf", torch.isneginf)):
        differs = where(got) != where(expected)
        assert not differs.any(), (
            f"{name}: {kind} in different places, first at {differs.nonzero()[0].tolist()}"
        )
    finite = expected.isfinite()
    if not finite.any():
        return
    error = torch.where(finite, (got - expected).abs(), 0.0)
    allowed = limit * torch.where(finite, expected.abs(), 0.0).max()
    if baseline is not None:
        apart = (baseline.detach().double().cpu() - expected).abs()
        allowed = allowed + 2 * torch.where(finite, apart, 0.0).max()
    worst = torch.unravel_index(error.argmax(), error.shape)
    at = [int(i) for i in worst]
    assert error.max() <= allowed, (
        f"{name}: |{got[worst].item()} - {expected[worst].item()}| = {error.max().item():.3g} "
        f"at {at}, allowed {allowed.item():.3g}"
    )
