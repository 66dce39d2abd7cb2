"""The world's video-text model: two towers, a fusion encoder with cross-attention, a matching head.

It plays the part that InternVideo2 plays for large models. Legend: N clips, F frames, P patches of
a frame, L caption tokens, D width.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5Tokenizer


@dataclass(frozen=True, slots=True)
class VideoTextConfig:
    """Sizes of a `VideoTextModel`."""

    vocab_size: int
    size: int = 32
    num_frames: int = 8
    patch_size: int = 8
    width: int = 128
    num_heads: int = 4
    num_video_layers: int = 4
    num_text_layers: int = 2
    num_fusion_layers: int = 2
    max_caption_tokens: int = 24


class VideoTextOutput(NamedTuple):
    """`match_logit` (N,): log-odds that clip n shows caption n; `cosine` (N,) of the towers."""

    match_logit: Tensor
    cosine: Tensor


class VideoTextModel(nn.Module):
    """Scores how well clips show captions.

    Args:
        config: sizes.
        tokenizer: of the captions.
    """

    def __init__(self, config: VideoTextConfig, tokenizer: T5Tokenizer) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        width, patch = config.width, config.patch_size
        num_patches = config.num_frames * (config.size // patch) ** 2
        self.stem_blocks = _stem(width, patch)
        # A patch also sees the frames before and after: motion shows before attention finds it.
        self.neighbours = nn.Conv1d(width, width, 3, padding=1)
        self.video_positions = nn.Parameter(torch.randn(num_patches, width) * 0.02)
        self.video_blocks = nn.ModuleList(_blocks(config, config.num_video_layers))
        self.video_norm = nn.LayerNorm(width)
        self.words = nn.Embedding(config.vocab_size, width)
        self.text_positions = nn.Parameter(torch.randn(config.max_caption_tokens, width) * 0.02)
        self.text_blocks = nn.ModuleList(_blocks(config, config.num_text_layers))
        self.fusion_blocks = nn.ModuleList(_blocks(config, config.num_fusion_layers, cross=True))
        self.video_head, self.text_head = nn.Linear(width, width), nn.Linear(width, width)
        self.match_head = nn.Linear(width, 1)
        self.log_temperature = nn.Parameter(torch.tensor(2.5))

    def forward(self, videos: Tensor, captions: list[str]) -> VideoTextOutput:
        """Score clip n against caption n.

        Args:
            videos: (N, 3, F, H, W) float in [0, 1], at the model's size and number of frames.
            captions: N strings.

        Notes:
            Captions are padded to a fixed length, so that a score does not depend, not even by
            rounding, on the length of its neighbours' captions.
        """
        video_NPD = self.encode_video(videos)
        text_NLD, mask_NL = self.encode_text(captions, padding="max_length")
        cosine = (self.project_video(video_NPD) * self.project_text(text_NLD)).sum(-1)
        return VideoTextOutput(self.match(video_NPD, text_NLD, mask_NL), cosine)

    def encode_video(self, videos: Tensor) -> Tensor:
        """Patch tokens (N, F*P, D) of clips."""
        count, num_frames = videos.shape[0], self.config.num_frames
        frames = videos.transpose(1, 2).flatten(0, 1) * 2 - 1
        patches = self.stem_blocks(frames).flatten(2).unflatten(0, (count, num_frames))
        # (N, F, D, P) -> (N * P, D, F): the convolution runs along frames
        tracks = patches.permute(0, 3, 2, 1).flatten(0, 1)
        tracks = tracks + self.neighbours(tracks)
        tokens = tracks.unflatten(0, (count, -1)).permute(0, 3, 1, 2).flatten(1, 2)
        tokens = tokens + self.video_positions
        for block in self.video_blocks:
            tokens = block(tokens)
        normed: Tensor = self.video_norm(tokens)
        return normed

    def encode_text(
        self, captions: list[str], *, padding: Literal["longest", "max_length"] = "longest"
    ) -> tuple[Tensor, Tensor]:
        """Word tokens (N, L, D) and their mask (N, L), True where a token stands."""
        limit = self.config.max_caption_tokens
        batch = self.tokenizer(
            captions, padding=padding, truncation=True, max_length=limit, return_tensors="pt"
        )
        device = self.words.weight.device
        mask = batch.attention_mask.bool().to(device)
        tokens = self.words(batch.input_ids.to(device)) + self.text_positions[: mask.shape[1]]
        for block in self.text_blocks:
            tokens = block(tokens, mask=mask)
        return tokens, mask

    def project_video(self, video_NPD: Tensor) -> Tensor:
        """Unit vectors (N, D) of clips."""
        return functional.normalize(self.video_head(video_NPD.mean(1)), dim=-1)

    def project_text(self, text_NLD: Tensor) -> Tensor:
        """Unit vectors (N, D) of captions, from their first token."""
        return functional.normalize(self.text_head(text_NLD[:, 0]), dim=-1)

    def match(self, video_NPD: Tensor, text_NLD: Tensor, mask_NL: Tensor) -> Tensor:
        """Log-odds (N,) that clip n shows caption n, from the fusion encoder."""
        tokens = text_NLD
        for block in self.fusion_blocks:
            tokens = block(tokens, mask=mask_NL, context=video_NPD)
        # Not match_head(...): a product with one column rounds by the row's place in the batch.
        products = tokens[:, 0] * self.match_head.weight[0]
        return products.sum(-1) + self.match_head.bias

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json`, `model.safetensors` (float16) and the tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        save_file(
            {k: v.half().contiguous() for k, v in self.state_dict().items()},
            folder / "model.safetensors",
        )
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: Path) -> VideoTextModel:
        """Load what `save_pretrained` wrote, as float32."""
        path = folder / "config.json"
        if not path.exists():
            raise ValueError(f"expected a video-text model in {folder}, found no config.json there")
        config = VideoTextConfig(**json.loads(path.read_text()))
        model = cls(config, T5Tokenizer.from_pretrained(folder))
        state = load_file(folder / "model.safetensors")
        model.load_state_dict({k: v.float() for k, v in state.items()})
        return model.eval()


class _Block(nn.Module):
    """Pre-norm transformer block; with `cross`, attention to a context between the two halves."""

    def __init__(self, width: int, num_heads: int, *, cross: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )
        self.cross = nn.ModuleDict()
        if cross:
            self.cross = nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "q": nn.Linear(width, width),
                    "kv": nn.Linear(width, 2 * width),
                    "out": nn.Linear(width, width),
                }
            )

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.out(self._attend(q, k, v, mask))
        if context is not None:
            k, v = self.cross["kv"](context).chunk(2, dim=-1)
            q = self.cross["q"](self.cross["norm"](x))
            x = x + self.cross["out"](self._attend(q, k, v, None))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _stem(width: int, patch_size: int) -> nn.Sequential:
    """Convolutions that halve a frame until one position is left of each patch."""
    layers: list[nn.Module] = []
    channels = 3
    for level in range(patch_size.bit_length() - 1, 0, -1):
        out = width // 2 ** (level - 1)
        layers += [nn.Conv2d(channels, out, 3, 2, 1), nn.GroupNorm(1, out), nn.GELU("tanh")]
        channels = out
    return nn.Sequential(*layers)


def _blocks(config: VideoTextConfig, count: int, *, cross: bool = False) -> list[_Block]:
    return [_Block(config.width, config.num_heads, cross=cross) for _ in range(count)]
