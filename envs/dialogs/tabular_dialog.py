"""`TabularSlotFillingEnv`: a slot-filling dialog reduced to what matters for its strategy, exactly solvable."""

from __future__ import annotations

import itertools
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from policylab.envs.arguments import checked_count, checked_probability
from policylab.envs.drawing import draw_grid
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv, merged
from policylab.errors import EnvironmentRuleError


class Slot(IntEnum):
    """What the system knows of one slot."""

    EMPTY = 0
    FILLED = 1
    CONFIRMED = 2


Slots = tuple[Slot, ...]
_KINDS = {Slot.EMPTY: "free", Slot.FILLED: "start", Slot.CONFIRMED: "goal"}


class TabularSlotFillingEnv(TableEnv):
    """Ask for slots, confirm them, submit: how sure is sure enough?

    - **States**: (turn, what is known of each slot): ``turn * 3**n + sum_i slot_i 3**(n-1-i)`` with slot 0 empty, 1
      filled, 2 confirmed, for turns 0 to ``max_turns - 1``. The last state is the end.
    - **Actions**, n slots: i asks for slot i, n + i confirms it, 2n submits.
    - **Dynamics**: an answer fills the slot; it was misheard with probability ``word_error_rate``, which the system
      does not see. "Did you say ..?" is answered by yes or no, each heard as the other with probability
      ``yes_no_error_rate``: yes confirms a filled slot, no empties it. Confirming a slot that is not filled changes
      nothing. Submitting ends the dialog, successfully if every slot holds what the user wants. After ``max_turns``
      turns the user hangs up.
    - **Rewards**: -1 a turn; 2 ``max_turns`` for success, -``max_turns`` for failure or hanging up, the turn's -1
      included (TC-Bot's rewards).
    - **Start**: nothing known.

    Whether a slot's value is right depends on its state alone, not on how it came about: right with probability
    1 - ``word_error_rate`` when filled, and with Bayes' posterior after one "yes" when confirmed. So the state
    is the belief, and the table is exact for the hidden process.

    Args:
        n_slots: number of slots, 1 to 5.
        word_error_rate: probability that a value is misheard, in [0, 1].
        yes_no_error_rate: probability that a yes or no is misheard, in [0, 0.5].
        max_turns: turns until the user hangs up, 1 to 100.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    >>> env = TabularSlotFillingEnv(word_error_rate=0.25)
    >>> env.P[0][0], len(env.P)
    ([(1.0, 36, -1.0, False)], 541)
    """

    def __init__(
        self,
        *,
        n_slots: int = 3,
        word_error_rate: float = 0.3,
        yes_no_error_rate: float = 0.05,
        max_turns: int = 20,
        render_mode: str | None = None,
    ) -> None:
        for name, value, most in (("n_slots", n_slots, 5), ("max_turns", max_turns, 100)):
            if not 1 <= checked_count(name, value) <= most:
                raise EnvironmentRuleError(f"`{name}` must be from 1 to {most}, got {value}")
        self.n_slots, self.max_turns = n_slots, max_turns
        self.word_error_rate = checked_probability("word_error_rate", word_error_rate)
        self.yes_no_error_rate = checked_probability("yes_no_error_rate", yes_no_error_rate)
        if self.yes_no_error_rate > 0.5:
            raise EnvironmentRuleError(f"`yes_no_error_rate` must be at most 0.5, got {yes_no_error_rate}")
        self.success_reward, self.failure_reward = 2.0 * max_turns, -float(max_turns)
        self._codes = list(itertools.product(Slot, repeat=n_slots))
        self.end = max_turns * len(self._codes)
        actions = range(2 * n_slots + 1)
        table = {state: {a: self._outcomes(state, a) for a in actions} for state in range(self.end)}
        table[self.end] = {action: [(1.0, self.end, 0.0, True)] for action in actions}
        super().__init__(table, np.eye(self.end + 1)[0], render_mode=render_mode)

    def place(self, state: int) -> tuple[int, Slots]:
        """Return the turn and the slots of a state that is not the end."""
        turn, code = divmod(state, len(self._codes))
        return turn, self._codes[code]

    def state(self, turn: int, slots: Slots) -> int:
        """Return the state at ``turn`` with ``slots``."""
        code = 0
        for slot in slots:
            code = 3 * code + slot
        return turn * len(self._codes) + code

    @property
    def hear_yes(self) -> float:
        """Probability that confirming a filled slot is answered by what is heard as yes."""
        right, misheard = 1.0 - self.word_error_rate, self.yes_no_error_rate
        return right * (1.0 - misheard) + (1.0 - right) * misheard

    def right(self, slot: Slot) -> float:
        """Return the probability that a slot in this state holds the right value."""
        if slot is Slot.EMPTY:
            return 0.0
        right = 1.0 - self.word_error_rate
        if slot is Slot.FILLED or self.hear_yes == 0.0:
            return right
        return right * (1.0 - self.yes_no_error_rate) / self.hear_yes

    def _outcomes(self, state: int, action: int) -> list[Outcome]:
        turn, slots = self.place(state)
        if action == 2 * self.n_slots:
            success = float(np.prod([self.right(slot) for slot in slots]))
            endings = [(success, self.success_reward), (1.0 - success, self.failure_reward)]
            return merged((p, self.end, reward, True) for p, reward in endings)
        if turn + 1 == self.max_turns:
            return [(1.0, self.end, self.failure_reward, True)]
        i = action % self.n_slots
        onward: list[tuple[float, Slot]]
        if action < self.n_slots:
            onward = [(1.0, Slot.FILLED)]
        elif slots[i] is Slot.FILLED:
            onward = [(self.hear_yes, Slot.CONFIRMED), (1.0 - self.hear_yes, Slot.EMPTY)]
        else:
            onward = [(1.0, slots[i])]
        return merged((p, self.state(turn + 1, (*slots[:i], new, *slots[i + 1 :])), -1.0, False) for p, new in onward)

    def action_name(self, action: int) -> str:
        """Return what an action does, slots counted from 1.

        >>> TabularSlotFillingEnv().action_name(4)
        'confirm slot 2'
        """
        if action == 2 * self.n_slots:
            return "submit"
        return f"{'ask for' if action < self.n_slots else 'confirm'} slot {action % self.n_slots + 1}"

    def render_ansi(self) -> str:
        """Return the turn and the slots as one line, before it the last action."""
        said = "" if self.last_action is None else f"({self.action_name(self.last_action)})\n"
        if self.s == self.end:
            return said + "over\n"
        turn, slots = self.place(self.s)
        return said + f"turn {turn}: {', '.join(slot.name.lower() for slot in slots)}\n"

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return one cell per slot (grey empty, blue filled, green confirmed), below it the turns gone by."""
        turn, slots = self.place(self.s) if self.s != self.end else (self.max_turns, (Slot.EMPTY,) * self.n_slots)
        top = [_KINDS[slot] for slot in slots] + ["wall"] * max(0, 10 - self.n_slots)
        gone = round(10 * turn / self.max_turns)
        width = len(top)
        bottom = ["strong_wind"] * gone + ["free"] * (width - gone)
        labels = {(0, i): slot.name.lower()[:4] for i, slot in enumerate(slots)} | {(1, 0): f"turn {turn}"}
        return draw_grid([top, bottom], labels=labels, cell_px=56)
