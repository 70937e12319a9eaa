"""The Hugging Face Trainer for classifiers on what a frozen encoder has made of recordings."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_utils import EvalPrediction

from ...training.checkpoint_writing import AtomicCheckpointsMixin
from ...training.data.feature_cache import FeatureCache
from ...training.data.sample import Sample
from ..corpus_metric import load_metric


@dataclass
class ClassifierTrainingArguments(TrainingArguments):
    """transformers' own arguments, set for a classifier: the best of its evaluations by UAR is kept, and training ends when
    several have brought nothing better.

    Args:
        patience (`int`, *optional*, defaults to 10): so many evaluations.
    """

    patience: int = 10
    output_dir: str = "runs/classifier"
    max_steps: int = 1000
    learning_rate: float = 1e-3
    warmup_steps: float = 50
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 64
    eval_strategy: str = "steps"
    eval_steps: float | None = 25
    save_strategy: str = "steps"
    save_steps: float = 25
    save_total_limit: int | None = 1
    logging_steps: float = 25
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "uar"
    greater_is_better: bool | None = True
    restore_callback_states_from_checkpoint: bool = True  # else a run that goes on begins its patience anew
    remove_unused_columns: bool = False
    report_to: str | list[str] = field(default_factory=lambda: ["none"])

    def __post_init__(self):
        if self.patience < 1:
            raise ValueError(f"patience is {self.patience}; it is at least 1.")
        self.save_steps = self.eval_steps
        self.use_cpu = self.use_cpu or torch.accelerator.current_accelerator(check_available=True) is None
        super().__post_init__()


class FeatureDataset(Dataset):
    """Cached features of samples, with their classes.

    Args:
        samples (`list[Sample]`): their recordings are in the cache.
        features ([`FeatureCache`]): what the encoder gives for them.
        labels (`list[str]`): the classes.
    """

    def __init__(self, samples: list[Sample], features: FeatureCache, labels: list[str]):
        self.samples = samples
        self.features = features
        self.classes = [labels.index(sample.target) for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        return {"features": self.features[self.samples[index].audio], "label": self.classes[index]}


def pad_features(examples: list[dict]) -> dict[str, torch.Tensor]:
    """A batch as [`SpeechClassifier`] takes it, of examples with `features` `(frames, width)` and, to learn, `label`."""
    rows = [example["features"].float() for example in examples]
    lengths = torch.tensor([len(row) for row in rows])
    batch = {
        "audio_hidden_states": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        "audio_hidden_states_mask": (torch.arange(int(lengths.max()))[None] < lengths[:, None]).long(),
    }
    if "label" in examples[0]:
        batch["labels"] = torch.tensor([example["label"] for example in examples])
    return batch


class ClassifierTrainer(AtomicCheckpointsMixin, Trainer):
    """Trains a [`SpeechClassifier`] by class-balanced cross entropy: UAR, by which it is judged, counts every class alike, so
    each class has the same share in the loss.

    It shares the atomic checkpoints of [`SpeechVerseTrainer`], and not its stages, token losses and parts, which are about an
    LLM.

    Args:
        train_dataset, eval_dataset ([`FeatureDataset`]): the samples.
        **kwargs: as in [`~transformers.Trainer`].
    """

    def __init__(self, *, model, args: ClassifierTrainingArguments, train_dataset, eval_dataset, **kwargs):
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=pad_features,
            compute_metrics=self._recall,
            callbacks=[EarlyStoppingCallback(args.patience)],
            **kwargs,
        )
        self.labels = model.config.labels
        self.class_weights = balanced_weights(train_dataset.classes, len(self.labels))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The cross entropy of the samples, each weighted by its class."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        # Not divided by the weights in the batch, as PyTorch does: batches of other classes would count otherwise.
        losses = functional.cross_entropy(outputs.logits.float(), labels, reduction="none")
        loss = (losses * self.class_weights.to(losses.device)[labels]).mean()
        return (loss, outputs) if return_outputs else loss

    def _recall(self, prediction: EvalPrediction) -> dict[str, float]:
        answers = [self.labels[index] for index in np.argmax(prediction.predictions, axis=-1)]
        truths = [self.labels[index] for index in prediction.label_ids]
        metric = load_metric("uar")
        return {"uar": float(metric.value(metric.statistics(answers, truths).sum(0)))}


def balanced_weights(classes: list[int], num_classes: int) -> torch.Tensor:
    """The weight of each class, `(num_classes,)`: that of all samples is 1 on average, and every class that occurs has the same
    share of it."""
    counts = torch.bincount(torch.tensor(classes), minlength=num_classes).float()
    occurs = counts > 0
    return torch.where(occurs, len(classes) / (occurs.sum() * counts.clamp(min=1)), 0.0)
