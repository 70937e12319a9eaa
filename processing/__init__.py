"""What goes in and comes out: audio to features, instruction to tokens, tokens to answer."""

from transformers import AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from ..modeling_speechverse import SpeechVerseConfig
from .default_model import DefaultModel
from .pipeline_speechverse import SpeechInstructionPipeline
from .processing_speechverse import SpeechVerseProcessor
from .tasks_speechverse import Task, TaskBank


AutoProcessor.register(SpeechVerseConfig, SpeechVerseProcessor, exist_ok=True)
SpeechVerseProcessor.register_for_auto_class()  # a saved processor then holds these files, as a saved model does
if "speech-instruction" not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(
        "speech-instruction",
        pipeline_class=SpeechInstructionPipeline,
        pt_model=(AutoModel,),
        default=DefaultModel(),
        type="multimodal",
    )

__all__ = ["SpeechInstructionPipeline", "SpeechVerseProcessor", "Task", "TaskBank"]
