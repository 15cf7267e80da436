"""`PolicyServer`: the decisions of an endpoint, without a transport.

    begin(request) -> Begun --choose--> finish(begun, choices) -> Answer

`decide` does all of it. A transport that must not wait calls the three steps, with `choose` on another thread. The
first and the last step are short and hold a lock; choosing, which runs the policy, does not.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from gymnasium import spaces

from policylab.deployment.capture.recorder import Recorder, Served, is_power_of_two
from policylab.deployment.capture.rewards import Rewards
from policylab.deployment.decision import NEW_SESSION, Answer, Decision, DecisionRequest, Refusal
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.fleet import Candidate, Fleet, Shadow
from policylab.deployment.guardrails.comparison import Comparison
from policylab.deployment.retries import Retries, fingerprint
from policylab.deployment.routing import Remembered, Router, Session, Sessions
from policylab.deployment.served_policy import Choice, Chosen, Draw
from policylab.deployment.traffic import Route, Traffic
from policylab.errors import UserError, did_you_mean

REMEMBER_S = 600.0
N_COMPUTING = 2
"""Threads on which decisions with a deadline are computed."""
logger = logging.getLogger(__name__)


class Begun(msgspec.Struct, frozen=True):
    """A request with its route and its random numbers, before the policy is asked."""

    request: DecisionRequest
    decision_id: str
    draw: Draw
    route: Route
    assignment: Any
    session: Session | None
    remembered: Remembered | None
    first_step: int | None
    key: str | None
    fingerprint: int
    started: float


@dataclasses.dataclass(frozen=True, slots=True)
class Shared:
    """What the servers of one endpoint share, if there are several: one for each of its models.

    Attributes:
        recorder: writes.
        retries: remembers the answers of all.
        threads: on which decisions with a deadline are computed.
        scope: tells this server's request ids from those of the others.
    """

    recorder: Recorder
    retries: Retries
    threads: concurrent.futures.ThreadPoolExecutor
    scope: str


class PolicyServer:
    """Decides for one endpoint.

    Args:
        fleet: the version that answers at first.
        secret: at least 16 bytes that make decisions repeatable from one start to the next; default: fresh ones.
        shared: with other servers; default: all of it is its own.
        clock: monotonic seconds.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        secret: bytes | None = None,
        shared: Shared | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        config = fleet.config
        self.config = config
        self.fleet = fleet
        self._secret = (secret or secrets.token_bytes(32))[:64]
        sessions = Sessions(expire_s=config.sessions.expire_s, max_sessions=config.sessions.max_sessions, clock=clock)
        self.router = Router(Traffic([(fleet, 1.0)]), sessions, secret=self._secret)
        self._shared = shared
        self._scope = "" if shared is None else shared.scope
        self.recorder = Recorder(config.name, config.capture) if shared is None else shared.recorder
        self.rewards = Rewards(self.recorder, n_remembered=config.limits.remembered_ids, wall_clock=wall_clock)
        self.retries = own_retries(config, clock=clock) if shared is None else shared.retries
        self.candidate: Candidate | None = None
        self.comparison: Comparison | None = None
        self.observers: list[Callable[[Begun, Answer], None]] = []
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self.deadline_s = None if config.limits.deadline_ms is None else config.limits.deadline_ms / 1000.0
        self._threads = None
        if self.deadline_s is not None:
            self._threads = concurrent.futures.ThreadPoolExecutor(N_COMPUTING) if shared is None else shared.threads
        self._n_computing = 0

    # ------------------------------------------------------------------ deciding

    def decide(self, request: DecisionRequest) -> Answer:
        """Return the decisions of one request.

        Raises:
            Refusal: the request breaks a rule, or the policy failed and there is no fallback.
        """
        begun = self.begin(request)
        if isinstance(begun, Answer):
            return begun
        if self._threads is None:
            return self.finish(begun, self.choose(begun))
        future = self.start(begun)
        try:
            return self.finish(begun, None if future is None else future.result(self.deadline_s))
        except TimeoutError:
            assert future is not None
            future.cancel()
            return self.finish(begun, None)

    def begin(self, request: DecisionRequest) -> Begun | Answer:
        """Return the request with its route, or the answer if it is a retry of one that was answered.

        Raises:
            Refusal: the request breaks a rule of the endpoint.
        """
        started = time.perf_counter()
        if len(request.observations) != 1 or request.masks is not None:
            self._check(request)
        key = _key(request, self._scope)
        told_by = 0 if key is None else fingerprint(request)
        with self._lock:
            if key is not None and (found := self.retries.recall(key, fingerprint=told_by)):
                return found
            decision_id = os.urandom(16).hex() if key is None else self._named(key)
            draw = Draw(self._secret, decision_id)
            route, session, assignment = self.router.route(request, draw)
            first_step = request.step
            if session is not None:
                first_step = session.n_steps if first_step is None else first_step
                session.n_steps = first_step + len(request.observations)
            remembered = None if session is None else session.remembered
        return Begun(
            request, decision_id, draw, route, assignment, session, remembered, first_step, key, told_by, started
        )

    def choose(self, begun: Begun) -> Chosen | Exception | None:
        """Ask the policy; what it raises is returned, for `finish` to judge."""
        policy, request = begun.route.variant.policy, begun.request
        try:
            if begun.session is None:
                return Chosen(policy.choose(request.observations, request.masks, draw=begun.draw))
            known = begun.remembered if begun.remembered and begun.remembered.version == policy.version else None
            memory = None if known is None else known.memory
            return policy.choose_next(request.observations, request.masks, memory=memory, draw=begun.draw)
        except Exception as error:
            return error

    def start(self, begun: Begun) -> concurrent.futures.Future[Chosen | Exception | None] | None:
        """Ask the policy on another thread; None if so many requests wait there that it would be too late."""
        assert self._threads is not None
        with self._lock:
            if self._n_computing >= self.config.limits.in_flight:
                return None
            self._n_computing += 1
        future = self._threads.submit(self.choose, begun)
        future.add_done_callback(self._computed)
        return future

    def _computed(self, _: object) -> None:
        with self._lock:
            self._n_computing -= 1

    def finish(self, begun: Begun, chosen: Chosen | Exception | None) -> Answer:
        """Return the answer made of what the policy chose; None means that it was too late.

        Raises:
            Refusal: the observation does not fit, or the policy failed and there is no fallback.
        """
        counts = begun.route.variant.counts
        if isinstance(chosen, Exception):
            self._judge(begun, chosen)
            chosen = None
        with self._lock:
            if begun.key is not None and (found := self.retries.recall(begun.key, fingerprint=begun.fingerprint)):
                return found
            if begun.session is not None:
                self._remember(begun.session, begun, chosen=chosen)
            answer = self._answer(begun, None if chosen is None else chosen.choices)
            if begun.key is not None:
                self.retries.remember(begun.key, answer, fingerprint=begun.fingerprint)
            counts.count(
                n_decisions=len(answer.decisions),
                latency_s=time.perf_counter() - begun.started,
                source=answer.decisions[0].source,
            )
        for observe in self.observers:
            observe(begun, answer)
        if self.config.capture is not None or self.candidate is not None or begun.route.fleet.shadows:
            self._record(begun, answer)  # afterwards: what is recorded may be told to an observer that must know of it
        return answer

    def _remember(self, session: Session, begun: Begun, *, chosen: Chosen | None) -> None:
        """Keep what the policy remembers for the session's next request; the fallback action leaves it as it was.

        Raises:
            Refusal: another request of the session has been decided since this one began.
        """
        if chosen is None or chosen.memory is None:
            return
        if session.remembered is not begun.remembered:
            raise Refusal(
                "another request of this session was decided at the same time, and the policy remembers one step after "
                "the other; send a session's requests one by one",
                kind="busy",
            )
        session.remembered = Remembered(begun.route.variant.policy.version, chosen.memory)

    def _check(self, request: DecisionRequest) -> None:
        n = len(request.observations)
        if not 1 <= n <= self.config.limits.batch:
            raise Refusal(
                f"a request has 1 to {self.config.limits.batch} observations (limits.batch), got {n}; split it",
                kind="too_large" if n else "observation",
            )
        if request.masks is None:
            return
        n_actions = next(iter(self.fleet.variants.values())).policy.n_actions
        if n_actions is None or len(request.masks) != n:
            raise Refusal("a mask is for each observation, of a policy that chooses from a list", kind="observation")
        for mask in request.masks:
            if mask is not None and (mask.shape != (n_actions,) or not mask.any()):
                raise Refusal(
                    f"a mask says true or false of each of the {n_actions} actions, and true of at least one",
                    kind="observation",
                )

    def _named(self, key: str) -> str:
        return hashlib.blake2b(key.encode(), key=self._secret, digest_size=16).hexdigest()

    def open_session(self) -> tuple[str, float]:
        """Begin a session; return its id and when it expires, in seconds since 1970."""
        with self._lock:
            session = self.router.begin(secrets.token_hex(16))
        return session.id, self._wall_clock() + self.sessions.expire_s

    def close_session(self, session_id: str) -> bool:
        """End a session; return whether there was one."""
        with self._lock:
            return self.sessions.close(session_id)

    @property
    def sessions(self) -> Sessions:
        """The sessions of clients."""
        return self.router.sessions

    @property
    def n_sessions(self) -> int:
        """Live sessions."""
        with self._lock:
            return len(self.sessions)

    @property
    def traffic(self) -> Traffic:
        """How requests are divided."""
        return self.router.traffic

    def _judge(self, begun: Begun, error: Exception) -> None:
        """Raise what a failure of the policy means to the client, unless the fallback action covers it."""
        space = begun.route.variant.policy.bundle.observation_space
        if isinstance(error, UserError) and not all(_contains(space, one) for one in begun.request.observations):
            raise Refusal(str(error), kind="observation") from error
        variant = begun.route.variant
        with self._lock:
            variant.counts.n_failures += 1
            variant.counts.n_covered += begun.route.fleet.fallback is not None
        if is_power_of_two(variant.counts.n_failures):
            logger.error("variant '%s' failed %d times", variant.name, variant.counts.n_failures, exc_info=error)
        if begun.route.fleet.fallback is None:
            raise Refusal(f"the policy of variant '{variant.name}' failed", kind="failed") from error

    def _answer(self, begun: Begun, choices: Sequence[Choice] | None) -> Answer:
        request, route, session = begun.request, begun.route, begun.session
        policy, n, now = route.variant.policy, len(request.observations), self._wall_clock()
        source: Any = "policy"
        if choices is None:
            source, choices = "fallback", [Choice.of(route.fleet.fallback, 0.0)] * n
        decisions = [
            Decision(
                choice.action,
                choice.propensity,
                choice.log_propensity,
                policy.propensity_kind if source == "policy" else "probability",
                route.variant.name,
                route.share,
                begun.assignment,
                policy.version,
                begun.decision_id if n == 1 else f"{begun.decision_id}-{i}",
                request.inference_id if n == 1 else None,
                source,
                policy.exploration,
                now,
                request.episode or (session.id if session else None),
                None if begun.first_step is None else begun.first_step + i,
            )
            for i, choice in enumerate(choices)
        ]
        new = request.session_id == NEW_SESSION and session is not None
        return Answer(tuple(decisions), (session.id, now + self.sessions.expire_s) if new and session else None)

    # ------------------------------------------------------------------ recording

    def _record(self, begun: Begun, answer: Answer) -> None:
        capture, fleet, candidate = self.config.capture, begun.route.fleet, self.candidate
        uniform = begun.draw.of_sampling
        written = capture is not None and uniform < capture.sampling
        shadows: tuple[Shadow, ...] = tuple(
            shadow
            for shadow in fleet.shadows
            if shadow.sampling >= 1.0 or Draw(shadow.name.encode(), begun.decision_id).of_sampling < shadow.sampling
        )
        if not written and not shadows and candidate is None:
            return
        masks = begun.request.masks
        for i, decision in enumerate(answer.decisions):
            observation, mask = begun.request.observations[i], None if masks is None else masks[i]
            self.recorder.offer(Served(fleet, decision, observation, mask, shadows, candidate, written))

    # ------------------------------------------------------------------ changing

    def set_weights(self, weights: dict[str, float]) -> None:
        """Change the weights of some variants of the version that serves; the others keep theirs.

        Raises:
            Refusal: an unknown variant, or no traffic left to any.
        """
        with self._lock:
            variants = self.fleet.variants
            for name in weights:
                if name not in variants:
                    hint = did_you_mean(name, variants)
                    raise Refusal(f"no variant '{name[:63]}'{hint} (known: {', '.join(variants)})", kind="invalid")
            changed = {name: weights.get(name, variant.weight) for name, variant in variants.items()}
            if not sum(changed.values()) > 0.0:
                raise Refusal("the weights of the variants must not all be 0", kind="invalid")
            for name, weight in changed.items():
                variants[name].weight = weight
            self.router.traffic = Traffic(self.traffic.fleets)

    def set_traffic(self, shares: Sequence[tuple[Fleet, float]], *, serving: Fleet) -> None:
        """Divide all requests among fleets; ``serving`` is the one whose weights `set_weights` changes."""
        with self._lock:
            self.router.traffic = Traffic(shares)
            self.fleet = serving

    def close(self) -> None:
        """Write what waits to be recorded and stop the threads; what is shared goes on."""
        if self._shared is not None:
            return
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self.recorder.close()


def own_retries(config: EndpointConfig, *, clock: Callable[[], float] = time.monotonic) -> Retries:
    """Return the memory of answers that an endpoint file asks for."""
    return Retries(n_most=config.limits.remembered_ids, remember_s=REMEMBER_S, clock=clock)


def _key(request: DecisionRequest, scope: str) -> str | None:
    """Return what tells a retry of this request; the ids that clients give and those of their libraries are apart."""
    if request.inference_id is not None:
        return f"id {request.inference_id}{scope}"
    return None if request.retry_key is None else f"attempt {request.retry_key}{scope}"


def _contains(space: spaces.Space[Any], observation: Any) -> bool:
    try:
        return bool(space.contains(observation))
    except (AttributeError, TypeError, ValueError):
        return False
