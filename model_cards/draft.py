"""The draft of a card, in the folder of a run: written when training ends, and anew when something was measured."""

import logging
from pathlib import Path

from speechverse.model_cards.card import CARD, is_draft, make_card, save_card
from speechverse.model_cards.records import public_results, public_run
from speechverse.model_cards.release import RUN, by_suite, model_without_weights, read_record, results_of_model
from speechverse.modeling_speechverse.configuration_speechverse import SpeechVerseConfig
from speechverse.processing.processing_speechverse import SpeechVerseProcessor


logger = logging.getLogger(__name__)


def refresh_card(folder: str | Path, model=None) -> bool:
    """Writes `README.md` anew: what the weights in a folder are, how they were made, how good they are, and how to use them.

    It names no more of a run than its publication would. A file that is no draft of ours stays as it is: one that somebody
    wrote or edited, and the card of a release. Records that are of other weights are left out, with a warning.

    Args:
        folder (`str` or `Path`): with a checkpoint and, as far as they are there, its `run.json`, its pictures and a
            `results.json` for each suite in `evaluation/`.
        model ([`SpeechVerseForConditionalGeneration`], *optional*): the one that was saved there, where it is at hand. In
            training by DeepSpeed's ZeRO-3 it has to be given: one rank alone cannot build another there.

    Returns:
        `bool`: whether it was written.
    """
    folder = Path(folder)
    if (folder / CARD).is_file() and not is_draft(folder / CARD):
        logger.warning(f"{folder / CARD} was written or edited by somebody, or published, and stays as it is.")
        return False
    config = SpeechVerseConfig.from_pretrained(folder)
    card = make_card(
        folder,
        None,
        model_without_weights(config) if model is None else model,
        SpeechVerseProcessor.from_pretrained(folder),
        standalone=config.standalone,
        suites=_read_results(folder),
        run=_warn_of_error(lambda: read_record(folder, RUN, public_run)),
    )
    save_card(card, folder, draft=True)
    return True


def _read_results(folder: Path) -> dict[str, dict]:
    """What was measured of these weights, and not of some that lay in the folder before."""
    names = _warn_of_error(lambda: results_of_model(folder)) or []
    found = {name: _warn_of_error(lambda name=name: read_record(folder, name, public_results)) for name in names}
    return by_suite({name: record for name, record in found.items() if record is not None})


def _warn_of_error(read):
    try:
        return read()
    except ValueError as error:
        logger.warning(f"The draft of the card leaves out what is no record of these weights: {error}")
        return None
