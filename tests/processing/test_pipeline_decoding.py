"""How the pipeline's answers are decoded: held to a form, scored, hinted at, several at once, or refused for want of speech."""

import pytest
import torch
from tiny_models import noise, tiny_speller
from transformers import GenerationConfig, pipeline

from speechverse import Task, TaskBank


MOODS = {"happy": "glad", "sad": "down", "not sad": "neither"}
TASKS = [
    Task("asr", "speech-recognition", "ASR", ["write it"]),
    Task("er", "emotion-recognition", "Emotion", ["{labels}?"], MOODS),
    Task("sf", "slot-filling", "SF", ["{labels}?"], {"date": "", "name": ""}, "slots"),
    Task("kws", "keyword-search", "KWS", ["is {keyword} said? {labels}"], {"yes": "", "no": ""}),
    Task("sns", "speech-detection", "Speech", ["{labels}?"], {"speech": "", "not speech": ""}),
]
every_llm = pytest.mark.parametrize("ask", ["t5", "llama"], indirect=True)
SECONDS = (0.5, 1.0, 0.7)


@pytest.fixture
def ask(request):
    model, processor = tiny_speller(text=getattr(request, "param", "t5"), seed=3, tasks=TaskBank(TASKS))
    model.generation_config.update(max_new_tokens=12, do_sample=False)
    return pipeline("speech-instruction", model=model, processor=processor)


@pytest.fixture
def recordings():
    return [{"array": noise(seconds, seed), "sampling_rate": 16_000} for seed, seconds in enumerate(SECONDS)]


# Held to a form


@every_llm
def test_a_label_task_is_answered_by_a_label(ask, recordings):
    for recording in recordings:
        answer = ask(recording, task="er")
        assert answer.keys() == {"text", "answer"} and answer["answer"] == answer["text"] in MOODS
    free = ask(recordings[0], task="er", constrained=False)
    assert free["answer"] is None and free["text"] not in MOODS


@every_llm
def test_other_labels_hold_the_answer_in_place_of_the_tasks_own(ask, recordings):
    labels = {"wants money back": "a refund", "REFUND": "a refund", "wants": ""}
    for options in ({}, {"num_beams": 3}, {"do_sample": True}):
        assert ask(recordings[0], task="er", labels=labels, **options)["answer"] in labels


@every_llm
def test_slots_and_joint_answers_are_whole(ask, recordings):
    slots = ask(recordings[0], task="sf", max_new_tokens=40)
    assert slots["answer"] is not None and "unread" not in slots
    assert {slot["label"] for slot in slots["answer"]} <= {"date", "name"}
    joint = ask({"audio": recordings[0], "task": ["asr", "er", "sf"]}, max_new_tokens=90)
    assert joint["answer"]["er"] in MOODS and joint["answer"]["asr"] and joint["answer"]["sf"] is not None
    assert joint["text"].startswith("ASR:") and joint["text"].endswith("|")


@every_llm
@pytest.mark.parametrize("batch_size", [1, 3])
def test_kinds_of_decoding_may_be_mixed(ask, batch_size, recordings):
    rows = [
        {"audio": recordings[0], "task": "er"},
        {"audio": recordings[1], "task": "asr"},
        {"audio": recordings[2], "task": ["asr", "er"]},
        {"audio": recordings[0], "instruction": "write it"},
        {"audio": recordings[1], "task": "er", "labels": ["one", "two hundred"]},
        {"audio": recordings[2], "task": "kws", "keyword": "a"},
    ]
    options = {"max_new_tokens": 60}
    assert ask(rows, batch_size=batch_size, **options) == [ask(row, **options) for row in rows]


def test_the_best_of_n_are_different_labels(ask, recordings):
    answers = ask(recordings[0], task="er", num_beams=3, num_return_sequences=3)
    assert {answer["answer"] for answer in answers} == set(MOODS)
    scores = ask(recordings[0], task="er", return_scores=True)["scores"]
    assert [answer["answer"] for answer in answers] == list(scores)


def test_an_answer_that_was_cut_off_says_so(ask, recordings):
    assert ask(recordings[0], "write it", max_new_tokens=3)["truncated"] is True
    assert "truncated" not in ask(recordings[0], task="er")


def test_pieces_of_a_label_are_streamed(ask, recordings):
    pieces = []
    answer = ask(recordings[0], task="er", callback=pieces.append)
    assert "".join(pieces).strip() == answer["text"] in MOODS


# Scores


@every_llm
def test_scores_share_out_one(ask, recordings):
    scored = ask(recordings[0], task="er", return_scores=True)
    assert scored["answer"] == scored["text"] == next(iter(scored["scores"]))
    assert set(scored["scores"]) == set(MOODS) and sum(scored["scores"].values()) == pytest.approx(1)
    assert scored["score"] == max(scored["scores"].values())
    model, processor = ask.model, ask.processor
    expected = model.score_labels(processor.label_ids("er"), **processor(audio=recordings[0], task="er"))[0].softmax(
        -1
    )
    assert [scored["scores"][label] for label in MOODS] == pytest.approx(expected.tolist(), abs=1e-5)


@every_llm
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batches_are_scored_as_single_inputs_are(ask, batch_size, recordings):
    rows = [{"audio": recording, "task": "er"} for recording in recordings]
    rows[1]["labels"] = ["one", "two", "three", "four"]
    single = [ask(row, return_scores=True) for row in rows]
    for one, other in zip(ask(rows, return_scores=True, batch_size=batch_size), single, strict=True):
        assert one["answer"] == other["answer"] and one["scores"] == pytest.approx(other["scores"], abs=1e-4)


def test_top_k_and_min_score(ask, recordings):
    every = ask(recordings[0], task="er", return_scores=True)
    two = ask(recordings[0], task="er", top_k=2)
    assert two["scores"] == dict(list(every["scores"].items())[:2])
    assert ask(recordings[0], task="er", min_score=every["score"] - 1e-6)["answer"] == every["answer"]
    unsure = ask(recordings[0], task="er", min_score=min(1.0, every["score"] + 1e-6))
    assert unsure == {"text": every["text"], "answer": None, "score": every["score"]}


def test_a_tasks_temperature_flattens_its_scores(ask, recordings, tmp_path):
    sharp = ask(recordings[0], task="er", return_scores=True)["scores"]
    tasks = [Task("er", "emotion-recognition", "Emotion", ["{labels}?"], MOODS, temperature=4.0)]
    ask.processor.tasks = TaskBank(tasks)
    flat = ask(recordings[0], task="er", return_scores=True)["scores"]
    logits = torch.tensor(list(sharp.values())).double().log() / 4
    assert list(flat.values()) == pytest.approx(logits.softmax(-1).tolist()) and list(flat) == list(sharp)
    ask.processor.tasks.to_json(tmp_path / "tasks.json")
    assert TaskBank.from_json(tmp_path / "tasks.json")["er"].temperature == 4.0


# Several questions


@every_llm
def test_several_questions_run_the_encoder_once(ask, recordings, monkeypatch):
    questions = ["write it", {"task": "er"}, {"task": "kws", "keyword": "a"}, {"task": ["asr", "er"]}]
    options = {"max_new_tokens": 50}
    apart = [ask(recordings[0], **({"instruction": q} if isinstance(q, str) else q), **options) for q in questions]
    runs = []
    tower = ask.model.audio_tower.register_forward_hook(lambda *_: runs.append(1))
    assert ask(recordings[0], questions, **options) == apart
    assert len(runs) == 1
    rows = [{"audio": recording, "instruction": questions} for recording in recordings]
    together = ask(rows, batch_size=3, **options)
    assert len(runs) == 2 and together[0] == apart and [len(answers) for answers in together] == [4] * 3
    tower.remove()
    assert together == [ask(row, **options) for row in rows]
    assert ask(recordings[0], ["write it"], **options) == apart[:1]


def test_several_questions_are_streamed_one_after_the_other(ask, recordings):
    pieces = []
    answers = ask(recordings[0], ["write it", {"task": "er"}], callback=pieces.append)
    assert "".join(pieces).replace(" ", "") == "".join(answer["text"] for answer in answers).replace(" ", "")


def test_inputs_may_bring_different_numbers_of_questions(ask, recordings):
    rows = [
        {"audio": recordings[0], "instruction": ["write it", {"task": "er"}]},
        {"audio": recordings[1], "task": "er"},
        {"audio": recordings[2], "instruction": [{"task": "er"}]},
    ]
    answers = ask(rows, batch_size=3)
    assert answers == [ask(row) for row in rows]
    assert [type(answer) for answer in answers] == [list, dict, list]


# Hints


@every_llm
def test_hints_draw_an_answer_to_them(ask, recordings):
    plain = ask(recordings[0], task="asr")
    assert ask(recordings[0], task="asr", hints=["zebra"], hint_bonus=0.0) == plain
    assert "zebra" in ask(recordings[0], task="asr", hints=["zebra"], hint_bonus=50.0)["text"]
    rows = [{"audio": recording, "task": "asr"} for recording in recordings]
    batch = ask(rows, hints=["zebra"], hint_bonus=3.0, batch_size=3)
    assert batch == [ask(row, hints=["zebra"], hint_bonus=3.0) for row in rows]


def test_hints_reach_the_free_part_of_a_joint_answer(ask, recordings):
    joint = ask({"audio": recordings[0], "task": ["asr", "er"]}, hints=["zebra"], hint_bonus=50.0, max_new_tokens=50)
    assert "zebra" in joint["answer"]["asr"] and joint["answer"]["er"] in MOODS


# No speech


def test_a_recording_without_speech_is_not_answered(ask, recordings):
    answers = ask(recordings, task="asr", no_speech_threshold=1.0)
    silence = [answer["no_speech"] for answer in answers]
    scores = [ask(recording, task="sns", return_scores=True)["scores"]["not speech"] for recording in recordings]
    assert silence == pytest.approx(scores, abs=1e-5) and len(set(silence)) == 3
    for answer, recording in zip(answers, recordings, strict=True):
        assert {name: answer[name] for name in answer if name != "no_speech"} == ask(recording, task="asr")
    middle = sorted(silence)[1]
    for batch_size in (1, 3):
        refused = ask(recordings, task="asr", no_speech_threshold=middle, batch_size=batch_size)
        for answer, full in zip(refused, answers, strict=True):
            silent = full["no_speech"] > middle
            assert answer["text"] == ("" if silent else full["text"]) and answer["no_speech"] == pytest.approx(
                full["no_speech"]
            )
    nothing = ask(recordings[0], task="er", no_speech_threshold=0.0)
    assert nothing == {"text": "", "answer": None, "no_speech": pytest.approx(silence[0], abs=1e-5)}


def test_detecting_speech_runs_the_encoder_once(ask, recordings):
    runs = []
    ask.model.audio_tower.register_forward_hook(lambda *_: runs.append(1))
    ask(recordings[0], ["write it", {"task": "er"}], no_speech_threshold=1.0)
    assert len(runs) == 1


# Mistakes


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"task": "asr", "constrained": True}, "Task 'asr' answers with free text"),
        ({"instruction": "write it", "constrained": True}, "need a task; an input has an instruction"),
        ({"instruction": "write it", "return_scores": True}, "need a task; an input has an instruction"),
        ({"task": "asr", "return_scores": True}, "Task 'asr' has no labels to score"),
        ({"task": ["asr", "er"], "top_k": 2}, r"Task 'asr\+er' has no labels to score"),
        (
            {"task": "er", "return_scores": True, "hints": ["a"]},
            "leave them out where the answer is one of several labels",
        ),
        ({"task": "er", "return_scores": True, "num_beams": 3}, "not written: leave out num_beams"),
        ({"task": "er", "top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"task": "er", "min_score": 2}, "min_score is 2; it must be at least 0 and at most 1"),
        ({"task": "asr", "no_speech_threshold": -1}, "no_speech_threshold is -1; it must be at least 0"),
        ({"task": "asr", "hints": "zebra"}, "hints are 'zebra'; they are a list of words"),
        ({"task": "asr", "hints": ["a", " "]}, "they are a list of words, none of them empty"),
        ({"task": "asr", "hints": ["\u6771"]}, "has a letter for which the LLM has no token"),
        ({"task": "er", "labels": ["\u6771", "\u4eac"]}, "are the same to this tokenizer.*constrained=False"),
        ({"task": "er", "max_new_tokens": 2}, "max_new_tokens=2 is too few"),
        ({"task": "er", "min_new_tokens": 2}, "leave out min_new_tokens"),
        ({"instruction": []}, "The list of instructions is empty"),
        ({"instruction": ["write it", 7]}, "An input's instruction is 7"),
        ({"instruction": ["write it"], "task": "er"}, "and not both"),
    ],
)
def test_mistake_in_how_to_decode_is_named(asked, message, ask, recordings):
    with pytest.raises(ValueError, match=message):
        ask(recordings[0], **asked)


def test_speech_detection_needs_its_task(ask, recordings):
    ask.processor.tasks = TaskBank(TASKS[:2])
    with pytest.raises(ValueError, match="needs a model that was taught speech detection: the task 'sns'"):
        ask(recordings[0], task="asr", no_speech_threshold=0.5)
    with pytest.raises(ValueError, match="inputs of one recording each"):
        ask({"audio": recordings[:2], "instruction": "is <audio> like <audio>?"}, no_speech_threshold=0.5)


# A task in other words


def test_a_task_may_be_put_in_other_words(ask, recordings):
    words = "is it happy (glad); sad (down); or not sad (neither)?"
    expected = ask(recordings[0], words)["text"]
    described = ask(recordings[0], task="er", prompt="is it {labels}?", describe=True, constrained=False)
    assert described["text"] == expected
    row = {"audio": recordings[0], "task": "er", "prompt": "is it {labels}?", "describe": True}
    assert ask(row, constrained=False) == described and ask(row)["answer"] in MOODS
    plain = ask({**row, "describe": False}, constrained=False)["text"]
    assert plain == ask(recordings[0], "is it happy, sad or not sad?")["text"]
    with pytest.raises(ValueError, match="for one task it is one text"):
        ask(recordings[0], task="er", prompt=["is it {labels}?"])


def test_several_tasks_may_be_put_in_other_words(ask, recordings):
    joint = ask.processor.tasks.joint(["asr", "er"])
    words = joint.instruction(["spell it", "is it happy (glad); sad (down); or not sad (neither)?"])
    prompts = ["spell it", "is it {labels}?"]
    row = {"audio": recordings[0], "task": ["asr", "er"], "prompt": prompts, "describe": True}
    assert ask(row, constrained=False)["text"] == ask(recordings[0], words)["text"]
    with pytest.raises(ValueError, match="for several tasks it is a list of texts"):
        ask(recordings[0], task=["asr", "er"], prompt="is it {labels}?")
    with pytest.raises(ValueError, match="1 prompts for the 2 tasks of asr.er"):
        ask(recordings[0], task=["asr", "er"], prompt=["is it {labels}?"])


# Options of the pipeline, of a call, and of a question


def made_with(ask, **options):
    return pipeline("speech-instruction", model=ask.model, processor=ask.processor, **options)


def test_what_the_pipeline_was_made_with_goes_together_with_what_a_call_gives(ask, recordings):
    recording = recordings[0]
    hinted = ask(recording, task="asr", hints=["zebra"], hint_bonus=50.0)
    assert made_with(ask, hints=["zebra"])(recording, task="asr", hint_bonus=50.0) == hinted
    assert made_with(ask, hint_bonus=50.0)(recording, task="asr", hints=["zebra"]) == hinted
    scoring = made_with(ask, return_scores=True)
    assert scoring(recording, task="er") == ask(recording, task="er", return_scores=True)
    assert scoring(recording, task="er", return_scores=False) == ask(recording, task="er")
    assert scoring(recording, task="asr", return_scores=False) == ask(recording, task="asr")
    with pytest.raises(ValueError, match="not written: leave out num_beams"):
        scoring(recording, task="er", num_beams=2)
    with pytest.raises(ValueError, match="not written: leave out callback"):
        scoring(recording, task="er", callback=print)


@pytest.mark.parametrize(
    "made, called",
    [
        ({"do_sample": True}, {"top_k": 5}),
        ({}, {"generation_config": GenerationConfig(do_sample=True), "top_k": 5}),
        ({}, {"do_sample": True, "top_k": 5}),
    ],
)
def test_top_k_is_an_option_of_sampling_where_answers_are_sampled(made, called, ask, recordings):
    torch.manual_seed(0)
    sampled = made_with(ask, **made)(recordings[0], "write it", **called)
    torch.manual_seed(0)
    assert sampled == ask(recordings[0], "write it", do_sample=True, generate_kwargs={"top_k": 5})


def test_each_question_has_options_of_its_own(ask, recordings):
    questions = [
        {"task": "er", "return_scores": True},
        {"task": "er"},
        {"task": "er", "constrained": False},
        {"task": "asr", "hints": ["zebra"]},
        {"task": "asr"},
    ]
    answers = ask(recordings[0], questions, max_new_tokens=30, hint_bonus=50.0)
    assert set(answers[0]["scores"]) == set(MOODS) and "score" not in answers[1]
    assert answers[1]["answer"] in MOODS and answers[2]["answer"] is None
    assert "zebra" in answers[3]["text"] and "zebra" not in answers[4]["text"]
    rows = [{"audio": recordings[0], **question} for question in questions]
    assert ask(rows, max_new_tokens=30, hint_bonus=50.0, batch_size=5) == answers
    with pytest.raises(ValueError, match="A question has lables, which no task asks for"):
        ask(recordings[0], [{"task": "er", "lables": ["a", "b"]}])


def test_hints_do_not_choose_labels(ask, recordings):
    joint = {"audio": recordings[0], "task": ["asr", "er"]}
    plain = ask(joint, max_new_tokens=50)["answer"]["er"]
    for mood in MOODS:
        hinted = ask(joint, hints=[mood], hint_bonus=50.0, max_new_tokens=50)["answer"]
        assert mood in hinted["asr"]
        again = ask(joint, hints=[mood], hint_bonus=1e-9, max_new_tokens=50)["answer"]
        assert again["er"] == plain
    with pytest.raises(ValueError, match="Hints are for free text"):
        ask(recordings[0], task="er", hints=["happy"])


def test_tasks_may_be_called_by_their_long_names(ask, recordings):
    short = ask({"audio": recordings[0], "task": ["asr", "er"], "labels": {"er": ["one", "two"]}}, max_new_tokens=40)
    names = ["speech-recognition", "emotion-recognition"]
    row = {"audio": recordings[0], "task": names, "labels": {"emotion-recognition": ["one", "two"]}}
    assert ask(row, max_new_tokens=40) == short and short["answer"]["er"] in ("one", "two")
    assert ask(recordings[0], task="emotion-recognition", top_k=1) == ask(recordings[0], task="er", top_k=1)
    with pytest.raises(ValueError, match="labels of a task twice"):
        ask({**row, "labels": {"er": ["a", "b"], "emotion-recognition": ["a", "b"]}})


def test_no_speech_leaves_an_answer_its_kind(ask, recordings):
    silent = {"no_speech_threshold": 0.0}
    joint = ask({"audio": recordings[0], "task": ["asr", "er"]}, **silent)
    assert joint["answer"] == {"asr": "", "er": None} and joint["text"] == ""
    n_best = ask(recordings[0], task="asr", num_beams=2, num_return_sequences=2, **silent)
    assert [answer["text"] for answer in n_best] == [""]


def test_the_end_is_the_calls_own(ask, recordings):
    model_end = ask.processor.tokenizer.eos_token_id
    third = ask.model.generate(**ask.processor(text="write it", audio=recordings[0]))[0, 3].item()
    answer = ask(recordings[0], "write it", eos_token_id=[model_end, third])
    assert "truncated" not in answer


def test_a_free_part_that_was_cut_off_says_so(ask, recordings):
    joint = {"audio": recordings[0], "task": ["asr", "er"]}
    fewest = ask.processor.constraint(["asr", "er"]).tokens_to_end[0]
    assert ask(joint, max_new_tokens=fewest + 3)["truncated"] is True
