"""`VoicemailEnv`: does the caller want a message saved or deleted? The smallest dialog, with the belief as state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policylab.envs.arguments import checked_count, checked_number, checked_probability
from policylab.envs.drawing import draw_grid, value_colours
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv, merged
from policylab.errors import EnvironmentRuleError

ASK, SAVE, DELETE = range(3)
_ACTIONS = ("ask", "save", "delete")


class VoicemailEnv(TableEnv):
    """Ask whether to save or delete a message, hear an answer that may be wrong, and act.

    The caller's intent is hidden, which makes this a partially observable problem. All that the answers tell is how
    many more of them were "save" than "delete"; that number and the turn are the state, from which the belief follows
    (`belief`), so that the environment is an exact Markov decision process over beliefs.

    - **States**: (turn, lead of "save" answers): turn 0 has lead 0, turn t the leads -t, -t + 2, .., t; numbered turn
      by turn. The last state is the end.
    - **Actions**: 0 ask, 1 save, 2 delete.
    - **Dynamics**: a question is answered with the intent, or, with probability ``error_rate``, heard as the opposite.
      Saving, deleting and the last turn's question end the dialog.
    - **Rewards**: ``ask_reward`` a question; ``right_reward`` or ``wrong_reward`` for the action.
    - **Start**: turn 0; the intent is "save" with probability ``prior``.

    Args:
        error_rate: probability that an answer is heard wrongly, in [0, 0.5].
        prior: probability that the caller wants to save, in [0, 1].
        ask_reward: reward of a question.
        right_reward: reward of doing what the caller wants.
        wrong_reward: reward of doing the opposite.
        max_turns: number of turns, 1 to 100.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: the voicemail dialog of Williams & Young, Computer Speech & Language 21 (2007), with the rewards and the
    ten turns of the project JoeyFaulkner/voicemail_problem.

    >>> env = VoicemailEnv()
    >>> len(env.P), round(env.belief(env.state(2, 2)), 3)
    (56, 0.845)
    """

    def __init__(
        self,
        *,
        error_rate: float = 0.3,
        prior: float = 0.5,
        ask_reward: float = -1.0,
        right_reward: float = 10.0,
        wrong_reward: float = -100.0,
        max_turns: int = 10,
        render_mode: str | None = None,
    ) -> None:
        self.error_rate = checked_probability("error_rate", error_rate)
        if self.error_rate > 0.5:
            raise EnvironmentRuleError(
                f"`error_rate` must be at most 0.5, beyond which answers mislead, got {error_rate}"
            )
        self.prior = checked_probability("prior", prior)
        self.ask_reward = checked_number("ask_reward", ask_reward)
        self.right_reward = checked_number("right_reward", right_reward)
        self.wrong_reward = checked_number("wrong_reward", wrong_reward)
        if not 1 <= checked_count("max_turns", max_turns) <= 100:
            raise EnvironmentRuleError(f"`max_turns` must be from 1 to 100, got {max_turns}")
        self.max_turns = max_turns
        self.turns = [(turn, lead) for turn in range(max_turns) for lead in range(-turn, turn + 1, 2)]
        self.end = len(self.turns)
        table = {state: {a: self._outcomes(state, a) for a in range(len(_ACTIONS))} for state in range(self.end)}
        table[self.end] = {action: [(1.0, self.end, 0.0, True)] for action in range(len(_ACTIONS))}
        super().__init__(table, np.eye(self.end + 1)[0], render_mode=render_mode)

    def state(self, turn: int, lead: int) -> int:
        """Return the state at ``turn`` with ``lead`` more "save" than "delete" answers."""
        return turn * (turn + 1) // 2 + (lead + turn) // 2

    def belief(self, state: int) -> float:
        """Return the probability that the caller wants to save, by Bayes' rule."""
        turn, lead = self.turns[state]
        saves, deletes = (turn + lead) // 2, (turn - lead) // 2
        right, wrong = 1.0 - self.error_rate, self.error_rate
        save = self.prior * right**saves * wrong**deletes
        delete = (1.0 - self.prior) * wrong**saves * right**deletes
        return save / (save + delete) if save + delete > 0.0 else 0.5  # answers that cannot be: never reached

    def _outcomes(self, state: int, action: int) -> list[Outcome]:
        belief = self.belief(state)
        if action != ASK:
            right = belief if action == SAVE else 1.0 - belief
            return merged(
                [(right, self.end, self.right_reward, True), (1.0 - right, self.end, self.wrong_reward, True)]
            )
        turn, lead = self.turns[state]
        if turn + 1 == self.max_turns:
            return [(1.0, self.end, self.ask_reward, True)]
        hear_save = belief * (1.0 - self.error_rate) + (1.0 - belief) * self.error_rate
        after = [(hear_save, lead + 1), (1.0 - hear_save, lead - 1)]
        return merged((p, self.state(turn + 1, onward), self.ask_reward, False) for p, onward in after)

    def render_ansi(self) -> str:
        """Return turn, lead and belief as one line."""
        if self.s == self.end:
            return f"over ({_ACTIONS[self.last_action]})\n" if self.last_action is not None else "over\n"
        turn, lead = self.turns[self.s]
        return f"turn {turn}: 'save' leads by {lead:+d}, belief {self.belief(self.s):.3f}\n"

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the beliefs of all leads as a row of colours, the agent on the present one."""
        leads = range(1 - self.max_turns, self.max_turns)
        beliefs = [self.belief(self.state(abs(lead), lead)) for lead in leads]
        labels = {(0, i): f"{belief:.2f}" for i, belief in enumerate(beliefs)} if len(beliefs) < 30 else {}
        here = [] if self.s == self.end else [("agent", (1, self.turns[self.s][1] + self.max_turns - 1))]
        rows = np.stack([value_colours(beliefs, low=0.0, high=1.0), np.full((len(beliefs), 3), 250, dtype=np.uint8)])
        return draw_grid(rows, figures=here, labels=labels)
