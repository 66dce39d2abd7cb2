"""The report: one file, nothing outside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from kinobeam.engine.types import SearchTrace
from kinobeam.report.chart import Chart, build_chart
from kinobeam.report.media import Pictures, data_uri
from kinobeam.report.tree import Tree, build_tree
from kinobeam.report.verdicts import find_verdicts

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATE = "report.html.j2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One generated video.

    Args:
        title: "plain" or "searched".
        mp4: the file's content.
        frames_F3HW: (F, 3, H, W) in [0, 1], for the judge.
        reward: None when it was not scored.
        trace: what the sampling did.
        seconds: how long it took in all.
    """

    title: str
    mp4: bytes
    frames_F3HW: Tensor
    reward: float | None
    trace: SearchTrace
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the page shows.

    Args:
        prompt: as the user wrote it.
        clips: the plain video, then the searched one if there is one.
        reward: the reward's name, or None.
        settings: name and value of what was asked for.
        thumbnails: of each step of the last clip, as `Collector` keeps them.
        version: Kinobeam's.
    """

    prompt: str
    clips: Sequence[Clip]
    reward: str | None
    settings: dict[str, str]
    thumbnails: Sequence[Sequence[Pictures] | None]
    version: str


def require_jinja() -> None:
    """Fail early when the page could not be made.

    Raises:
        ValueError: jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            "report: needs jinja2, which is not installed; pip install 'kinobeam[report]', or go "
            "without the page: --no-report"
        ) from error


def render_report(report: Report) -> str:
    """The page as text.

    Args:
        report: what to show; with two clips, the search that is drawn is the second one's.

    Returns:
        HTML with everything inside: videos and pictures as `data:` URIs, no script.

    Raises:
        ValueError: jinja2 is not installed.
    """
    require_jinja()
    searched = report.clips[1] if len(report.clips) > 1 else None
    stages = list(dict.fromkeys(stage for clip in report.clips for stage in clip.trace.seconds))
    return (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            report=report,
            videos=[data_uri(clip.mp4, "video/mp4") for clip in report.clips],
            gain=_gain(report.clips),
            verdicts=find_verdicts(report.prompt, [clip.frames_F3HW for clip in report.clips]),
            chart=None if searched is None else _chart(report.clips[0], searched),
            tree=None if searched is None else _tree(searched, report.thumbnails),
            stages=stages,
        )
    )


def _chart(plain: Clip, searched: Clip) -> Chart | None:
    return build_chart(searched.trace.steps, plain.reward)


def _tree(searched: Clip, thumbnails: Sequence[Sequence[Pictures] | None]) -> Tree | None:
    return build_tree(searched.trace.steps, thumbnails) if searched.trace.steps else None


def _gain(clips: Sequence[Clip]) -> float | None:
    if len(clips) < 2 or clips[0].reward is None or clips[1].reward is None:
        return None
    return clips[1].reward - clips[0].reward


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.4g}"
    environment.filters["seconds"] = lambda value: f"{value:.2f}"
    return environment
