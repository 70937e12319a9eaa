"""Systems beside each other: what is compared, what is to be beaten, and what the headline counts."""

import json

import pytest
import report_runs
from report_pages import Page, results_tables
from report_runs import CASCADE, GRU, OTHER, OURS, make_lines, write_duels, write_one, write_run

from speechverse.evaluation import report
from speechverse.evaluation.report_data import read_run, set_side_by_side


def test_systems_are_compared_on_the_samples_of_both(tmp_path):
    lines = make_lines("ic", ["ic"], 0.9, count=30)
    fewer = make_lines("ic", ["ic"], 0.4, count=30)[::-1][:20]
    ours = read_run(write_one(tmp_path / "a", lines)).parts["ic", "ic", "accuracy"]
    theirs = read_run(write_one(tmp_path / "b", fewer, GRU)).parts["ic", "ic", "accuracy"]
    comparison = set_side_by_side(ours, theirs)
    right = [line["answer"] == line["reference"] for line in lines[10:]]
    others = [line["answer"] == line["reference"] for line in fewer]
    assert comparison.shared == 20
    assert comparison.difference.value == pytest.approx((sum(right) - sum(others)) / 20)
    report.make_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert "on the 20 samples of both" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    fewer[0]["reference"] = "another"
    write_one(tmp_path / "b", fewer, GRU)
    with pytest.raises(ValueError, match="sample 'test/29': the truth is .* and 'another' in another"):
        report.make_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    for line in fewer:
        line["key"] += "x"
    write_one(tmp_path / "b", fewer, GRU)
    report.make_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")  # nothing in common: no comparison
    assert "0 won" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("task, outcome", [("asr", "won"), ("ic", "won"), ("ic", "lost"), ("ic", "tied")])
def test_outcome_of_a_comparison(tmp_path, task, outcome):
    skills = {"won": (1.0, 0.2), "lost": (0.2, 1.0), "tied": (0.5, 0.5)}[outcome]
    parts = []
    for index, (skill, system) in enumerate(zip(skills, (OURS, CASCADE), strict=True)):
        folder = write_one(tmp_path / str(index), make_lines(task, [task], skill, count=60, seed=index), system)
        parts += read_run(folder).parts.values()
    assert set_side_by_side(*parts).outcome == outcome


def test_one_recording_asked_about_twice_is_two_samples(tmp_path):
    lines = make_lines("ic", ["ic"], 0.5, count=10)
    for line in lines:
        line["key"] = f"test/{line['index'] // 2}"
    ours = read_run(write_one(tmp_path / "a", lines)).parts["ic", "ic", "accuracy"]
    assert set_side_by_side(ours, ours).shared == 10


def test_a_classifier_for_each_task_shares_a_column(tmp_path):
    rows = {task: make_lines(task, [task], 0.5, count=10) for task in ("ic", "er")}
    write_run(tmp_path / "ours", "one", OURS, list(rows.values()))
    for task, other in (("ic", "er"), ("er", "ic")):
        reason = {"row": other, "reason": f"it tells {task} alone"}
        nothing = {"row": "sf", "reason": "no classes"}
        system = GRU | {"name": f"gru_{task}"}
        write_run(tmp_path / task, "one", system, [rows[task]], not_asked=[reason, nothing])
    report.make_report([tmp_path / "ours", tmp_path / "ic", tmp_path / "er"], tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    table = results_tables(page)[0]
    assert [len(cells) for cells in table[2:]] == [5, 5]  # task, score, ours, one column for both, the paper
    assert "gru_ic" in table[2][3].split() and "gru_er" in table[3][3].split()
    text = " ".join(" ".join(page.text).split())
    name = "classifier on the speech encoder, one for each task"
    assert f"0 won 2 tied 0 lost against {name}" in text
    assert f"{name} was not asked sf: no classes" in text and "alone" not in text
    write_run(tmp_path / "er", "one", GRU | {"name": "gru_all"}, list(rows.values()))
    report.make_report([tmp_path / "ours", tmp_path / "ic", tmp_path / "er"], tmp_path / "out")
    table = results_tables(Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")))[0]
    assert [len(cells) for cells in table[2:]] == [6, 6]


@pytest.fixture(scope="module")
def duels(tmp_path_factory):
    """The page and the tables of ours, a Task-FT, two cascades, an oracle and a classifier."""
    root = tmp_path_factory.mktemp("duels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(report_runs.PAPER, "ic", {"BRQ": 1.5, "Task-FT": 2.5, "Multitask-WLM": 3.5, "Truth": 4.5})
        report.make_report(write_duels(root), root / "out")
    page = Page((root / "out" / "report.html").read_text(encoding="utf-8"))
    return root, page, (root / "out" / "report.md").read_text(encoding="utf-8")


def test_headlines_count_tasks_by_their_rows(duels):
    _, page, tables = duels
    for text in (" ".join(page.text), tables.replace("**", "")):
        text = " ".join(text.split()).replace(" , and", ", and")
        all_of_them, *suites = text.split("ours beats or ties its baseline ")[1:]
        # Of ASR's three rows one is lost; intents are won against one cascade, and lost to the other.
        few = "Of fewer than 10 speakers, so that won or lost says little (†): 4 of 4."
        missing = "Not counted, as no such baseline is given: st (speech recogniser, then LLM)."
        assert all_of_them.startswith(
            f"on 3 of 4 tasks, and beats it on 1. Lost: intent classification. {few} {missing}"
        )
        assert {suite[:36].partition(".")[0] for suite in suites} == {
            "on 1 of 1 task, and beats it on 0",
            "on 2 of 3 tasks, and beats it on 1",
        }


def test_half_of_a_tasks_rows_is_not_enough(tmp_path):
    for system, skills in ((OURS, {"asr_a": 1.0, "asr_b": 0.2}), (OTHER, {"asr_a": 0.2, "asr_b": 1.0})):
        rows = [make_lines(row, ["asr"], skill, count=60) for row, skill in skills.items()]
        write_run(tmp_path / system["name"], "one", system, rows)
    report.make_report([tmp_path / "mini", tmp_path / "task_ft"], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "on 0 of 1 task**, and beats it on 0. Lost: speech recognition (1 of 2 rows won or tied). " in text


def test_the_strongest_of_its_kind_is_to_be_beaten_and_marked(duels):
    _, page, tables = duels
    main, full = results_tables(page, "main"), results_tables(page, "all")
    words = next(table for table in main if len(table) == 2 + 6)
    heads = " ".join(words[0] + words[1])
    assert "Baseline to beat" in heads and "oracle" not in heads
    rivals = {cells[0].split()[1]: cells[3].split() for cells in words[2:]}
    assert rivals["ic"][0] == "strong" and "lost" in rivals["ic"] and "won" in rivals["kwe"]
    assert " ".join(rivals["st"]) == "not given: speech recogniser, then LLM"
    (whole,) = full  # that of the classifier has nothing more to show
    marked = [[cell for cell in cells if "to beat" in cell] for cells in whole[2:]]
    assert [len(cells) for cells in marked] == [1, 1, 1, 1, 1, 0]
    assert "weak" in " ".join(whole[1]) and "oracle" in " ".join(whole[1])
    assert tables.count("baseline to beat") == 2 and tables.count("All systems and figures:") == 1


def test_main_table_has_the_papers_two_main_systems_alone(duels):
    _, page, _ = duels
    words = next(table for table in results_tables(page, "main") if len(table) == 2 + 6)
    assert [head.strip() for head in words[1]] == ["Task-FT", "Multitask-WLM", "on the test set"]
    assert [cell.strip() for cell in words[5][4:]] == ["2.5", "3.5", "the same"]
    assert [cell.strip() for cell in words[2][4:]] == ["2.1", "2.5", "Read books"]
    assert [cell.strip() for cell in words[7][4:]] == ["-", "-", "-"]
    (whole,) = results_tables(page, "all")
    assert {"BRQ", "Truth"} <= {head.strip() for head in whole[1]}


def test_p_values_are_in_the_small_print(duels):
    root, page, _ = duels
    text = " ".join(" ".join(page.text).split())
    parts = [
        read_run(root / f"{name}_words").parts["ic", "ic", "accuracy"] for name in ("ours", "weak", "strong", "oracle")
    ]
    found = [set_side_by_side(parts[0], part).difference.p_value for part in parts[1:]]
    words = [
        f"p = {p:.2g}, paired bootstrap, to {name}"
        for p, name in zip(found, ("weak", "strong", "oracle"), strict=True)
    ]
    assert "; ".join(words) in text
    assert "p = 1, paired bootstrap, to gru" in text and "p = 0.002, paired" in text


def test_without_baselines_there_is_no_headline(tmp_path, monkeypatch):
    monkeypatch.setitem(report_runs.BASELINES, "ic", None)
    lines = make_lines("ic", ["ic"], 0.5, count=10)
    folders = [
        write_one(tmp_path / name, lines, {"kind": "cascade", "name": name}) for name in ("ours", "a", "b", "c")
    ]
    report.make_report(folders, tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert "beats or ties" not in text and "What counts" not in text and "to beat" not in text
    (main,), (whole,) = results_tables(page, "main"), results_tables(page, "all")
    assert len(whole[2]) == len(main[2]) + 1  # two others in the main table


def test_results_of_before_there_were_baselines_are_read(tmp_path):
    folder = write_one(tmp_path / "a", make_lines("joint", ["asr", "ic"], 0.5, count=10))
    results = json.loads((folder / "results.json").read_text())
    for entry in results["results"]:
        for name in ("baseline", "paper_set", "scored_name"):
            del entry[name]
    (folder / "results.json").write_text(json.dumps(results))
    report.make_report([folder], tmp_path / "out")
    assert "Calls, joint: ic" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
