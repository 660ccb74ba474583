"""Every decoder takes any input, or refuses it as it says it does; and a decoder that does not is found out."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from atone.errors import MessageError, PayloadError
from tests.fuzz import corpus
from tests.fuzz.decoders import DECODERS, NOT_DECODERS, found_in, unexplained
from tests.fuzz.engine import SECRET, Broken, Decoder, judge, run, smaller

# The slow ones open a store or run the whole command line for each input.
INPUTS = {False: 60, True: 10}


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_takes_what_atone_writes(name: str) -> None:
    """Some sample of each is taken and not refused; else nothing behind the first check would ever be tried."""
    decoder = DECODERS[name]
    assert sum(judge(decoder, data) for data in decoder.samples()) >= 1


@pytest.mark.parametrize("name", DECODERS)
def test_an_input_that_was_kept_breaks_nothing(name: str) -> None:
    """What was a bug once, and what has led to new lines."""
    for data in corpus.load(name):
        judge(DECODERS[name], data)


@pytest.mark.parametrize("name", DECODERS)
def test_a_short_run_breaks_nothing(name: str) -> None:
    """The same inputs every time; `python -m tests.fuzz` goes on from there."""
    decoder = DECODERS[name]
    ran = run(decoder, seed=0, inputs=INPUTS[decoder.slow])
    assert not ran.findings, "\n".join(f"{one.told}\n{one.data[:500]!r}" for one in ran.findings.values())


def test_every_decoder_is_fuzzed_or_explained() -> None:
    """What is named like a decoder, or calls one, is in the table, or in the list of those that are none."""
    assert not unexplained()


def test_the_table_names_what_is_there() -> None:
    """A function that was renamed does not stay in it."""
    looks = found_in()
    assert len(looks) > 50
    for name in NOT_DECODERS:
        module, _, rest = name.partition(":")
        assert any(one.startswith((f"{module}:{rest}", f"{module}.")) for one in looks), name


# -- it bites


def _decoder(takes: Any, **more: Any) -> Decoder:
    return Decoder("planted", (), lambda: [b'{"n": 1, "items": [1, 2]}'], takes, **more)


def _too_deep(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise MessageError("It is no JSON. Send some.") from None


def _not_a_dict(data: bytes) -> Any:
    try:
        return json.loads(data)["n"] + 1
    except (ValueError, KeyError, RecursionError):
        raise MessageError("It is no JSON. Send some.") from None


def _too_many_digits(data: bytes) -> Any:
    text = data.decode("latin-1").partition(":")[2].partition(",")[0].strip()
    return int(text) if text.isdigit() else 0


def _slow(data: bytes) -> Any:
    begun = time.process_time()
    while b"[[[" in data and time.process_time() - begun < 10:
        pass
    return data


def _tells_all(data: bytes) -> Any:
    raise PayloadError(f"{data!r} is wrong. Mend it.")


def _tells_behind(data: bytes) -> Any:
    try:
        raise ValueError(f"bad {data!r}")
    except ValueError as wrong:
        raise PayloadError("It is wrong. Mend it.") from wrong


def _rounds(data: bytes) -> Any:
    return data


def _unequal(value: Any) -> None:
    if b"-" in value and b"-1" not in value:
        raise Broken("another value after a trip there and back")


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (_decoder(_too_deep), "undocumented RecursionError"),
        (_decoder(_not_a_dict), "undocumented TypeError"),
        (_decoder(_too_many_digits), "undocumented ValueError"),
        (_decoder(_slow), "it took more than"),
        (_decoder(_tells_all, secret=True, words=(SECRET.encode(),)), "a secret in PayloadError"),
        (_decoder(_tells_behind, secret=True, words=(SECRET.encode(),)), "a secret in PayloadError"),
        (_decoder(_rounds, check=_unequal), "another value"),
    ],
    ids=["too-deep", "not-a-dict", "digits", "slow", "secret", "secret-behind", "round-trip"],
)
def test_a_planted_bug_is_found(planted: Decoder, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within as many inputs as a short run has, several times over."""
    monkeypatch.setattr("tests.fuzz.engine.SECONDS_MAX", 0.2)
    ran = run(planted, seed=0, inputs=40 if planted.takes is _slow else 1200)
    found = next((one for one in ran.findings.values() if one.kind.startswith(kind)), None)
    assert found is not None, sorted(ran.findings)
    assert len(smaller(planted, found, tries=10).data) <= len(found.data)


def test_a_run_repeats_itself() -> None:
    """The same seed gives the same inputs, so a finding comes again."""
    seen: list[list[bytes]] = [[], []]

    for inputs in seen:
        decoder = _decoder(inputs.append)
        run(decoder, seed=7, inputs=200)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 100


def test_a_new_decoder_is_noticed() -> None:
    """The search for decoders sees those that are known to be there."""
    looks = found_in()
    for name in (
        "atone._runtime.wire:decode_entries",
        "atone.brokers._kafka_wire:declaration_from",
        "atone.codec:Codec.unseal",
    ):
        assert name in looks
