"""Numbers of an experiment inside a step: constants, or arguments of a compiled sweep.

`jaxnn.train` compiles a step for the numbers of one experiment. `jaxnn.sweep` compiles
it once for many: a setting then is a () array whose value the device alone knows.
"""

from typing import Any

import jax
import numpy as np

Setting = Any
"""A Python number, or a () array in the dtype of the master parameters."""


def is_off(setting: Setting) -> bool:
    """True of 0, which leaves out what it scales; an array counts as another number."""
    return not isinstance(setting, jax.Array) and setting == 0


def as_float32(setting: Setting) -> Setting:
    """Rounds to float32; the type stays what it is."""
    if isinstance(setting, jax.Array):
        return setting.astype(np.float32).astype(setting.dtype)
    return float(np.float32(setting))


def cast(setting: Setting, dtype: Any) -> Any:
    """Returns a scalar of a dtype."""
    if isinstance(setting, jax.Array):
        return setting.astype(dtype)
    return np.asarray(setting, dtype)[()]
