"""The dashboard in this process, for as long as a test reads it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator

from cmdrdata_exporter.cli.dashboard.answers import Answers
from cmdrdata_exporter.cli.dashboard.server import DashboardServer


@contextlib.contextmanager
def serving(answers: Answers, host: str = "127.0.0.1") -> Generator[DashboardServer]:
    """Serve the page at a port that is free."""
    with DashboardServer(host, 0, answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
