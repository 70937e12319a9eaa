"""Turns a suite's results into the JSON of lm-evaluation-harness, which leaderboards and plotting tools read.

    python evaluation/lm_eval_results.py runs/mini/evaluation/mini --out lm_eval/results.json

`--samples` writes its `samples_TASK_DATE.jsonl` beside it as well: those hold the answers, and names of recordings.

A row is a task, called SUITE_ROW. Where its fields say something else than one would think:

- `results`: `METRIC,none` as computed, between 0 and 1 for shares (BLEU: 0 to 100); of a row that asks several tasks, such as
  `asr/wer,none`. `METRIC_stderr,none` is the width of our 95 % bootstrap interval over that of a normal distribution, 3.92
  standard errors: over speakers where these are known, and then larger than one that takes samples for independent.
- `configs`: what is asked and how; `metadata` holds the interval, the paper's figures and the way of decoding. There is no
  `doc_to_text` to run again: it is the words of the first sample.
- `versions`: of SpeechVerse, which defines the tasks; `n-shot` is always 0; `n-samples` counts recordings that were left out
  as `original` ones.
- `config`: `model` is the kind of system, `model_args` names the checkpoint. `date` is the day's first second, UTC.
- `task_hashes` is there if samples are: a checksum of each task's documents, prompts and targets, as the harness makes it.
"""

import argparse
import calendar
import datetime
import hashlib
import json
import re
from pathlib import Path

from speechverse.evaluation.sample_log import read_samples


FILTER = "none"  # the harness names the filter that answers went through; ours go through none
STANDARD_ERRORS = 2 * 1.959964  # in a 95 % interval of a normal distribution
NOT_COMPUTED = "N/A"  # as the harness says it


def convert(report: dict, samples: list[dict] | None = None) -> tuple[dict, dict[str, list[dict]]]:
    """A `results.json` in the harness's form.

    Args:
        report (`dict`): of a suite and a system.
        samples (`list[dict]`, *optional*): lines of the `samples.jsonl` beside it.

    Returns:
        `tuple[dict, dict]`: what the harness writes as `results_DATE.json`; and for each task, if samples are given, the
        lines of its `samples_TASK_DATE.jsonl`.
    """
    rows: dict[str, list[dict]] = {}
    for entry in report["results"]:
        rows.setdefault(f"{report['suite']}_{entry['row']}", []).append(entry)
    logged = {
        task: [_sample(line, entries) for line in samples if line["row"] == entries[0]["row"]]
        for task, entries in (rows.items() if samples is not None else ())
    }
    system, version = report["system"], report["versions"].get("speechverse", "")
    model = str(system.get("model") or system["name"])
    return {
        "results": {task: _figures(task, entries) for task, entries in rows.items()},
        "group_subtasks": {report["suite"]: list(rows)},
        "configs": {task: _configuration(task, entries, version) for task, entries in rows.items()},
        "versions": dict.fromkeys(rows, version),
        "n-shot": dict.fromkeys(rows, 0),
        "higher_is_better": {
            task: {_metric_name(entry): entry["higher_is_better"] for entry in entries}
            for task, entries in rows.items()
        },
        "n-samples": {task: _sample_counts(entries[0]) for task, entries in rows.items()},
        "config": {
            "model": system["kind"],
            "model_args": f"pretrained={model}",
            "batch_size": report["batch_size"],
            "device": report["hardware"],
            "random_seed": report["seed"],
            "fingerprint": report["fingerprint"],
            "command": report["command"],
        },
        "date": _timestamp(report["date"]),
        "transformers_version": report["versions"].get("transformers"),
        **({"task_hashes": {task: _task_hash(lines) for task, lines in logged.items()}} if logged else {}),
        "model_source": system["kind"],
        "model_name": model,
        "model_name_sanitized": re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model),
        "total_evaluation_time_seconds": str(report["seconds"]),
    }, logged


def standard_error(entry: dict) -> float | str:
    """That of the normal distribution whose 95 % interval is as wide as ours."""
    if entry["low"] is None or entry["high"] is None:
        return NOT_COMPUTED
    return (entry["high"] - entry["low"]) / STANDARD_ERRORS


def _metric_name(entry: dict) -> str:
    """As in a sample's `scores`."""
    return entry["metric"] if entry["scored"] == entry["task"] else f"{entry['scored']}/{entry['metric']}"


def _figures(task: str, entries: list[dict]) -> dict:
    figures = {"name": task, "alias": entries[0]["name"], "sample_len": entries[0]["samples"]}
    for entry in entries:
        name = _metric_name(entry)
        figures |= {f"{name},{FILTER}": entry["value"], f"{name}_stderr,{FILTER}": standard_error(entry)}
    return figures


def _configuration(task: str, entries: list[dict], version: str) -> dict:
    first = entries[0]
    names = ("prompts", "prompt", "decoding", "describe")
    measured = ("value", "low", "high", "resampled", "clusters", "signature", "paper")
    return {
        "task": task,
        "task_alias": first["name"],
        "dataset_path": first["corpus"],
        "dataset_name": first["view"],
        "test_split": first["split"],
        "output_type": "multiple_choice" if first["decoding"] == "scored" else "generate_until",
        "doc_to_text": first["instruction"],
        "num_fewshot": 0,
        "repeats": 1,
        "metric_list": [
            {"metric": _metric_name(entry), "higher_is_better": entry["higher_is_better"]} for entry in entries
        ],
        "metadata": {"version": version}
        | {name: first[name] for name in names}
        | {"measured": {_metric_name(entry): {name: entry[name] for name in measured} for entry in entries}},
    }


def _sample_counts(entry: dict) -> dict[str, int]:
    return {"original": entry["samples"] + sum(entry["skipped"].values()), "effective": entry["samples"]}


def _sample(line: dict, entries: list[dict]) -> dict:
    """A line as the harness logs it. What a task's prompt is made of is the document; its answer is the text as written."""
    names = [_metric_name(entry) for entry in entries]
    document = {name: line[name] for name in ("key", "audio", "corpus", "split", "speaker")}
    target = line["reference"] if isinstance(line["reference"], str) else _as_json(line["reference"])
    return {
        "doc_id": line["index"],
        "doc": document,
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": line["instruction"], "arg_1": {}}},
        "resps": [[line["output"]]],
        "filtered_resps": [line["output"]],
        "filter": FILTER,
        "metrics": names,
        "doc_hash": _hash(json.dumps(document, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(line["instruction"]),
        "target_hash": _hash(target),
        **{name: line["scores"][name] for name in names},
    }


def _task_hash(lines: list[dict]) -> str:
    return _hash("".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in lines))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _as_json(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _timestamp(day: str) -> float:
    return float(calendar.timegm(datetime.date.fromisoformat(day).timetuple()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with a suite's results.json, as evaluation/run.py writes it")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the JSON file to write")
    parser.add_argument("--samples", action="store_true", help="also write every sample, beside FILE")
    options = parser.parse_args()
    try:
        report = json.loads((options.folder / "results.json").read_text(encoding="utf-8"))
        samples = read_samples(options.folder) if options.samples else None
        results, logged = convert(report, samples)
    except FileNotFoundError as error:
        missing = f"{error.filename} is not there: evaluation/run.py writes it." if error.filename else str(error)
        raise SystemExit(missing) from error
    except json.JSONDecodeError as error:
        raise SystemExit(f"What {options.folder} holds is not JSON: {error}.") from error
    except (KeyError, TypeError) as error:
        raise SystemExit(
            f"What {options.folder} holds are not results that this version writes ({error!r})."
        ) from error
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for task, lines in logged.items():
        file = options.out.with_name(f"samples_{task}_{report['date']}.jsonl")
        file.write_text("".join(_as_json(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
