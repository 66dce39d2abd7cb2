import pytest
import torch

from kinobeam.world.config import tiny_recipe
from kinobeam.world.reward_model import build_video_text_model
from kinobeam.world.video_text import VideoTextModel

CAPTIONS = [
    "a red circle moves left",
    "a blue square",
    "a small yellow triangle moves in a circle on a dark background",
]


@pytest.fixture(scope="module")
def model() -> VideoTextModel:
    torch.manual_seed(0)
    model = build_video_text_model(tiny_recipe()).eval()
    torch.nn.init.normal_(model.match_head.weight)  # so that logits differ visibly
    return model.requires_grad_(False)


@pytest.fixture
def videos() -> torch.Tensor:
    return torch.rand(3, 3, 8, 32, 32)


def test_a_saved_model_is_loaded_in_half_precision(model, videos, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = VideoTextModel.from_pretrained(tmp_path)
    assert loaded.config == model.config and not loaded.training
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.state_dict()[name].half().float()), name
    again = VideoTextModel.from_pretrained(tmp_path)(videos, CAPTIONS)
    output = loaded(videos, CAPTIONS)
    assert torch.equal(output.match_logit, again.match_logit)
    assert (output.match_logit - model(videos, CAPTIONS).match_logit).abs().max() < 0.02


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a video-text model in .*found no config.json"):
        VideoTextModel.from_pretrained(tmp_path)


def test_a_clip_is_scored_alone_as_in_a_batch(model, videos):
    output = model(videos, CAPTIONS)
    for row in range(3):
        alone = model(videos[row : row + 1], CAPTIONS[row : row + 1])
        assert torch.allclose(alone.match_logit, output.match_logit[row : row + 1], atol=1e-5)
        assert torch.allclose(alone.cosine, output.cosine[row : row + 1], atol=1e-5)


def test_equal_batches_give_equal_bits_beside_any_caption(model, videos):
    """A long caption beside a short one must not change the short one's padding."""
    output = model(videos[:2], CAPTIONS[:2]).match_logit
    other = model(videos[[0, 2]], [CAPTIONS[0], CAPTIONS[2]]).match_logit
    assert torch.equal(output[0], other[0])


def test_scores_follow_the_order_of_clips_and_captions(model, videos):
    output, order = model(videos, CAPTIONS), [2, 0, 1]
    moved = model(videos[order], [CAPTIONS[i] for i in order])
    assert torch.equal(moved.match_logit, output.match_logit[order])
    crossed = model(videos, [CAPTIONS[i] for i in order])
    assert (crossed.match_logit - output.match_logit).abs().min() > 1e-4
    assert output.match_logit.shape == output.cosine.shape == (3,)


def test_the_order_of_words_matters(model, videos):
    one = model(videos[:1], ["a red circle moves left"])
    other = model(videos[:1], ["a circle red moves left"])
    assert (one.match_logit - other.match_logit).abs() > 1e-5


def test_the_order_of_frames_matters(model, videos):
    one, other = model(videos, CAPTIONS), model(videos.flip(2), CAPTIONS)
    assert (one.match_logit - other.match_logit).abs().min() > 1e-5


def test_the_two_paddings_of_text_agree(model):
    short, mask = model.encode_text(CAPTIONS)
    padded, padded_mask = model.encode_text(CAPTIONS, padding="max_length")
    assert mask.shape[1] == max(len(c.split()) for c in CAPTIONS) + 1, "words and the end of text"
    assert padded.shape[1] == model.config.max_caption_tokens
    assert torch.equal(padded_mask[:, : mask.shape[1]], mask)
    assert not padded_mask[:, mask.shape[1] :].any()
    kept = padded[:, : mask.shape[1]]
    assert torch.allclose(kept[mask], short[mask], atol=1e-5)


def test_a_long_caption_is_cut(model, videos):
    text, mask = model.encode_text(["a red circle " * 20])
    assert text.shape[1] == mask.shape[1] == model.config.max_caption_tokens
    assert model(videos[:1], ["a red circle " * 20]).match_logit.isfinite().all()


def test_projections_are_unit_vectors(model, videos):
    video = model.project_video(model.encode_video(videos))
    text = model.project_text(model.encode_text(CAPTIONS)[0])
    for vectors in (video, text):
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert torch.allclose(model(videos, CAPTIONS).cosine, (video * text).sum(-1), atol=1e-5)
