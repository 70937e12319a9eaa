"""What holds for every encoder with every kind of LLM. A new encoder or LLM is a new row in tiny_models.py."""

import copy

import pytest
import torch
from tiny_models import AUDIO_CONFIGS, TEXT_CONFIGS, noise, save_bases, tiny_model, tiny_processor, tiny_speller

from speechverse import SpeechVerseForConditionalGeneration, Task, TaskBank
from speechverse.modeling_speechverse.audio_encoders import output_lengths


PAIRS = [(audio, text) for audio in AUDIO_CONFIGS for text in TEXT_CONFIGS]
SECONDS = (0.3, 1.1, 0.77, 2.003)
TARGETS = ["yes", "no red", "blue . one two", "two"]

TASKS = TaskBank(
    [
        Task("asr", "speech-recognition", "ASR", ["write it"]),
        Task(
            "ic",
            "intent-classification",
            "IC",
            ["{labels}?"],
            {"play": "", "play_music": "", "red light": "", "no": ""},
        ),
    ]
)

every_pair = pytest.mark.parametrize("audio, text", PAIRS)
every_encoder = pytest.mark.parametrize("audio", AUDIO_CONFIGS)
every_mix = pytest.mark.parametrize("layer_mix", ["last", "learned"])


def recordings():
    return [{"array": noise(seconds, seed), "sampling_rate": 16_000} for seed, seconds in enumerate(SECONDS)]


def joined(audio, text, **config):
    model = tiny_model(audio, text, **config)
    return model, tiny_processor(model, audio, text)


def batch_of(processor, targets=TARGETS):
    return processor(text="what is said ?", audio=recordings(), text_target=targets)


@every_pair
@every_mix
def test_padded_batch_equals_single_items(audio, text, layer_mix):
    model, processor = joined(audio, text, layer_mix=layer_mix)
    together = model(**batch_of(processor)).logits
    for row, (recording, target) in enumerate(zip(recordings(), TARGETS, strict=True)):
        alone = model(**processor(text="what is said ?", audio=recording, text_target=target)).logits[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=0)


@every_pair
def test_batched_answers_equal_single_answers(audio, text):
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    for seed in range(20):  # many random models give every recording the same answer, which would prove nothing
        model, processor = joined(audio, text, seed=seed)
        together = model.generate(**processor(text="what is said ?", audio=recordings()), **options).tolist()
        if len({tuple(row) for row in together}) > 1:
            break
    else:
        pytest.fail("no model was found whose answers differ")
    for row, recording in zip(together, recordings(), strict=True):
        alone = model.generate(**processor(text="what is said ?", audio=recording), **options)[0]
        assert row == alone.tolist()


@every_pair
def test_recordings_change_the_answer(audio, text):
    model, processor = joined(audio, text)
    logits = [
        model(
            **processor(text="what is said ?", audio=noise(1.0, seed), sampling_rate=16_000, text_target="yes")
        ).logits
        for seed in (1, 2)
    ]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@every_pair
def test_generate_equals_manual_greedy_decoding(audio, text):
    model, processor = joined(audio, text)
    inputs = processor(text="which colour ?", audio=recordings()[1])
    generated = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0].tolist()

    answer = []
    while len(answer) < 6 and (not answer or answer[-1] != model.config.eos_token_id):
        if text == "t5":
            decoder_input_ids = torch.tensor([[model.config.decoder_start_token_id, *answer]])
            logits = model(**inputs, decoder_input_ids=decoder_input_ids).logits
        else:
            suffix = torch.tensor([answer], dtype=torch.long)
            grown = inputs | {
                "input_ids": torch.cat([inputs["input_ids"], suffix], 1),
                "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(suffix)], 1),
            }
            logits = model(**grown).logits
        answer.append(logits[0, -1].argmax().item())
    assert generated[1:] == answer if text == "t5" else generated == answer


@every_pair
def test_loss_equals_independent_computation(audio, text):
    model, processor = joined(audio, text)
    batch = batch_of(processor)
    output = model(**batch)
    log_probabilities = output.logits.double().log_softmax(-1)
    total, count = 0.0, 0
    for row, labels in enumerate(batch["labels"].tolist()):
        for position, label in enumerate(labels):
            if label != -100:  # a decoder-only LLM predicts a token from the position before it
                total -= log_probabilities[row, position - (text != "t5"), label].item()
                count += 1
    assert count == sum(len(processor.tokenizer(t, add_special_tokens=False).input_ids) + 1 for t in TARGETS)
    assert output.loss.item() == pytest.approx(total / count, rel=1e-5)


@every_pair
def test_loss_adds_up_over_micro_batches(audio, text):
    model, processor = joined(audio, text)
    batch = batch_of(processor)
    items = (batch["labels"] != -100).sum()
    parts = [
        model(**processor(text="what is said ?", audio=r, text_target=t), num_items_in_batch=items).loss.item()
        for r, t in zip(recordings(), TARGETS, strict=True)
    ]
    assert sum(parts) == pytest.approx(model(**batch).loss.item(), rel=1e-5)


@every_pair
@every_mix
def test_gradient_reaches_what_learns_and_nothing_else(audio, text, layer_mix):
    model, processor = joined(audio, text, layer_mix=layer_mix)
    model.train()
    model(**batch_of(processor)).loss.backward()
    for name, parameter in model.named_parameters():
        learns = name.startswith("multi_modal_projector.") or ".lora_" in name
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None and parameter.grad.abs().sum() > 0) == learns, name
        assert not learns or parameter.dtype == torch.float32, name


@every_pair
def test_training_leaves_frozen_parts_alone(audio, text):
    model, processor = joined(audio, text)
    before = copy.deepcopy(model.state_dict())
    batch = batch_of(processor)
    expected = model(**batch).loss
    model.train()
    assert not any(module.training for module in model.audio_tower.modules())
    assert model.language_model.training
    loss = model(**batch).loss
    torch.testing.assert_close(loss, expected, msg="train mode must draw no dropout and no SpecAugment")
    loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    for name, tensor in model.state_dict().items():
        learns = name.startswith("multi_modal_projector.") or ".lora_" in name
        assert torch.equal(tensor, before[name]) != learns, name


@every_encoder
def test_trainable_encoder_gets_gradient(audio):
    model, processor = joined(audio, "t5", freeze_audio_tower=False)
    model.train()
    assert model.audio_tower.training
    model(**batch_of(processor)).loss.backward()
    learned = {name: p for name, p in model.audio_tower.named_parameters() if p.requires_grad}
    assert len(learned) > 20
    assert not [name for name, p in learned.items() if p.grad is None]


@every_pair
def test_saved_whole_and_loaded(audio, text, tmp_path):
    model, processor = joined(audio, text, layer_mix="learned")
    model.save_pretrained(tmp_path)  # its bases are not known, so everything is saved
    loaded = SpeechVerseForConditionalGeneration.from_pretrained(tmp_path)
    batch = batch_of(processor)
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


@every_pair
def test_saved_as_adapter_and_loaded_beside_its_bases(audio, text, tmp_path, monkeypatch):
    save_bases(tmp_path / "bases", audio, text)
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path / "bases"))
    model = SpeechVerseForConditionalGeneration.from_foundations(f"org/tiny-{audio}", f"org/tiny-{text}", lora_rank=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    processor = tiny_processor(model, audio, text)
    model.save_pretrained(tmp_path / "adapter")
    loaded = SpeechVerseForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    batch = batch_of(processor)
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (tmp_path / "adapter" / "model.safetensors").stat().st_size < 4 * learned + 20_000


@every_encoder
def test_processor_and_model_agree_on_the_number_of_frames(audio):
    model, processor = joined(audio, "t5")
    input_name = processor.audio_input_name
    step = 1 if input_name == "input_features" else 160
    for steps in range(16 * step, 120 * step, 7 * step + (step > 1)):
        shape = (80, steps) if input_name == "input_features" else (steps,)
        feature = torch.randn(shape).numpy()
        output = model.get_audio_features(**{input_name: torch.from_numpy(feature)[None]})
        assert output.pooler_output.shape[1] == processor.num_audio_tokens(input_name, feature)
        lengths = output_lengths(steps, model.encoder_convolutions)
        assert output.last_hidden_state.shape[1] == lengths


@every_encoder
def test_cached_encoder_output_gives_the_same_answer(audio):
    model, processor = joined(audio, "t5")
    recording = recordings()[1]
    features = processor.extract_features(recording)
    name = processor.audio_input_name
    hidden_states = model.get_audio_features(**{name: torch.from_numpy(features)[None]}).last_hidden_state[0].numpy()
    cached = processor.pad([processor.encode_features("say it", "audio_hidden_states", [hidden_states], "one")])
    direct = processor(text="say it", audio=recording, text_target="one")
    torch.testing.assert_close(model(**cached).logits, model(**direct).logits, atol=1e-5, rtol=0)


@every_encoder
@every_mix
def test_encoder_layers_of_a_padded_batch_equal_single_ones(audio, layer_mix):
    model, processor = joined(audio, "t5", layer_mix=layer_mix)
    model.set_attn_implementation("eager")
    name = processor.audio_input_name
    mask_name = processor.model_input_names[-1]
    batch = batch_of(processor)
    asked = {"output_hidden_states": True, "output_attentions": True}
    together = model.get_audio_features(**{key: batch[key] for key in (name, mask_name)}, **asked)
    assert len(together.hidden_states) == len(together.attentions) + 1 == 4
    for row, length in enumerate(batch[mask_name].sum(-1).tolist()):
        alone = model.get_audio_features(**{name: batch[name][row : row + 1, ..., :length]}, **asked)
        frames = alone.last_hidden_state.shape[1]
        assert alone.attentions[0].shape == (1, 4, frames, frames)
        for ours, expected in zip(together.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(ours[row, :frames], expected[0], atol=1e-4, rtol=0)
        for ours, expected in zip(together.attentions, alone.attentions, strict=True):
            torch.testing.assert_close(ours[row, :, :frames, :frames], expected[0], atol=1e-4, rtol=0)
    plain = model.get_audio_features(**{key: batch[key] for key in (name, mask_name)})
    assert plain.hidden_states is None and plain.attentions is None
    torch.testing.assert_close(plain.pooler_output, together.pooler_output)


@every_pair
def test_a_tuple_holds_the_loss_first(audio, text):
    model, processor = joined(audio, text)
    batch = batch_of(processor)
    output = model(**batch)
    as_tuple = model(**batch, return_dict=False)
    assert torch.equal(as_tuple[0], output.loss) and torch.equal(as_tuple[1], output.logits)


@every_pair
def test_labels_that_were_shifted_already(audio, text):
    model, processor = joined(audio, text)
    batch = batch_of(processor)
    labels = batch["labels"]
    shifted = labels if text == "t5" else torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:].contiguous()
    torch.testing.assert_close(model(**batch, shift_labels=shifted).loss, model(**batch).loss)


@pytest.mark.parametrize("text", TEXT_CONFIGS)
def test_text_without_audio_is_the_llm_alone(text):
    model, processor = joined("wavlm", text)
    batch = processor(text=["say it", "which colour is red ?"], text_target=["one", "yes"])
    kwargs = {"decoder_input_ids": model.language_model._shift_right(batch["labels"])} if text == "t5" else {}
    expected = model.language_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **kwargs)
    valid = batch["labels"] != -100
    torch.testing.assert_close(model(**batch).logits[valid], expected.logits[valid], atol=1e-5, rtol=0)


# Decoding


@every_pair
def test_held_to_labels_a_batch_answers_as_single_ones_do(audio, text):
    model, processor = tiny_speller(audio, text, tasks=TASKS)
    constraint = processor.constraint("ic")
    for options in ({}, {"num_beams": 3}):
        together = model.generate(**processor(audio=recordings(), task="ic"), constraint=constraint, **options)
        for row, recording in zip(together, recordings(), strict=True):
            alone = model.generate(**processor(audio=recording, task="ic"), constraint=constraint, **options)[0]
            answer = processor.read_tokens(alone, constraint, "ic").answer
            assert processor.read_tokens(row, constraint, "ic").answer == answer in TASKS["ic"].labels


@every_pair
def test_scored_labels_of_a_batch_equal_single_ones_and_the_models_own_loss(audio, text):
    model, processor = tiny_speller(audio, text, tasks=TASKS)
    label_ids = processor.label_ids("ic")
    together = model.score_labels(label_ids, **processor(audio=recordings(), task="ic"))
    for row, recording in zip(together, recordings(), strict=True):
        torch.testing.assert_close(
            model.score_labels(label_ids, **processor(audio=recording, task="ic"))[0], row, atol=1e-4, rtol=0
        )
        for column, (label, tokens) in enumerate(zip(TASKS["ic"].labels, label_ids, strict=True)):
            loss = model(**processor(audio=recording, task="ic", text_target=label)).loss
            assert row[column].item() == pytest.approx(-loss.item() * len(tokens), abs=1e-3)


@every_pair
def test_the_likeliest_label_is_what_wide_beams_find(audio, text):
    model, processor = tiny_speller(audio, text, seed=1, tasks=TASKS)
    inputs = processor(audio=recordings(), task="ic")
    best = model.score_labels(processor.label_ids("ic"), **inputs).argmax(-1).tolist()
    rows = model.generate(**inputs, constraint=processor.constraint("ic"), num_beams=4)
    labels = list(TASKS["ic"].labels)
    assert [processor.read_tokens(row, processor.constraint("ic"), "ic").answer for row in rows] == [
        labels[i] for i in best
    ]


@every_pair
def test_a_joint_answer_holds_its_label_and_leaves_the_transcript_free(audio, text):
    model, processor = tiny_speller(audio, text, tasks=TASKS)
    names = ["asr", "ic"]
    constraint = processor.constraint(names)
    options = {"constraint": constraint, "max_new_tokens": constraint.tokens_to_end[0] + 12}
    together = model.generate(**processor(audio=recordings(), task=names), **options)
    for row, recording in zip(together, recordings(), strict=True):
        answer, unread = processor.read_tokens(row, constraint, names)
        assert answer["ic"] in TASKS["ic"].labels and answer["asr"] and not unread
        alone = model.generate(**processor(audio=recording, task=names), **options)[0]
        assert processor.read_tokens(alone, constraint, names).answer == answer


@every_encoder
@every_mix
def test_what_the_encoder_gave_answers_further_questions(audio, layer_mix):
    model, processor = tiny_speller(audio, "t5", tasks=TASKS, layer_mix=layer_mix)
    inputs = processor(audio=recordings(), task="ic")
    name, mask_name = processor.model_input_names[-2:]
    encoded = model.get_audio_features(**{key: inputs.pop(key) for key in (name, mask_name)})
    again = model.score_labels(
        processor.label_ids("ic"),
        **inputs,
        audio_hidden_states=encoded.last_hidden_state,
        audio_hidden_states_mask=encoded.last_hidden_state_mask.long(),
    )
    expected = model.score_labels(processor.label_ids("ic"), **processor(audio=recordings(), task="ic"))
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=0)
