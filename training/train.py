"""Trains a SpeechVerse model.

    accelerate launch training/train.py CONFIG.yaml [--key value ...]

CONFIG.yaml names the bases, the data and any of transformers' TrainingArguments; the command line goes before it.
`--resume_from_checkpoint true` goes on from the last checkpoint in `output_dir`.
"""

import dataclasses
import logging
import sys
from pathlib import Path
from typing import NamedTuple

from transformers import AutoConfig, set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import cached_file

import speechverse
from speechverse.processing.tasks_speechverse import TASKS_NAME
from speechverse.training.arguments import (
    ModelArguments,
    RunConfig,
    SpeechVerseTrainingArguments,
    all_tasks,
    parse_run_config,
)
from speechverse.training.callbacks.gradient_guard import TrainingDiverged
from speechverse.training.callbacks.leave_results import LeaveResults
from speechverse.training.checkpoint_writing import CheckpointWriteError
from speechverse.training.curriculum import default_stages
from speechverse.training.data.dataset import Collator, InstructionDataset, TranscriptDataset
from speechverse.training.data.feature_cache import FeatureCache
from speechverse.training.data.filters import FilterRules
from speechverse.training.data.inspection import FactsCache
from speechverse.training.data.report import CACHE_NAME, write_report
from speechverse.training.data.run_sources import licences_of
from speechverse.training.mixture import Mixture
from speechverse.training.parts import lora_has_learned
from speechverse.training.run_data import CheckedData, LoadedData
from speechverse.training.run_record import corpora_learned
from speechverse.training.trainer import SpeechVerseTrainer


logger = logging.getLogger(__name__)


def build_model(arguments: ModelArguments) -> speechverse.SpeechVerseForConditionalGeneration:
    """Joins the bases that the configuration names, and loads the adapter that it starts from.

    Raises:
        FileNotFoundError: if a base or the adapter is not there.
        ValueError: if the adapter is not of this model.
    """
    values = dataclasses.asdict(arguments)
    adapter = values.pop("adapter")
    targets = values.pop("lora_target_modules")
    if targets == ["all-linear"]:
        targets = "all-linear"
    model = speechverse.SpeechVerseForConditionalGeneration.from_foundations(
        values.pop("audio_base"), values.pop("text_base"), lora_target_modules=targets, **values
    )
    if adapter is not None:
        model.start_from_adapter(adapter)
    return model


def tasks_of_adapter(adapter: str | None) -> speechverse.TaskBank:
    """The tasks that the checkpoint knows which a run starts from; none where it starts from scratch."""
    if adapter is None:
        return speechverse.TaskBank()
    file = cached_file(adapter, TASKS_NAME, _raise_exceptions_for_missing_entries=False)
    return speechverse.TaskBank() if file is None else speechverse.TaskBank.from_json(file)


def has_heard(adapter: str | None) -> bool:
    """Whether a run starts from a checkpoint that has learned from recordings, and not from transcripts alone."""
    return adapter is not None and AutoConfig.from_pretrained(adapter).input_modality == "audio"


class RunParts(NamedTuple):
    """What a run is made of before it trains.

    Args:
        model ([`SpeechVerseForConditionalGeneration`]): the joined bases.
        processor ([`SpeechVerseProcessor`]): with the tasks that are learned.
        args ([`SpeechVerseTrainingArguments`]): the training arguments.
        train_data, eval_data ([`CheckedData`]): the samples.
        features ([`FeatureCache`], *optional*): of all their recordings, with `cache_features`.
    """

    model: speechverse.SpeechVerseForConditionalGeneration
    processor: speechverse.SpeechVerseProcessor
    args: SpeechVerseTrainingArguments
    train_data: CheckedData
    eval_data: CheckedData
    features: FeatureCache | None


def check_only_tasks(config: RunConfig, used: set[str], eval_data: LoadedData) -> None:
    """Refuses a run of some tasks alone that would lack one, or have nothing to look at.

    Args:
        used (`set[str]`): ids of the tasks that the training data ask for.
        eval_data ([`LoadedData`]): what is validated on.

    Raises:
        ValueError: if a task has no training data, or validations are asked for without data.
    """
    if missing := [task for task in config.only_tasks if task not in used]:
        raise ValueError(f"only_tasks: train_data have nothing of {', '.join(missing)}.")
    if not eval_data.samples and config.namespace.eval_strategy != "no":
        raise ValueError(
            f"only_tasks: eval_data have nothing of {', '.join(config.only_tasks)}: add some, or give --eval_strategy no."
        )


def prepare_run(config: RunConfig) -> RunParts:
    """Reads the data, joins the model, and encodes the recordings, if that is asked for.

    Raises:
        FileNotFoundError: if a manifest, a corpus or a base is not there.
        ImportError: if a package that a corpus needs is not installed.
        OSError: if the disk is full.
        ValueError: if a manifest or the configuration is wrong.
    """
    if config.left_out:
        logger.info(f"licences: permissive leaves out {', '.join(config.left_out)}")
    train_data, eval_data = (
        LoadedData.of(sources, config.tasks, config.only_tasks) for sources in (config.train_data, config.eval_data)
    )
    used = {task for sample in train_data.samples for task in sample.tasks}
    if config.only_tasks is not None:
        check_only_tasks(config, used, eval_data)
    set_seed(config.namespace.seed)
    model = build_model(config.model)
    learned_tasks = speechverse.TaskBank(task for task in config.tasks if {task.id, task.name} & used)
    if config.only_tasks is None:
        learned_tasks = all_tasks(learned_tasks, tasks_of_adapter(config.model.adapter))
    processor = speechverse.SpeechVerseProcessor.for_model(model, learned_tasks)
    args = config.training_arguments()
    rules = FilterRules(processor, config.tasks, text_alone=config.model.input_modality == "text")
    with args.main_process_first(desc="checking recordings"):  # the other ranks then read what it has found
        cache = FactsCache(Path(args.output_dir) / CACHE_NAME)
        train_data, eval_data = train_data.check(rules, cache), eval_data.check(rules, cache)
    if args.process_index == 0:
        parts = {"train": train_data.report, "eval": eval_data.report}
        licences = licences_of(config.train_data + config.eval_data)
        inherited = corpora_learned(config.model.adapter) if config.model.adapter else {}
        write_report(args.output_dir, parts, config.tasks, licences=licences, inherited=inherited)
    features = None
    if args.cache_features:
        model.to(args.device)
        features = FeatureCache(
            model,
            processor,
            args.feature_cache_folder,
            autocast_dtype=args.autocast_dtype,
            num_workers=args.dataloader_num_workers,
        )
        features.add(one.sample.audio for data in (train_data, eval_data) for one in data.usable)
    logger.info(f"{len(train_data.usable)} training and {len(eval_data.usable)} validation samples")
    return RunParts(model, processor, args, train_data, eval_data, features)


def build_trainer(config: RunConfig) -> SpeechVerseTrainer:
    """Everything that a mistake in the configuration can break; raises what [`prepare_run`] does."""
    model, processor, args, train_data, eval_data, features = prepare_run(config)
    is_text = config.model.input_modality == "text"
    length = (lambda one: len(one.sample.transcript)) if is_text else (lambda one: one.seconds)
    eval_samples = sorted(eval_data.usable, key=length)  # of like length, side by side
    datasets = train_data.mixture_datasets()
    stages = config.stages
    if stages is None:
        enough = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        tasks = [one.tasks for one in datasets if one.weight > 0 and len(one.samples) >= enough]
        # What starts from a checkpoint that has heard has been through the stages before, unless its projector alone was
        # aligned; and without a projector there is one stage.
        heard = has_heard(config.model.adapter)
        aligned = heard and not lora_has_learned(model)
        tasks = [] if is_text or (heard and not aligned) else tasks
        stages = default_stages(tasks, args.num_train_epochs, args.max_steps_given, aligned=aligned)

    def dataset(samples):
        if is_text:
            return TranscriptDataset(samples, processor, args.seed)
        return InstructionDataset(samples, processor, features, args.seed)

    return SpeechVerseTrainer(
        model=model,
        args=args,
        train_dataset=dataset(train_data.usable),
        eval_dataset=dataset(eval_samples) if eval_samples else None,
        data_collator=Collator(processor),
        processing_class=processor,
        stages=stages,
        mixture=Mixture(datasets, config.mixture),
    )


def train(trainer: SpeechVerseTrainer, config: RunConfig) -> None:
    """Runs to the end; leaves a checkpoint, `run.json`, pictures and a draft of the card in `output_dir`."""
    trainer.add_callback(LeaveResults(trainer, config.as_dict() | trainer.args.to_sanitized_dict()))
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(trainer.args))


def checkpoint_to_resume(args) -> str | None:
    """`true` stands for the last checkpoint of the output folder, if there is one; anything else is a path."""
    given = args.resume_from_checkpoint
    if given is None or str(given).lower() == "false":
        return None
    if str(given).lower() != "true":
        return given
    return get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None


def main():
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = parse_run_config(sys.argv[1:])
        trainer = build_trainer(config)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    try:
        train(trainer, config)
    except (CheckpointWriteError, TrainingDiverged) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
