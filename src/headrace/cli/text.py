"""Text that is safe to show on a terminal, whoever wrote it."""


def printable(text: str) -> str:
    """``text`` in one line, with what would steer a terminal or break a table escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
