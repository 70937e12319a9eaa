"""Aligns a projector with its LLM's token embeddings, before the LLM learns to listen.

    python training/align_projector.py CONFIG.yaml --alignment_epochs 12
    accelerate launch training/train.py CONFIG.yaml --adapter OUTPUT_DIR/aligned

CONFIG.yaml is the configuration of the training that follows: its bases, and of its data the transcripts (task `asr`). A
recording's frames are brought to where the LLM has the tokens that are spoken: the cosine of a frame and of a token's
embedding, times a learned scale, is the token's logit, and connectionist temporal classification (Graves et al., 2006) finds
which frame says which token. With `--label_tasks er asc`, what a whole recording is of is brought there too: the mean of its
frames to the words of its label. The LLM does not run, so a step costs a small part of one that goes through it. The paper has no
such stage: its first one teaches the projector through the LLM.

Where the configuration names an `adapter` that learned from text alone (`input_modality: text`), what is aligned has its LoRA:
an LLM that knows the tasks, and now hears.

`--resume_from_checkpoint true` goes on from the last checkpoint in OUTPUT_DIR/aligned. Where the configuration names no
`curriculum`, training from there begins with the second of the paper's stages, or with the last where LoRA has learned before.
"""

import logging
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import EvalPrediction, HfArgumentParser, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.utils import SAFE_WEIGHTS_NAME

from speechverse.processing.processing_speechverse import AUDIO_INPUTS
from speechverse.training.arguments import parse_run_config
from speechverse.training.checkpoint_writing import AtomicCheckpointsMixin, CheckpointWriteError
from speechverse.training.data.dataset import InstructionDataset
from speechverse.training.data.filters import CheckedSample
from speechverse.training.data.report import REPORT_NAME
from speechverse.training.data.sample import Sample
from speechverse.training.train import RunParts, checkpoint_to_resume, prepare_run


logger = logging.getLogger(__name__)

TRANSCRIPTS = "asr"  # the task whose answers are what is spoken
FOLDER = "aligned"  # in the run's
BLANK = 0  # the class of a frame that says no token
FIRST_SCALE = 30.0  # of the cosines; it is learned from there
NUM_SAMPLED = 2_048  # classes that a step's frames are told from, beside those that it teaches
NUM_SPANS = 2


@dataclass
class AlignmentArguments:
    """How long and how fast the projector is aligned. The rest is taken from the run's configuration.

    Args:
        alignment_epochs (`float`, *optional*, defaults to 12): passes over the transcripts.
        alignment_batch_size (`int`, *optional*, defaults to 32): recordings in a step of a device.
        alignment_learning_rate (`float`, *optional*, defaults to 2e-3): its peak, after 5 % of the steps; it then falls
            as a cosine.
        masked_share (`float`, *optional*, defaults to 0.2): share of a recording that two spans of zeros may take at most,
            drawn anew in every step (SpecAugment's time masks; Park et al., 2019). Else a corpus of few voices is learned
            by heart.
        label_tasks (`list[str]`, *optional*): tasks whose answers are labels of a whole recording, such as emotions, that
            are not in its words. By default words alone are aligned.
    """

    alignment_epochs: float = 12.0
    alignment_batch_size: int = 32
    alignment_learning_rate: float = 2e-3
    masked_share: float = 0.2
    label_tasks: list[str] = field(default_factory=list)

    def __post_init__(self):
        for name in ("alignment_epochs", "alignment_batch_size", "alignment_learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is above 0.")
        if not 0 <= self.masked_share < 1:
            raise ValueError(f"masked_share is {self.masked_share}; it is at least 0 and below 1.")


class ProjectorAligner(nn.Module):
    """A model whose projector says tokens, and the labels of recordings.

    Args:
        model ([`SpeechVerseForConditionalGeneration`]): only its projector learns.
        vocabulary (`list[int]`): the LLM's tokens that transcripts consist of.
        labels (`list[RecordingLabel]`): the labels that recordings have.
        masked_share (`float`): see [`AlignmentArguments`].
    """

    accepts_loss_kwargs = False  # the Trainer takes `**audio` for room for `num_items_in_batch`

    def __init__(self, model, vocabulary: list[int], labels: list["RecordingLabel"], masked_share: float):
        super().__init__()
        self.model = model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("multi_modal_projector."))
        weight = model.get_input_embeddings().weight.detach().float()
        embeddings = weight[vocabulary]
        self.register_buffer("directions", F.normalize(embeddings, dim=-1), persistent=False)
        self.blank = nn.Parameter(embeddings.mean(0))
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        self.masked_share = masked_share
        # By token id, its class; 0 where it is in no transcript.
        classes = torch.zeros(len(weight), dtype=torch.long)
        classes[vocabulary] = torch.arange(1, len(vocabulary) + 1)
        self.register_buffer("classes", classes, persistent=False)
        if labels:
            of_labels = torch.stack([weight[list(label.tokens)].mean(0) for label in labels])
            self.register_buffer("label_directions", F.normalize(of_labels, dim=-1), persistent=False)
            tasks = sorted({label.task for label in labels})
            of_tasks = torch.tensor([tasks.index(label.task) for label in labels])
            self.register_buffer("task_of_label", of_tasks, persistent=False)
            self.label_bias = nn.Parameter(torch.zeros(len(labels)))
            self.log_label_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def forward(
        self, tokens: torch.LongTensor, label: torch.LongTensor | None = None, **audio
    ) -> dict[str, torch.Tensor]:
        """The loss, the classes that the frames say, and the labels that the recordings have.

        Args:
            tokens (`torch.LongTensor` of shape `(batch, tokens)`): of the transcripts, padded with -100; nothing else where a
                recording has none.
            label (`torch.LongTensor` of shape `(batch,)`, *optional*): the index of a recording's label, -100 where it has none.
            **audio: the recordings, see [`~SpeechVerseModel.get_audio_features`].

        Returns:
            `dict`: `loss`, nats: the mean over the batch's transcripts of the negative log-likelihood by token, and the mean
            cross entropy over its labels, added up, so that a label among many transcripts weighs more; in evaluation also `paths`, int64 of shape `(batch, projected frames)`, -100 beyond a
            recording's end, and, where there are labels, `labels`, int64 of shape `(batch,)`, those that are likeliest.
        """
        if self.training:
            audio = self._mask(audio)
        projected = self.model.get_audio_features(**audio, return_dict=True)
        frames, real = projected.pooler_output.to(self.directions.dtype), projected.attention_mask
        has_words = (tokens != -100).any(-1)
        # It starts from the frames so that a batch of neither has a gradient, too.
        found = {"loss": frames.sum() * 0.0, "paths": torch.full(real.shape, -100, device=real.device)}
        with torch.autocast(tokens.device.type, enabled=False):  # a logit of 30 is known to 0.1 in bf16
            if has_words.any():
                loss, paths = self._align_words(frames[has_words], real[has_words], tokens[has_words])
                found["loss"] = found["loss"] + loss
                if not self.training:
                    found["paths"][has_words] = paths
            if label is not None:
                loss, found["labels"] = self._align_labels(frames, real, label)
                found["loss"] = found["loss"] + loss
        return {"loss": found["loss"]} if self.training else found

    def _align_words(self, frames, real, tokens) -> tuple[torch.Tensor, torch.LongTensor | None]:
        """The loss of transcripts and, in evaluation, what each frame says."""
        lengths = (tokens != -100).sum(-1)
        classes = self.classes[tokens.clamp(min=0)]
        drawn = self._draw_classes(classes)
        table = torch.cat([F.normalize(self.blank, dim=0)[None], self.directions[drawn - 1]])
        logits = F.normalize(frames[real], dim=-1) @ table.T * self.log_scale.exp()
        # CTC looks at the blank and at the classes that are spoken; given all, it would take most of a step. The others are
        # one class to it: the gradient that PyTorch gives it is right for probabilities that add up to 1, and for no other.
        columns = F.pad(torch.searchsorted(drawn, classes) + 1, (1, 0)).masked_fill(
            F.pad(tokens == -100, (1, 0)), BLANK
        )
        spoken, targets = columns.unique(return_inverse=True)
        # Not minus infinity, of which a gradient is no number where every class is spoken.
        others = logits.index_fill(-1, spoken, torch.finfo(logits.dtype).min).logsumexp(-1, keepdim=True)
        num_others = 1 + len(self.directions) - len(spoken)
        others = others + math.log(
            max(1, num_others) / max(1, len(table) - len(spoken))
        )  # those not drawn weigh as much
        log_probabilities = torch.cat([logits[:, spoken], others], dim=-1).log_softmax(-1)
        padded = log_probabilities.new_zeros(*real.shape, len(spoken) + 1).masked_scatter(
            real[..., None], log_probabilities
        )
        loss = F.ctc_loss(
            padded.transpose(0, 1),
            targets[:, 1:],
            real.sum(-1),
            lengths,
            blank=BLANK,  # the least column, so the first of those here too
            zero_infinity=True,  # validation has recordings with more tokens than frames
        )
        if self.training:
            return loss, None
        said = F.pad(drawn, (1, 0))[logits.argmax(-1)]
        return loss, torch.full(real.shape, -100, device=real.device).masked_scatter(real, said)

    def _align_labels(self, frames, real, label) -> tuple[torch.Tensor, torch.LongTensor]:
        """The loss of labels, and for each recording the likeliest of its task's."""
        mean = (frames * real[..., None]).sum(1) / real.sum(-1, keepdim=True)
        logits = F.normalize(mean, dim=-1) @ self.label_directions.T * self.log_label_scale.exp() + self.label_bias
        labelled = label != -100
        others = self.task_of_label != self.task_of_label[label.clamp(min=0)][:, None]
        logits = logits.masked_fill(others, torch.finfo(logits.dtype).min)
        losses = F.cross_entropy(logits, label, reduction="none")  # 0 where there is no label
        return losses.sum() / labelled.sum().clamp(min=1), logits.argmax(-1).masked_fill(~labelled, -100)

    def _draw_classes(self, classes: torch.LongTensor) -> torch.LongTensor:
        """The classes that frames are told from, in order: in evaluation all, in training those that are spoken and some
        others (sampled softmax; Jean et al., 2015), since all of a large vocabulary would take most of a step."""
        num_classes = len(self.directions)
        if not self.training or num_classes <= NUM_SAMPLED:
            return torch.arange(1, num_classes + 1, device=classes.device)
        sampled = torch.randint(1, num_classes + 1, (NUM_SAMPLED,), device=classes.device)
        return torch.cat([classes[classes != BLANK], sampled]).unique()

    def _mask(self, audio: dict) -> dict:
        """The recordings with [`NUM_SPANS`] spans of zeros in each. One may run beyond the end, and is shorter then."""
        name = next(name for name in AUDIO_INPUTS if name in audio)
        values = audio[name]
        axis = 2 if name == "input_features" else 1
        positions = torch.arange(values.shape[axis], device=values.device)
        lengths = audio[AUDIO_INPUTS[name]].sum(-1, keepdim=True)  # not the batch's: a short one would be masked whole
        masked = torch.zeros(len(values), len(positions), dtype=torch.bool, device=values.device)
        for _ in range(NUM_SPANS):
            starts, spans = torch.rand(2, len(values), 1, device=values.device)
            starts, spans = starts * lengths, spans * lengths * self.masked_share / NUM_SPANS
            masked |= (positions >= starts) & (positions < starts + spans)
        shape = [len(values)] + [1] * (values.ndim - 1)
        shape[axis] = len(positions)
        return audio | {name: values.masked_fill(masked.reshape(shape), 0.0)}


@dataclass(frozen=True, order=True)
class RecordingLabel:
    """A label of whole recordings.

    Args:
        task (`str`): the task that it answers, or the view of one.
        text (`str`): the label.
        tokens (`tuple[int, ...]`): the LLM's, of its words.
    """

    task: str
    text: str
    tokens: tuple[int, ...]


class AlignmentCollator:
    """Pads recordings and the tokens of what is said in them, and puts their labels beside them.

    Args:
        processor ([`SpeechVerseProcessor`]): the model's.
    """

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, examples: list[dict]) -> dict:
        # One column at least: accelerate gathers no tensor without an element.
        tokens = [torch.tensor(example.pop("tokens") or [-100]) for example in examples]
        labels = [example.pop("label") for example in examples if "label" in example]
        batch = self.processor.pad(examples)
        kept = {k: v for k, v in batch.items() if k not in ("input_ids", "attention_mask", "labels")}
        kept["tokens"] = nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-100)
        return kept | ({"label": torch.tensor(labels)} if labels else {})


class AlignmentDataset(InstructionDataset):
    """Recordings with the `tokens` of their transcript, none where it is their label that is aligned, and, where there are
    labels at all, the index of their `label`, -100 for a transcript; see [`InstructionDataset`].

    Args:
        labels (`list[RecordingLabel]`): all that there are.
        checked, processor, features, seed: as in [`InstructionDataset`].
    """

    def __init__(self, checked: list[CheckedSample], processor, labels, features=None, seed: int = 0):
        super().__init__(checked, processor, features, seed)
        self.labels = {(label.task, label.text): index for index, label in enumerate(labels)}

    def tokens(self, index: int) -> list[int]:
        """Of a transcript, without any that a tokenizer adds."""
        sample = self.sample(index)
        return tokens_of(sample.target, self.processor) if is_transcript(sample) else []

    def label(self, index: int) -> int:
        """Its index, -100 where a sample is a transcript."""
        sample = self.sample(index)
        return self.labels.get((sample.name, sample.target), -100)

    def __getitem__(self, index: int) -> dict:
        example = super().__getitem__(index)
        example.pop("sample_index")
        example["tokens"] = self.tokens(index)
        return example | ({"label": self.label(index)} if self.labels else {})


class LengthGroupedEpochs(LengthGroupedSampler):
    """Recordings of like length side by side, in an order that is a function of the seed and the epoch: a resumed run has it
    too."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.generator = torch.Generator().manual_seed(self.seed + epoch)


class AlignmentTrainer(AtomicCheckpointsMixin, Trainer):
    """transformers' Trainer; its checkpoints hold what learns, and no base."""

    def _get_train_sampler(self, train_dataset=None):
        lengths = [one.audio_tokens for one in self.train_dataset.checked]
        return LengthGroupedEpochs(self.args.train_batch_size, lengths, self.args.seed)

    def _save(self, output_dir=None, state_dict=None):
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        learned = {name: p.detach().cpu().contiguous() for name, p in self._learned().items()}
        save_file(learned, folder / SAFE_WEIGHTS_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        file = Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME
        found, learned = load_file(file), self._learned()
        if other := sorted(
            {name for name in found.keys() | learned.keys() if _shape(found, name) != _shape(learned, name)}
        ):
            raise ValueError(f"{file} is no checkpoint of this alignment: it has others of {', '.join(other)}.")
        self.model.load_state_dict(found, strict=False)

    def _learned(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}


def _shape(tensors: dict, name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def tokens_of(text: str, processor) -> list[int]:
    """The LLM's, without any that its tokenizer adds."""
    return processor.tokenizer(text, add_special_tokens=False).input_ids


def is_transcript(sample: Sample) -> bool:
    """Whether a sample's answer is what is spoken."""
    return sample.tasks == (TRANSCRIPTS,)


def labelled(checked: list[CheckedSample], tasks: list[str]) -> list[CheckedSample]:
    """The samples of these tasks, or of these views of tasks, as configurations call them."""
    return [one for one in checked if len(one.sample.tasks) == 1 and one.sample.name in tasks]


def labels_of(
    train: list[CheckedSample], validation: list[CheckedSample], tasks: list[str], processor
) -> list[RecordingLabel]:
    """The labels that samples have of these tasks, in order.

    Raises:
        ValueError: if there are not two at least of each task in training, or a task's answers are no labels of a recording.
    """
    found = set()
    for task in dict.fromkeys(tasks):
        learned = {one.sample.target for one in labelled(train, [task])}
        if len(learned) < 2:
            raise ValueError(
                f"label_tasks names {task!r}, of which train_data have {len(learned)} labels, and two are least: add data of it "
                "to train_data, or leave it out."
            )
        for sample in (one.sample for one in labelled(train + validation, [task])):
            if sample.values or sample.target not in (sample.labels or processor.tasks.find(sample.task).labels):
                raise ValueError(
                    f"label_tasks names {task!r}, but the answer {sample.target!r} to it is no label of a whole recording: name "
                    "tasks such as er."
                )
            found.add(RecordingLabel(task, sample.target, tuple(tokens_of(sample.target, processor))))
    return sorted(found)


def fits(one: CheckedSample, tokens: list[int]) -> bool:
    """Whether a recording has a frame for each of its tokens, and for the blank between two of the same."""
    repeats = sum(token == before for token, before in zip(tokens[1:], tokens, strict=False))
    return len(tokens) + repeats <= one.audio_tokens


def word_error_rate(paths: np.ndarray, tokens: np.ndarray, aligner: ProjectorAligner, tokenizer) -> dict[str, float]:
    """Of the transcripts that the frames spell, without regard to case, against those that were spoken; `wer` is absent where
    there are none.

    Args:
        paths, tokens: see [`ProjectorAligner.forward`].
    """
    vocabulary = {index: token for token, index in enumerate(aligner.classes.tolist()) if index != BLANK}
    said, spoken = [], []
    for path, right in zip(paths, tokens, strict=True):
        if (right == -100).all():
            continue
        classes = [
            c for c, before in zip(path, [BLANK, *path], strict=False) if c != before and c not in (BLANK, -100)
        ]
        said.append(tokenizer.decode([vocabulary[c] for c in classes]).lower())
        spoken.append(tokenizer.decode(right[right != -100]).lower())
    return {"wer": jiwer.wer(spoken, said)} if spoken else {}


def label_accuracies(likeliest: np.ndarray, right: np.ndarray, labels: list[RecordingLabel]) -> dict[str, float]:
    """Of each task, the share of its recordings whose likeliest label is theirs.

    Args:
        likeliest, right: indices into the labels, -100 where a recording has none.
        labels (`list[RecordingLabel]`): all that there are.
    """
    tasks = np.array([labels[index].task if index != -100 else "" for index in right])
    return {
        f"{task}_accuracy": float((likeliest == right)[tasks == task].mean()) for task in sorted(set(tasks) - {""})
    }


def build_trainer(parts: RunParts, arguments: AlignmentArguments) -> AlignmentTrainer:
    """The trainer of a run's projector.

    Raises:
        ValueError: if there is no transcript to learn from, or no recording is listened to.
    """
    if parts.model.config.input_modality == "text":
        raise ValueError("input_modality: text has no use for a projector: there is nothing to align.")
    processor, tasks = parts.processor, arguments.label_tasks
    train, validation = parts.train_data.usable, parts.eval_data.usable
    labels = labels_of(train, validation, tasks, processor)
    transcripts = [one for one in train if is_transcript(one.sample)]
    if not transcripts:
        raise ValueError(
            f"train_data have no transcripts (task {TRANSCRIPTS}), or only_tasks leaves them out: there is nothing to align with."
        )
    alignable = [one for one in transcripts if fits(one, tokens_of(one.sample.target, processor))]
    if not alignable:
        raise ValueError("Every transcript of train_data has more tokens than its recording has projected frames.")
    if len(alignable) < len(transcripts):
        logger.warning(
            f"{len(transcripts) - len(alignable)} of {len(transcripts)} training transcripts are left out: they have more "
            "tokens than their recordings have projected frames."
        )
    alignable += labelled(train, tasks)
    validation = [one for one in validation if is_transcript(one.sample)] + labelled(validation, tasks)
    datasets = [
        AlignmentDataset(data, processor, labels, parts.features, parts.args.seed) for data in (alignable, validation)
    ]
    vocabulary = sorted({token for data in datasets for index in range(len(data)) for token in data.tokens(index)})
    aligner = ProjectorAligner(parts.model, vocabulary, labels, arguments.masked_share)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        if not labels:
            return word_error_rate(prediction.predictions, prediction.label_ids, aligner, processor.tokenizer)
        (paths, likeliest), (tokens, right) = prediction.predictions, prediction.label_ids
        return word_error_rate(paths, tokens, aligner, processor.tokenizer) | label_accuracies(
            likeliest, right, labels
        )

    run = parts.args
    strategy = "epoch" if validation else "no"
    args = TrainingArguments(
        output_dir=str(Path(run.output_dir) / FOLDER),
        num_train_epochs=arguments.alignment_epochs,
        per_device_train_batch_size=arguments.alignment_batch_size,
        per_device_eval_batch_size=arguments.alignment_batch_size,
        learning_rate=arguments.alignment_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,  # of all
        max_grad_norm=1.0,
        bf16=run.bf16,
        fp16=run.fp16,
        use_cpu=run.use_cpu,
        seed=run.seed,
        eval_strategy=strategy,
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=run.logging_steps,
        report_to=run.report_to,
        remove_unused_columns=False,
        label_names=["tokens", "label"] if labels else ["tokens"],
        dataloader_num_workers=run.dataloader_num_workers,
        resume_from_checkpoint=run.resume_from_checkpoint,
    )
    return AlignmentTrainer(
        model=aligner,
        args=args,
        train_dataset=datasets[0],
        eval_dataset=datasets[1] if validation else None,
        data_collator=AlignmentCollator(processor),
        compute_metrics=compute_metrics,
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = HfArgumentParser(AlignmentArguments, allow_abbrev=False)
    try:
        arguments, rest = parser.parse_args_into_dataclasses(return_remaining_strings=True)
        config = parse_run_config(rest)
        parts = prepare_run(config)
        trainer = build_trainer(parts, arguments)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    try:
        trainer.train(resume_from_checkpoint=checkpoint_to_resume(trainer.args))
    except CheckpointWriteError as error:
        raise SystemExit(str(error)) from error
    if trainer.is_world_process_zero():
        folder = trainer.args.output_dir
        parts.model.save_pretrained(folder)
        parts.processor.save_pretrained(folder)
        # What starts from it inherits the licences of its data.
        shutil.copy(Path(parts.args.output_dir) / REPORT_NAME, folder)
        logger.info(f"The aligned projector is in {folder}: give it to training as --adapter {folder}")


if __name__ == "__main__":
    main()
