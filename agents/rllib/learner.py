"""One algorithm of RLlib from its building to its end: train, save, restore, read."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from policylab.agents.rllib import engine
from policylab.agents.rllib.environment import forget_registration, register
from policylab.agents.rllib.extension import MODULE, take_measured
from policylab.agents.rllib.placement import check_room
from policylab.agents.rllib.replay import load_buffer, save_buffer
from policylab.agents.rllib.settings import RllibSettings
from policylab.agents.rllib.streams import GlobalStreams
from policylab.errors import CheckpointError

REPLAY = "replay.npz"
MAX_SEED = 2**31 - 2**20
"""RLlib adds the runner's number to a seed and gives it to NumPy, which takes 32 bits."""


class Learner:
    """An algorithm of RLlib with its own random streams, and a Ray session where it has remote processes.

    Args:
        config: RLlib's configuration of it.
        settings: the agent's settings.
        seed: of the algorithm's generators and environments, below 2**31.

    Attributes:
        algo: RLlib's ``Algorithm``.
        settings: the agent's settings.
        streams: its random generators.
    """

    def __init__(self, config: Any, settings: RllibSettings, *, seed: int) -> None:
        import torch

        self.settings = settings
        config = config.copy(copy_frozen=False)
        config.debugging(seed=seed)
        torch.set_num_threads(settings.torch_threads)
        self.streams = GlobalStreams()
        forget_registration()
        with contextlib.ExitStack() as session:
            if needs_cluster(settings):
                ray = session.enter_context(engine.session(settings.n_cpus))
                check_room(config, ray.cluster_resources())
                register()
            with self.streams.lent(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of RLlib about itself; what is wrong is raised
                self.algo = _built(config)
                self.algo.learner_group.foreach_learner(_fuse)
            if self.algo.local_replay_buffer is not None:
                self.algo.local_replay_buffer.rng = np.random.default_rng(seed)  # RLlib leaves it unseeded
            self._session = session.pop_all()

    def train(self) -> Mapping[str, Any]:
        """Run one iteration of RLlib; return its nested results."""
        with self.streams.lent(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result: Mapping[str, Any] = self.algo.train()
        return self.with_measured(result)

    def with_measured(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return RLlib's results with what the learner measured beside them."""
        found = next(iter(self.algo.learner_group.foreach_learner(take_measured))).get()
        learners = result.get("learners", {})
        return {**result, "learners": {**learners, MODULE: {**learners.get(MODULE, {}), **found}}}

    def save(self, folder: Path) -> None:
        """Write RLlib's own checkpoint into ``folder``, which it makes."""
        with self.streams.lent():
            self.algo.save_to_path(str(folder.absolute()))
        if self.algo.local_replay_buffer is not None:
            save_buffer(self.algo.local_replay_buffer, folder / REPLAY)

    def restore(self, folder: Path, *, steps: int) -> None:
        """Take on the state in ``folder``, but keep the hyperparameters of the configuration.

        RLlib restores the optimiser with the learning rate it was saved with, also where another one is configured
        (ray#62173), and with remote runners loses the observation filter (ray#54408): both are put right here.

        Args:
            folder: what `save` wrote.
            steps: environment steps it was saved after, where schedules stand.

        Raises:
            CheckpointError: RLlib cannot read it.
        """
        with self.streams.lent(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.algo.restore_from_path(str(folder.absolute()))
                if self.algo.local_replay_buffer is not None:
                    load_buffer(self.algo.local_replay_buffer, folder / REPLAY)
            except Exception as error:  # RLlib raises whatever its pickles and tensors raise
                raise CheckpointError(
                    f"{folder} does not fit this agent ({type(error).__name__}: {str(error)[:120]}); "
                    "restore it with the settings it was saved with"
                ) from error
            self.algo.learner_group.foreach_learner(_set_rates, steps=steps)
            self.restored_at(steps)

    def restored_at(self, steps: int) -> None:
        """Bring what RLlib does not restore to where the run stands."""
        self._send_filter()

    def _send_filter(self) -> None:
        group = self.algo.env_runner_group
        if group.num_remote_workers():
            state = self.algo.env_runner.get_state(components=["env_to_module_connector"])
            group.foreach_env_runner("set_state", kwargs={"state": state}, local_env_runner=False)

    @property
    def module(self) -> Any:
        """The network that samples, with the newest weights."""
        return self.algo.get_module()

    @property
    def env_to_module(self) -> Any:
        """RLlib's pipeline from observations to the network's input, its filter up to date."""
        return self.algo.env_runner._env_to_module

    @property
    def module_to_env(self) -> Any:
        """RLlib's pipeline from the network's output to actions."""
        return self.algo.env_runner._module_to_env

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rate each optimiser of the first learner is at."""
        found: dict[str, float] = next(iter(self.algo.learner_group.foreach_learner(_rates))).get()
        return found

    def stop(self) -> None:
        """End the algorithm's processes and environments, and the Ray session if it was started here."""
        with self._session:
            self.algo.stop()


def needs_cluster(settings: RllibSettings) -> bool:
    """Return whether anything runs outside of the run's own process."""
    asynchronous = settings.algorithm in ("APPO", "IMPALA")
    return bool(settings.effective_env_runners or settings.n_learners or asynchronous)


def _built(config: Any) -> Any:
    """Return the algorithm.

    The folder for logs that it makes in the user's home is made elsewhere, and removed. When RLlib seeds torch it asks
    for deterministic operations, which makes torch load its compiler, for seconds; as nothing is compiled here, the
    switch itself is enough.
    """
    import torch
    from ray.tune.trainable import trainable

    home, switch = trainable.DEFAULT_STORAGE_PATH, torch.use_deterministic_algorithms
    with tempfile.TemporaryDirectory(prefix="policylab-") as folder:
        trainable.DEFAULT_STORAGE_PATH = folder
        torch.use_deterministic_algorithms = torch._C._set_deterministic_algorithms
        try:
            return config.build_algo()
        finally:
            trainable.DEFAULT_STORAGE_PATH, torch.use_deterministic_algorithms = home, switch


def _fuse(learner: Any) -> None:
    """Let Adam update all parameters in one pass: a quarter of the time for two networks of 64 x 64 units."""
    for optimizer in learner._named_optimizers.values():
        for group in optimizer.param_groups:
            if "fused" in group:
                group["fused"] = True


def _set_rates(learner: Any, *, steps: int) -> None:
    for optimizer, schedule in learner._optimizer_lr_schedules.items():
        learner._set_optimizer_lr(optimizer, lr=schedule.update(timestep=steps))


def _rates(learner: Any) -> dict[str, float]:
    return {name: float(learner._get_optimizer_lr(optimizer)) for name, optimizer in learner._named_optimizers.items()}
