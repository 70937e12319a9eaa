"""Files that are there whole, or not at all."""

from pathlib import Path


def write_whole(file: Path, content: str | bytes) -> None:
    """Writes a file under another name, and gives it its own when it is whole. Its folder is made if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(file)
