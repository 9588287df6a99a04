"""Header of a file with a domain's saved memory, as libvirt wrote it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Count = Annotated[int, Field(ge=0, lt=1 << 32)]


class SaveHeader(BaseModel):
    """Header of a file with a domain's saved memory."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)

    magic: str | None
    """`LibvirtQemudSave`, `LibvirtQemudPart`; None if the file begins with something else."""

    read: _Count
    """Bytes that the file has of the header."""

    data_len: _Count | None = None
    """Bytes of the definition and the cookie that follow the header; None if the header is cut."""

    compressed: _Count | None = None
    """Format of the memory; 0 if it is not compressed. None if the header is cut."""
