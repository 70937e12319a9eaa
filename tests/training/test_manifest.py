"""Manifests: which lines are taken, what becomes of them, and what is said about broken ones."""

import json

import pytest
from tiny_models import noise

from speechverse import Task, TaskBank
from speechverse.training.data.manifest import ManifestSource, expand_variables, load_samples


@pytest.fixture
def write_manifest(tmp_path):
    """Writes lines (dicts, or raw text) to a manifest beside `a.wav` and `b.wav`."""
    import soundfile

    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, noise(0.1), 16_000)

    def write(*lines):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
        file = tmp_path / "manifest.jsonl"
        file.write_text(text + "\n", encoding="utf-8")
        return str(file)

    return write


def line(audio="a.wav", **fields):
    return {"audio": audio, "instruction": "say it", "target": "yes"} | fields


# What is taken


def test_line_becomes_a_sample(write_manifest, tmp_path, tasks):
    [sample] = load_samples(ManifestSource(write_manifest(line(task="colour"))), tasks)
    assert (sample.audio, sample.target, sample.task) == (str(tmp_path / "a.wav"), "yes", "colour")
    assert sample.instructions == ("say it",)


def test_blank_lines_are_no_samples(write_manifest, tasks):
    assert len(load_samples(ManifestSource(write_manifest(line(), "", "  ", line("b.wav"))), tasks)) == 2


def test_line_separators_inside_a_text_do_not_end_the_line(write_manifest, tasks):
    target = "one\u2028two\u0085three\x0cfour"
    assert load_samples(ManifestSource(write_manifest(line(target=target))), tasks)[0].target == target


@pytest.mark.parametrize(
    "where, answers",
    [
        ({}, ["one", "two", "three"]),
        ({"split": "train"}, ["one", "two"]),
        ({"split": "train", "speaker": "s[12]"}, ["two"]),
        ({"speaker": "s1"}, ["two"]),  # in full: s10 is another one
        ({"speaker": "s1.*"}, ["one", "two"]),
        ({"take": "[12]"}, ["two", "three"]),
        ({"take": 2}, ["three"]),
        ({"note": ""}, ["one", "two", "three"]),  # a field that is absent is empty
    ],
)
def test_where_keeps_lines_whose_fields_match_in_full(where, answers, write_manifest, tasks):
    manifest = write_manifest(
        line(target="one", split="train", speaker="s10", take=0),
        line(target="two", split="train", speaker="s1", take=1),
        line(target="three", split="dev", speaker="s2", take=2),
    )
    assert [sample.target for sample in load_samples(ManifestSource(manifest, where), tasks)] == answers


def test_lines_outside_the_filter_may_lack_what_others_need(write_manifest, tasks):
    manifest = write_manifest(line(split="train"), {"split": "dev"})
    assert len(load_samples(ManifestSource(manifest, {"split": "train"}), tasks)) == 1


@pytest.mark.parametrize(
    "source, fields, instructions",
    [
        ({}, {}, ("say it",)),
        ({}, {"instruction": ["say it", "what is said ?"]}, ("say it", "what is said ?")),
        ({"instruction": "which ?"}, {}, ("which ?",)),  # the source's goes before the line's
        ({"instruction": ["which ?", "red ?"]}, {}, ("which ?", "red ?")),
        ({}, {"instruction": None, "task": "colour"}, ("which colour ?", "say it .")),
        ({"task": "colour"}, {"instruction": None, "task": "unheard-of"}, ("which colour ?", "say it .")),
        ({"task": "colour-naming"}, {"instruction": []}, ("which colour ?", "say it .")),
    ],
)
def test_wordings_come_from_source_line_or_task(source, fields, instructions, write_manifest, tasks):
    [sample] = load_samples(ManifestSource(write_manifest(line(**fields)), **source), tasks)
    assert sample.instructions == instructions


def test_prompts_are_filled_in_from_the_line(write_manifest):
    tasks = TaskBank([Task("find", "finding", "F", ["is {word} said ? {labels}", "{word} ?"], {"yes": "", "no": ""})])
    fields = {"instruction": None, "task": "find"}
    [sample] = load_samples(ManifestSource(write_manifest(line(**fields, word="red"))), tasks)
    filled = [sample.instruction(wording) for wording in sample.instructions]
    assert filled == ["is red said ? yes or no", "red ?"]
    with pytest.raises(
        ValueError, match=r"manifest\.jsonl, line 1: field word is missing; the prompts of find ask for it"
    ):
        load_samples(ManifestSource(write_manifest(line(**fields))), tasks)


@pytest.mark.parametrize(
    "template, target", [("$text", "one two"), ("no. ${take}, $text", "no. 3, one two"), ("red", "red")]
)
def test_target_is_made_of_the_lines_fields(template, target, write_manifest, tasks):
    manifest = write_manifest(line(text="one two", take=3))
    assert load_samples(ManifestSource(manifest, target=template), tasks)[0].target == target


def test_field_with_a_dollar_is_taken_as_it_is(write_manifest, tasks):
    assert load_samples(ManifestSource(write_manifest(line(target="it costs $5"))), tasks)[0].target == "it costs $5"


def test_environment_variable_in_the_path(write_manifest, tmp_path, tasks, monkeypatch):
    write_manifest(line())
    monkeypatch.setenv("CORPUS", str(tmp_path))
    assert len(load_samples(ManifestSource("$CORPUS/manifest.jsonl"), tasks)) == 1
    assert expand_variables("${CORPUS}/x") == f"{tmp_path}/x"


def test_environment_variable_that_is_not_set(tasks, monkeypatch):
    monkeypatch.delenv("CORPUS", raising=False)
    with pytest.raises(ValueError, match=r"\$CORPUS/manifest\.jsonl: an environment variable .* is not set"):
        load_samples(ManifestSource("$CORPUS/manifest.jsonl"), tasks)


# What is refused


@pytest.mark.parametrize(
    "source, bad_line, message",
    [
        ({}, '{"audio": "a.wav",', "is not JSON"),
        ({}, "[1, 2]", "is list, not an object"),
        ({}, line(audio=""), "field audio is missing or empty"),
        ({}, {"instruction": "say it", "target": "yes"}, "field audio is missing or empty"),
        ({}, {"audio": "a.wav", "instruction": "say it"}, "field target is missing"),
        ({"target": "$text"}, line(), "field text is missing"),
        ({"target": "$text"}, line(text=None), "field text is missing"),
        ({}, line(target=" "), "the target is empty"),
        ({}, {"audio": "a.wav", "target": "yes"}, "neither instruction nor task"),
        ({}, {"audio": "a.wav", "target": "yes", "task": "smell"}, "field task is 'smell'; known are colour"),
    ],
)
def test_broken_line_is_named_with_file_line_and_field(source, bad_line, message, write_manifest, tasks):
    good = line(text="one")
    file = write_manifest(good, good, bad_line)
    with pytest.raises(ValueError, match=rf"manifest\.jsonl, line 3:? .*{message}"):
        load_samples(ManifestSource(file, **source), tasks)


def test_nothing_left_is_an_error(write_manifest, tasks):
    with pytest.raises(ValueError, match="manifest.jsonl: no sample is left of 2 lines"):
        load_samples(ManifestSource(write_manifest(line(), line()), {"split": "tset"}), tasks)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"where": ["split"]}, r"key where is \['split'\]"),
        ({"where": {"split": "("}}, r"key where\.split is no regular expression"),
        ({"instruction": 5}, "key instruction is 5"),
        ({"instruction": ["say it", 5]}, r"key instruction is \['say it', 5\]"),
        ({"target": "$5"}, r"key target is '\$5'"),
    ],
)
def test_source_of_the_wrong_kind_is_refused(values, message):
    with pytest.raises(ValueError, match=rf"^config\.yaml, train_data\[0\]: {message}"):
        ManifestSource.from_fields({"manifest": "data.jsonl", **values}, "config.yaml, train_data[0]")


def test_manifest_that_is_not_there(tmp_path, tasks):
    with pytest.raises(FileNotFoundError, match="nowhere.jsonl is not there"):
        load_samples(ManifestSource(str(tmp_path / "nowhere.jsonl")), tasks)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"manifest": "m.jsonl", "wher": {}}, r"run\.yaml, train_data\[0\]: unknown key wher; a source has manifest"),
        ({"target": "$text"}, "key manifest is missing"),
        ("m.jsonl", "is str, not a mapping"),
    ],
)
def test_source_with_the_wrong_keys(fields, message):
    with pytest.raises(ValueError, match=message):
        ManifestSource.from_fields(fields, "run.yaml, train_data[0]")
