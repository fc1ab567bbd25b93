"""Samples on the device, and the rows of a batch. Twin of jaxnn/gathering.py."""

import torch

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.samples import Samples
from torch_ref.train_step import Batch

OffsetScale = tuple[torch.Tensor, torch.Tensor] | None
"""Offset and scale of uint8 inputs, broadcastable to them; None to leave them as is."""


def put(samples: Samples, device: torch.device) -> Samples:
    """Copies inputs, targets and scaling to the device."""
    whole = put_scaling(samples.read(), device)
    return whole._replace(
        inputs=torch.from_numpy(whole.inputs).to(device),
        targets=torch.from_numpy(whole.targets).to(device),
    )


def put_scaling(samples: Samples, device: torch.device) -> Samples:
    """Copies the scaling to the device; inputs and targets stay where they are."""
    scaling = samples.scaling and tuple(
        torch.from_numpy(array).to(device) for array in samples.scaling
    )
    return samples._replace(scaling=scaling)


def gather(samples: Samples, ids: torch.Tensor) -> Batch:
    """Returns the rows of ids [rows] on their device; padding is row 0, weight 0."""
    # `put` has made tensors of them; `put_scaling` has left arrays on the host.
    if isinstance(samples.inputs, torch.Tensor):
        places = ids.clamp(min=0)
        inputs = samples.inputs[places]
        targets = samples.targets[places]
    else:
        read = samples.read(ids.cpu().numpy())
        inputs, targets = (torch.from_numpy(array).to(ids.device) for array in read[:2])
    inputs = scale_bytes(inputs, samples.scaling)
    weights = (ids != batches.PADDING).float()
    return Batch(inputs, targets, weights)


def scale_bytes(inputs: torch.Tensor, scaling: OffsetScale) -> torch.Tensor:
    """Returns uint8 images as float32, scaled; everything else unchanged."""
    if inputs.dtype != torch.uint8:
        return inputs
    inputs = inputs.float()
    if scaling is None:
        return inputs
    offset, scale = scaling
    return (inputs - offset) * scale
