"""Answers that are held to labels, to slots, or to the form of a joint answer."""

import functools
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tiny_models import spelling_tokenizer, tiny_speller
from transformers import AutoFeatureExtractor, AutoTokenizer, GenerationConfig

from speechverse import SpeechVerseProcessor, Task, TaskBank
from speechverse.processing.constraints_speechverse import ConstraintBuilder
from speechverse.processing.token_constraint_speechverse import END, NOWHERE, START


INSTRUCTION = "what is it?"
TASKS = TaskBank(
    [
        Task("asr", "speech-recognition", "ASR", ["write it"]),
        Task("kwe", "keyword-extraction", "KWE", ["keywords"], answer_type="keywords"),
        Task("er", "emotion-recognition", "Emotion", ["{labels}?"], {"happy": "", "sad": "", "not sad": ""}),
        Task("sf", "slot-filling", "SF", ["{labels}?"], {"date": "", "date_time": "", "name": ""}, "slots"),
        Task("fs", "free-slots", "FS", ["which?"], answer_type="slots"),
        Task("any", "any-labels", "Any", ["which?"], {"a": ""}),
    ]
)
LLMS = ["t5", "llama"]
every_llm = pytest.mark.parametrize("text", LLMS)

words = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=3)
phrases = st.lists(words, min_size=1, max_size=3).map(" ".join)
# Nasty on purpose: labels that begin others, labels of one letter, words of any script, and a few that recur.
labels_of_any_kind = st.one_of(
    phrases,
    st.text("ab _", min_size=1, max_size=6),
    st.sampled_from(
        ["a", "ab", "a b", "play", "play_music", "play_musica", "play music", "red", "\u6771\u4eac", "caf\u00e9"]
    ),
)
label_sets = st.lists(labels_of_any_kind, min_size=1, max_size=12, unique=True)


@functools.cache
def speller(text: str, seed: int = 0):
    return tiny_speller(text=text, seed=seed, tasks=TASKS)


def task_with(labels) -> Task:
    try:
        return Task("t", "a-task", "T", ["{labels}"], dict.fromkeys(labels, ""))
    except ValueError:  # alike but for case or signs
        assume(False)


def written(processor, sequence) -> list[int]:
    """The tokens of an answer without the decoder's start and without padding."""
    tokens = sequence.tolist()[int(processor.is_encoder_decoder) :]
    end = processor.tokenizer.eos_token_id
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def log_probabilities(model, inputs, answers: list[list[int]]) -> torch.Tensor:
    """By the model's own forward: those of each token of the answers, and of one more, `(answers, tokens + 1, vocabulary)`."""
    length = max(map(len, answers))
    rows = torch.tensor([answer + [0] * (length - len(answer)) for answer in answers], dtype=torch.long)
    input_ids = inputs["input_ids"].expand(len(answers), -1)
    if model.config.is_encoder_decoder:
        start = torch.full((len(answers), 1), model.config.decoder_start_token_id)
        logits = model(input_ids=input_ids, decoder_input_ids=torch.cat([start, rows], dim=1)).logits
    else:
        logits = model(input_ids=torch.cat([input_ids, rows], dim=1)).logits[:, input_ids.shape[1] - 1 :]
    return logits.detach().double().log_softmax(-1)


def likelihoods(model, inputs, answers: list[list[int]]) -> list[float]:
    steps = log_probabilities(model, inputs, answers)
    return [
        sum(steps[row, index, token].item() for index, token in enumerate(answer))
        for row, answer in enumerate(answers)
    ]


# Labels


def check_labels(text: str, seed: int, labels: list[str]):
    """Greedy, beams and sampling against brute force."""
    model, processor = speller(text, seed)
    task = task_with(labels)
    answers = processor.answer_ids(list(labels))
    if len(set(map(tuple, answers))) < len(answers):
        with pytest.raises(ValueError, match="are the same to this tokenizer"):
            processor.constraints.build(task)
        return
    constraint = processor.constraints.build(task)
    inputs = dict(processor(text=INSTRUCTION))

    greedy = []
    while greedy not in answers:
        allowed = {answer[len(greedy)] for answer in answers if answer[: len(greedy)] == greedy}
        last = log_probabilities(model, inputs, [greedy])[0, -1]
        greedy.append(max(sorted(allowed), key=lambda token: last[token].item()))
    greedy_row = model.generate(**inputs, constraint=constraint, do_sample=False)[0]
    assert written(processor, greedy_row) == greedy

    beam_row = model.generate(**inputs, constraint=constraint, num_beams=len(labels) + 1, do_sample=False)[0]
    found = answers.index(written(processor, beam_row))
    scores = likelihoods(model, inputs, answers)
    assert scores[found] == pytest.approx(max(scores), abs=1e-4)

    torch.manual_seed(0)
    sampled = model.generate(**inputs, constraint=constraint, do_sample=True, temperature=3.0, num_return_sequences=3)
    for row in [greedy_row, beam_row, *sampled]:
        (piece,) = constraint.trace(written(processor, row))
        assert answers[labels.index(piece.label)] == written(processor, row)


@pytest.mark.parametrize(
    "examples", [12, pytest.param(125, marks=pytest.mark.slow)], ids=["48 sets in all", "500 sets in all"]
)
@pytest.mark.parametrize("seed", range(2))
@every_llm
def test_only_labels_are_written_and_the_likeliest_is_found(text, seed, examples):
    options = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    options(given(labels=label_sets)(lambda labels: check_labels(text, seed, labels)))()


@every_llm
def test_each_of_the_n_best_is_another_label(text):
    model, processor = speller(text)
    labels = ["a", "ab", "abc", "abcd", "play", "play_music"]
    constraint = processor.constraints.build(task_with(labels))
    inputs = processor(text=[INSTRUCTION, "write it"])
    for beams in range(2, 8):
        rows = model.generate(**inputs, constraint=constraint, num_beams=beams, num_return_sequences=min(beams, 6))
        found = [constraint.trace(written(processor, row))[0].label for row in rows]
        for of_one_input in (found[: len(found) // 2], found[len(found) // 2 :]):
            assert len(set(of_one_input)) == len(of_one_input) and set(of_one_input) <= set(labels)
    for options in ({}, {"do_sample": True}):
        with pytest.raises(
            ValueError, match="num_return_sequences=7 asks for more answers than the constraint has, 6"
        ):
            model.generate(**inputs, constraint=constraint, num_beams=7, num_return_sequences=7, **options)


@every_llm
def test_joint_answers_of_labels_are_counted(text):
    """Three moods and one label of the other task; the longest joint answer is measured by writing all of them."""
    model, processor = speller(text)
    names = ["er", "any"]
    constraint = processor.constraint(names)
    answers = [TASKS.find(names).format({"er": mood, "any": "a"}) for mood in TASKS["er"].labels]
    assert constraint.num_answers == 3 and constraint.longest == max(map(len, processor.answer_ids(answers)))
    rows = model.generate(**processor(text=INSTRUCTION), constraint=constraint, num_beams=3, num_return_sequences=3)
    assert {processor.read_tokens(row, constraint, names).answer["er"] for row in rows} == set(TASKS["er"].labels)
    assert processor.constraint(["asr", "er"]).num_answers is None is processor.constraint("sf").longest


@every_llm
def test_each_row_has_its_own_constraint(text):
    model, processor = speller(text)
    sets = [["one", "two"], ["three", "four hundred"], ["five"]]
    constraints = [processor.constraints.build(task_with(labels)) for labels in sets]
    texts = [INSTRUCTION, "write it", "what?"]
    together = model.generate(**processor(text=texts), constraint=constraints, num_beams=2, num_return_sequences=1)
    for row, (words_of, labels, constraint) in enumerate(zip(texts, sets, constraints, strict=True)):
        alone = model.generate(**processor(text=words_of), constraint=constraint, num_beams=2)[0]
        assert written(processor, together[row]) == written(processor, alone)
        assert constraint.trace(written(processor, alone))[0].label in labels
    with pytest.raises(ValueError, match="There are 2 constraints for 3 inputs"):
        model.generate(**processor(text=texts), constraint=constraints[:2])


def test_ten_thousand_labels():
    model, processor = speller("llama")
    labels = [f"{i % 7} of {i}" for i in range(10_000)]
    constraint = processor.constraints.build(Task("many", "many-labels", "M", ["{labels}"], dict.fromkeys(labels, "")))
    assert constraint.num_answers == 10_000
    for row in model.generate(
        **processor(text=INSTRUCTION), constraint=constraint, num_beams=4, num_return_sequences=4
    ):
        assert constraint.trace(written(processor, row))[0].label in labels


def test_labels_that_the_tokenizer_cannot_tell_apart_are_refused_by_name():
    processor = speller("t5")[1]
    with pytest.raises(ValueError, match="Task 't': labels '\u6771' and '\u4eac' are the same to this tokenizer"):
        processor.constraints.build(task_with(["red", "\u6771", "\u4eac"]))
    assert processor.constraints.build(task_with(["red", "\u6771"])).num_answers == 2  # one of them can be told
    speller("llama")[1].constraints.build(task_with(["\u6771", "\u4eac"]))


def test_a_label_comes_back_as_it_was_written():
    """Though the tokenizer has no letter for it."""
    model, processor = speller("t5")
    label = "\u6771 (Tokyo)"
    constraint = processor.constraints.build(Task("any", "any-labels", "Any", ["{labels}"], {label: ""}))
    row = model.generate(**processor(text=INSTRUCTION), constraint=constraint)[0]
    assert processor.tokenizer.decode(row, skip_special_tokens=True) != label
    assert processor.read_tokens(row, constraint, "any").answer == label


# Slots and joint answers


def accepted(processor, names, answer, labels=None):
    """Whether the automaton takes an answer as a model is taught to write it, and reads it back."""
    constraint = processor.constraint(names, labels)
    (tokens,) = processor.answer_ids([processor.tasks.find(names).format(answer, labels)])
    return constraint.state_after(tokens) == END and processor.read_tokens(tokens, constraint, names) == (answer, [])


@pytest.mark.parametrize(
    "names, answer",
    [
        ("sf", [{"label": "date", "value": "today"}]),
        ("sf", [{"label": "date_time", "value": "at 5, or a bit later"}, {"label": "name", "value": "a b"}]),
        ("sf", []),
        ("sf", [{"label": "date", "value": "at 5 p.m."}, {"label": "name", "value": "x (live)"}]),
        ("sf", [{"label": "name", "value": "x (live)"}, {"label": "date", "value": "at 5 p.m."}]),
        (["fs", "asr"], {"fs": [{"label": "x", "value": "a b"}], "asr": "a; b"}),
        (["asr", "er"], {"asr": "stop it: now, please.", "er": "not sad"}),
        (["er", "asr"], {"er": "sad", "asr": "a"}),
        (["asr", "sf", "er"], {"asr": "a b", "sf": [{"label": "name", "value": "A. B"}], "er": "sad"}),
        (["asr", "sf"], {"asr": "a b", "sf": []}),
        (["asr", "kwe"], {"asr": "a b", "kwe": ["rain", "a big umbrella"]}),
        (["er", "any"], {"er": "happy", "any": "a"}),
    ],
    ids=str,
)
@every_llm
def test_what_a_model_is_taught_to_write_may_be_written(names, answer, text):
    processor = speller(text)[1]
    assert accepted(processor, names, answer)


slot_values = (
    st.text("ab c.,'-:()%", min_size=1, max_size=8).map(str.strip).filter(lambda value: value.strip(" .,'-:()%"))
)


@settings(max_examples=100, deadline=None)
@given(
    slots=st.lists(st.tuples(st.sampled_from(["date", "date_time", "name"]), slot_values), max_size=3),
    said=slot_values,
    llm=st.sampled_from(LLMS),
)
def test_any_answer_that_can_be_written_down_may_be_written(slots, said, llm):
    answer = {"asr": " ".join(said.split()), "sf": [{"label": k, "value": " ".join(v.split())} for k, v in slots]}
    try:
        TASKS.joint(["asr", "sf"]).format(answer)
    except ValueError:
        assume(False)
    assert accepted(speller(llm)[1], ["asr", "sf"], answer)


@pytest.mark.parametrize("names", ["sf", ["asr", "er"], ["er", "asr", "sf"], ["asr", "kwe"]], ids=str)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}], ids=["greedy", "beams", "sampled"])
@every_llm
def test_whatever_a_random_model_writes_is_read_in_full(names, options, text):
    """Random models would write nothing of the kind, nor ever come to an end, of their own."""
    for seed in range(2):
        model, processor = speller(text, seed)
        task = TASKS.find(names)
        constraint = processor.constraint(names)
        torch.manual_seed(seed)
        inputs = processor(text=[INSTRUCTION, "write it"])
        limit = constraint.tokens_to_end[START] + 25
        for row in model.generate(**inputs, constraint=constraint, max_new_tokens=limit, **options):
            tokens = written(processor, row)
            assert len(tokens) <= limit and constraint.state_after(tokens) == END
            answer, unread = processor.read_tokens(row, constraint, names)
            assert answer is not None and not unread
            if names != ["asr", "kwe"]:  # keywords of signs alone are none
                parsed = task.parse(processor.tokenizer.decode(tokens, skip_special_tokens=True))
                assert parsed == (answer, [])


@every_llm
def test_the_shortest_answer_that_fits_is_found_and_less_is_refused(text):
    model, processor = speller(text)
    constraint = processor.constraint(["asr", "er"])
    fewest = constraint.tokens_to_end[START]
    row = model.generate(**processor(text=INSTRUCTION), constraint=constraint, max_new_tokens=fewest)[0]
    assert len(written(processor, row)) == fewest
    assert processor.read_tokens(row, constraint, ["asr", "er"]).answer["er"] in TASKS["er"].labels
    with pytest.raises(
        ValueError, match=f"max_new_tokens={fewest - 1} is too few: answers of the constraint take {fewest}"
    ):
        model.generate(**processor(text=INSTRUCTION), constraint=constraint, max_new_tokens=fewest - 1)


@every_llm
def test_text_that_had_to_end_for_want_of_tokens_is_told(text):
    model, processor = speller(text)
    names = ["asr", "er"]
    constraint = processor.constraint(names)
    limit = constraint.tokens_to_end[START] + 6
    tokens = written(
        processor, model.generate(**processor(text=INSTRUCTION), constraint=constraint, max_new_tokens=limit)[0]
    )
    assert len(tokens) == limit and constraint.cuts(tokens, limit)
    assert not constraint.cuts(tokens, limit + 40)  # with more to spend it would have been the model's own end
    (taught,) = processor.answer_ids([TASKS.find(names).format({"asr": "a b", "er": "sad"})])
    assert not constraint.cuts(taught, len(taught) + 40)


@pytest.mark.parametrize("names", ["asr", "kwe"])
def test_free_text_cannot_be_held_to_anything(names):
    with pytest.raises(ValueError, match=f"Task '{names}' answers with free text"):
        speller("t5")[1].constraint(names)


def test_labels_that_would_end_a_part_are_refused():
    builder = speller("llama")[1].constraints
    joint = TASKS.joint(["asr", "any"])
    with pytest.raises(
        ValueError, match="Task 'any': this tokenizer cannot tell the label .*'a | b'.*'a'|'a'.*'a | b'"
    ):
        builder.build(TASKS.joint(["any", "er"]), {"any": ["a", "a | Emotion: x"]})
    assert builder.build(joint, {"any": ["a", "b c"]}).num_answers is None
    with pytest.raises(ValueError, match="the label 'a<audio>' holds a special token"):
        builder.build(TASKS["any"], ["a<audio>"])


def test_a_tokenizer_without_the_signs_is_refused_by_name():
    tokenizer = spelling_tokenizer("t5")
    signless = ConstraintBuilder(tokenizer, lambda answers: tokenizer(answers).input_ids)
    signless._tokens_with["|"].clear()
    with pytest.raises(ValueError, match=r"Task 'asr': this tokenizer has no '\|'"):
        signless.build(TASKS.joint(["asr", "er"]))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"min_new_tokens": 3}, "leave out min_new_tokens"),
        ({"suppress_tokens": [1], "bad_words_ids": [[2]]}, "leave out bad_words_ids, suppress_tokens"),
        ({"max_new_tokens": 2}, "max_new_tokens=2 is too few"),
        ({"max_time": 1e-9}, "leave out max_time"),
        ({"generation_config": GenerationConfig(min_new_tokens=30)}, "leave out min_new_tokens"),
        ({"generation_config": GenerationConfig(max_new_tokens=2)}, "max_new_tokens=2 is too few"),
    ],
)
def test_options_that_conflict_are_refused(options, message):
    model, processor = speller("t5")
    with pytest.raises(ValueError, match=message):
        model.generate(**processor(text=INSTRUCTION), constraint=processor.constraint("er"), **options)


def test_a_models_own_generation_config_does_not_get_in_the_way():
    model, processor = tiny_speller(tasks=TASKS)
    everything = list(range(1, 60))
    model.generation_config.update(suppress_tokens=everything, min_new_tokens=40, max_new_tokens=2)
    row = model.generate(**processor(text=INSTRUCTION), constraint=processor.constraint("er"))[0]
    assert processor.read_tokens(row, processor.constraint("er"), "er").answer in TASKS["er"].labels
    assert model.generation_config.suppress_tokens == everything
    assert model.language_model.generation_config is model.generation_config


@every_llm
def test_a_users_generation_config_counts_as_its_options_do(text):
    model, processor = speller(text)
    inputs = processor(text=[INSTRUCTION, "write it"])
    for task, options in (("er", {"num_beams": 3}), (None, {"num_beams": 2, "max_new_tokens": 9})):
        more = {"constraint": processor.constraint(task)} if task else {"hint_ids": processor.hint_ids(["red"])}
        expected = model.generate(**inputs, **options, **more)
        assert torch.equal(model.generate(**inputs, generation_config=GenerationConfig(**options), **more), expected)
    config = model.generation_config_of(generation_config=GenerationConfig(num_beams=2))
    assert (config.max_new_tokens, config.num_beams, config.eos_token_id) == (256, 2, model.config.eos_token_id)
    assert model.generation_config_of(max_length=9).max_new_tokens is None


@every_llm
def test_a_static_cache_gives_the_same_answers(text):
    """Shapes that stay the same are what a compiled decoder needs."""
    model, processor = speller(text)
    inputs = processor(text=[INSTRUCTION, "write it"])
    for options in ({}, {"num_beams": 3}):
        for more in ({"constraint": processor.constraint("er")}, {"max_new_tokens": 9}):
            expected = model.generate(**inputs, **options, **more)
            static = model.generate(**inputs, **options, **more, cache_implementation="static")
            assert torch.equal(static, expected)


def test_distances_equal_a_search():
    constraint = speller("llama")[1].constraint(["asr", "er"])

    def reachable(states):
        return {
            target
            for state in states
            for target in (*constraint.edges[state].values(), constraint.otherwise[state])
            if target != NOWHERE
        }

    for state in range(len(constraint.edges)):
        states, steps = {state}, 0
        while END not in states:
            states, steps = reachable(states), steps + 1
        assert constraint.tokens_to_end[state] == steps


@pytest.mark.parametrize("text_base", ["flan-t5-small", "smollm2-135m-instruct"])
def test_real_tokenizers_join_signs_to_words(text_base):
    """`p.m.;` or `(live);` are other tokens than their parts."""
    folder = Path(os.environ.get("TESTS_FOUNDATIONS", "nowhere"))
    if not all((folder / name).is_dir() for name in ("whisper-base", text_base)):
        pytest.skip(f"$SPEECHVERSE_FOUNDATIONS holds no {text_base} and whisper-base")
    processor = SpeechVerseProcessor(
        AutoFeatureExtractor.from_pretrained(folder / "whisper-base"),
        AutoTokenizer.from_pretrained(folder / text_base),
        is_encoder_decoder=text_base == "flan-t5-small",
        tasks=TaskBank.from_yaml(Path(__file__).parents[2] / "processing" / "tasks"),
    )
    for value in ("today", "at 5 p.m.", "x (live)", "50%", '"Hey Jude"', "Dr. J.", "o'clock", "a/b", "$5.00", "a,b"):
        slots = [
            {"label": "date", "value": value},
            {"label": "time", "value": value},
            {"label": "person", "value": "Ann"},
        ]
        assert accepted(processor, "sf", slots), value
        assert accepted(processor, ["asr", "sf", "er"], {"asr": f"{value}, he said", "sf": slots, "er": "sad"}), value
    for intent in processor.tasks["ic"].labels:
        assert accepted(processor, ["asr", "ic"], {"asr": "stop; now: yes", "ic": intent})
