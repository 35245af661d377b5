"""
What a request of OTLP is answered, over HTTP and over gRPC.

Which of these a client may send again is with the specification:
https://opentelemetry.io/docs/specs/otlp/#failures and https://opentelemetry.io/docs/specs/otlp/#failures-1
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.code_pb2 import (
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
)
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

AGAIN = 1
"""Seconds after which what was refused may come again."""


class Answer(NamedTuple):
    """An error, in both protocols."""

    http: HTTPStatus
    grpc: int
    again: bool = False
    """Whether the same request may come again."""


GARBAGE = Answer(HTTPStatus.BAD_REQUEST, INVALID_ARGUMENT)
STRANGER = Answer(HTTPStatus.UNAUTHORIZED, UNAUTHENTICATED)
NOT_FOUND = Answer(HTTPStatus.NOT_FOUND, UNIMPLEMENTED)
WRONG_METHOD = Answer(HTTPStatus.METHOD_NOT_ALLOWED, UNIMPLEMENTED)
NO_LENGTH = Answer(HTTPStatus.LENGTH_REQUIRED, INVALID_ARGUMENT)
# Not RESOURCE_EXHAUSTED: SDKs send that again, even where no `RetryInfo` is with it.
TOO_LARGE = Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, INVALID_ARGUMENT)
WRONG_TYPE = Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, UNIMPLEMENTED)
FULL = Answer(HTTPStatus.TOO_MANY_REQUESTS, RESOURCE_EXHAUSTED, again=True)
NOT_NOW = Answer(HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE, again=True)


class RefusedError(Exception):
    """
    A request is answered with an error.

    Args:
        answer: which.
        message: for whoever runs the client. It repeats nothing of what came.
    """

    def __init__(self, answer: Answer, message: str) -> None:
        super().__init__(message)
        self.answer = answer

    def status(self) -> Status:
        """Return it as both protocols write it."""
        found = Status(code=self.answer.grpc, message=str(self))
        detail: Message | None = None
        if self.answer.again:
            detail = RetryInfo(retry_delay=Duration(seconds=AGAIN))
        elif self.answer is GARBAGE:
            detail = BadRequest(field_violations=[BadRequest.FieldViolation(description=str(self))])
        if detail is not None:
            packed = Packed()
            packed.Pack(detail)
            found.details.append(packed)
        return found


def accepted(refused: int) -> ExportTraceServiceResponse:
    """Return the answer to a request whose spans are stored, but for those that cannot be read."""
    found = ExportTraceServiceResponse()
    if refused:
        found.partial_success.rejected_spans = refused
        found.partial_success.error_message = f"{refused} spans have no valid ids or cannot be read"
    return found
