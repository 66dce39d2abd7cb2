"""Calls of one fixed batch shape: what makes results independent of a row's neighbours.

Networks may round differently at different batch shapes, so every call has exactly `micro_batch`
rows; a short batch is filled up by repeating its last row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def map_rows(
    function: Callable[[Tensor], Tensor],
    num_rows: int,
    micro_batch: int,
    *,
    buckets: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Apply `function` to all rows, `micro_batch` at a time, and return the results in row order.

    Args:
        function: takes (micro_batch,) int64 row numbers, returns (micro_batch, ...) results.
        num_rows: how many rows there are, at least 1.
        micro_batch: rows of every call.
        buckets: one number per row; rows of different buckets never share a call.
        device: of the row numbers.
    """
    groups: dict[int, list[int]] = {}
    for row in range(num_rows):
        groups.setdefault(buckets[row] if buckets else 0, []).append(row)
    result: Tensor | None = None
    for rows in groups.values():
        for start in range(0, len(rows), micro_batch):
            chunk = rows[start : start + micro_batch]
            padded = chunk + chunk[-1:] * (micro_batch - len(chunk))
            values = function(torch.tensor(padded, device=device))[: len(chunk)]
            if result is None:
                result = values.new_empty(num_rows, *values.shape[1:])
            result[torch.tensor(chunk, device=device)] = values
    assert result is not None, "map_rows needs at least one row"
    return result
