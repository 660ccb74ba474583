"""An exception as text: bounded, harmless to any store, and told whatever the exception does."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atone._core.facts import Problem
from atone.codec import Codec, describe

SECRET = "4111-1111-1111-1111"


class CardDeclined(Exception):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise CardDeclined

    def __repr__(self) -> str:
        raise CardDeclined


class Wrong(Exception):
    __str__ = 5


class SlyText(str):
    __slots__ = ()

    def __getitem__(self, key: object) -> str:
        raise CardDeclined

    def __str__(self) -> str:
        raise CardDeclined


class Sly(Exception):
    def __str__(self) -> str:
        return SlyText("sly")


class SlyMeta(type):
    @property
    def __module__(cls) -> str:
        raise CardDeclined


class Nameless(Exception, metaclass=SlyMeta):
    pass


def raised(exc: Exception, *, cause: BaseException | None = None) -> Exception:
    """Raise and catch an exception, with a local variable that must not be told."""
    card = SECRET
    try:
        assert card
        raise exc from cause
    except Exception as caught:
        return caught


def recurse(depth: int) -> None:
    if depth == 0:
        raise RuntimeError("deep")
    recurse(depth - 1)


def test_an_exception_is_told_by_type_message_and_place() -> None:
    """Builtin types have no module; the traceback has file, line and function."""
    told = describe(raised(ValueError("no stock")))
    assert (told.type, told.message) == ("ValueError", "no stock")
    assert "test_problems.py:" in told.traceback
    assert told.traceback.endswith(" in raised")
    assert describe(CardDeclined()) == Problem(f"{__name__}.CardDeclined", "", "")


def test_the_traceback_holds_neither_local_values_nor_source() -> None:
    """A card number in a variable, or in the line that raised, is nobody's business."""
    told = describe(raised(CardDeclined("declined"), cause=raised(KeyError(SECRET))))
    assert SECRET not in str(told)
    assert SECRET not in told.traceback
    assert "raise exc" not in told.traceback
    assert "caused by KeyError" in told.traceback


def test_causes_contexts_and_group_members_are_told() -> None:
    """A task group alone says only that something in it failed; a suppressed context stays untold."""
    group = raised(ExceptionGroup("two", [raised(CardDeclined()), KeyError(1)]))
    assert f"holding {__name__}.CardDeclined" in describe(group).traceback
    assert "holding KeyError" in describe(group).traceback
    with_context, without = RuntimeError(), RuntimeError()
    with_context.__context__ = without.__context__ = OSError()
    without.__suppress_context__ = True
    assert describe(with_context).traceback == "caused by OSError"
    assert not describe(without).traceback


def test_a_ring_or_an_endless_chain_of_causes_ends() -> None:
    """At most eight exceptions are told of one."""
    a, b = ValueError(), KeyError()
    a.__cause__, b.__cause__ = b, a
    assert describe(a).traceback == "caused by KeyError"
    last: Exception = ValueError()
    for _ in range(1000):
        last = raised(ValueError(), cause=last)
    wide = ExceptionGroup("wide", [ValueError() for _ in range(1000)])
    assert describe(last).traceback.count("caused by") <= 7
    assert describe(wide).traceback.count("holding") == 7


def test_a_deep_recursion_keeps_its_first_and_last_frames() -> None:
    """Forty frames are kept, and the gap is counted."""
    with pytest.raises(RuntimeError) as caught:
        recurse(200)
    lines = describe(caught.value).traceback.splitlines()
    assert len(lines) == 41
    assert "test_a_deep_recursion" in lines[0]
    assert lines[20] == "  (162 frames left out)"
    assert lines[-1].endswith("in recurse")


@pytest.mark.parametrize(
    ("exc", "message"),
    [
        (Mute(), f"(no message: its __str__ raised {__name__}.CardDeclined)"),
        (Wrong(), "(no message: its __str__ raised TypeError)"),
        (Sly(), "sly"),
        (ValueError("\ud800\0"), "\\ud800\\x00"),
    ],
)
def test_a_message_that_cannot_be_had_is_replaced(exc: Exception, message: str) -> None:
    """An exception whose own methods raise is told all the same."""
    told = describe(raised(exc))
    assert told.message == message
    msgspec.json.encode(told)


def test_a_class_that_hides_its_name_is_told() -> None:
    """A metaclass may raise when asked for the name."""
    assert describe(Nameless("x")) == Problem("(a type without a name)", "x", "")


def test_every_part_is_limited() -> None:
    """Type 200, message 2,000 and traceback 16,000 characters; a cut shows."""
    long_name = type("E" * 10_000, (Exception,), {})
    last = raised(long_name("m" * 10**6))
    for _ in range(7):
        last = raised(long_name("\ud800" * 10**6), cause=last)
    namespace: dict[str, object] = {}
    exec(compile("def f(n):\n  if not n: raise ValueError\n  f(n - 1)", "p" * 10_000, "exec"), namespace)
    with pytest.raises(ValueError, match=r"^$") as caught:
        namespace["f"](50)
    for told in (describe(last), describe(caught.value)):
        assert len(told.type) <= 200
        assert len(told.message) <= 2_000
        assert len(told.traceback) <= 16_000
    assert len(describe(last).type) == 200
    assert describe(last).message.endswith("…")
    assert describe(caught.value).traceback.endswith("…")


@given(st.text(st.characters(exclude_categories=[]), max_size=3000))
def test_any_message_fits_and_can_be_journalled(message: str) -> None:
    """Any text at all, surrogates included, becomes JSON and comes back."""
    told = describe(ValueError(message))
    schema = Codec().schema(Problem)
    assert schema.decode(schema.encode(told)) == told
    assert len(told.message) <= 2_000
    assert "\0" not in told.message
