"""Build hook: put the recordings of fixtures/faults into the wheel, as one archive.

Each is 80 kB by itself. Together they are 115 MB of nearly equal JSON, which zstd's long-distance
matching reduces to 2 MB; the archive can be opened with `tar --zstd --long=27`.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WINDOW = 27
"""Logarithm of the bytes that the compression looks back: all recordings fit into them."""


class FaultsHook(BuildHookInterface[Any]):
    """Hook that adds hoodsnap/recorded/faults.tar.zst to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the archive, unless a checkout is installed in place: it has the files."""
        if version == "editable":
            return
        top = Path(self.root)
        archive = top / "build/faults.tar.zst"
        archive.parent.mkdir(exist_ok=True)
        archive.write_bytes(_archived(sorted((top / "fixtures/faults").glob("*.json.zst"))))
        build_data["force_include"][str(archive)] = "hoodsnap/recorded/faults.tar.zst"


def _archived(paths: list[Path]) -> bytes:
    """Return the archive; the same recordings always give the same bytes."""
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        9, window_log=WINDOW, enable_ldm=True
    )
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in paths:
            content = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
            entry = tarfile.TarInfo(path.name.removesuffix(".zst"))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw.getvalue())
