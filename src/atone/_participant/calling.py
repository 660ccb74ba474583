"""A handler as the barrier calls it: with its context, within its time, its result checked and kept.

Owns what is asked of a handler's result and of its rows. Must not retry, and must not decide whether to call. Made anew
for each call by `taking`; `__func__` names the user's function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from atone._choreography.compiled import HandlerCode
from atone._choreography.values import Reaction
from atone._connections.face import Face, awaited, changes, face_of
from atone._participant.bound import Bound, Kept
from atone.errors import BarrierMisplaced, Reject

_NO_ROWS = (
    "{path} changed no row on the connection that it was given, so its rows are written elsewhere, or nowhere, and "
    "nothing ties them to the event. Write on ctx.connection; if it is to change no row, say writes=False."
)
_ENDED = (
    "{path} ended the transaction that it was given, so its rows are there without what should go with them: nothing "
    "was sent, and after a commit the message counts as taken in. Leave commit and rollback to Atone, and settle this "
    "saga by hand."
)


class Raised(Exception):
    """A handler raised: `error` is what, and everything of the delivery is rolled back."""

    def __init__(self, path: str, error: BaseException) -> None:
        super().__init__(path)
        self.path, self.error = path, error


class Call:
    """One call of a reaction. `emitted` are the events that it published; None while it was not called."""

    def __init__(self, bound: Bound, code: HandlerCode, context: Reaction[Any]) -> None:
        self._bound, self._code, self._context = bound, code, context
        self.emitted: Sequence[Any] | None = None
        self.kept = Kept()

    @property
    def __func__(self) -> Callable[..., Any]:
        """The user's function."""
        return self._code.function

    async def __call__(self, connection: Any, body: str) -> Kept:
        result = await self._called(connection)
        self.emitted = self._bound.emitted(self._code.spec, result)
        self.kept = self._bound.keep(result, self._context.saga_id)
        return self.kept

    async def _called(self, connection: Any, *more: Any) -> Any:
        """Call the user's function and see that it has changed rows here, once for each function."""
        proven = self._bound.proven
        function = self._code.function
        face = face_of(connection)
        if function in proven or not self._code.writes:
            return await self._run_inside(face, *more)
        before = await changes(face)
        result = await self._run_inside(face, *more)
        if await changes(face) == before:
            if not self._may_write_nothing(result):
                raise BarrierMisplaced(_NO_ROWS.format(path=self._code.spec.path))
            return result
        proven.add(function)
        return result

    async def _run_inside(self, face: Face, *more: Any) -> Any:
        """Call the user's function, and see that the transaction is open still: half of a delivery must not pass."""
        try:
            result = await self._run(*more)
        except Raised as raised:
            # A refusal says that nothing was done. Whatever else it raised comes again, and the inbox sees what stands.
            if isinstance(raised.error, Reject) and not await face.is_inside():
                raise BarrierMisplaced(_ENDED.format(path=self._code.spec.path)) from raised
            raise
        if not await face.is_inside():
            raise BarrierMisplaced(_ENDED.format(path=self._code.spec.path))
        return result

    async def _run(self, *more: Any) -> Any:
        code = self._code
        try:
            return await _within(code.spec.timeout_seconds, code, self._bound.object, self._context, *more)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            # A SystemExit in a handler must not end its neighbours; a cancellation is its own unless we are cancelled.
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            raise Raised(code.spec.path, error) from error

    def _may_write_nothing(self, result: Any) -> bool:
        """A reaction that has failed has nothing to write, and one that returns nothing may have had nothing to do."""
        return result is None or self._bound.tells_of_failure(result)


class UndoCall(Call):
    """One call of an undo; it is handed what the reaction returned, unless that was a failure."""

    async def __call__(self, connection: Any, kept: Any, body: str) -> Kept:  # type: ignore[override]
        if self._bound.has_failed(kept):
            return self.kept
        done = self._bound.result(kept, self._context.saga_id)
        result = await self._called(connection, done)
        self.emitted = self._bound.emitted(self._code.spec, result)
        return self.kept

    def _may_write_nothing(self, result: Any) -> bool:
        return False


def _is_cancelled() -> bool:
    """Whether somebody wants the task that runs this to end."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False  # in a thread
    return task is not None and task.cancelling() > 0


async def _within(seconds: float, code: HandlerCode, *arguments: Any) -> Any:
    """Call a handler: on the event loop, or in the thread where its synchronous connection lives."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return await awaited(code.function(*arguments))
    async with asyncio.timeout(seconds):
        if code.is_async:
            return await awaited(code.function(*arguments))
        return await asyncio.to_thread(code.function, *arguments)
