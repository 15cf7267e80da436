"""One EnergyPlus simulation, driven step by step from outside.

EnergyPlus runs in a thread of its own and calls back at the end of each time step; the callback hands over what it read
and waits for the setpoints of the next one. Both directions are queues of length 1.

Source: EnergyPlus 25.2, Data Exchange API (https://energyplus.readthedocs.io/en/latest/datatransfer.html).
"""

from __future__ import annotations

import contextlib
import queue
import re
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from policylab.errors import RunError
from policylab.extras import require

WEATHER_RUN = 3  # kind_of_sim of a run over a weather file; the others size the equipment
RUN_PERIOD = re.compile(r"^\s*RunPeriod\s*,.*?;[^\n]*\n", re.MULTILINE | re.DOTALL | re.IGNORECASE)
START_TIMEOUT_S = 300.0
"""Longest wait for the first step: the largest models size their equipment for minutes."""

OUTDOOR = ("Site Outdoor Air Drybulb Temperature", "Environment")
SUN = ("Site Direct Solar Radiation Rate per Area", "Environment")
ZONE_TEMPERATURE = "Zone Mean Air Temperature"
PEOPLE = "Zone People Occupant Count"
HVAC_METERS = ("Electricity:HVAC", "NaturalGas:HVAC")
"""A building has at least one of them."""


class Reading(NamedTuple):
    """What the building shows at the end of a time step.

    Attributes:
        outdoor_c: outdoor dry-bulb temperature, °C.
        sun_w_m2: direct solar radiation, W/m².
        zones_c: mean air temperature of each zone, °C.
        people: occupants of each zone.
        hvac_j: electricity and gas for heating, cooling and fans during the step, J.
        hour: time of day, hours in [0, 24].
        day_of_year: 1 to 366.
        day_of_week: 1 (Sunday) to 7.
    """

    outdoor_c: float
    sun_w_m2: float
    zones_c: tuple[float, ...]
    people: tuple[float, ...]
    hvac_j: float
    hour: float
    day_of_year: int
    day_of_week: int


class Setpoints(NamedTuple):
    """Temperatures in °C below which a zone is heated and above which it is cooled."""

    heating_c: float
    cooling_c: float


def with_run_period(model: str, *, first_day: tuple[int, int], last_day: tuple[int, int]) -> str:
    """Return the text of a building model whose run periods are replaced by one.

    The models that come with EnergyPlus run three single months, with a jump of the weather at each join.

    Args:
        model: the content of an IDF file.
        first_day: (month, day).
        last_day: (month, day), not before ``first_day`` in the year.
    """
    period = (
        f"\n  RunPeriod,\n    policylab,\n    {first_day[0]}, {first_day[1]}, ,\n    {last_day[0]}, {last_day[1]}, ,\n"
        "    Monday, No, No, No, Yes, Yes;\n"
    )
    return RUN_PERIOD.sub("", model) + period


class Simulation:
    """A running EnergyPlus simulation; `start` it, `advance` it, `close` it.

    Args:
        model: the building, IDF text.
        weather: path of the EPW file.
        zones: names of the zones that are read and controlled.
    """

    def __init__(self, model: str, *, weather: Path, zones: Sequence[str]) -> None:
        self._api: Any = require("pyenergyplus.api", extra="energyplus").EnergyPlusAPI()
        self._zones = tuple(zones)
        self._weather = weather
        self._folder = Path(tempfile.mkdtemp(prefix="policylab-energyplus-"))
        (self._folder / "model.idf").write_text(model)
        self._readings: queue.Queue[Reading | None] = queue.Queue(maxsize=1)
        self._setpoints: queue.Queue[Setpoints | None] = queue.Queue(maxsize=1)
        self._handles: dict[str, Any] = {}
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Reading:
        """Run to the end of the first time step.

        Raises:
            RunError: EnergyPlus refuses the model or the weather.
        """
        self._thread.start()
        return self._next()

    def advance(self, setpoints: Setpoints) -> Reading:
        """Apply ``setpoints`` for one time step and return what the building shows then.

        Raises:
            RunError: the simulation failed, or is over.
        """
        self._setpoints.put(setpoints)
        return self._next()

    def close(self) -> None:
        """Stop the simulation and remove its files; safe to call again."""
        self._stopping = True
        while self._thread.is_alive():
            for full in (self._readings, self._setpoints):
                with contextlib.suppress(queue.Empty):
                    full.get_nowait()
            self._setpoints.put(None)
            self._thread.join(timeout=0.2)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _next(self) -> Reading:
        try:
            reading = self._readings.get(timeout=START_TIMEOUT_S)
        except queue.Empty:
            raise RunError(f"EnergyPlus has not finished a time step in {START_TIMEOUT_S:g} s") from None
        if reading is None:
            raise RunError(f"EnergyPlus stopped: {self._reason()}")
        return reading

    def _reason(self) -> str:
        if self._failure is not None:
            return f"{type(self._failure).__name__}: {self._failure}"
        log = self._folder / "eplusout.err"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        severe = [line.strip(" *") for line in lines if "** Severe" in line or "**  Fatal" in line]
        return severe[0] if severe else "the run period is over"

    def _run(self) -> None:
        """The thread: simulate from start to end."""
        api = self._api
        state = api.state_manager.new_state()
        try:
            api.runtime.set_console_output_status(state, False)
            for name, key in (OUTDOOR, SUN, *((n, z) for z in self._zones for n in (ZONE_TEMPERATURE, PEOPLE))):
                api.exchange.request_variable(state, name, key)
            api.runtime.callback_end_zone_timestep_after_zone_reporting(state, self._end_of_step)
            arguments = ["-d", str(self._folder), "-w", str(self._weather), str(self._folder / "model.idf")]
            api.runtime.run_energyplus(state, arguments)
        except BaseException as error:  # whatever happens here, whoever waits must be told
            self._failure = error
        finally:
            api.state_manager.delete_state(state)
            if not self._stopping:
                self._readings.put(None)

    def _end_of_step(self, state: Any) -> None:
        """Hand over what the building shows, wait for setpoints, apply them."""
        exchange = self._api.exchange
        if self._stopping or self._failure is not None:
            self._api.runtime.stop_simulation(state)
            return
        if exchange.warmup_flag(state) or not exchange.api_data_fully_ready(state):
            return
        if exchange.kind_of_sim(state) != WEATHER_RUN:
            return
        try:
            self._exchange(state, exchange)
        except BaseException as error:  # an exception would be lost in the library that called
            self._failure = error
            self._api.runtime.stop_simulation(state)

    def _exchange(self, state: Any, exchange: Any) -> None:
        if not self._handles:
            self._handles = self._found_handles(state, exchange)
        self._readings.put(self._read(state, exchange))
        setpoints = self._setpoints.get()
        if setpoints is None:
            self._api.runtime.stop_simulation(state)
            return
        for heating, cooling in self._handles["actuators"]:
            exchange.set_actuator_value(state, heating, setpoints.heating_c)
            exchange.set_actuator_value(state, cooling, setpoints.cooling_c)

    def _found_handles(self, state: Any, exchange: Any) -> dict[str, Any]:
        """Look the handles up, once; -1 means that the model has no such thing."""

        def variable(name: str, key: str) -> int:
            return _known(exchange.get_variable_handle(state, name, key), f"variable '{name}' of {key}")

        def actuator(control: str, zone: str) -> int:
            handle = exchange.get_actuator_handle(state, "Zone Temperature Control", control, zone)
            return _known(handle, f"actuator '{control}' of {zone}")

        return {
            "outdoor": variable(*OUTDOOR),
            "sun": variable(*SUN),
            "zones": [variable(ZONE_TEMPERATURE, zone) for zone in self._zones],
            "people": [variable(PEOPLE, zone) for zone in self._zones],
            "meters": self._meters(state, exchange),
            "actuators": [
                (actuator("Heating Setpoint", zone), actuator("Cooling Setpoint", zone)) for zone in self._zones
            ],
        }

    def _meters(self, state: Any, exchange: Any) -> list[int]:
        found = [handle for name in HVAC_METERS if (handle := exchange.get_meter_handle(state, name)) != -1]
        return found or [_known(-1, f"meter {' or '.join(HVAC_METERS)}")]

    def _read(self, state: Any, exchange: Any) -> Reading:
        def value(handle: int) -> float:
            return float(exchange.get_variable_value(state, handle))

        return Reading(
            outdoor_c=value(self._handles["outdoor"]),
            sun_w_m2=value(self._handles["sun"]),
            zones_c=tuple(value(handle) for handle in self._handles["zones"]),
            people=tuple(value(handle) for handle in self._handles["people"]),
            hvac_j=sum(float(exchange.get_meter_value(state, handle)) for handle in self._handles["meters"]),
            hour=float(exchange.current_time(state)),
            day_of_year=int(exchange.day_of_year(state)),
            day_of_week=int(exchange.day_of_week(state)),
        )


def _known(handle: int, what: str) -> int:
    if handle == -1:
        raise RunError(f"the building model has no {what}")
    return handle
