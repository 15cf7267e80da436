"""The exact model of Gymnasium's Blackjack-v1 (infinite deck), over its flattened observation.

A state is the observation (player's sum 0-31, dealer's card 0-10, usable ace 0-1), numbered as
``np.ravel_multi_index(observation, OBSERVATION_SHAPE)``: 704 states, of which a game visits a part.
Actions: 0 sticks, 1 hits. Reward: +1, 0 or -1 at the end, +1.5 for a natural when ``natural`` pays it.

The observation hides one thing: a usable-ace 21 is a natural when dealt and none when hit, and with ``sab``
(the registered default) or ``natural`` the two win differently. A dealt one has the number of its
observation; one made by hitting has the number of the impossible observation (0, dealer's card, 1), so
that the table stays exact with 704 states. `observed_policy` gives a policy over observations the same
action in both.

Source: Sutton & Barto (2018), example 5.1; gymnasium/envs/toy_text/blackjack.py.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

OBSERVATION_SHAPE = (32, 11, 2)
CARDS = {card: (4 if card == 10 else 1) / 13 for card in range(1, 11)}
"""Probability of each card of an infinite deck; tens and pictures count 10, an ace 1."""
DEALER_STICKS = 17
BUST, NATURAL = 0, 22
"""The dealer's final results besides the totals 17-21."""


class Hand(NamedTuple):
    """The player's hand as far as it matters, and the dealer's up-card."""

    total: int
    dealer: int
    usable: bool
    dealt: bool = False

    def hit(self, card: int) -> Hand:
        """Return the hand with one more card."""
        total, usable = _add((self.total, self.usable), card)
        return Hand(total, self.dealer, usable)

    @property
    def natural(self) -> bool:
        """Whether the first two cards make 21."""
        return self.dealt and self.total == 21


class BlackjackModel:
    """Blackjack-v1 as an `EnumerableModel`.

    Args:
        natural: a natural that wins pays 1.5 (ignored with ``sab``).
        sab: the rules of Sutton & Barto: a natural beats everything but a natural.
    """

    n_states = 32 * 11 * 2

    def __init__(self, *, natural: bool = False, sab: bool = False) -> None:
        self.natural = natural and not sab
        self.sab = sab

    def initial_outcomes(self) -> list[tuple[float, Hand]]:
        """Deal two cards to the player and show one of the dealer's."""
        chances: dict[Hand, float] = defaultdict(float)
        for dealer, up in CARDS.items():
            for first, p_first in CARDS.items():
                for second, p_second in CARDS.items():
                    total, usable = _add(_add((0, False), first), second)
                    # Only a natural is remembered as dealt, and only by rules that pay it: else it plays like any 21.
                    dealt = total == 21 and (self.sab or self.natural)
                    chances[Hand(total, dealer, usable, dealt)] += up * p_first * p_second
        return [(probability, hand) for hand, probability in chances.items()]

    def transitions(self, state: Hand, action: int) -> list[tuple[float, Hand, float, bool]]:
        """Return the outcomes of sticking (0) or hitting (1)."""
        if action == 1:
            hands = [(probability, state.hit(card)) for card, probability in CARDS.items()]
            return [(p, hand, -1.0 if hand.total > 21 else 0.0, hand.total > 21) for p, hand in hands]
        chances: dict[float, float] = defaultdict(float)
        for result, probability in dealer_results(state.dealer):
            chances[self._reward(state, result)] += probability
        return [(probability, state, reward, True) for reward, probability in sorted(chances.items())]

    def encode(self, state: Hand) -> int:
        """Return the state's number; see the module's docstring for a 21 made by hitting."""
        hit_to_soft_21 = (self.sab or self.natural) and state.total == 21 and state.usable and not state.dealt
        return observation_index((0 if hit_to_soft_21 else state.total, state.dealer, int(state.usable)))

    @property
    def observed(self) -> NDArray[np.int64]:
        """What the player sees of each state, shape (704,): all soft 21s with one up-card look the same."""
        return observed_policy(np.arange(self.n_states))

    def state_index(self, env: Any) -> int:
        """Return the number of the state an unwrapped, running Blackjack environment is in."""
        total, dealer, usable = env._get_obs()
        return self.encode(Hand(total, dealer, bool(usable), dealt=len(env.player) == 2))

    def _reward(self, hand: Hand, result: int) -> float:
        if self.sab and hand.natural and result != NATURAL:
            return 1.0
        reward = float(np.sign(hand.total - min(result, 21)))
        return 1.5 if self.natural and hand.natural and reward == 1 else reward


def observation_index(observation: ArrayLike) -> int:
    """Return the state number of an observation of Blackjack-v1.

    >>> observation_index((13, 2, 1))
    291
    """
    sum_dealer_ace = tuple(int(part) for part in np.asarray(observation))
    return int(np.ravel_multi_index(sum_dealer_ace, OBSERVATION_SHAPE))


def observed_policy(policy: ArrayLike) -> NDArray[Any]:
    """Return a policy (704,) or (704, 2) that acts alike in states with the same observation.

    Every 21 with a usable ace gets the action of its observation; needed to value on the table what an agent
    learned from observations.
    """
    shared = np.array(policy)
    for dealer in CARDS:
        shared[observation_index((0, dealer, 1))] = shared[observation_index((21, dealer, 1))]
    return shared


@functools.cache
def dealer_results(up_card: int) -> tuple[tuple[int, float], ...]:
    """Return the dealer's final results and their probabilities: 17-21, `BUST`, or `NATURAL`."""
    chances: dict[int, float] = defaultdict(float)

    def play(total: int, usable: bool, *, cards: int, probability: float) -> None:
        if total > 21:
            chances[BUST] += probability
        elif total == 21 and cards == 2:
            chances[NATURAL] += probability
        elif total >= DEALER_STICKS:
            chances[total] += probability
        else:
            for card, chance in CARDS.items():
                play(*_add((total, usable), card), cards=cards + 1, probability=probability * chance)

    play(*_add((0, False), up_card), cards=1, probability=1.0)
    return tuple(sorted(chances.items()))


def _add(hand: tuple[int, bool], card: int) -> tuple[int, bool]:
    """Return the total and whether an ace counts 11, after one more card."""
    total, usable = hand[0] + card, hand[1]
    if usable and total > 21:
        return total - 10, False
    if not usable and card == 1 and total + 10 <= 21:
        return total + 10, True
    return total, usable
