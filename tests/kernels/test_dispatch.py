import pytest

from kinobeam.kernels import _env
from kinobeam.kernels._dispatch import Backend, choose, dispatch, never, refusals

TABLE = (
    Backend("fast", lambda x: ("fast", x), lambda x: "x is odd" if x % 2 else None),
    Backend("picky", lambda x: ("picky", x), lambda x: "it takes nothing"),
    Backend("plain", lambda x: ("plain", x), never),
)


def test_auto_takes_the_first_that_does_not_refuse():
    assert dispatch("op", TABLE, "auto", 2) == ("fast", 2)
    assert dispatch("op", TABLE, "auto", 3) == ("plain", 3)
    assert refusals(TABLE, 3) == {"fast": "x is odd", "picky": "it takes nothing", "plain": None}


def test_a_named_backend_runs():
    assert dispatch("op", TABLE, "plain", 2) == ("plain", 2)


def test_a_named_backend_that_refuses_says_why_and_what_would_work():
    with pytest.raises(ValueError) as error:
        choose("op", TABLE, "picky", 2)
    assert str(error.value) == (
        "op: backend 'picky' refuses: it takes nothing; backends that would work: ['fast', 'plain']"
    )


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'auto' or one of \['fast', 'picky', 'plain'\], got 'x'"):
        choose("op", TABLE, "x", 2)


def test_auto_with_nothing_left_gives_every_reason():
    with pytest.raises(ValueError, match="fast: x is odd; picky: it takes nothing"):
        choose("op", TABLE[:2], "auto", 3)


def test_the_environment_says_what_auto_means(monkeypatch):
    monkeypatch.setenv("KINOBEAM_BACKEND", "plain")
    assert choose("op", TABLE, "auto", 2).name == "plain"
    assert choose("op", TABLE, "fast", 2).name == "fast"


def test_a_malformed_variable_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setenv("KINOBEAM_NATIVE", "yes")
    with pytest.raises(ValueError, match="KINOBEAM_NATIVE='yes': expected 0 or 1; "):
        _env.NATIVE.get()
    monkeypatch.setenv("KINOBEAM_NATIVE", "")
    assert _env.NATIVE.get() is True


def test_variables_are_listed_once():
    assert len({variable.name for variable in _env.ALL}) == len(_env.ALL)
    assert all(variable.name.startswith("KINOBEAM_") and variable.help for variable in _env.ALL)
