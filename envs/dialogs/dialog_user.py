"""The simulated user: a goal, and an agenda of what is still to be said.

Source: the agenda-based user of Schatzmann et al., "Agenda-based user simulation for bootstrapping a POMDP dialogue
system", NAACL-HLT 2007: the agenda is a stack of acts; what the system says pushes, removes and reorders them, and
the user says what lies on top.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from policylab.envs.dialogs.dialog_domain import ANY, N_VALUES, REQUESTS, SLOTS, Act, Restaurant, Speech


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """What the user wants.

    Attributes:
        constraints: slot -> wanted value; the user does not care about other slots.
        requests: what the user wants to know about the restaurant found, in the order of asking.
    """

    constraints: Mapping[int, int]
    requests: tuple[int, ...]

    def wanted(self, slot: int) -> int:
        """Return the wanted value of a slot, `ANY` if the user does not care."""
        return self.constraints.get(slot, ANY)

    def fits(self, place: Restaurant) -> bool:
        """Whether a restaurant is what the user wants."""
        return place.fits([self.wanted(slot) for slot in range(len(SLOTS))])


def drawn_goal(places: Sequence[Restaurant], *, rng: np.random.Generator) -> Goal:
    """Draw a goal that at least one restaurant meets: two or more constraints, one or more requests."""
    place = places[int(rng.integers(len(places)))]
    slots = rng.permutation(len(SLOTS))[: int(rng.integers(2, len(SLOTS) + 1))].tolist()
    requests = rng.permutation(len(REQUESTS))[: int(rng.integers(1, len(REQUESTS) + 1))].tolist()
    return Goal({slot: place.values[slot] for slot in slots}, tuple(requests))


class AgendaUser:
    """A cooperative, consistent user who says what is on top of the agenda.

    Attributes:
        goal: what the user wants.
        agenda: acts still to be done, the next one last: informs above requests above thanks.
        accepted: the offered restaurant, if it is what the user wants.
    """

    def __init__(self, goal: Goal, *, talkative: float, rng: np.random.Generator) -> None:
        self.goal = goal
        self.talkative = talkative
        self.accepted: Restaurant | None = None
        informs = [Speech(Act.INFORM, slot, value) for slot, value in goal.constraints.items()]
        requests = [Speech(Act.REQUEST, slot) for slot in reversed(goal.requests)]
        self.agenda = [Speech(Act.THANKS), *requests, *(informs[int(i)] for i in rng.permutation(len(informs)))]

    @property
    def satisfied(self) -> bool:
        """Whether a fitting restaurant was offered and every request answered."""
        return self.accepted is not None and self.agenda[-1].act is Act.THANKS

    def opening(self, *, rng: np.random.Generator) -> list[Speech]:
        """Say what one wants, before the system has spoken."""
        return [self.agenda.pop(), *self._more(rng)]

    def asked(self, slot: int, *, rng: np.random.Generator) -> list[Speech]:
        """Answer "which ...?"."""
        return [self._informed(slot), *self._more(rng)]

    def confirming(self, slot: int, value: int | None) -> list[Speech]:
        """Answer "did you say ...?"; a question that names no value is denied."""
        if value is None:
            return [Speech(Act.NEGATE)]
        if value == self.goal.wanted(slot):
            self._drop(Act.INFORM, slot)
            return [Speech(Act.AFFIRM)]
        return [Speech(Act.NEGATE), self._informed(slot)]

    def offered(self, place: Restaurant | None, *, rng: np.random.Generator) -> list[Speech]:
        """Take a fitting restaurant and go on to the requests, or say why another (or none) will not do."""
        if place is not None and self.goal.fits(place):
            if self.accepted not in (None, place):  # answers about another restaurant are void
                self._ask_again()
            self.accepted = place
            self.agenda = [speech for speech in self.agenda if speech.act is not Act.INFORM]
            return [self.agenda[-1]]
        values = (None,) * len(SLOTS) if place is None else place.values
        broken = [slot for slot, value in self.goal.constraints.items() if value != values[slot]]
        return [Speech(Act.NEGATE), self._informed(broken[int(rng.integers(len(broken)))])]

    def told(self, request: int) -> list[Speech]:
        """Take an answer about the restaurant and go on; before there is one, the user is at a loss."""
        if self.accepted is None:
            return [Speech(Act.NEGATE)]
        self._drop(Act.REQUEST, request)
        return [self.agenda[-1]]

    def _informed(self, slot: int) -> Speech:
        self._drop(Act.INFORM, slot)
        return Speech(Act.INFORM, slot, self.goal.wanted(slot))

    def _more(self, rng: np.random.Generator) -> list[Speech]:
        volunteers = rng.random() < self.talkative
        return [self.agenda.pop()] if volunteers and self.agenda[-1].act is Act.INFORM else []

    def _drop(self, act: Act, slot: int) -> None:
        self.agenda = [speech for speech in self.agenda if (speech.act, speech.slot) != (act, slot)]

    def _ask_again(self) -> None:
        self.agenda = [Speech(Act.THANKS), *(Speech(Act.REQUEST, slot) for slot in reversed(self.goal.requests))]


def heard(said: Sequence[Speech], *, intent_error: float, slot_error: float, rng: np.random.Generator) -> list[Speech]:
    """Return what a noisy channel makes of an utterance.

    With probability ``intent_error`` an act is taken for one of the others, its content lost. Otherwise, with
    probability ``slot_error``, an informed value is taken for another of its slot, or a request for another request.

    Source: the error model of TC-Bot (Li et al., IJCNLP 2017), intent and slot errors.
    """
    return [_misheard(speech, intent_error=intent_error, slot_error=slot_error, rng=rng) for speech in said]


def _misheard(speech: Speech, *, intent_error: float, slot_error: float, rng: np.random.Generator) -> Speech:
    wrong_intent, wrong_slot = (rng.random(2) < (intent_error, slot_error)).tolist()
    if wrong_intent:
        return Speech(Act(_another(speech.act, len(Act), rng=rng)))
    if not wrong_slot or speech.slot is None:
        return speech
    if speech.act is Act.REQUEST:
        return Speech(Act.REQUEST, _another(speech.slot, len(REQUESTS), rng=rng))
    n_values = N_VALUES[speech.slot]
    if speech.value == ANY:
        return dataclasses.replace(speech, value=int(rng.integers(n_values)))
    assert speech.value is not None  # what a user says is complete
    return dataclasses.replace(speech, value=_another(speech.value, n_values, rng=rng))


def _another(index: int, n: int, *, rng: np.random.Generator) -> int:
    return (index + 1 + int(rng.integers(n - 1))) % n
