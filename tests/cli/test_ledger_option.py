"""No command silently shows or changes another ledger than the one that the environment names."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from cmdrdata_exporter.cli.commands import cmdrdata
from cmdrdata_exporter.cli.destination import no_ledger_option

ALONE = {"demo"}
"""What has a ledger of its own making."""


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Return all commands with their names."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize(
    ("name", "command"), [one for one in commands(cmdrdata) if one[0] not in ALONE]
)
def test_a_fleets_ledger_is_used_or_it_is_said_that_it_is_not(
    name: str, command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command reads CMDRDATA_LEDGER, or says at its start that it is not used."""
    ledgers = [one for one in command.params if "--ledger" in one.opts]
    assert len(ledgers) == 1, name
    if ledgers[0].envvar is not None:
        assert ledgers[0].envvar == "CMDRDATA_LEDGER"
        return
    monkeypatch.setenv("CMDRDATA_LEDGER", "postgresql://ledger")

    @click.command()
    @no_ledger_option
    def of_this_host() -> None:
        pass

    option = of_this_host.params[0]
    assert isinstance(option, click.Option)
    assert isinstance(ledgers[0], click.Option)
    assert ledgers[0].callback is option.callback
    said = CliRunner().invoke(of_this_host).output
    assert "CMDRDATA_LEDGER is not used" in said
    assert "cmdrdata status, usage" in said
