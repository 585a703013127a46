"""The page at /: files of the package, which the browser may mix with nothing from elsewhere."""

from functools import partial
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Response

FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def page() -> APIRouter:
    """The page's routes; it asks for what it shows as any other client does."""
    router = APIRouter(include_in_schema=False)
    for path, (name, kind) in FILES.items():
        content = (Path(__file__).parent / "page" / name).read_bytes()
        router.add_api_route(path, partial(_file, content, kind), methods=["GET"])
    return router


async def _file(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers=HEADERS)
