"""The shipped suites: what they ask exists, and the figures beside it are those that the paper prints."""

import functools
import os
import re
from pathlib import Path

import pytest

from speechverse import TaskBank
from speechverse.evaluation import suite as module
from speechverse.evaluation.asking import describe_answer
from speechverse.evaluation.baselines import SYSTEMS
from speechverse.evaluation.corpus_metric import load_metric
from speechverse.evaluation.criteria import parse_criteria, word_error_rate
from speechverse.evaluation.results import score_row
from speechverse.evaluation.suite import BASELINE_KINDS, LoadedRow, SuiteRow, load_rows, shipped_suites
from speechverse.training.data.corpus import load_corpus
from speechverse.training.data.make_mini import SENTENCES
from speechverse.training.data.sample import Sample


TASKS = TaskBank.from_yaml(Path(__file__).parents[2] / "processing" / "tasks")
FULL = [
    "table2_slu",
    "table3_psp",
    "table4_sota",
    "table5_prompts",
    "table6_open_ended",
    "table7_unseen",
    "table9_joint",
]
MINI = [f"mini_table{number}" for number in (2, 3, 4, 5, 6, 7, 9)]
MINI_CORPORA = {*SENTENCES, "ravdess", "fsdd", "mini_speaker_counting", "mini_speech_detection"}
MINI_CORPORA |= {"multi30k_german", "multi30k_voices"}
SHARED = Path(os.environ.get("SPEECHVERSE_DATA", "nowhere"))
EACH_SUITE = pytest.mark.parametrize("name", shipped_suites())
load_suite = functools.cache(module.load_suite)


# The paper's tables, written once more


def table(text: str) -> dict[str, dict[str, float]]:
    """Column -> line -> figure."""
    heads, *lines = ([cell.strip() for cell in line.split("|")] for line in text.strip().splitlines())
    columns = {head: {} for head in heads[1:]}
    for name, *cells in lines:
        for head, cell in zip(heads[1:], cells, strict=True):
            if cell != "-":
                columns[head][name] = float(cell)
    return columns


TABLE_2 = table("""
                           | LTC | LTO | Vox | MCV  | IC   | SF   | ST de | ST fr | KWE  | KWS
Whisper-large-v2 ASR -> LLM | 2.5 | 4.9 | 7.0 | 8.2  | 86.6 | 72.3 | 23.5  | 30.6  | 45.1 | 87.7
SpeechVerse ASR -> LLM      | 2.1 | 4.4 | 6.5 | 10.5 | 88.8 | 80.5 | 24.4  | 30.9  | 54.3 | 87.3
Task-FT                     | 2.1 | 4.4 | 6.5 | 10.5 | 90.4 | 82.4 | 27.8  | 35.7  | 46.9 | 98.7
Multitask-WLM               | 2.5 | 4.7 | 6.8 | 12.0 | 90.3 | 82.2 | 25.9  | 33.7  | 46.6 | 98.5
Multitask-BRQ               | 3.0 | 6.7 | 7.1 | 11.8 | 90.0 | 83.4 | 25.2  | 32.5  | 44.2 | 98.4
Ground truth -> LLM         | -   | -   | -   | -    | 94.2 | 84.3 | 27.2  | 34.8  | 70.3 | 100
""")
TABLE_3 = table("""
                  | ER   | ASC  | SC   | AC   | SNS
WavLM classifier  | 60.3 | 57.5 | 98.5 | 57.9 | 96.3
Task-FT           | 64.6 | 61.3 | 99.6 | 60.1 | 96.9
Multitask-WLM     | 62.0 | 60.1 | 98.9 | 60.0 | 97.6
Multitask-BRQ     | 65.1 | 64.1 | 99.3 | 60.4 | 97.5
""")
TABLE_4 = table("""
                        | clean | other | Vox | MCV  | de   | fr   | ro   | IC   | SF   | ER
Whisper-large-v2        | 2.5   | 4.9   | 7.0 | 8.2  | -    | -    | -    | -    | -    | -
SLM-FT                  | 2.6   | 5.0   | -   | 7.5  | -    | -    | -    | -    | -    | -
mSLAM-CTC               | -     | -     | 7.0 | -    | -    | -    | -    | -    | -    | -
SeamlessM4T-1.2B        | -     | -     | -   | -    | 27.8 | 30.3 | 38.7 | -    | -    | -
XMEF                    | -     | -     | -   | -    | 22.5 | 30.0 | 32.3 | -    | -    | -
CTI                     | -     | -     | -   | -    | -    | -    | -    | 86.9 | 74.7 | -
Frozen-hbt-large        | -     | -     | -   | -    | -    | -    | -    | 74.4 | 60.1 | -
PF-hbt-large            | -     | -     | -   | -    | -    | -    | -    | 89.2 | 78.9 | -
w2v2-L-robust           | -     | -     | -   | -    | -    | -    | -    | -    | -    | 58
Task-FT                 | 2.1   | 4.4   | 6.5 | 10.5 | 27.8 | 35.7 | 32.2 | 84.6 | 76.7 | 66.7
Task-FT, encoder tuned  | -     | -     | -   | -    | -    | -    | -    | 89.5 | -    | -
Multitask-WLM           | 2.5   | 4.7   | 6.8 | 12.0 | 25.9 | 33.7 | 30.1 | -    | -    | 61.2
""")
TABLE_5 = {"asr": (6.8, 7.1, 6.8), "st_fr": (33.7, 33.8, 33.5), "ac": (60.0, 60.7, 60.6)}
# described, constrained: unseen intents, SNIPS, SD-F1, SLU-F1, domains
TABLE_7 = {
    (False, False): (51.7, 54.9, 73.12, 46.45, 56.9),
    (False, True): (68.8, 68.9, 73.38, 46.49, 59.0),
    (True, False): (47.7, 61.0, 69.79, 47.34, 44.0),
    (True, True): (70.2, 75.9, 77.47, 48.45, 62.0),
}
TABLE_9 = {"ic": (90.4, 92.2), "kwe_common_voice": (46.9, 49.5), "kwe_voxpopuli": (53.1, 56.7), "er": (64.5, 64.7)}

# Columns of the paper's tables -> rows of the suites.
COLUMNS = {
    "table2_slu": (
        TABLE_2,
        {
            "LTC": "asr_librispeech_clean",
            "LTO": "asr_librispeech_other",
            "Vox": "asr_voxpopuli",
            "MCV": "asr_common_voice",
            "IC": "ic",
            "SF": "sf",
            "ST de": "st_de",
            "ST fr": "st_fr",
            "KWE": "kwe",
            "KWS": "kws",
        },
    ),
    "table3_psp": (TABLE_3, {"ER": "er", "ASC": "asc", "SC": "sc", "AC": "ac", "SNS": "sns"}),
    "table4_sota": (
        TABLE_4,
        {
            "clean": "asr_librispeech_clean",
            "other": "asr_librispeech_other",
            "Vox": "asr_voxpopuli",
            "MCV": "asr_common_voice",
            "de": "st_de",
            "fr": "st_fr",
            "ro": "st_ro",
            "IC": "ic",
            "SF": "sf",
            "ER": "er",
        },
    ),
}


def paper_of(name: str) -> dict[str, dict]:
    return {row.id: row.paper for row in load_suite(name).rows}


@pytest.mark.parametrize("name", COLUMNS)
def test_figures_of_tables_2_3_and_4(name):
    expected, rows = COLUMNS[name]
    assert paper_of(name) == {rows[column]: figures for column, figures in expected.items()}


def test_figures_of_table_5():
    expected = {
        f"{task}_{prompt}": {"Multitask-WLM": figure}
        for task, figures in TABLE_5.items()
        for prompt, figure in zip(("seen", "unseen_1", "unseen_2"), figures, strict=True)
    }
    assert paper_of("table5_prompts") == expected


@pytest.mark.parametrize("name", ["table7_unseen", "mini_table7"])
def test_figures_of_table_7(name):
    found = {}
    for row in load_suite(name).rows:
        view = {"snips": "ic_snips"}.get(row.data["corpus"], row.data["tasks"][0])
        found[view, row.describe, row.decoding == "constrained"] = row.paper
    expected = {}
    for place, (unseen, snips, sd_f1, slu_f1, dc) in TABLE_7.items():
        slots = {"sd_f1": {"SpeechVerse": sd_f1}, "slu_f1": {"SpeechVerse": slu_f1}}
        expected |= {("ic", *place): {}, ("sf_unseen", *place): slots}
        single = {"ic_unseen": unseen, "ic_snips": snips, "dc": dc}
        expected |= {(view, *place): {"SpeechVerse": figure} for view, figure in single.items()}
    assert found == expected


def test_figures_of_table_9():
    expected = {}
    for row, (alone, joint) in TABLE_9.items():
        expected |= {row: {"Task-FT": alone}, f"asr_{row}": {row.split("_")[0]: {"Task-FT": joint}}}
    assert paper_of("table9_joint") == expected


@pytest.mark.parametrize("mini", MINI)
def test_figures_beside_mini_rows_are_those_of_the_row_that_they_stand_for(mini):
    (full,) = (name for name in FULL if name.startswith(mini.removeprefix("mini_")))
    papers = {row.id: row for row in load_suite(full).rows}
    beside = [row for row in load_suite(mini).rows if row.paper]
    for row in beside:
        same = [other for other in papers.values() if other.paper == row.paper]
        assert same and all(other.metric == row.metric for other in same), row.id
        assert all(task_of(other) == task_of(row) for other in same), row.id
    assert len(beside) >= 4 or mini == "mini_table6"


@EACH_SUITE
def test_rows_say_whose_figures_are_of_another_test_set(name):
    rows = [row for row in load_suite(name).rows if row.paper]
    if name.startswith("mini"):
        assert all(row.paper_set for row in rows)
    else:
        other = {"sc", "sns", "kwe", "kws", "dc", "snips"}
        for row in rows:
            if other & {*task_of(row), row.data["corpus"], *names_of(row)}:
                assert row.paper_set, row.id
        source = load_suite(name).source
        assert any(row.paper_set for row in rows) == any(word in source for word in ("other test", "other keywords"))


BASELINES = {"asr": "speechverse", "kws": "keyword_search"}
BASELINES |= dict.fromkeys(("st", "ic", "sf", "kwe"), "cascade")
BASELINES |= dict.fromkeys(("er", "asc", "sc", "ac", "sns"), "classifier")


def test_tables_2_and_3_say_what_is_to_be_beaten():
    for names in (("table2_slu", "table3_psp"), ("mini_table2", "mini_table3")):
        rows = [row for name in names for row in load_suite(name).rows]
        assert {task_of(row)[0] for row in rows if row.baseline} == BASELINES.keys()  # the paper's eleven
        assert all(row.baseline == BASELINES[task_of(row)[0]] for row in rows if row.baseline)
        assert [row.id for row in rows if not row.baseline] in ([], ["ac_confounded"])


def test_any_system_but_the_oracle_can_be_what_is_to_be_beaten():
    assert set(BASELINE_KINDS) == SYSTEMS.keys() - {"text"}


@pytest.mark.parametrize(
    "old, new, message",
    [
        (
            "baseline: classifier",
            "baseline: wavlm",
            "key baseline is 'wavlm'; it is a kind of system: one of asr, cas",
        ),
        ("baseline: classifier", "baseline: text", "key baseline is 'text'"),
        ("    metric: uar\n\n", '    metric: uar\n    paper_set: "Here"\n', "key paper_set is 'Here'; it says what"),
    ],
)
def test_mistake_in_what_stands_beside_says_where(tmp_path, old, new, message):
    text = (module.SUITES_FOLDER / "mini_table3.yaml").read_text(encoding="utf-8")
    text = text.replace("    metric: uar\n  - id: sns", "    metric: uar\n\n  - id: sns")  # a row without figures
    file = tmp_path / "own.yaml"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"rows\[\d\]: {message}"):
        module.load_suite(file)


def test_results_carry_what_stands_beside():
    facts = {"paper": {"A": 60}, "paper_set": "Podcasts", "baseline": "classifier"}
    row = LoadedRow(
        SuiteRow("er", {"corpus": "ravdess"}, metric="uar", **facts),
        [Sample("a.wav", ("How do they feel?",), "sad", values={}, task="er", corpus="ravdess")],
        [],
        [(None, "uar")],
    )
    lines = [describe_answer(row, 0, {"text": "sad", "answer": "sad"}, TASKS)]
    (entry,) = score_row(row, lines, TASKS, seed=0)
    assert entry["scored_name"] == TASKS["er"].name and {name: entry[name] for name in facts} == facts
    assert str(row.row) == str(SuiteRow("er", {"corpus": "ravdess"}, metric="uar", paper={"A": 60}))  # known again by


def task_of(row) -> list[str]:
    views = load_corpus(row.data["corpus"]).views
    return [views[name].task or name for name in names_of(row)]


def names_of(row) -> list[str]:
    return [*(row.data.get("tasks") or []), *(name for several in row.data.get("joint") or [] for name in several)]


# What they ask


def test_every_table_has_a_suite_and_a_mini_one():
    assert shipped_suites() == sorted([*FULL, *MINI, "mini_generalisation"])


@EACH_SUITE
def test_what_is_asked_for_exists(name):
    for row in load_suite(name).rows:
        check_row(row)


def check_row(row: SuiteRow) -> None:
    corpus, source = load_corpus(row.data["corpus"]), row.source  # which refuses unknown splits, views and columns
    assert len(source.tasks) + len(source.joint or []) == 1, row.id  # one result a row
    views = [corpus.views[view] for view in names_of(row)]
    tasks = [TASKS[task] for task in task_of(row)]
    for view, task in zip(views, tasks, strict=True):
        assert row.prompt < len(view.wordings(task, source.prompts)), row.id
        metrics = row.metric[task.id] if isinstance(row.metric, dict) else row.metric
        for metric in metrics if isinstance(metrics, list) else [metrics] if metrics else []:
            assert load_metric(metric).answer_type == task.answer_type, row.id
    assert not row.describe or any(task.answer_type in ("label", "slots") for task in tasks), row.id
    if source.joint:
        assert set(row.metric) == {task.id for task in tasks} and set(row.paper) <= set(row.metric), row.id
    assert (row.passes is None) == (row.instruction is None) == (row.metric is not None), row.id
    assert row.name and (row.instruction is None or row.decoding == "free"), row.id


@EACH_SUITE
def test_mini_rows_are_small_and_of_the_mini_corpus(name):
    for data in (row.data for row in load_suite(name).rows):
        assert data["split"] in ("test", "test_other", "mini_test") or data["corpus"] == "snips"
        if name.startswith("mini"):
            assert data["corpus"] in MINI_CORPORA and 1 <= data["limit"] <= 200


@EACH_SUITE
def test_ids_are_unique_and_the_head_says_what_is_needed(name):
    rows = load_suite(name).rows
    assert len({row.id for row in rows}) == len({row.name for row in rows}) == len(rows)
    text = (module.SUITES_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    head = text[: text.index("\ntitle:")]
    assert "evaluation/run.py --model runs/" in head and f" --suite {name}\n" in head
    if name in FULL:
        assert all(row.data["corpus"] in head for row in rows)
    else:
        assert "training/data/make_mini.py" in head and re.search(r"\d minutes", head)


def test_prompts_of_table_5_are_one_seen_and_two_held_out():
    for name in ("table5_prompts", "mini_table5"):
        rows = load_suite(name).rows
        assert len(rows) == 9
        for three in (rows[:3], rows[3:6], rows[6:]):
            assert [(row.data.get("prompts"), row.prompt) for row in three] == [
                (None, 0),
                ("held_out", 0),
                ("held_out", 1),
            ]
            assert len({str({**row.data, "prompts": None}) for row in three}) == 1


def test_joint_rows_of_table_9_stand_beside_the_single_ones():
    for name in ("table9_joint", "mini_table9"):
        single, joint = {}, {}
        for row in load_suite(name).rows:
            (joint if row.data.get("joint") else single)[row.data["corpus"], tuple(task_of(row)[-1:])] = row
        assert joint and joint.keys() <= single.keys()
        for key, row in joint.items():
            assert row.data["joint"][0][0] == "asr"
            assert row.metric[key[1][0]] == single[key].metric
            assert row.data.get("limit") == single[key].data.get("limit")


def test_generalisation_compares_what_differs_in_one_thing():
    rows = {row.id: row for row in load_suite("mini_generalisation").rows}
    for seen, held_out in (("ic_seen_prompt", "ic_held_out_prompt"), ("kws_seen_prompt", "kws_held_out_prompt")):
        assert rows[held_out].data == rows[seen].data | {"prompts": "held_out"}
    patterns = [rows[row].data["where"]["snr"] for row in ("asr_no_noise", "asr_15_db", "asr_5_db")]
    for decibels, expected in (("", 0), ("15.0", 1), ("24.99", 1), ("25.0", 1), ("5.0", 2), ("14.99", 2), ("9", 2)):
        assert [re.fullmatch(pattern, decibels) is not None for pattern in patterns].index(True) == expected
        assert sum(re.fullmatch(pattern, decibels) is not None for pattern in patterns) == 1
    voices = [rows[row].data for row in ("voices_seen", "voices_held_out")]
    assert {data["where"].pop("voices") for data in voices} == {"seen", "held-out"} and voices[0] == voices[1]
    assert rows["asr_german"].language == "de"


@pytest.mark.slow
@pytest.mark.skipif(
    not all((SHARED / part / "manifest.jsonl").is_file() for part in ("spoken/clinc150", "voices", "detection")),
    reason="no mini corpus",
)
@pytest.mark.parametrize("name", [name for name in shipped_suites() if name.startswith("mini")])
def test_every_row_has_samples_in_the_mini_corpus(name):
    suite = load_suite(name)
    for loaded in load_rows(suite, suite.tasks):
        assert 20 <= len(loaded.samples) <= 200, loaded.row.id
        if loaded.row.passes is not None:
            criteria = parse_criteria(loaded.row.passes)
            assert not any(criteria.lacks(sample) for sample in loaded.samples)


@pytest.mark.parametrize("name", ["mini_table6", "table6_open_ended"])
def test_own_words_are_no_prompt_of_a_task(name):
    own = {row.instruction for row in load_suite(name).rows}
    trained = {prompt for task in TASKS for prompt in task.prompts}
    # Two are: a transcript without hints is what those with hints are held against, and a request is a request.
    assert own & trained <= {
        "Write down what is said.",
        "Answer the question in the recording.",
        "Do what the speaker asks for.",
    }


def test_mistake_in_criteria_says_where(tmp_path):
    text = (module.SUITES_FOLDER / "mini_table6.yaml").read_text(encoding="utf-8")
    for wrong, message in (
        ("{punctuation: {}}", r"rows\[0\]: key passes names the criterion 'punctuation'; known are contains, "),
        (
            "{punctuated: {wer: 0.5}}",
            r"rows\[0\]: key passes.punctuated: unknown key wer; known are max_wer, capitals",
        ),
        ("{punctuated: {max_wer: high}}", r"key max_wer is 'high'; it should be a number"),
    ):
        file = tmp_path / "own.yaml"
        file.write_text(text.replace("{punctuated: {max_wer: 0.5, capitals: true}}", wrong), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            module.load_suite(file)


# Criteria, by hand


def sample(transcript="play some jazz in the kitchen", **facts) -> Sample:
    return Sample("a.wav", ("Do it.",), "t", transcript=transcript, **facts)


def passes(values, text, about=None) -> bool:
    return parse_criteria(values).passes(text, about or sample())


def test_word_error_rate_by_hand():
    assert word_error_rate("Play jazz, in the Kitchen!", "play some jazz in the kitchen") == pytest.approx(1 / 6)
    assert word_error_rate("", "play it") == 1 and word_error_rate("a b c d", "a b") == 1
    assert word_error_rate("Don’t stop.", "don’t stop") == 0


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("Play some jazz in the kitchen.", {}, True),
        ("play some jazz in the kitchen", {}, False),  # no mark
        ("play some jazz in the kitchen!", {}, True),
        ("play some jazz in the kitchen!", {"capitals": True}, False),
        ('"Play some jazz in the kitchen."', {"capitals": True}, True),
        ("Stop it.", {}, False),  # other words
        ("Play some rock in the kitchen.", {"max_wer": 0.2}, True),  # one word of six
        ("Play some rock in the kitchen.", {"max_wer": 0.1}, False),
        ("", {}, False),
    ],
)
def test_punctuated(text, options, expected):
    assert passes({"punctuated": options}, text) is expected


SLOTS = [{"label": "genre", "value": "dance music"}, {"label": "room", "value": "cellar"}]


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"phrase": "dance music"}, "It is Dance Music.", True),
        ({"phrase": "dance music"}, "music to dance", False),
        ({"phrase": "cell"}, "the cellar", False),  # whole words
        ({"phrase": ["jazz", "cellar"]}, "jazz", False),
        ({"phrase": ["jazz", "cellar"], "at_least": 1}, "jazz", True),
        ({"slot": "room"}, "the cellar", True),
        ({"slot": "room"}, "the kitchen", False),
        ({"answer": True}, "cats and grey dogs", False),
        ({"answer": True}, "grey cats chase dogs", True),
        ({"answer": True, "at_least": 1}, "dogs", True),
        ({"value": "keyword"}, "there is soap", True),
        ({"value": "keyword"}, "there is soup", False),
    ],
)
def test_contains(options, text, expected):
    answer = ["grey cats", "dogs"] if options.get("answer") else SLOTS
    assert passes({"contains": options}, text, sample(answer=answer, values={"keyword": "soap"})) is expected


def test_contains_all_slots_of_a_label():
    two = sample(answer=[{"label": "person", "value": name} for name in ("Anna", "Peter")])
    assert passes({"contains": {"slot": "person"}}, "Anna, Peter", two)
    assert not passes({"contains": {"slot": "person"}}, "Anna", two)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kitchen and dining", True),
        ("It is about Kitchen_and_dining.", True),
        ("kitchen", False),
        ("kitchen and dining or travel", False),
        ("travelling", False),
        ("kitchen and dining, that is kitchen and dining", True),
        ("", False),
    ],
)
def test_label(text, expected):
    about = sample(answer="kitchen_and_dining", labels={"kitchen_and_dining": "food", "travel": "", "dining": ""})
    assert passes({"label": None}, text, about) is expected


def test_a_label_within_another_is_not_named_by_it():
    labels = {"speech": "", "not speech": ""}
    assert passes({"label": {}}, "Not speech.", sample(answer="not speech", labels=labels))
    assert not passes({"label": {}}, "Not speech.", sample(answer="speech", labels=labels))
    assert passes({"label": {}}, "It is speech.", sample(answer="speech", labels=labels))


def test_lengths():
    half = {"shorter_than_transcript": {"share": 0.5}}  # of six words
    assert [passes(half, text) for text in ("", "jazz", "jazz in kitchen", "jazz in the kitchen")] == [
        False,
        True,
        True,
        False,
    ]
    assert passes(half, "stop", sample("stop"))  # one word is few enough
    at_most = {"words": {"at_most": 2}}
    assert [passes(at_most, text) for text in ("", "the kitchen", "in the kitchen")] == [False, True, False]
    assert passes({"words": {"at_least": 3}}, "in the kitchen") and not passes({"words": {"at_least": 3}}, "a - b")


def test_differs_from_transcript():
    rule = {"differs_from_transcript": {"min_wer": 0.8}}
    assert passes(rule, "I would love to.")
    assert not passes(rule, "Play some jazz in the kitchen.") and not passes(rule, "play jazz in the cellar")
    assert not passes(rule, "") and not passes(rule, " . ")


def test_transcribes():
    rule = {"transcribes": {"max_wer": 0.2}}  # one word of six
    assert passes(rule, "Play some jazz in the garden!") and not passes(rule, "jazz in the garden")
    assert not passes(rule, "")


def test_few_repetitions():
    rule = {"few_repetitions": {}}
    assert passes(rule, "a man and a woman and a dog") and passes(rule, "no") and passes(rule, "")
    assert not passes(rule, "a dog in a dog in a dog in a dog in")  # three pairs in eleven places
    assert passes({"few_repetitions": {"distinct": 0.5}}, "no no no yes")  # two of three
    assert not passes({"few_repetitions": {"distinct": 0.7}}, "no no no yes")


def test_language():
    pytest.importorskip("py3langid")
    spanish = {"language": {"code": "es"}}
    assert passes(spanish, "Pon algo de jazz en la cocina.") and passes(spanish, "¿Va a llover mañana en Berlín?")
    for text in (
        "Play some jazz in the kitchen.",
        "Mets du jazz dans la cuisine.",
        "Acende a luz da cozinha.",
        "",
        "...",
    ):
        assert not passes(spanish, text)
    with pytest.raises(ValueError, match="key passes.language: py3langid knows no language 'spanish'"):
        parse_criteria({"language": {"code": "spanish"}})


def test_all_criteria_have_to_hold_and_those_that_do_not_are_named():
    criteria = parse_criteria({"contains": {"phrase": "kitchen"}, "words": {"at_most": 3}})
    assert criteria.passes("in the kitchen", sample()) and criteria.failed("the cellar", sample()) == ["contains"]
    assert criteria.failed("it is not in the cellar", sample()) == ["contains", "words"]


def test_criteria_say_what_a_sample_lacks():
    assert parse_criteria({"punctuated": {}}).lacks(sample(None)) == "punctuated needs a transcript"
    assert parse_criteria({"contains": {"slot": "city"}}).lacks(sample(answer=SLOTS)) == "contains needs a slot city"
    assert parse_criteria({"contains": {"value": "keyword"}}).lacks(sample()) == "contains needs a value keyword"
    assert (
        parse_criteria({"contains": {"answer": True}}).lacks(sample(answer=[])) == "contains needs an answer in words"
    )
    assert parse_criteria({"label": {}}).lacks(sample(answer="jazz")) == "label needs classes"
    for values in ({"words": {}}, {"punctuated": {}}, {"contains": {"phrase": "a"}}):
        assert parse_criteria(values).lacks(sample()) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"key passes is {}; it is a mapping of contains, "),
        (
            {"funny": {}},
            "key passes names the criterion 'funny'; known are contains, differs_from_transcript, few_rep",
        ),
        ({"contains": {}}, "key passes.contains: nothing is given; give one of phrase, slot, answer, value"),
        ({"contains": {"slot": "a", "phrase": "b"}}, "phrase and slot is given; give one of"),
        ({"contains": {"phrase": "a", "at_least": 0}}, "key at_least is 0; it is at least 1"),
        ({"words": {"at_least": 3, "at_most": 2}}, "keys at_least and at_most are 3 and 2; none would do"),
        ({"shorter_than_transcript": {"share": 1}}, "key share is 1; it is above 0 and below 1"),
        ({"differs_from_transcript": {"min_wer": -1}}, "key min_wer is -1; it is at least 0"),
        ({"few_repetitions": {"distinct": 2}}, "key distinct is 2; it is a share from 0 to 1"),
        ({"label": {"labels": []}}, "key passes.label: unknown key labels"),
        ({"language": {}}, "key passes.language: key code is missing"),
    ],
)
def test_mistakes_in_criteria(values, message):
    with pytest.raises(ValueError, match=message):
        parse_criteria(values)
