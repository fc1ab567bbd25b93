"""Records training programs of one's own: a model, or DeepSpeed's engine, is watched
while it trains, without a change to its loop.

What is recorded stands in jaxnn/experiment/files/trace.py, "Programs of one's own".
"""

from torch_ref.watch.prepare import prepare_deepspeed as prepare_deepspeed
from torch_ref.watch.record import LIMIT as LIMIT
from torch_ref.watch.record import record as record


def callback(*args, **kwargs):
    """Returns a `RecordCallback`, for which transformers must be installed."""
    from torch_ref.watch.callback import RecordCallback

    return RecordCallback(*args, **kwargs)
