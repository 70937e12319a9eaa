"""What a run is made of: a YAML file, overridden on the command line. Unknown keys are errors."""

import argparse
import dataclasses
import difflib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from huggingface_hub import constants
from transformers import HfArgumentParser, TrainingArguments

from ..modeling_speechverse.configuration_speechverse import INPUT_MODALITIES
from ..processing.tasks_speechverse import TaskBank
from .curriculum import Plateau, Stage
from .data.manifest import ManifestSource, expand_variables
from .data.run_sources import LICENCES, CorpusSource, keep_only, leave_out, parse_source
from .data.strict import NumberLoader, build
from .mixture import MixtureArguments


logger = logging.getLogger(__name__)

TASKS_FOLDER = Path(__file__).parent.parent / "processing" / "tasks"
# The Trainer would send the whole output folder: private paths, the host's name, and the Hub token within a pickle.
REFUSED_PUSH = "push_to_hub is not supported: publish a finished run with speechverse-publish."

# The Trainer's arguments that would contradict how a run is planned here.
UNSUPPORTED = {
    "auto_find_batch_size": "all steps are planned before the first one",
    "batch_eval_metrics": "losses by task need the whole evaluation",
    "dataloader_drop_last": "no step is cut short",
    "ignore_data_skip": "what was taken already is skipped without being read",
    "label_smoothing_factor": "the loss is made by the model",
    "restore_callback_states_from_checkpoint": "the callbacks restore themselves",
}


@dataclass
class ModelArguments:
    """Which bases are joined, and how; see `SpeechVerseForConditionalGeneration.from_foundations`.

    Args:
        audio_base (`str`): Hub id, folder, or name in `$SPEECHVERSE_FOUNDATIONS` of the speech encoder.
        text_base (`str`): the same for the LLM.
        layer_mix (`str`, *optional*, defaults to `"last"`): `last` or `learned`.
        adapter (`str`, *optional*): checkpoint folder or Hub id whose projector and LoRA are started from; all else has to be as
            it was for it. One that learned from text alone gives its LoRA. By default they start from scratch.
        lora_rank (`int`, *optional*, defaults to 16): 0 leaves LoRA out.
        lora_alpha (`int`, *optional*, defaults to twice the rank): LoRA's scale is alpha / rank.
        lora_dropout (`float`, *optional*, defaults to 0): dropout before LoRA's A.
        lora_target_modules (`list[str]`, *optional*): by default the query and value projections; several names, or
            `all-linear`.
        projector_kernel_sizes, projector_strides (`list[int]`, *optional*): of the downsampler's blocks.
        audio_revision, text_revision (`str`, *optional*): branch, tag or commit of a base on the Hub.
        freeze_audio_tower (`bool`, *optional*, defaults to `True`): `False` trains the encoder too.
        input_modality (`str`, *optional*, defaults to `"audio"`): `text` trains LoRA on transcripts in place of recordings,
            which are not opened: the LLM of the paper's cascades. See [`~data.transcripts.ask_about_text`].
        dtype (`str`, *optional*, defaults to `"auto"`): of the frozen bases, such as `bfloat16`.
    """

    audio_base: str | None = None
    text_base: str | None = None
    adapter: str | None = None
    layer_mix: str = "last"
    lora_rank: int = 16
    lora_alpha: int | None = None
    lora_dropout: float = 0.0
    lora_target_modules: list[str] | None = None
    projector_kernel_sizes: list[int] | None = None
    projector_strides: list[int] | None = None
    audio_revision: str | None = None
    text_revision: str | None = None
    freeze_audio_tower: bool = True
    input_modality: str = "audio"
    dtype: str = "auto"

    def __post_init__(self):
        for name in ("audio_base", "text_base"):
            if getattr(self, name) is None:
                raise ValueError(f"The configuration lacks {name}: a Hub id, a folder, or a built foundation's name.")
        if self.input_modality not in INPUT_MODALITIES:
            raise ValueError(
                f"key input_modality is {self.input_modality!r}; it is one of {', '.join(INPUT_MODALITIES)}."
            )
        if self.input_modality == "text" and not (self.lora_rank and self.freeze_audio_tower):
            raise ValueError(
                "input_modality: text trains LoRA and nothing else: lora_rank is above 0, freeze_audio_tower true."
            )


@dataclass
class SpeechVerseTrainingArguments(TrainingArguments):
    """transformers' own arguments, and what SpeechVerse adds to them.

    Args:
        lora_learning_rate (`float`, *optional*): peak learning rate of LoRA; by default `learning_rate`, which is the
            projector's.
        audio_tower_learning_rate (`float`, *optional*): peak learning rate of the encoder; needed where
            `freeze_audio_tower` is false. A pretrained encoder wants far less than the projector.
        effective_batch_size (`int`, *optional*): samples of an optimizer step on all ranks together; in place of
            `gradient_accumulation_steps`, which follows from it.
        cache_features (`bool`, *optional*, defaults to `False`): encode every recording once, before training, and keep
            what the encoder gives on disk, for this run and for later ones.
        feature_cache_dir (`str`, *optional*, defaults to `speechverse/features` in `$HF_HOME`): where; an hour of speech
            takes 360 MB at 50 Hz and a width of 1,024. `$NAME` stands for an environment variable. Runs may share it, and
            the ranks of a run have to; between runs it may be deleted.
        gradient_guard_factor (`float`, *optional*, defaults to 10): an update is skipped whose gradient norm is above
            this many times the median of the latest, and so many times `max_grad_norm`; see [`GradientGuard`]. 0 skips
            only what is not finite.
    """

    lora_learning_rate: float | None = None
    audio_tower_learning_rate: float | None = None
    effective_batch_size: int | None = None
    cache_features: bool = False
    feature_cache_dir: str | None = None
    gradient_guard_factor: float = 10.0
    # What a run should do unless told otherwise.
    output_dir: str = "runs/speechverse"
    learning_rate: float = 1e-3
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 100
    logging_steps: float = 10
    save_total_limit: int | None = 2
    report_to: str | list[str] = field(default_factory=lambda: ["tensorboard"])
    remove_unused_columns: bool = False

    @property
    def max_steps_given(self) -> int | None:
        """`max_steps`, if it is set."""
        return self.max_steps if self.max_steps > 0 else None

    def __post_init__(self):
        if self.push_to_hub:
            raise ValueError(REFUSED_PUSH)
        for name, reason in UNSUPPORTED.items():
            if getattr(self, name):
                raise ValueError(f"{name} is not supported: {reason}.")
        if self.train_sampling_strategy != "random":
            raise ValueError("train_sampling_strategy is not supported: the mixture draws the samples, see README.")
        if self.effective_batch_size is not None:
            self.gradient_accumulation_steps = self._accumulation_steps()
        if self.gradient_guard_factor != 0 and not self.gradient_guard_factor > 1:
            raise ValueError(
                f"gradient_guard_factor is {self.gradient_guard_factor}; it is above 1, or 0 for no bound."
            )
        self.use_cpu = self.use_cpu or torch.accelerator.current_accelerator(check_available=True) is None
        super().__post_init__()

    @property
    def feature_cache_folder(self) -> Path:
        """`feature_cache_dir`, or its default.

        Raises:
            ValueError: if it has an environment variable that is not set.
        """
        if self.feature_cache_dir is None:
            return Path(constants.HF_HOME) / "speechverse" / "features"
        return Path(expand_variables(self.feature_cache_dir))

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What the forward pass computes in, where it runs under autocast."""
        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else None

    def _accumulation_steps(self) -> int:
        ranks = int(
            os.environ.get("WORLD_SIZE", 1)
        )  # every launcher sets it, and DeepSpeed wants to know before we are told
        at_once = self.per_device_train_batch_size * ranks
        if self.effective_batch_size % at_once:
            raise ValueError(
                f"effective_batch_size is {self.effective_batch_size}, no multiple of per_device_train_batch_size "
                f"{self.per_device_train_batch_size} times {ranks} ranks."
            )
        return self.effective_batch_size // at_once


@dataclass(frozen=True)
class RunConfig:
    """A parsed configuration. The training arguments are made last, by [`RunConfig.training_arguments`].

    Args:
        model ([`ModelArguments`]): the bases.
        train_data, eval_data, test_data (`list[ManifestSource | CorpusSource]`): what is learned from, what the run looks at
            while it learns, and what it never sees.
        tasks ([`TaskBank`]): those of the configuration's `task_files`, and the shipped ones.
        only_tasks (`list[str]`, *optional*): ids of the tasks that are learned; by default all that train_data serve.
        stages (`list[Stage]`, *optional*): the curriculum; `None`: see [`default_stages`].
        mixture ([`MixtureArguments`]): how the datasets share the draws.
        left_out (`list[str]`): the corpora that `licences: permissive` took out of them, with their licences.
        namespace (`argparse.Namespace`): the values of the training arguments.
    """

    model: ModelArguments
    train_data: list[ManifestSource | CorpusSource]
    eval_data: list[ManifestSource | CorpusSource]
    test_data: list[ManifestSource | CorpusSource]
    tasks: TaskBank
    only_tasks: list[str] | None
    stages: list[Stage] | None
    mixture: MixtureArguments
    left_out: list[str]
    namespace: argparse.Namespace

    def as_dict(self) -> dict:
        """All of it but the tasks and the training arguments, as `run.json` keeps it."""
        data = {name: getattr(self, name) for name in ("train_data", "eval_data", "test_data")}
        return {
            **dataclasses.asdict(self.model),
            **{name: [dataclasses.asdict(source) for source in sources] for name, sources in data.items()},
            "curriculum": None if self.stages is None else [dataclasses.asdict(stage) for stage in self.stages],
            "mixture": dataclasses.asdict(self.mixture),
            "only_tasks": self.only_tasks,
            "left_out": self.left_out,
        }

    def training_arguments(self) -> SpeechVerseTrainingArguments:
        """Makes the training arguments: after the model, since DeepSpeed ZeRO-3 takes hold of what is built later."""
        names = [f.name for f in dataclasses.fields(SpeechVerseTrainingArguments) if f.init]
        return SpeechVerseTrainingArguments(**{name: getattr(self.namespace, name) for name in names})


def all_tasks(own: TaskBank, others: TaskBank | None = None) -> TaskBank:
    """Tasks of one's own, and others (by default the shipped ones): one's own go before those of the same name."""
    taken = {name for task in own for name in (task.id, task.name)}
    others = TaskBank.from_yaml(TASKS_FOLDER) if others is None else others
    return TaskBank([*own, *(task for task in others if not taken & {task.id, task.name})])


def parse_run_config(argv: list[str]) -> RunConfig:
    """Reads `CONFIG.yaml [--key value ...]`.

    Raises:
        FileNotFoundError: if the configuration, or a corpus or a task file that it names, is not there.
        ValueError: if it has an unknown key or `push_to_hub`, or lacks a key that is needed, or a task file is wrong.
    """
    parser = HfArgumentParser([ModelArguments, SpeechVerseTrainingArguments])
    parser.add_argument("config", type=Path, help="the run's YAML file")
    parser.add_argument("--licences", default="all", help="permissive leaves out the corpora for non-commercial use")
    parser.add_argument("--only_tasks", nargs="+", help="learn and validate these alone; the curriculum is left out")
    known = {action.dest for action in parser._actions} - {"help", "config"}
    file = parser.parse_known_args(argv)[0].config
    if not file.is_file():
        raise FileNotFoundError(f"Configuration {file} is not there.")
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), NumberLoader) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds {type(values).__name__}; a configuration is a mapping of keys to values.")
    data = {name: values.pop(name, []) for name in ("train_data", "eval_data", "test_data")}
    task_files = values.pop("task_files", [])
    stages, mixture = values.pop("curriculum", None), values.pop("mixture", {})
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known | data.keys() | {"task_files"}, n=1)
            raise ValueError(f"{file}: unknown key {key!r}{f'; did you mean {close[0]!r}?' if close else '.'}")
    if not data["train_data"]:
        raise ValueError(f"{file}: key train_data is missing or empty.")
    for key in values:
        if key.endswith("_strategy") and values[key] is False:
            values[key] = "no"  # which YAML reads as false
    parser.set_defaults(**values)
    namespace = parser.parse_args(argv)
    if namespace.push_to_hub:  # said now, and not when the data have been read and the model is built
        raise ValueError(REFUSED_PUSH)
    if namespace.licences not in LICENCES:
        raise ValueError(f"{file}: key licences is {namespace.licences!r}; it is one of {', '.join(LICENCES)}.")
    if namespace.input_modality == "text" and namespace.cache_features:
        raise ValueError(f"{file}: cache_features is about recordings, and input_modality: text opens none.")
    if not isinstance(task_files, list) or not all(isinstance(path, str) for path in task_files):
        raise ValueError(f"{file}: key task_files is {task_files!r}; it is a list of YAML files and folders of them.")
    tasks = all_tasks(TaskBank.from_yaml(*map(expand_variables, task_files)))
    sources, left_out = {}, []
    for name, entries in data.items():
        sources[name], names = leave_out(_sources(entries, f"{file}, {name}"), namespace.licences)
        left_out += names
    if not sources["train_data"]:
        raise ValueError(
            f"{file}: licences: permissive leaves nothing of train_data; it took out {', '.join(left_out)}."
        )
    stages = None if stages is None else parse_stages(stages, f"{file}, curriculum")
    only_tasks = namespace.only_tasks
    if only_tasks is not None:
        only_tasks = _task_ids(only_tasks, tasks, f"{file}: key only_tasks")
        sources = {name: keep_only(entries, only_tasks) for name, entries in sources.items()}
        if not sources["train_data"]:
            raise ValueError(f"{file}: key only_tasks: train_data serve nothing of {', '.join(only_tasks)}.")
        if stages is not None:
            logger.info("only_tasks: the curriculum, which is of all tasks, is left out.")
        stages = None
    model_names = [f.name for f in dataclasses.fields(ModelArguments)]
    return RunConfig(
        model=ModelArguments(**{name: getattr(namespace, name) for name in model_names}),
        **sources,
        tasks=tasks,
        only_tasks=only_tasks,
        stages=stages,
        mixture=build(MixtureArguments, mixture, f"{file}, mixture"),
        left_out=list(dict.fromkeys(left_out)),
        namespace=namespace,
    )


def parse_stages(entries, where: str) -> list[Stage]:
    """The stages of a configuration's `curriculum`.

    Raises:
        ValueError: if it is no list, or a stage has a mistake.
    """
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{where} is {entries!r}; it is a list of stages.")
    stages = []
    for number, entry in enumerate(entries):
        place = f"{where}[{number}]"
        if isinstance(entry, dict) and "until" in entry:
            entry = entry | {"until": build(Plateau, entry["until"], f"{place}.until")}
        stages.append(build(Stage, entry, place))
    return stages


def _task_ids(names: list[str], tasks: TaskBank, where: str) -> list[str]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where} is {names!r}; it is a list of tasks.")
    if unknown := [name for name in names if name not in tasks]:
        raise ValueError(f"{where} names {unknown[0]!r}; known are {', '.join(task.id for task in tasks)}.")
    return [tasks[name].id for name in names]


def _sources(entries: list[dict], where: str) -> list[ManifestSource | CorpusSource]:
    if not isinstance(entries, list):
        raise ValueError(f"{where} is {type(entries).__name__}, not a list of sources.")
    return [parse_source(entry, f"{where}[{index}]") for index, entry in enumerate(entries)]
