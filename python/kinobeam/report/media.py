"""Frames to mp4 and PNG.

Legend: F frames, H height, W width; pictures are (F, H, W, 3) uint8.
"""

from __future__ import annotations

import base64
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Pictures = np.ndarray[Any, np.dtype[np.uint8]]

_SHORTER_SIDE = 256
_QUALITY = "14"  # constant rate factor of x264: visually lossless
_BT709, _LIMITED_RANGE = 1, 1
_BACKGROUND, _TEXT = (17, 20, 28), (226, 230, 240)


def to_pictures(frames_F3HW: Tensor) -> Pictures:
    """Frames (F, 3, H, W) in [0, 1] as (F, H, W, 3) uint8."""
    scaled = frames_F3HW.detach().float().clamp(0, 1).mul(255).round()
    pictures: Pictures = scaled.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pictures


def auto_scale(height: int, width: int) -> int:
    """The smallest whole factor that makes the shorter side at least 256."""
    return -(-_SHORTER_SIDE // min(height, width))


def upscale(pictures: Pictures, scale: int) -> Pictures:
    """Nearest neighbour: every pixel becomes a square of `scale` pixels."""
    return pictures.repeat(scale, axis=1).repeat(scale, axis=2)


def beside(left: Pictures, right: Pictures, labels: tuple[str, str]) -> Pictures:
    """Two clips of one size next to each other, each with its label underneath."""
    num_frames, height, width, _ = left.shape
    gap = max(width // 32, 2)
    strip = max(height // 8, 16)
    canvas = np.empty((num_frames, height + strip, 2 * width + gap, 3), np.uint8)
    canvas[:] = _BACKGROUND
    canvas[:, :height, :width] = left
    canvas[:, :height, width + gap :] = right
    for place, label in zip((0, width + gap), labels, strict=True):
        canvas[:, height:, place : place + width] = _label(label, width, strip)
    return canvas


def _label(text: str, width: int, height: int) -> Pictures:
    """The text centred in a picture, as large as fits."""
    picture = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    size = height * 0.5
    length = draw.textlength(text, font=ImageFont.load_default(size))
    size = max(min(size, size * 0.94 * width / max(length, 1)), 6)
    centre = (width / 2, height / 2)
    draw.text(centre, text, fill=_TEXT, font=ImageFont.load_default(size), anchor="mm")
    return np.asarray(picture)


def write_mp4(path: Path, pictures: Pictures, fps: int) -> None:
    """Write H.264 that every browser plays: yuv420p, BT.709, index in front.

    Args:
        path: any suffix.
        pictures: (F, H, W, 3) uint8; odd sizes gain a repeated row or column, since 4:2:0 needs
            even ones.
        fps: frames a second.
    """
    import av

    even = np.pad(pictures, [(0, 0), *((0, n % 2) for n in pictures.shape[1:3]), (0, 0)], "edge")
    options = {"crf": _QUALITY, "preset": "medium"}
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        for picture in even:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="itu709")))
        container.mux(stream.encode())


def data_uri(content: bytes, kind: str) -> str:
    """`data:` URI of a file's content."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png_uri(picture: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    """A picture (H, W, 3) as a PNG `data:` URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")
