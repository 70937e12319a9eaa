"""A trainer of a tiny model on eight recordings, and what can be told from it."""

import torch

from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor, TaskBank
from speechverse.training.arguments import SpeechVerseTrainingArguments
from speechverse.training.data.dataset import Collator, InstructionDataset
from speechverse.training.data.filters import FilterRules, check_samples
from speechverse.training.data.manifest import ManifestSource, load_samples
from speechverse.training.trainer import SpeechVerseTrainer


WORDINGS = ["which colour ?", "say it .", "what is said ?"]


def tiny_trainer(
    manifest,
    foundations,
    output_dir,
    tasks=None,
    text="t5",
    model_arguments=None,
    task_names=(None,),
    stages=None,
    mixture=None,
    **arguments,
):
    """Fresh tiny bases, and the recordings of a manifest, once for each of some tasks; always the same for the same arguments."""
    torch.manual_seed(0)
    bases = foundations / "tiny-wavlm", foundations / f"tiny-{text}"
    model_arguments = {"lora_rank": 2} | (model_arguments or {})
    model = SpeechVerseForConditionalGeneration.from_foundations(*bases, **model_arguments)
    tasks = TaskBank([]) if tasks is None else tasks
    processor = SpeechVerseProcessor.for_model(model, tasks)
    sources = [ManifestSource(str(manifest), task=name, instruction=WORDINGS, target="$answer") for name in task_names]
    samples = [sample for source in sources for sample in load_samples(source, tasks)]
    checked = check_samples(samples, FilterRules(processor), workers=1)
    validation = checked[:3] if len(task_names) == 1 else checked[5:11]
    settings = {
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "lora_learning_rate": 1e-2,
        "warmup_steps": 0,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return SpeechVerseTrainer(
        model=model,
        args=SpeechVerseTrainingArguments(output_dir=str(output_dir), **settings | arguments),
        train_dataset=InstructionDataset(checked, processor),
        eval_dataset=InstructionDataset(validation, processor),
        data_collator=Collator(processor),
        processing_class=processor,
        stages=stages,
        mixture=mixture,
    )


def scale_losses(trainer, factors: dict[int, float]) -> None:
    """Multiplies the loss, and with it the gradient, of these steps, counted from 1."""
    forward = trainer.model.forward

    def scaled(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        if trainer.model.training:
            outputs.loss = outputs.loss * factors.get(trainer.state.global_step + 1, 1.0)
        return outputs

    trainer.model.forward = scaled


def learned(trainer) -> dict[str, torch.Tensor]:
    """Copies of the parameters that learn."""
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def losses_of(trainer) -> list[float]:
    """The losses that were logged."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
