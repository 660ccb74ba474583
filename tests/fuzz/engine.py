"""Feed one decoder with inputs that grow from its samples, and judge what it does with each.

An input is kept as a new sample when it has run lines of Atone in an order that none before it has. What is wrong:
any exception that the decoder does not document, a secret in the words of one that it does, a trip there and back that
does not end where it began, too much of the processor's time or of memory. `run` is the whole of it; called by the
command, by the tests, and with one input at a time by atheris.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from atone.errors import AtoneError
from tests.fuzz.mutate import mutate

SECRET = "S3cr3tZq"
SECONDS_MAX = 2.0  # of the processor, for one input of at most 256 KiB
_SOURCE = str(Path(__file__).resolve().parents[2] / "src" / "atone")


class Hang(BaseException):
    """An input has used up its time."""


class Broken(Exception):
    """A decoder has done what it may not."""


@dataclass(frozen=True)
class Decoder:
    """One decoder. `takes` runs it on an input; `of` names the functions of Atone that it stands for.

    `errors` are what it documents beside AtoneError's leaves. `check` is given what came of an input and raises Broken
    if that is wrong, such as another value after a trip there and back. With `secret` no error's words may hold SECRET.
    """

    name: str
    of: tuple[str, ...]
    samples: Callable[[], Sequence[bytes]]
    takes: Callable[[bytes], Any]
    errors: tuple[type[BaseException], ...] = ()
    check: Callable[[Any], None] | None = None
    secret: bool = False
    words: tuple[bytes, ...] = ()
    slow: bool = False


@dataclass(frozen=True)
class Finding:
    """An input that a decoder takes badly, and what it did."""

    decoder: str
    data: bytes
    told: str

    @property
    def kind(self) -> str:
        """What makes two findings the same one: the first line of what happened, without the input's own words."""
        return self.told.partition("\n")[0]


@dataclass
class Ran:
    """What came of one run."""

    decoder: str
    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    edges: int = 0
    corpus: list[bytes] = field(default_factory=list)
    findings: dict[str, Finding] = field(default_factory=dict)


def judge(decoder: Decoder, data: bytes) -> bool:
    """Give a decoder one input; whether it took it, or refused it as it may.

    Raises:
        Broken: It did something else.
    """
    begun = time.process_time()
    try:
        with _limited():
            value = decoder.takes(data)
            if decoder.check is not None:
                decoder.check(value)
    except Broken:
        raise
    except Hang:
        raise Broken(f"it took more than {SECONDS_MAX:g} s of the processor") from None
    except BaseException as error:
        if not _is_documented(decoder, error):
            raise Broken(f"undocumented {type(error).__name__} {_at(error)}") from error
        if decoder.secret and SECRET in _all_words(error):
            raise Broken(f"a secret in {type(error).__name__} {_at(error)}") from error
        return False
    if time.process_time() - begun > SECONDS_MAX:
        raise Broken(f"it took more than {SECONDS_MAX:g} s of the processor")
    return True


def _is_documented(decoder: Decoder, error: BaseException) -> bool:
    # A subclass of ValueError, such as one of Unicode, is not the ValueError that a docstring speaks of.
    return type(error) in decoder.errors or (isinstance(error, AtoneError) and type(error) is not AtoneError)


def _all_words(error: BaseException) -> str:
    """Return what a log would show of an exception: it and all behind it."""
    return "".join(traceback.format_exception_only(error)) + (
        _all_words(error.__cause__)
        if error.__cause__ is not None
        else _all_words(error.__context__)
        if error.__context__ is not None and not error.__suppress_context__
        else ""
    )


def _at(error: BaseException) -> str:
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(_SOURCE)]
    if not frames:
        return "outside of Atone"
    last = frames[-1]
    return f"at {last.filename.removeprefix(_SOURCE).lstrip('/')} in {last.name}"


@contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_MAX)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Feedback:
    """Which lines of Atone follow each other, as far as inputs have shown; off where something else traces already."""

    def __init__(self) -> None:
        self.edges: set[tuple[int, int, int]] = set()
        self._new = False
        self._on = sys.gettrace() is None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what runs inside."""
        if not self._on:
            yield
            return
        self._new = False
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(None)

    @property
    def is_new(self) -> bool:
        """Whether the last input went a way that none before it has gone."""
        return self._new

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(_SOURCE):
            return None
        code, last = id(frame.f_code), 0

        def line(inner: FrameType, event: str, argument: object) -> Any:
            nonlocal last
            edge = (code, last, inner.f_lineno)
            if edge not in self.edges:
                self.edges.add(edge)
                self._new = True
            last = inner.f_lineno
            return line

        return line


def run(
    decoder: Decoder,
    *,
    seed: int,
    seconds: float | None = None,
    inputs: int | None = None,
    corpus: Sequence[bytes] = (),
) -> Ran:
    """Feed a decoder for a time, or with so many inputs; the same seed and number give the same inputs."""
    random, feedback, ran = Random(f"{decoder.name} {seed}"), Feedback(), Ran(decoder.name)
    begun = time.monotonic()
    pool: list[bytes] = []
    first = [*decoder.samples(), *corpus]

    def more() -> bool:
        in_time = seconds is None or time.monotonic() - begun < seconds
        return in_time and (inputs is None or ran.inputs < inputs + len(first))

    for data in first:
        _feed(decoder, data, ran, feedback)
        pool.append(data)
    while more():
        data = mutate(random.choice(pool), random, pool, decoder.words)
        _feed(decoder, data, ran, feedback)
        if feedback.is_new and len(data) <= 65_536:
            pool.append(data)
            ran.corpus.append(data)
    ran.seconds, ran.edges = time.monotonic() - begun, len(feedback.edges)
    return ran


def _feed(decoder: Decoder, data: bytes, ran: Ran, feedback: Feedback) -> None:
    ran.inputs += 1
    try:
        with feedback.watching():
            took = judge(decoder, data)
        ran.refused += not took
    except Broken as broken:
        cause = broken.__cause__
        shown = "".join(traceback.format_exception(cause))[-3000:] if cause is not None else ""
        finding = Finding(decoder.name, data, f"{broken}\n{shown}")
        known = ran.findings.get(finding.kind)
        if known is None or len(data) < len(known.data):
            ran.findings[finding.kind] = finding


def smaller(decoder: Decoder, finding: Finding, *, tries: int = 400) -> Finding:
    """Return a shorter input that shows the same."""
    best = finding.data
    step = max(1, len(best) // 2)
    while step and tries:
        at = 0
        while at < len(best) and tries:
            tries -= 1
            candidate = best[:at] + best[at + step :]
            if _same(decoder, candidate, finding.kind):
                best = candidate
            else:
                at += step
        step //= 2
    return Finding(finding.decoder, best, finding.told)


def _same(decoder: Decoder, data: bytes, kind: str) -> bool:
    try:
        judge(decoder, data)
    except Broken as broken:
        return str(broken).partition("\n")[0] == kind
    return False
