"""Children that are forked from here, tell over a pipe what they did, and may be killed at any moment.

A fork takes a millisecond and a new Python with torch seconds: that is what makes a thousand kills affordable. What a
child says is one JSON value a line, written in one piece, so that what arrives whole was said before the kill.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Tell = Callable[[Any], None]


class Child:
    """A forked process that runs ``work(tell)`` and ends. ``pipe`` is, in the child, what it tells through."""

    def __init__(self, work: Callable[[Tell], None], *, pipe: int = 100) -> None:
        self._reader, writer = os.pipe()
        self._heard = b""
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.dup2(writer, pipe)  # one that seccomp filters can know beforehand
                work(lambda value: _say(pipe, value))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writer)

    def hear(self, seconds: float = 60.0) -> bool:
        """Wait until the child has said something more, or ended: whether it said something."""
        if not select.select([self._reader], [], [], seconds)[0]:
            raise TimeoutError(f"child {self.pid} said nothing for {seconds} s")
        more = os.read(self._reader, 1 << 16)
        self._heard += more
        return bool(more)

    def kill(self, after: float = 0.0) -> None:
        """SIGKILL, ``after`` seconds from now. A child that has ended is left alone."""
        time.sleep(after)
        os.kill(self.pid, signal.SIGKILL)

    def end(self, seconds: float = 120.0) -> tuple[list[Any], int]:
        """All that it said, and its exit status (negative: the signal that it died of)."""
        try:
            until = time.monotonic() + seconds
            while self.hear(max(0.0, until - time.monotonic())):
                pass
        except TimeoutError:
            self.kill()
            raise
        finally:
            os.close(self._reader)
            status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        whole = self._heard[: self._heard.rfind(b"\n") + 1]
        return [json.loads(line) for line in whole.splitlines()], status


def forked(work: Callable[[Tell], None]) -> tuple[list[Any], int]:
    """Run ``work(tell)`` in a child to its end: what it told, and its exit status."""
    return Child(work).end()


def _say(pipe: int, value: Any) -> None:
    os.write(pipe, f"{json.dumps(value)}\n".encode())
