"""Aligns a projector with its LLM's token embeddings, before the LLM learns to listen.

    python training/align_projector.py CONFIG.yaml --alignment_epochs 12
    accelerate launch training/train.py CONFIG.yaml --adapter OUTPUT_DIR/aligned

CONFIG.yaml is the configuration of the training that follows: its bases, and of its data the transcripts (task `asr`). A recording's
frames are brought to where the LLM has the tokens that are spoken: the cosine of a frame and of a token's embedding, times a learned
scale, is the token's logit, and connectionist temporal classification (Graves et al., 2006) finds which frame says which token. The
LLM does not run, so a step costs a small part of one that goes through it. The paper has no such stage: its first one teaches the
projector through the LLM.
"""

import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import jiwer
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import EvalPrediction, HfArgumentParser, Trainer, TrainingArguments
from transformers.utils import SAFE_WEIGHTS_NAME

from speechverse.training.arguments import parse_run_config
from speechverse.training.data.dataset import InstructionDataset
from speechverse.training.data.filters import CheckedSample
from speechverse.training.train import RunParts, prepare_run


logger = logging.getLogger(__name__)

TRANSCRIPTS = "asr"  # the task whose answers are what is spoken
FOLDER = "aligned"  # in the run's
BLANK = 0  # the class of a frame that says no token
FIRST_SCALE = 30.0


@dataclass
class AlignmentArguments:
    """How long and how fast the projector is aligned; what else there is to say is taken from the run's configuration.

    Args:
        alignment_epochs (`float`, *optional*, defaults to 12): passes over the transcripts.
        alignment_batch_size (`int`, *optional*, defaults to 32): recordings in a step of a device.
        alignment_learning_rate (`float`, *optional*, defaults to 2e-3): its peak, after 5 % of the steps; it then falls as a
            cosine.
        masked_share (`float`, *optional*, defaults to 0.2): share of a recording's encoder frames that two spans of zeros may
            take at most, drawn anew in every step (SpecAugment's time masks; Park et al., 2019). Else a corpus of few voices is
            learned by heart.
    """

    alignment_epochs: float = 12.0
    alignment_batch_size: int = 32
    alignment_learning_rate: float = 2e-3
    masked_share: float = 0.2


class ProjectorAligner(nn.Module):
    """A model whose projector says tokens.

    Args:
        model ([`SpeechVerseForConditionalGeneration`]): only its projector learns.
        vocabulary (`list[int]`): the LLM's tokens that transcripts consist of.
        masked_share (`float`): see [`AlignmentArguments`].
    """

    def __init__(self, model, vocabulary: list[int], masked_share: float):
        super().__init__()
        self.model = model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("multi_modal_projector."))
        embeddings = model.get_input_embeddings().weight[vocabulary].detach().float()
        self.register_buffer("directions", F.normalize(embeddings, dim=-1), persistent=False)
        self.blank = nn.Parameter(embeddings.mean(0))
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        self.masked_share = masked_share
        # By token id, its class; 0 where it is in no transcript.
        classes = torch.zeros(model.get_input_embeddings().weight.shape[0], dtype=torch.long)
        classes[vocabulary] = torch.arange(1, len(vocabulary) + 1)
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, tokens: torch.LongTensor, **audio) -> dict[str, torch.Tensor]:
        """The loss, and the classes that the frames say.

        Args:
            tokens (`torch.LongTensor` of shape `(batch, tokens)`): of the transcripts, padded with -100.
            **audio: the recordings, see [`~SpeechVerseModel.get_audio_features`].

        Returns:
            `dict`: `loss`, the mean over recordings of the negative log-likelihood by token, nats, and `paths`, int64 of shape
            `(batch, projected frames)`, -100 beyond a recording's end.
        """
        if self.training:
            audio = self._mask(audio)
        projected = self.model.get_audio_features(**audio, return_dict=True)
        table = torch.cat([F.normalize(self.blank, dim=0)[None], self.directions])
        logits = (F.normalize(projected.pooler_output, dim=-1) @ table.T).float() * self.log_scale.exp()
        real = projected.attention_mask
        lengths = (tokens != -100).sum(-1)
        loss = F.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            self.classes[tokens.clamp(min=0)],
            real.sum(-1),
            lengths,
            blank=BLANK,
            zero_infinity=True,  # more tokens than frames: such a recording teaches nothing
        )
        return {"loss": loss, "paths": logits.argmax(-1).masked_fill(~real, -100)}

    def _mask(self, audio: dict) -> dict:
        """The recordings with two spans of frames zeroed in each."""
        name = next(name for name in ("audio_hidden_states", "input_features", "input_values") if name in audio)
        frames = audio[name]
        axis = 2 if name == "input_features" else 1
        length = frames.shape[axis]
        positions = torch.arange(length, device=frames.device)
        masked = torch.zeros(frames.shape[0], length, dtype=torch.bool, device=frames.device)
        for _ in range(2):
            spans = torch.rand(frames.shape[0], 1, device=frames.device) * self.masked_share / 2 * length
            starts = torch.rand(frames.shape[0], 1, device=frames.device) * length
            masked |= (positions >= starts) & (positions < starts + spans)
        shape = [frames.shape[0]] + [1] * (frames.ndim - 1)
        shape[axis] = length
        return audio | {name: frames.masked_fill(masked.reshape(shape), 0.0)}


class TranscriptCollator:
    """Pads recordings and the tokens of what is said in them.

    Args:
        processor ([`SpeechVerseProcessor`]): the model's.
    """

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, examples: list[dict]) -> dict:
        samples = [example.pop("transcript") for example in examples]
        batch = self.processor.pad(examples)
        kept = {k: v for k, v in batch.items() if k not in ("input_ids", "attention_mask", "labels")}
        tokens = nn.utils.rnn.pad_sequence(
            [torch.tensor(ids) for ids in samples], batch_first=True, padding_value=-100
        )
        return kept | {"tokens": tokens}


class TranscriptDataset(InstructionDataset):
    """Recordings and the tokens of their transcripts, by `transcript`; see [`InstructionDataset`]."""

    def tokens(self, index: int) -> list[int]:
        """Of a transcript, without any that a tokenizer adds."""
        return self.processor.tokenizer(self.sample(index).target, add_special_tokens=False).input_ids

    def __getitem__(self, index: int) -> dict:
        example = super().__getitem__(index)
        example.pop("sample_index")
        return example | {"transcript": self.tokens(index)}


class AlignmentTrainer(Trainer):
    """transformers' Trainer; its checkpoints hold what learns, and no base."""

    def _save(self, output_dir=None, state_dict=None):
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        learned = {name: p.detach().cpu().contiguous() for name, p in self.model.named_parameters() if p.requires_grad}
        save_file(learned, folder / SAFE_WEIGHTS_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        (model or self.model).load_state_dict(
            load_file(Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME), strict=False
        )


def transcripts_of(checked: list[CheckedSample]) -> list[CheckedSample]:
    """The samples whose answers are what is spoken."""
    return [one for one in checked if one.sample.tasks == (TRANSCRIPTS,)]


def word_error_rate(prediction: EvalPrediction, aligner: ProjectorAligner, tokenizer) -> dict[str, float]:
    """Of the transcripts that the frames spell, without regard to case, against those that were spoken."""
    vocabulary = {index: token for token, index in enumerate(aligner.classes.tolist()) if index != BLANK}
    said = []
    for path in prediction.predictions:
        classes = [
            c for c, before in zip(path, [BLANK, *path], strict=False) if c != before and c not in (BLANK, -100)
        ]
        said.append(tokenizer.decode([vocabulary[c] for c in classes]))
    spoken = [tokenizer.decode(tokens[tokens != -100]) for tokens in prediction.label_ids]
    return {"wer": jiwer.wer([text.lower() for text in spoken], [text.lower() for text in said])}


def build_trainer(parts: RunParts, arguments: AlignmentArguments) -> AlignmentTrainer:
    """The trainer of a run's projector.

    Raises:
        ValueError: if there is no transcript to learn from.
    """
    train, validation = (transcripts_of(data.usable) for data in (parts.train_data, parts.eval_data))
    if not train:
        raise ValueError(f"train_data have no transcripts (task {TRANSCRIPTS}): there is nothing to align with.")
    datasets = [
        TranscriptDataset(data, parts.processor, parts.features, parts.args.seed) for data in (train, validation)
    ]
    vocabulary = sorted({token for data in datasets for index in range(len(data)) for token in data.tokens(index)})
    aligner = ProjectorAligner(parts.model, vocabulary, arguments.masked_share)
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
        use_cpu=run.use_cpu,
        seed=run.seed,
        eval_strategy=strategy,
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=run.logging_steps,
        report_to=run.report_to,
        remove_unused_columns=False,
        label_names=["tokens"],
        dataloader_num_workers=run.dataloader_num_workers,
    )
    return AlignmentTrainer(
        model=aligner,
        args=args,
        train_dataset=datasets[0],
        eval_dataset=datasets[1] if validation else None,
        data_collator=TranscriptCollator(parts.processor),
        compute_metrics=lambda prediction: word_error_rate(prediction, aligner, parts.processor.tokenizer),
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = HfArgumentParser(AlignmentArguments, allow_abbrev=False)
    arguments, rest = parser.parse_args_into_dataclasses(sys.argv[1:], return_remaining_strings=True)
    try:
        config = parse_run_config(rest)
        parts = prepare_run(config)
        trainer = build_trainer(parts, arguments)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    trainer.train(resume_from_checkpoint=parts.args.resume_from_checkpoint)
    folder = trainer.args.output_dir
    parts.model.save_pretrained(folder)
    parts.processor.save_pretrained(folder)
    logger.info(f"The aligned projector is in {folder}: give it to training as --adapter {folder}")


if __name__ == "__main__":
    main()
