"""The recipe of the world's models: every size and budget in one place."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StageRecipe:
    """How one model is trained: steps of `batch_size`; warm-up, flat, linear decay to zero."""

    num_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup_steps: int = 100
    decay_fraction: float = 0.4
    ema_decay: float = 0.999
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.batch_size < 1:
            raise ValueError(
                f"expected num_steps and batch_size of at least 1, got {self.num_steps} and "
                f"{self.batch_size}"
            )

    def learning_rate_at(self, step: int) -> float:
        """Trapezoid: linear warm-up, constant, linear decay over the last `decay_fraction`."""
        rise = (step + 1) / max(self.warmup_steps, 1)
        fall = (self.num_steps - step) / max(self.decay_fraction * self.num_steps, 1)
        return self.learning_rate * min(1.0, rise, fall)


@dataclass(frozen=True, slots=True)
class WorldRecipe:
    """Sizes of the world's clips and models, and the training of each.

    The base model learns one-object captions without sizes and speeds: the part of the world that
    two cores can teach it in the time.
    """

    size: int = 32
    num_frames: int = 8
    seed: int = 0

    vae_channels: tuple[int, ...] = (16, 32, 64)
    latent_channels: int = 4
    kl_weight: float = 1e-6

    text_width: int = 96
    text_layers: int = 2
    max_caption_tokens: int = 24

    num_heads: int = 4
    head_dim: int = 32
    num_layers: int = 4
    patch_size: int = 2
    caption_dropout: float = 0.1
    num_bank_clips: int = 16_384

    reward_width: int = 128
    reward_video_layers: int = 3
    reward_fusion_layers: int = 2

    num_inference_steps: int = 20
    guidance_scale: float = 3.0

    vae: StageRecipe = field(
        default_factory=lambda: StageRecipe(600, 64, 4e-3, ema_decay=0.99, max_grad_norm=5.0)
    )
    base: StageRecipe = field(default_factory=lambda: StageRecipe(2200, 64, 2e-3))
    reward: StageRecipe = field(
        default_factory=lambda: StageRecipe(600, 64, 1.5e-3, weight_decay=0.05)
    )

    @property
    def latent_size(self) -> int:
        return self.size // 2 ** (len(self.vae_channels) - 1)


def tiny_recipe() -> WorldRecipe:
    """A recipe that runs through every stage in seconds: for tests, not for use."""
    return WorldRecipe(
        vae_channels=(8, 8, 8),
        text_width=16,
        text_layers=1,
        num_heads=2,
        head_dim=8,
        num_layers=1,
        num_bank_clips=32,
        reward_width=16,
        reward_video_layers=1,
        reward_fusion_layers=1,
        num_inference_steps=4,
        vae=StageRecipe(4, 8, 1e-3, warmup_steps=1),
        base=StageRecipe(4, 8, 1e-3, warmup_steps=1),
        reward=StageRecipe(4, 8, 1e-3, warmup_steps=1),
    )
