"""What the report keeps of a search while it runs.

Legend: G prompts, N candidates of a prompt, F frames, H height, W width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from kinobeam.engine.types import SearchStep
from kinobeam.report.media import Pictures, to_pictures

_THUMBNAIL = 96  # longer side in pixels; smaller clips stay as they are


class Collector:
    """An `on_step` observer: keeps, per step, a thumbnail of the estimate of every survivor.

    Args:
        prompt: which prompt of the request to watch.
    """

    def __init__(self, prompt: int = 0) -> None:
        self._prompt = prompt
        self.thumbnails: list[list[Pictures] | None] = []
        """[step][slot] -> (H, W, 3) uint8, the middle frame; None where nothing was scored."""

    def __call__(self, step: SearchStep) -> None:
        self.thumbnails.append(self._kept(step))

    def _kept(self, step: SearchStep) -> list[Pictures] | None:
        if step.videos is None or step.scores_GN is None:
            return None
        first = self._prompt * step.scores_GN.shape[1]
        rows = [first + n for n in step.kept_GB[self._prompt].tolist()]
        return list(to_pictures(_shrink(step.videos[rows, :, step.videos.shape[2] // 2])))


def _shrink(pictures_B3HW: Tensor) -> Tensor:
    height, width = pictures_B3HW.shape[2:]
    factor = _THUMBNAIL / max(height, width)
    if factor >= 1:
        return pictures_B3HW
    size = (max(round(height * factor), 1), max(round(width * factor), 1))
    return functional.interpolate(pictures_B3HW.float(), size, mode="area")
