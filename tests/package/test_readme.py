"""The README: short, its example runs as printed, its commands and links exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_it_is_short():
    assert len(TEXT.splitlines()) < 120


def test_the_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    rewards = re.search(r"reward (-?[\d.]+) -> (-?[\d.]+)", printed)
    assert rewards is not None
    assert float(rewards[2]) >= float(rewards[1])


def test_the_make_targets_exist():
    targets = re.findall(r"^make (\w+)", TEXT, flags=re.M)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M)


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", TEXT))
def test_the_links_lead_somewhere(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("folder", re.findall(r"^\| `([\w/]+/)` \|", TEXT, flags=re.M))
def test_the_folders_exist(folder):
    assert (ROOT / folder).is_dir()
