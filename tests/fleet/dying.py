"""The command `cmdrdata gateway`, which dies as soon as spans are stored, before it says so."""

from __future__ import annotations

import os
import signal
from typing import Any

from cmdrdata_exporter.cli import main
from cmdrdata_exporter.fleet.gateway.shelf import Shelf

_store = Shelf.store


def _store_and_die(self: Shelf, *arguments: Any) -> None:
    _store(self, *arguments)
    os.kill(os.getpid(), signal.SIGKILL)


Shelf.store = _store_and_die
main()
