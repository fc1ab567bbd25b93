"""One's own training program, recorded and judged: README, "Bring your own".

    from parity import own

    with own.record(engine, "runs/mine", steps=20):  # in the torch program
        train()

    own.judge("runs/mine", model=..., loss=..., optimizer=..., convert=...)  # in JAX

Importing this imports neither torch nor JAX: each side needs its own alone.
"""

import pathlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parity.judging.measure import THRESHOLD
from parity.own.record import RecordCallback as RecordCallback
from parity.own.record import prepare_deepspeed as prepare_deepspeed
from parity.own.record import record as record

if TYPE_CHECKING:
    from parity.judging.recording import Judgement
    from parity.judging.verdict import Verdict

# A training script imports DeepSpeed and then this. DeepSpeed compiles without a word,
# and waits for ever for the lock of a compilation that was killed.
if "deepspeed" in sys.modules:
    prepare_deepspeed()


def judge(
    trace: str | pathlib.Path,
    model: Any,
    loss: Callable[..., Any] | None = None,
    optimizer: Any = None,
    convert: Callable[[Any], Any] | None = None,
    threshold: float = THRESHOLD,
    quiet: bool = False,
) -> "Judgement":
    """Judges a recording by a port of it, prints a table, writes verdict and page.

    Args:
      trace: folder that `own.record` wrote; gets verdict.json and report.html.
      model: flax.linen or flax.nnx module, or apply(params, *inputs). Its arguments get
        the recorded inputs of torch's forward by name, else in order; `train`,
        `training` and `deterministic` are set for training.
      loss: loss(outputs, *inputs), arguments as for the model, and after them what
        torch's loss took besides; None if the model returns its loss.
      optimizer: optax transformation, with the schedule and clipping that belong to it;
        None: updates are not judged.
      convert: torch's state_dict -> parameter tree, which only rearranges, scales and
        shifts entries; None: names and shapes propose a map, which is printed.
      threshold: largest z that passes.
      quiet: print nothing.

    Returns:
      The judgement: `verdict.is_parity`, `verdict.first_divergence`, `explanations`.

    Raises:
      UserError: something does not fit, or nothing could have been found.
    """
    from parity.own.present import judge_and_present

    folder = pathlib.Path(trace)
    return judge_and_present(
        folder, model, loss, optimizer, convert, threshold, quiet=quiet
    )


def judge_step(
    trace: Any, gradients: Any, update: Any = None, *args: Any, **kwargs: Any
) -> "Verdict":
    """Judges a trace in flax's names by two step functions; see `parity.own.step`."""
    from parity.own import step

    return step.judge_step(trace, gradients, update, *args, **kwargs)
