"""Labels that are scored together, against each scored alone by the model's own forward."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import noise, tiny_model, tiny_processor


END = 1
LLMS = ["t5", "llama"]
every_llm = pytest.mark.parametrize("text", LLMS)
# Beginnings that are shared, a label that begins another, a label alone, and the empty answer.
LABELS = [[6, 7, END], [6, END], [6, 7, 8, END], [9, 10, 11, 12, END], [9, 10, 11, 13, END], [14, END], [END]]
labels_of_any_kind = st.lists(
    st.lists(st.integers(6, 9), max_size=5).map(lambda tokens: tuple(tokens) + (END,)),
    min_size=1,
    max_size=9,
    unique=True,
)


def inputs_of(processor, dtype=torch.float64):
    recordings = [
        {"array": noise(seconds, seed), "sampling_rate": 16_000} for seed, seconds in enumerate((0.5, 1.1, 0.8))
    ]
    texts = ["say it", "which colour is red ?", "what is said ?"]
    inputs = processor(text=texts, audio=recordings)
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


@pytest.fixture(scope="module", params=LLMS)
def joined(request):
    model = tiny_model("wavlm", request.param).double()
    return model, inputs_of(tiny_processor(model, "wavlm", request.param))


def score_alone(model, inputs, row: int, label) -> float:
    one = {name: value[row : row + 1] for name, value in inputs.items()}
    labels = torch.tensor([list(label)])
    if model.config.is_encoder_decoder:
        logits = model(**one, labels=labels).logits[0]
    else:
        length = one["input_ids"].shape[1]
        one["input_ids"] = torch.cat([one["input_ids"], labels], dim=1)
        one["attention_mask"] = torch.cat([one["attention_mask"], torch.ones_like(labels)], dim=1)
        logits = model(**one).logits[0, length - 1 :]
    steps = logits.log_softmax(-1)
    return sum(steps[index, token].item() for index, token in enumerate(label))


@settings(max_examples=20, deadline=None)
@given(labels=labels_of_any_kind)
def check_any_labels(model, inputs, labels):
    scores = model.score_labels(list(labels), **inputs)
    row = len(labels) % 3
    for column, label in enumerate(labels):
        assert scores[row, column].item() == pytest.approx(score_alone(model, inputs, row, label), abs=1e-8)


def test_any_labels_score_as_they_do_alone(joined):
    model, inputs = joined
    check_any_labels(model, inputs)


def test_every_label_scores_as_it_does_alone(joined):
    model, inputs = joined
    scores = model.score_labels(LABELS, **inputs)
    assert scores.shape == (3, len(LABELS)) and scores.dtype == torch.float64
    expected = [[score_alone(model, inputs, row, label) for label in LABELS] for row in range(3)]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("max_rows", [1, 2, 5, 100])
def test_however_many_at_a_time(max_rows, joined):
    model, inputs = joined
    expected = model.score_labels(LABELS, **inputs)
    torch.testing.assert_close(model.score_labels(LABELS, max_rows=max_rows, **inputs), expected, atol=1e-9, rtol=0)


def test_each_row_may_have_labels_of_its_own(joined):
    model, inputs = joined
    shared = model.score_labels(LABELS, **inputs)
    scores = model.score_labels([LABELS[:2], LABELS[2:3], LABELS], **inputs)
    torch.testing.assert_close(scores[0, :2], shared[0, :2], atol=1e-9, rtol=0)
    torch.testing.assert_close(scores[1, 0], shared[1, 2], atol=1e-9, rtol=0)
    torch.testing.assert_close(scores[2], shared[2], atol=1e-9, rtol=0)
    assert scores[0, 2:].isinf().all() and scores[1, 1:].isinf().all()


def test_a_distribution_over_all_answers_sums_to_one(joined):
    """Of one token or none; the probability of all longer ones is what remains."""
    model, inputs = joined
    vocabulary = model.config.text_config.vocab_size
    ends = model.score_labels([[END]], **inputs)[:, 0].exp()
    first = model.score_labels([[token] for token in range(vocabulary)], **inputs).exp()
    torch.testing.assert_close(first.sum(-1), torch.ones_like(ends), atol=1e-9, rtol=0)
    torch.testing.assert_close(first[:, END], ends, atol=1e-12, rtol=0)


def test_the_encoder_and_the_input_are_read_once(joined, monkeypatch):
    model, inputs = joined
    calls = []
    monkeypatch.setattr(model, "get_audio_features", lambda **_: calls.append("audio") or original(**_))
    original = type(model).get_audio_features.__get__(model)
    lengths = []
    hook = model.language_model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(_shape(kwargs)), with_kwargs=True
    )
    model.score_labels(LABELS, **inputs)
    hook.remove()
    assert calls == ["audio"]
    # Every different beginning of an answer is run once a row: all but the last tokens, the shared ones once.
    beginnings = {tuple(label[:depth]) for label in LABELS for depth in range(1, len(label))}
    behind_the_input = [rows * length for rows, length in lengths[1:]]
    padding = 3 * 3  # of the answers that are scored to their end in one pass
    assert 3 * len(beginnings) <= sum(behind_the_input) <= 3 * len(beginnings) + padding


def _shape(kwargs):
    tokens = kwargs.get("input_ids") if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
    return tokens.shape[0], tokens.shape[1]


@every_llm
def test_half_precision_gives_scores_in_fp32(text):
    model = tiny_model("wavlm", text)
    inputs = inputs_of(tiny_processor(model, "wavlm", text), torch.float32)
    expected = model.score_labels(LABELS, **inputs)
    scores = model.to(torch.bfloat16).score_labels(LABELS, **inputs)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, atol=0.3, rtol=0.02)


@pytest.mark.parametrize("labels", [[], [[]], [LABELS, LABELS], [LABELS, [], LABELS], [LABELS, LABELS, [[END], []]]])
def test_rows_without_labels_are_refused(labels, joined):
    model, inputs = joined
    with pytest.raises(ValueError, match="3 inputs need a list of labels, or one for each, and tokens in every label"):
        model.score_labels(labels, **inputs)


def test_right_padding_is_refused_for_a_decoder_only_llm():
    model = tiny_model("wavlm", "llama")
    processor = tiny_processor(model, "wavlm", "llama")
    inputs = processor(text=["say it", "which colour is red ?"], padding_side="right")
    with pytest.raises(ValueError, match="pad it on the left"):
        model.score_labels(LABELS, **inputs)


@pytest.mark.slow
@pytest.mark.parametrize("text_base", ["flan-t5-small", "smollm2-135m-instruct"])
def test_real_weights(text_base):
    """68 intents on a real LLM in fp32, against each alone."""
    from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor, TaskBank

    folder = Path(os.environ.get("TESTS_FOUNDATIONS", "nowhere"))
    if not all((folder / name).is_dir() for name in ("whisper-base", text_base)):
        pytest.skip(f"$SPEECHVERSE_FOUNDATIONS holds no {text_base} and whisper-base")
    model = SpeechVerseForConditionalGeneration.from_foundations(folder / "whisper-base", folder / text_base).eval()
    tasks = TaskBank.from_yaml(Path(__file__).parents[2] / "processing" / "tasks")
    processor = SpeechVerseProcessor.for_model(model, tasks)
    inputs = dict(processor(audio=[noise(2.0, seed) for seed in range(2)], sampling_rate=16_000, task="er"))
    label_ids = processor.label_ids("ic")
    scores = model.score_labels(label_ids, **inputs)
    for column in range(0, len(label_ids), 5):
        for row in range(2):
            alone = score_alone(model, inputs, row, label_ids[column])
            assert scores[row, column].item() == pytest.approx(alone, abs=1e-3)


def test_an_llm_without_a_cache_is_refused_in_words(joined, monkeypatch):
    model, inputs = joined
    forward = type(model.language_model).forward

    def forgetful(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        output["past_key_values"] = None
        return output

    monkeypatch.setattr(type(model.language_model), "forward", forgetful)
    with pytest.raises(ValueError, match="gave no cache to go on from.*eval mode"):
        model.score_labels(LABELS, **inputs)


def test_labels_may_be_tensors(joined):
    model, inputs = joined
    tensors = [torch.tensor(label) for label in LABELS]
    assert torch.equal(model.score_labels(tensors, **inputs), model.score_labels(LABELS, **inputs))
