"""`Rollout`: a new version of an endpoint takes over step by step, or gives way again; at any moment it can be resumed.

    serving --update--> step 0 --bake--> step 1 ... --bake--> serving the new version
                           |               |
                           +---alarm-------+-----> serving the old version

Both versions are loaded throughout and every change is a change of shares, so that no request fails of it. A step is in
the endpoint's state file before it takes effect; a rollback takes effect first. After a restart the step that was under
way begins its bake time anew, with the evidence it had.

Source: Amazon SageMaker Developer Guide, "Deployment guardrails" (blue/green deployments with canary and linear traffic
shifting); Argo Rollouts' separation of plan, traffic and analysis.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from policylab.deployment.decision import Answer, Refusal
from policylab.deployment.fleet import Candidate, Fleet
from policylab.deployment.guardrails.alarms import AlarmWatch
from policylab.deployment.guardrails.evidence import BeforeActing, Evidence, SideBySide
from policylab.deployment.policy_server import Begun, PolicyServer
from policylab.deployment.state import EndpointState, Event, Return, StateFile, Update
from policylab.errors import StorageError

N_EVENTS = 100
SAVE_S = 1.0
logger = logging.getLogger(__name__)


class Rollout:
    """Moves the traffic of a server between two versions.

    Args:
        server: serves the current version.
        state: of the endpoint, as it was or as it begins.
        file: where the state is kept; None keeps it in memory alone.
        clock: monotonic seconds.
        wall_clock: seconds since 1970, for the events.
    """

    def __init__(
        self,
        server: PolicyServer,
        state: EndpointState,
        *,
        file: StateFile | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.state = state
        self.new: Fleet | None = None
        self.evidence: Evidence | None = None
        self.watch: AlarmWatch | None = None
        self._server = server
        self._old = server.fleet
        self._file = file
        self._clock = clock
        self._wall_clock = wall_clock
        self._step_began = clock()
        self._saved = clock()
        self._unsaved = False
        self._lock = threading.RLock()
        server.observers.append(self._decided)

    # ------------------------------------------------------------------ verbs

    def begin(self, fleet: Fleet) -> None:
        """Begin the update to a loaded version, by the guardrail of its own file.

        Raises:
            Refusal: another update is under way.
        """
        with self._lock:
            if self.state.update is not None:
                raise Refusal("an update is under way; wait for its end, or roll it back", kind="invalid")
            text = f"generation {fleet.generation}, {fleet.config.guardrail.kind}"
            self._commit("update", text, update=Update(config=fleet.config))
            self._go(fleet, step=0)

    def resume(self, fleet: Fleet) -> None:
        """Go on with the update of the stored state, whose new version has been loaded."""
        with self._lock:
            update = self.state.update
            assert update is not None
            self._note("resumed", f"at step {update.step}, its bake time begins anew")
            self._go(fleet, step=update.step, stored=update)
            if update.returning is not None:
                self._stop_watching()
                self._divide(update.returning.share)

    def promote(self, *, full: bool = False) -> None:
        """Take the next step now, whatever bakes or is not proven yet; with ``full`` all that are left.

        Raises:
            Refusal: no update is under way, or it goes back.
            StorageError: the step cannot be stored; it is not taken.
        """
        with self._lock:
            if self.state.update is None or self.new is None:
                raise Refusal("no update is under way; there is nothing to promote", kind="invalid")
            if self.state.update.returning is not None:
                raise Refusal("the update is on its way back; begin it anew when that is over", kind="invalid")
            logger.warning("promoted: asked for")
            self._advance()
            while full and self.new is not None:
                self._advance()

    def rollback(self, reason: str) -> None:
        """Return the traffic to the old version: at once, or the first batch; asked again, the rest at once.

        Raises:
            Refusal: no update is under way.
        """
        with self._lock:
            if self.state.update is None:
                raise Refusal("no update is under way; there is nothing to roll back", kind="invalid")
            if self.new is None or self.state.update.returning is not None:
                self._go_back(0.0, reason)
            else:
                guardrail = self.new.config.guardrail
                self._go_back(guardrail.steps[self.state.update.step] - guardrail.rollback_size, reason)

    def set_weights(self, weights: dict[str, float]) -> None:
        """Change weights of the version that serves.

        Raises:
            Refusal: an update is under way, or the weights do not fit.
        """
        with self._lock:
            if self.state.update is not None:
                raise Refusal("an update is under way and moves the traffic; wait, or roll it back", kind="invalid")
            self._server.set_weights(weights)
            found = {name: variant.weight for name, variant in self._server.fleet.variants.items()}
            self._note("weights", ", ".join(f"{name}={weight:g}" for name, weight in found.items()), weights=found)

    def tick(self) -> None:
        """Look at alarms, evidence and clocks, and do what they ask for; to be called a few times a second."""
        with self._lock:
            if self._unsaved:
                self._save_or_later()
            if self.state.update is None or self.new is None:
                return
            guardrail, returning = self.new.config.guardrail, self.state.update.returning
            baked = self._clock() - self._step_began
            if returning is not None:
                if baked >= guardrail.bake_s:
                    self._go_back(returning.share - guardrail.rollback_size, returning.reason)
                return
            assert self.watch is not None
            reason = self.watch.tripped(self.new, self._server.candidate)
            if reason is not None:
                self.rollback(reason)
                return
            if self.evidence is not None:
                self.evidence.pending.mature()
                verdict = self.evidence.verdict()
                low, high = self.evidence.difference()
                if verdict == "worse":
                    self.rollback(f"reward: new minus old is in [{low:.4g}, {high:.4g}]")
                    return
                if verdict == "inconclusive":
                    if baked > self.evidence.test.max_wait_s:
                        self.rollback(f"no verdict on reward in {self.evidence.test.max_wait_s:g} s")
                    self._save_evidence()
                    return
            if baked < guardrail.bake_s:
                self._save_evidence()
            elif self._server.candidate is None and (reason := self.watch.silent(self.new)) is not None:
                self.rollback(reason)
            else:
                self._advance()

    # ------------------------------------------------------------------ steps

    def _go(self, fleet: Fleet, *, step: int, stored: Update | None = None) -> None:
        """Move the traffic to where a step has it, with what was observed before, if it was."""
        guardrail = fleet.config.guardrail
        share, n_tests = guardrail.steps[step], sum(one < 1.0 for one in guardrail.steps)
        watch = self.watch or AlarmWatch(guardrail.alarms, clock=self._clock, value=stored.value if stored else None)
        self._end()
        self.new, self.watch = fleet, watch
        watch.begin_step(fleet)
        if watch.value is not None:
            self._observe_rewards(watch.value.pending.rewarded)
        if guardrail.promotion is not None and share < 1.0:
            kind = BeforeActing if share == 0.0 else SideBySide
            state = stored.evidence if stored else None
            self.evidence = kind(guardrail.promotion, n_steps=n_tests, clock=self._clock, state=state)
            self._observe_rewards(self.evidence.pending.rewarded)
            if share == 0.0:
                self._server.candidate = Candidate.of(fleet, weighed=self.evidence.pending.weighed)
        self._divide(share)

    def _divide(self, share: float) -> None:
        """Give the new version a share of the traffic, and begin to bake."""
        assert self.new is not None
        shares = [(self._old, 1.0 - share), (self.new, share)]
        self._server.set_traffic([(one, part) for one, part in shares if part > 0.0], serving=self._old)
        self._step_began = self._clock()

    def _go_back(self, share: float, reason: str) -> None:
        """Leave the new version a share of the traffic, or none."""
        assert self.state.update is not None
        if share > 1e-9:
            self._stop_watching()
            self._divide(share)
            back = self.state.update.changed(returning=Return(share=share, reason=reason), evidence=None)
            self._note("rolling back", f"{share:.0%} of the traffic is left: {reason}", update=back)
            return
        self._server.set_traffic([(self._old, 1.0)], serving=self._old)
        self._end()
        self._note("rolled back", reason, update=None)

    def _observe_rewards(self, observe: Callable[[str, float], None]) -> None:
        rewards = self._server.rewards  # replaced, not changed: another thread may be going through the list
        rewards.observers = [*rewards.observers, observe]

    def _advance(self) -> None:
        new, update = self.new, self.state.update
        assert new is not None
        assert update is not None
        step, steps = update.step + 1, new.config.guardrail.steps
        if step < len(steps):
            value = None if self.watch is None or self.watch.value is None else self.watch.value.state
            later = Update(config=new.config, step=step, value=value)
            self._commit("step", f"{steps[step]:.0%} of the traffic", update=later)
            self._go(new, step=step)
            return
        self._commit(
            "updated",
            f"generation {new.generation} has all the traffic",
            config=new.config,
            generation=new.generation,
            weights={name: variant.weight for name, variant in new.variants.items()},
            update=None,
        )
        self._old = new
        self._server.set_traffic([(new, 1.0)], serving=new)
        self._end()

    def _end(self) -> None:
        self._stop_watching()
        self.new = None

    def _stop_watching(self) -> None:
        value = None if self.watch is None else self.watch.value
        gone = [one.pending.rewarded for one in (value, self.evidence) if one is not None]
        rewards = self._server.rewards
        rewards.observers = [observe for observe in rewards.observers if observe not in gone]
        self.evidence, self.watch, self._server.candidate = None, None, None

    def _decided(self, begun: Begun, answer: Answer) -> None:
        evidence, watch, new, session = self.evidence, self.watch, self.new, begun.session
        if new is None:
            return
        if watch is not None and begun.route.fleet is new:
            watch.decided(answer)
        if evidence is None:
            return
        if session is None or session.traffic is self._server.traffic:  # older sessions are the old version's alone
            evidence.decided("new" if begun.route.fleet is new else "old", answer)

    # ------------------------------------------------------------------ state

    def _with_event(self, what: str, text: str, **changes: Any) -> EndpointState:
        event = Event(time_s=self._wall_clock(), what=what, text=text)
        return self.state.changed(**changes, events=(*self.state.events, event)[-N_EVENTS:])

    def _commit(self, what: str, text: str, **changes: Any) -> None:
        """Store a step before it is taken; if that fails, nothing has changed."""
        state = self._with_event(what, text, **changes)
        if self._file is not None:
            self._file.write(state)
        self.state, self._saved = state, self._clock()
        logger.info("%s: %s", what, text)

    def _note(self, what: str, text: str, **changes: Any) -> None:
        """Store what has happened, as soon as the disk allows."""
        self.state = self._with_event(what, text, **changes)
        logger.warning("%s: %s", what, text)
        self._save_or_later()

    def _save_evidence(self) -> None:
        value = None if self.watch is None or self.watch.value is None else self.watch.value.state
        evidence = None if self.evidence is None else self.evidence.state
        update = self.state.update
        if update is None or self._clock() - self._saved < SAVE_S:
            return
        if (value, evidence) != (update.value, update.evidence):
            self.state = self.state.changed(update=update.changed(evidence=evidence, value=value))
            self._save_or_later()

    def _save_or_later(self) -> None:
        self._saved, self._unsaved = self._clock(), False
        try:
            if self._file is not None:
                self._file.write(self.state)
        except StorageError as error:
            self._unsaved = True
            logger.error("the state of the endpoint is not stored yet: %s", error)

    def document(self) -> dict[str, Any]:
        """Return the update under way, if there is one, and the latest events, as JSON."""
        with self._lock:
            update = None
            if self.state.update is not None and self.new is not None:
                steps, back = self.new.config.guardrail.steps, self.state.update.returning
                value = None if self.watch is None else self.watch.value
                update = {
                    "generation": self.new.generation,
                    "kind": self.new.config.guardrail.kind,
                    "step": self.state.update.step,
                    "steps": list(steps),
                    "baked_s": round(self._clock() - self._step_began, 3),
                    "bake_s": self.new.config.guardrail.bake_s,
                    "share": steps[self.state.update.step] if back is None else back.share,
                    "returning": None if back is None else back.reason,
                    "value": None if value is None else {"n": value.state.n, "interval": list(value.interval())},
                    "evidence": None if self.evidence is None else self.evidence.document(),
                }
            events = [event.model_dump(mode="json") for event in self.state.events]
            return {"update": update, "events": events}
