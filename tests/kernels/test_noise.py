import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinobeam.kernels import _native
from kinobeam.kernels.beam import api, beam_expand, child_keys, counter_normal, noise, root_keys
from kinobeam.kernels.beam.reference import philox

pytestmark = pytest.mark.usefixtures("poisoned_empty")

needs_native = pytest.mark.skipif(
    _native.reason_unavailable() is not None, reason=str(_native.reason_unavailable())
)
BACKENDS = pytest.mark.parametrize(
    "backend", [pytest.param("cpu", marks=needs_native), "reference"]
)

# Published known-answer vectors of Random123: counter, key, result; words in order.
VECTORS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def philox_by_hand(key: int, counter: list[int]) -> list[int]:
    """Philox4x32-10 in Python integers: the oracle of both implementations."""
    k0, k1 = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
    c = list(counter)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k0, p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def normals_by_hand(key: int, step: int, size: int) -> np.ndarray:
    """float64 Box-Muller on Python integers."""
    out = []
    for block in range((size + 3) // 4):
        x = philox_by_hand(key, [block & 0xFFFFFFFF, block >> 32, step & 0xFFFFFFFF, 0x4E4F4953])
        for a, b in ((x[0], x[1]), (x[2], x[3])):
            radius = math.sqrt(-2 * math.log(((a >> 8) + 1) * 2.0**-24))
            angle = 2 * math.pi * (b >> 8) * 2.0**-24
            out += [radius * math.cos(angle), radius * math.sin(angle)]
    return np.array(out[:size])


def native_philox(keys: torch.Tensor, counters: torch.Tensor) -> torch.Tensor:
    """counters (n, 4) int64 words -> (n, 4) int64 words, by the C++ code."""
    narrow = counters.to(torch.uint32).contiguous()
    out = torch.zeros(len(keys), 4, dtype=torch.uint32)
    _native.check(
        _native.library().philox_cpu(keys.data_ptr(), narrow.data_ptr(), len(keys), out.data_ptr())
    )
    return out.to(torch.int64)


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_gives_the_published_answers(counter, key, expected):
    low, high = words(key)
    keys = torch.tensor([signed(low | high << 32)])
    assert [int(x) for x in philox(keys, tuple(words(counter)))] == words(expected)
    assert philox_by_hand(low | high << 32, words(counter)) == words(expected)


@needs_native
@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_native_philox_gives_the_published_answers(counter, key, expected):
    low, high = words(key)
    keys = torch.tensor([signed(low | high << 32)])
    assert native_philox(keys, torch.tensor([words(counter)]))[0].tolist() == words(expected)


@needs_native
def test_philox_is_bit_equal_between_torch_and_c():
    keys = torch.randint(-(2**63), 2**63 - 1, (4096,))
    counters = torch.randint(0, 2**32, (4096, 4))
    assert torch.equal(
        torch.stack(philox(keys, tuple(counters.T)), dim=1), native_philox(keys, counters)
    )


@BACKENDS
def test_root_keys_follow_their_formula(backend):
    seeds = [0, 1, 2**64 - 1, -(2**63), 1234567890123]
    keys = root_keys(seeds, 5, backend=backend)
    for g, seed in enumerate(seeds):
        for r in range(5):
            x = philox_by_hand(seed & (2**64 - 1), [r, 0, 0, 0x524F4F54])
            assert int(keys[g, r]) == signed(x[0] | x[1] << 32)
    assert torch.equal(
        keys, root_keys(torch.tensor([signed(s & (2**64 - 1)) for s in seeds]), 5, backend=backend)
    )


@pytest.mark.parametrize("native", [pytest.param("1", marks=needs_native), "0"])
def test_child_keys_follow_their_formula(native, monkeypatch):
    monkeypatch.setenv("KINOBEAM_BACKEND", "cpu" if native == "1" else "reference")
    parents = root_keys([3, 4], 2)
    keys = child_keys(parents[:, :, None], torch.arange(3), 17)
    for g in range(2):
        for b in range(2):
            for k in range(3):
                x = philox_by_hand(int(parents[g, b]) & (2**64 - 1), [k, 17, 0, 0x4348494C])
                assert int(keys[g, b, k]) == signed(x[0] | x[1] << 32)
    on_device = child_keys(parents[:, :, None], torch.arange(3), torch.tensor(17))
    assert torch.equal(keys, on_device)
    assert torch.equal(child_keys(parents, 2, 17), keys[:, :, 2])
    assert torch.equal(child_keys(parents, 2**32 + 2, 17), keys[:, :, 2])


@BACKENDS
@pytest.mark.parametrize("step", [-1, 0, 49, 2**31 - 1])
def test_normals_follow_their_formula(backend, step):
    keys = root_keys([11], 3)[0]
    # 1031: several groups of blocks and an odd tail
    ours = counter_normal(keys, step, (1031,), backend=backend)
    for row, key in enumerate(keys.tolist()):
        np.testing.assert_allclose(
            ours[row].numpy(), normals_by_hand(key & (2**64 - 1), step, 1031), rtol=0, atol=4e-6
        )


@BACKENDS
def test_normals_are_within_4e_6_of_float64(backend):
    keys = root_keys([5], 4)[0]
    exact = counter_normal(keys, 3, (1 << 18,), dtype=torch.float64)
    error = (counter_normal(keys, 3, (1 << 18,), backend=backend).double() - exact).abs().max()
    assert float(error) <= 4e-6


def test_normals_are_normal():
    x = counter_normal(root_keys([2], 8)[0], 0, (1 << 17,)).double().flatten()
    n = x.numel()
    # five standard errors of each moment
    assert abs(float(x.mean())) < 5 / math.sqrt(n)
    assert abs(float(x.var()) - 1) < 5 * math.sqrt(2 / n)
    assert abs(float((x**3).mean())) < 5 * math.sqrt(15 / n)
    assert abs(float((x**4).mean()) - 3) < 5 * math.sqrt(96 / n)
    quantiles = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    share = (x[:, None] < quantiles).double().mean(dim=0)
    assert torch.allclose(share, torch.special.ndtr(quantiles), atol=5 * 0.5 / math.sqrt(n))
    # neighbouring elements, and the two of a pair, are uncorrelated
    for lag in (1, 2, 3, 4):
        assert abs(float((x[:-lag] * x[lag:]).mean())) < 5 / math.sqrt(n)
    assert float(x.abs().max()) < 5.77


@BACKENDS
@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 5),
    size=st.integers(0, 700),
    pick=st.integers(0, 4),
    step=st.integers(-1, 99),
)
def test_a_row_does_not_know_its_batch(backend, rows, size, pick, step):
    keys = root_keys([9], rows)[0]
    whole = counter_normal(keys, step, (size,), backend=backend)
    row = pick % rows
    assert torch.equal(
        whole[row], counter_normal(keys[row : row + 1], step, (size,), backend=backend)[0]
    )
    assert torch.equal(whole.flip(0), counter_normal(keys.flip(0), step, (size,), backend=backend))
    # a prefix of a row is the row of a smaller shape
    assert torch.equal(
        whole[:, : size // 2], counter_normal(keys, step, (size // 2,), backend=backend)
    )


@needs_native
def test_the_number_of_threads_changes_no_bit():
    keys, before = root_keys([1], 3)[0], torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(counter_normal(keys, 0, (50_003,), backend="cpu"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@BACKENDS
def test_a_step_on_the_device_serves_every_row(backend):
    keys = root_keys([1], 3)[0]
    rows = counter_normal(keys, torch.tensor([4, -1, 9]), (33,), backend=backend)
    for row, step in enumerate((4, -1, 9)):
        alone = counter_normal(keys[row : row + 1], torch.tensor(step), (33,), backend=backend)
        assert torch.equal(rows[row : row + 1], alone)
        assert torch.equal(alone, counter_normal(keys[row : row + 1], step, (33,), backend=backend))


def test_shapes_and_dtypes():
    keys = root_keys([1], 3)[0]
    flat = counter_normal(keys, 0, (24,))
    assert torch.equal(counter_normal(keys, 0, (2, 3, 4)), flat.reshape(3, 2, 3, 4))
    assert torch.equal(counter_normal(keys, 0, ()), flat[:, 0])
    assert counter_normal(keys[:0], 0, (2, 3)).shape == (0, 2, 3)
    assert counter_normal(keys, 0, (2, 0)).shape == (3, 2, 0)
    assert torch.equal(
        counter_normal(keys, 0, (24,), dtype=torch.bfloat16), flat.to(torch.bfloat16)
    )
    assert counter_normal(keys, 0, (24,), dtype=torch.float64).dtype == torch.float64
    assert torch.equal(counter_normal(torch.stack([keys, keys], 1)[:, 0], 0, (24,)), flat)


def test_expansion_follows_its_formula():
    keys, mean = root_keys([1, 2], 3), torch.randn(2, 3, 4, 5)
    latents, candidate_keys = beam_expand(mean, 0.7, keys, 6, 2)
    for b in range(3):
        for k in range(2):
            key = child_keys(keys[:, b], k, 6)
            assert torch.equal(candidate_keys[:, 2 * b + k], key)
            expected = mean[:, b] + 0.7 * counter_normal(key, 6, (4, 5))
            assert torch.equal(latents[:, 2 * b + k], expected)


def test_a_prompt_does_not_know_its_neighbours_and_a_beam_not_its_slot():
    keys, mean = root_keys([1, 2], 3), torch.randn(2, 3, 4, 5)
    latents, candidate_keys = beam_expand(mean, 0.7, keys, 6, 2)
    alone, alone_keys = beam_expand(mean[1:], 0.7, keys[1:], 6, 2)
    assert torch.equal(latents[1:], alone) and torch.equal(candidate_keys[1:], alone_keys)
    turned, turned_keys = beam_expand(mean.flip(1), 0.7, keys.flip(1), 6, 2)
    assert torch.equal(turned.unflatten(1, (3, 2)).flip(1), latents.unflatten(1, (3, 2)))
    assert candidate_keys.unique().numel() == 12


def test_expansion_with_a_tensor_std_and_other_dtypes():
    keys, mean = root_keys([1, 2], 3), torch.randn(2, 3, 4, 5)
    plain, _ = beam_expand(mean, 0.5, keys, 6, 2)
    assert torch.equal(plain, beam_expand(mean, torch.tensor(0.5), keys, torch.tensor(6), 2)[0])
    per_beam = torch.full((2, 3, 1, 1), 0.5)
    assert torch.equal(plain, beam_expand(mean, per_beam, keys, 6, 2)[0])
    half, _ = beam_expand(mean.bfloat16(), 0.5, keys, 6, 2)
    exact, _ = beam_expand(mean.bfloat16().float(), 0.5, keys, 6, 2)
    assert torch.equal(half, exact.bfloat16())
    assert beam_expand(mean.double(), 0.5, keys, 6, 2)[0].dtype == torch.float64
    assert torch.equal(beam_expand(mean, 0.0, keys, 6, 2)[0], mean.repeat_interleave(2, dim=1))


def test_expansion_has_gradients_of_mean_and_std():
    keys = root_keys([1], 2)
    mean = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    std = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, s: beam_expand(m, s, keys, 0, 2)[0], (mean, std))


KEYS = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (
            TypeError,
            "expected keys_N to be int64, got torch.float32",
            lambda: counter_normal(KEYS.float(), 0, (2,)),
        ),
        (
            ValueError,
            r"keys_N of shape \(N,\), got \(1, 2\)",
            lambda: counter_normal(KEYS[None], 0, (2,)),
        ),
        (ValueError, r"step in \[-1, 2\^31\), got -2", lambda: counter_normal(KEYS, -2, (2,))),
        (ValueError, r"step in \[-1, 2\^31\), got 2147483648", lambda: child_keys(KEYS, 0, 2**31)),
        (
            ValueError,
            r"step of shape \(\) or \(2,\), got \(3,\)",
            lambda: counter_normal(KEYS, torch.arange(3), (2,)),
        ),
        (TypeError, "got torch.int32", lambda: counter_normal(KEYS, 0, (2,), dtype=torch.int32)),
        (ValueError, "without negative extents", lambda: counter_normal(KEYS, 0, (-2,))),
        (
            ValueError,
            "float64 normals come from the reference; .*'reference'",
            lambda: counter_normal(KEYS, 0, (2,), dtype=torch.float64, backend="cpu"),
        ),
        (ValueError, "got 'gpu'", lambda: counter_normal(KEYS, 0, (2,), backend="gpu")),
        (ValueError, "reduce it modulo", lambda: root_keys([2**64], 1)),
        (TypeError, "integer seeds, got 1.5", lambda: root_keys([1.5], 1)),
        (ValueError, "num_roots in 0..2", lambda: root_keys([1], -1)),
        (ValueError, r"seeds of shape \(G,\)", lambda: root_keys(KEYS[None], 1)),
        (
            ValueError,
            "1 or more, got 0",
            lambda: beam_expand(torch.zeros(1, 2, 3), 1.0, KEYS[None], 0, 0),
        ),
        (
            ValueError,
            r"got \(1, 2, 3\) and \(2,\)",
            lambda: beam_expand(torch.zeros(1, 2, 3), 1.0, KEYS, 0, 1),
        ),
        (
            TypeError,
            "floating-point mean",
            lambda: beam_expand(KEYS[None, :, None], 1.0, KEYS[None], 0, 1),
        ),
    ],
)
def test_errors_say_what_to_do(error, text, call):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("module", [api, noise])
def test_the_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
