"""What MkDocs cannot do by itself: a link that leads out of docs/ becomes the path of the file in the project."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./((?!\.\.)[^)#]+)(?:#[^)]*)?\)")
OF_RESULTS = "results/"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace such links; pages of docs/results/ reach docs/ by `../`, which stays."""
    if page.file.src_uri.startswith(OF_RESULTS):
        return markdown
    return OUTSIDE.sub(lambda found: shown(*found.groups()), markdown)


def shown(words: str, path: str) -> str:
    """The link's words, and the path where they do not say it."""
    return f"`{path}`" if words.strip("`") == path else f"{words} (`{path}`)"
