"""The card of a published checkpoint: what it is, where it came from, how to use it, how good it is."""

import hashlib
import json
import shlex
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.utils import httpx
from safetensors import safe_open

from speechverse.modeling_speechverse.base_checkpoints import find_named_base, fingerprint


TEMPLATE = Path(__file__).with_name("card_template.md.jinja")
CARD = "README.md"
UNKNOWN_LICENCE = "not recorded; see its own page"
UNKNOWN_DATA_LICENCE = "one's own; not recorded"
PICTURES = {"Loss": "loss.png", "How it was trained": "training.png"}
HUB_TIMEOUT = 10  # s
# The last line of every card that is written here, with a checksum of those above: whose card a file is can be told by it.
SIGNATURE = (
    "<!-- Written by SpeechVerse ({checksum}). Once it has been edited, training does not write over this card. -->"
)


@dataclass(frozen=True)
class Base:
    """One of the two frozen models, as the card's table shows it.

    Args:
        part (`str`): `speech encoder` or `LLM`.
        id (`str`): Hub id, or name of a folder.
        revision (`str`): commit on the Hub, or a dash.
        licence (`str`): its licence, or where to look.
        fingerprint (`str`): see [`~base_checkpoints.fingerprint`].
        on_hub (`bool`): whether it is named as the Hub names repositories.
        differs (`str`): how the folder that was trained on differs from the original; empty where it is the original.
    """

    part: str
    id: str
    revision: str
    licence: str
    fingerprint: str
    on_hub: bool
    differs: str


def make_card(
    release: Path,
    repo_id: str | None,
    model,
    processor,
    *,
    standalone: bool,
    results: dict | None = None,
    run: dict | None = None,
    license: str | None = None,
) -> ModelCard:
    """Fills the template.

    Args:
        release (`Path`): folder with the weights that are published.
        repo_id (`str`, *optional*): where they are published; `None`: nowhere yet, and they are used from their folder.
        model, processor: of the checkpoint; the model may be on the meta device.
        standalone (`bool`): whether the bases are published too.
        results, run (`dict`, *optional*): what is published of `results.json` and `run.json`.
        license (`str`, *optional*): of what was learned, as the Hub spells licences.
    """
    bases = _describe_bases(model.config)
    hub_ids = [base.id for base in bases if base.on_hub]
    relation = "finetune" if standalone else "adapter"
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-text-to-text",
        tags=["speechverse", "speech", "audio", "speech-instruction"],
        license=license,
        base_model=hub_ids or None,
        base_model_relation=relation if hub_ids else None,
        metrics=["accuracy", "recall"] if results else None,
    )
    tasks = list(processor.tasks)
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=repo_id.split("/")[-1] if repo_id else release.resolve().name,
        repo_id=repo_id,
        address=repo_id or ".",
        license=license,
        config=model.config,
        bases=[asdict(base) for base in bases],
        folders=[] if standalone else [base.id for base in bases if not base.on_hub],
        standalone=standalone,
        fingerprint=fingerprint(release),
        megabytes=sum(file.stat().st_size for file in release.glob("*.safetensors")) / 1e6,
        stored_dtype=_stored_dtype(release),
        learned=run["trainable_parameters"] if run else sum(p.numel() for p in model.parameters() if p.requires_grad),
        frame_rate=_projected_frame_rate(model),
        max_seconds=processor.max_audio_seconds,
        tasks=[[_cell(text) for text in (task.id, task.name, _labels(task), task.prompts[0])] for task in tasks],
        plain_task=next((task.id for task in tasks if not task.fields), None),
        results=results,
        rows=[_result_cells(row) for row in results["results"]] if results else [],
        command=shlex.join(results["command"]) if results else None,
        run=run,
        sources=dict.fromkeys(map(_source_words, run["config"]["train_data"])) if run else {},
        machine=_machine_words(run["hardware"]) if run and "hardware" in run else None,
        data=_data_rows(run["data"]) if run and "data" in run else [],
        stages=[_stage_cells(stage) for stage in run.get("stages", ())] if run else [],
        restricted=_restricted_corpora(run["data"]) if run and "data" in run else [],
        pictures=[(words, name) for words, name in PICTURES.items() if (release / name).is_file()],
    )


def save_card(card: ModelCard, folder: Path) -> None:
    """Writes a card as the folder's `README.md`, signed."""
    text = str(card).rstrip("\n")
    signature = SIGNATURE.format(checksum=_checksum(text))
    (folder / CARD).write_text(f"{text}\n{signature}\n", encoding="utf-8")


def is_unedited(card: Path) -> bool:
    """Whether a file is as [`save_card`] wrote it."""
    text, _, signature = card.read_text(encoding="utf-8", errors="replace").rstrip("\n").rpartition("\n")
    return signature == SIGNATURE.format(checksum=_checksum(text))


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _describe_bases(config) -> list[Base]:
    recorded = {"speech encoder": config.audio_base, "LLM": config.text_base}
    bases = []
    for part, base in recorded.items():
        if base is not None:
            source = _local_source(base)
            rebuilt = source.get("origin") == "packages"
            bases.append(
                Base(
                    part=part,
                    id=base["id"],
                    revision=base["revision"] or "-",
                    licence=source.get("licence") or _licence_on_hub(base),
                    fingerprint=base["fingerprint"],
                    on_hub=_is_hub_id(base["id"]),
                    differs=source.get("differs_from_original", "") if rebuilt else "",
                )
            )
    return bases


def _local_source(base: dict) -> dict:
    """The SOURCE.json of a base that is on this machine."""
    try:
        file = find_named_base(base["id"], revision=base["revision"], local_files_only=True) / "SOURCE.json"
    except FileNotFoundError:
        return {}
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _licence_on_hub(base: dict) -> str:
    if not _is_hub_id(base["id"]):
        return UNKNOWN_LICENCE
    try:
        card = HfApi().model_info(base["id"], revision=base["revision"], timeout=HUB_TIMEOUT).card_data
    except (httpx.HTTPError, OSError):  # the Hub does not have it, or cannot be reached
        return UNKNOWN_LICENCE
    return (card and card.license) or UNKNOWN_LICENCE


def _is_hub_id(name: str) -> bool:
    return "/" in name


def _stored_dtype(release: Path) -> str:
    names = set()
    for file in release.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names |= {tensors.get_slice(key).get_dtype() for key in tensors.keys()}
    return ", ".join(sorted(names))


def _projected_frame_rate(model) -> float:
    rate = model.audio_family.frame_rate
    for stride in model.config.projector_strides:
        rate /= stride
    return rate


def _labels(task) -> str:
    return ", ".join(task.labels) or "free text"


def _result_cells(row: dict) -> list[str]:
    skipped = "".join(f"; {count} left out: {reason}" for reason, count in row["skipped"].items())
    percent = ["-" if row[name] is None else f"{100 * row[name]:.1f} %" for name in ("accuracy", "uar")]
    return [_cell(text) for text in (row["instruction"], f"{row['samples']}{skipped}", *percent)]


def _source_words(source: dict) -> str:
    """A source of training data, in words: what it is called, and which part of it was taken."""
    parts = [f"{name}: {value}" for name, value in source.items() if name not in ("instruction", "target") and value]
    return "; ".join(parts)


def _machine_words(hardware: dict) -> str:
    """What a run ran on: accelerators, or else the processor."""
    gpus = [f"{gpu['name']} ({gpu['memory_gib']:g} GiB)" for gpu in hardware["gpus"]]
    processes = f"{hardware['world_size']} process{'es' if hardware['world_size'] > 1 else ''}"
    machine = ", ".join(f"{count} x {gpu}" for gpu, count in Counter(gpus).items())
    return f"{processes} on " + (machine or f"{hardware['cpu']}, {hardware['cores']} cores")


def _stage_cells(stage: dict) -> list[str]:
    """What a stage taught, and when; stages that no run reached are told, too."""
    reached = stage["first_step"] is not None
    cells = [
        stage["name"],
        ", ".join(stage.get("trains") or ["-"]),
        ", ".join(stage.get("tasks") or ["all"]),
        str(stage["first_step"]) if reached else "never reached",
        str(stage.get("steps", "-")),
        stage.get("end") or "-",
    ]
    return [_cell(text) for text in cells]


def _data_rows(data: dict) -> list[list[str]]:
    """What was trained on, a row for each task of each corpus: place, task, samples, hours, licence."""
    rows = []
    for place, tasks in data["train"]["corpora"].items():
        licence = _licence_at(place, data).get("licence", UNKNOWN_DATA_LICENCE)
        for task, counts in tasks.items():
            if counts["kept"]:
                cells = [place, task, f"{counts['kept']:,}", f"{counts['hours']:.2f}", licence]
                rows.append([_cell(text) for text in cells])
    return rows


def _restricted_corpora(data: dict) -> list[str]:
    """The corpora that were trained on whose licence forbids commercial use."""
    corpora = data["train"]["corpora"].items()
    used = [_licence_at(place, data) for place, tasks in corpora if any(counts["kept"] for counts in tasks.values())]
    names = [f"{facts['title']} ({facts['licence']})" for facts in used if not facts.get("permissive", True)]
    return list(dict.fromkeys(names))


def _licence_at(place: str, data: dict) -> dict:
    """What is known of the corpus of a place such as `slurp/train`; nothing of a manifest."""
    return data["licences"].get(place) or data["licences"].get(place.rpartition("/")[0]) or {}


def _cell(text: str) -> str:
    """Text that stays within its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
