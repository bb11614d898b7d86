"""The small event loop."""

from __future__ import annotations

import os
import select

from tools.hypervisor.clock import VirtualClock
from tools.toolstack.children import Loop


def test_a_descriptor_that_an_earlier_callback_removed_is_not_served() -> None:
    loop = Loop()
    served: list[int] = []
    pipes = [os.pipe() for _ in range(2)]

    def serve(reader: int, other: int) -> None:
        served.append(reader)
        loop.remove(other)

    (one, _), (two, _) = pipes
    loop.add(one, select.EPOLLIN, lambda events: serve(one, two))
    loop.add(two, select.EPOLLIN, lambda events: serve(two, one))
    for _, writer in pipes:
        os.write(writer, b"x")
    assert loop.step(0) == 1
    assert len(served) == 1
    loop.close()
    for pipe in pipes:
        os.close(pipe[0])
        os.close(pipe[1])


def test_a_step_makes_the_calls_that_are_due_and_cancelled_ones_never() -> None:
    clock = VirtualClock()
    loop = Loop(clock)
    made: list[str] = []
    loop.call_at(0, lambda: made.append("due"))
    loop.call_at(5, lambda: made.append("later"))
    loop.call_at(0, lambda: made.append("cancelled")).cancel()
    loop.step(0)
    assert made == ["due"]
    clock.advance_to(5)
    assert made == ["due", "later"]
    loop.close()


def test_a_wait_ends_at_the_first_deadline() -> None:
    loop = Loop()
    made: list[str] = []
    loop.call_at(loop.now() + 1, lambda: made.append("due"))
    loop.run_until(lambda: bool(made))
    loop.close()
