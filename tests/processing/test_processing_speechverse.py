"""The processor: where audio tokens stand, what is learned, how batches are padded, what a checkpoint keeps."""

import json

import numpy as np
import pytest
import torch
from tiny_models import noise, save_bases, tiny_feature_extractor, tiny_model, tiny_processor, tiny_tokenizer
from transformers import AutoProcessor, pipeline

from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor, Task, TaskBank


TASKS = TaskBank(
    [
        Task("asr", "speech-recognition", "ASR", ["say it", "what is said ?"]),
        Task("colour", "colour-naming", "Colour", ["which colour ?"], {"red": "like blood", "blue": "like the sky"}),
    ]
)
SECONDS = (0.5, 1.3, 0.8)

every_llm = pytest.mark.parametrize("text", ["t5", "llama"])
every_input = pytest.mark.parametrize("audio", ["wavlm", "moonshine", "whisper"])


def recordings(seconds=SECONDS):
    return [{"array": noise(length, seed), "sampling_rate": 16_000} for seed, length in enumerate(seconds)]


def processor_of(text="t5", audio="wavlm"):
    return tiny_processor(tiny_model(audio, text), audio, text, tasks=TASKS)


@pytest.fixture
def processor():
    return processor_of()


@pytest.fixture
def llama_processor():
    return processor_of("llama")


def words(processor, ids) -> list[str]:
    """Tokens one by one, a run of audio tokens as one."""
    tokens = processor.tokenizer.convert_ids_to_tokens([int(i) for i in ids])
    runs = [token for i, token in enumerate(tokens) if token != "<audio>" or tokens[i - 1] != token or i == 0]
    return [token for token in runs if token != "<pad>"]


def count_audio_tokens(processor, batch) -> list[int]:
    return (batch["input_ids"] == processor.audio_token_id).sum(-1).tolist()


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for name in batch:
        assert torch.equal(batch[name], other[name]), name


# Audio tokens


@every_llm
@every_input
def test_a_recording_takes_as_many_tokens_as_the_model_makes_frames(text, audio):
    model = tiny_model(audio, text)
    processor = tiny_processor(model, audio, text)
    batch = processor(text="what is said ?", audio=recordings())
    features = model.get_audio_features(**{k: v for k, v in batch.items() if k not in ("input_ids", "attention_mask")})
    assert count_audio_tokens(processor, batch) == features.attention_mask.sum(-1).tolist()
    assert count_audio_tokens(processor, batch) == pytest.approx([12.5 * s for s in SECONDS], abs=3)


def test_audio_stands_before_the_instruction(processor):
    (ids,) = processor(text="what is said ?", audio=recordings()[:1])["input_ids"]
    assert words(processor, ids) == ["<audio>", "what", "is", "said", "?", "</s>"]


def test_audio_stands_where_its_placeholder_stands(processor):
    batch = processor(text="say it : is <audio> red ?", audio=recordings()[0])
    assert words(processor, batch["input_ids"][0])[2:6] == ["<unk>", "is", "<audio>", "red"]


@every_llm
def test_several_recordings_in_one_instruction_stand_in_order(text):
    processor = processor_of(text)
    batch = processor(text="is <audio> red or <audio> blue ?", audio=recordings()[:2])
    assert batch["input_ids"].shape[0] == 1 and batch["input_values"].shape[0] == 2
    is_audio = (batch["input_ids"][0] == processor.audio_token_id).tolist()
    runs = "".join("#" if audio else " " for audio in is_audio).split()
    singles = [processor(text="red", audio=recording) for recording in recordings()[:2]]
    assert [len(run) for run in runs] == [count_audio_tokens(processor, single)[0] for single in singles]


def test_recordings_are_shared_out_over_the_instructions_that_ask_for_them(processor):
    batch = processor(text=["is <audio> red or <audio> ?", "say it"], audio=recordings())
    alone = processor(text="say it", audio=recordings()[2])
    counts = count_audio_tokens(processor, batch)
    assert counts[1] == count_audio_tokens(processor, alone)[0]
    assert counts[0] == sum(count_audio_tokens(processor, processor(text="say it", audio=recordings()[:2])))
    nested = processor(text=["is <audio> red or <audio> ?", "say it"], audio=[recordings()[:2], recordings()[2]])
    assert_same(batch, nested)


@pytest.mark.parametrize(
    "text, number",
    [
        ("is <audio> red or <audio> blue ?", 1),
        ("is <audio> red or <audio> blue ?", 3),
        ("is <audio> red ?", 0),
        (["say it", "say it"], 1),
        (["say it", "is <audio> red ?"], 3),
        (["say it"], 2),
    ],
)
def test_placeholders_and_recordings_must_match(text, number, processor):
    with pytest.raises(ValueError, match=rf"ask for \d recordings \(<audio> placeholders.*but {number} were given"):
        processor(text=text, audio=recordings()[:number] or None)


# Batches


@every_llm
def test_one_instruction_serves_all_recordings(text):
    processor = processor_of(text)
    assert_same(
        processor(text="say it", audio=recordings()), processor(text=["say it"] * len(SECONDS), audio=recordings())
    )


@every_llm
@every_input
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_row_of_a_batch_is_what_it_is_alone(text, audio, side):
    processor = processor_of(text, audio)
    texts = ["say it", "which colour is red ?", "what ?"]
    targets = ["yes", "no red blue", "one two"]
    batch = processor(text=texts, audio=recordings(), text_target=targets, padding_side=side)
    mask_name = {"input_values": "padding_mask", "input_features": "input_features_mask"}[processor.audio_input_name]
    for row, single in enumerate(zip(texts, recordings(), targets, strict=True)):
        alone = processor(text=single[0], audio=single[1], text_target=single[2])
        keep = batch["attention_mask"][row].bool()
        assert torch.equal(batch["input_ids"][row][keep], alone["input_ids"][0])
        assert keep[-1 if side == "left" else 0]
        wanted, found = alone["labels"][0], batch["labels"][row]
        assert torch.equal(found[found != -100], wanted[wanted != -100])
        real = batch[mask_name][row].bool()
        assert torch.equal(batch[processor.audio_input_name][row][..., real], alone[processor.audio_input_name][0])
        assert not batch[processor.audio_input_name][row][..., ~real].any()


def test_tokens_are_padded_on_the_left_only_where_a_decoder_is_to_write(processor, llama_processor):
    texts = ["say it", "which colour is red ?"]

    def first_row_starts_with_padding(processor, **kwargs):
        return not processor(text=texts, **kwargs)["attention_mask"][0, 0]

    assert first_row_starts_with_padding(llama_processor)
    assert not first_row_starts_with_padding(llama_processor, text_target=["yes", "no"])
    assert not first_row_starts_with_padding(llama_processor, padding_side="right")
    assert not first_row_starts_with_padding(processor)
    assert first_row_starts_with_padding(processor, padding_side="left")


@every_llm
@pytest.mark.parametrize("side", ["left", "right"])
def test_tokens_are_padded_to_a_length(text, side):
    processor = processor_of(text)
    inputs = {"text": "say it", "audio": recordings(), "text_target": "yes".split() * 3}
    plain = processor(**inputs, padding_side=side)
    padded = processor(**inputs, padding_side=side, padding="max_length", max_length=50)
    assert padded["input_ids"].shape == padded["attention_mask"].shape == (3, 50)
    assert padded["labels"].shape == ((3, 50) if text == "llama" else plain["labels"].shape)
    for ours, expected in zip(padded["input_ids"], plain["input_ids"], strict=True):
        kept = ours[-len(expected) :] if side == "left" else ours[: len(expected)]
        assert torch.equal(kept, expected)
    with pytest.raises(ValueError, match="more than max_length=8; nothing is cut off silently"):
        processor(**inputs, padding="max_length", max_length=8)


def test_options_come_flat_or_grouped_as_in_transformers(processor):
    flat = processor(
        "say it", noise(0.5), sampling_rate=16_000, padding=True, padding_side="left", return_tensors="pt"
    )
    grouped = processor(
        "say it",
        noise(0.5),
        text_kwargs={"padding": True, "padding_side": "left"},
        audio_kwargs={"sampling_rate": 16_000},
        common_kwargs={"return_tensors": "pt"},
    )
    assert_same(flat, grouped)
    with pytest.raises(TypeError, match="takes no argument smapling_rate, truncation"):
        processor("say it", noise(0.5), audio_kwargs={"smapling_rate": 16_000}, truncation=True)


def test_rows_of_unlike_length_need_padding(processor):
    processor(text=["say it", "say red"], padding=False)
    with pytest.raises(ValueError, match="Rows of 3 to 4 tokens make no tensor without padding"):
        processor(text=["say it", "say red ?"], padding=False)


@every_llm
def test_text_alone_is_what_the_tokenizer_makes_of_it(text):
    processor = processor_of(text)
    batch = processor(text=["say it", "which colour ?"])
    assert batch.keys() == {"input_ids", "attention_mask"}
    if text == "t5":
        assert_same(batch, processor.tokenizer(["say it", "which colour ?"], padding=True, return_tensors="pt"))
    else:
        assert words(processor, batch["input_ids"][0]) == "<s> user say it </s> <s> assistant".split()
    with pytest.raises(ValueError, match="audio is an empty list"):
        processor(text=["say it", "which colour ?"], audio=[])


@pytest.mark.parametrize(
    "instruction, target, message",
    [
        (" ", "yes", "The instruction is empty"),
        ("say it", "<audio> yes", "'<audio> yes' holds <audio>"),
    ],
)
def test_text_that_says_nothing_or_too_much_is_refused(processor, instruction, target, message):
    with pytest.raises(ValueError, match=message):
        processor(text=instruction, audio=recordings()[0], text_target=target)


# What is learned


def test_labels_of_an_encoder_decoder_are_the_answer_and_its_end(processor):
    batch = processor(text="say it", audio=recordings(), text_target=["yes", "no red", "two"])
    answers = [words(processor, row[row != -100]) for row in batch["labels"]]
    assert answers == [["yes", "</s>"], ["no", "red", "</s>"], ["two", "</s>"]]
    assert_same(processor(text="say it", audio=recordings()), {k: v for k, v in batch.items() if k != "labels"})


def test_labels_of_a_decoder_are_the_answer_alone_beside_its_own_tokens(llama_processor):
    batch = llama_processor(text="say it", audio=recordings(), text_target=["yes", "no red", "two"])
    assert batch["labels"].shape == batch["input_ids"].shape
    learned = batch["labels"] != -100
    assert torch.equal(batch["labels"][learned], batch["input_ids"][learned])
    answers = [words(llama_processor, row[row != -100]) for row in batch["labels"]]
    assert answers == [["yes", "</s>"], ["no", "red", "</s>"], ["two", "</s>"]]


def test_a_decoder_is_trained_on_what_it_is_asked_later(llama_processor):
    asked = llama_processor(text="say it", audio=recordings()[0])["input_ids"][0]
    taught = llama_processor(text="say it", audio=recordings()[0], text_target="yes")
    length = len(asked)
    assert torch.equal(taught["input_ids"][0, :length], asked)
    assert taught["labels"][0, :length].eq(-100).all() and taught["labels"][0, length] != -100


def test_chat_template_is_used_where_there_is_one(llama_processor):
    (ids,) = llama_processor(text="say it", audio=recordings()[0])["input_ids"]
    assert words(llama_processor, ids) == "<s> user <audio> say it </s> <s> assistant".split()
    llama_processor.tokenizer.chat_template = None
    (ids,) = llama_processor(text="say it", audio=recordings()[0])["input_ids"]
    assert words(llama_processor, ids) == ["<audio>", "say", "it"]


def test_number_of_targets_must_match(processor):
    with pytest.raises(ValueError, match="3 instructions but 1 targets"):
        processor(text="say it", audio=recordings(), text_target="yes")


# Tasks


def test_task_stands_for_its_first_prompt(processor):
    assert_same(processor(task="asr", audio=recordings()), processor(text="say it", audio=recordings()))
    assert_same(processor(task="colour-naming", audio=recordings()[0]), processor("which colour ?", recordings()[0]))


def test_unknown_task_lists_the_known_ones(processor):
    with pytest.raises(KeyError, match="no task 'er'; it knows asr, colour"):
        processor(task="er", audio=recordings())


@pytest.fixture
def asking(processor):
    """A processor whose tasks ask for something."""
    processor.tasks = TaskBank(
        [
            Task("asr", "speech-recognition", "ASR", ["say it"]),
            Task(
                "kws", "keyword-search", "KWS", ["is {keyword} said ? {labels}"], {"yes": "it is", "no": "it is not"}
            ),
        ]
    )
    return processor


def test_what_a_task_asks_for_is_put_into_its_prompt(asking):
    batch = asking(task="kws", keyword="red", audio=recordings())
    assert_same(batch, asking(text="is red said ? yes or no", audio=recordings()))


def test_labels_stand_in_for_the_tasks_own(asking):
    batch = asking(task="kws", keyword="red", labels=["one", "two"], audio=recordings())
    assert_same(batch, asking(text="is red said ? one or two", audio=recordings()))
    described = asking(task="kws", keyword="red", labels={"one": "yes", "two": "no"}, audio=recordings())
    assert_same(described, asking(text="is red said ? one (yes); or two (no)", audio=recordings()))
    assert asking.parse("Two.", "kws", labels=["one", "two"]) == "two"
    assert asking.parse("yes", "kws", labels=["one", "two"]) is None


def test_several_tasks_are_answered_together(asking):
    instruction = asking.tasks.joint(["asr", "kws"]).instruction(keyword="red", labels={"kws": ["one", "two"]})
    assert "is red said ? one or two" in instruction
    batch = asking(task=["asr", "kws"], keyword="red", labels={"kws": ["one", "two"]}, audio=recordings())
    assert_same(batch, asking(text=instruction, audio=recordings()))
    assert asking.parse("ASR: red | KWS: Yes", ["asr", "kws"]) == {"asr": "red", "kws": "yes"}


def test_what_could_not_be_read_is_told(asking):
    assert asking.read("ASR: red | KWS: perhaps |", ["asr", "kws"]) == ({"asr": "red", "kws": None}, ["perhaps"])
    assert asking.read(" perhaps ") == ("perhaps", [])


@pytest.mark.parametrize(
    "arguments, kind, message",
    [
        ({"task": "kws"}, ValueError, "Task 'kws' needs keyword, as text"),
        ({"task": "kws", "keyword": " "}, ValueError, "Task 'kws' needs keyword, as text"),
        ({"task": "kws", "keyword": ["red", "blue"]}, ValueError, "Task 'kws' needs keyword, as text"),
        ({"task": ["asr", "kws"]}, ValueError, "Task 'kws' needs keyword, as text"),
        ({"task": "asr", "keyword": "red"}, TypeError, "no argument keyword; task 'asr' asks for nothing"),
        ({"task": "kws", "keywrd": "red"}, TypeError, "no argument keywrd; task 'kws' asks for keyword"),
        ({"text": "say it", "smapling_rate": 1}, TypeError, "no argument smapling_rate"),
        ({"text": "say it", "labels": ["one"]}, TypeError, "labels stand in for the classes of a task"),
        ({"task": "asr", "labels": ["one"]}, ValueError, "Task 'asr' takes no other labels"),
        ({"task": "kws", "keyword": "red", "labels": "one"}, ValueError, "labels are 'one', not a list of texts"),
        ({"task": ["asr", "kws"], "labels": ["one"]}, ValueError, r"takes labels as a dict by task id \(asr, kws\)"),
        ({"task": ["asr"]}, ValueError, "two tasks or more, not of asr"),
        ({"task": 7}, ValueError, "The task is 7; it is named by a text"),
    ],
)
def test_mistake_in_asking_a_task_is_named(arguments, kind, message, asking):
    with pytest.raises(kind, match=message):
        asking(audio=recordings(), **arguments)


@pytest.mark.parametrize("arguments", [{}, {"text": "say it", "task": "asr"}])
def test_instruction_or_task_and_not_both(arguments, processor):
    with pytest.raises(ValueError, match=r"either an instruction \(text=\) or a task \(task=\)"):
        processor(audio=recordings(), **arguments)


def test_answer_is_read_as_the_tasks_kind(processor):
    assert processor.parse(" Red. ", "colour") == "red"
    assert processor.parse("yellow", "colour") is None
    assert processor.parse(" Red. ") == processor.parse(" Red. ", "asr") == "Red."


# Refusals


def test_recording_beyond_whispers_thirty_seconds_is_refused():
    processor = processor_of(audio="whisper")
    assert processor.extract_features({"array": np.zeros(480_000), "sampling_rate": 16_000}).shape == (80, 3000)
    with pytest.raises(ValueError, match=r"31\.0 s, which is too long: this encoder takes 30 s.*nothing is cut off"):
        processor(text="say it", audio=noise(31), sampling_rate=16_000)


def test_encoder_of_waveforms_takes_more_than_thirty_seconds(processor):
    assert len(processor.extract_features(noise(31), 16_000)) == 31 * 16_000


def test_recording_too_short_to_be_heard_is_refused(processor):
    with pytest.raises(ValueError, match=r"lasts 0\.050 s; at least 0\.1 s"):
        processor(text="say it", audio=[*recordings(), noise(0.05)], sampling_rate=16_000)


def test_recording_too_short_for_the_encoder_is_refused(processor):
    processor.encoder_convolutions = [[16_000, 320, 0]]
    assert len(processor.extract_features(noise(1.0), 16_000)) == 16_000
    with pytest.raises(ValueError, match=r"0\.500 s: too short, the encoder makes no frame"):
        processor(text="say it", audio=recordings()[0])


def test_bad_recording_is_refused_with_its_reason(processor):
    with pytest.raises(FileNotFoundError, match="'gone.wav' is not there"):
        processor(text="say it", audio="gone.wav")
    with pytest.raises(ValueError, match="has no rate: pass sampling_rate="):
        processor(text="say it", audio=noise(1.0))


def test_only_torch_tensors_are_made(processor):
    with pytest.raises(ValueError, match="return_tensors is 'np'; only 'pt'"):
        processor(text="say it", return_tensors="np")


def test_processor_without_convolutions_takes_text_alone(processor):
    text_only = SpeechVerseProcessor(processor.feature_extractor, processor.tokenizer)
    assert_same(text_only(text="say it"), processor(text="say it"))
    with pytest.raises(ValueError, match="does not know the model's convolutions"):
        text_only(text="say it", audio=recordings())


def test_empty_list_of_instructions_is_refused(processor):
    with pytest.raises(ValueError, match="nothing to encode"):
        processor(text=[])


# Forms of audio


@pytest.mark.parametrize(
    "audio", [noise(0.5), noise(0.5).tolist(), torch.from_numpy(noise(0.5)), [noise(0.5)], (noise(0.5),)]
)
def test_one_recording_may_come_bare_or_in_a_list(audio, processor):
    assert_same(processor(text="say it", audio=audio, sampling_rate=16_000), processor("say it", recordings()[:1]))


def test_a_row_is_extracted_from_its_own_samples(processor):
    """The feature extractor normalises: a loud neighbour must not change a quiet recording."""
    loud = {"array": 10 * noise(2.0, 7), "sampling_rate": 16_000}
    quiet = recordings()[0]
    together = processor(text="say it", audio=[quiet, loud])["input_values"][0, :8000]
    assert torch.equal(together, processor(text="say it", audio=quiet)["input_values"][0])
    assert together.std().item() == pytest.approx(1.0, abs=0.01)


# Answers


@every_llm
def test_generated_tokens_are_decoded(text):
    processor = processor_of(text)
    ids = torch.tensor([[6, 8, 1, 0], [7, 1, 0, 0]])
    assert processor.batch_decode(ids, skip_special_tokens=True) == ["yesred", "no"]
    assert processor.decode(ids[1]) == "no</s><pad><pad>"


# Checkpoints


@pytest.mark.parametrize("auto_class", [AutoProcessor, SpeechVerseProcessor])
@pytest.mark.parametrize("audio, text", [("wavlm", "t5"), ("whisper", "llama"), ("moonshine", "llama")])
def test_saved_and_loaded_processor_makes_the_same_inputs(auto_class, audio, text, tmp_path):
    model = tiny_model(audio, text, projector_strides=[3, 1])
    processor = tiny_processor(model, audio, text, tasks=TASKS)
    model.config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path)
    assert type(loaded) is SpeechVerseProcessor and loaded.tasks == TASKS
    for name in ("encoder_convolutions", "projector_convolutions", "max_audio_steps", "is_encoder_decoder"):
        assert getattr(loaded, name) == getattr(processor, name), name
    assert loaded.audio_token_id == processor.audio_token_id == model.config.audio_token_id
    assert len(loaded.tokenizer) == len(processor.tokenizer)
    call = {"text": "is <audio> red ?", "audio": recordings(), "text_target": ["yes", "no", "two"]}
    assert_same(loaded(**call), processor(**call))
    loaded.save_pretrained(tmp_path / "again")
    for name in ("processor_config.json", "tasks.json"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / name).read_text(), name


def test_checkpoint_says_each_thing_once(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["projector_convolutions"] == [[3, 2, 1], [3, 2, 1]]
    assert not {"tasks", "audio_token_id"} & saved.keys()
    assert [task["id"] for task in json.loads((tmp_path / "tasks.json").read_text())] == ["asr", "colour"]


def test_checkpoint_without_tasks_loads_and_knows_none(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    (tmp_path / "tasks.json").unlink()
    loaded = SpeechVerseProcessor.from_pretrained(tmp_path)
    assert len(loaded.tasks) == 0
    assert_same(loaded("say it", recordings()), processor("say it", recordings()))


def test_processor_is_made_from_the_folders_of_the_bases(tmp_path):
    audio_folder, text_folder = save_bases(tmp_path, "whisper", "llama")
    model = SpeechVerseForConditionalGeneration.from_foundations(audio_folder, text_folder)
    processor = SpeechVerseProcessor.for_model(model, tasks=TASKS)
    assert (processor.max_audio_steps, processor.is_encoder_decoder, processor.tasks) == (3000, False, TASKS)
    assert_same(processor("say it", recordings()), processor_of("llama", "whisper")("say it", recordings()))


@pytest.fixture
def adapter_alone(tmp_path, monkeypatch):
    """A model, and its checkpoint without tokenizer, feature extractor and code; its bases are where they are looked for."""

    def make(audio, text, left_out=()):
        bases = save_bases(tmp_path / "bases", audio, text)
        model = SpeechVerseForConditionalGeneration.from_foundations(*bases)
        folder = tmp_path / "checkpoint"
        model.save_pretrained(folder)
        SpeechVerseProcessor.for_model(model, tasks=TASKS).save_pretrained(folder)
        for file in folder.iterdir():
            if file.suffix in (".py", ".jinja") or file.name in ("tokenizer.json", "tokenizer_config.json"):
                file.unlink()
        config = json.loads((folder / "processor_config.json").read_text())
        kept = {name: value for name, value in config.items() if name not in left_out}
        (folder / "processor_config.json").write_text(json.dumps(kept))
        monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path / "bases"))
        return model, folder

    return make


@pytest.mark.parametrize("left_out", [(), ("feature_extractor",)])
@pytest.mark.parametrize("audio, text", [("wavlm", "t5"), ("whisper", "llama")])
def test_what_a_checkpoint_lacks_is_taken_from_its_bases(audio, text, left_out, adapter_alone):
    model, folder = adapter_alone(audio, text, left_out)
    loaded = AutoProcessor.from_pretrained(folder)
    expected = SpeechVerseProcessor.for_model(model, tasks=TASKS)
    ours, theirs = (one.to_dict() for one in (loaded, expected))
    del (
        ours["feature_extractor"],
        theirs["feature_extractor"],
    )  # a saved one has an auto_map; what it gives is compared below
    assert ours == theirs and loaded.tasks == TASKS
    assert loaded.tokenizer.chat_template == expected.tokenizer.chat_template
    call = {"text": "is <audio> red ?", "audio": recordings(), "text_target": ["yes", "no", "two"]}
    assert_same(loaded(**call), expected(**call))


def test_pipeline_answers_from_an_adapter_alone(adapter_alone):
    model, folder = adapter_alone("wavlm", "t5")
    inputs = {"audio": recordings()[0], "task": "colour"}
    expected = pipeline(
        "speech-instruction", model=model.eval(), processor=SpeechVerseProcessor.for_model(model, TASKS)
    )
    answer = pipeline("speech-instruction", model=str(folder))(inputs, max_new_tokens=3)
    assert answer == expected(inputs, max_new_tokens=3)


def test_bases_that_are_given_go_before_the_recorded_ones(adapter_alone, monkeypatch, tmp_path):
    _, folder = adapter_alone("wavlm", "t5", ("feature_extractor",))
    monkeypatch.delenv("SPEECHVERSE_FOUNDATIONS")
    given = {"audio_base": tmp_path / "bases" / "tiny-wavlm", "text_base": tmp_path / "bases" / "tiny-t5"}
    assert AutoProcessor.from_pretrained(folder, **given).tasks == TASKS
    tokenizer = tiny_tokenizer("t5")
    tokenizer.add_tokens(["purple"])
    tokenizer.save_pretrained(given["text_base"])
    with pytest.raises(ValueError, match="gives <audio> the id 24, the model expects 23.*not of the same base"):
        AutoProcessor.from_pretrained(folder, **given)


def test_missing_base_of_a_missing_tokenizer_is_named(adapter_alone, monkeypatch):
    _, folder = adapter_alone("wavlm", "t5")
    monkeypatch.delenv("SPEECHVERSE_FOUNDATIONS")
    with pytest.raises(
        FileNotFoundError,
        match="base model 'tiny-t5' is not a folder.*speechverse-foundations --source packages --out DIR",
    ):
        SpeechVerseProcessor.from_pretrained(folder)


def test_checkpoint_without_tokenizer_and_without_recorded_base_is_refused(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="records no audio_base: pass audio_base= with its folder"):
        SpeechVerseProcessor.from_pretrained(tmp_path)


def test_tokenizer_of_another_base_is_refused():
    tokenizer = tiny_tokenizer("t5")
    tokenizer.add_tokens(["purple"])
    with pytest.raises(ValueError, match="gives <audio> the id 24, the model expects 23.*not of the same base"):
        SpeechVerseProcessor.for_model(
            tiny_model(), feature_extractor=tiny_feature_extractor("wavlm"), tokenizer=tokenizer
        )


def test_tokenizer_without_padding_pads_with_its_end_token():
    tokenizer = tiny_tokenizer("llama")
    tokenizer.pad_token = None
    processor = SpeechVerseProcessor(tiny_feature_extractor("wavlm"), tokenizer, [], [], is_encoder_decoder=False)
    batch = processor(text=["say it", "what is said ?"])
    assert batch["input_ids"][0, 0] == tokenizer.eos_token_id and batch["attention_mask"][0, 0] == 0
