"""What a crash of the host leaves: only what was synced, which the test cuts every file back to."""

from __future__ import annotations

import os
import time

import pytest

from cmdrdata_exporter.delivery.drainer import TICK
from tests.faults.hosts import Host


@pytest.mark.parametrize(("durability", "seconds"), [("process", 0.25), ("fsync", 0.0)])
@pytest.mark.parametrize("crashes", [3, pytest.param(100, marks=pytest.mark.long)])
def test_power_loss(host: Host, durability: str, seconds: float, crashes: int) -> None:
    """A crash of the host loses nothing that is older than a quarter of a second, and with `fsync` nothing at all."""
    # The ledger syncs what it commits. Here the journals alone are at stake: nobody imports them before the crash.
    leading = host.directory.try_to_lead()
    assert leading is not None
    exported = lost = 0
    for _ in range(crashes):
        running = host.start(
            "produce_noting_syncs", {"CMDRDATA_DURABILITY": durability}, pause=0.005
        )
        running.wait_for_note("named")
        # As many as are exported between two syncs, and as many again.
        running.wait_for(len(running.ids) + int(2 * TICK / 0.005))
        crashed = time.monotonic()
        running.kill()
        synced: dict[int, int] = {}
        named: set[int] = set()
        times: list[float] = []
        for kind, *words in running.notes:
            if kind == "synced":
                synced[int(words[0])] = int(words[1])
            elif kind == "named":
                named.update(map(int, words))
            else:
                times.append(float(words[0]))
        for path in host.directory.journals():
            if f"-{running.pid}-" in path.name:
                inode = path.stat().st_ino
                if inode in named:
                    os.truncate(path, synced.get(inode, 0))
                else:
                    path.unlink()
        certain = [
            event_id
            for event_id, at in zip(running.ids, times, strict=False)
            if at <= crashed - seconds
        ]
        exported += len(running.ids)
        lost += len(running.ids) - len(certain)
        running.ids[:] = certain
    os.close(leading)
    host.settle()
    print(
        f"{durability}: {crashes} crashes, {exported} events, of them {lost} in the last {seconds} s; "
        f"{exported - len(host.oracle.keys)} lost"
    )
    assert exported - lost > 0
