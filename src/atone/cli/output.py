"""Where a command writes: a table or text for people, JSON for programs, errors apart from both.

Owns the console, which interprets no markup whatever the text says. Must not know what is written. An answer in JSON
is one document, or one object a line. Made once for each run of a command.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from atone.cli.safe import json_text, safe


class Output:
    """Standard output and standard error of one command."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._console = Console(markup=False, emoji=False, highlight=False)
        self._errors = Console(stderr=True, markup=False, emoji=False, highlight=False)

    def data(self, data: Mapping[str, Any]) -> None:
        """Write one JSON object in one line."""
        print(json_text(data))

    def show(self, what: RenderableType) -> None:
        """Write something that people read."""
        self._console.print(what)

    def say(self, text: str, style: str = "") -> None:
        """Write one line of text; it is not wrapped, so that a command in it can be copied."""
        self._console.print(Text(safe(text), style), soft_wrap=True)

    def wrapped(self, sentence: str) -> None:
        """Write a sentence as an item of a list, wrapped to the width there is."""
        self._console.print(Padding(Text(safe(sentence)), (0, 0, 0, 2), expand=False))

    def ask(self, warning: str) -> None:
        """Write a question to standard error, so that standard output stays what was asked for."""
        self._errors.print(Text.assemble((warning, "yellow"), " Go on? [y/N] "), soft_wrap=True, end="")

    def fail(self, code: str, message: str, **more: Any) -> None:
        """Write an error to standard error; `candidates` go on lines of their own."""
        if self.as_json:
            print(json_text({"error": code, "message": message, **more}), file=sys.stderr)
            return
        self._errors.print(Text.assemble(("atone: ", "bold red"), safe(message)), soft_wrap=True)
        for candidate in more.get("candidates", ()):
            self._errors.print(Text(f"  {safe(candidate)}"), soft_wrap=True)
