"""The words of a PDF that reportlab wrote, page by page: enough to test what it says."""

from __future__ import annotations

import base64
import re
import zlib


def page_texts(pdf: bytes) -> list[str]:
    """Strings of each page's content, in the order in which they are drawn."""
    pages = []
    for header, stream in re.findall(rb"<<((?:(?!<<).)*?)>>\s*stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        if b"/Subtype" in header or b"/FontFile" in header:
            continue
        data = base64.a85decode(stream.strip().removesuffix(b"~>")) if b"ASCII85Decode" in header else stream
        content = zlib.decompress(data).decode("latin-1")
        # Pieces of a line follow each other until the next line (T*) or the end of the text (ET).
        pieces = re.findall(r"\(((?:[^()\\]|\\.)*)\) Tj|(T\*|ET)", content)
        pages.append("".join("\n" if end else _plain(string) for string, end in pieces))
    return pages


def _plain(string: str) -> str:
    octal = re.sub(r"\\(\d{3})", lambda match: chr(int(match.group(1), 8)), string)
    return re.sub(r"\\([()\\])", r"\1", octal).encode("latin-1").decode("cp1252", "replace")
