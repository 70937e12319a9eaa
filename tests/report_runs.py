"""Folders as `evaluation/run.py` writes them, made up: no model answers here."""

import json
import random

import numpy as np
import soundfile
from tiny_models import noise

from speechverse.evaluation.corpus_metric import load_metric
from speechverse.evaluation.intervals import bootstrap


WORDS = "play stop some jazz in the kitchen please what time is it now turn off all lights".split()
INTENTS = ["play_music", "stop", "lights_off", "ask_time"]
MOODS = ["happy", "sad", "angry", "neutral"]
METRICS = {"asr": "wer", "ic": "accuracy", "er": "uar", "sf": "slu_f1", "kwe": "keyword_f1", "st": "bleu"}
PAPER = {"asr": {"Task-FT": 2.1, "Multitask-WLM": 2.5}, "ic": {"Multitask-WLM": 90.3}, "sf": {"Task-FT": 82.4}}
NAMES = {"asr": "speech-recognition", "ic": "intent-classification", "er": "emotion-recognition"}
BASELINES = {"asr": "speechverse", "er": "classifier"} | dict.fromkeys(("ic", "sf", "st", "kwe"), "cascade")


def truth_of(task: str, draw: random.Random):
    """What is right, for one sample."""
    words = draw.sample(WORDS, draw.randint(3, 9))
    return {
        "asr": " ".join(words),
        "st": " ".join(words),
        "ic": draw.choice(INTENTS),
        "er": draw.choice(MOODS),
        "sf": [{"label": "place", "value": words[0]}],
        "kwe": words[:2],
    }[task]


def answer_of(task: str, truth, skill: float, draw: random.Random):
    """What a system says: the better its skill, the more of it is right."""
    if draw.random() < skill:
        return truth
    if task in ("asr", "st"):
        return " ".join(word if draw.random() < skill else draw.choice(WORDS) for word in truth.split())
    return draw.choice([None, truth_of(task, draw)])


def make_lines(row: str, tasks: list[str], skill: float, *, count: int, seed: int = 0, folder=None) -> list[dict]:
    """Samples of a row without scores; the questions depend on the row alone, the answers on the skill and the seed."""
    questions, answers = random.Random(row), random.Random(f"{row} {skill} {seed}")
    lines = []
    for index in range(count):
        truths = {task: truth_of(task, questions) for task in tasks}
        said = {task: answer_of(task, truth, skill, answers) for task, truth in truths.items()}
        joint = len(tasks) > 1
        duration = round(0.5 + questions.random() * 12, 2)
        snr = questions.choice([None, None, -3.0, 4.5, 8.0, 12.0, 25.0])
        name = f"{row}_{index}.wav"
        if folder and index < 40:
            soundfile.write(folder / name, noise(0.5 + index / 20, index), 16_000)
        lines.append(
            {
                "row": row,
                "index": index,
                "key": f"test/{index}",
                "audio": f"$REPORT_RUNS/{name}",
                "corpus": "calls",
                "split": "test",
                "view": tasks[0],
                "task": "+".join(tasks),
                "speaker": f"speaker {index % 7}",
                "duration": duration,
                "snr": snr,
                "instruction": f"Please do {' and '.join(tasks)}.",
                "output": str(said),
                "answer": said if joint else said[tasks[0]],
                "unread": [],
                "truncated": False,
                "reference": truths if joint else truths[tasks[0]],
            }
        )
    return lines


def score(lines: list[dict], scored: str, **facts) -> dict:
    """The entry of `results.json` for a row or one of its tasks; writes each sample's score into its line."""
    metric = load_metric(METRICS[scored])
    joint = isinstance(lines[0]["reference"], dict)
    answers = [(line["answer"] or {}).get(scored) if joint else line["answer"] for line in lines]
    references = [line["reference"][scored] if joint else line["reference"] for line in lines]
    statistics = metric.statistics(answers, references)
    for line, value in zip(lines, metric.value(statistics), strict=True):
        name = f"{scored}/{METRICS[scored]}" if joint else METRICS[scored]
        line.setdefault("scores", {})[name] = None if np.isnan(value) else float(value)
    figure = bootstrap(metric, statistics, [line["speaker"] for line in lines])
    row = lines[0]["row"]
    return {
        "row": row,
        "name": f"Calls, {row}",
        **{name: lines[0][name] for name in ("corpus", "split", "view", "task", "instruction")},
        "prompts": "held_out",
        "prompt": 0,
        "decoding": "constrained",
        "describe": False,
        "metric": METRICS[scored],
        "scored": scored,
        "scored_name": NAMES.get(scored),
        "higher_is_better": metric.higher_is_better,
        "scale": metric.scale,
        "signature": metric.signature,
        **{name: getattr(figure, name) for name in ("value", "low", "high", "resampled", "clusters")},
        "samples": len(lines),
        "skipped": {"silent": 2},
        "paper": PAPER.get(scored, {}),
        "paper_set": "Read books" if scored == "asr" else None,
        "baseline": BASELINES[scored],
        "classes": {"ic": INTENTS, "er": MOODS}.get(scored),
        **facts,
    }


def write_run(folder, suite: str, system: dict, rows: list[list[dict]], **facts) -> None:
    """Writes `results.json` and `samples.jsonl` of rows of lines."""
    results = []
    for lines in rows:
        results += [score(lines, task) for task in lines[0]["task"].split("+")]
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "suite": suite,
        "title": f"Made-up {suite}",
        "date": "2026-03-04",
        "command": ["python", "evaluation/run.py", "--model", system["name"], "--suite", suite],
        "seed": 0,
        "hardware": "2 CPU cores (x86_64)",
        "versions": {"speechverse": "0.1", "torch": "2.13"},
        "seconds": 12.3,
        "batch_size": 16,
        "system": {"fingerprint": f"{system['name']:0<64}", "model": f"runs/{system['name']}"} | system,
        "results": results,
        "not_asked": [],
        **facts,
    }
    content["fingerprint"] = content["system"]["fingerprint"]
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for lines in rows for line in lines)
    (folder / "samples.jsonl").write_text(lines, encoding="utf-8")


OURS = {"kind": "speechverse", "name": "mini"}
CASCADE = {"kind": "cascade", "name": "whisper-base and mini-text"}
GRU = {"kind": "classifier", "name": "gru"}
SUITES = {
    "spoken": {"asr": ["asr"], "ic": ["ic"], "sf": ["sf"], "st": ["st"], "kwe": ["kwe"]},
    "joint": {"asr_ic": ["asr", "ic"]},
    "moods": {"er": ["er"]},
}


def write_runs(folder, count: int = 60) -> list:
    """Three suites, ours and two others, with recordings; set $REPORT_RUNS to `folder / "audio"`."""
    (folder / "audio").mkdir(parents=True)
    folders = []
    for system, skill in ((OURS, 0.8), (CASCADE, 0.6), (GRU, 0.8)):
        for suite, rows in SUITES.items():
            if system is not OURS and (suite == "moods") != (system is GRU):
                continue
            asked = [
                make_lines(row, tasks, skill, count=count, seed=len(folders), folder=folder / "audio")
                for row, tasks in rows.items()
                if not (system is CASCADE and row == "st")
            ]
            not_asked = [{"row": "st", "reason": "its language is unknown to it"}] if system is CASCADE else []
            folders.append(folder / f"{system['kind']}_{suite}")
            write_run(folders[-1], suite, system, asked, not_asked=not_asked if suite == "spoken" else [])
    return folders


OTHER = {"kind": "speechverse", "name": "task_ft"}
WEAK = {"kind": "cascade", "name": "weak"}
STRONG = CASCADE | {"name": "strong"}
ORACLE = {"kind": "text", "name": "oracle"}
SKILLS = {  # row -> task, and how good each system is; two of one skill give the same answers
    "asr_a": ("asr", {"ours": 1.0, "task_ft": 0.3}),
    "asr_b": ("asr", {"ours": 0.3, "task_ft": 1.0}),
    "asr_c": ("asr", {"ours": 0.5, "task_ft": 0.5}),
    "ic": ("ic", {"ours": 0.5, "weak": 0.0, "strong": 1.0, "oracle": 1.0}),
    "kwe": ("kwe", {"ours": 1.0, "strong": 0.2, "oracle": 1.0}),
    "st": ("st", {"ours": 0.5, "oracle": 1.0}),
    "er": ("er", {"ours": 0.7, "gru": 0.7}),
}


def write_duels(folder) -> list:
    """Two suites that say what is to be beaten: ours, a Task-FT, two cascades, an oracle and a classifier."""
    folders = []
    for system in (OURS | {"name": "ours"}, OTHER, WEAK, STRONG, ORACLE, GRU):
        for suite, rows in (("words", list(SKILLS)[:-1]), ("voices", ["er"])):
            asked = [
                make_lines(row, [SKILLS[row][0]], SKILLS[row][1][system["name"]], count=60)
                for row in rows
                if system["name"] in SKILLS[row][1]
            ]
            if asked:
                folders.append(folder / f"{system['name']}_{suite}")
                write_run(folders[-1], suite, system, asked)
    return folders


def write_one(folder, lines, system=OURS, **facts):
    write_run(folder, "one", system, [lines], **facts)
    return folder
