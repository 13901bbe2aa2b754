"""System calls that fail, without a mock: the kernel itself refuses them, by a seccomp filter put in through ctypes.

    refuse({"sync": EIO})            every fsync and fdatasync of this thread fails from here on
    judged(("sync", "write"), judge) each such call waits for ``judge(number, name)``: 0, an errno, or ``KILL``

A filter is for the life of the thread that put it in, and its children: use it in a child that was forked for the
purpose. It needs Linux on x86-64 or aarch64, and no rights. Sources: seccomp(2), seccomp_unotify(2), and the kernel's
``include/uapi/linux/{seccomp,filter,audit}.h``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import queue
import signal
import struct
import threading
from collections.abc import Callable, Collection, Mapping

KILL = -1
"""What a judge says for a process that is to die before the call is made."""

_NUMBERS: dict[str, dict[str, tuple[int, ...]]] = {
    "x86_64": {
        "sync": (74, 75),  # fsync, fdatasync
        "write": (1, 18),  # write, pwrite64
        "read": (0, 17),  # read, pread64
        "remove": (87, 263),  # unlink, unlinkat
        "cut": (77,),  # ftruncate
        "rename": (82, 264, 316),  # rename, renameat, renameat2
        "seccomp": (317,),
    },
    "aarch64": {
        "sync": (82, 83),
        "write": (64, 68),
        "read": (63, 67),
        "remove": (35,),
        "cut": (46,),
        "rename": (38, 276),
        "seccomp": (277,),
    },
}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = tuple(name for name in _NUMBERS["x86_64"] if name != "seccomp")

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ERRNO, _NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, little endian
_NO_NEW_PRIVILEGES, _SET_FILTER, _NEW_LISTENER = 38, 1, 1 << 3
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1  # ioctls of the listener; "let the call go on"

Judge = Callable[[int, str], int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse(errors: Mapping[str, int], *, spare: Collection[int] = ()) -> None:
    """Let every call named in ``errors`` fail with its errno, in this thread and its children, for good.

    Args:
        errors: by name of ``CALLS``.
        spare: file descriptors on which calls still succeed, such as the pipe to the parent.
    """
    _install({call: _ERRNO | error for call, error in errors.items()}, spare, 0)


def judged(calls: Collection[str], judge: Judge, *, spare: Collection[int] = ()) -> None:
    """Let each of these calls of this thread wait for ``judge(number, name)``, which is asked in another thread.

    ``number`` counts from 1. The judge answers 0 (the call is made), an errno (it fails so), or ``KILL``.
    """
    listeners: queue.SimpleQueue[int] = queue.SimpleQueue()
    names = {number: call for call in calls for number in _numbers()[call]}
    # Begun before the filter is there, so that its own calls are free.
    threading.Thread(target=_judging, args=(listeners, names, judge), daemon=True).start()
    listeners.put(_install(dict.fromkeys(calls, _NOTIFY), spare, _NEW_LISTENER))


def _judging(listeners: queue.SimpleQueue[int], names: Mapping[int, str], judge: Judge) -> None:
    listener, count = listeners.get(), 0
    while True:
        asked = bytearray(80)  # struct seccomp_notif: id, pid, flags, then seccomp_data
        try:
            fcntl.ioctl(listener, _RECEIVE, asked)
        except FileNotFoundError:  # who asked is gone
            continue
        except OSError:
            return
        call, _, _, number = struct.unpack_from("QIIi", asked)
        count += 1
        verdict = judge(count, names[number])
        if verdict == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = struct.pack("QqiI", call, 0, -verdict, 0 if verdict else _CONTINUE)
        fcntl.ioctl(listener, _SEND, answer)


def _install(actions: Mapping[str, int], spare: Collection[int], flags: int) -> int:
    """Put the filter in; the listener's file descriptor where ``flags`` ask for one."""
    architecture = _ARCHITECTURES[platform.machine()]
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _ALLOW)]
    for call, action in actions.items():
        for number in _numbers()[call]:
            skip = 2 + 2 * len(spare)
            steps += [(_LOAD, 0, 0, _NUMBER), (_EQUAL, 0, skip, number), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
            for descriptor in spare:
                steps += [(_EQUAL, 0, 1, descriptor), (_RETURN, 0, 0, _ALLOW)]
            steps += [(_RETURN, 0, 0, action)]
    steps += [(_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    program = _Program(len(steps), code)
    listener = libc.syscall(_numbers()["seccomp"][0], _SET_FILTER, flags, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(listener)


def _numbers() -> dict[str, tuple[int, ...]]:
    return _NUMBERS[platform.machine()]
