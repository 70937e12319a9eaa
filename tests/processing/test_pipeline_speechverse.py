"""`pipeline("speech-instruction")` as a user calls it."""

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import noise, save_bases, tiny_model, tiny_processor
from tokenizers import decoders
from transformers import pipeline

from speechverse import SpeechInstructionPipeline, SpeechVerseForConditionalGeneration, Task, TaskBank


ASK = "which colour ?"
SECONDS = (0.5, 1.0, 0.7)
SEEDS = {"t5": 12, "llama": 26}  # models that answer each recording differently
TASKS = TaskBank(
    [
        Task("asr", "speech-recognition", "ASR", ["say it"]),
        Task("er", "emotion-recognition", "Emotion", [ASK], {"happy": "glad", "sad": "down"}),
    ]
)

every_llm = pytest.mark.parametrize("ask", ["t5", "llama"], indirect=True)


def talkative(model):
    """Keeps a random model to a few words, and from saying nothing."""
    model.generation_config.update(max_new_tokens=6, suppress_tokens=[0, 2, 3], do_sample=False)
    return model


def spaced(processor):
    """Puts spaces between the words of the tiny tokenizer."""
    processor.tokenizer.backend_tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return processor


@pytest.fixture
def ask(request):
    text = getattr(request, "param", "llama")
    model = talkative(tiny_model(text=text, seed=SEEDS[text]))
    processor = spaced(tiny_processor(model, text=text, tasks=TASKS))
    return pipeline("speech-instruction", model=model, processor=processor, constrained=False)


@pytest.fixture
def recordings():
    return [{"array": noise(seconds, seed), "sampling_rate": 16_000} for seed, seconds in enumerate(SECONDS)]


@pytest.fixture
def files(tmp_path, recordings):
    paths = [tmp_path / f"{index}.wav" for index in range(len(recordings))]
    for path, recording in zip(paths, recordings, strict=True):
        soundfile.write(path, recording["array"], 16_000, subtype="FLOAT")
    return [str(path) for path in paths]


@pytest.fixture
def answers(ask, recordings):
    """What each recording gives when it is asked about alone."""
    answers = [ask(recording, ASK) for recording in recordings]
    assert len({answer["text"] for answer in answers}) == len(answers) and all(answer["text"] for answer in answers)
    return answers


# One input


@every_llm
def test_recording_and_instruction_give_text_and_answer(ask, recordings, answers):
    assert isinstance(ask, SpeechInstructionPipeline)
    assert answers[0].keys() == {"text", "answer", "truncated"}  # six words, and not yet at its end
    assert answers[0]["answer"] == answers[0]["text"] == answers[0]["text"].strip()
    sequences = ask.model.generate(**ask.processor(text=ASK, audio=recordings[0]))
    assert answers[0]["text"] == ask.processor.decode(sequences[0], skip_special_tokens=True).strip()


@every_llm
def test_every_form_of_one_input_gives_the_same_answer(ask, recordings, files, answers):
    array = recordings[0]["array"]
    with open(files[0], "rb") as file:
        content = file.read()
    for audio in (files[0], content, recordings[0], {"path": files[0]}, {"bytes": content}):
        assert ask(audio, ASK) == answers[0]
        assert ask({"audio": audio, "instruction": ASK}) == answers[0]
        assert ask({"audio": [audio]}, instruction=ASK) == answers[0]
    for audio in (array, torch.from_numpy(array)):
        assert ask(audio, ASK, sampling_rate=16_000) == answers[0]
        assert ask({"audio": audio, "sampling_rate": 16_000}, ASK) == answers[0]
    assert ask({"audio": array.tolist()}, ASK, sampling_rate=16_000) == answers[0]


def test_rate_of_a_bare_array_matters(ask, recordings):
    array = recordings[0]["array"]
    slow = ask({"array": array, "sampling_rate": 8000}, ASK)
    assert ask(array, ASK, sampling_rate=8000) == slow
    assert ask([array], ASK, sampling_rate=8000) == [slow]
    with pytest.raises(ValueError, match="has no rate: pass sampling_rate="):
        ask(array, ASK)


def test_other_columns_of_a_row_are_not_taken_for_the_recording(ask, recordings, answers):
    row = {"client_id": "7", "path": "elsewhere.mp3", "audio": recordings[0], "sentence": "yes", "instruction": ASK}
    assert ask(row) == answers[0]


def test_what_comes_with_an_input_goes_before_the_calls(ask, recordings, answers):
    assert ask({"audio": recordings[0], "instruction": ASK}, "say it") == answers[0]
    assert ask({"audio": recordings[0]}, "say it") != answers[0]


@every_llm
def test_several_recordings_in_one_instruction(ask, recordings):
    instruction = "is <audio> red or <audio> blue ?"
    both = ask({"audio": recordings[:2], "instruction": instruction})
    sequences = ask.model.generate(**ask.processor(text=instruction, audio=recordings[:2]))
    assert both["text"] == ask.processor.decode(sequences[0], skip_special_tokens=True).strip()
    assert ask({"audio": tuple(recordings[:2])}, instruction) == both
    mixed = [{"audio": recordings[:2], "instruction": instruction}, {"audio": recordings[2], "instruction": ASK}]
    assert ask(mixed, batch_size=2) == [both, ask(recordings[2], ASK)]


# Many inputs


@every_llm
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batches_of_any_size_give_the_same_answers(batch_size, ask, recordings, files, answers):
    assert ask(recordings, ASK, batch_size=batch_size) == answers
    assert ask(tuple(files), ASK, batch_size=batch_size) == answers
    rows = [{"audio": file, "instruction": ASK} for file in files]
    assert ask(rows, batch_size=batch_size) == answers


@every_llm
def test_an_instruction_for_each_recording(ask, recordings):
    instructions = [ASK, "say it", "what is said ?"]
    expected = [ask(recording, text) for recording, text in zip(recordings, instructions, strict=True)]
    assert ask(recordings, instructions) == ask(tuple(recordings), tuple(instructions), batch_size=2) == expected
    assert ask([{"audio": recording} for recording in recordings], instructions, batch_size=3) == expected


def test_numbers_of_instructions_and_recordings_must_match(ask, recordings):
    with pytest.raises(ValueError, match="2 instructions for 3 inputs; give one for each"):
        ask(recordings, [ASK, ASK])


def test_no_inputs_give_no_answers(ask):
    assert ask([], ASK) == ask((), ASK) == []


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_torch_dataset_is_answered_row_by_row(batch_size, ask, recordings, answers):
    assert list(ask(Rows(recordings), ASK, batch_size=batch_size)) == answers
    rows = Rows([{"audio": recording, "instruction": ASK} for recording in recordings])
    outputs = ask(rows, batch_size=batch_size)
    assert len(outputs) == -(-3 // batch_size)
    assert list(outputs) == answers


@pytest.mark.parametrize("batch_size", [1, 2])
def test_generator_is_answered_while_it_runs(batch_size, ask, recordings, answers):
    taken = []

    def incoming():
        for index, recording in enumerate(recordings * 2):
            taken.append(index)
            yield recording

    outputs = iter(ask(incoming(), ASK, batch_size=batch_size))
    assert next(outputs) == answers[0]
    assert len(taken) == batch_size
    assert list(outputs) == (answers * 2)[1:]
    assert len(taken) == 6


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_datasets_dataset_of_files(streaming, batch_size, ask, files, answers):
    datasets = pytest.importorskip("datasets")
    rows = {"audio": files, "path": ["elsewhere"] * 3, "instruction": [ASK] * 3}
    dataset = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
    dataset = dataset.to_iterable_dataset() if streaming else dataset
    assert list(ask(dataset, batch_size=batch_size)) == answers


def test_datasets_dataset_of_arrays(ask, recordings, answers):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"audio": [recording["array"] for recording in recordings]})
    assert list(ask(dataset, ASK, sampling_rate=16_000)) == answers
    assert list(ask(dataset.with_format("torch"), ASK, sampling_rate=16_000)) == answers


# Generation


def test_generate_arguments_reach_generate(ask, recordings, answers):
    short = ask(recordings[0], ASK, max_new_tokens=2)["text"]
    assert len(short.split()) == 2 and answers[0]["text"].startswith(short)
    assert ask(recordings[0], ASK, generate_kwargs={"max_new_tokens": 2})["text"] == short
    with pytest.raises(ValueError, match="max_new_toks"):
        ask(recordings[0], ASK, max_new_toks=2)


def test_arguments_of_the_pipeline_are_defaults_of_its_calls(ask, recordings):
    defaults = {"max_new_tokens": 2, "instruction": ASK, "batch_size": 2}
    brief = pipeline("speech-instruction", model=ask.model, processor=ask.processor, **defaults)
    assert brief(recordings) == ask(recordings, ASK, max_new_tokens=2)
    assert brief(recordings[0], max_new_tokens=4) == ask(recordings[0], ASK, max_new_tokens=4)
    assert brief(recordings[0], "say it") == ask(recordings[0], "say it", max_new_tokens=2)


@every_llm
def test_n_best_answers_come_as_a_list_for_each_input(ask, recordings):
    beams = {"num_beams": 3, "num_return_sequences": 2}
    n_best = [ask(recording, ASK, **beams) for recording in recordings]
    for recording, answers in zip(recordings, n_best, strict=True):
        assert [answer.keys() for answer in answers] == [{"text", "answer", "truncated"}] * 2
        assert answers[0] == ask(recording, ASK, num_beams=3)
        assert answers[0] != answers[1]
    assert ask(recordings, ASK, **beams) == ask(recordings, ASK, batch_size=2, **beams) == n_best


@every_llm
def test_callback_is_handed_the_answer_piece_by_piece(ask, recordings, answers):
    pieces = []
    answer = ask(recordings[0], ASK, callback=pieces.append)
    assert answer == answers[0]
    assert len(pieces) > 1 and all(pieces)
    assert "".join(pieces).strip() == answer["text"]


def test_callback_hears_one_answer_after_the_other(ask, recordings, answers):
    pieces = []
    ask(recordings, ASK, callback=pieces.append)
    heard = "".join(pieces)
    for answer in answers:
        assert heard.startswith(answer["text"])
        heard = heard.removeprefix(answer["text"]).lstrip()
    assert not heard


# Tasks


@pytest.fixture
def ask_mood(ask, answers):
    """A pipeline whose first recording sounds happy: the label is what the model says of it."""
    label = answers[0]["text"].upper()
    ask.processor.tasks = TaskBank(
        [Task("er", "emotion-recognition", "Emotion", [ASK], {label: "glad", "sad": "down"})]
    )
    return ask


@every_llm
def test_task_gives_a_typed_answer(ask_mood, recordings, answers):
    label = answers[0]["text"].upper()
    typed = {"text": answers[0]["text"], "answer": label, "truncated": True}
    untyped = {"text": answers[1]["text"], "answer": None, "unread": [answers[1]["text"]], "truncated": True}
    assert ask_mood(recordings[0], task="er") == typed
    assert ask_mood({"audio": recordings[0], "task": "emotion-recognition"}) == typed
    assert ask_mood(recordings[:2], task="er", batch_size=2) == [typed, untyped]
    mixed = [{"audio": recordings[0], "instruction": ASK}, {"audio": recordings[0], "task": "er"}]
    assert ask_mood(mixed, batch_size=2) == [answers[0], typed]


def test_each_of_the_n_best_is_typed(ask_mood, recordings):
    found = ask_mood(recordings[:2], task="er", num_beams=3, num_return_sequences=3, batch_size=2)
    for answer in (answer for answers in found for answer in answers):
        assert answer["answer"] == ask_mood.processor.parse(answer["text"], "er")


def test_free_text_task_answers_with_the_text(ask, recordings):
    answer = ask(recordings[0], task="asr")
    assert answer == ask(recordings[0], "say it") and answer["answer"] == answer["text"] != ""


@pytest.fixture
def ask_keyword(ask):
    ask.processor.tasks = TaskBank(
        [
            Task("asr", "speech-recognition", "ASR", ["say it"]),
            Task(
                "kws", "keyword-search", "KWS", ["is {keyword} said ? {labels}"], {"yes": "it is", "no": "it is not"}
            ),
        ]
    )
    return ask


def answer_with(ask, monkeypatch, *texts):
    """Lets the pipeline's model write these texts, one an input."""
    remaining = iter(texts)
    monkeypatch.setattr(ask.processor, "batch_decode", lambda ids, **_: [next(remaining) for _ in ids])


def test_what_a_task_asks_for_comes_with_the_input_or_the_call(ask_keyword, recordings):
    red = ask_keyword(recordings[0], "is red said ? yes or no")["text"]
    blue = ask_keyword(recordings[0], "is blue said ? yes or no")["text"]
    assert red != blue
    assert ask_keyword({"audio": recordings[0], "task": "kws", "keyword": "red"})["text"] == red
    assert ask_keyword(recordings[0], task="kws", keyword="red")["text"] == red
    assert ask_keyword({"audio": recordings[0], "keyword": "blue"}, task="kws", keyword="red")["text"] == blue
    rows = [{"audio": recordings[0], "task": "kws", "keyword": word} for word in ("red", "blue")]
    assert [answer["text"] for answer in ask_keyword(rows, batch_size=2)] == [red, blue]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_labels_of_an_input_are_asked_for_and_read(batch_size, ask_keyword, recordings, monkeypatch):
    row = {"audio": recordings[0], "task": "kws", "keyword": "red"}
    asked = ask_keyword.preprocess({**row, "labels": {"one": "two", "two": "one"}}, constrained=False)
    filled_in = ask_keyword.preprocess(
        {"audio": recordings[0], "instruction": "is red said ? one (two); or two (one)"}
    )
    assert asked["input_ids"] == filled_in["input_ids"]
    rows = [row, {**row, "labels": ["one", "two"]}, {"audio": recordings[0], "task": "asr"}]
    answer_with(ask_keyword, monkeypatch, "Two.", "Two.", "Two.")
    answers = ask_keyword(rows, batch_size=batch_size)
    assert [answer["answer"] for answer in answers] == [None, "two", "Two."]
    answer_with(ask_keyword, monkeypatch, "Two.", "yes")
    answers = ask_keyword([row, row], labels=["one", "two"], batch_size=batch_size)
    assert [answer["answer"] for answer in answers] == ["two", None]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_several_tasks_are_answered_together(batch_size, ask_keyword, recordings, monkeypatch):
    row = {"audio": recordings[0], "task": ["asr", "kws"], "keyword": "red"}
    instruction = ask_keyword.processor.tasks.joint(["asr", "kws"]).instruction(keyword="red")
    assert ask_keyword(row)["text"] == ask_keyword(recordings[0], instruction)["text"]
    texts = ("ASR: it is red | KWS: yes |", "ASR: it is red | KWS: maybe |", "yes")
    answer_with(ask_keyword, monkeypatch, *texts)
    assert ask_keyword([row] * 3, batch_size=batch_size) == [
        {"text": texts[0], "answer": {"asr": "it is red", "kws": "yes"}, "truncated": True},
        {"text": texts[1], "answer": {"asr": "it is red", "kws": None}, "unread": ["maybe"], "truncated": True},
        {"text": texts[2], "answer": None, "unread": ["yes"], "truncated": True},
    ]
    answer_with(ask_keyword, monkeypatch, texts[0])
    joint = ask_keyword(recordings[0], task=["asr", "kws"], keyword="red", labels={"kws": ["YES", "NO"]})
    assert joint["answer"]["kws"] == "YES"


@pytest.mark.parametrize(
    "row, arguments, message",
    [
        ({"task": "kws"}, {}, "Task 'kws' needs keyword, as text"),
        ({"task": "kws", "keyword": None}, {}, "Task 'kws' needs keyword, as text"),
        ({"task": ["asr", "kws"]}, {}, "Task 'kws' needs keyword, as text"),
        ({"task": "kws", "keyword": "red", "labels": "one"}, {}, "labels are 'one', not a list of texts"),
        ({"task": ["asr", "asr"]}, {}, "holds a task twice"),
        ({"task": 7}, {}, "The task is 7"),
        ({"instruction": ASK}, {"labels": ["one"]}, "need a task; an input has an instruction instead"),
        ({"instruction": ASK}, {"keyword": "red"}, "need a task; an input has an instruction instead"),
    ],
)
def test_mistake_in_asking_a_task_is_named(row, arguments, message, ask_keyword, recordings):
    with pytest.raises(ValueError, match=message):
        ask_keyword({"audio": recordings[0], **row}, **arguments)


def test_task_of_one_yaml_file_travels_with_the_checkpoint(joined, files, tmp_path, monkeypatch):
    """A new task needs no code: a file, and it is asked by its id, alone or beside others."""
    (tmp_path / "colour.yaml").write_text(
        """
id: colour
name: colour-naming
tag: Colour
prompts:
  - which colour is the {thing} ? {labels}
  - say which colour the {thing} is . {labels}
held_out_prompts:
  - what colour is the {thing} ? {labels}
labels:
  red: like blood
  blue: like the sky
metric: accuracy
"""
    )
    model, processor = joined
    processor.tasks = TaskBank.from_yaml(tmp_path / "colour.yaml")
    processor.tasks.add(TASKS["asr"])
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    loaded = pipeline("speech-instruction", model=str(tmp_path / "saved"), constrained=False)
    assert loaded.processor.tasks == processor.tasks and loaded.processor.tasks["colour"].metric == "accuracy"
    answer = loaded({"audio": files[0], "task": "colour", "thing": "sky"})
    assert answer["text"] == loaded(files[0], "which colour is the sky ? red or blue")["text"]
    assert loaded.processor.parse("Blue!", "colour-naming") == "blue"
    answer_with(loaded, monkeypatch, "ASR: the sky is blue | Colour: Blue |")
    joint = loaded({"audio": files[0], "task": ["asr", "colour"], "thing": "sky"})
    assert joint["answer"] == {"asr": "the sky is blue", "colour": "blue"}


# Mistakes


@pytest.mark.parametrize(
    "inputs, arguments, message",
    [
        ({"instruction": ASK}, {}, r"no recording: give a path, or a dict with 'audio'; it has instruction"),
        ({"wav": "call.wav"}, {"instruction": ASK}, "no recording.*it has wav"),
        ({"audio": None}, {"instruction": ASK}, "no recording"),
        ({"audio": []}, {"instruction": ASK}, "no recording"),
        (None, {"instruction": ASK}, "no recording"),
        (np.zeros(16_000), {}, "needs an instruction or a task"),
        ({"audio": np.zeros(16_000)}, {}, "needs an instruction or a task"),
        ({"audio": np.zeros(16_000), "instruction": None}, {}, "needs an instruction or a task"),
        (np.zeros(16_000), {"instruction": ASK, "task": "er"}, "needs an instruction or a task, and not both"),
        ({"audio": np.zeros(16_000), "instruction": ASK, "task": "er"}, {}, "and not both"),
        (np.zeros(16_000), {"instruction": "<audio> or <audio> ?"}, "2 <audio> placeholders for 1 recordings"),
        ({"audio": [np.zeros(16_000)] * 2}, {"instruction": ASK}, "0 <audio> placeholders for 2 recordings"),
        ({"audio": [np.zeros(16_000)] * 2}, {"instruction": "is <audio> red ?"}, "1 <audio> placeholders for 2"),
    ],
)
def test_mistake_in_the_input_is_named(inputs, arguments, message, ask):
    with pytest.raises(ValueError, match=message):
        ask(inputs, sampling_rate=16_000, **arguments)
    with pytest.raises(ValueError, match=message):
        ask([inputs], sampling_rate=16_000, batch_size=2, **arguments)


def test_unknown_task_lists_the_known_ones(ask, recordings):
    with pytest.raises(KeyError, match="no task 'slu'; it knows asr, er"):
        ask(recordings[0], task="slu")


def test_missing_file_is_named(ask, files):
    with pytest.raises(FileNotFoundError, match="'gone.wav' is not there"):
        ask([files[0], "gone.wav"], ASK, batch_size=2)


# Saved checkpoints


@pytest.fixture
def joined(tmp_path, monkeypatch):
    """A model on tiny bases that has learned something, and its processor."""
    save_bases(tmp_path / "bases", text="llama")
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(tmp_path / "bases"))
    model = SpeechVerseForConditionalGeneration.from_foundations("tiny-wavlm", "tiny-llama", lora_rank=2)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    return talkative(model), tiny_processor(model, text="llama", tasks=TASKS)


@pytest.mark.parametrize("standalone", [False, True], ids=["adapter", "standalone"])
def test_pipeline_from_a_saved_folder_answers_the_same(standalone, joined, tmp_path, files, monkeypatch):
    model, processor = joined
    model.save_pretrained(tmp_path / "saved", standalone=standalone)
    processor.save_pretrained(tmp_path / "saved")
    if standalone:
        monkeypatch.delenv("SPEECHVERSE_FOUNDATIONS")
    loaded = pipeline("speech-instruction", model=str(tmp_path / "saved"))
    fresh = pipeline("speech-instruction", model=model, processor=processor)
    assert loaded.model is not model and not loaded.model.training
    expected = fresh(files, ASK)
    assert loaded(files, ASK, batch_size=2) == expected and all(answer["text"] for answer in expected)
    assert loaded(files[0], task="er", constrained=False)["answer"] is None


@pytest.mark.parametrize("standalone", [None, True], ids=["adapter", "standalone"])
def test_pipeline_saves_what_a_pipeline_loads(standalone, joined, tmp_path, files):
    model, processor = joined
    fresh = pipeline("speech-instruction", model=model, processor=processor)
    fresh.save_pretrained(tmp_path / "saved", standalone=standalone)
    assert pipeline("speech-instruction", model=str(tmp_path / "saved"))(files, ASK) == fresh(files, ASK)


def test_folder_without_a_processor_is_refused_by_name(joined, tmp_path):
    joined[0].save_pretrained(tmp_path / "saved")
    with pytest.raises(Exception, match="(?s)saved.*processor|processor.*saved"):
        pipeline("speech-instruction", model=str(tmp_path / "saved"))
