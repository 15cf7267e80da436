"""`DialogEnv`: find a restaurant for a simulated user over a noisy line."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from policylab.envs.arguments import checked_count, checked_probability
from policylab.envs.dialogs.dialog_domain import ANY, REQUESTS, SLOTS, Act, Restaurant, Speech, restaurants, value_name
from policylab.envs.dialogs.dialog_drawing import dialog_picture
from policylab.envs.dialogs.dialog_user import AgendaUser, drawn_goal, heard
from policylab.envs.table_env import no_such_action
from policylab.errors import EnvironmentRuleError

OFFER = 2 * len(SLOTS)
CLOSE = OFFER + 1 + len(REQUESTS)
N_ACTIONS = CLOSE + 1
MATCH_BINS = (0, 1, 2, 6)
"""Smallest numbers of matching restaurants that the observation tells apart."""


def ask(slot: int) -> int:
    """Return the action that asks for a slot."""
    return slot


def confirm(slot: int) -> int:
    """Return the action that asks whether a slot was understood."""
    return len(SLOTS) + slot


def tell(request: int) -> int:
    """Return the action that answers a request."""
    return OFFER + 1 + request


class DialogReading(NamedTuple):
    """What the system knows, as an observation shows it: flags 0 or 1, float32.

    Attributes:
        acts: which acts the last utterance was heard to contain, shape (5,), in the order of `Act`.
        last_action: the system's last action, one-hot, shape (15,); zeros before the first.
        filled, confirmed: for each slot, whether a value was heard and whether it was confirmed, shape (5,).
        requested, answered: for each request, whether it was heard and whether it was answered, shape (3,).
        offered: whether an offer stands, shape (1,).
        matches: how many restaurants fit what was heard, one-hot over 0, 1, 2 to 5, 6 or more, shape (4,).
        turn: share of the turns used, shape (1,).
    """

    acts: NDArray[np.float32]
    last_action: NDArray[np.float32]
    filled: NDArray[np.float32]
    confirmed: NDArray[np.float32]
    requested: NDArray[np.float32]
    answered: NDArray[np.float32]
    offered: NDArray[np.float32]
    matches: NDArray[np.float32]
    turn: NDArray[np.float32]

    @classmethod
    def of(cls, observation: ArrayLike) -> DialogReading:
        """Return the parts of an observation of `DialogEnv`."""
        return cls(*np.split(np.asarray(observation, dtype=np.float32), np.cumsum(_WIDTHS)[:-1]))


_WIDTHS = (len(Act), N_ACTIONS, len(SLOTS), len(SLOTS), len(REQUESTS), len(REQUESTS), 1, len(MATCH_BINS), 1)


@dataclasses.dataclass(slots=True)
class _Knowledge:
    """What the system has understood so far.

    Attributes:
        values: the value heard for each slot, None if none was.
        offer: the offer that stands.
        acts: the acts heard last.
    """

    values: list[int | None] = dataclasses.field(default_factory=lambda: [None] * len(SLOTS))
    confirmed: list[bool] = dataclasses.field(default_factory=lambda: [False] * len(SLOTS))
    requested: set[int] = dataclasses.field(default_factory=set)
    answered: set[int] = dataclasses.field(default_factory=set)
    offer: Restaurant | None = None
    acts: set[Act] = dataclasses.field(default_factory=set)
    last_action: int | None = None
    turn: int = 0

    def act(self, action: int, *, offer: Restaurant | None) -> None:
        """Note what the system did."""
        self.turn += 1
        self.last_action = action
        if action == OFFER:
            if offer != self.offer:
                self.answered.clear()
            self.offer = offer
        elif OFFER < action < CLOSE and self.offer is not None:
            self.answered.add(action - tell(0))

    def understand(self, speeches: list[Speech]) -> None:
        """Note what the user was heard to say in answer."""
        self.acts = {speech.act for speech in speeches}
        asked = self.last_action
        if asked is not None and confirm(0) <= asked < OFFER:
            slot = asked - confirm(0)
            if Act.AFFIRM in self.acts:
                self.confirmed[slot] = self.values[slot] is not None
            elif Act.NEGATE in self.acts:
                self.values[slot], self.confirmed[slot] = None, False
        elif asked == OFFER and Act.NEGATE in self.acts:
            self.offer = None
        for speech in speeches:
            if speech.act is Act.INFORM and speech.slot is not None:
                self.values[speech.slot], self.confirmed[speech.slot] = speech.value, False
            elif speech.act is Act.REQUEST and speech.slot is not None:
                self.requested.add(speech.slot)


class DialogEnv(gym.Env[NDArray[np.float32], int]):
    """Fill the slots of a restaurant search, offer one, answer questions, and close.

    - **User**: draws a goal that some restaurant meets (2 to 5 constraints, 1 to 3 requests) and follows an agenda
      (`dialog_user`). Constraints come first, unasked or asked; an offer that breaks one is refused by
      naming it; a fitting one is followed by the requests, one at a time, then thanks.
    - **Noise**: each act is misunderstood with probability ``intent_error`` (another act, content lost), else its slot
      with probability ``slot_error`` (another value). The system never sees what was really said.
    - **Observation**: 42 numbers in [0, 1], float32, named by `DialogReading`. Values themselves are left out, so that
      what is learned holds for all of them; the system looks them up in the knowledge base.
    - **Actions**: 0-4 ask for a slot, 5-9 confirm a slot, 10 offer the first restaurant that fits what was heard,
      11-13 tell phone, address, hours, 14 close. Slots: food, area, price, stars, terrace.
    - **Rewards**: -1 a turn; the last turn brings 2 ``max_turns`` for success, -``max_turns`` for failure instead.
      Success is to close after a fitting offer with every request answered; after ``max_turns`` turns the user hangs
      up.

    The dialog is partially observable: a misheard value looks like a right one.

    Args:
        intent_error: probability that an act is misunderstood, in [0, 1].
        slot_error: probability that a value or request is misheard, in [0, 1].
        talkative: probability that the user volunteers a further constraint, in [0, 1].
        n_restaurants: size of the knowledge base, 1 to 1000.
        max_turns: turns of the system until the user hangs up, 1 to 100.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: rewards, state and error model after TC-Bot (Li et al., "End-to-end task-completion neural dialogue
    systems", IJCNLP 2017; its turns count both sides, ours the system's). Domain and knowledge base are made up.

    >>> env = DialogEnv()
    >>> observation, _ = env.reset(seed=1)
    >>> observation.shape, DialogReading.of(observation).filled.sum() >= 0
    ((42,), np.True_)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 1}  # type: ignore[misc]

    def __init__(
        self,
        *,
        intent_error: float = 0.05,
        slot_error: float = 0.15,
        talkative: float = 0.3,
        n_restaurants: int = 60,
        max_turns: int = 20,
        render_mode: str | None = None,
    ) -> None:
        self.intent_error = checked_probability("intent_error", intent_error)
        self.slot_error = checked_probability("slot_error", slot_error)
        self.talkative = checked_probability("talkative", talkative)
        for name, value, most in (("n_restaurants", n_restaurants, 1000), ("max_turns", max_turns, 100)):
            if not 1 <= checked_count(name, value) <= most:
                raise EnvironmentRuleError(f"`{name}` must be from 1 to {most}, got {value}")
        self.places = restaurants(n_restaurants)
        self._values = np.array([place.values for place in self.places])
        self.max_turns = max_turns
        self.observation_space = gym.spaces.Box(0.0, 1.0, (sum(_WIDTHS),), np.float32)
        self.action_space = gym.spaces.Discrete(N_ACTIONS)
        self.render_mode = render_mode
        self.knowledge = _Knowledge()
        self.user: AgendaUser | None = None
        self.transcript: list[tuple[str, str, str]] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin with a new user, who speaks first."""
        super().reset(seed=seed)
        goal = drawn_goal(self.places, rng=self.np_random)
        self.user = AgendaUser(goal, talkative=self.talkative, rng=self.np_random)
        self.knowledge, self.transcript = _Knowledge(), []
        self._hear(self.user.opening(rng=self.np_random))
        return self._observation(), {"success": False}

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Say something and hear the answer.

        Raises:
            EnvironmentRuleError: the environment has no such action.
        """
        if action not in range(N_ACTIONS):
            raise no_such_action(action, n_actions=N_ACTIONS)
        assert self.user is not None, "reset comes first"
        fitting = self._fitting().tolist() if action == OFFER else []
        self.knowledge.act(int(action), offer=self.places[fitting[0]] if fitting else None)
        self.transcript.append(("system", self._words(int(action)), ""))
        if action == CLOSE or self.knowledge.turn == self.max_turns:
            success = bool(action == CLOSE and self.user.satisfied)
            self.knowledge.acts = set()
            reward = 2.0 * self.max_turns if success else -float(self.max_turns)
            return self._observation(), reward, True, False, {"success": success}
        self._hear(self._answer(int(action)))
        return self._observation(), -1.0, False, False, {"success": False}

    def _answer(self, action: int) -> list[Speech]:
        user, rng = self.user, self.np_random
        assert user is not None
        if action < confirm(0):
            return user.asked(action, rng=rng)
        if action < OFFER:
            slot = action - confirm(0)
            return user.confirming(slot, self.knowledge.values[slot])
        if action == OFFER:
            return user.offered(self.knowledge.offer, rng=rng)
        return user.told(action - tell(0)) if self.knowledge.offer is not None else [Speech(Act.NEGATE)]

    def _hear(self, said: list[Speech]) -> None:
        understood = heard(said, intent_error=self.intent_error, slot_error=self.slot_error, rng=self.np_random)
        self.knowledge.understand(understood)
        self.transcript.append(("user", _joined(said), _joined(understood)))

    def _fitting(self) -> NDArray[np.intp]:
        """Return the places in the knowledge base of what fits the values heard."""
        wanted = np.array([ANY if value is None else value for value in self.knowledge.values])
        return np.flatnonzero(((self._values == wanted) | (wanted == ANY)).all(axis=1))

    def _observation(self) -> NDArray[np.float32]:
        known = self.knowledge
        n_fitting = len(self._fitting())
        matches = np.zeros(len(MATCH_BINS))
        matches[int(np.searchsorted(MATCH_BINS, n_fitting, side="right")) - 1] = 1.0
        last = np.zeros(N_ACTIONS)
        if known.last_action is not None:
            last[known.last_action] = 1.0
        parts = (
            [act in known.acts for act in Act],
            last,
            [value is not None for value in known.values],
            known.confirmed,
            [request in known.requested for request in range(len(REQUESTS))],
            [request in known.answered for request in range(len(REQUESTS))],
            [known.offer is not None],
            matches,
            [known.turn / self.max_turns],
        )
        return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])

    def _words(self, action: int) -> str:
        """Return what the system says."""
        if action < confirm(0):
            return f"which {SLOTS[action]}?"
        if action < OFFER:
            slot = action - confirm(0)
            return f"{SLOTS[slot]}: {value_name(slot, self.knowledge.values[slot])}, right?"
        if action == OFFER:
            offer = self.knowledge.offer
            return f"how about {offer.name}?" if offer is not None else "there is none like that"
        return "good bye" if action == CLOSE else f"the {REQUESTS[action - tell(0)]} is ..."

    def render(self) -> Any:
        """Return the last exchange as text (``ansi``) or the dialog as an image (``rgb_array``)."""
        if self.render_mode == "ansi":
            return "".join(f"{who}: {said}{_aside(said, got)}\n" for who, said, got in self.transcript[-2:])
        if self.render_mode == "rgb_array":
            values = [value_name(slot, value) for slot, value in enumerate(self.knowledge.values)]
            slots = list(zip(SLOTS, values, self.knowledge.confirmed, strict=True))
            lines = [(who, said + _aside(said, got)) for who, said, got in self.transcript]
            return dialog_picture(lines, slots=slots)
        return None


def _joined(speeches: list[Speech]) -> str:
    return ", ".join(str(speech) for speech in speeches)


def _aside(said: str, understood: str) -> str:
    return f"  (heard: {understood})" if understood and understood != said else ""
