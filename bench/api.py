"""The API questions of a visit on their own: the yardstick for a whole visit."""

from __future__ import annotations

import sys

from hoodsnap.collect.configuration import read_nova_conf
from hoodsnap.collect.host import nova_host_name
from hoodsnap.collect.recorder import Recorder
from hoodsnap.collect.server import ServerApi


def main() -> int:
    """Ask everything that a visit asks the API, including its second look."""
    api = ServerApi(Recorder("bench"), "hoodlab")
    host = nova_host_name(read_nova_conf().options)
    if not api.connect():
        return 1
    api.ask_servers(host)
    api.ask_surroundings(host, events=False)
    api.ask_servers(host)
    return 0


if __name__ == "__main__":
    sys.exit(main())
