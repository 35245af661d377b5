"""The fixtures of all tests with a broker."""

from __future__ import annotations

from tests.engines.brokers import broker as broker  # noqa: PLC0414 - pytest finds fixtures here
from tests.engines.brokers import mortal as mortal  # noqa: PLC0414
