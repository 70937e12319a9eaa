"""Trains the baseline classifier of one task on the data of a SpeechVerse configuration.

    python evaluation/baselines/train_classifier.py training/configs/mini.yaml --task er --out runs/classifiers/er

It takes the samples of that task from `train_data` and `eval_data`, through the same filters, and the encoder's features from
the same cache: of the configuration's keys those of the encoder, the data, `bf16`, `fp16`, `seed` and `feature_cache_dir`
count. Others of transformers' TrainingArguments may be given: `--max_steps`, `--learning_rate`, `--eval_steps`,
`--resume_from_checkpoint true`, ... `--out` then holds the best model by UAR on `eval_data`, `run.json`, and the report on the
data.
"""

import argparse
import dataclasses
import logging
import shutil
from pathlib import Path

from transformers import HfArgumentParser, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from speechverse.evaluation.baselines.classifier import SpeechClassifier, SpeechClassifierConfig
from speechverse.evaluation.baselines.classifier_trainer import (
    ClassifierTrainer,
    ClassifierTrainingArguments,
    FeatureDataset,
)
from speechverse.evaluation.baselines.frozen_encoder import FrozenEncoder
from speechverse.modeling_speechverse.base_checkpoints import fingerprint
from speechverse.training.arguments import RunConfig, parse_run_config
from speechverse.training.checkpoint_writing import CheckpointWriteError
from speechverse.training.data.feature_cache import FeatureCache
from speechverse.training.data.filters import FilterRules
from speechverse.training.data.inspection import FactsCache
from speechverse.training.data.report import CACHE_NAME, write_report
from speechverse.training.data.run_sources import licences_of
from speechverse.training.data.sample import JointSample
from speechverse.training.run_data import CheckedData, LoadedData
from speechverse.training.run_record import describe_hardware, installed_versions, write_run_record
from speechverse.training.train import checkpoint_to_resume


logger = logging.getLogger(__name__)


def samples_of_task(config: RunConfig, name: str) -> tuple[LoadedData, LoadedData]:
    """The samples of a task in `train_data` and `eval_data`.

    Raises:
        FileNotFoundError, ImportError, ValueError: as [`LoadedData.of`]; also if there is no such task, or none of its
            samples.
    """
    if name not in config.tasks:
        raise ValueError(f"There is no task {name!r}; there are {', '.join(task.id for task in config.tasks)}.")
    task = config.tasks[name]
    if task.answer_type != "label":
        raise ValueError(f"Task {task.id} is answered by {task.answer_type}, and a classifier answers by a label.")
    parts = []
    for key in ("train_data", "eval_data"):
        loaded = LoadedData.of(getattr(config, key), config.tasks)
        places = [
            place
            for place, sample in enumerate(loaded.samples)
            if sample.task == task.id and not isinstance(sample, JointSample)
        ]
        if not places:
            raise ValueError(f"{key} has no sample of task {task.id}.")
        samples, entries = ([values[place] for place in places] for values in (loaded.samples, loaded.entries))
        names = {task.id, *(sample.view for sample in samples)}
        corpora = {sample.corpus for sample in samples}
        rejected = [  # a row that was no good for any task has none
            row for row in loaded.rejected if row["task"] in names or row["task"] is None and row["corpus"] in corpora
        ]
        parts.append(dataclasses.replace(loaded, samples=samples, entries=entries, rejected=rejected))
    return tuple(parts)


def classes_of(data: CheckedData, tasks, task: str) -> list[str]:
    """The classes to tell apart: those that any sample's instruction lists, in their order there."""
    listed = [one.sample.labels or tasks[task].labels for one in data.usable]
    return list(dict.fromkeys(label for labels in listed for label in labels))


def build_trainer(config: RunConfig, task: str, args: ClassifierTrainingArguments) -> ClassifierTrainer:
    """Reads the data, encodes the recordings that are not in the cache, and makes the classifier.

    Raises:
        FileNotFoundError, ImportError, OSError, ValueError: if the configuration, the data or the encoder is not as it has
            to be.
    """
    train_data, eval_data = samples_of_task(config, task)
    task = config.tasks[task].id
    run = config.training_arguments()  # says how the encoder's features are made
    if config.model.layer_mix != "last" or not config.model.freeze_audio_tower:
        raise ValueError("The classifier listens to a frozen encoder's last layer: layer_mix: last.")
    encoder = FrozenEncoder(config.model.audio_base, config.model.audio_revision, config.model.dtype)
    rules = FilterRules(encoder.processor_of_run(config.model), config.tasks)
    with args.main_process_first(desc="checking recordings"):
        cache = FactsCache(Path(args.output_dir) / CACHE_NAME)
        train_data, eval_data = train_data.check(rules, cache), eval_data.check(rules, cache)
    if args.process_index == 0:
        parts = {"train": train_data.report, "eval": eval_data.report}
        write_report(args.output_dir, parts, config.tasks, licences=licences_of(config.train_data + config.eval_data))
    encoder.to(args.device)
    features = FeatureCache(encoder, encoder.processor, run.feature_cache_folder, autocast_dtype=run.autocast_dtype)
    features.add(one.sample.audio for data in (train_data, eval_data) for one in data.usable)
    labels = classes_of(train_data, config.tasks, task)
    if unlearned := sorted({one.sample.target for one in eval_data.usable} - set(labels)):
        raise ValueError(f"eval_data has the classes {', '.join(unlearned)} of {task}, which train_data lacks.")
    set_seed(args.seed)
    model = SpeechClassifier(
        SpeechClassifierConfig(
            task=task,
            audio_base=encoder.config.audio_base,
            audio_dtype=str(encoder.audio_tower.dtype).removeprefix("torch."),
            autocast_dtype=run.autocast_dtype and str(run.autocast_dtype).removeprefix("torch."),
            input_size=encoder.config.audio_config.hidden_size,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
    )
    train, evaluated = (
        FeatureDataset([one.sample for one in data.usable], features, labels) for data in (train_data, eval_data)
    )
    logger.info(f"{len(train)} training and {len(evaluated)} validation samples of {', '.join(labels)}")
    return ClassifierTrainer(model=model, args=args, train_dataset=train, eval_dataset=evaluated)


def train(trainer: ClassifierTrainer, config: RunConfig) -> dict:
    """Runs to the end; leaves the best model, the encoder's fingerprint with it, and `run.json` in `output_dir`.

    Returns:
        what `run.json` holds.
    """
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(trainer.args))
    trainer.save_model()
    folder, state = Path(trainer.args.output_dir), trainer.state
    record = {
        "task": trainer.model.config.task,
        "labels": trainer.labels,
        "uar": state.best_metric,
        "best_step": state.best_global_step,
        "steps": state.global_step,
        "loss": "class-balanced cross entropy",
        "class_weights": trainer.class_weights.tolist(),
        "config": config.as_dict(),
        "training_arguments": trainer.args.to_sanitized_dict(),
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters()),
        "samples": {"train": len(trainer.train_dataset), "eval": len(trainer.eval_dataset)},
        "log": state.log_history,
    }
    if trainer.is_world_process_zero():
        record |= {"fingerprint": fingerprint(folder), "versions": installed_versions(), "seed": trainer.args.seed}
        record["hardware"] = describe_hardware(trainer.args)
        write_run_record(record, folder)
        for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):  # the best is what was saved just now
            shutil.rmtree(checkpoint)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, and run.json says more
    return record


def parse(argv: list[str] | None = None) -> tuple[RunConfig, str, ClassifierTrainingArguments]:
    """Reads `CONFIG.yaml --task TASK --out FOLDER [--key value ...]`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", help="the YAML file of a SpeechVerse run")
    parser.add_argument("--task", required=True, help="id or name of a task that is answered by a label")
    parser.add_argument("--out", required=True, help="folder of the classifier")
    parser.add_argument("--feature_cache_dir", help="in place of the configuration's")
    parser.add_argument("--seed", type=int, help="in place of the configuration's")
    options, rest = parser.parse_known_args(argv)
    overrides = [] if options.feature_cache_dir is None else ["--feature_cache_dir", options.feature_cache_dir]
    config = parse_run_config([options.config, *overrides])
    seed = config.namespace.seed if options.seed is None else options.seed
    fixed = ["--output_dir", options.out, "--seed", str(seed)]
    (args,) = HfArgumentParser(ClassifierTrainingArguments).parse_args_into_dataclasses([*rest, *fixed])
    return config, options.task, args


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config, task, args = parse()
        trainer = build_trainer(config, task, args)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    try:
        record = train(trainer, config)
    except CheckpointWriteError as error:
        raise SystemExit(str(error)) from error
    print(f"{record['task']}: UAR {record['uar']:.1%} on eval_data in step {record['best_step']} of {record['steps']}")


if __name__ == "__main__":
    main()
