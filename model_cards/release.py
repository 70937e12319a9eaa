"""What is published of a run: model, processor, code, card and results, in a folder of their own."""

import json
import logging
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch
from transformers import GenerationConfig
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from speechverse import SpeechVerseConfig, SpeechVerseForConditionalGeneration, SpeechVerseProcessor
from speechverse.model_cards.card import make_card
from speechverse.modeling_speechverse.base_checkpoints import fingerprint


logger = logging.getLogger(__name__)

RESULTS = "results.json"  # of evaluation/run.py
RUN = "run.json"  # of training
LOSS_CURVE = "loss.png"
PROCESSOR_FILES = (PROCESSOR_NAME, "tokenizer_config.json", "tasks.json")


def write_release(
    checkpoint: str | Path, folder: str | Path, *, repo_id: str, license: str | None = None, dtype: str | None = None
) -> None:
    """Writes into `folder` what is to be published of a checkpoint, and nothing else.

    Optimizer states, logs, answers and recordings' names stay at home; paths of this machine are shortened to their last
    part.

    Args:
        checkpoint (`str` or `Path`): folder of a finished run, or one of its checkpoints.
        folder (`str` or `Path`): an empty folder.
        repo_id (`str`): where it is going to be published; the card's snippets name it.
        license (`str`, *optional*): of what was learned, as the Hub spells licences.
        dtype (`str`, *optional*): of the published weights, `float32` or `bfloat16`; by default as saved.

    Raises:
        ValueError: if the checkpoint is incomplete or damaged, its parts do not belong together, or its results are of
            other weights.
    """
    checkpoint, folder = Path(checkpoint), Path(folder)
    _refuse_incomplete(checkpoint)
    config = SpeechVerseConfig.from_pretrained(checkpoint)
    standalone = config.standalone
    model, weights = _read_model(checkpoint, config)
    processor = SpeechVerseProcessor.from_pretrained(checkpoint)
    _refuse_other_processor(checkpoint, model, processor)
    measured, run = _read_results(checkpoint), _read_json(checkpoint / RUN)

    if dtype is not None:
        weights = {
            name: tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
            for name, tensor in weights.items()
        }
    model.save_pretrained(folder, state_dict=weights, standalone=standalone)
    processor.save_pretrained(folder)
    for name, content in ((RESULTS, measured), (RUN, run)):
        if content is not None:
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if (checkpoint / LOSS_CURVE).is_file():
        (folder / LOSS_CURVE).write_bytes((checkpoint / LOSS_CURVE).read_bytes())
    card = make_card(
        folder,
        repo_id,
        model,
        processor,
        standalone=standalone,
        measured=measured,
        run=run,
        license=license,
        rounded_to=dtype,
    )
    card.save(folder / "README.md")


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


def _read_model(checkpoint: Path, config: SpeechVerseConfig):
    """The model, and the tensors that it saves. An adapter's bases need not be on this machine."""
    if config.standalone:
        model = SpeechVerseForConditionalGeneration.from_pretrained(checkpoint)
        weights = model.state_dict()
        if broken := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
            raise ValueError(
                f"{checkpoint} holds NaN or infinity in {', '.join(broken[:5])}: its training went wrong."
            )
    else:
        with torch.device("meta"):
            model = SpeechVerseForConditionalGeneration(config)
        weights = model.read_adapter_weights(checkpoint / SAFE_WEIGHTS_NAME)
        if (checkpoint / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(checkpoint)
    return model, weights


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


def _read_results(checkpoint: Path) -> dict | None:
    """What evaluation/run.py measured, if on these very weights."""
    results = _read_json(checkpoint / RESULTS)
    if results is not None and results.get("fingerprint") != fingerprint(checkpoint):
        raise ValueError(
            f"{checkpoint / RESULTS} was measured on other weights than those in the folder: evaluate again, or remove it."
        )
    return results


def _read_json(file: Path) -> dict | None:
    """What a file holds, without this machine's paths."""
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}.") from error
    if (shortened := _shorten_paths(content)) != content:
        logger.warning(f"{file.name}: paths of this machine are shortened to their last part.")
    return shortened


def _shorten_paths(value):
    """Replaces every absolute path by its last part: what else is on a machine is nobody's business."""
    if isinstance(value, dict):
        return {key: _shorten_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shorten_paths(item) for item in value]
    if isinstance(value, str):
        for flavour in (PurePosixPath, PureWindowsPath):
            if flavour(value).is_absolute():
                return flavour(value).name
    return value
