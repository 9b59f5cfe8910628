"""A terminal of its own for a command under test."""

import contextlib
import os
import pty
import subprocess
from collections.abc import Sequence

from tests.cli.conftest import COMMAND
from tools.serving import environment

GUARD = 60.0  # seconds; a hang guard


def on_terminal(
    words: Sequence[str],
    env: dict[str, str],
    answers: bytes = b"",
    under: Sequence[str] = (),
    columns: int = 130,
    asked: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[int, str]:
    """Run the command on a terminal of 9 lines; its status and all it wrote.

    ``answers`` are typed at once, those ``asked`` for when their question has appeared: who asks
    for a password throws away what was typed before.
    """
    questions = list(asked)
    main, side = pty.openpty()
    process = subprocess.Popen(
        [*under, COMMAND, *words],
        stdin=side,
        stdout=side,
        stderr=side,
        env=environment(env) | {"TERM": "xterm", "LINES": "9", "COLUMNS": str(columns)},
        start_new_session=True,
    )
    os.close(side)
    os.write(main, answers)
    text = b""
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while data := os.read(main, 4096):
            text += data
            if questions and text.endswith(questions[0][0]):
                os.write(main, questions.pop(0)[1])
    os.close(main)
    return process.wait(GUARD), text.decode()
