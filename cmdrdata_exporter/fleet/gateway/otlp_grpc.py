"""
OTLP over gRPC: `TraceService/Export`.

As over HTTP: a call is answered once its spans are on the shelf.
https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from cmdrdata_exporter.fleet.gateway.access import Access
from cmdrdata_exporter.fleet.gateway.limits import (
    AGAIN,
    FullError,
    Held,
    Limits,
    Room,
    TooLargeError,
)
from cmdrdata_exporter.fleet.gateway.shelving import AwayError, Shelving
from cmdrdata_exporter.fleet.gateway.spans import GarbageError, read_protobuf, take
from cmdrdata_exporter.fleet.gateway.watching import Counts
from cmdrdata_exporter.setting_values import ConfigurationError

SERVICE, METHOD = "opentelemetry.proto.collector.trace.v1.TraceService", "Export"
THREADS = 16
"""How many calls are served at once. Of the others nothing is read yet."""
_INTAKE = "grpc"


class GrpcIntake:
    """
    The server.

    Args:
        address: host and port.
        shelving: what stores spans.
        access: who may send.
        limits: how much is taken.
        room: what is under way, of all intakes.
        counts: where to count.

    Raises:
        OSError: nobody can listen there.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        shelving: Shelving,
        access: Access,
        limits: Limits,
        room: Room,
        counts: Counts,
    ) -> None:
        self._shelving = shelving
        self._access = access
        self._limits = limits
        self._room = room
        self._counts = counts
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="cmdrdata-gateway-grpc"),
            options=(
                ("grpc.max_receive_message_length", limits.request),
                ("grpc.max_metadata_size", 16 << 10),
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", 100),
                # A connection that has gone without a word is noticed.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.max_connection_idle_ms", (10 * 60 * 1000)),
            ),
        )
        # As a stream, which has one message here: so it is not read before it is clear that whoever sends it may. The
        # bytes, so that they are counted before anything is made of them.
        handler = cast("Any", grpc).stream_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
        )
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        try:
            self.port = self._listen(f"{host}:{address[1]}")
        except RuntimeError:
            raise OSError(
                f"nobody can listen at {host}:{address[1]}: it is taken, or not ours"
            ) from None

    def _listen(self, address: str) -> int:
        access = self._access
        if access.certificate is None or access.key is None:
            return self._server.add_insecure_port(address)
        try:
            pair = access.key.read_bytes(), access.certificate.read_bytes()
            roots = None if access.authority is None else access.authority.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"a certificate cannot be read: {error.strerror}") from None
        credentials = grpc.ssl_server_credentials(
            [pair], root_certificates=roots, require_client_auth=roots is not None
        )
        return self._server.add_secure_port(address, credentials)

    def start(self) -> None:
        """Serve."""
        self._server.start()

    def stop(self, timeout: float) -> None:
        """Take no more, and wait for the answers to what was begun, so many seconds at most."""
        self._server.stop(timeout).wait(timeout)

    def _export(self, messages: Iterator[bytes], context: Any) -> bytes:
        status = grpc.StatusCode.OK
        try:
            return self._take(messages, context)
        except _RefusedError as error:
            status = error.status
            self._refuse(context, error)
        finally:
            self._counts.add("requests", intake=_INTAKE, status=status.name)

    def _take(self, messages: Iterator[bytes], context: Any) -> bytes:
        metadata: dict[str, Any] = dict(context.invocation_metadata())
        if not self._access.admits(metadata.get("authorization")):
            raise _RefusedError(
                grpc.StatusCode.UNAUTHENTICATED,
                "expected is the gateway's token: authorization: Bearer TOKEN",
            )
        with Held(self._room, self._limits.request) as held:
            try:
                body = next(messages, b"")
                held.add("body", len(body))
                taken = take(read_protobuf(body))
                self._shelving.store(taken.rows)
            except GarbageError as error:
                raise _RefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
            except TooLargeError:
                raise _RefusedError(
                    # One that clients do not try again.
                    grpc.StatusCode.OUT_OF_RANGE,
                    f"a request may have {self._limits.request} bytes; send fewer spans at once",
                ) from None
            except FullError:
                raise _RefusedError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "too much is under way; send it again",
                    retry=True,
                ) from None
            except AwayError:
                raise _RefusedError(
                    grpc.StatusCode.UNAVAILABLE,
                    "the ledger cannot be written now; send it again",
                    retry=True,
                ) from None
        self._counts.add("spans", taken.spans, intake=_INTAKE)
        self._counts.add("spans_refused", taken.refused, intake=_INTAKE)
        answer = ExportTraceServiceResponse()
        if taken.refused:
            answer.partial_success.rejected_spans = taken.refused
            answer.partial_success.error_message = (
                f"{taken.refused} spans have no valid ids or cannot be read"
            )
        return answer.SerializeToString()

    @staticmethod
    def _refuse(context: Any, error: _RefusedError) -> NoReturn:
        if error.retry:
            details = Packed()
            details.Pack(RetryInfo(retry_delay=Duration(seconds=AGAIN)))
            said = Status(code=error.status.value[0], message=str(error), details=[details])
            context.set_trailing_metadata((("grpc-status-details-bin", said.SerializeToString()),))
        context.abort(error.status, str(error))
        raise AssertionError  # `abort` raises.


class _RefusedError(Exception):
    """A call is answered with an error."""

    def __init__(self, status: grpc.StatusCode, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.retry = retry
