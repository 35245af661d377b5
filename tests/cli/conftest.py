"""Which tests an old openai is spared."""

from __future__ import annotations

from importlib.metadata import version

from cmdrdata_exporter.cli.demo import OLDEST_OPENAI

if tuple(map(int, version("openai").split(".")[:2])) < OLDEST_OPENAI:
    # The demo refuses to run with it, which test_extras.py checks.
    collect_ignore = ["test_demo.py", "test_standin.py"]
