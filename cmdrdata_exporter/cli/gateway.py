"""`cmdrdata gateway`: takes spans and events of many hosts into the ledger of the fleet."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cmdrdata_exporter import runtime, setting_urls, setting_values
from cmdrdata_exporter.cli.destination import Refusal, settings_of
from cmdrdata_exporter.cli.extras import require
from cmdrdata_exporter.cli.service import log_to_stderr, signals_to_end
from cmdrdata_exporter.cli.terminal import ATTENTION
from cmdrdata_exporter.delivery import KEPT_DAYS
from cmdrdata_exporter.delivery.destination import HTTP, LOCAL
from cmdrdata_exporter.settings import CMDRDATA_KAFKA_OPTIONS, ConfigurationError

if TYPE_CHECKING:
    # What it needs is an extra.
    from cmdrdata_exporter.fleet.gateway.brokers import Topic
    from cmdrdata_exporter.fleet.gateway.gateway import Gateway, Plan

TOKEN = "CMDRDATA_GATEWAY_TOKEN"  # noqa: S105 - the variable's name
GROUP = "cmdrdata-gateway"
SOURCE = "source"
"""The metadata key that says of an event that it was made of a span."""

_logger = logging.getLogger("cmdrdata")


class _Options(NamedTuple):
    """The options of the command."""

    ledger: str
    otlp: str | None
    otlp_grpc: str | None
    health: str | None
    spans_topic: str | None
    events_topic: str | None
    group: str
    kafka_options: Path | None
    token_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    client_ca: Path | None
    window: float
    max_request: int
    max_in_flight: int
    max_connections: int
    keep_events: int


_PATH = click.Path(path_type=Path)


@click.command()
@click.option(
    "--ledger",
    metavar="URL",
    envvar="CMDRDATA_LEDGER",
    required=True,
    help="The ledger of the fleet, postgresql://…; also CMDRDATA_LEDGER.",
)
@click.option(
    "--otlp",
    metavar="HOST:PORT",
    help="Take OTLP over HTTP here, and show /healthz, /readyz, /metrics.",
)
@click.option("--otlp-grpc", metavar="HOST:PORT", help="Take OTLP over gRPC here.")
@click.option(
    "--spans-topic",
    metavar="URL",
    help="Read a topic of OTLP spans (otlp_proto), kafka://HOST:PORT/TOPIC.",
)
@click.option(
    "--events-topic", metavar="URL", help="Read a topic of usage events, kafka://HOST:PORT/TOPIC."
)
@click.option(
    "--group",
    metavar="NAME",
    default=GROUP,
    show_default=True,
    help="The consumer group of all gateways.",
)
@click.option(
    "--kafka-options",
    type=_PATH,
    envvar=CMDRDATA_KAFKA_OPTIONS,
    help=f"A file of librdkafka's options; also {CMDRDATA_KAFKA_OPTIONS}.",
)
@click.option(
    "--token-file",
    type=_PATH,
    help=f"A file with the token that clients must send; or set {TOKEN}.",
)
@click.option("--tls-cert", type=_PATH, help="The certificate of this server, PEM.")
@click.option("--tls-key", type=_PATH, help="Its key, PEM.")
@click.option(
    "--client-ca", type=_PATH, help="Ask clients for certificates signed by this authority, PEM."
)
@click.option(
    "--window",
    type=click.FloatRange(0, 300),
    default=2.0,
    show_default=True,
    help="Seconds that a span waits for others of its call.",
)
@click.option(
    "--health", metavar="HOST:PORT", help="Show /healthz, /readyz and /metrics here, too."
)
@click.option(
    "--max-request",
    metavar="MIB",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="MiB of one request.",
)
@click.option(
    "--max-in-flight",
    metavar="MIB",
    type=click.IntRange(1, 65536),
    default=64,
    show_default=True,
    help="MiB of all requests under way.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1, 10000),
    default=256,
    show_default=True,
    help="Connections of each of OTLP over HTTP and over gRPC.",
)
@click.option(
    "--keep-events",
    metavar="DAYS",
    type=click.IntRange(1, 36500),
    default=KEPT_DAYS,
    show_default=True,
    help="Days after which settled events are forgotten, but for their usage.",
)
def gateway(**options: Any) -> None:
    """
    Take spans and events of many hosts into one ledger.

    Until SIGTERM or SIGINT. Any number of gateways may share a ledger. Spans are answered, and
    positions of topics stored, once the database has them. At the signal it finishes what was
    begun; a second one ends it at once. It logs to stderr.

    Example: cmdrdata gateway --ledger postgresql://db/usage --otlp 127.0.0.1:4318
    """
    require("gateway", "confluent_kafka", "google.rpc", "h2", "opentelemetry.proto", "psycopg")
    from cmdrdata_exporter.fleet.connection import UnusableUrlError, name_of

    given = _Options(**options)
    log_to_stderr()
    signals = signals_to_end(second_exits=True)
    try:
        name = name_of(given.ledger)
        running = _gateway(given)
        _start(running, name)
    except (ConfigurationError, UnusableUrlError) as error:
        raise Refusal(str(error)) from None
    number = signals.get()
    _logger.info("%s: ending", signal.Signals(number).name)
    if not running.stop():
        _logger.warning("not all ended in time; what was acknowledged is stored")
        # Threads that wait for something else than their end keep no process.
        logging.shutdown()
        os._exit(ATTENTION)
    _logger.info("ended")


def _start(running: Gateway, name: str) -> None:
    import psycopg

    from cmdrdata_exporter.fleet.gateway.shelving import plain_error

    try:
        running.start()
    except psycopg.Error as error:
        raise click.ClickException(
            f"the ledger {name} cannot be used: {plain_error(error)}"
        ) from None
    _logger.info("gateway of the ledger %s: %s", name, "; ".join(running.described()))


def _gateway(given: _Options) -> Gateway:
    from cmdrdata_exporter.fleet.gateway.gateway import Gateway
    from cmdrdata_exporter.fleet.store import FleetLedger

    plan, settings = _plan(given), settings_of(None)
    if settings.target.kind == HTTP:
        plan = replace(plan, post=runtime.options(settings).post)
    elif settings.target.kind != LOCAL:
        raise ConfigurationError(
            f"CMDRDATA_ENDPOINT is {settings.endpoint!r}, and a gateway sends events on by HTTP only; "
            "unset it, and name a topic that is to be read by --events-topic"
        )

    def opened() -> FleetLedger:
        return FleetLedger(
            given.ledger,
            forwards=plan.post is not None,
            total_by=tuple(dict.fromkeys((*settings.total_by, SOURCE))),
            keep_events=given.keep_events,
        )

    return Gateway(plan, opened, _kafka_options(given))


def _plan(given: _Options) -> Plan:
    """
    Return what is to be taken.

    Raises:
        ConfigurationError: it cannot be, as it was asked for.
    """
    from cmdrdata_exporter.fleet.gateway.access import Access, Token
    from cmdrdata_exporter.fleet.gateway.gateway import Plan
    from cmdrdata_exporter.fleet.gateway.limits import MIB, Limits

    if not (given.otlp or given.otlp_grpc or given.spans_topic or given.events_topic):
        raise ConfigurationError(
            "nothing is to be taken; give one or more of --otlp, --otlp-grpc, --spans-topic, --events-topic"
        )
    if given.max_request > given.max_in_flight:
        raise ConfigurationError(
            "--max-request is more than --max-in-flight, so that no such request could be taken; "
            "expected is twice as much in flight, or more"
        )
    text = os.environ.get(TOKEN)
    if text and given.token_file:
        raise ConfigurationError(f"--token-file and {TOKEN} are both given; give one of them")
    token = Token(text=text, path=given.token_file) if text or given.token_file else None
    access = Access(token, given.tls_cert, given.tls_key, given.client_ca)
    http, grpc = _address("--otlp", given.otlp), _address("--otlp-grpc", given.otlp_grpc)
    access.check(*(address[0] for address in (http, grpc) if address is not None))
    if token is not None and given.tls_cert is None:
        for address in (http, grpc):
            if address is not None and not setting_values.is_loopback(address[0]):
                _logger.warning(
                    "%s:%d takes a token in the clear: use --tls-cert and --tls-key, unless what is before it does",
                    *address,
                )
    return Plan(
        url=given.ledger,
        http=http,
        grpc=grpc,
        pages=_address("--health", given.health),
        spans=_topic("--spans-topic", given.spans_topic, given),
        events=_topic("--events-topic", given.events_topic, given),
        access=access,
        limits=Limits(
            request=given.max_request * MIB,
            in_flight=given.max_in_flight * MIB,
            connections=given.max_connections,
        ),
        window=given.window,
    )


def _address(name: str, text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or not int(port) < 65536:
        raise ConfigurationError(
            f"{name} is {text!r}; expected is HOST:PORT, such as 127.0.0.1:4318, or 0.0.0.0:4318 for every address"
        )
    return host or "0.0.0.0", int(port)  # noqa: S104 - as `:4318` is understood everywhere


def _topic(name: str, url: str | None, given: _Options) -> Topic | None:
    from cmdrdata_exporter.fleet.gateway.brokers import Topic

    if url is None:
        return None
    url = setting_urls.topic_url(name, url)
    servers, _, topic = url.removeprefix("kafka://").partition("/")
    if given.kafka_options is not None:
        options = setting_urls.kafka_options("--kafka-options", str(given.kafka_options))
        setting_urls.require_safe("--kafka-options", options, url)
    return Topic(servers, topic, given.group)


def _kafka_options(given: _Options) -> Callable[[], Mapping[str, str]]:
    """Return what reads the options of librdkafka, anew each time: a password may be changed."""
    path = given.kafka_options
    if path is None:
        return dict
    return lambda: setting_urls.kafka_options("--kafka-options", str(path))
