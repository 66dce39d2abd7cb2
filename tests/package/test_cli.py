"""The command line, run in this process with a tiny model."""

import contextlib
import io
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from kinobeam.cli import COMMANDS, main, overview
from kinobeam.cli.generate import SEARCHED
from kinobeam.pipeline import Engine
from kinobeam.rewards.world import WorldReward

PROMPT = "a red circle moves left on a <b>dark</b> background"
SEARCH = ["--search.method", "dlbs", "--search.num-beams", "2", "--search.num-candidates", "2"]
FILES = {"plain.mp4", "searched.mp4", "side_by_side.mp4", "trace.json", "report.html"}


@dataclass
class Run:
    """What one `kinobeam generate` left behind."""

    code: int
    folder: Path
    stdout: str
    outs: list[Any]


def generate(model: Path, folder: Path, *flags: str, prompt: str = PROMPT) -> int:
    words = ["generate", prompt, "--model", str(model), "--output", str(folder)]
    return main([*words, "--num-inference-steps", "4", *flags])


@pytest.fixture(scope="module")
def searched(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, outs, stdout = tmp_path_factory.mktemp("run") / "a" / "b", [], io.StringIO()
    call = Engine.__call__

    def remember(self: Engine, *args: Any, **kwargs: Any) -> Any:
        outs.append(call(self, *args, **kwargs))
        return outs[-1]

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout):
        patch.setattr(Engine, "__call__", remember)
        code = generate(tiny_world, folder, *SEARCH, "--seed", "3", "--fps", "5")
    return Run(code, folder, stdout.getvalue(), outs)


def test_generate_writes_every_file_and_names_it(searched):
    assert searched.code == 0
    assert {path.name for path in searched.folder.iterdir()} == FILES
    assert all(str(searched.folder / name) in searched.stdout for name in FILES)
    assert re.search(r"plain: reward -0\.\d+", searched.stdout)
    assert re.search(r"searched \(dlbs\): reward -0\.\d+", searched.stdout)


@pytest.mark.parametrize("name", ["plain", "searched", "side_by_side"])
def test_generated_videos_play(searched, name):
    with av.open(str(searched.folder / f"{name}.mp4")) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].average_rate == 5
    assert len(frames) == 8
    sizes = {(frame.height, frame.width) for frame in frames}
    assert sizes == ({(288, 520)} if name == "side_by_side" else {(256, 256)})


def test_trace_says_what_the_engine_returned(searched):
    record = json.loads((searched.folder / "trace.json").read_text())
    assert (record["prompt"], record["seed"]) == (PROMPT, 3)
    assert record["config"]["search"]["num_beams"] == 2 and "torch" in record["versions"]
    for title, out in zip(("plain", "searched"), searched.outs, strict=True):
        own = record[title]
        assert own["reward"] == float(out.rewards[0])
        assert own["search_trace"] == json.loads(json.dumps(asdict(out.search_trace)))
        assert own["metrics"] == json.loads(json.dumps(asdict(out.metrics)))
    assert searched.outs[0].metrics.eta == 0 and searched.outs[1].metrics.eta == 1


def test_report_is_one_file_with_escaped_text(searched):
    html = (searched.folder / "report.html").read_text()
    assert not re.search(r"https?://", html) and "<script" not in html
    assert "<b>dark" not in html and "&lt;b&gt;dark&lt;/b&gt;" in html
    assert html.count('src="data:video/mp4;base64,') == 2
    survivors = sum(len(step.kept[0]) for step in searched.outs[1].search_trace.steps)
    assert html.count('href="data:image/png;base64,') == survivors == 7


def test_without_a_search_there_is_one_video_and_nothing_of_an_earlier_run(
    tiny_world, tmp_path, capsys
):
    for name in (*FILES, "mine.txt"):
        (tmp_path / name).write_text("old")
    assert generate(tiny_world, tmp_path, "--no-report", "--scale", "1") == 0
    assert {p.name for p in tmp_path.iterdir()} == {"plain.mp4", "trace.json", "mine.txt"}
    with av.open(str(tmp_path / "plain.mp4")) as container:
        assert next(container.decode(video=0)).width == 32
    assert SEARCHED not in capsys.readouterr().out


def stop_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the reward's call number `calls`."""
    score, left = WorldReward.__call__, iter(range(calls))

    def interrupted(self: WorldReward, *args: Any, **columns: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return score(self, *args, **columns)

    monkeypatch.setattr(WorldReward, "__call__", interrupted)


def test_an_interrupted_search_leaves_whole_files_only(tiny_world, tmp_path, capsys, monkeypatch):
    stop_after(2, monkeypatch)
    assert generate(tiny_world, tmp_path, *SEARCH) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["plain.mp4"]
    with av.open(str(tmp_path / "plain.mp4")) as container:
        assert len(list(container.decode(video=0))) == 8
    assert f"stopped; finished: {tmp_path / 'plain.mp4'}" in capsys.readouterr().out


def test_interrupted_before_the_first_file(tiny_world, tmp_path, capsys, monkeypatch):
    stop_after(0, monkeypatch)
    assert generate(tiny_world, tmp_path) == 130
    assert not list(tmp_path.iterdir())
    assert "stopped; finished: no file" in capsys.readouterr().out


def test_interrupted_while_a_file_is_written(tiny_world, tmp_path, monkeypatch):
    def interrupt(*args: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("kinobeam.report.html.render_report", interrupt)
    assert generate(tiny_world, tmp_path) == 130
    assert {path.name for path in tmp_path.iterdir()} == {"plain.mp4", "trace.json"}


def error_of(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line of a user error."""
    assert code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "kinobeam: error: " in line]
    assert len(lines) == 1
    return lines[0]


def test_a_folder_that_cannot_be_written_is_an_error_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Engine, "from_pretrained", lambda *_, **__: pytest.fail("work was done"))
    (tmp_path / "file").touch()
    code = generate(tmp_path, tmp_path / "file" / "below")
    assert "output: cannot write to" in error_of(capsys, code)


@pytest.mark.parametrize(
    ("flags", "prompt", "text"),
    [
        ([], " ", "prompt: expected text, got ' '"),
        (["--fps", "0"], PROMPT, "fps: expected at least 1, got 0"),
        (["--scale", "-2"], PROMPT, "scale: expected at least 1, got -2"),
        (["--reward", "nice"], PROMPT, "reward: expected one of world"),
        (["--eta", "7"], PROMPT, "eta: expected a number from 0 to 1, got 7.0"),
        ([*SEARCH, "--eta", "0"], PROMPT, "eta: 2 candidates of a beam differ by the noise"),
    ],
)
def test_user_errors_are_one_line(tiny_world, tmp_path, capsys, flags, prompt, text):
    assert text in error_of(capsys, generate(tiny_world, tmp_path, *flags, prompt=prompt))


def test_a_model_that_is_not_there(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "has no model_index.json" in error_of(capsys, generate(tmp_path / "empty", tmp_path))


@pytest.mark.parametrize(
    ("flags", "texts"),
    [
        (["--sarch.method", "dlbs"], ["Unrecognized options: --sarch.method", "--search.method"]),
        (["--search.method", "beam"], ["invalid choice 'beam'", "'best_of_n', 'greedy', 'dlbs'"]),
        (["--search.num-beams", "0"], ["num_beams: expected at least 1"]),
    ],
)
def test_flags_that_do_not_fit(capsys, flags, texts):
    with pytest.raises(SystemExit) as stop:
        main(["generate", PROMPT, *flags])
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert stop.value.code == 2 and all(text in error for text in texts)


def test_help_is_light_and_lists_every_command():
    code = (
        "import sys; from kinobeam.cli import main; main(['--help']);"
        "assert not {'torch', 'tyro'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == overview().strip()
    assert all(command.name in done.stdout and command.help in done.stdout for command in COMMANDS)


def test_help_of_generate_does_without_torch():
    code = (
        "import sys\nfrom kinobeam.cli import main\n"
        "try: main(['generate', '--help'])\n"
        "except SystemExit: assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--search.num-lookahead-steps" in done.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["generat"], "expected a command (generate, info, world train"),
        (["world", "trian"], "expected a command (world train, world evaluate), got 'world trian'"),
    ],
)
def test_unknown_commands(capsys, words, text):
    assert text in error_of(capsys, main(words))


def test_a_command_of_a_missing_module_says_so(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "kinobeam.benchmarks.search", None)
    assert "no kinobeam.benchmarks.search" in error_of(capsys, main(["bench", "search"]))


@dataclass
class BenchConfig:
    """A stand-in."""

    num_prompts: int = 8


def test_commands_take_the_fields_of_their_config(monkeypatch):
    seen = []

    def run(config: BenchConfig) -> dict[str, float]:  # figures are no exit code
        seen.append(config)
        return {"reward": 1.0}

    monkeypatch.setitem(sys.modules, "kinobeam.benchmarks.search", SimpleNamespace(run=run))
    assert main(["bench", "search", "--num-prompts", "3"]) == 0
    assert seen == [BenchConfig(3)]


def test_info_says_which_kernels_run(capsys, monkeypatch):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "torch " in text and "native module: " in text and "beam_prune on cpu" in text
    monkeypatch.setenv("KINOBEAM_BACKEND", "reference")
    assert main(["info"]) == 0
    assert re.search(r"reference +runs", capsys.readouterr().out)


def test_train_does_not_replace_a_folder_that_is_no_model(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    code = main(["world", "train", "--model-folder", str(tmp_path)])
    assert "holds something else than a model" in error_of(capsys, code)


def test_train_is_called_with_what_was_asked(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("kinobeam.world.train.train_in_processes", lambda *a: calls.append(a))
    folders = ["--work-folder", str(tmp_path / "w"), "--model-folder", str(tmp_path / "m")]
    assert main(["world", "train", *folders, "--num-processes", "4"]) == 0
    ((recipe, *rest),) = calls
    assert rest == [tmp_path / "w", tmp_path / "m", 4]
