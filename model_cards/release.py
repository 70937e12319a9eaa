"""What is published of a run: model, processor, code, card and results, in a folder of their own."""

import json
import logging
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from speechverse import SpeechVerseConfig, SpeechVerseForConditionalGeneration, SpeechVerseProcessor
from speechverse.model_cards.card import CARD, PICTURES, is_unedited, make_card, save_card
from speechverse.model_cards.records import public_results, public_run
from speechverse.modeling_speechverse.base_checkpoints import fingerprint


logger = logging.getLogger(__name__)

RESULTS = "evaluation/*/results.json"  # of evaluation/run.py, a folder for each suite
OWN_SYSTEM = "speechverse"  # kind of the system that a suite's results are of; those of baselines stay at home
RUN = "run.json"  # of training
PROCESSOR_FILES = (PROCESSOR_NAME, "tokenizer_config.json", "tasks.json")


def write_release(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    repo_id: str,
    license: str | None = None,
    dtype: str | None = None,
    emissions: dict | None = None,
) -> None:
    """Writes into `folder` what is to be published of a checkpoint, and nothing else.

    Optimizer states, logs and answers stay at home, and so do the names of recordings and this machine's paths.

    Args:
        checkpoint (`str` or `Path`): folder of a finished run, or one of its checkpoints.
        folder (`str` or `Path`): an empty folder.
        repo_id (`str`): where it is going to be published; the card's snippets name it.
        license (`str`, *optional*): of what was learned, as the Hub spells licences.
        dtype (`str`, *optional*): of the published weights, `float32` or `bfloat16`; by default as saved.
        emissions (`dict`, *optional*): see [`~card.make_card`].

    Raises:
        ValueError: if the checkpoint is incomplete or damaged, its parts do not belong together, or its results are of
            other weights.
    """
    checkpoint, folder = Path(checkpoint), Path(folder)
    _refuse_incomplete(checkpoint)
    config = SpeechVerseConfig.from_pretrained(checkpoint)
    standalone = config.standalone
    processor = SpeechVerseProcessor.from_pretrained(checkpoint)
    model = _save_model(checkpoint, config, folder, dtype)
    _refuse_other_processor(checkpoint, model, processor)
    processor.save_pretrained(folder)
    results = {name: read_record(checkpoint, name, public_results) for name in results_of_model(checkpoint)}
    run = read_record(checkpoint, RUN, public_run)
    published = fingerprint(folder)
    for name, record in {**results, RUN: run}.items():
        if record is not None:
            # Where the weights were rounded, the record is of those before, and stands beside those after.
            record |= {"recorded_for": record.get("recorded_for", record["fingerprint"]), "fingerprint": published}
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for name in PICTURES.values():
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)
    card = make_card(
        folder,
        repo_id,
        model,
        processor,
        standalone=standalone,
        suites=by_suite(results),
        run=run,
        license=license,
        emissions=emissions,
    )
    save_card(card, folder)
    if (checkpoint / CARD).is_file() and not is_unedited(checkpoint / CARD):
        logger.warning(
            f"What was written in {checkpoint / CARD} by hand is not published: the card is made anew from the records. "
            "Edit it in the repository."
        )


def _refuse_incomplete(checkpoint: Path) -> None:
    if not checkpoint.is_dir():
        raise ValueError(f"{checkpoint} is not a folder: name the one that training wrote.")
    missing = [name for name in (CONFIG_NAME, *PROCESSOR_FILES) if not (checkpoint / name).is_file()]
    if not any((checkpoint / name).is_file() for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        missing.append(SAFE_WEIGHTS_NAME)
    if missing:
        unfinished = sorted(checkpoint.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
        hint = f" The run did not finish: resume it, or publish {unfinished[-1]}." if unfinished else ""
        raise ValueError(f"{checkpoint} is no complete checkpoint: it lacks {', '.join(missing)}.{hint}")
    model_type = _read_json(checkpoint / CONFIG_NAME).get("model_type")
    if model_type != SpeechVerseConfig.model_type:
        raise ValueError(f"{checkpoint} holds a model of model_type {model_type!r}, not a SpeechVerse model.")


def model_without_weights(config: SpeechVerseConfig) -> SpeechVerseForConditionalGeneration:
    """A model on the meta device: its structure, for which no base need be on this machine."""
    with torch.device("meta"):
        return SpeechVerseForConditionalGeneration(config)


def results_of_model(checkpoint: Path) -> list[str]:
    """The files of results in a folder that are of the model itself, as paths within it, sorted.

    Raises:
        ValueError: if one is no such record.
    """
    found = []
    for file in sorted(checkpoint.glob(RESULTS)):
        record = _read_json(file)
        system = record.get("system") if isinstance(record, dict) else None
        if not isinstance(system, dict):
            raise ValueError(f"{file} does not say which system it is about: make it again, or remove it.")
        if system.get("kind") == OWN_SYSTEM:
            found.append(file.relative_to(checkpoint).as_posix())
    return found


def by_suite(results: dict[str, dict]) -> dict[str, dict]:
    """Results by the names of their folders, in place of those of their files."""
    return {Path(name).parent.name: record for name, record in results.items()}


def _save_model(checkpoint: Path, config: SpeechVerseConfig, folder: Path, dtype: str | None):
    """Saves configuration, weights and code; returns the model. An adapter's bases need not be on this machine."""
    dtype = None if dtype is None else getattr(torch, dtype)
    if config.standalone:
        model = SpeechVerseForConditionalGeneration.from_pretrained(checkpoint)
        if broken := [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]:
            raise ValueError(
                f"{checkpoint} holds NaN or infinity in {', '.join(broken[:5])}: its training went wrong."
            )
        model.to(dtype).save_pretrained(folder, standalone=True)
        return model
    model = model_without_weights(config)
    weights = model.read_adapter_weights(checkpoint / SAFE_WEIGHTS_NAME)
    if (checkpoint / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(checkpoint)
    weights = {name: tensor.to(dtype or tensor.dtype) for name, tensor in weights.items()}
    model.save_pretrained(folder, state_dict=weights)
    return model


def _refuse_other_processor(checkpoint: Path, model, processor: SpeechVerseProcessor) -> None:
    pairs = {
        "audio_token_id": (processor.audio_token_id, model.config.audio_token_id),
        "projector_convolutions": (processor.projector_convolutions, [list(c) for c in model.projector_convolutions]),
        "encoder_convolutions": (processor.encoder_convolutions, [list(c) for c in model.encoder_convolutions]),
    }
    for name, (ours, models) in pairs.items():
        if ours != models:
            raise ValueError(
                f"{checkpoint}: the processor has {name} {ours} and the model {models}: not of one model."
            )


def read_record(checkpoint: Path, name: str, make_public) -> dict | None:
    """What a run left about these very weights, as far as it is for others' eyes; `None` where it left nothing.

    Args:
        checkpoint (`Path`): folder with the weights.
        name (`str`): of the record's file, as a path within the folder.
        make_public: [`~records.public_results`] or [`~records.public_run`].

    Raises:
        ValueError: if the record is about other weights, or not such a record.
    """
    file = checkpoint / name
    if not file.is_file():
        return None
    record = _read_json(file)
    if "fingerprint" not in record:
        raise ValueError(f"{file} does not say which weights it is about: make it again, or remove it.")
    if record["fingerprint"] != fingerprint(checkpoint):
        raise ValueError(f"{file} is about other weights than those in the folder: make it again, or remove it.")
    try:
        return make_public(record)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not what this version writes ({error!r}): make it again, or remove it."
        ) from error


def _read_json(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}.") from error
