"""What the errors of Kafka mean for an event, and for those that come after it."""

from __future__ import annotations

from confluent_kafka import KafkaError

from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.scrubbing import scrubbed

DELIVERED = Outcome(Verdict.DELIVERED, "acknowledged")

_REFUSED = frozenset(
    (
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
    )
)
"""What is wrong with this record alone."""
_MISCONFIGURED = frozenset(
    (
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - the library's names for its own errors
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.SECURITY_DISABLED,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.INVALID_REQUIRED_ACKS,
        KafkaError._AUTHENTICATION,  # noqa: SLF001
        KafkaError._SSL,  # noqa: SLF001
        KafkaError._UNSUPPORTED_FEATURE,  # noqa: SLF001
        KafkaError._INVALID_ARG,  # noqa: SLF001
    )
)
"""What is wrong with topic, rights or options: nothing will be taken until it is mended."""
_NEVER_SENT = frozenset(
    (
        KafkaError._QUEUE_FULL,  # noqa: SLF001
        KafkaError._PURGE_QUEUE,  # noqa: SLF001
        KafkaError._FATAL,  # noqa: SLF001 - of what is produced after it
    )
)
"""What came before the record left."""
_UNREACHABLE = frozenset(
    (
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
    )
)
"""What says that there is no broker."""
_TOO_LATE = KafkaError._MSG_TIMED_OUT  # noqa: SLF001


def classify(error: KafkaError, trouble: KafkaError | None) -> Outcome:
    """
    Return what an error of one record means.

    Args:
        error: why it is not acknowledged.
        trouble: what the client has said of its connections last, since something was acknowledged. A record that ran
            out of time says nothing of the reason.
    """
    code = error.code()
    if code == _TOO_LATE and trouble is not None and trouble.code() in _MISCONFIGURED:
        # No connection gets as far as a record.
        return _outcome(Verdict.MISCONFIGURED, trouble)
    if code in _REFUSED:
        return _outcome(Verdict.REFUSED, error)
    if code in _MISCONFIGURED:
        return _outcome(Verdict.MISCONFIGURED, error)
    if code in _NEVER_SENT:
        return _outcome(Verdict.RETRY, error)
    is_down = trouble is not None and trouble.code() in _UNREACHABLE
    # A broker may have it and be gone since.
    return Outcome(
        Verdict.RETRY, error.name(), ambiguous=True, unreachable=code == _TOO_LATE and is_down
    )


def _outcome(verdict: Verdict, error: KafkaError) -> Outcome:
    # A broker's words, which may repeat what it was sent.
    words = scrubbed(error.str() or "").partition("\n")[0][:200]
    return Outcome(verdict, error.name(), answer=words)
