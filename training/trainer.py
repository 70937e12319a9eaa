"""The Hugging Face Trainer, for a model of which only the projector and LoRA learn, by stages, from a mixture of tasks."""

import math
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import EvalPrediction, IntervalStrategy, SaveStrategy
from transformers.utils import SAFE_WEIGHTS_NAME

from .arguments import REFUSED_PUSH
from .callbacks.curriculum import CurriculumCallback
from .callbacks.gradient_guard import GradientGuard
from .callbacks.mixture import MixtureCallback
from .callbacks.preemption import PreemptionCallback
from .callbacks.stopping import StoppingCallback
from .checkpoint_writing import AtomicCheckpointsMixin
from .curriculum import Stage, default_stages, plan_curriculum
from .data.draws import StepDraws
from .data.micro_batches import TokenCosts
from .data.sampler import MixtureBatchSampler, StepPlanner
from .deepspeed_mixin import DeepSpeedMixin
from .mixture import Mixture, MixtureDataset
from .out_of_memory import out_of_memory_advice
from .parts import GradientGates, gathered, part_of
from .stage_schedule import StageSchedule
from .task_losses import TaskLosses, sample_losses, task_name


class SpeechVerseTrainer(AtomicCheckpointsMixin, DeepSpeedMixin, Trainer):
    """Trains a [`SpeechVerseForConditionalGeneration`].

    The parameter groups `projector` and `lora` (and `audio_tower`, where it learns) have a peak learning rate each;
    biases, norms and the layer mix are apart, as `projector without decay`. A checkpoint holds the adapter and the
    optimizer of what learns; the frozen bases are in neither.

    What the Trainer calls an epoch is a round here: what lies between two evaluations, where the curriculum and the mixture
    decide how to go on. The `epoch` of its logs counts passes over the data.

    SIGTERM ends a run with a checkpoint ([`PreemptionCallback`]), and so do gradients that go on exploding ([`GradientGuard`]).

    Args:
        train_dataset ([`InstructionDataset`]): the samples.
        stages (`list[Stage]`, *optional*): the curriculum; by default one stage of `num_train_epochs` or `max_steps`, in which
            everything learns everything.
        mixture ([`Mixture`], *optional*): how often which samples are drawn; by default all alike.
        **kwargs: as in [`~transformers.Trainer`].
    """

    def __init__(self, *args, stages: list[Stage] | None = None, mixture: Mixture | None = None, **kwargs):
        super().__init__(*args, compute_metrics=self._losses_by_task, **kwargs)
        self.gates = GradientGates(self.model)
        self.preemption = PreemptionCallback()
        self.gradient_guard = GradientGuard(self.args.gradient_guard_factor)
        self.task_losses = None
        self._samples = []  # of the micro-batch that is trained on
        if self.train_dataset is not None:
            self._plan_training(stages, mixture)

    # What is trained on when

    def _plan_training(self, stages: list[Stage] | None, mixture: Mixture | None) -> None:
        args, dataset = self.args, self.train_dataset
        if "audio_tower" in self.gates.parts and args.audio_tower_learning_rate is None:
            raise ValueError("freeze_audio_tower is false: set audio_tower_learning_rate, far below learning_rate.")
        stages = stages or default_stages([()], args.num_train_epochs, args.max_steps_given)
        self.mixture = mixture or Mixture([MixtureDataset("all", (), range(len(dataset)))])
        self.batch_size = self.get_total_train_batch_size(args)
        for stage in stages:
            self.mixture.check(stage, self.batch_size)
        lora_learning_rate = args.lora_learning_rate
        self.curriculum = plan_curriculum(
            stages,
            self.gates.parts,
            self.mixture.size,
            self.batch_size,
            args.max_steps_given,
            learning_rates={
                "projector": args.learning_rate,
                "lora": args.learning_rate if lora_learning_rate is None else lora_learning_rate,
                "audio_tower": args.audio_tower_learning_rate,
            },
            warmup_steps=args.warmup_steps,
            lr_scheduler_type=args.lr_scheduler_type.value,
            lr_scheduler_kwargs=args.lr_scheduler_kwargs,
        )
        costs = TokenCosts.of(self.model, self.processing_class, cached=dataset.features is not None)
        draws = StepDraws(
            self.curriculum, self.mixture, self.batch_size, args.seed if args.data_seed is None else args.data_seed
        )
        self.planner = StepPlanner(draws, dataset, costs, args.gradient_accumulation_steps * args.world_size)
        self._refuse_decisions_on_nothing()
        self.steps_per_round = self._steps_per_round()
        self.mixture_callback = MixtureCallback(self.mixture, dataset, self.steps_per_round)
        self.gradient_guard.steps_per_round = self.preemption.steps_per_round = self.steps_per_round
        for callback in (
            PassesOverData(self.batch_size, len(dataset)),
            self.mixture_callback,
            CurriculumCallback(
                self.curriculum, self.gates, self.learning_rate, self.gradient_guard, self.steps_per_round
            ),
            self.gradient_guard,
            self.preemption,
        ):
            self.add_callback(callback)

    def _refuse_decisions_on_nothing(self) -> None:
        """A stage that waits for a validation loss would wait for ever without one."""
        plateaus = [stage.until for stage in self.curriculum.stages if stage.until is not None]
        adaptive = self.mixture.arguments.adaptive is not None
        if not plateaus and not adaptive:
            return
        key = "until" if plateaus else "mixture.adaptive"
        if self.eval_dataset is None or self.args.eval_strategy == IntervalStrategy.NO:
            raise ValueError(f"{key} follows validation losses: give eval_data, and eval_strategy: steps or epoch.")
        tasks = {task_name(checked.sample.tasks) for checked in self.eval_dataset.checked}
        if unknown := [plateau.task for plateau in plateaus if plateau.task not in tasks | {None}]:
            raise ValueError(
                f"until names task {unknown[0]}, which eval_data lack; they have {', '.join(sorted(tasks))}."
            )

    def _steps_per_round(self) -> int:
        """Optimizer steps from one evaluation to the next, or of a pass over the data."""
        args = self.args
        if args.eval_strategy != IntervalStrategy.STEPS:
            return math.ceil(len(self.train_dataset) / self.batch_size)
        if args.save_strategy == SaveStrategy.EPOCH:
            raise ValueError(
                "save_strategy: epoch needs eval_strategy: epoch or no; with eval_strategy: steps, set save_steps."
            )
        as_share = args.eval_steps < 1  # of the run
        return math.ceil(args.eval_steps * self.curriculum.max_steps) if as_share else int(args.eval_steps)

    def get_train_dataloader(self) -> DataLoader:
        """Reads this rank's micro-batches of a round; see [`MixtureBatchSampler`]."""
        args = self.args
        sampler = MixtureBatchSampler(
            self.planner,
            self.steps_per_round,
            lambda: self.state.global_step,
            self.mixture_callback.note_plan,
            args.process_index,
            args.world_size,
        )
        return DataLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def set_initial_training_values(self, args, dataloader):
        """The Trainer's: with rounds for epochs, and as many steps as the curriculum has."""
        steps, steps_per_round = self.curriculum.max_steps, self.steps_per_round
        num_samples = steps * self.batch_size
        rounds = math.ceil(steps / steps_per_round)
        return rounds, steps_per_round, num_samples, num_samples, self.batch_size, len(dataloader), steps

    # What learns how fast

    def create_optimizer(self, model=None):
        """AdamW over the parts' groups; only what learns is in it."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, optimizer_arguments = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(self._parameter_groups(model), **optimizer_arguments)
        return self.optimizer

    def _parameter_groups(self, model) -> list[dict]:
        # As transformers does, without biases and norms, whose gains start at the LLM's scale; nor the mix's scalars.
        decayed = set(self.get_decay_parameter_names(model)) - {"multi_modal_projector.layer_mix.weights"}
        groups: dict[str, list] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                part = part_of(name)
                groups.setdefault(part if name in decayed else f"{part} without decay", []).append(parameter)
        return [
            {
                "name": name,
                "params": parameters,
                "lr": self.learning_rate(name.split()[0], 0),
                "weight_decay": 0.0 if name.endswith("without decay") else self.args.weight_decay,
            }
            for name, parameters in groups.items()
        ]

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """Learning rates as the curriculum has them."""
        if self.lr_scheduler is None:
            optimizer = self.optimizer if optimizer is None else optimizer
            while not isinstance(optimizer, torch.optim.Optimizer):  # a wrapper of DeepSpeed's
                optimizer = optimizer.optimizer
            self.lr_scheduler = StageSchedule(optimizer, self.learning_rate)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def learning_rate(self, part: str, step: int) -> float:
        """A part's learning rate in an optimizer step: the curriculum's, lowered by the gradient guard."""
        return self.curriculum.learning_rate(part, step) * self.gradient_guard.learning_rate_factor

    # The loss, and whose it is

    def training_step(self, model, inputs, num_items_in_batch=None):
        """The Trainer's; remembers which samples it is about."""
        self._samples = self._pop_samples(inputs, self.train_dataset)
        with out_of_memory_advice(self, inputs):
            return super().training_step(model, inputs, num_items_in_batch)

    @staticmethod
    def _pop_samples(inputs: dict, dataset) -> list:
        return [dataset.sample(index) for index in inputs.pop("sample_indices").tolist()]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The model's loss, which is also counted by task."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self.task_losses is None:
            names = {task_name(checked.sample.tasks) for checked in self.train_dataset.checked}
            self.task_losses = TaskLosses(list(names), loss.device)
        self.gradient_guard.note_loss(loss, self._samples)
        names = [task_name(sample.tasks) for sample in self._samples]
        self.task_losses.add(names, self._sample_losses(outputs.logits, inputs["labels"]))
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model, grad_norm=None):
        self.gradient_guard.norm = super()._get_grad_norm(model, grad_norm)
        return self.gradient_guard.norm

    def _sample_losses(self, logits, labels) -> torch.Tensor:
        return sample_losses(logits, labels, shifted=not self.model.config.text_config.is_encoder_decoder)

    def evaluation_loop(self, dataloader, *args, **kwargs):
        """The Trainer's, with the loss of each task for metrics."""
        self._evaluated = dataloader.dataset
        self._evaluated_tasks = sorted({task_name(one.sample.tasks) for one in self._evaluated.checked})
        return super().evaluation_loop(dataloader, *args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Each sample's summed loss and number of tokens, as predictions, and its task, as label."""
        samples = self._pop_samples(inputs, self._evaluated)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**inputs).logits
        places = [self._evaluated_tasks.index(task_name(sample.tasks)) for sample in samples]
        return None, self._sample_losses(logits, inputs["labels"]), torch.tensor(places, device=logits.device)

    def _losses_by_task(self, prediction: EvalPrediction) -> dict[str, float]:
        """Mean loss over the tokens of each task, and the mean over tasks."""
        losses = {}
        for place, task in enumerate(self._evaluated_tasks):
            total, tokens = prediction.predictions[prediction.label_ids == place].sum(0, dtype=np.float64)
            losses[task] = float(total / tokens)
        return {f"{task}_loss": loss for task, loss in losses.items()} | {"loss": sum(losses.values()) / len(losses)}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's, with what is known of tasks, parts and padding added to a training loss."""
        if "loss" in logs:
            step = self.state.global_step - 1
            logs["stage"] = self.curriculum.index_at(step) + 1
            logs |= {f"learning_rate_{part}": self.learning_rate(part, step) for part in self.gates.parts}
            losses = self.task_losses.take(lambda sums: self.accelerator.reduce(sums, "sum"))
            logs |= {f"loss_{task}": loss for task, loss in losses.items()}
            logs |= self.mixture_callback.take_counts() | self._layer_weights() | self.gradient_guard.counts()
        super().log(logs, start_time)

    def _layer_weights(self) -> dict[str, float]:
        """The learned layer mix, if the model has one."""
        if self.model.config.layer_mix != "learned":
            return {}
        weights = self.model.multi_modal_projector.layer_mix.weights
        with gathered(weights):
            return {f"layer_mix_{layer}": weight for layer, weight in enumerate(weights.tolist())}

    def _determine_best_metric(self, metrics, trial) -> bool:
        """The Trainer's, in the last stage alone: before it, other tasks were learned."""
        if self.state.global_step <= self.curriculum.first_step(len(self.curriculum.stages) - 1):
            return False
        return super()._determine_best_metric(metrics, trial)

    # Checkpoints

    def train(self, *args, **kwargs):
        """The Trainer's; SIGTERM ends it with a checkpoint."""
        with self.preemption.listening():
            return super().train(*args, **kwargs)

    def _finalize_training(self, trial, *args, **kwargs):
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, StoppingCallback) and callback.stopped_by is not None:
                self._save_checkpoint(self.model_wrapped, trial)
                self.callback_handler.on_save(self.args, self.state, self.control)
                raise callback.stopped_by
        return super()._finalize_training(trial, *args, **kwargs)

    def _save(self, output_dir=None, state_dict=None):
        if not self.args.should_save:
            return
        # Without the Trainer's training_args.bin: a checkpoint that is shared holds no pickle, and run.json says more.
        output_dir = output_dir or self.args.output_dir
        self.model.save_pretrained(output_dir, state_dict=state_dict)
        self.processing_class.save_pretrained(output_dir)

    def init_hf_repo(self, *args, **kwargs):
        """Refuses: every way in which the Trainer pushes to the Hub begins here."""
        raise ValueError(REFUSED_PUSH)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        # The Trainer would load with strict=False, where an adapter that does not fit goes unnoticed.
        if self.is_deepspeed_enabled:
            self._load_deepspeed_checkpoint(Path(resume_from_checkpoint))
            return
        model = self.model if model is None else model
        weights_file = Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME
        model._load_adapter_weights(weights_file, from_whole=not model.bases_are_known)

    def _load_best_model(self):
        self._load_from_checkpoint(self.state.best_model_checkpoint)


class PassesOverData(TrainerCallback):
    """Lets the `epoch` of logs count passes over the data, not rounds.

    Args:
        batch_size (`int`): samples of an optimizer step, on all ranks together.
        num_samples (`int`): of the training data.
    """

    def __init__(self, batch_size: int, num_samples: int):
        self.batch_size = batch_size
        self.num_samples = num_samples

    def on_step_end(self, args, state, control, **kwargs):
        state.epoch = state.global_step * self.batch_size / self.num_samples
