"""The report's parts: the tree's lineage, the chart's scale, pictures, the judge's words."""

import math
import random
import re
import sys

import av
import numpy as np
import pytest
import torch

from kinobeam.engine.types import SearchStep, SearchTrace, StepTrace
from kinobeam.report.chart import build_chart, nice_levels, step_rewards
from kinobeam.report.collector import Collector
from kinobeam.report.html import Clip, Report, render_report
from kinobeam.report.media import auto_scale, beside, png_uri, to_pictures, upscale, write_mp4
from kinobeam.report.tree import build_tree, lineage, parents
from kinobeam.report.verdicts import find_verdicts
from kinobeam.world.render import render
from kinobeam.world.scenes import Scene, SceneObject, caption


def step(
    number: int,
    num_candidates: int,
    kept: list[int],
    rank: list[int],
    scores: list[float] | None = None,
) -> StepTrace:
    return StepTrace(
        number, 900.0, num_candidates, None if scores is None else [scores], [kept], [rank]
    )


# Two beams of two candidates: beam 1 takes both slots, then each keeps its own; slot 0 wins.
STEPS = [
    step(0, 2, [3, 2], [0, 1], [0.1, 0.2, 0.5, 0.6]),
    step(1, 2, [1, 2], [1, 0], [0.1, 0.5, 0.7, 0.2]),
    step(2, 1, [0], [0], [0.9, 0.8]),
]


def test_parents_and_the_winners_lineage():
    assert parents(STEPS) == [[1, 1], [0, 1], [0]]
    assert lineage(STEPS) == [1, 0, 0, 0]


def test_lineage_of_a_random_search():
    """Against brute force: carry each beam's path of slots, as a search carries its latents."""
    rng = random.Random(3)
    steps, paths = [], [[slot] for slot in range(4)]
    for number in range(12):
        pool = [path for path in paths for _ in range(3)]
        kept = rng.sample(range(12), 4 if number < 11 else 1)
        steps.append(step(number, 3, kept, rng.sample(range(len(kept)), len(kept))))
        paths = [[*pool[n], slot] for slot, n in enumerate(kept)]
    assert lineage(steps) == paths[0]


def test_tree_has_a_node_per_survivor_and_highlights_one_path():
    pictures = np.zeros((8, 16, 3), np.uint8)
    tree = build_tree(STEPS, [[pictures] * 2, None, [pictures]])
    assert len(tree.nodes) == 2 + 2 + 2 + 1 and len(tree.edges) == 2 + 2 + 1
    assert sum(node.winner for node in tree.nodes) == 4 and sum(e.winner for e in tree.edges) == 3
    assert [h.text for h in tree.headings] == ["noise", "1", "2", "3"]
    assert all(0 < node.x < tree.width and 0 < node.y < tree.height for node in tree.nodes)
    drawn = [node for node in tree.nodes if node.picture is not None]
    assert len(drawn) == 3 and all(node.width == 2 * node.height for node in drawn)


def test_tree_of_a_search_range_starts_with_one_beam():
    steps = [step(0, 1, [0], [0]), step(1, 4, [0, 3], [1, 0], [0.0, 0.1, 0.2, 0.3])]
    steps.append(step(2, 1, [1], [0], [0.1, 0.4]))
    assert lineage(steps) == [0, 0, 1, 0]
    assert len(build_tree(steps, [None] * 3).nodes) == 1 + 1 + 2 + 1


def test_step_rewards_are_of_the_pool_and_of_those_kept():
    rewards = step_rewards([step(0, 1, [0], [0]), *STEPS[:1]])
    assert list(rewards) == [2]
    assert rewards[2] == pytest.approx((0.6, 0.35, 0.55))


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.6821, -0.6813), (-1e4, 37.5), (5, 5), (0, 0), (-3e-9, 2e-9)]
)
def test_levels_are_even_and_enclose(low, high):
    levels = nice_levels(low, high)
    assert 2 <= len(levels) <= 7 and levels[0] <= low + 1e-12 and levels[-1] >= high - 1e-12
    assert np.allclose(np.diff(levels), levels[1] - levels[0]) and levels[1] > levels[0]


def test_chart_leaves_out_steps_without_a_finite_reward():
    steps = [*STEPS, step(3, 2, [0, 1], [0, 1], [-math.inf, -math.inf])]
    chart = build_chart(steps, plain=-math.inf)
    assert chart is not None and chart.plain_y is None
    assert [len(line.dots) for line in chart.lines] == [3, 3, 3]
    assert build_chart(STEPS[:1]) is None, "one point makes no line"


def test_chart_higher_rewards_are_higher():
    chart = build_chart(STEPS, plain=0.3)
    assert chart is not None and chart.plain_y is not None
    best = next(line for line in chart.lines if line.name == "best")
    heights = [y for _, y in best.dots]
    assert heights == sorted(heights, reverse=True) and max(heights) < chart.plain_y


def test_collector_keeps_the_middle_frame_of_survivors():
    videos = torch.zeros(6, 3, 5, 4, 4)
    videos[:, :, 2] = (
        torch.arange(6).view(6, 1, 1, 1) / 255
    )  # row r has value r in its middle frame
    collector = Collector(prompt=1)  # G = 2 prompts of N = 3
    kept, rank = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[0, 1], [0, 1]])
    collector(SearchStep(0, 2, 900.0, torch.zeros(2, 3), kept, rank, 0.0, videos))
    collector(SearchStep(1, 2, 800.0, None, kept, rank, None, None))
    first, second = collector.thumbnails
    assert first is not None and [int(p[0, 0, 0]) for p in first] == [5, 3] and second is None


def test_collector_shrinks_large_clips():
    collector = Collector()
    one = torch.zeros(1, 1, dtype=torch.long)
    collector(
        SearchStep(0, 1, 1.0, torch.zeros(1, 1), one, one, 0.0, torch.ones(1, 3, 3, 300, 480))
    )
    assert collector.thumbnails[0] is not None
    assert collector.thumbnails[0][0].shape == (60, 96, 3)


def test_auto_scale_reaches_256_pixels():
    assert [auto_scale(h, w) for h, w in [(32, 32), (33, 64), (256, 300), (720, 1280)]] == [
        8,
        8,
        1,
        1,
    ]


@pytest.mark.parametrize("size", [(32, 48), (31, 33)])  # odd sizes: 4:2:0 has even ones
def test_mp4_plays_back_what_was_written(tmp_path, size):
    frames = torch.tensor([0.9, 0.2, 0.1]).view(1, 3, 1, 1).expand(5, 3, *size).clone()
    frames[:, :, : size[0] // 2] = torch.tensor([0.1, 0.3, 0.8]).view(1, 3, 1, 1)
    pictures = to_pictures(frames)
    write_mp4(tmp_path / "clip", pictures, fps=12)
    with av.open(str(tmp_path / "clip")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 12
        played = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    height, width = size
    assert played.shape == (5, height + height % 2, width + width % 2, 3)
    error = np.abs(played[:, :height, :width].astype(int) - pictures)
    inside = [slice(2, height // 2 - 2), slice(height // 2 + 2, height - 2)]
    assert all(error[:, rows, 2:-2].max() <= 4 for rows in inside)


def test_upscale_is_nearest_neighbour():
    pictures = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    large = upscale(pictures, 3)
    assert large.shape == (1, 6, 6, 3) and (large[0, ::3, ::3] == pictures[0]).all()
    assert (large[0, 2, 2] == pictures[0, 0, 0]).all()


def test_side_by_side_has_both_clips_and_labels():
    left, right = np.full((2, 256, 256, 3), 200, np.uint8), np.full((2, 256, 256, 3), 50, np.uint8)
    both = beside(left, right, ("plain", "searched   reward -0.1234" * 3))
    assert both.shape[0] == 2 and both.shape[1] > 256 and both.shape[2] > 512
    assert (both[:, :256, :256] == 200).all() and (both[:, :256, -256:] == 50).all()
    for half in (both[:, 256:, :256], both[:, 256:, -256:]):
        assert half.max() > 150, "there is text"
        assert half[:, :, :2].max() < 40 and half[:, :, -2:].max() < 40, "it fits"


SCENE = Scene((SceneObject("red", "circle", "left"),), "dark")


def test_verdicts_say_what_is_shown():
    right = render([SCENE], seeds=[0])[0].transpose(0, 1)
    wrong = render([Scene((SceneObject("blue", "circle", "left"),), "dark")], seeds=[0])[0]
    verdicts = find_verdicts(caption(SCENE), [right, wrong.transpose(0, 1)])
    assert verdicts is not None
    shown = {finding.name: finding.shown for finding in verdicts.findings}
    assert shown["colour red"] == [True, False] and shown["background dark"] == [True, True]
    assert verdicts.seen[1].startswith("blue circle, motion left")
    assert verdicts.faults == ["none", "none"]


def test_verdicts_are_left_out_where_the_judge_cannot_speak():
    clip = render([SCENE], seeds=[0])[0].transpose(0, 1)
    assert find_verdicts("a cat in a hat", [clip]) is None
    assert find_verdicts("a cat on a dark background", [clip]) is None
    assert find_verdicts(caption(SCENE), [clip[:, :, :16]]) is None, "not square"
    assert find_verdicts(caption(SCENE), [clip[:3]]) is None, "too short"


def report(prompt: str, steps: list[StepTrace] = STEPS) -> str:
    frames = render([SCENE], seeds=[0])[0].transpose(0, 1)
    clips = [
        Clip(
            title=title,
            mp4=b"mp4",
            frames_F3HW=frames,
            reward=reward,
            trace=SearchTrace(7, 3, 2, {"denoise": 1.25}, own),
            seconds=2.5,
        )
        for title, reward, own in [("plain", 0.3, []), ("searched", 0.9, steps)]
    ]
    picture = to_pictures(frames)[0]
    thumbnails = [[picture] * len(own.kept[0]) for own in steps]
    return render_report(
        Report(
            prompt=prompt,
            clips=clips,
            reward="<b>mine</b>",
            settings={"seed": "0"},
            thumbnails=thumbnails,
            version="1.2.3",
        )
    )


def test_user_text_is_escaped():
    html = report("a red circle <script>alert(1)</script> \" onload='x'")
    assert "<script" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<b>mine" not in html


def test_the_page_needs_nothing_from_elsewhere():
    html = report("a red circle moves left")
    assert not re.findall(r"https?://|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", html))
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"", html)
    assert len(sources) == 2 + 5 and all(source.startswith("data:") for source in sources)
    assert png_uri(np.zeros((1, 1, 3), np.uint8)).startswith("data:image/png;base64,")


def test_the_page_says_what_it_cost_and_who_judged():
    html = report("a red circle moves left")
    assert "Independent pixel judge" in html and "This is not the reward" in html
    assert "✓ shown" in html and "+0.6" in html and "1.25" in html and "1.2.3" in html


def test_without_jinja_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ValueError, match=r"pip install 'kinobeam\[report\]'"):
        report("a red circle")
