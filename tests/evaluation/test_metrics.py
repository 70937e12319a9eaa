"""The metrics, against the libraries they rest on and against second implementations that share no code with them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from setuptools import find_packages
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer
from whisper_normalizer.english import EnglishSpellingNormalizer

from speechverse.evaluation.corpus_metric import METRICS, CorpusMetric, load_metric
from speechverse.processing import TaskBank


ROOT = Path(__file__).parents[2]
DATE, NOON = {"label": "date", "value": "this friday"}, {"label": "time", "value": "noon"}
# One answer that could not be read, one right, one half right.
EXAMPLES = {
    "accuracy": ([None, "sad", "glad"], ["glad", "sad", "sad"]),
    "bleu": (
        [None, "the cat sat on the mat", "a dog ran off"],
        ["a b", "the cat sat on the mat", "the dog ran off today"],
    ),
    "keyword_f1": ([None, ["Rain"], ["sun", "sea"]], [["ice"], ["rain"], ["sea"]]),
    "pass_rate": ([None, "pass", "fail"], ["pass"] * 3),
    "sd_f1": ([None, [NOON], [DATE, NOON]], [[DATE], [NOON], [DATE]]),
    "slu_f1": ([None, [NOON], [{"label": "date", "value": "friday"}]], [[DATE], [NOON], [DATE]]),
    "uar": ([None, "sad", "glad"], ["glad", "sad", "sad"]),
    "wer": ([None, "a b", "a x c d"], ["a", "A, B!", "a b c"]),
}
VALUES = {
    "accuracy": 1 / 3,
    "keyword_f1": (0 + 1 + 2 / 3) / 3,
    "pass_rate": 1 / 3,
    "sd_f1": 2 * 2 / (2 * 2 + 1 + 1),
    # twice 2 right and 1 missed; "friday" is 1 of 2 words and 5 of 11 characters away
    "slu_f1": 2 * 4 / (2 * 4 + (1 / 2 + 5 / 11) + (2 + 1 / 2 + 5 / 11)),
    "uar": (0 + 1 / 2) / 2,
    "wer": (1 + 0 + 2) / 6,
}

words = st.sampled_from(
    ["a", "b", "cat", "The", "mat", "colour", "don't", "twenty", "five", "$5", "uh", "(x)", ",", "."]
)
texts = st.lists(words, max_size=8).map(" ".join)
pairs_of_texts = st.lists(st.tuples(texts, texts), min_size=1, max_size=6)
slots = st.lists(
    st.fixed_dictionaries(
        {
            "label": st.sampled_from(["x", "y", "z"]),
            "value": st.lists(st.text("abC", min_size=1, max_size=4), min_size=1, max_size=4).map(" ".join),
        }
    ),
    max_size=5,
)
pairs_of_slots = st.lists(st.tuples(slots, slots), min_size=1, max_size=4)
pairs_of_labels = st.lists(
    st.tuples(st.sampled_from(["p", "q", "r", None]), st.sampled_from(["p", "q", "s"])), min_size=1
)
fast = settings(deadline=None, max_examples=200)


@pytest.fixture(scope="module", params=sorted(METRICS))
def metric(request) -> CorpusMetric:
    return load_metric(request.param)


def corpus_value(metric, pairs) -> float:
    predictions, references = zip(*pairs, strict=True)
    return float(metric.value(metric.statistics(predictions, references).sum(axis=0)))


# What all have in common.


def test_worked_example(metric):
    predictions, references = EXAMPLES[metric.metric_name]
    if metric.metric_name == "bleu":
        value = sacrebleu.corpus_bleu([text or "" for text in predictions], [references]).score
    else:
        value = VALUES[metric.metric_name]
    result = metric.compute(predictions=predictions, references=references)
    assert result[metric.metric_name] == pytest.approx(value, rel=1e-12)
    assert result["low"] <= result[metric.metric_name] <= result["high"]
    assert result["signature"] == metric.signature and metric.signature
    assert set(result) == {metric.metric_name, "low", "high", "signature"}


def test_statistics_are_sums_of_samples_and_give_a_sample_its_own_score(metric):
    predictions, references = EXAMPLES[metric.metric_name]
    statistics = metric.statistics(predictions, references)
    assert statistics.dtype == np.float64 and len(statistics) == 3
    scores = metric.value(statistics)
    assert scores.shape == (3,) and metric.value(np.stack([statistics, statistics])).shape == (2, 3)
    for score, prediction, reference in zip(scores, predictions, references, strict=True):
        alone = metric.compute(predictions=[prediction], references=[reference])
        assert alone[metric.metric_name] == pytest.approx(score, rel=1e-12) == alone["low"]
    right, wrong = scores[1], scores[0]
    assert (right > wrong) == metric.higher_is_better
    assert right * metric.scale == pytest.approx(100 if metric.higher_is_better else 0)


def test_answers_come_in_batches_too(metric):
    predictions, references = EXAMPLES[metric.metric_name]
    expected = metric.compute(predictions=predictions, references=references)
    metric.add_batch(predictions=predictions[:2], references=references[:2])
    metric.add_batch(predictions=predictions[2:], references=references[2:])
    assert metric.compute() == expected


def test_wrong_use_is_refused(metric):
    predictions, references = EXAMPLES[metric.metric_name]
    with pytest.raises(ValueError, match="there are 2 predictions for 3 references"):
        metric.statistics(predictions[:2], references)
    with pytest.raises(ValueError, match=r"number of predictions \(2\) and references \(3\)"):
        load_metric(metric.metric_name).compute(predictions=predictions[:2], references=references)
    with pytest.raises(ValueError, match="no samples to score"):
        metric.statistics([], [])
    with pytest.raises(ValueError, match="no samples to score"):
        load_metric(metric.metric_name).compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="reference 0 is None"):
        metric.statistics(predictions, [None, *references[1:]])
    with pytest.raises(ValueError, match="prediction 2 is 7, which is no"):
        metric.statistics([*predictions[:2], 7], references)
    with pytest.raises(ValueError, match="2 speakers for 3 samples"):
        load_metric(metric.metric_name).compute(predictions=predictions, references=references, speakers=["a", "b"])


def test_answers_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="prediction 0 is 'rain', which is no keywords answer"):
        load_metric("keyword_f1").statistics(["rain"], [["rain"]])
    with pytest.raises(ValueError, match="reference 0 is .*, which is no slots answer"):
        load_metric("slu_f1").statistics([[]], [[{"label": "date"}]])
    with pytest.raises(ValueError, match=r"prediction 0 is \['a'\], which is no label answer"):
        load_metric("accuracy").statistics([["a"]], ["a"])


def test_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="There is no metric 'cer'; there are accuracy, .*, wer"):
        load_metric("cer")


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    monkeypatch.delitem(sys.modules, "speechverse.evaluation.metrics.bleu.bleu", raising=False)
    with pytest.raises(ImportError, match=r"bleu needs sacrebleu.*pip install 'speechverse\[eval\]'"):
        load_metric("bleu")


def test_every_shipped_task_has_a_known_metric():
    shipped = {task.metric for task in TaskBank.from_yaml(ROOT / "processing" / "tasks")} - {None}
    assert shipped <= METRICS.keys()


def test_every_script_is_installed_and_listed():
    scripts = {file.stem for file in (ROOT / "evaluation" / "metrics").glob("*/*.py") if file.stem != "__init__"}
    assert scripts == METRICS.keys()
    packages = find_packages(str(ROOT), include=["evaluation.*"])
    assert {f"evaluation.metrics.{name}" for name in METRICS} | {"evaluation.metrics"} <= set(packages)
    assert {load_metric(name).metric_name for name in METRICS} == METRICS.keys()


def test_evaluate_loads_every_script_without_a_network_from_anywhere(tmp_path):
    script = """
import json, os, socket, sys

def refuse(*_):
    raise AssertionError("a connection was asked for")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import evaluate

root, examples = sys.argv[1], json.loads(sys.argv[2])
results = {}
for name, (predictions, references) in examples.items():
    answers = {"predictions": predictions, "references": references, "speakers": ["ann", "bob", "ann"]}
    results[name] = evaluate.load(os.path.join(root, "evaluation", "metrics", name)).compute(**answers)
os.chdir(root)
answers = {"predictions": ["größe"], "references": ["Größe!"]}
results["german"] = evaluate.load("evaluation/metrics/wer", language="de").compute(**answers)
print(json.dumps(results))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    run = subprocess.run(
        [sys.executable, "-c", script, str(ROOT), json.dumps(EXAMPLES)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout.splitlines()[-1])
    german = results.pop("german")
    assert german["wer"] == 0 and "language:de" in german["signature"]
    for name, (predictions, references) in EXAMPLES.items():
        speakers = ["ann", "bob", "ann"]
        assert results[name] == load_metric(name).compute(
            predictions=predictions, references=references, speakers=speakers
        )


# Word error rate.


@fast
@given(pairs_of_texts)
def test_wer_is_jiwers_of_whispers_words(pairs):
    normalise = EnglishTextNormalizer(EnglishSpellingNormalizer().mapping)
    predictions, references = ([normalise(text) for text in texts] for texts in zip(*pairs, strict=True))
    if any(reference.strip() for reference in references):
        assert corpus_value(load_metric("wer"), pairs) == jiwer.wer(references, predictions)


def test_wer_normalises_both_sides_and_says_how():
    wer = load_metric("wer")
    assert corpus_value(wer, [("Colours aren't -- uh -- twenty-five [noise]", "colors are not 25")]) == 0
    assert "whisper-english" in wer.signature and "spelling-map:whisper-normalizer-" in wer.signature
    assert "jiwer:" in wer.signature and "transformers:" in wer.signature


def test_wer_without_a_word_said_counts_what_is_made_up():
    wer = load_metric("wer")
    rows = wer.statistics([None, "", "two words", ""], ["", "uh", "[laughter]", "gone"])
    assert rows.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [0, 1, 0, 1]]
    assert wer.value(rows).tolist() == [0, 0, 2, 1] and wer.value(rows.sum(axis=0)) == 3


def test_wer_of_other_languages():
    german, chinese = load_metric("wer", language="de"), load_metric("wer", language="zh")
    basic = BasicTextNormalizer()
    pairs = [("Die Größe, bitte!", "die grösse bitte"), ("zwanzig", "20")]
    predictions, references = ([basic(text) for text in texts] for texts in zip(*pairs, strict=True))
    assert corpus_value(german, pairs) == jiwer.wer(references, predictions) == 2 / 4
    assert corpus_value(chinese, [("今天天气", "今天氣")]) == 2 / 3  # characters
    assert "language:de|normaliser:whisper-basic|" in german.signature
    assert "words:characters" in chinese.signature and "spelling-map" not in german.signature


def test_wer_takes_no_names_of_languages():
    with pytest.raises(ValueError, match="language is 'English'; it is a two-letter code"):
        load_metric("wer", language="English")


# BLEU.


@fast
@given(pairs_of_texts)
def test_bleu_is_sacrebleus(pairs):
    predictions, references = zip(*pairs, strict=True)
    assert corpus_value(load_metric("bleu"), pairs) == sacrebleu.corpus_bleu(predictions, [references]).score


def test_bleu_signature_is_sacrebleus_of_the_same_options():
    scorer = sacrebleu.metrics.BLEU(lowercase=True, tokenize="intl")
    value = scorer.corpus_score(["The Cat sat on it."], [["the cat sat on it!"]]).score
    bleu = load_metric("bleu", lowercase=True, tokenize="intl")
    assert bleu.signature == str(scorer.get_signature()) and "nrefs:1|case:lc" in bleu.signature
    assert corpus_value(bleu, [("The Cat sat on it.", "the cat sat on it!")]) == value
    with pytest.raises(ValueError, match="no tokenizer 'words'; it has .*13a"):
        load_metric("bleu", tokenize="words")


# Labels.


@fast
@given(pairs_of_labels)
def test_uar_and_accuracy_count_right_labels(pairs):
    recalls = []
    for label in {truth for _, truth in pairs}:
        answers = [answer for answer, truth in pairs if truth == label]
        recalls.append(answers.count(label) / len(answers))
    assert corpus_value(load_metric("uar"), pairs) == pytest.approx(sum(recalls) / len(recalls), rel=1e-12)
    right = len([1 for answer, truth in pairs if answer == truth])
    assert corpus_value(load_metric("accuracy"), pairs) == right / len(pairs)


def test_uar_of_two_systems_has_the_same_columns():
    uar, references = load_metric("uar"), ["a", "b", "b"]
    one, other = uar.statistics(["a", "a", "a"], references), uar.statistics(["c", None, "b"], references)
    assert one.tolist() == [[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]] and other.shape == one.shape
    assert uar.value(one.sum(axis=0)) == 0.5 and uar.value(other.sum(axis=0)) == 0.25
    assert uar.value(one[:1].sum(axis=0)) == 1  # b was not asked for


# Keywords.


def test_keywords_are_sets_in_lower_case():
    f1 = load_metric("keyword_f1")
    pairs = [
        (["Big  Rain", "big rain", "sun"], ["big rain", "sea"]),  # 1 of 2 and 1 of 2
        ([], []),
        (None, []),
        ([], ["sea"]),
        (["sea"], []),
        (["SEA", ""], ["sea"]),
    ]
    predictions, references = zip(*pairs, strict=True)
    assert f1.value(f1.statistics(predictions, references)).tolist() == [0.5, 1, 1, 0, 0, 1]
    assert corpus_value(f1, pairs) == 3.5 / 6


# Slots.


def edit_distance(one, other) -> float:
    """Levenshtein's, by the whole table."""
    table = np.zeros((len(one) + 1, len(other) + 1))
    table[:, 0], table[0, :] = np.arange(len(one) + 1), np.arange(len(other) + 1)
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            swapped = table[i - 1, j - 1] + (one[i - 1] != other[j - 1])
            table[i, j] = min(swapped, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return float(table[-1, -1])


def second_slu_f1(pairs, measures=("word", "char")) -> float:
    """SLURP's definition once more: label by label, with counts by label that are summed at the end."""
    counts = {"tp": {}, "fp": {}, "fn": {}}

    def add(kind, label, amount):
        counts[kind][label] = counts[kind].get(label, 0.0) + amount

    for measure in measures:
        for predicted, gold in pairs:
            taken = set()
            for slot in predicted or []:
                best = None
                for number in range(len(gold)):
                    if number in taken or gold[number]["label"] != slot["label"]:
                        continue
                    truth, value = gold[number]["value"].lower(), slot["value"].lower()
                    if measure == "word":
                        d = edit_distance(truth.split(" "), value.split(" ")) / len(truth.split(" "))
                    elif measure == "char":
                        d = edit_distance(truth, value) / max(len(truth), len(value))
                    else:
                        d = 0.0
                    if best is None or d < best[0]:
                        best = (d, number)
                if best is None:
                    add("fp", slot["label"], 1.0)
                else:
                    taken.add(best[1])
                    add("tp", slot["label"], 1.0)
                    add("fp", slot["label"], best[0])
                    add("fn", slot["label"], best[0])
            for number in range(len(gold)):
                if number not in taken:
                    add("fn", gold[number]["label"], 1.0)
    tp, fp, fn = (sum(counts[kind].values()) for kind in ("tp", "fp", "fn"))
    if tp + fp + fn == 0:
        return 1.0
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@fast
@given(pairs_of_slots)
def test_slu_f1_is_that_of_a_second_implementation(pairs):
    slu_f1, sd_f1 = (corpus_value(load_metric(name), pairs) for name in ("slu_f1", "sd_f1"))
    assert slu_f1 == pytest.approx(second_slu_f1(pairs), rel=1e-12, abs=1e-12)
    assert sd_f1 == pytest.approx(second_slu_f1(pairs, measures=["none"]), rel=1e-12, abs=1e-12)
    assert slu_f1 <= sd_f1 + 1e-12


def slot_list(*slots):
    return [{"label": label, "value": value} for label, value in slots]


@pytest.mark.parametrize(
    ("predicted", "gold", "counts"),
    [
        pytest.param([("date", "Next  Friday")], [("date", "next friday")], [2, 0, 0], id="right"),
        pytest.param([], [("date", "today")], [0, 0, 2], id="missed"),
        pytest.param([("date", "today")], [], [0, 2, 0], id="made up"),
        pytest.param([("time", "today")], [("date", "today")], [0, 2, 2], id="wrong label"),
        # 1 of 1 words and 3 of 5 characters; then 2 more than 1 word, and 4 of 9 characters
        pytest.param([("date", "month")], [("date", "today")], [2, 1 + 4 / 5, 1 + 4 / 5], id="wrong value"),
        pytest.param([("place", "in a home")], [("place", "home")], [2, 2 + 5 / 9, 2 + 5 / 9], id="more than one"),
        # "new york" takes the second one, which is right, and "york" what is left
        pytest.param(
            [("city", "new york"), ("city", "york")],
            [("city", "york"), ("city", "new york")],
            [4, 0, 0],
            id="the nearest is taken",
        ),
        # The first is greedy: it takes "a b", from which it is as far as from "b c", and leaves the second what is farther.
        pytest.param(
            [("x", "b"), ("x", "a b")],
            [("x", "a b"), ("x", "b c")],
            [4, 1 / 2 + 2 / 2 + 2 / 3 + 2 / 3, 1 / 2 + 2 / 2 + 2 / 3 + 2 / 3],
            id="the first of several alike, in order",
        ),
        # By words the second gold one is nearer, by characters the first.
        pytest.param(
            [("x", "ab c")],
            [("x", "abc"), ("x", "xyz c")],
            [2, 1 / 2 + 1 / 4, 2 + 1 / 2 + 1 / 4],
            id="by each distance",
        ),
        pytest.param([("x", "a"), ("x", "a")], [("x", "a")], [2, 2, 0], id="twice"),
    ],
)
def test_slu_f1_by_hand(predicted, gold, counts):
    slu_f1 = load_metric("slu_f1")
    rows = slu_f1.statistics([slot_list(*predicted)], [slot_list(*gold)])
    assert rows[0] == pytest.approx(counts)
    hits, wrong, missed = counts
    precision, recall = hits / (hits + wrong) if hits else 0, hits / (hits + missed) if hits else 0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0
    assert slu_f1.value(rows) == pytest.approx([f1])


def test_slots_that_are_nowhere_score_one_alone_and_nothing_among_others():
    for name in ("slu_f1", "sd_f1"):
        metric = load_metric(name)
        gold = [slot_list(("date", "today")), []]
        rows = metric.statistics([slot_list(("date", "now")), None], gold)
        assert metric.value(rows)[1] == 1
        assert metric.value(rows.sum(axis=0)) == metric.value(rows[0])


def test_an_empty_value_is_wrong_and_no_error():
    slu_f1 = load_metric("slu_f1")
    assert slu_f1.statistics([slot_list(("x", ""))], [slot_list(("x", "a b"))])[0] == pytest.approx([2, 2, 2])
    assert slu_f1.statistics([slot_list(("x", "a b"))], [slot_list(("x", ""))])[0] == pytest.approx([2, 3, 3])
