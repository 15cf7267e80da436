"""`Router`: which variant answers which request, by weight, by session or by name."""

from __future__ import annotations

import dataclasses
import secrets
from collections import OrderedDict
from collections.abc import Callable

from policylab.agents.recurrent_policy import Memory
from policylab.deployment.capture.format import Assignment
from policylab.deployment.decision import NEW_SESSION, DecisionRequest, Refusal
from policylab.deployment.served_policy import Draw
from policylab.deployment.traffic import Route, Traffic
from policylab.errors import did_you_mean


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """What a policy with a memory knows of a session's episode: the version of the policy, and its memory."""

    version: str
    memory: Memory


@dataclasses.dataclass(slots=True)
class Session:
    """A client's session.

    Attributes:
        id: its name.
        route: its variant, with the share that this had when it was drawn.
        traffic: the division of requests in force then.
        expires: monotonic seconds.
        n_steps: decisions it took.
        remembered: by a policy with a memory; None before the first decision.
    """

    id: str
    route: Route
    traffic: Traffic
    expires: float
    n_steps: int = 0
    remembered: Remembered | None = None


class Sessions:
    """Sessions by id, forgotten when they expire or, the least recently used first, when there are too many.

    Args:
        expire_s: time after the last use.
        max_sessions: most sessions at once.
        clock: monotonic seconds.
    """

    def __init__(self, *, expire_s: float, max_sessions: int, clock: Callable[[], float]) -> None:
        self.expire_s = expire_s
        self.max_sessions = max_sessions
        self.n_evicted = 0
        self._clock = clock
        self._held: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        self._forget_expired()
        return len(self._held)

    def find(self, session_id: str) -> Session | None:
        """Return a live session, whose time to expire begins anew."""
        self._forget_expired()
        session = self._held.get(session_id)
        if session is not None:
            session.expires = self._clock() + self.expire_s
            self._held.move_to_end(session_id)
        return session

    def begin(self, session_id: str, *, route: Route, traffic: Traffic) -> Session:
        """Bind a session to the variant of a route."""
        self._forget_expired()
        while len(self._held) >= self.max_sessions:
            self._held.popitem(last=False)
            self.n_evicted += 1
        session = Session(session_id, route, traffic, self._clock() + self.expire_s)
        self._held[session_id] = session
        return session

    def close(self, session_id: str) -> bool:
        """Forget a session; return whether there was one."""
        self._forget_expired()
        return self._held.pop(session_id, None) is not None

    def _forget_expired(self) -> None:
        now = self._clock()
        while self._held and next(iter(self._held.values())).expires <= now:  # oldest use first
            self._held.popitem(last=False)


class Router:
    """Finds the variant of a request.

    Args:
        traffic: how requests are divided now; may be replaced.
        sessions: which keep their variant.
        secret: of the endpoint; makes draws repeatable.
    """

    def __init__(self, traffic: Traffic, sessions: Sessions, *, secret: bytes) -> None:
        self.traffic = traffic
        self.sessions = sessions
        self._secret = secret

    def route(self, request: DecisionRequest, draw: Draw) -> tuple[Route, Session | None, Assignment]:
        """Return the variant, the session if the request is of one, and how the variant was found.

        Raises:
            Refusal: it names a variant that there is not.
        """
        session_id = request.session_id
        if session_id is None and request.target_variant is None:
            routes = self.traffic.routes
            return routes[0] if len(routes) == 1 else self.traffic.drawn(draw.of_variant), None, "random"
        session = None if session_id is None or session_id == NEW_SESSION else self.sessions.find(session_id)
        if request.target_variant is not None:
            return self._named(request.target_variant, draw), session, "target"
        assert session_id is not None
        if session is None or not self.traffic.holds(session.route.variant):
            session = self.begin(secrets.token_hex(16) if session_id == NEW_SESSION else session_id)
        return session.route, session, "session"

    def begin(self, session_id: str) -> Session:
        """Begin a session and draw its variant."""
        route = self.traffic.drawn(Draw(self._secret, f"session {session_id}").of_variant)
        return self.sessions.begin(session_id, route=route, traffic=self.traffic)

    def _named(self, name: str, draw: Draw) -> Route:
        route = self.traffic.named(name, uniform=draw.of_variant)
        if route is None:
            known = [one.variant.name for one in self.traffic.routes]
            hint = did_you_mean(name, known)
            raise Refusal(f"no variant '{name[:63]}'{hint} (known: {', '.join(known)})", kind="invalid")
        return route
