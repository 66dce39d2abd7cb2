"""The world's own reward: how likely its video-text model finds that a clip shows its caption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kinobeam.assets import WORLD_LATTE
from kinobeam.engine.types import RewardOutput
from kinobeam.world.video_text import VideoTextModel


class WorldReward:
    """score = log P(match | clip, caption) of the world's video-text model, at most 0.

    Args:
        model: the video-text model.

    Notes:
        Differentiable with respect to the videos outside `torch.no_grad`.
    """

    name = "world"
    differentiable = True
    capturable = False

    def __init__(self, model: VideoTextModel) -> None:
        self.model = model.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> WorldReward:
        """Load what `VideoTextModel.save_pretrained` wrote; default: the embedded folder."""
        return cls(VideoTextModel.from_pretrained(Path(folder or WORLD_LATTE / "reward")))

    def __call__(self, videos: Tensor, prompts: list[str], **columns: Any) -> RewardOutput:
        """Score videos (N, 3, F, H, W) float32 in [0, 1] against N prompts.

        Raises:
            ValueError: another number of frames or another size than the model's.
        """
        config = self.model.config
        expected = (3, config.num_frames, config.size, config.size)
        if videos.shape[1:] != expected:
            raise ValueError(
                f"reward 'world': expected videos of shape (N, {', '.join(map(str, expected))}), "
                f"got {tuple(videos.shape)}; it scores the clips of its own world only"
            )
        output = self.model(videos.float(), prompts)
        scores = functional.logsigmoid(output.match_logit)
        return RewardOutput(scores, {"match_logit": output.match_logit, "cosine": output.cosine})

    def to(self, device: torch.device | str) -> WorldReward:
        """Move the model."""
        self.model.to(device)
        return self
