"""`kinobeam bench search`: search methods at equal budgets, scored by the reward and by the judge.

One row per prompt and method goes to a JSONL file as soon as it is done; a run that was cut goes on
with the rows that are missing.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kinobeam.assets import WORLD_LATTE
from kinobeam.benchmarks.statistics import Interval, mean_interval, share_interval
from kinobeam.engine.config import SearchConfig
from kinobeam.pipeline import Engine
from kinobeam.processes import take_cores
from kinobeam.world.judge import judge
from kinobeam.world.scenes import prompt_set

NUM_STEPS = 20
METHODS: dict[str, SearchConfig] = {
    "plain": SearchConfig(),
    "best-of-N/80": SearchConfig(method="best_of_n", num_beams=4),
    "greedy/80": SearchConfig(method="greedy", num_candidates=4),
    "DLBS/80": SearchConfig(method="dlbs", num_beams=2, num_candidates=2),
    "DLBS-LA/80": SearchConfig(
        method="dlbs",
        num_beams=2,
        num_candidates=2,
        num_lookahead_steps=2,
        search_range=(1.0, 0.55),
    ),
    "best-of-N/400": SearchConfig(method="best_of_n", num_beams=20),
    "greedy/400": SearchConfig(method="greedy", num_candidates=21),
    "DLBS/400": SearchConfig(method="dlbs", num_beams=4, num_candidates=5),
    "DLBS-LA/400": SearchConfig(
        method="dlbs", num_beams=2, num_candidates=2, num_lookahead_steps=5
    ),
}
"""Methods by name and budget of network evaluations at `NUM_STEPS` steps."""

COMPARED = (("DLBS", "best-of-N"), ("DLBS-LA", "DLBS"), ("DLBS-LA", "best-of-N"))
"""Pairs whose difference is reported, prompt by prompt."""


@dataclass(frozen=True, slots=True)
class SearchBenchConfig:
    """What to measure, and where to keep it."""

    model: Path = WORLD_LATTE
    """Pipeline folder with a declared reward."""
    num_prompts: int = 100
    """Held-out captions of the world; the seed of a prompt is its number."""
    output: Path = Path("benchmarks/results/cpu/search.jsonl")
    """Rows; those already there are kept and not measured again."""
    num_processes: int = os.cpu_count() or 1
    """Processes, of one thread each."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Names of `METHODS`."""
    trained_prompts: bool = False
    """Use captions that training has seen: for trying settings out before the real run."""

    def __post_init__(self) -> None:
        unknown = set(self.methods) - set(METHODS)
        if unknown:
            raise ValueError(
                f"methods: expected some of {', '.join(METHODS)}; got {', '.join(sorted(unknown))}"
            )
        if self.num_prompts < 2:
            raise ValueError(f"num_prompts: expected at least 2, got {self.num_prompts}")


def run(config: SearchBenchConfig) -> None:
    """Measure the missing rows, then print the table of all rows and write it beside them."""
    config.output.parent.mkdir(parents=True, exist_ok=True)
    setup = _setup(config)
    done = {(r["method"], r["index"]) for r in _rows(config.output, setup["id"])}
    prompts = prompt_set("all", config.num_prompts, held_out=not config.trained_prompts)
    jobs = [
        (method, index, prompt)
        for method in config.methods
        for index, prompt in enumerate(prompts)
        if (method, index) not in done
    ]
    _end_last_line(config.output)
    if jobs:
        _measure(config, setup, jobs)
    rows = _rows(config.output, setup["id"])
    report = summary(rows, setup)
    config.output.with_suffix(".md").write_text(report)
    Console().print(_table(rows))
    Console().print(f"{config.output}\n{config.output.with_suffix('.md')}", highlight=False)


def _measure(
    config: SearchBenchConfig, setup: dict[str, Any], jobs: list[tuple[str, int, str]]
) -> None:
    context = torch.multiprocessing.get_context("spawn")
    ranks = context.Queue()
    for rank in range(config.num_processes):
        ranks.put((rank, config.num_processes))
    with (
        context.Pool(config.num_processes, _start_worker, (config.model, ranks)) as pool,
        config.output.open("a") as file,
    ):
        results = pool.imap_unordered(_measure_one, jobs)
        for row in track(results, "search", total=len(jobs)):
            file.write(json.dumps({"setup": setup["id"], **row}) + "\n")
            file.flush()


_engine: Engine | None = None


def _start_worker(model: Path, ranks: Any) -> None:
    global _engine
    take_cores(*ranks.get())
    _engine = Engine.from_pretrained(model)


def _measure_one(job: tuple[str, int, str]) -> dict[str, Any]:
    """Generate one video and judge it; the judge's time is not counted."""
    assert _engine is not None
    method, index, prompt = job
    started = time.perf_counter()
    out = _engine(
        prompt,
        search=METHODS[method],
        reward=_engine.reward,
        seed=index,
        num_inference_steps=NUM_STEPS,
    )
    seconds = time.perf_counter() - started
    assert out.rewards is not None and out.search_trace is not None
    verdict = judge(out.frames.transpose(1, 2), [prompt])[0]
    return {
        "method": method,
        "index": index,
        "prompt": prompt,
        "reward": out.rewards.item(),
        "judged": verdict.all_correct,
        "attributes": verdict.attributes,
        "nfe": out.search_trace.nfe,
        "decodes": out.search_trace.decodes,
        "reward_calls": out.search_trace.reward_calls,
        "seconds": round(seconds, 3),
        "stages": {k: round(v, 3) for k, v in out.search_trace.seconds.items()},
    }


def _setup(config: SearchBenchConfig) -> dict[str, Any]:
    """Everything that must be equal for rows to belong together."""
    weights = sorted(config.model.rglob("*.safetensors"))
    digest = sha256(b"".join(path.read_bytes() for path in weights)).hexdigest()[:12]
    setup = {
        "weights": digest,
        "steps": NUM_STEPS,
        "trained_prompts": config.trained_prompts,
        "methods": {name: asdict(METHODS[name]) for name in METHODS},
        "torch": torch.__version__,
        "machine": platform.machine(),
        "processes": config.num_processes,
    }
    text = json.dumps(setup, sort_keys=True)
    return {**setup, "id": sha256(text.encode()).hexdigest()[:12]}


def _rows(path: Path, setup_id: str) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = (json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))
    return [row for row in rows if row["setup"] == setup_id]


def _end_last_line(path: Path) -> None:
    """A run that was cut may have left half a line, which must not swallow the next row."""
    if path.exists() and path.read_bytes()[-1:] not in (b"\n", b""):
        with path.open("a") as file:
            file.write("\n")


def _by_method(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: sorted((r for r in rows if r["method"] == name), key=lambda r: r["index"])
        for name in METHODS
        if any(r["method"] == name for r in rows)
    }


def _cells(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    def mean(key: str) -> float:
        return sum(r[key] for r in rows) / len(rows)

    reward = mean_interval([r["reward"] for r in rows])
    judged = share_interval([r["judged"] for r in rows])
    counts = (mean("nfe"), mean("decodes"), mean("seconds"))
    return (str(reward), str(judged), *(f"{v:.0f}" for v in counts[:2]), f"{counts[2]:.2f}")


_HEADER = ("method", "reward", "judged all right", "NFE", "decodes", "seconds")


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(*_HEADER)
    for name, own in _by_method(rows).items():
        table.add_row(name, *_cells(own))
    return table


def differences(rows: list[dict[str, Any]]) -> Iterator[tuple[str, Interval, Interval]]:
    """(what, reward difference, judged difference) of `COMPARED`, paired by prompt."""
    methods = _by_method(rows)
    for budget in ("80", "400"):
        for better, base in COMPARED:
            first, second = methods.get(f"{better}/{budget}"), methods.get(f"{base}/{budget}")
            if first is None or second is None or len(first) != len(second):
                continue
            pairs = list(zip(first, second, strict=True))
            reward = mean_interval([a["reward"] - b["reward"] for a, b in pairs])
            judged = mean_interval([float(a["judged"]) - float(b["judged"]) for a, b in pairs])
            yield f"{better} - {base} at {budget}", reward, judged


def summary(rows: list[dict[str, Any]], setup: dict[str, Any]) -> str:
    """The Markdown report: means with 95 % intervals, and paired differences."""
    count = max(len(own) for own in _by_method(rows).values())
    lines = [
        f"# Search methods at equal budgets: {count} held-out captions, {NUM_STEPS} steps",
        "",
        f"weights {setup['weights']}, torch {setup['torch']}, {setup['machine']}, "
        f"{setup['processes']} processes of one thread; one run; mean [95 % interval].",
        "",
        f"| {' | '.join(_HEADER)} |",
        "|" + "---|" * len(_HEADER),
        *(f"| {n} | {' | '.join(_cells(own))} |" for n, own in _by_method(rows).items()),
        "",
        "| paired difference | reward | judged all right |",
        "|---|---|---|",
        *(f"| {what} | {reward} | {judged} |" for what, reward, judged in differences(rows)),
        "",
    ]
    return "\n".join(lines)
