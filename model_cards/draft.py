"""The draft of a card, in the folder of a run that has ended."""

import logging
from pathlib import Path

from speechverse.model_cards.card import CARD, is_unedited, make_card, save_card
from speechverse.model_cards.records import public_results, public_run
from speechverse.model_cards.release import RESULTS, RUN, read_record
from speechverse.modeling_speechverse.configuration_speechverse import SpeechVerseConfig


logger = logging.getLogger(__name__)


def write_draft(folder: str | Path, model, processor) -> None:
    """Writes `README.md`: what the weights in a folder are, how they were made, and how to use them from there.

    It names no more of a run than its publication would. A file that somebody wrote or edited stays as it is.

    Args:
        folder (`str` or `Path`): of a finished run, with its `run.json`, its pictures and, if they were measured, its
            results.
        model, processor: those that were saved there.

    Raises:
        ValueError: if `run.json` is about other weights.
    """
    folder = Path(folder)
    if (folder / CARD).is_file() and not is_unedited(folder / CARD):
        logger.warning(f"{folder / CARD} was written or edited by somebody and stays as it is: no draft is written.")
        return
    run = read_record(folder, RUN, public_run)
    standalone = SpeechVerseConfig.from_pretrained(folder).standalone
    card = make_card(folder, None, model, processor, standalone=standalone, results=_read_results(folder), run=run)
    save_card(card, folder)


def _read_results(folder: Path) -> dict | None:
    """The results, unless they are of weights that lay in the folder before."""
    try:
        return read_record(folder, RESULTS, public_results)
    except ValueError as error:
        logger.warning(f"The draft of the card has no results: {error}")
        return None
