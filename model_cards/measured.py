"""What evaluation found, as a card shows it: a table for each suite, and a `model-index` for machines."""

import re
import shlex

from huggingface_hub import EvalResult


METRIC_NAMES = {
    "wer": "WER",
    "bleu": "BLEU",
    "accuracy": "accuracy",
    "uar": "UAR",
    "keyword_f1": "keyword F1",
    "slu_f1": "SLU-F1",
    "sd_f1": "SD-F1",
    "pass_rate": "pass rate",
}
HUB_METRICS = {"uar": "recall"}  # ids on the Hub where they are not ours; what it does not have keeps its own name
HUB_TASKS = {  # what the Hub calls them
    "asr": "automatic-speech-recognition",
    "st": "translation",
    "sf": "token-classification",
}
OTHER_HUB_TASK = "audio-text-to-text"
LABEL_HUB_TASK = "audio-classification"
NO_CORPUS = "manifest"  # recordings of one's own
# As the Hub wants a data set's type; in its pattern, \w is of ASCII alone.
NOT_IN_DATASET_TYPE = re.compile(r"[^A-Za-z0-9_.-]+")


def suite_tables(suites: dict[str, dict], published: str) -> list[dict]:
    """What the template needs of each suite.

    Args:
        suites (`dict[str, dict]`): by name, see [`~records.public_results`].
        published (`str`): fingerprint of the weights that the card is about.
    """
    return [
        {
            "title": one_line(record["title"]),
            "rows": [_row_cells(row) for row in record["results"]],
            "signatures": _signatures(record["results"]),
            "not_asked": [one_line(f"{row['row']} ({row['reason']})") for row in record["not_asked"]],
            "command": shlex.join(record["command"]),
            "before_rounding": record.get("recorded_for", published) != published,
            **{name: record[name] for name in ("source", "date", "hardware", "versions", "seed")},
        }
        for record in suites.values()
    ]


def eval_results(suites: dict[str, dict], tasks) -> list[EvalResult]:
    """The figures as the Hub reads them, in percent where people read them so.

    Args:
        suites (`dict[str, dict]`): by name, see [`~records.public_results`].
        tasks ([`TaskBank`]): the model's; say which answers are labels.
    """
    return [
        EvalResult(
            task_type=_hub_task(row["scored"], tasks),
            task_name=tasks[row["scored"]].name if row["scored"] in tasks else row["scored"] or "free instruction",
            dataset_type=NOT_IN_DATASET_TYPE.sub("-", row["corpus"] or NO_CORPUS),
            dataset_name=row["corpus"] or "recordings of the publisher's own",
            dataset_config=row["view"],
            dataset_split=row["split"],
            metric_type=HUB_METRICS.get(row["metric"], row["metric"]),
            metric_name=f"{METRIC_NAMES.get(row['metric'], row['metric'])}, {_row_name(row)}",
            metric_value=round(row["scale"] * row["value"], 2),
            metric_args={"suite": name} | {key: row[key] for key in ("row", "prompts", "decoding", "samples")},
        )
        for name, record in suites.items()
        for row in record["results"]
        if row["value"] is not None
    ]


def hub_metrics(suites: dict[str, dict]) -> list[str]:
    """Ids of the metrics that were measured, sorted."""
    names = {row["metric"] for record in suites.values() for row in record["results"]}
    return sorted(HUB_METRICS.get(name, name) for name in names)


def one_line(text: str) -> str:
    """Text that stays within its cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _hub_task(scored: str | None, tasks) -> str:
    if scored in HUB_TASKS:
        return HUB_TASKS[scored]
    return LABEL_HUB_TASK if scored in tasks and tasks[scored].labels else OTHER_HUB_TASK


def _row_name(row: dict) -> str:
    """What a row is called; of a joint one, which asks several tasks, also which of them is scored."""
    return row["name"] if row["scored"] == row["task"] else f"{row['name']}: {row['scored']}"


def _row_cells(row: dict) -> list[str]:
    place = "/".join(filter(None, (row["corpus"] or NO_CORPUS, row["split"])))
    better = "higher" if row["higher_is_better"] else "lower"
    cells = [
        _row_name(row),
        place,
        f"{METRIC_NAMES.get(row['metric'], row['metric'])} ({better} is better)",
        _value_words(row),
        _sample_words(row),
        _decoding_words(row),
        _paper_words(row),
    ]
    return [one_line(text) for text in cells]


def _paper_words(row: dict) -> str:
    """The paper's figures, and what they are of where that is another test set."""
    figures = "; ".join(f"{system} {value}" for system, value in (row["paper"] or {}).items())
    return (f"{figures} (on {row['paper_set']})" if row["paper_set"] else figures) if figures else "-"


def _value_words(row: dict) -> str:
    if row["value"] is None:
        return "-"
    value, low, high = (None if row[name] is None else row["scale"] * row[name] for name in ("value", "low", "high"))
    unit = " %" if row["scale"] == 100 else ""
    return f"{value:.1f}{unit}" if low is None or high is None else f"{value:.1f}{unit} ({low:.1f} to {high:.1f})"


def _sample_words(row: dict) -> str:
    speakers = f" of {row['clusters']} speakers" if row["resampled"] == "speakers" else ""
    skipped = "".join(f"; {count:,} left out: {reason}" for reason, count in row["skipped"].items())
    unreadable = f"; {row['unreadable']:,} answers unreadable, and wrong" if row["unreadable"] else ""
    return f"{row['samples']:,}{speakers}{unreadable}{skipped}"


def _decoding_words(row: dict) -> str:
    words = [row["decoding"]]
    if row["prompts"] == "held_out":
        words.append("held-out prompt")
    if row["describe"]:
        words.append("classes described")
    return ", ".join(words)


def _signatures(rows: list[dict]) -> list[str]:
    """How each metric is computed, once."""
    found = {row["metric"]: row["signature"] for row in rows if row["signature"]}
    return [f"{METRIC_NAMES.get(name, name)}: `{signature}`" for name, signature in found.items()]
