import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinobeam.kernels import _native
from kinobeam.kernels.beam import beam_prune
from kinobeam.kernels.beam.reference import order_keys

pytestmark = pytest.mark.usefixtures("poisoned_empty")

NATIVE = pytest.param(
    "cpu",
    marks=pytest.mark.skipif(
        _native.reason_unavailable() is not None, reason=str(_native.reason_unavailable())
    ),
)
BACKENDS = pytest.mark.parametrize("backend", [NATIVE, "reference"])
NAN, INF = math.nan, math.inf


def oracle(scores: np.ndarray, num_beams: int) -> tuple[list[int], list[int]]:
    """(source, rank) of one group, by sorting tuples: no bit tricks, no vectors."""
    place = {
        n: rank
        for rank, n in enumerate(
            sorted(
                range(len(scores)),
                key=lambda n: (
                    bool(np.isnan(scores[n])),
                    -scores[n] if scores[n] == scores[n] else 0,
                    n,
                ),
            )[:num_beams]
        )
    }
    movers = [n for n in sorted(place) if n >= num_beams]
    source = [b if b in place else movers.pop(0) for b in range(num_beams)]
    return source, [place[n] for n in source]


def check_against_oracle(scores: torch.Tensor, num_beams: int, backend: str) -> None:
    groups, pool = scores.shape
    labels = torch.arange(groups * pool).reshape(groups, pool)
    rows = torch.randn(groups, pool, 3)
    before, result = (
        rows.clone(),
        beam_prune(scores, [labels, rows], num_beams=num_beams, backend=backend),
    )
    for g in range(groups):
        source, rank = oracle(scores[g].numpy(), num_beams)
        assert result.source_GB[g].tolist() == source
        assert result.rank_GB[g].tolist() == rank
        assert int(result.num_copied_G[g]) == sum(b != n for b, n in enumerate(source))
        kept = [*source, *range(num_beams, pool)]
        assert labels[g].tolist() == [g * pool + n for n in kept]
        assert torch.equal(rows[g], before[g, kept])
        # bits, not values: NaN and -0 come back as they were
        assert torch.equal(
            result.scores_GB[g].view(torch.int32), scores[g, source].contiguous().view(torch.int32)
        )


@BACKENDS
@pytest.mark.parametrize(
    ("scores", "num_beams"),
    [
        ([1.0], 1),
        ([0.1, 0.9, 0.5, 0.7], 2),
        ([0.1, 0.9, 0.5, 0.7], 4),  # B = N: nothing moves
        ([1.0] * 9, 4),  # adversarial ties: the lower index wins
        ([0.0, -0.0, 0.0, -0.0], 2),  # one score: the lower index wins
        ([-0.0, 0.0, -0.0, 1e-45, -1e-45], 3),
        ([NAN, -INF, NAN, -INF], 2),  # NaN is below -inf
        ([NAN, NAN, NAN], 2),
        ([-INF, INF, NAN, 3.4e38, -3.4e38], 3),
        ([NAN, 1.0, NAN, 1.0, 1.0, NAN], 4),
        (list(range(64)), 16),  # every survivor moves
        (list(range(64, 0, -1)), 16),  # no survivor moves
    ],
)
def test_selection_and_slots(backend, scores, num_beams):
    check_against_oracle(torch.tensor([scores], dtype=torch.float32), num_beams, backend)


SCORES = st.sampled_from([0.0, -0.0, 1.0, -1.0, NAN, INF, -INF, 0.5, 1e-45, -3.4e38])


@pytest.mark.parametrize("backend", [NATIVE, "reference"])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_scores(backend, data):
    groups, pool = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 24))
    num_beams = data.draw(st.integers(1, pool))
    values = data.draw(st.lists(SCORES, min_size=groups * pool, max_size=groups * pool))
    scores = torch.tensor(values, dtype=torch.float32).reshape(groups, pool)
    check_against_oracle(scores, num_beams, backend)


@pytest.mark.parametrize("backend", [NATIVE])
@pytest.mark.parametrize(("groups", "pool", "num_beams"), [(1, 8, 4), (3, 37, 5), (7, 1024, 16)])
def test_backends_are_bit_equal(backend, groups, pool, num_beams):
    scores = torch.randn(groups, pool).round(decimals=1)
    states = {}
    for name in (backend, "reference"):
        rows = torch.arange(groups * pool * 5.0).reshape(groups, pool, 5).clone()
        states[name] = (beam_prune(scores, [rows], num_beams=num_beams, backend=name), rows)
    for ours, theirs in zip(states[backend][0], states["reference"][0], strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    assert torch.equal(states[backend][1], states["reference"][1])


@BACKENDS
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.uint8,
        torch.bool,
    ],
)
def test_rows_of_any_dtype_move_as_bytes(backend, dtype):
    rows = (torch.randn(2, 6, 3, 5) * 100).to(dtype)
    before = rows.clone()
    result = beam_prune(torch.randn(2, 6), [rows], num_beams=3, backend=backend)
    for g in range(2):
        assert torch.equal(rows[g, :3], before[g, result.source_GB[g]])
        assert torch.equal(rows[g, 3:], before[g, 3:])


@BACKENDS
def test_any_stride_of_group_and_row(backend):
    storage = torch.randn(
        9, 2, 4, 3
    )  # (pool, group, ...): dims 0 and 1 swapped, every other row skipped
    rows = storage.transpose(0, 1)[:, :8:2]
    before, untouched = rows.clone(), storage[1::2].clone()
    result = beam_prune(torch.randn(2, 4), [rows], num_beams=2, backend=backend)
    for g in range(2):
        assert torch.equal(rows[g, :2], before[g, result.source_GB[g]])
    assert torch.equal(storage[1::2], untouched)


def test_scores_of_any_stride():
    scores = torch.randn(6, 2).T
    ours = beam_prune(scores, [], num_beams=3)
    assert torch.equal(ours.source_GB, beam_prune(scores.contiguous(), [], num_beams=3).source_GB)


def test_large_rows_move_in_parallel_tiles():
    rows = torch.randn(1, 4, 700_001)  # above a tile and not a multiple of one
    before = rows.clone()
    beam_prune(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), [rows], num_beams=2)
    assert torch.equal(rows, before[:, [2, 3, 2, 3]])


@BACKENDS
def test_empty_groups_and_empty_rows(backend):
    result = beam_prune(torch.empty(0, 4), [torch.empty(0, 4, 2)], num_beams=2, backend=backend)
    assert result.source_GB.shape == (0, 2) and result.num_copied_G.shape == (0,)
    beam_prune(torch.randn(2, 4), [torch.empty(2, 4, 0)], num_beams=2, backend=backend)


def test_rows_with_strides_of_their_own_go_to_the_reference():
    rows = torch.randn(1, 4, 3, 2).transpose(2, 3)
    before = rows.clone(memory_format=torch.contiguous_format)
    with pytest.raises(ValueError, match=r"rows of state\[1\] are not contiguous.*\['reference'\]"):
        beam_prune(torch.randn(1, 4), [before, rows], num_beams=2, backend="cpu")
    result = beam_prune(torch.randn(1, 4), [rows], num_beams=2)
    assert torch.equal(rows[0, :2], before[0, result.source_GB[0]])


def test_autograd_notices_the_change():
    weight = torch.ones(1, 4, 2, requires_grad=True)
    rows = torch.randn(1, 4, 2)
    product = (weight * rows).sum()  # saves rows
    beam_prune(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), [rows], num_beams=2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_inference_tensors_are_fine():
    with torch.inference_mode():
        rows = torch.arange(4.0).reshape(1, 4, 1)
        beam_prune(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), [rows], num_beams=2)
        assert rows.flatten().tolist() == [2, 3, 2, 3]


def test_order_keys_are_distinct_and_monotone():
    values = torch.tensor([[NAN, -INF, -3.4e38, -1.0, -1e-45, -0.0, 1e-45, 1.0, 3.4e38, INF]])
    keys = order_keys(values)[0].tolist()
    assert keys == sorted(keys) and len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("error", "words", "scores", "state", "num_beams"),
    [
        (
            TypeError,
            "expected float32 scores, got torch.float64",
            torch.zeros(1, 4).double(),
            [],
            2,
        ),
        (ValueError, r"scores of shape \(G, N\), got \(4,\)", torch.zeros(4), [], 2),
        (ValueError, r"num_beams in 1..4 .*got 5", torch.zeros(1, 4), [], 5),
        (ValueError, r"num_beams in 1..4 .*got 0", torch.zeros(1, 4), [], 0),
        (TypeError, r"pass \[tensor\]", torch.zeros(1, 4), torch.zeros(1, 4), 2),
        (
            ValueError,
            r"state\[0\] of shape .*got \(4, 1\)",
            torch.zeros(1, 4),
            [torch.zeros(4, 1)],
            2,
        ),
        (
            ValueError,
            "on cpu like the scores, got meta",
            torch.zeros(1, 4),
            [torch.zeros(1, 4, device="meta")],
            2,
        ),
        (
            ValueError,
            "detach it first",
            torch.zeros(1, 4),
            [torch.zeros(1, 4, requires_grad=True)],
            2,
        ),
        (ValueError, "share memory", torch.zeros(1, 4), [torch.zeros(1, 1, 3).expand(1, 4, 3)], 2),
    ],
)
def test_errors_say_what_to_do(error, words, scores, state, num_beams):
    with pytest.raises(error, match=words):
        beam_prune(scores, state, num_beams=num_beams)
