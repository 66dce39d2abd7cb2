"""The benchmark's arithmetic, and a whole tiny run that is cut and resumed."""

import json
import math
import random

import pytest

from kinobeam.benchmarks import search as bench
from kinobeam.benchmarks.statistics import mean_interval, share_interval
from kinobeam.engine.config import SearchConfig


def test_mean_interval_by_hand():
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert high - mean == pytest.approx(1.96 / math.sqrt(3))
    assert mean - low == pytest.approx(high - mean)


def test_share_interval_covers_as_often_as_it_says():
    rng = random.Random(0)
    covered = 0
    for _ in range(2000):
        hits = [rng.random() < 0.3 for _ in range(50)]
        _, low, high = share_interval(hits)
        covered += low <= 0.3 <= high
    assert 0.93 <= covered / 2000 <= 0.98


@pytest.mark.parametrize("hits", [[True] * 5, [False] * 5])
def test_share_interval_stays_in_the_unit_interval(hits):
    share, low, high = share_interval(hits)
    assert 0 <= low <= share <= high <= 1
    assert high - low > 0.1


@pytest.mark.parametrize("call", [lambda: mean_interval([1.0]), lambda: share_interval([])])
def test_too_few_values_are_an_error(call):
    with pytest.raises(ValueError, match="expected at least"):
        call()


def network_evaluations(config: SearchConfig) -> int:
    """B + sum over steps: candidates times look-ahead inside the range, one beam outside."""
    beams = config.beams
    total = beams
    for step in range(bench.NUM_STEPS - 1):
        timestep = 999 - 50 * step
        if not config.covers(timestep, 1000):
            total += 1
        elif config.candidates == 1:
            total += beams
        else:
            total += config.pool * config.num_lookahead_steps
    return total


@pytest.mark.parametrize("name", [n for n in bench.METHODS if "/" in n])
def test_methods_keep_their_budget(name):
    budget = int(name.rsplit("/")[1])
    assert 0.9 * budget <= network_evaluations(bench.METHODS[name]) <= 1.06 * budget


def test_unknown_method_is_an_error():
    with pytest.raises(ValueError, match="methods: expected some of plain"):
        bench.SearchBenchConfig(methods=("fast",))


def test_a_cut_run_goes_on_with_the_missing_rows(tiny_world, tmp_path):
    output = tmp_path / "search.jsonl"
    config = bench.SearchBenchConfig(
        model=tiny_world,
        num_prompts=2,
        output=output,
        num_processes=1,
        methods=("plain", "best-of-N/80"),
    )
    bench.run(config)
    lines = output.read_text().splitlines()
    assert len(lines) == 4
    first = json.loads(lines[0])
    kept = lines[:3]
    output.write_text("\n".join(kept) + '\n{"half a li')
    bench.run(config)
    again = output.read_text().splitlines()
    rows = [json.loads(line) for line in again if line.endswith("}")]
    assert again[:3] == kept
    assert {(r["method"], r["index"]) for r in rows} == {
        (m, i) for m in ("plain", "best-of-N/80") for i in (0, 1)
    }
    assert first["nfe"] in (20, 80)
    report = output.with_suffix(".md").read_text()
    assert "| plain |" in report and "| best-of-N/80 |" in report
