import pytest
import torch

from kinobeam.testing import assert_close

INF, NAN = float("inf"), float("nan")


def test_it_accepts_roundings_and_equal_special_values():
    reference = torch.tensor([1.0, 1 / 3, NAN, INF, -INF], dtype=torch.float64)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert_close("x", reference.to(dtype), reference)
    assert_close("empty", torch.zeros(0), torch.zeros(0))
    assert_close("all NaN", torch.tensor([NAN]), torch.tensor([NAN]))


@pytest.mark.parametrize(
    ("actual", "reference", "words"),
    [
        ([1.0, 2.0], [1.0, 2.1], r"x: \|2.0 - 2.09.*\| = 0.1 at \[1\], allowed"),
        ([NAN, 2.0], [1.0, 2.0], r"x: NaN in different places, first at \[0\]"),
        ([1.0, INF], [1.0, -INF], r"x: \+inf in different places, first at \[1\]"),
        ([1.0, 2.0], [1.0, -INF], r"x: -inf in different places"),
        ([1.0], [1.0, 1.0], r"x: expected shape \(2,\), got \(1,\)"),
    ],
)
def test_it_names_the_fault(actual, reference, words):
    with pytest.raises(AssertionError, match=words):
        assert_close("x", torch.tensor(actual), torch.tensor(reference))


def test_a_baseline_allows_twice_its_own_error():
    reference, baseline = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.01])
    assert_close("x", torch.tensor([1.019, 1.0]), reference, baseline)
    with pytest.raises(AssertionError):
        assert_close("x", torch.tensor([1.021, 1.0]), reference, baseline)
    with pytest.raises(AssertionError):
        assert_close("x", torch.tensor([1.019, 1.0]), reference)
