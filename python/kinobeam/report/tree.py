"""The tree of survivors, laid out: a column per step, a row per slot, an edge to every parent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kinobeam.engine.types import StepTrace
from kinobeam.report.media import Pictures, png_uri

_COLUMN, _ROW = 108.0, 94.0
_LEFT, _TOP = 40.0, 62.0
_SIDE, _DOT = 64.0, 7.0


class Node(NamedTuple):
    """A latent that was alive after a step; (x, y) is its centre."""

    x: float
    y: float
    width: float
    height: float
    picture: str | None
    label: str
    title: str
    winner: bool


class Edge(NamedTuple):
    """From a parent to a survivor, as an SVG path."""

    path: str
    winner: bool


class Heading(NamedTuple):
    """The name of a column."""

    x: float
    text: str


class Tree(NamedTuple):
    """Everything the page draws; losers come first, so that the winner's line lies on top."""

    width: float
    height: float
    nodes: list[Node]
    edges: list[Edge]
    headings: list[Heading]


def parents(steps: Sequence[StepTrace], prompt: int = 0) -> list[list[int]]:
    """[step][slot] -> the slot, before the step, of the beam that this survivor came from."""
    return [[n // step.num_candidates for n in step.kept[prompt]] for step in steps]


def lineage(steps: Sequence[StepTrace], prompt: int = 0) -> list[int]:
    """The winner's slot at the start and after every step: one entry more than steps."""
    slot = steps[-1].rank[prompt].index(0)
    slots = [slot]
    for own in reversed(parents(steps, prompt)):
        slot = own[slot]
        slots.append(slot)
    return slots[::-1]


def build_tree(
    steps: Sequence[StepTrace],
    thumbnails: Sequence[Sequence[Pictures] | None],
    prompt: int = 0,
) -> Tree:
    """Lay the tree out.

    Args:
        steps: at least one, as `SearchTrace` has them.
        thumbnails: of each step, one picture per slot, or None.
        prompt: which prompt.
    """
    path = lineage(steps, prompt)
    ancestry = parents(steps, prompt)
    nodes = [_start_node(slot, slot == path[0]) for slot in range(_num_roots(steps[0], prompt))]
    edges = []
    for column, step in enumerate(steps, start=1):
        pictures = thumbnails[column - 1]
        for slot, candidate in enumerate(step.kept[prompt]):
            winner = slot == path[column]
            picture = None if pictures is None else pictures[slot]
            nodes.append(_node(column, slot, step, prompt, candidate, picture, winner))
            edges.append(Edge(_curve(column, ancestry[column - 1][slot], slot), winner))
    num_rows = max([_num_roots(steps[0], prompt), *(len(step.kept[prompt]) for step in steps)])
    headings = [Heading(_x(0), "noise")]
    headings += [Heading(_x(column), str(column)) for column in range(1, len(steps) + 1)]
    return Tree(
        width=_x(len(steps)) + _LEFT + 12,
        height=_y(num_rows - 1) + _SIDE / 2 + 26,
        nodes=sorted(nodes, key=lambda node: node.winner),
        edges=sorted(edges, key=lambda edge: edge.winner),
        headings=headings,
    )


def _num_roots(first: StepTrace, prompt: int) -> int:
    if first.scores is None:
        return max(first.kept[prompt]) // first.num_candidates + 1
    return len(first.scores[prompt]) // first.num_candidates


def _x(column: int) -> float:
    return _LEFT + column * _COLUMN


def _y(slot: int) -> float:
    return _TOP + slot * _ROW


def _start_node(slot: int, winner: bool) -> Node:
    title = f"beam {slot}: first noise"
    return Node(_x(0), _y(slot), _DOT, _DOT, None, "", title, winner)


def _node(
    column: int,
    slot: int,
    step: StepTrace,
    prompt: int,
    candidate: int,
    picture: Pictures | None,
    winner: bool,
) -> Node:
    beam, ordinal = divmod(candidate, step.num_candidates)
    title = f"step {column}, slot {slot}: candidate {ordinal} of beam {beam}"
    label = ""
    if step.scores is not None:
        reward = step.scores[prompt][candidate]
        label = f"{reward:.4g}"
        title += f", reward {reward:.6g}, rank {step.rank[prompt][slot] + 1}"
    if picture is None:
        return Node(_x(column), _y(slot), _DOT, _DOT, None, label, title, winner)
    height, width = picture.shape[:2]
    fit = _SIDE / max(height, width)
    return Node(
        _x(column), _y(slot), width * fit, height * fit, png_uri(picture), label, title, winner
    )


def _curve(column: int, parent: int, slot: int) -> str:
    """Level below the pictures, an S between them."""
    start, end = _x(column - 1) + _SIDE / 2, _x(column) - _SIDE / 2
    middle = (start + end) / 2
    above, below = _y(parent), _y(slot)
    bend = f"C{middle:g} {above:g} {middle:g} {below:g} {end:g} {below:g}"
    return f"M{_x(column - 1):g} {above:g}H{start:g}{bend}H{_x(column):g}"
