"""What the splits of a manifest share: voices, timbres, sentences.

    python training/data/overlaps.py data/spoken/manifest.jsonl

prints how many distinct values of each field every two splits have in common. A test of unheard voices wants 0 timbres
shared with training, a test of unheard sentences 0 texts.
"""

import argparse
import json
import re
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path


FIELDS = ("voice", "timbre", "text")


def overlaps(rows: Iterable[dict], fields: tuple[str, ...] = FIELDS) -> dict[tuple[str, str], dict[str, int]]:
    """
    Counts the distinct values that splits share.

    Args:
        rows (`Iterable[dict]`): Manifest rows. A row without `split` belongs to the split "none".
        fields (`tuple[str, ...]`, *optional*, defaults to voice, timbre and text):
            What to compare; texts are compared without case and punctuation. A row without a field has no value in it.

    Returns:
        `dict`: For every two splits, in the order of first appearance, the number of shared values by field.
    """
    values = {}
    for row in rows:
        split = values.setdefault(str(row.get("split", "none")), {field: set() for field in fields})
        for field in fields:
            if row.get(field) is not None:
                split[field].add(plain_text(row[field]) if field == "text" else row[field])
    return {
        (first, second): {field: len(values[first][field] & values[second][field]) for field in fields}
        for first, second in combinations(values, 2)
    }


def plain_text(text: str) -> str:
    """A text as it is compared: without case and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold().replace("'", "").replace("’", "")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path, help="JSONL file of rows with `split`")
    manifest = parser.parse_args().manifest
    if not manifest.is_file():
        parser.exit(1, f"error: {manifest} is not a file: give a JSONL manifest.\n")
    with manifest.open(encoding="utf-8") as stream:
        shared = overlaps(json.loads(line) for line in stream if line.strip())
    for (first, second), counts in shared.items():
        print(f"{first} and {second} share " + ", ".join(f"{count} {field}s" for field, count in counts.items()))
    if not shared:
        print(f"{manifest} has one split: there is nothing to compare.")


if __name__ == "__main__":
    main()
