"""libvirt's errors (virterror.h), as a daemon sends them."""

from __future__ import annotations

from dataclasses import dataclass

from hoodsnap.printable import clean
from hoodsnap.replay.libvirtd import xdr

INTERNAL, NO_SUPPORT, NO_DOMAIN, NO_NETWORK, INVALID, NO_METADATA = 1, 3, 42, 43, 55, 80
"""Error codes (VIR_ERR_*)."""

FROM_QEMU, FROM_NETWORK = 10, 19
"""Parts of libvirt that an error comes from (VIR_FROM_*)."""


@dataclass(eq=False)
class LibvirtError(Exception):
    """An error as libvirt sends it; virsh prints the text."""

    code: int
    text: str
    domain: int = FROM_QEMU

    @property
    def encoded(self) -> bytes:
        """The error as struct remote_error."""
        text = xdr.optional_string(clean(self.text))
        nothing = xdr.optional_string(None)
        level_and_domain = xdr.int_(2) + xdr.uint(0)
        numbers_and_network = xdr.int_(-1) + xdr.int_(-1) + xdr.uint(0)
        return (
            xdr.int_(self.code)
            + xdr.int_(self.domain)
            + text
            + level_and_domain
            + text
            + nothing
            + nothing
            + numbers_and_network
        )
