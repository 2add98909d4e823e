"""The C library with which a console calls the local service: its sources, and the folder that `console-sdk` writes.

The sources are data of this package. The table of codes is not among them: it is written from `CODES`, so that the two
cannot differ. `wire` reads and writes the structs of the library for the service.
"""

from __future__ import annotations

from pathlib import Path

from spinescore.runtime.codes import CODES
from spinescore.runtime.files import write_atomic

__all__ = ["codes_header", "codes_source", "write_sdk"]

_HOME = Path(__file__).parent
_KINDS = (".h", ".c", ".hpp", ".cpp", ".cs", ".txt", ".md")
_WRITTEN = "/* Written by `spinescore console-sdk` from the table of codes, codes.md. Do not edit it. */"

_READERS = """\
const spinescore_code *spinescore_list_codes(size_t number) {
    return number < sizeof TABLE / sizeof TABLE[0] ? &TABLE[number] : NULL;
}

const spinescore_code *spinescore_find_code(const char *name) {
    size_t i;
    for (i = 0; name != NULL && i < sizeof TABLE / sizeof TABLE[0]; i++)
        if (strcmp(TABLE[i].name, name) == 0) return &TABLE[i];
    return NULL;
}
"""


def write_sdk(folder: Path) -> list[Path]:
    """Write the library, its examples and its README to a folder, and return the files. Earlier ones are replaced."""
    sources = [path for path in _HOME.rglob("*") if path.suffix in _KINDS]
    texts = {path.relative_to(_HOME).as_posix(): path.read_text(encoding="utf-8") for path in sources}
    texts |= {"spinescore_codes.h": codes_header(), "spinescore_codes.c": codes_source()}
    paths = []
    for name, text in sorted(texts.items()):
        paths.append(write_atomic(folder / name, text))
    return paths


def codes_header() -> str:
    """Return the C header with a macro for each code."""
    macros = [f'#define SPINESCORE_CODE_{name.upper().replace("-", "_")} "{name}"' for name in CODES]
    lines = [_WRITTEN, "#ifndef SPINESCORE_CODES_H", "#define SPINESCORE_CODES_H", "", *macros, "", "#endif", ""]
    return "\n".join(lines)


def codes_source() -> str:
    """Return the C source with the table of codes and the two functions that read it."""
    rows = [
        "    {" + ", ".join(map(_quoted, (name, code.severity, code.meaning, code.next_step))) + "},"
        for name, code in CODES.items()
    ]
    lines = [
        *(_WRITTEN, '#include "spinescore.h"', "", "#include <string.h>", ""),
        *("static const spinescore_code TABLE[] = {", *rows, "};", "", _READERS),
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Return a C string literal. What is not printable ASCII, and the question marks of trigraphs, is escaped."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'
