"""Baselines for games of chance: blackjack by the book, and bold play for the gambler."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from policylab.envs.baselines import Rule

STICK, HIT = 0, 1


def stick_on_18(env: gym.Env[Any, Any]) -> Rule:
    """Hit below 18, whatever the dealer shows."""
    return Rule(lambda observation: STICK if observation[0] >= 18 else HIT)


def basic_strategy(env: gym.Env[Any, Any]) -> Rule:
    """Hit and stick as players' cards say, where neither doubling nor splitting is allowed.

    Source: Baldwin, Cantey, Maisel and McDermott, "The optimum strategy in blackjack", JASA 51 (1956).
    """
    return Rule(_by_the_book)


def _by_the_book(observation: tuple[int, int, int]) -> int:
    """Return the action for the player's total, the dealer's card (an ace is 1) and whether an ace counts 11."""
    total, dealer, usable = observation
    if usable:
        return STICK if total >= 19 or (total == 18 and 2 <= dealer <= 8) else HIT
    if total >= 17:
        return STICK
    weak = 4 <= dealer <= 6 if total == 12 else 2 <= dealer <= 6
    return STICK if total >= 12 and weak else HIT


def bold_play(env: gym.Env[Any, Any]) -> Rule:
    """Stake all that can be won with; optimal while heads come less than half of the time.

    Source: Dubins and Savage, How to gamble if you must (1965).
    """
    goal = int(env.unwrapped.goal)  # type: ignore[attr-defined]
    return Rule(lambda capital: min(int(capital), goal - int(capital)))
