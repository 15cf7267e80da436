"""Baselines for the dialogs: hand-made strategies."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from policylab.envs.baselines import Rule
from policylab.envs.dialogs.dialog import CLOSE, OFFER, DialogReading, ask, confirm, tell
from policylab.envs.dialogs.dialog_domain import Act
from policylab.envs.dialogs.tabular_dialog import Slot, TabularSlotFillingEnv
from policylab.envs.dialogs.voicemail import ASK, DELETE, SAVE, VoicemailEnv


def confirm_all(env: gym.Env[Any, Any]) -> Rule:
    """Ask for every slot, confirm each, offer, answer the requests, close on thanks."""
    return Rule(lambda observation: _next_move(DialogReading.of(observation), confirming=True))


def trusting(env: gym.Env[Any, Any]) -> Rule:
    """As `confirm_all`, but take every answer as heard."""
    return Rule(lambda observation: _next_move(DialogReading.of(observation), confirming=False))


def _next_move(reading: DialogReading, *, confirming: bool) -> int:
    if reading.offered[0]:
        return _after_offer(reading)
    filled, sure = reading.filled > 0, reading.confirmed > 0
    if confirming and (unsure := np.flatnonzero(filled & ~sure)).size:
        return confirm(int(unsure[0]))
    none_fits, one_fits = reading.matches[:2] > 0
    if filled.all() and none_fits:  # something was misheard; which slot, nobody knows: ask them in turn
        return ask(round(float(reading.turn[0]) * 100) % filled.size)
    if (empty := np.flatnonzero(~filled)).size and not one_fits:
        return ask(int(empty[0]))
    return OFFER


def _after_offer(reading: DialogReading) -> int:
    if reading.acts[Act.THANKS]:
        return CLOSE
    open_requests = np.flatnonzero((reading.requested > 0) & (reading.answered == 0))
    if open_requests.size:
        return tell(int(open_requests[0]))
    unasked = np.flatnonzero(reading.answered == 0)
    return tell(int(unasked[0])) if unasked.size else CLOSE


def ask_confirm_submit(env: gym.Env[Any, Any]) -> Rule:
    """Ask for the first empty slot, else confirm the first unsure one, else submit."""
    base = env.unwrapped
    assert isinstance(base, TabularSlotFillingEnv)
    return Rule(lambda state: _first_open(base, int(state), confirming=True))


def ask_submit(env: gym.Env[Any, Any]) -> Rule:
    """Ask for every slot and submit."""
    base = env.unwrapped
    assert isinstance(base, TabularSlotFillingEnv)
    return Rule(lambda state: _first_open(base, int(state), confirming=False))


def _first_open(env: TabularSlotFillingEnv, state: int, *, confirming: bool) -> int:
    if state == env.end:
        return 0
    _, slots = env.place(state)
    if Slot.EMPTY in slots:
        return slots.index(Slot.EMPTY)
    if confirming and Slot.FILLED in slots:
        return env.n_slots + slots.index(Slot.FILLED)
    return 2 * env.n_slots


def _lead_rule(env: gym.Env[Any, Any], lead: int) -> Rule:
    base = env.unwrapped
    assert isinstance(base, VoicemailEnv)

    def action(state: int) -> int:
        ahead = 0 if state == base.end else base.turns[int(state)][1]
        return SAVE if ahead >= lead else DELETE if ahead <= -lead else ASK

    return Rule(action)


def lead_of_two(env: gym.Env[Any, Any]) -> Rule:
    """Ask until one answer leads by two."""
    return _lead_rule(env, 2)


def lead_of_four(env: gym.Env[Any, Any]) -> Rule:
    """Ask until one answer leads by four."""
    return _lead_rule(env, 4)
