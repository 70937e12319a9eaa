"""The page and the tables against the samples that they are of, read and scored anew by other means."""

import json
import re
import sys

import jiwer
import numpy as np
import pytest
import sacrebleu
from markdown_it import MarkdownIt
from report_pages import Page, figures, results_tables
from report_runs import OURS, make_lines, write_one, write_run, write_runs
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from speechverse.evaluation import report
from speechverse.evaluation.corpus_metric import load_metric
from speechverse.evaluation.intervals import bootstrap
from speechverse.evaluation.report_data import find_worst, group, read_run


HOSTILE = "<script>alert('x')</script> \"><img src=http://evil.example/x> | a `b` [c](http://evil.example) $y$"


def recompute(folder, row: str, task: str, metric: str) -> float:
    """A row's figure from its samples, in plain Python: shares by counting, errors by jiwer, BLEU by sacrebleu."""
    pairs = answers_and_truths(folder, row, task)
    answers, truths = zip(*pairs, strict=True)
    if metric == "wer":
        normalise = EnglishTextNormalizer({})
        return 100 * jiwer.wer([normalise(text) for text in truths], [normalise(text or "") for text in answers])
    if metric == "bleu":
        return sacrebleu.corpus_bleu([text or "" for text in answers], [truths]).score
    if metric == "accuracy":
        return 100 * sum(answer == truth for answer, truth in pairs) / len(pairs)
    if metric == "keyword_f1":
        shared = [len(set(answer or ()) & set(truth)) for answer, truth in pairs]
        return 100 * sum(2 * n / (len(a or ()) + len(t)) for n, (a, t) in zip(shared, pairs, strict=True)) / len(pairs)
    if metric == "slu_f1":
        return 100 * slu_f1_of_single_slots(pairs)
    recalls = [[answer == truth for answer, truth in pairs if truth == each] for each in set(truths)]
    return 100 * sum(sum(recall) / len(recall) for recall in recalls) / len(recalls)


def answers_and_truths(folder, row: str, task: str) -> list[tuple]:
    pairs = []
    for line in map(json.loads, (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()):
        if line["row"] == row:
            answer, truth = line["answer"], line["reference"]
            joint = isinstance(truth, dict)
            pairs.append(((answer or {}).get(task), truth[task]) if joint else (answer, truth))
    return pairs


def slu_f1_of_single_slots(pairs: list[tuple]) -> float:
    """SLU-F1 where each truth is one slot of one label, and each answer at most one: no slots have to be matched."""
    hits = wrong = missed = 0
    for answer, (truth,) in pairs:
        for distance in (jiwer.wer, character_share):
            if not answer:
                missed += 1
                continue
            (slot,) = answer
            assert slot["label"] == truth["label"]
            off = distance(truth["value"], slot["value"])
            hits, wrong, missed = hits + 1, wrong + off, missed + off
    precision, recall = hits / (hits + wrong), hits / (hits + missed)
    return 2 * precision * recall / (precision + recall)


def character_share(truth: str, value: str) -> float:
    """Levenshtein's distance by the textbook's table, as a share of the longer text."""
    row = list(range(len(value) + 1))
    for i, letter in enumerate(truth, 1):
        above, row = row, [i]
        for j, other in enumerate(value, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != other)))
    return row[-1] / max(len(truth), len(value))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders of three systems on three suites, and the report of them."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPORT_RUNS", str(root / "audio"))
        folders = write_runs(root)
        report.make_report(folders, root / "out")
    return root, folders


@pytest.fixture(scope="module")
def page(made):
    return Page((made[0] / "out" / "report.html").read_text(encoding="utf-8"))


COLUMNS = {  # of the page: suite -> where the folders of each column's figures are
    "spoken": ["speechverse_spoken", "cascade_spoken"],
    "joint": ["speechverse_joint", "cascade_joint"],
    "moods": ["speechverse_moods", "classifier_moods"],
}
ROWS = {
    "spoken": [
        ("asr", "asr", "wer"),
        ("ic", "ic", "accuracy"),
        ("sf", "sf", "slu_f1"),
        ("st", "st", "bleu"),
        ("kwe", "kwe", "keyword_f1"),
    ],
    "joint": [("asr_ic", "asr", "wer"), ("asr_ic", "ic", "accuracy")],
    "moods": [("er", "er", "uar")],
}


def test_every_score_is_what_the_samples_give(made, page):
    root, _ = made
    checked = 0
    for table, (suite, rows) in zip(results_tables(page), ROWS.items(), strict=True):
        assert len(table) == 2 + len(rows)
        for cells, (row, task, metric) in zip(table[2:], rows, strict=True):
            for cell, folder in zip(cells[2:4], COLUMNS[suite], strict=True):
                if folder == "cascade_spoken" and row == "st":
                    assert cell.strip() == "-"
                else:
                    assert figures(cell)[0] == pytest.approx(recompute(root / folder, row, task, metric), abs=0.051)
                    checked += 1
    assert checked == 2 * 7 + 1


def test_intervals_and_differences_stand_beside_the_scores(made, page):
    root, _ = made
    for table, (suite, rows) in zip(results_tables(page), ROWS.items(), strict=True):
        entries = json.loads((root / COLUMNS[suite][0] / "results.json").read_text())["results"]
        for cells, entry, (row, _, _) in zip(table[2:], entries, rows, strict=True):
            value, low, high = figures(cells[2])
            written = [entry["scale"] * entry[name] for name in ("value", "low", "high")]
            assert [value, low, high] == pytest.approx(written, abs=0.051)
            if row == "st":
                continue
            theirs, _, _, difference, low, high = figures(cells[3])
            assert difference == pytest.approx(value - theirs, abs=0.101)
            assert low <= difference <= high
            won = (difference > 0) == entry["higher_is_better"]
            mark = "tied" if low <= 0 <= high else "won" if won else "lost"
            assert re.search(r"\b(won|tied|lost)\b", cells[3])[0] == mark
            assert list(entry["paper"].values()) == [figure for cell in cells[4:] for figure in figures(cell)]
            assert ("↑" in cells[1], "↓" in cells[1]) == (entry["higher_is_better"], not entry["higher_is_better"])


def test_intervals_are_what_draws_of_speakers_give(made, page):
    root, _ = made
    right = []
    for folder in COLUMNS["spoken"]:
        by_speaker = np.zeros((7, 2))  # right answers, and all
        for line in map(json.loads, (root / folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()):
            if line["row"] == "ic":
                by_speaker[int(line["speaker"].split()[1])] += line["answer"] == line["reference"], 1
        right.append(by_speaker)
    draws = np.random.default_rng(0).multinomial(7, [1 / 7] * 7, size=1000)
    ours, theirs = (100 * (draws @ each[:, 0]) / (draws @ each[:, 1]) for each in right)
    cells = results_tables(page)[0][3]
    assert "accuracy" in cells[1]
    assert figures(cells[2])[1:] == pytest.approx(np.percentile(ours, [2.5, 97.5]), abs=0.051)
    assert figures(cells[3])[1:3] == pytest.approx(np.percentile(theirs, [2.5, 97.5]), abs=0.051)
    assert figures(cells[3])[4:] == pytest.approx(np.percentile(ours - theirs, [2.5, 97.5]), abs=0.051)


def test_intervals_of_few_speakers_and_of_one_sample_say_so(tmp_path):
    lines = make_lines("asr", ["asr"], 0.5, count=24)
    notes = {}
    for speakers in (1, 9, 10, None):
        for line in lines:
            line["speaker"] = None if speakers is None else f"speaker {line['index'] % speakers}"
        report.make_report([write_one(tmp_path / str(speakers), lines)], tmp_path / "out")
        texts = [(tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")]
        row = results_tables(Page(texts[0]))[0][2][0]
        notes[speakers] = (
            row.partition("24 samples")[2].partition(", 2 left out")[0].replace("\u00a0", " "),
            *("† Fewer than 10 speakers" in text for text in texts),
        )
    assert notes == {
        1: (", 1 speaker †", True, True),
        9: (", 9 speakers †", True, True),
        10: (", 10 speakers", False, False),
        None: ("", False, False),
    }
    report.make_report([write_one(tmp_path / "a", lines[:1])], tmp_path / "out")
    assert "(one sample)" in results_tables(Page((tmp_path / "out" / "report.html").read_text()))[0][2][2]


def test_folders_of_this_machine_stay_at_home(tmp_path):
    lines = make_lines("asr", ["asr"], 0.2, count=5)
    for line in lines:
        line["audio"] = "/home/ann/calls/1.wav"
    system = OURS | {"model": "/home/ann/runs/mini", "parts": {"asr": "/home/ann/runs/asr"}}
    command = ["python", "evaluation/run.py", "--model", "/home/ann/runs/mini", "--out=/home/ann/out"]
    report.make_report([write_one(tmp_path / "a", lines, system, command=command)], tmp_path / "out")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "ann" not in re.findall(r"\w+", text) and "--model mini --out=out" in text and "asr: asr" in text


def test_rows_won_tied_and_lost_are_counted(page):
    text = " ".join(" ".join(page.text).split())
    for table, against in zip(results_tables(page), ("whisper-base and mini-text",) * 2 + ("gru",), strict=True):
        marks = re.findall(r"\b(won|tied|lost)\b", " ".join(cells[3] for cells in table[2:]))
        counts = " ".join(f"{marks.count(outcome)} {outcome}" for outcome in ("won", "tied", "lost"))
        assert f"{counts} against {against}" in text


def test_small_print_is_there(page):
    text = " ".join(" ".join(page.text).split())
    assert "whisper-base and mini-text was not asked Calls, st: its language is unknown to it" in text
    assert "2 left out" in text and "2: silent" in text
    assert "Please do asr." in text and "held out, number 0" in text and "nrefs:1" in text
    assert "7 speakers drawn again" in text
    assert "python evaluation/run.py --model mini --suite spoken" in text


def test_page_asks_for_nothing_and_is_well_formed(made, page):
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "data", "poster", "srcset", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        assert "url(" not in (attributes.get("style") or "").replace("url(#", "")
    html = (made[0] / "out" / "report.html").read_text(encoding="utf-8")
    assert "@import" not in html and "url(h" not in html
    assert not page.with_tag("script")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = {attributes["href"][1:] for attributes in page.with_tag("a")}
    assert anchors <= set(ids) and len(anchors) == 3 + 4
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.with_tag("svg"))
    assert len(page.with_tag("svg")) == 3 + 2  # matrices of IC twice and ER, and two rows with a WER
    assert page.with_tag("html")[0]["lang"] == "en" and page.with_tag("title")


def test_players_hold_their_recordings_and_others_say_so(made, page):
    root, folders = made
    worst = find_worst(group([read_run(folder) for folder in folders]), 20)
    names = [mistake.line["audio"].removeprefix("$REPORT_RUNS/") for mistake in worst]
    there = [name for name in names if (root / "audio" / name).is_file()]
    players = page.with_tag("audio")
    assert 0 < len(players) == len(there) < len(names) == 20
    missing = " ".join(page.text).count("The recording is not on this machine.")
    assert missing == len(names) - len(there)
    assert all(player["src"].startswith("data:audio/") and "controls" in player for player in players)


def test_worst_answers_are_each_recording_once(made):
    _, folders = made
    worst = find_worst(group([read_run(folder) for folder in folders]), 10_000)
    wrong = {}
    for folder in folders[:3]:
        for line in map(json.loads, (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()):
            if line["answer"] != line["reference"]:
                wrong.setdefault(line["row"], set()).add(line["audio"])
    assert len(worst) == sum(map(len, wrong.values()))
    assert {mistake.line["audio"] for mistake in worst} == set.union(*wrong.values())
    fewer = find_worst(group([read_run(folder) for folder in folders]), 20)
    assert [one.line for one in fewer] == [one.line for one in worst[:20]]


def test_worst_answers_take_turns_by_rows(made):
    _, folders = made
    worst = find_worst(group([read_run(folder) for folder in folders]), 10_000)
    rows = [mistake.line["row"] for mistake in worst]
    turns = [rows[:index].count(row) for index, row in enumerate(rows)]
    assert turns == sorted(turns)  # no row has its next one before all have had theirs
    assert set(rows[:7]) == {"asr", "ic", "sf", "st", "kwe", "asr_ic", "er"}
    keys = [(turn, -one.badness, -one.line["duration"]) for turn, one in zip(turns, worst, strict=True)]
    assert keys == sorted(keys)
    for row in set(rows):
        badness = [mistake.badness for mistake in worst if mistake.line["row"] == row]
        assert badness == sorted(badness, reverse=True)


def test_keywords_and_slots_are_written_out_among_the_worst(page):
    text = " ".join(" ".join(page.text).split())
    assert re.search(r"Truth place = \w+ Answer", text) and re.search(r"Truth \w+, \w+ Answer", text)
    assert "Calls, asr_ic: " in text


def test_markdown_tables_hold_what_the_page_does(made, page):
    tokens = (
        MarkdownIt("commonmark").enable("table").parse((made[0] / "out" / "report.md").read_text(encoding="utf-8"))
    )
    tables, row = [], None
    for index, token in enumerate(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            row = []
            tables[-1].append(row)
        elif token.type in ("th_open", "td_open"):
            row.append("".join(child.content for child in tokens[index + 1].children))
    of_results = [table for table in tables if table[0][0] == "Task"]
    of_pages = [table for table in page.tables if table[0][0].strip() == "Task"]
    assert len(of_results) == 3 + 2
    for table, of_page in zip(of_results, of_pages, strict=True):
        assert len(table) == len(of_page) - 1 and len({len(cells) for cells in table}) == 1
        for cells, same in zip(table[1:], of_page[2:], strict=True):
            assert [figures(cell) for cell in cells[3:]] == [figures(cell) for cell in same[2:]]
    assert [len(table) for table in tables if table[0][0] == "Row"] == [21]


def test_hostile_text_is_only_text(tmp_path):
    lines = make_lines("asr", ["asr"], 0.5, count=3)
    labels = make_lines("ic", ["ic"], 0.5, count=3)
    for line in lines + labels:
        line["output"] = line["answer"] = line["instruction"] = line["speaker"] = HOSTILE
        line["audio"] = "/nowhere/<b>.wav"
    labels[0]["reference"] = labels[1]["reference"] = f"{HOSTILE}!"
    write_run(tmp_path / "a", HOSTILE, {"kind": HOSTILE, "name": HOSTILE}, [lines, labels], title=HOSTILE)
    other = {"kind": "asr", "name": f"{HOSTILE} 2"}
    write_run(tmp_path / "b", HOSTILE, other, [lines], not_asked=[{"row": "ic", "reason": HOSTILE}])
    report.make_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert not page.with_tag("script") and not page.with_tag("img") and not page.with_tag("b")
    assert HOSTILE in "".join(page.text)
    tokens = (
        MarkdownIt("commonmark").enable("table").parse((tmp_path / "out" / "report.md").read_text(encoding="utf-8"))
    )
    inline = [child for token in tokens for child in token.children or ()]
    assert {token.type for token in inline} == {"text", "softbreak"}
    assert not [token for token in tokens if token.type == "html_block"]


@pytest.mark.parametrize("name", ["value", "low", "high", "samples"])
def test_results_that_disagree_with_the_samples_are_refused(tmp_path, name):
    folder = write_one(tmp_path / "a", make_lines("ic", ["ic"], 0.7, count=20))
    results = json.loads((folder / "results.json").read_text())
    results["results"][0][name] += 1 if name == "samples" else 0.001
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=f"row 'ic', accuracy of 'ic': {name} is .* run the evaluation again"):
        report.make_report([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_score_or_an_answer_that_was_changed_is_refused(tmp_path):
    folder = write_one(tmp_path / "a", make_lines("asr", ["asr"], 0.7, count=20))
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]

    def write(lines):
        (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    write([lines[0] | {"scores": {"wer": 7.5}}, *lines[1:]])
    with pytest.raises(ValueError, match="sample 0: score is 7.5"):
        read_run(folder)
    write([lines[0] | {"answer": "something quite other"}, *lines[1:]])
    with pytest.raises(ValueError, match="value is"):
        read_run(folder)
    write([lines[0] | {"row": "st"}, *lines[1:]])
    with pytest.raises(ValueError, match="a row 'st' that results.json lacks"):
        read_run(folder)
    (folder / "samples.jsonl").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        read_run(folder)


def test_clear_errors_for_wrong_folders(tmp_path, monkeypatch):
    folder = write_one(tmp_path / "a", make_lines("ic", ["ic"], 0.7, count=5))
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="has no results.json: it is not what evaluation/run.py writes"):
        report.main()
    with pytest.raises(ValueError, match="are the same system on the suite 'one'"):
        report.make_report([folder, folder], tmp_path / "out")
    with pytest.raises(ValueError, match="worst answers is -1"):
        report.make_report([folder], tmp_path / "out", worst=-1)
    results = json.loads((folder / "results.json").read_text())
    del results["results"][0]["metric"]
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="lacks 'metric'"):
        read_run(folder)


def test_two_systems_of_one_name_are_told_apart(tmp_path):
    lines = make_lines("ic", ["ic"], 0.5, count=10)
    systems = [OURS | {"fingerprint": "aaaaaaaaaa"}, OURS | {"fingerprint": "bbbbbbbbbb"}, OURS | {"kind": "text"}]
    runs = [read_run(write_one(tmp_path / str(index), lines, system)) for index, system in enumerate(systems)]
    names = list(report.name_systems(runs).values())
    assert names == [
        "mini, speech encoder and LLM, aaaaaaaa",
        "mini, speech encoder and LLM, bbbbbbbb",
        "mini, LLM on the true words",
    ]
    assert list(report.name_systems(runs[:1]).values()) == ["mini"]


def test_rows_without_samples_and_undefined_scores(tmp_path):
    lines = make_lines("asr", ["asr"], 0.5, count=4)
    folder = write_one(tmp_path / "a", lines)
    results = json.loads((folder / "results.json").read_text())
    empty = results["results"][0] | {"row": "none", "samples": 0, "value": None, "low": None, "high": None}
    results["results"].append(empty)
    (folder / "results.json").write_text(json.dumps(results))
    report.make_report([folder], tmp_path / "out")
    table = results_tables(Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")))[0]
    assert table[3][2].strip() == "-" and "0 samples" in table[3][0]
    assert report.number(float("nan"), 100) == "n/a"
    assert [report.number(value, 100, signed=True) for value in (0.0001, -0.0001, -0.012)] == ["0.0", "0.0", "−1.2"]


def test_open_answers_and_rows_of_two_metrics(tmp_path):
    lines = make_lines("ic", ["ic"], 0.5, count=6)
    write_run(tmp_path / "a", "one", OURS, [lines])
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    entry = results["results"][0]
    for line in lines:  # scored by a second metric as well, and beside it a row of open answers
        line["scores"]["pass_rate"] = line["scores"]["accuracy"]
    also = entry | {"metric": "pass_rate", "signature": "another"}
    opened = [
        line
        | {
            "row": "open",
            "audio": f"{index}.wav",
            "output": f"words {index}",
            "answer": ("pass", "fail")[index % 2],
            "reference": "pass",
        }
        for index, line in enumerate(lines)
    ]
    for line in opened:
        passed = line["answer"] == "pass"
        line |= {"failed": [] if passed else ["shorter_than_transcript"], "scores": {"pass_rate": float(passed)}}
    right = [line["answer"] == "pass" for line in opened]
    interval = bootstrap(
        load_metric("pass_rate"), np.array([[each, 1] for each in right]), [x["speaker"] for x in lines]
    )
    figures_of = {name: getattr(interval, name) for name in ("value", "low", "high")}
    results["results"] += [also, also | {"row": "open", "name": "Summary"} | figures_of]
    (tmp_path / "a" / "results.json").write_text(json.dumps(results))
    (tmp_path / "a" / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines + opened))
    report.make_report([tmp_path / "a"], tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    rows = results_tables(page)[0][2:]
    assert [cells[1].split()[0] for cells in rows] == ["accuracy", "pass", "pass"]
    assert figures(rows[0][2]) == figures(rows[1][2]) and figures(rows[2][2])[0] == 50
    text = " ".join(" ".join(page.text).split())
    assert text.count("shorter than transcript") == 3 and "words 1" in text and "words 0" not in text


def test_without_audio_and_from_the_command_line(made, tmp_path, monkeypatch, capsys):
    root, folders = made
    monkeypatch.setenv("REPORT_RUNS", str(root / "audio"))
    command = ["report.py", *map(str, folders), "--out", str(tmp_path), "--no-audio", "--worst", "3"]
    monkeypatch.setattr(sys, "argv", command)
    report.main()
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert (
        not page.with_tag("audio")
        and sum(attributes.get("class") == "card" for attributes in page.with_tag("li")) == 3
    )
    assert capsys.readouterr().out.split() == [str(tmp_path / "report.html"), str(tmp_path / "report.md")]


def test_same_answers_give_the_same_page(made, tmp_path, monkeypatch):
    root, folders = made
    monkeypatch.setenv("REPORT_RUNS", str(root / "audio"))
    report.make_report(folders, tmp_path)
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (root / "out" / name).read_bytes()
