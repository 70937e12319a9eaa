"""Where the clips of a spoken corpus lie: in loose files, in shards, or in both."""

import functools
import json
import shutil
from pathlib import Path


if __package__:
    from .clip_shards import ShardedClip, read_shards, write_shard
    from .whole_files import write_whole
else:  # beside a script
    from clip_shards import ShardedClip, read_shards, write_shard
    from whole_files import write_whole

ROOM_FIELDS = ("rt60", "drr", "room_seed", "snr", "noise", "noise_start")
SPOKEN_FIELDS = ("text", "engine", "voice", "speed", "pitch", *ROOM_FIELDS)  # the audio is a function of these


class ClipStore:
    """The output folder: a clip lies in it as a loose file, or in a shard, or both."""

    def __init__(self, folder: Path, noise_folder: Path | None):
        self.folder, self.noise_folder = folder, noise_folder
        self.audio, self.shards, self.records = folder / "audio", folder / "shards", folder / ".chunks"
        for path in (self.audio, self.records):
            path.mkdir(parents=True, exist_ok=True)

    @functools.cached_property
    def sharded(self) -> dict[str, ShardedClip]:
        """What earlier runs left in shards."""
        return read_shards(self.shards)

    @functools.cached_property
    def packed(self) -> dict[Path, dict[str, dict]]:
        """The rows of what earlier runs left, by shard and key."""
        packed: dict[Path, dict[str, dict]] = {}
        for key, clip in self.sharded.items():
            packed.setdefault(clip.path, {})[key] = clip.row
        return packed

    def loose(self, index: int) -> Path:
        return self.audio / f"{index:06d}.flac"

    def in_shard(self, call: dict) -> ShardedClip | None:
        """The clip of an earlier run, if it was spoken as this call asks."""
        clip = self.sharded.get(f"{call['index']:06d}")
        asked = clip and all(clip.row.get(field) == call.get(field) for field in SPOKEN_FIELDS)
        return clip if asked else None

    def has(self, call: dict) -> bool:
        return self.loose(call["index"]).is_file() or self.in_shard(call) is not None

    def lay_out(self, rows: dict[int, dict], shard_size: int | None, only_shards: bool) -> list[dict]:
        """
        Brings the clips where they belong: into loose files, into shards, or both.

        Args:
            rows (`dict[int, dict]`): Manifest rows without `audio`, by the position of the line.
            shard_size (`int`, *optional*): Lines in a shard; `None` for no shards.
            only_shards (`bool`): Whether to remove the loose files.

        Returns:
            `list[dict]`: The rows, with where the audio is.
        """
        homes = {index: f"shards/{index // shard_size:06d}.tar" for index in rows} if shard_size else {}
        for index in rows:  # a clip that lies in another shard than it belongs in would be lost
            clip = self.sharded.get(f"{index:06d}")
            stays = only_shards and clip and clip.path == self.folder / homes[index]
            if not stays and not self.loose(index).is_file():
                write_whole(self.loose(index), clip.read())
        contents = {}
        for index, home in homes.items():
            contents.setdefault(home, []).append(index)
        for home, indices in contents.items():
            self._pack(self.folder / home, {f"{index:06d}": rows[index] for index in indices}, only_shards)
        for path in self.shards.glob("*.tar"):
            if f"shards/{path.name}" not in contents:  # of an earlier run
                path.unlink()
        if self.shards.is_dir() and not contents:
            self.shards.rmdir()
        if only_shards:
            shutil.rmtree(self.audio)
            return [{"shard": homes[index], "key": f"{index:06d}"} | row for index, row in rows.items()]
        return [{"audio": f"audio/{self.loose(index).name}"} | row for index, row in rows.items()]

    def _pack(self, path: Path, rows: dict[str, dict], only_shards: bool) -> None:
        """Writes one shard, unless it is there as it should be; without its loose files if they are not wanted."""
        packed = self.packed.get(path, {})
        loose = {key: self.audio / f"{key}.flac" for key in rows}
        if [*packed.items()] != [*json.loads(json.dumps(rows)).items()]:
            path.parent.mkdir(exist_ok=True)
            audio = (loose[key].read_bytes() if loose[key].is_file() else self.sharded[key].read() for key in rows)
            write_shard(path, zip(rows, audio, rows.values(), strict=True))
        if only_shards:
            for file in loose.values():
                file.unlink(missing_ok=True)
