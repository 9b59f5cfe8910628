"""``python -m tests.deploy.without CALL PROGRAM …`` runs a program whose system calls are refused.

cachestat(2) as by Linux before 6.5, sendfile(2) as by a file system that has none: a seccomp filter
(seccomp(2)) has the kernel answer so.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

# The number of each, and what the kernel is to answer.
CALLS = {
    "cachestat": (451, errno.ENOSYS),
    "sendfile": (40 if platform.machine() == "x86_64" else 71, errno.EINVAL),
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ERROR = 0x7FFF_0000, 0x0005_0000


def main(call: str, words: list[str]) -> None:
    number, answer = CALLS[call]
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (_LOAD, 0, 0, 0),  # the call's number
            (_JUMP_IF_EQUAL, 0, 1, number),
            (_RETURN, 0, 0, _ERROR | answer),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    code = ctypes.create_string_buffer(program)
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit(os.strerror(ctypes.get_errno()))
    if prctl(_PR_SET_SECCOMP, _MODE_FILTER, described, 0, 0):
        sys.exit(os.strerror(ctypes.get_errno()))
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
