"""`kinobeam generate`: the plain video, the searched one, and a page that shows the search."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from kinobeam.cli.output import OutputFolder
from kinobeam.engine.config import SearchConfig

if TYPE_CHECKING:
    from kinobeam.engine.types import SearchStep
    from kinobeam.outputs import VideoPipelineOutput
    from kinobeam.pipeline import Engine
    from kinobeam.report.collector import Collector
    from kinobeam.report.html import Clip
    from kinobeam.report.media import Pictures

INTERRUPTED = 130
PLAIN, SEARCHED = "plain", "searched"
_FILES = ("plain.mp4", "searched.mp4", "side_by_side.mp4", "trace.json", "report.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """Make a video of a prompt: once plainly, once with a search from the same noise, and a report.

    Args:
        prompt: what the video should show.
        search: what to search.
        model: a diffusers pipeline folder or a hub id; the embedded one by default.
        reward: a reward by name (world), or package.module:function; by default the one that the
            model declares.
        negative_prompt: what guidance leads away from.
        num_inference_steps: sampling steps; the model's own number by default.
        guidance_scale: classifier-free guidance; the model's own by default.
        eta: noise of a sampling step; by default 0 without candidates and 1 with several per beam.
        seed: fixes the noise; the plain video starts from the same as the search's first beam.
        micro_batch: latents per network call; by default what is needed, at most 8.
        output: the folder for the videos, trace.json and report.html.
        fps: frames a second of the videos.
        scale: whole factor to enlarge the videos by; by default until the shorter side has 256.
        report: whether to make the page (needs the extra `report`).
    """

    prompt: tyro.conf.Positional[str]
    search: SearchConfig = field(default_factory=SearchConfig)
    model: str | None = None
    reward: str | None = None
    negative_prompt: str = ""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    eta: float | None = None
    seed: int = 0
    micro_batch: int | None = None
    output: Path = Path("out")
    fps: int = 8
    scale: int | None = None
    report: bool = True


def run(config: GenerateConfig) -> int:
    """Generate and write; returns the exit code."""
    _check(config)
    output = OutputFolder(config.output, _FILES)
    try:
        _generate(config, output)
    except KeyboardInterrupt:
        whole = ", ".join(str(path) for path in output.written) or "no file"
        print(f"\nstopped; finished: {whole}")
        return INTERRUPTED
    for path in output.written:
        print(path)
    return 0


def _check(config: GenerateConfig) -> None:
    if not config.prompt.strip():
        raise ValueError(
            f"prompt: expected text, got {config.prompt!r}; say what the video should show"
        )
    for name in ("fps", "scale"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if config.report:
        from kinobeam.report.html import require_jinja

        require_jinja()


def _generate(config: GenerateConfig, output: OutputFolder) -> None:
    from kinobeam.report.collector import Collector

    engine, reward = _load(config)
    collector = Collector()
    plain = _sample(engine, config, SearchConfig(), reward, None)
    clips = [_write_clip(config, output, PLAIN, plain)]
    outs = {PLAIN: plain}
    if config.search.scores:
        searched = _sample(engine, config, config.search, reward, collector)
        clips.append(_write_clip(config, output, SEARCHED, searched))
        outs[SEARCHED] = searched
        _write_side_by_side(config, output, clips)
    with output.writing("trace.json") as path:
        path.write_text(json.dumps(trace_record(config, outs), indent=1, allow_nan=False) + "\n")
    if config.report:
        _write_report(config, output, clips, outs, collector)


def _load(config: GenerateConfig) -> tuple[Engine, Any]:
    """The engine, and the reward that scores both videos (None: nothing will be scored)."""
    from kinobeam.assets import WORLD_LATTE
    from kinobeam.pipeline import Engine
    from kinobeam.rewards import load_reward

    if config.model is None and not WORLD_LATTE.is_dir():
        raise ValueError(
            f"model: the embedded model is not in this installation ({WORLD_LATTE}); make it with "
            "kinobeam world train and name its folder: --model out/world-latte"
        )
    reward = None if config.reward is None else load_reward(config.reward)
    engine = Engine.from_pretrained(config.model or WORLD_LATTE)
    return engine, reward or engine.reward


def _sample(
    engine: Engine,
    config: GenerateConfig,
    search: SearchConfig,
    reward: Any,
    collector: Collector | None,
) -> VideoPipelineOutput:
    title = PLAIN if collector is None else f"{SEARCHED} ({search.method})"
    steps = config.num_inference_steps or engine.defaults.num_inference_steps
    with _progress(title, steps, collector) as on_step:
        out = engine(
            config.prompt,
            negative_prompt=config.negative_prompt,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            eta=config.eta,
            seed=config.seed,
            search=search,
            reward=reward,
            micro_batch=config.micro_batch,
            on_step=on_step,
        )
    score = reward_of(out)
    if score is not None:
        print(f"{title}: reward {score:.4g}")
    return out


@contextmanager
def _progress(title: str, num_steps: int, collector: Collector | None) -> Iterator[Any]:
    """A bar on stderr; gives the observer to hand to the engine."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[best]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=num_steps, best="")

        def on_step(step: SearchStep) -> None:
            if collector is not None:
                collector(step)
            progress.update(task, completed=step.step + 1)
            if step.best_reward is not None:
                progress.update(task, best=f"best {step.best_reward:.4g}")

        yield on_step


def reward_of(out: VideoPipelineOutput) -> float | None:
    """The reward of the one video of a request."""
    return None if out.rewards is None else float(out.rewards[0])


def _enlarged(config: GenerateConfig, frames_F3HW: Any) -> Pictures:
    from kinobeam.report.media import auto_scale, to_pictures, upscale

    pictures = to_pictures(frames_F3HW)
    return upscale(pictures, config.scale or auto_scale(*pictures.shape[1:3]))


def _write_clip(
    config: GenerateConfig, output: OutputFolder, title: str, out: VideoPipelineOutput
) -> Clip:
    from kinobeam.report.html import Clip
    from kinobeam.report.media import write_mp4

    name = f"{title}.mp4"
    with output.writing(name) as path:
        write_mp4(path, _enlarged(config, out.frames[0]), config.fps)
    assert out.search_trace is not None and out.metrics is not None
    return Clip(
        title=title,
        mp4=(output.path / name).read_bytes(),
        frames_F3HW=out.frames[0].cpu(),
        reward=reward_of(out),
        trace=out.search_trace,
        seconds=out.metrics.seconds,
    )


def _write_side_by_side(config: GenerateConfig, output: OutputFolder, clips: list[Clip]) -> None:
    from kinobeam.report.media import beside, write_mp4

    left, right = (_enlarged(config, clip.frames_F3HW) for clip in clips)
    first, second = (
        clip.title if clip.reward is None else f"{clip.title}   reward {clip.reward:.4g}"
        for clip in clips
    )
    with output.writing("side_by_side.mp4") as path:
        write_mp4(path, beside(left, right, (first, second)), config.fps)


def trace_record(config: GenerateConfig, outs: dict[str, VideoPipelineOutput]) -> dict[str, Any]:
    """The content of trace.json; numbers that JSON lacks (infinities) become null."""
    from kinobeam.cli.info import versions

    asked = {**asdict(config), "output": str(config.output)}
    del asked["prompt"], asked["seed"]
    record = {
        "prompt": config.prompt,
        "seed": config.seed,
        "config": asked,
        "versions": versions(),
        **{title: _sampling_record(out) for title, out in outs.items()},
    }
    return {name: _json_ready(value) for name, value in record.items()}


def _sampling_record(out: VideoPipelineOutput) -> dict[str, Any]:
    assert out.search_trace is not None and out.metrics is not None
    return {
        "reward": reward_of(out),
        "metrics": asdict(out.metrics),
        "search_trace": asdict(out.search_trace),
    }


def _json_ready(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_report(
    config: GenerateConfig,
    output: OutputFolder,
    clips: list[Clip],
    outs: dict[str, VideoPipelineOutput],
    collector: Collector,
) -> None:
    from kinobeam import __version__
    from kinobeam.report.html import Report, render_report

    metrics = list(outs.values())[-1].metrics
    assert metrics is not None
    report = Report(
        prompt=config.prompt,
        clips=clips,
        reward=metrics.reward,
        settings=_settings(config, metrics),
        thumbnails=collector.thumbnails,
        version=__version__,
    )
    with output.writing("report.html") as path:
        path.write_text(render_report(report), encoding="utf-8")


def _settings(config: GenerateConfig, metrics: Any) -> dict[str, str]:
    """What the page lists under the prompt."""
    search = config.search
    shown: dict[str, Any] = {"model": config.model or "world-latte", "seed": config.seed}
    shown |= {"steps": metrics.num_inference_steps, "guidance": f"{metrics.guidance_scale:g}"}
    if config.negative_prompt:
        shown["without"] = config.negative_prompt
    if search.scores:
        shown |= {
            "search": search.method,
            "beams": search.beams,
            "candidates": search.candidates,
            "look-ahead steps": search.num_lookahead_steps,
            "eta": f"{metrics.eta:g}",
            "reward": metrics.reward,
        }
    return {name: str(value) for name, value in shown.items()}
