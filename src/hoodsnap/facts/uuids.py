"""Pattern of a UUID as OpenStack, libvirt and QEMU write it: lower case, with hyphens."""

from __future__ import annotations

import re

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Within a longer pattern: `UUID.pattern`, which captures nothing."""
