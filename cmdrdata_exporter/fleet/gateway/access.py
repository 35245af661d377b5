"""Who may send: who has the token, or a certificate of the right authority. Without either only this machine may."""

from __future__ import annotations

import hmac
import ssl
from dataclasses import dataclass
from pathlib import Path

from cmdrdata_exporter import faults
from cmdrdata_exporter.setting_values import ConfigurationError, is_loopback

SHORTEST = 16
_EXPECTED = (
    f"expected are {SHORTEST} or more printable ASCII characters without spaces, "
    "such as `openssl rand -hex 32` prints"
)


class Token:
    """
    A bearer token, of a file or of a variable.

    Args:
        text: it.
        path: of a file that holds it, which is read again when it has changed.

    Raises:
        ConfigurationError: it cannot be used. The message does not have it.
    """

    def __init__(self, *, text: str | None = None, path: Path | None = None) -> None:
        self._path = path
        self._changed = -1
        self._token = b""
        if path is not None:
            try:
                self._read(path)
            except OSError as error:
                raise ConfigurationError(
                    f"--token-file: cannot read {str(path)!r}: {error.strerror}; expected is a file that holds only "
                    "the token and that this process may read"
                ) from None
        else:
            self._token = _checked("CMDRDATA_GATEWAY_TOKEN", text or "")

    def _read(self, path: Path) -> None:
        changed = path.stat().st_mtime_ns
        if changed != self._changed:
            content = path.read_text(encoding="utf-8-sig", errors="replace")
            self._token = _checked(f"--token-file: the content of {str(path)!r}", content)
            self._changed = changed

    def admits(self, authorization: str | None) -> bool:
        """Say whether the header `Authorization` has the token."""
        if self._path is not None:
            try:
                self._read(self._path)
            except (OSError, ConfigurationError) as error:
                # The one before it may have been replaced because others know it.
                faults.report("token", "nobody is let in: %s", error)
                return False
        scheme, _, given = (authorization or "").partition(" ")
        is_it = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        return is_it and scheme.lower() == "bearer"


def _checked(name: str, content: str) -> bytes:
    token = content.strip()
    if (
        len(token) < SHORTEST
        or not token.isascii()
        or not token.isprintable()
        or any(character.isspace() for character in token)
    ):
        raise ConfigurationError(
            f"{name} is no token: it has {len(token)} characters, or others than it may have; {_EXPECTED}"
        )
    return token.encode()


@dataclass(frozen=True)
class Access:
    """Who may send, and how connections are encrypted."""

    token: Token | None = None
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    """The certificates of those that sign the certificates of clients."""

    def check(self, *hosts: str) -> None:
        """
        Make sure that what is needed is there, and that nobody is let in who need not show anything.

        Raises:
            ConfigurationError: it is not.
        """
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("--tls-cert and --tls-key belong together; give both or none")
        if self.authority is not None and self.certificate is None:
            raise ConfigurationError(
                "--client-ca asks clients for certificates, which takes TLS; give --tls-cert and --tls-key, too"
            )
        for host in hosts:
            if self.token is None and self.authority is None and not is_loopback(host):
                raise ConfigurationError(
                    f"{host or 'every address'} can be reached from other machines, and anybody could send spans that "
                    "are billed; give a token (--token-file or CMDRDATA_GATEWAY_TOKEN) or ask for certificates "
                    "(--client-ca), or listen on 127.0.0.1"
                )
        self.context()

    def context(self) -> ssl.SSLContext | None:
        """
        Return what makes a connection an encrypted one, None without TLS.

        Raises:
            ConfigurationError: a certificate or key cannot be used.
        """
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        named = "--tls-cert and --tls-key"
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.authority is not None:
                named = "--client-ca"
                context.load_verify_locations(self.authority)
                context.verify_mode = ssl.CERT_REQUIRED
        except OSError as error:
            raise ConfigurationError(
                f"{named} cannot be used: {error.strerror or error}; expected are files in PEM that this process may "
                "read, and a key that belongs to the certificate"
            ) from None
        return context

    def admits(self, authorization: str | None) -> bool:
        """Say whether whoever sends this header may. Certificates are asked for before."""
        return self.token is None or self.token.admits(authorization)
