"""Writes the sentences of a corpus that has no recordings, to be spoken by a TTS engine.

    python training/data/sentences.py snips --out snips.jsonl
    python training/data/synthesize.py snips.jsonl --out $SPEECHVERSE_DATA/spoken/snips

After these two, `corpus: snips` finds its recordings.
"""

import argparse
import json
import logging
from collections import Counter
from pathlib import Path

from speechverse.training.data.corpus import load_corpus, texts
from speechverse.training.data.rows import RejectedRow


logger = logging.getLogger(__name__)


def write_sentences(name: str, file: str | Path) -> Counter:
    """Writes one JSON object a line: `text`, `split`, the labels, and the row's key as `sentence`.

    A `key` could not be carried: in a shard it is the recording's.

    Returns:
        how many there are of each split.

    Raises:
        FileNotFoundError: if the corpus's texts are not there; the message says how to get them.
        ValueError: if it is no corpus of texts, or none is left of it.
    """
    corpus = load_corpus(name)
    written, rejected = Counter(), Counter()
    with Path(file).open("w", encoding="utf-8") as stream:
        for row in texts(corpus):
            if isinstance(row, RejectedRow):
                rejected[row.reason.split(":")[0]] += 1
            else:
                sentence = {"sentence" if name == "key" else name: value for name, value in row.items()}
                stream.write(json.dumps(sentence, ensure_ascii=False) + "\n")
                written[row["split"]] += 1
    for reason, count in rejected.items():
        logger.warning(f"{count} rows of {corpus.id} are left out: {reason}")
    if not written:
        raise ValueError(f"Corpus {corpus.id} has no sentence that could be spoken.")
    return written


def main():
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="id of a shipped corpus, or the path of a YAML file")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    options = parser.parse_args()
    try:
        written = write_sentences(options.corpus, options.out)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error
    logger.info(f"{options.out}: {', '.join(f'{count} of {split}' for split, count in written.items())}")


if __name__ == "__main__":
    main()
