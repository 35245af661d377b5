"""
The process that forks those of the fault tests.

A fork takes milliseconds, an interpreter that loads OpenTelemetry a good part of a second.
This one has imported what they need and made nothing of it: no exporter, no thread, no descriptor.

A job comes through the socket that is its standard input, as JSON with the descriptor of a pipe beside it:
the `program` to run, a function of `programs`, its `options` and its `environment`, and the file for its `stderr`.
The answer is the id of the process. Asked to `wait` for one, the answer is its exit code.
"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

import failpoints
import programs


def main() -> None:
    """Serve until the socket is closed. In a forked process, return when its program does."""
    control = socket.socket(fileno=os.dup(0))
    while True:
        message, ancillary, _, _ = control.recvmsg(1 << 16, socket.CMSG_SPACE(4))
        if not message:
            return
        asked: dict[str, Any] = json.loads(message)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            control.send(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        (pipe,) = array.array("i", ancillary[0][2])
        pid = os.fork()
        if pid == 0:
            control.close()
            run(asked, pipe)
            return
        os.close(pipe)
        control.send(b"%d" % pid)


def run(job: dict[str, Any], pipe: int) -> None:
    """Be the process that was asked for, in a group with its children."""
    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    stderr = os.open(job["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # Nothing of a process that hangs may keep the tests' own output open.
    os.dup2(stderr, 1)
    os.dup2(stderr, 2)
    os.close(stderr)
    for name in list(os.environ):
        if name.startswith(("CMDRDATA_", "OTEL_")):
            del os.environ[name]
    os.environ.update(job["environment"])
    failpoints.install(os.environ.get(failpoints.VARIABLE, ""))
    programs.pipe = pipe
    getattr(programs, job["program"])(**job["options"])


if __name__ == "__main__":
    main()
