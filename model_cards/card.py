"""The card of a published checkpoint: what it is, where it came from, how to use it, how good it is."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.utils import httpx
from safetensors import safe_open

from speechverse.model_cards.measured import eval_results, hub_metrics, one_line, suite_tables
from speechverse.modeling_speechverse.base_checkpoints import find_named_base, fingerprint
from speechverse.processing.tasks_speechverse import TaskBank


TEMPLATE = Path(__file__).with_name("card_template.md.jinja")
SHIPPED_TASKS = Path(__file__).parent.parent / "processing" / "tasks"
CARD = "README.md"
UNKNOWN_LICENCE = "not recorded; see its own page"
UNKNOWN_DATA_LICENCE = "one's own; not recorded"
PICTURES = {"Loss": "loss.png", "How it was trained": "training.png"}
HUB_TIMEOUT = 10  # s
# The last line of every card that is written here, with a checksum of those above: whose card a file is can be told by it.
DRAFT_SIGNATURE = (
    "<!-- Draft written by SpeechVerse ({checksum}). Training and evaluation write it anew until it is edited. -->"
)
SIGNATURE = "<!-- Written by SpeechVerse ({checksum}). -->"


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
    suites: dict[str, dict] | None = None,
    run: dict | None = None,
    license: str | None = None,
    emissions: dict | None = None,
) -> ModelCard:
    """Fills the template.

    Args:
        release (`Path`): folder with the weights that are published.
        repo_id (`str`, *optional*): where they are published; `None`: nowhere yet, and they are used from their folder.
        model, processor: of the checkpoint; the model may be on the meta device.
        standalone (`bool`): whether the bases are published too.
        suites (`dict[str, dict]`, *optional*): what is published of each suite's `results.json`.
        run (`dict`, *optional*): what is published of `run.json`.
        license (`str`, *optional*): of what was learned, as the Hub spells licences.
        emissions (`dict`, *optional*): of training, as its publisher states them: `emissions`, in grams of CO2 equivalents,
            and `source`, how they were found. SpeechVerse measures none.
    """
    suites = suites or {}
    bases = _describe_bases(model.config)
    hub_ids = [base.id for base in bases if base.on_hub]
    relation = "finetune" if standalone else "adapter"
    name = repo_id.split("/")[-1] if repo_id else release.resolve().name
    machine = _machine_words(run["hardware"]) if run and "hardware" in run else None
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-text-to-text",
        tags=["speechverse", "speech", "audio", "speech-instruction"],
        license=license,
        base_model=hub_ids or None,
        base_model_relation=relation if hub_ids else None,
        metrics=hub_metrics(suites) or None,
        model_name=name if suites else None,
        eval_results=eval_results(suites, processor.tasks) or None,
        co2_eq_emissions=_emissions_metadata(emissions, machine),
    )
    tasks = list(processor.tasks)
    published = fingerprint(release)
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        repo_id=repo_id,
        address=repo_id or ".",
        license=license,
        config=model.config,
        bases=[asdict(base) for base in bases],
        folders=[] if standalone else [base.id for base in bases if not base.on_hub],
        standalone=standalone,
        fingerprint=published,
        megabytes=sum(file.stat().st_size for file in release.glob("*.safetensors")) / 1e6,
        stored_dtype=_stored_dtype(release),
        learned=run["trainable_parameters"] if run else sum(p.numel() for p in model.parameters() if p.requires_grad),
        frame_rate=_projected_frame_rate(model),
        max_seconds=processor.max_audio_seconds,
        tasks=[[one_line(text) for text in (task.id, task.name, _labels(task), task.prompts[0])] for task in tasks],
        plain_task=next((task.id for task in tasks if not task.fields), None),
        not_learned=_not_learned(tasks),
        suites=suite_tables(suites, published),
        run=run,
        hours=run["train_runtime"] / 3600 if run and run.get("train_runtime") else None,
        emissions=emissions,
        sources=dict.fromkeys(map(_source_words, run["config"]["train_data"])) if run else {},
        machine=machine,
        data=_data_rows(run["data"]) if run and "data" in run else [],
        stages=[_stage_cells(stage) for stage in run.get("stages", ())] if run else [],
        restricted=_restricted_corpora(run["data"]) if run and "data" in run else [],
        inherited=_titles(run["data"].get("inherited", {}).values()) if run and "data" in run else [],
        speech=_hours_of_speech(run["data"]) if run and "data" in run else {},
        pictures=[(words, name) for words, name in PICTURES.items() if (release / name).is_file()],
    )


def save_card(card: ModelCard, folder: Path, *, draft: bool = False) -> None:
    """Writes a card as the folder's `README.md`, signed; a draft is written anew when there is more to say."""
    text = str(card).rstrip("\n")
    signature = (DRAFT_SIGNATURE if draft else SIGNATURE).format(checksum=_checksum(text))
    (folder / CARD).write_text(f"{text}\n{signature}\n", encoding="utf-8")


def is_unedited(card: Path) -> bool:
    """Whether a file is as [`save_card`] wrote it."""
    return _is_signed(card, DRAFT_SIGNATURE) or _is_signed(card, SIGNATURE)


def is_draft(card: Path) -> bool:
    """Whether a file is a draft as [`save_card`] wrote it."""
    return _is_signed(card, DRAFT_SIGNATURE)


def _is_signed(card: Path, signature: str) -> bool:
    text, _, last = card.read_text(encoding="utf-8", errors="replace").rstrip("\n").rpartition("\n")
    return last == signature.format(checksum=_checksum(text))


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
    return [one_line(text) for text in cells]


def _data_rows(data: dict) -> list[list[str]]:
    """What was trained on, a row for each task of each corpus: place, task, samples, hours, licence."""
    rows = []
    for place, tasks in data["train"]["corpora"].items():
        licence = _licence_at(place, data).get("licence", UNKNOWN_DATA_LICENCE)
        for task, counts in tasks.items():
            if counts["kept"]:
                cells = [place, task, f"{counts['kept']:,}", f"{counts['hours']:.2f}", licence]
                rows.append([one_line(text) for text in cells])
    return rows


def _restricted_corpora(data: dict) -> list[str]:
    """The corpora that were trained on, here or before, whose licence forbids commercial use."""
    corpora = data["train"]["corpora"].items()
    used = [_licence_at(place, data) for place, tasks in corpora if any(counts["kept"] for counts in tasks.values())]
    used += data.get("inherited", {}).values()
    return _titles(facts for facts in used if not facts.get("permissive", True))


def _titles(corpora: Iterable[dict]) -> list[str]:
    return list(dict.fromkeys(f"{facts['title']} ({facts['licence']})" for facts in corpora))


def _hours_of_speech(data: dict) -> dict[str, dict]:
    """Hours and titles of the training data by whose speech it is, `recorded`, `synthetic` or `mixed`, where that is known."""
    found = {}
    for place, tasks in data["train"]["corpora"].items():
        facts = _licence_at(place, data)
        hours = sum(counts["hours"] for counts in tasks.values())
        if hours and "speech" in facts:
            kind = found.setdefault(facts["speech"], {"hours": 0.0, "titles": []})
            kind["hours"] += hours
            kind["titles"] += [facts["title"]] if facts["title"] not in kind["titles"] else []
    return found


def _not_learned(tasks: list) -> list[str]:
    """The tasks that SpeechVerse ships and that a model does not carry."""
    known = {name for task in tasks for name in (task.id, task.name)}
    return [task.name for task in TaskBank.from_yaml(SHIPPED_TASKS) if not known & {task.id, task.name}]


def _emissions_metadata(emissions: dict | None, machine: str | None) -> dict | None:
    """As the Hub reads it."""
    if emissions is None:
        return None
    return emissions | {"training_type": "fine-tuning"} | ({"hardware_used": machine} if machine else {})


def _licence_at(place: str, data: dict) -> dict:
    """What is known of the corpus of a place such as `slurp/train`; nothing of a manifest."""
    return data["licences"].get(place) or data["licences"].get(place.rpartition("/")[0]) or {}
