"""The web page at `/`: one file that needs nothing else, and the headers that hold a browser to that."""

import base64
import hashlib
import re
from pathlib import Path

PAGE = (Path(__file__).parent / "index.html").read_bytes()


def _hash(tag: str) -> str:
    """Returns the source expression of Content-Security-Policy for the page's one element of this name."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash('script')}",
            f"style-src {_hash('style')}",
            "img-src blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
