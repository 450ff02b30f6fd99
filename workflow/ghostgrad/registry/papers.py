"""The papers: their codes in the registry's files, and their names for readers."""

from __future__ import annotations

import re

# The registry's files write `002 app. A`; people read `Ghost app. A`.
NAMES = {
    "000": "Ghost (tiny paper)",
    "001": "LALC",
    "002": "Ghost",
    "004": "BN-ResNet",
}
CODE = re.compile(rf"(?<![\w.,])({'|'.join(NAMES)})(?![\w%]|\.\d)")


def name_papers(text: str) -> str:
    """`Ghost app. A, fig. 5` of `002 app. A, fig. 5`: a text with the names of the papers in place
    of their codes."""
    return CODE.sub(lambda match: NAMES[match[1]], text)
