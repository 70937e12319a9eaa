"""The card of a published checkpoint: what it is, where it came from, how to use it, how good it is."""

import json
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
        id (`str`): Hub id, or name of a folder that `speechverse-foundations` builds.
        revision (`str`): commit on the Hub, or a dash.
        licence (`str`): its licence, or where to look.
        fingerprint (`str`): see [`~base_checkpoints.fingerprint`].
        on_hub (`bool`): whether the Hub has it.
    """

    part: str
    id: str
    revision: str
    licence: str
    fingerprint: str
    on_hub: bool


def make_card(
    release: Path,
    repo_id: str,
    model,
    processor,
    *,
    standalone: bool,
    measured: dict | None = None,
    run: dict | None = None,
    license: str | None = None,
    rounded_to: str | None = None,
) -> ModelCard:
    """Fills the template.

    Args:
        release (`Path`): folder with the weights that are published.
        repo_id (`str`): where they are published.
        model, processor: of the checkpoint; the model may be on the meta device.
        standalone (`bool`): whether the bases are published too.
        measured (`dict`, *optional*): what `results.json` holds.
        run (`dict`, *optional*): what `run.json` holds.
        license (`str`, *optional*): of what was learned, as the Hub spells licences.
        rounded_to (`str`, *optional*): dtype that the weights were converted to after they were measured.
    """
    config = model.config
    bases = _describe_bases(config)
    hub_ids = [base.id for base in bases if base.on_hub]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-text-to-text",
        tags=["speechverse", "speech", "audio", "speech-instruction"],
        license=license,
        base_model=hub_ids or None,
        base_model_relation=("finetune" if standalone else "adapter") if hub_ids else None,
        metrics=["accuracy", "recall"] if measured else None,
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=repo_id.split("/")[-1],
        repo_id=repo_id,
        config=config,
        bases=[asdict(base) for base in bases],
        bases_to_build=[] if standalone else [base.id for base in bases if not base.on_hub],
        standalone=standalone,
        fingerprint=fingerprint(release),
        megabytes=sum(file.stat().st_size for file in release.glob("*.safetensors")) / 1e6,
        stored_dtype=_stored_dtype(release),
        learned=sum(p.numel() for p in model.parameters() if p.requires_grad),
        frame_rate=_projected_frame_rate(model),
        max_seconds=processor.max_audio_seconds,
        tasks=list(processor.tasks),
        measured=measured,
        run=run,
        has_loss_curve=(release / "loss.png").is_file(),
        rounded_to=rounded_to,
    )


def _describe_bases(config) -> list[Base]:
    recorded = {"speech encoder": config.audio_base, "LLM": config.text_base}
    return [
        Base(
            part=part,
            id=base["id"],
            revision=base["revision"] or "-",
            licence=base_licence(base),
            fingerprint=base["fingerprint"],
            on_hub=_is_hub_id(base["id"]),
        )
        for part, base in recorded.items()
        if base is not None
    ]


def base_licence(base: dict) -> str:
    """The licence of a base that a configuration records: by its SOURCE.json if it is on this machine, else by the Hub."""
    try:
        source = find_named_base(base["id"], revision=base["revision"], local_files_only=True) / "SOURCE.json"
        if source.is_file():
            return json.loads(source.read_text(encoding="utf-8")).get("licence", UNKNOWN_LICENCE)
    except FileNotFoundError:
        pass
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
