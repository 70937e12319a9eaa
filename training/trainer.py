"""The Hugging Face Trainer, for a model of which only the projector and LoRA learn."""

import json
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback
from transformers.utils import SAFE_WEIGHTS_NAME

from ..modeling_speechverse.base_checkpoints import fingerprint
from .arguments import REFUSED_PUSH
from .plots import draw_loss_curve


class EpochOfDataset(TrainerCallback):
    """Tells the training data which epoch begins, for its draws of wordings.

    The data loader forgets to, on several ranks and where a run is resumed within an epoch.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(int(state.epoch))


class SpeechVerseTrainer(Trainer):
    """Trains a [`SpeechVerseForConditionalGeneration`].

    The parameter groups `projector` and `lora` (and `audio_tower`, where it learns) have a peak learning rate each;
    biases, norms and the layer mix are apart, as `projector without decay`. A checkpoint holds the adapter and the
    optimizer of what learns; the frozen bases are in neither (under DeepSpeed they still are).
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_callback(EpochOfDataset())

    def create_optimizer(self, model=None):
        """AdamW over the two groups; only what learns is in it."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, optimizer_arguments = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(self._parameter_groups(model), **optimizer_arguments)
        return self.optimizer

    def _parameter_groups(self, model) -> list[dict]:
        lora_learning_rate = self.args.lora_learning_rate
        learning_rates = {
            "projector": self.args.learning_rate,
            "lora": self.args.learning_rate if lora_learning_rate is None else lora_learning_rate,
            "audio_tower": self.args.audio_tower_learning_rate,
        }
        if not model.config.freeze_audio_tower and self.args.audio_tower_learning_rate is None:
            raise ValueError("freeze_audio_tower is false: set audio_tower_learning_rate, far below learning_rate.")
        # As transformers does, without biases and norms, whose gains start at the LLM's scale; nor the mix's scalars.
        decayed = set(self.get_decay_parameter_names(model)) - {"multi_modal_projector.layer_mix.weights"}
        groups: dict[str, list] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                part = "lora" if ".lora_" in name else "projector"
                part = "audio_tower" if name.startswith("audio_tower.") else part
                groups.setdefault(part if name in decayed else f"{part} without decay", []).append(parameter)
        return [
            {
                "name": name,
                "params": parameters,
                "lr": learning_rates[name.split()[0]],
                "weight_decay": 0.0 if name.endswith("without decay") else self.args.weight_decay,
            }
            for name, parameters in groups.items()
        ]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The model's loss. In evaluation it is the mean over a rank's own batch: the Trainer drops what pads the last
        batches, and could not do so from a mean over all ranks."""
        num_items_in_batch = num_items_in_batch if model.training else None
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _save(self, output_dir=None, state_dict=None):
        # Without the Trainer's training_args.bin: a checkpoint that is shared holds no pickle, and run.json says more.
        output_dir = output_dir or self.args.output_dir
        self.model.save_pretrained(output_dir, state_dict=state_dict)
        self.processing_class.save_pretrained(output_dir)

    def init_hf_repo(self, *args, **kwargs):
        """Refuses: every way in which the Trainer pushes to the Hub begins here."""
        raise ValueError(REFUSED_PUSH)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        # The Trainer would load with strict=False, where an adapter that does not fit goes unnoticed.
        model = self.model if model is None else model
        model._load_adapter_weights(Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME)

    def _load_best_model(self):
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def leave_results(self, config: dict) -> None:
        """Writes what a run leaves next to its checkpoint: `run.json` and the loss curve.

        Args:
            config (`dict`): how the run was configured.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        results = {
            "config": config,
            "fingerprint": fingerprint(folder),  # of the weights that all this is about
            "seed": self.args.seed,
            "steps": self.state.global_step,
            "trainable_parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "torch": torch.__version__,
            "log": self.state.log_history,
        }
        (folder / "run.json").write_text(json.dumps(results, indent=2, default=str) + "\n", encoding="utf-8")
        draw_loss_curve(self.state.log_history, folder / "loss.png")
