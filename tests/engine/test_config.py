import dataclasses

import pytest

from kinobeam.engine.config import METHODS, SearchConfig


@pytest.mark.parametrize(
    ("method", "beams", "candidates"),
    [("none", 1, 1), ("best_of_n", 8, 1), ("greedy", 1, 8), ("dlbs", 4, 2)],
)
def test_each_method_has_its_default_sizes(method, beams, candidates):
    config = SearchConfig(method=method)
    assert (config.beams, config.candidates, config.pool) == (beams, candidates, beams * candidates)
    assert config.scores == (method != "none")


def test_given_sizes_are_taken():
    config = SearchConfig(method="dlbs", num_beams=3, num_candidates=5)
    assert (config.beams, config.candidates, config.pool) == (3, 5, 15)
    assert SearchConfig(method="best_of_n", num_beams=5, num_candidates=1).pool == 5


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SearchConfig().num_beams = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("search_range", "timestep", "covered"),
    [
        ((1.0, 0.0), 999, True),
        ((1.0, 0.0), 0, True),
        ((0.8, 0.3), 800, True),
        ((0.8, 0.3), 801, False),
        ((0.8, 0.3), 300, True),
        ((0.8, 0.3), 299, False),
    ],
)
def test_a_range_includes_its_ends(search_range, timestep, covered):
    config = SearchConfig(method="dlbs", search_range=search_range)
    assert config.covers(timestep, 1000) == covered


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "beam"}, ValueError, "none, best_of_n, greedy, dlbs; got 'beam'"),
        ({"num_beams": 0}, ValueError, "num_beams: expected at least 1, got 0"),
        ({"num_candidates": -1}, ValueError, "num_candidates: expected at least 1, got -1"),
        ({"num_lookahead_steps": 0}, ValueError, "num_lookahead_steps: expected at least 1"),
        ({"num_beams": 1.5}, TypeError, "num_beams: expected an integer, got 1.5"),
        ({"num_beams": True}, TypeError, "num_beams: expected an integer, got True"),
        ({"num_candidates": "2"}, TypeError, "num_candidates: expected an integer, got '2'"),
        ({"search_range": (0.2, 0.8)}, ValueError, "1 >= high > low >= 0, got .0.2, 0.8."),
        ({"search_range": (1.5, 0.0)}, ValueError, "1 >= high > low >= 0"),
        ({"search_range": (float("nan"), 0.0)}, ValueError, "1 >= high > low >= 0"),
        ({"search_range": (1.0,)}, ValueError, "expected a tuple .high, low., got .1.0,."),
        ({"search_range": [1.0, 0.0]}, ValueError, "expected a tuple .high, low., got"),
        ({"search_range": None}, ValueError, "expected a tuple .high, low., got None"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(options, error, words):
    with pytest.raises(error, match=words):
        SearchConfig(**{"method": "dlbs", **options})


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("none", "num_beams"),
        ("none", "num_candidates"),
        ("best_of_n", "num_candidates"),
        ("greedy", "num_beams"),
    ],
)
def test_a_count_that_contradicts_the_method_is_refused(method, name):
    with pytest.raises(ValueError, match=f"{name}: method '{method}' always has 1, got 2; use"):
        SearchConfig(method=method, **{name: 2})


def test_every_method_is_listed():
    assert METHODS == ("none", "best_of_n", "greedy", "dlbs")
