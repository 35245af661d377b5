"""The command `cmdrdata gateway`, which looks every second whether a topic was made anew."""

from __future__ import annotations

from cmdrdata_exporter.cli import main
from cmdrdata_exporter.fleet.gateway import members

members.LOOK = 1.0
main()
