"""The card of a published checkpoint: what it is, where it came from, how to use it, how good it is."""

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.utils import httpx
from safetensors import safe_open

from speechverse.modeling_speechverse.base_checkpoints import find_named_base, fingerprint


TEMPLATE = Path(__file__).with_name("card_template.md.jinja")
UNKNOWN_LICENCE = "not recorded; see its own page"


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
    repo_id: str,
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
        repo_id (`str`): where they are published.
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
        name=repo_id.split("/")[-1],
        repo_id=repo_id,
        config=model.config,
        bases=[asdict(base) for base in bases],
        folders=[] if standalone else [base.id for base in bases if not base.on_hub],
        standalone=standalone,
        fingerprint=fingerprint(release),
        megabytes=sum(file.stat().st_size for file in release.glob("*.safetensors")) / 1e6,
        stored_dtype=_stored_dtype(release),
        learned=sum(p.numel() for p in model.parameters() if p.requires_grad),
        frame_rate=_projected_frame_rate(model),
        max_seconds=processor.max_audio_seconds,
        tasks=[[_cell(text) for text in (task.id, task.name, _labels(task), task.prompts[0])] for task in tasks],
        plain_task=next((task.id for task in tasks if not task.fields), None),
        results=results,
        rows=[_result_cells(row) for row in results["results"]] if results else [],
        command=shlex.join(results["command"]) if results else None,
        run=run,
        data=[_source_words(source) for source in run["config"]["train_data"]] if run else [],
        has_loss_curve=(release / "loss.png").is_file(),
    )


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
        card = HfApi().model_info(base["id"], revision=base["revision"]).card_data
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


def _cell(text: str) -> str:
    """Text that stays within its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
