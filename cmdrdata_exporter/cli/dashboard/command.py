"""`cmdrdata dashboard`: a page in the browser, read-only."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import webbrowser
from pathlib import Path

import click

from cmdrdata_exporter.cli.dashboard.answers import Answers
from cmdrdata_exporter.cli.dashboard.server import DashboardServer
from cmdrdata_exporter.cli.destination import (
    Refusal,
    chosen,
    location_options,
    no_ledger_option,
    spool_path,
)
from cmdrdata_exporter.cli.terminal import print_json, say
from cmdrdata_exporter.cli.usage.costs import prices_option
from cmdrdata_exporter.prices import PriceError, PriceTable

PORT = 8765


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen at. Others than this host's own are not encrypted.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="The port; 0 takes one that is free.",
)
@prices_option("Prices")
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@location_options
@no_ledger_option
def dashboard(
    name: str | None,
    spool: Path | None,
    *,
    host: str,
    port: int,
    price_file: Path | None,
    opens: bool,
    as_json: bool,
) -> None:
    """
    Serve a page with usage over time, and where every event is.

    It is read-only, on this host alone, and only for whoever has the address that is printed. Ctrl-C
    ends it. From another host: ssh -t -L 8765:127.0.0.1:8765 HOST cmdrdata dashboard

    Example: cmdrdata dashboard --open
    """
    path = spool_path(spool)
    answers = Answers(path, _first(spool, name), _prices(price_file))
    try:
        server = DashboardServer(host, port, answers)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refusal(
            f"cannot listen at {host}, port {port}: {reason}; choose others with --host and --port"
        ) from None
    # A service is ended by SIGTERM as a reader ends it by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with server, contextlib.suppress(KeyboardInterrupt):
        if not _is_loopback(server):
            say(
                f"Warning: {host} can be reached from other hosts, and what is read there is not encrypted. "
                "Safer is the default, with ssh -L from the other host.",
                err=True,
            )
        if as_json:
            print_json({"url": server.url})
        else:
            say(f"Open {server.url}")
            say("Whoever has this address can read usage. Ctrl-C ends it.")
        if opens and not webbrowser.open(server.url_once()):
            say("No browser was found here: open the address above.", err=True)
        server.serve_forever()
    if not as_json:
        say("Ended.")


def _first(spool: Path | None, name: str | None) -> str | None:
    """Return the destination to show first: the named one, else that of the environment if it has events."""
    if name is not None:
        return chosen(spool, name).name
    with contextlib.suppress(Refusal):
        return chosen(spool, None).name
    return None


def _prices(file: Path | None) -> PriceTable | str:
    """Return the prices, or why there are none."""
    try:
        return PriceTable.load(file)
    except PriceError as error:
        if file is not None:
            raise Refusal(str(error)) from error
        return str(error)


def _is_loopback(server: DashboardServer) -> bool:
    return ipaddress.ip_address(str(server.server_address[0])).is_loopback
