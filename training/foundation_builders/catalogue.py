"""Every foundation, by the name of its folder."""

from speechverse.training.foundation_builders.errors import FoundationError
from speechverse.training.foundation_builders.flan_t5_checkpoint import FLAN_T5_SMALL
from speechverse.training.foundation_builders.foundation import Foundation
from speechverse.training.foundation_builders.moonshine_checkpoint import MOONSHINE_TINY_ENCODER
from speechverse.training.foundation_builders.smollm2_checkpoint import SMOLLM2_135M_INSTRUCT
from speechverse.training.foundation_builders.whisper_checkpoint import WHISPER_BASE, WHISPER_TINY_EN


FOUNDATIONS = {
    foundation.name: foundation
    for foundation in (WHISPER_BASE, WHISPER_TINY_EN, MOONSHINE_TINY_ENCODER, FLAN_T5_SMALL, SMOLLM2_135M_INSTRUCT)
}


def find_foundation(name: str) -> Foundation:
    """The foundation of that name, or of that name on the Hub, with or without its owner.

    Raises:
        FoundationError: If there is none; the message lists those that exist.
    """
    for foundation in FOUNDATIONS.values():
        if name in (foundation.name, foundation.hub_id, foundation.hub_id.split("/")[-1]):
            return foundation
    raise FoundationError(f"There is no foundation named {name!r}; choose from {', '.join(FOUNDATIONS)}.")
