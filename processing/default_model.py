"""The model of `pipeline("speech-instruction")` when none is named."""

import os
from pathlib import Path

from transformers.utils import CONFIG_NAME, cached_file

from ..modeling_speechverse.base_checkpoints import FOUNDATIONS_VARIABLE


DEFAULT_MODEL = "speechverse/speechverse-mini"
# In a source checkout the published checkpoints are beside the code; an installed package does not hold them.
PUBLISHED_CHECKPOINTS = Path(__file__).parents[1] / "model_cards"


class DefaultModel(dict):
    """What the pipeline registry holds as a task's default; the model is looked for only when a pipeline asks for it.

    `$SPEECHVERSE_FOUNDATIONS/speechverse-mini` goes before a source checkout's `model_cards/speechverse-mini`, and that before
    the Hub and its cache.
    """

    def __init__(self):
        super().__init__(model=(DEFAULT_MODEL, "main"))

    def __getitem__(self, key):
        return find_default_model() if key == "model" else super().__getitem__(key)

    def get(self, key, default=None):
        return self[key] if key in self else default  # dict's own would not look for the model


def find_default_model() -> tuple[str, str]:
    """The default model's folder or Hub id, and its revision.

    Raises:
        OSError: if it is nowhere, saying how to get it.
    """
    name = DEFAULT_MODEL.split("/")[1]
    if foundations := os.environ.get(FOUNDATIONS_VARIABLE):
        folder = Path(foundations) / name
        if folder.is_dir():
            return str(folder), "main"
    if (PUBLISHED_CHECKPOINTS / name / CONFIG_NAME).is_file():
        return str(PUBLISHED_CHECKPOINTS / name), "main"
    try:
        cached_file(DEFAULT_MODEL, CONFIG_NAME)
    except OSError as error:
        cause = str(error).strip().split("\n")[0].rstrip(" .:")
        raise OSError(
            f'pipeline("speech-instruction") without a model takes {DEFAULT_MODEL}, but neither the Hub nor the cache gives '
            f"it ({cause}). Name a checkpoint with model=..., such as runs/demo/checkpoint, which `make demo` trains in "
            f"minutes; work in a clone of the repository, whose model_cards/{name} it is; or put that folder into "
            f"${FOUNDATIONS_VARIABLE}."
        ) from error
    return DEFAULT_MODEL, "main"
