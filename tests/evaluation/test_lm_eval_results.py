"""Results as lm-evaluation-harness writes them."""

import hashlib
import json
import sys

import numpy as np
import pytest
from suite_results import results_of

from speechverse.evaluation import lm_eval_results
from speechverse.evaluation.intervals import bootstrap
from speechverse.evaluation.lm_eval_results import convert, standard_error


def line_of(row, index, scores, **changes):
    return {
        "row": row,
        "index": index,
        "key": f"test/{index}",
        "audio": "$SPEECHVERSE_DATA/a.wav",
        "corpus": "own",
        "split": "test",
        "speaker": None,
        "instruction": "which colour ?",
        "output": "red",
        "answer": "red",
        "reference": "blue",
        "scores": scores,
    } | changes


@pytest.fixture
def report(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return results_of(tmp_path / "weights")


def test_figures_are_those_of_the_report(report):
    results, logged = convert(report)
    assert logged == {} and "task_hashes" not in results
    assert results["results"]["colours_er"] == {
        "name": "colours_er",
        "alias": "Colours | seen",
        "sample_len": 1200,
        "uar,none": 0.75,
        "uar_stderr,none": pytest.approx((0.85 - 0.6234) / 3.92, rel=1e-4),
    }
    assert results["results"]["colours_joint"]["asr/wer,none"] == 0.1
    assert results["results"]["colours_st"]["bleu_stderr,none"] == "N/A"  # there is no interval
    assert results["higher_is_better"]["colours_joint"] == {"asr/wer": False}
    assert results["n-samples"]["colours_er"] == {"original": 1203, "effective": 1200}
    assert results["n-shot"]["colours_er"] == 0 and results["versions"]["colours_er"] == "0.1"
    assert results["group_subtasks"] == {"colours": ["colours_er", "colours_st", "colours_joint", "colours_m"]}
    task = results["configs"]["colours_er"]
    assert (task["dataset_path"], task["dataset_name"], task["test_split"]) == ("own", "er", "test")
    assert task["output_type"] == "generate_until" and task["doc_to_text"] == "/th/ or /s/: which | sound?"
    assert task["metadata"]["decoding"] == "constrained" and task["metadata"]["measured"]["uar"]["low"] == 0.6234
    assert results["config"]["model"] == results["model_source"] == "speechverse" and results["date"] == 1767312000.0
    assert "/" not in results["model_name_sanitized"]


def test_several_scores_of_a_row_are_one_task(report):
    first = report["results"][2]
    report["results"].append(first | {"scored": "er", "metric": "accuracy", "value": 0.5})
    results, _ = convert(report)
    assert results["results"]["colours_joint"].items() >= {"asr/wer,none": 0.1, "er/accuracy,none": 0.5}.items()
    assert [entry["metric"] for entry in results["configs"]["colours_joint"]["metric_list"]] == [
        "asr/wer",
        "er/accuracy",
    ]


def test_standard_error_is_that_of_a_mean():
    """A share of many samples has a nearly normal interval: its standard error is known in closed form."""
    hits = np.random.default_rng(0).random(2000) < 0.3

    class Share:
        def value(self, sums):
            return sums[..., 0] / sums[..., 1]

    interval = bootstrap(Share(), np.stack([hits, np.ones(2000)], axis=1), [None] * 2000, resamples=4000)
    share = hits.mean()
    expected = np.sqrt(share * (1 - share) / 2000)
    assert standard_error({"low": interval.low, "high": interval.high}) == pytest.approx(expected, rel=0.05)


def test_samples_have_the_harness_shape(report):
    report["results"] = report["results"][:1]
    slots = [{"label": "a", "value": "b"}]
    lines = [line_of("er", 0, {"uar": 0.0}), line_of("er", 1, {"uar": 1.0}, reference=slots), line_of("st", 0, {})]
    results, logged = convert(report, lines)
    first, second = logged["colours_er"]
    assert (first["doc_id"], second["doc_id"]) == (0, 1) and (first["uar"], second["uar"]) == (0.0, 1.0)
    assert first["resps"] == [["red"]] and first["filtered_resps"] == ["red"] and first["filter"] == "none"
    assert first["arguments"]["gen_args_0"]["arg_0"] == "which colour ?" and first["metrics"] == ["uar"]
    assert first["target"] == "blue" and second["target"] == '[{"label": "a", "value": "b"}]'
    assert first["prompt_hash"] == second["prompt_hash"] == hashlib.sha256(b"which colour ?").hexdigest()
    hashes = [one["doc_hash"] + one["prompt_hash"] + one["target_hash"] for one in (first, second)]
    assert results["task_hashes"] == {"colours_er": hashlib.sha256("".join(hashes).encode()).hexdigest()}


def test_command(report, tmp_path, monkeypatch):
    report["results"] = report["results"][:1]
    (tmp_path / "results.json").write_text(json.dumps(report))
    out = tmp_path / "out" / "results.json"

    def call(*options):
        monkeypatch.setattr(sys, "argv", ["lm_eval_results.py", str(tmp_path), "--out", str(out), *options])
        lm_eval_results.main()

    call()
    assert json.loads(out.read_text())["results"]["colours_er"]["uar,none"] == 0.75
    assert list(out.parent.iterdir()) == [out]  # samples name recordings: they are written where they are asked for
    with pytest.raises(SystemExit, match="There is no .*samples.jsonl"):
        call("--samples")
    (tmp_path / "samples.jsonl").write_text(json.dumps(line_of("er", 0, {"uar": 1.0})) + "\n")
    call("--samples")
    assert (out.parent / "samples_colours_er_2026-01-02.jsonl").read_text().count("\n") == 1
    (tmp_path / "results.json").write_text(json.dumps({"results": [{}]}))
    with pytest.raises(SystemExit, match="no.* results that this version writes .KeyError"):
        call()


def test_harness_prints_it(report):
    """Its own table of results, where the harness is installed."""
    pytest.importorskip("pytablewriter")
    utils = pytest.importorskip("lm_eval.utils")
    table = utils.make_table(convert(report)[0])
    assert "uar" in table and "0.750" in table and "0.0578" in table
