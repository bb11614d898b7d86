"""Which end leads to what: the table of on_* and reasons (xl: handle_domain_death)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from tools.toolstack.life.actions import REASONS, Follow, decide
from tools.toolstack.xlcfg import Action, GuestConfig

CONFIG = GuestConfig(name="guest", type="hvm")
EXPECTED = {
    "destroy": (Follow.DESTROY, False),
    "restart": (Follow.RESTART, False),
    "rename-restart": (Follow.RENAME_RESTART, False),
    "preserve": (Follow.NOTHING, False),
    "coredump-destroy": (Follow.DESTROY, True),
    "coredump-restart": (Follow.RESTART, True),
    "soft-reset": (Follow.SOFT_RESET, False),
}
KEYS = {0: "on_poweroff", 1: "on_reboot", 3: "on_crash", 4: "on_watchdog", 5: "on_soft_reset"}


def test_the_table_has_every_action_of_a_configuration() -> None:
    assert set(EXPECTED) == set(get_args(Action))


@pytest.mark.parametrize("reason", KEYS)
@pytest.mark.parametrize("action", EXPECTED)
def test_s5_1_every_reason_may_have_every_action(reason: int, action: str) -> None:
    settings: dict[str, Any] = {KEYS[reason]: action}
    decision = decide(replace(CONFIG, **settings), reason)
    assert (decision.follow, decision.core) == EXPECTED[action]
    assert decision.action == action


def test_seed_002_the_default_of_on_soft_reset_is_soft_reset() -> None:
    assert decide(CONFIG, 5).follow is Follow.SOFT_RESET


def test_the_other_defaults_are_xl_s() -> None:
    follows = {reason: decide(CONFIG, reason).follow for reason in (0, 1, 3, 4)}
    assert follows == {0: Follow.DESTROY, 1: Follow.RESTART, 3: Follow.DESTROY, 4: Follow.DESTROY}


def test_a_domain_that_has_suspended_itself_is_left_alone() -> None:
    assert decide(replace(CONFIG, on_poweroff="restart"), 2).follow is Follow.NOTHING


@pytest.mark.parametrize("reason", [6, 255])
def test_a_reason_that_nobody_knows_destroys(reason: int) -> None:
    assert reason not in REASONS
    assert decide(replace(CONFIG, on_crash="preserve"), reason).follow is Follow.DESTROY
