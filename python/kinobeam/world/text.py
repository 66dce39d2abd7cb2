"""The tokenizer of the world: a real `T5Tokenizer` whose pieces are the words of the grammar."""

from __future__ import annotations

import string

from transformers import T5Tokenizer

from kinobeam.world.scenes import (
    NUM_PARAPHRASES,
    RELATIONS,
    Scene,
    SceneObject,
    caption,
    single_scenes,
)


def build_tokenizer() -> T5Tokenizer:
    """Build the tokenizer: one piece per word of the grammar, letters for all other words."""
    words = sorted({word for text in _every_wording() for word in text.split()})
    letters = string.ascii_lowercase + string.digits + "-,.'"
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    vocab += [(f"▁{word}", -2.0) for word in words]
    vocab += [(letter, -8.0) for letter in letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=120)


def _every_wording() -> list[str]:
    scenes = single_scenes(held_out=False) + single_scenes(held_out=True)
    texts = [caption(scene, p) for scene in scenes for p in range(NUM_PARAPHRASES)]
    first = SceneObject("red", "circle", "left", "small", "slowly")
    second = SceneObject("blue", "square", "still", "large", "quickly")
    return (
        texts + [caption(Scene((first, second), "dark", r)) for r in RELATIONS] + ["quickly large"]
    )
