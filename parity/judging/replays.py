"""Replays of one experiment under any switches, each compiled once."""

from jaxnn.experiment.data.dataset import Dataset
from jaxnn.experiment.flags.config import Experiment
from parity.replay import Replay
from parity.semantics.switch import Switch

Switches = tuple[Switch, ...]


class Replays:
    """Cache of replays by the names of their switches.

    Args:
      experiment: experiment as its flags have it.
      data: its data set.
      world_size: number of ranks that recorded it.
    """

    def __init__(self, experiment: Experiment, data: Dataset, world_size: int = 1):
        self.experiment = experiment
        self.data = data
        self.world_size = world_size
        self._replays: dict[tuple[str, ...], Replay] = {}

    def under(self, switches: Switches) -> Replay:
        """Returns the replay under some switches.

        Those that change no program share the one without them: a deep network's takes
        many seconds to compile.
        """
        traced = tuple(switch for switch in switches if switch.changes_program)
        names = tuple(switch.name for switch in traced)
        if names not in self._replays:
            self._replays[names] = Replay(
                self.experiment, self.data, traced, self.world_size
            )
        return self._replays[names]
