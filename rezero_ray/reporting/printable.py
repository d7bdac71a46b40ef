"""Text that a model or an environment wrote, made harmless for a terminal."""


def printable(text: str) -> str:
    """The text with every character but line feeds and tabs that does not print as its escape: `\\x1b`, `\\u202e`.

    So no colour, cursor movement, title or change of reading direction comes out of what a model wrote.
    """
    return "".join(c if c in "\n\t" or c.isprintable() else repr(c)[1:-1] for c in text)
