"""Several processes on one machine: each with its own cores."""

from __future__ import annotations

import os

import torch


def take_cores(rank: int, size: int) -> None:
    """Give this process its share of the cores, rank `rank` of `size`, and as many threads.

    Left to the scheduler of a small virtual machine, two busy processes may share one core while
    the other is idle, and threads of one process wait for each other at every loop.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS and Windows do not let a process choose
        torch.set_num_threads(max((os.cpu_count() or 1) // size, 1))
        return
    cores = sorted(os.sched_getaffinity(0))
    own = cores[rank * len(cores) // size : (rank + 1) * len(cores) // size]
    own = own or [cores[rank % len(cores)]]
    os.sched_setaffinity(0, own)
    torch.set_num_threads(len(own))
