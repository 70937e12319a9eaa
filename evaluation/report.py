"""Sets one system's results beside those of others and the paper's, as a page and as Markdown.

    python evaluation/report.py runs/mini/evaluation/mini_slu runs/cascade/evaluation/mini_slu --out runs/report

Every folder holds the results of one system on one suite, as `evaluation/run.py` writes them; they may be of several suites
and systems, in any order. The system of the first folder is the one that all others are compared with. `report.html` is one
file that asks for no other: its pictures and the recordings of the worst answers are in it, so mind the licences of the corpora
before you publish it: `--no-audio` leaves the recordings out, `--worst 0` their words too. `report.md` has the tables alone.

Every figure is computed anew from the samples; where that gives another one than is written, nothing is reported. Differences
are paired: ours minus the other's on the samples that both answered, `tied` where the 95 % interval holds 0.

Suites may say which kind of system is to be beaten in a row; the page begins with the tasks on which ours beats or
ties it.
"""

import argparse
import math
import re
import shlex
from collections import Counter
from pathlib import Path

import jinja2
from markupsafe import Markup

from speechverse.evaluation.report_data import (
    ENOUGH_SPEAKERS,
    Comparison,
    Duel,
    Mistake,
    Part,
    PartKey,
    Run,
    Suite,
    bins_by,
    by_task,
    compare_all,
    count_confusions,
    find_duels,
    find_worst,
    group,
    has_labels,
    read_layer_mix,
    read_run,
)
from speechverse.evaluation.report_players import make_player
from speechverse.evaluation.report_plots import draw_bins, draw_confusions, draw_layer_mix
from speechverse.model_cards.measured import METRIC_NAMES
from speechverse.model_cards.records import shorten_path, shorten_paths
from speechverse.training.data.whole_files import write_whole


PAGE = "report.html"
TABLES = "report.md"
WORST = 20
KINDS = {
    "asr": "speech recogniser",
    "cascade": "speech recogniser, then LLM",
    "classifier": "classifier on the speech encoder",
    "keyword_search": "keyword search in a transcript",
    "speechverse": "speech encoder and LLM",
    "text": "LLM on the true words",
}
BASELINES = KINDS | {"speechverse": "another SpeechVerse model"}
MAIN_FIGURES = ("Task-FT", "Multitask-WLM")  # of the paper; they and ours fit on a page
MAIN_COLUMNS = 2
FACTS = {"duration": "duration (s)", "snr": "SNR (dB)"}


def make_report(folders: list[str | Path], out: str | Path, *, worst: int = WORST, with_audio: bool = True) -> None:
    """Writes `report.html` and `report.md`.

    Args:
        folders (`list[str | Path]`): of results; the first one's system is ours.
        out (`str` or `Path`): gets the two files; made if need be.
        worst (`int`, *optional*, defaults to 20): how many of our worst answers are shown.
        with_audio (`bool`, *optional*, defaults to `True`): whether the page holds their recordings.

    Raises:
        FileNotFoundError: if a folder holds no results.
        ValueError: if results disagree with their samples, or with one another; or if `worst` is negative.
    """
    if worst < 0:
        raise ValueError(f"The number of worst answers is {worst}; it is 0 or more.")
    runs = [read_run(folder) for folder in folders]
    content = describe(runs, worst, with_audio)
    for name, escape in ((PAGE, None), (TABLES, _escape_markdown)):
        template = _environment(escape).get_template(f"report_template{Path(name).suffix}.jinja")
        write_whole(Path(out) / name, template.render(content) + "\n")


def describe(runs: list[Run], worst: int, with_audio: bool) -> dict:
    """All that the templates say."""
    suites = group(runs)
    names = name_systems(runs)
    comparisons = [compare_all(suite) for suite in suites]
    duels = [find_duels(suite, compared) for suite, compared in zip(suites, comparisons, strict=True)]
    scored = [_describe_suite(*each, names) for each in zip(suites, comparisons, duels, strict=True)]
    return {
        "ours": names[runs[0].system],
        "date": max(run.results["date"] for run in runs),
        "headline_of_all": _describe_headline([duel for of_suite in duels for duel in of_suite.values()]),
        "paper_is_beside": any(suite["figures"] for suite in scored),
        "suites": scored,
        "compared": any(suite["counts"] for suite in scored),
        "enough_speakers": ENOUGH_SPEAKERS,
        "confusions": _describe_confusions(suites),
        "bins": _describe_bins(suites, names),
        "mixes": _describe_layer_mixes(runs, names),
        "worst": [_describe_mistake(mistake, with_audio) for mistake in find_worst(suites, worst)],
        "worst_limit": worst,
        "runs": [_describe_run(run, names) for run in runs],
    }


def name_systems(runs: list[Run]) -> dict:
    """What to call each system: its name, and as much as it takes to tell two of one name apart."""
    systems = list(dict.fromkeys(run.system for run in runs))
    names = {}
    for kind, name, mark in systems:
        alike = [other for other in systems if other[1] == name]
        words = [name]
        if len({other[0] for other in alike}) > 1:
            words.append(KINDS.get(kind, kind))
        if sum(other[0] == kind for other in alike) > 1:
            words.append(mark[:8])
        names[kind, name, mark] = ", ".join(words)
    return names


# Suites.


def _describe_suite(suite: Suite, comparisons: dict, duels: dict[PartKey, Duel], names: dict) -> dict:
    figures = list(
        dict.fromkeys(name for run in suite.runs for part in run.parts.values() for name in part.entry["paper"])
    )
    columns = [[suite.others.index(run) for run in column] for column in suite.columns]
    has_rivals = any(duel.place is not None for duel in duels.values())
    main = {
        "others": [] if has_rivals else list(range(len(columns)))[:MAIN_COLUMNS],
        "figures": [index for index, name in enumerate(figures) if name in MAIN_FIGURES]
        or list(range(len(figures)))[:MAIN_COLUMNS],
    }
    rows, counts = [], [Counter() for _ in columns]
    for key in suite.keys:
        ours = suite.ours.parts.get(key) if suite.ours else None
        compared, duel = comparisons.get(key, {}), duels.get(key)
        cells = {}
        for place, run in enumerate(suite.others):
            if cell := _describe_score(run.parts.get(key), compared.get(place)):
                cells[place] = cell | {"system": names[run.system], "to_beat": bool(duel) and duel.place == place}
        others = []
        for column, count in zip(columns, counts, strict=True):
            place = next((place for place in column if place in cells), None)
            if place in compared:
                count[compared[place].outcome] += 1
            others.append(cells.get(place) and cells[place] | ({} if len(column) > 1 else {"system": None}))
        first = ours or next(run.parts[key] for run in suite.others if key in run.parts)
        row = _describe_row(first, key, suite) | {"ours": _describe_score(ours), "others": others}
        row["fine"]["Differences"] = _difference_words(suite, compared, names)
        row["rival"] = duel and cells.get(duel.place)
        row["no_rival"] = duel and duel.place is None and BASELINES[duel.kind]
        row["paper"] = [_as_printed(first.entry["paper"].get(name)) for name in figures]
        row["paper_set"] = first.entry["paper"] and first.entry.get("paper_set")
        rows.append(row)
    described = [_describe_column([suite.others[place] for place in column], names) for column in columns]
    hidden = [row["others"][i] for row in rows for i in range(len(columns)) if i not in main["others"]]
    return {
        "id": _anchor(suite.name),
        "name": suite.name,
        "title": suite.title,
        "source": suite.source,
        "headline": _describe_headline(list(duels.values())),
        "others": described,
        "figures": figures,
        "has_rivals": has_rivals,
        "has_sets": any(row["paper_set"] for row in rows),
        "main": main,
        "has_more": len(main["figures"]) < len(figures) or any(cell and not cell["to_beat"] for cell in hidden),
        "rows": rows,
        "few_speakers": any(row["few_speakers"] for row in rows),
        "counts": [
            {"name": column["name"], **{name: count[name] for name in ("won", "tied", "lost")}}
            for column, count in zip(described, counts, strict=True)
            if suite.ours
        ],
        "not_asked": [
            words
            for column in ([[suite.ours]] if suite.ours else []) + suite.columns
            for words in _describe_not_asked(column, names, suite)
        ],
    }


def _describe_headline(duels: list[Duel]) -> dict | None:
    """On how many tasks ours beats or ties what is to be beaten; `None` where no row says what that is."""
    tasks = by_task(duels)
    counted = [task for task in tasks if task.outcomes]
    if not tasks:
        return None
    lost, missing = [], []
    for task in tasks:
        if not task.outcomes:
            kinds = " or ".join(dict.fromkeys(BASELINES[duel.kind] for duel in task.duels))
            missing.append(f"{_task_words(task.duels[0].part)} ({kinds})")
    for task in counted:
        if not task.is_held:
            rows, held = len(task.outcomes), len(task.outcomes) - task.outcomes.count("lost")
            lost.append(
                _task_words(task.duels[0].part) + (f" ({held} of {rows} rows won or tied)" if rows > 1 else "")
            )
    return {
        "held": sum(task.is_held for task in counted),
        "won": sum(task.is_won for task in counted),
        "counted": len(counted),
        "few_speakers": sum(
            any(duel.part.has_few_speakers for duel in task.duels if duel.outcome) for task in counted
        ),
        "lost": lost,
        "missing": missing,
    }


def _task_words(part: Part) -> str:
    """What is scored, by its task's name."""
    entry = part.entry
    return (entry.get("scored_name") or entry["scored"] or entry["name"]).replace("-", " ")


def _difference_words(suite: Suite, compared: dict[int, Comparison], names: dict) -> str | None:
    words = [
        f"p = {one.difference.p_value:.2g}, paired bootstrap, to {names[suite.others[place].system]}"
        for place, one in compared.items()
        if one.difference.clusters > 1
    ]
    return "; ".join(words) or None


def _describe_column(column: list[Run], names: dict) -> dict:
    kind = KINDS.get(column[0].system[0], column[0].system[0])
    if len(column) == 1:
        return {"name": names[column[0].system], "kind": kind}
    return {"name": f"{kind}, one for each task", "kind": None}


def _describe_row(part: Part, key: PartKey, suite: Suite) -> dict:
    """What was asked, and how; by the first of the systems that were."""
    entry = part.entry
    left_out = {reason: count for reason, count in (entry.get("skipped") or {}).items() if count}
    joint = len({scored for row, scored, _ in suite.keys if row == key[0]}) > 1
    place = "/".join(str(entry[name]) for name in ("corpus", "split") if entry.get(name))
    return {
        "id": _anchor(suite.name, *key),
        "name": f"{entry['name']}: {_task_words(part)}" if joint else entry["name"],
        "place": place,
        "task": entry["task"],
        "metric": METRIC_NAMES.get(entry["metric"], entry["metric"]),
        "higher_is_better": part.metric.higher_is_better,
        "samples": f"{entry['samples']:,}",
        "speakers": None if part.speaker_count is None else f"{part.speaker_count:,}",
        "few_speakers": part.has_few_speakers,
        "left_out": sum(left_out.values()),
        "fine": {
            "Instruction": entry.get("instruction") or "-",
            "Wording": f"{_words(entry['prompts'])}, number {entry['prompt']}",
            "Classes": "listed with descriptions" if entry.get("describe") else None,
            "Decoding": _words(entry["decoding"]),
            "Score": entry["signature"],
            "Interval": _interval_words(part),
            "Answers": ", ".join(_answer_words(part)) or None,
            "Left out": "; ".join(f"{count}: {reason}" for reason, count in left_out.items()) or None,
        },
    }


def _describe_score(part: Part | None, comparison: Comparison | None = None) -> dict | None:
    if part is None or part.interval is None:
        return None
    scale = part.metric.scale
    cell = {"value": number(part.interval.value, scale), "interval": interval(part.interval, scale), "outcome": None}
    if comparison:
        cell["outcome"] = comparison.outcome
        cell["difference"] = number(comparison.difference.value, scale, signed=True)
        cell["difference_interval"] = interval(comparison.difference, scale, signed=True)
        cell["shared"] = comparison.shared if comparison.partial else None
    return cell


def _describe_not_asked(column: list[Run], names: dict, suite: Suite) -> list[dict]:
    """What no system of a column was asked, by the first one's reasons."""
    titles = {part.entry["row"]: part.entry["name"] for other in suite.runs for part in other.parts.values()}
    asked = {part.entry["row"] for run in column for part in run.parts.values()}
    by_reason: dict[str, list[str]] = {}
    for row in column[0].results.get("not_asked") or ():
        if row["row"] not in asked:
            by_reason.setdefault(row["reason"], []).append(titles.get(row["row"], row["row"]))
    system = _describe_column(column, names)["name"]
    return [{"system": system, "rows": rows, "reason": reason} for reason, rows in by_reason.items()]


def _answer_words(part: Part) -> list[str]:
    """What is to be said of ours beside their score."""
    unreadable = sum(answer is None for answer in part.answers)
    truncated = sum(line["truncated"] for line in part.lines)
    counts = {"could not be read": unreadable, "were cut at the limit": truncated}
    return [f"{count:,} {words}" for words, count in counts.items() if count]


def _interval_words(part: Part) -> str | None:
    if part.interval is None:
        return None
    return f"95 %, {part.interval.clusters:,} {part.interval.resampled} drawn again"


# What is looked at beside the scores.


def _describe_confusions(suites: list[Suite]) -> list[dict]:
    described = []
    for suite in suites:
        for key, part in suite.ours.parts.items() if suite.ours else ():
            if not has_labels(part):
                continue
            confusions = count_confusions(part)
            right = sum(answer == truth for answer, truth in zip(part.answers, part.references, strict=True))
            mistakes = [f"{truth} taken for {answer}: {count}" for truth, answer, count in confusions.mistakes[:3]]
            words = f"{right:,} of {len(part.lines):,} are right."
            words += f" Most frequent mistakes: {'; '.join(mistakes)}." if mistakes else ""
            described.append(
                {
                    "suite": suite.title,
                    "title": _describe_row(part, key, suite)["name"],
                    "words": words,
                    "truths": confusions.truths,
                    "answers": confusions.answers,
                    "counts": confusions.counts.tolist(),
                    "picture": Markup(
                        draw_confusions(
                            confusions, name=f"confusions-{len(described)}", words=f"Confusion matrix. {words}"
                        )
                    ),
                }
            )
    return described


def _describe_bins(suites: list[Suite], names: dict) -> list[dict]:
    described = []
    for suite in suites:
        systems = [names[run.system] for run in suite.runs]
        for key in suite.keys:
            parts = [run.parts.get(key) for run in suite.runs]
            first = next(part for part in parts if part)
            if first.entry["metric"] != "wer" or not any(part and part.lines for part in parts):
                continue
            binned = {fact: bins_by(fact, parts) for fact in FACTS}
            panels = [(FACTS[fact], bins) for fact, bins in binned.items() if bins]
            if not panels:
                continue
            scale = first.metric.scale
            title = _describe_row(first, key, suite)["name"]
            tables = [
                {
                    "fact": what,
                    "rows": [
                        {
                            "name": one.name,
                            "samples": f"{one.samples:,}",
                            "cells": [
                                each and {"value": number(each.value, scale), "interval": interval(each, scale)}
                                for each in one.intervals
                            ],
                        }
                        for one in bins
                    ],
                }
                for what, bins in panels
            ]
            words = f"Word error rate by {' and by '.join(what for what, _ in panels)}; the figures are below."
            picture = draw_bins(panels, systems, "WER (%)", scale, name=f"bins-{len(described)}", words=words)
            described.append(
                {
                    "suite": suite.title,
                    "title": title,
                    "systems": systems,
                    "tables": tables,
                    "picture": Markup(picture),
                }
            )
    return described


def _describe_layer_mixes(runs: list[Run], names: dict) -> list[dict]:
    described = []
    for system, run in {run.system: run for run in runs}.items():
        mix = read_layer_mix(run)
        if mix is None:
            continue
        if mix.weights is None:
            described.append(
                {"name": names[system], "words": f"Not shown: {mix.fault}.", "weights": [], "picture": None}
            )
            continue
        largest = max(range(len(mix.weights)), key=lambda index: abs(mix.weights[index]))
        words = f"The largest weight of {len(mix.weights)} is that of layer {largest + 1}: {mix.weights[largest]:.3f}."
        picture = draw_layer_mix(mix.weights, name=f"mix-{len(described)}", words=words)
        listed = [f"{weight:.3f}" for weight in mix.weights]
        described.append({"name": names[system], "words": words, "weights": listed, "picture": Markup(picture)})
    return described


def _describe_mistake(mistake: Mistake, with_audio: bool) -> dict:
    line, part = mistake.line, mistake.part
    player = make_player(line["audio"]) if with_audio else None
    answer = part.answers[mistake.index]
    seconds = line["duration"]
    return {
        "suite": mistake.suite,
        "row": f"{part.entry['name']}: {_task_words(part)}"
        if isinstance(line["reference"], dict)
        else part.entry["name"],
        "score": f"{METRIC_NAMES.get(part.entry['metric'], part.entry['metric'])} "
        f"{number(part.scores[mistake.index], part.metric.scale)}",
        "key": line["key"],
        "audio": shorten_paths(line["audio"]),
        "player": player and player.uri,
        "note": player and player.note,
        "facts": ", ".join(
            words
            for words in (
                None if seconds is None else f"{seconds:.1f} s",
                None if line["snr"] is None else f"{line['snr']:.0f} dB SNR",
                line["speaker"] and f"speaker {line['speaker']}",
                "answer cut at its limit" if line["truncated"] else None,
            )
            if words
        ),
        "instruction": line["instruction"],
        "truth": None if "failed" in line else _answer_text(part.references[mistake.index]),
        "answer": line["output"].strip() if answer is None or "failed" in line else _answer_text(answer),
        "unread": answer is None,
        "failed": [_words(name) for name in line.get("failed", ())],
    }


def _answer_text(answer: str | list) -> str:
    """An answer as people read it: a text or a label, keywords, or slots."""
    if isinstance(answer, str):
        return answer
    items = [f"{one['label']} = {one['value']}" if isinstance(one, dict) else one for one in answer]
    return (", " if all(isinstance(one, str) for one in answer) else "; ").join(items) or "(none)"


def _describe_run(run: Run, names: dict) -> dict:
    """How a run was made, without the folders of the machine that it was made on: a page is passed on."""
    results, system = run.results, run.results["system"]
    known = {"kind", "name", "model", "fingerprint"}
    facts = {
        "Suite": run.suite,
        "Kind": KINDS.get(system["kind"], system["kind"]),
        "Model": _plain(system.get("model")),
        "Fingerprint": run.system[2][:16] or None,
        **{name.replace("_", " ").capitalize(): _plain(value) for name, value in system.items() if name not in known},
        "Date": results["date"],
        "Hardware": results["hardware"],
        "Versions": ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        "Seed": results["seed"],
        "Batch size": results.get("batch_size"),
        "Seconds": None if results.get("seconds") is None else f"{results['seconds']:.0f}",
        "Command": shlex.join(map(shorten_path, results["command"])),
    }
    return {"name": names[run.system], "facts": {name: value for name, value in facts.items() if value is not None}}


# Words and figures.


def number(value: float, scale: float, signed: bool = False) -> str:
    """A figure as people read it, with one decimal place and a real minus."""
    if value is None or math.isnan(value):
        return "n/a"
    digits = f"{scale * value:+.1f}" if signed else f"{scale * value:.1f}"
    return digits[1:] if float(digits) == 0 and digits[0] in "+-" else digits.replace("-", "−")


def interval(figure, scale: float, signed: bool = False) -> Markup:
    """The ends of an interval, in brackets that are not to be escaped; of one sample there is none."""
    if figure.clusters < 2:
        return Markup("(one sample)")
    return Markup(f"[{number(figure.low, scale, signed)}, {number(figure.high, scale, signed)}]")


def _as_printed(figure) -> str | None:
    return None if figure is None else str(figure)


def _plain(value) -> str | None:
    """What else a system says of itself, on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(each)}" for name, each in value.items()) or None
    if isinstance(value, list):
        return ", ".join(_plain(each) or "" for each in value) or None
    return None if value is None else shorten_paths(str(value))


def _words(name) -> str:
    return str(name).replace("_", " ")


def _anchor(*names: str | None) -> str:
    return "-".join(re.sub(r"[^A-Za-z0-9_]+", "-", name or "") for name in names)


def _escape_markdown(value) -> str:
    """Text that is nothing but text in a cell of a Markdown table."""
    if isinstance(value, Markup):
        return value
    text = " ".join(str(value).split())
    text = re.sub(r"([\\`*_{}\[\]#|~$!])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _environment(escape) -> jinja2.Environment:
    """Templates beside this file; all that they put in is escaped, by `escape` or as HTML."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=escape is None,
        finalize=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="of results; the first one's system is ours")
    parser.add_argument("--out", required=True, type=Path, help="folder for report.html and report.md")
    parser.add_argument(
        "--worst", type=int, default=WORST, help="how many of our worst answers are shown (default: 20)"
    )
    parser.add_argument("--no-audio", action="store_true", help="leave the recordings out of the page")
    options = parser.parse_args()
    try:
        make_report(options.folders, options.out, worst=options.worst, with_audio=not options.no_audio)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(f"{options.out / PAGE}\n{options.out / TABLES}")


if __name__ == "__main__":
    main()
