"""
The checks of the environment, run by the application's own Python: `python -m cmdrdata_exporter.cli.doctor.probe`.

Its arguments are those of `opentelemetry-instrument`. It prints the findings as one JSON list on one line.
"""

from __future__ import annotations

import json
import os
import sys

from cmdrdata_exporter.cli.doctor.environment import check
from cmdrdata_exporter.cli.doctor.findings import Surroundings
from opentelemetry_instrumentation_cmdrdata.preflight import entry_points_of, version_of


def here(arguments: list[str]) -> Surroundings:
    """Return the surroundings of this process."""
    return Surroundings(os.environ, arguments, entry_points_of, version_of, sys.version_info[:2])


if __name__ == "__main__":
    # On a line of its own, whatever else is printed by what is installed here.
    print("\n" + json.dumps([finding._asdict() for finding in check(here(sys.argv[1:]))]))
