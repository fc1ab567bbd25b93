"""Samples on the device, and the rows of a batch. Twin of jaxnn/gathering.py."""

import torch

from jaxnn.experiment.data import batches
from jaxnn.experiment.data.samples import Samples
from torch_ref.train_step import Batch

OffsetScale = tuple[torch.Tensor, torch.Tensor] | None


def put(samples: Samples, device: torch.device) -> Samples:
    """Inputs, targets and scaling, as the host holds them, on the device."""
    whole = put_scaling(samples.read(), device)
    return whole._replace(
        inputs=torch.from_numpy(whole.inputs).to(device),
        targets=torch.from_numpy(whole.targets).to(device),
    )


def put_scaling(samples: Samples, device: torch.device) -> Samples:
    """The scaling on the device; inputs and targets stay where they are."""
    scaling = samples.scaling and tuple(
        torch.from_numpy(array).to(device) for array in samples.scaling
    )
    return samples._replace(scaling=scaling)


def gather(samples: Samples, ids: torch.Tensor) -> Batch:
    """The rows of `ids` [rows], on their device; padding takes row 0 with weight 0.
    From the host if they are there."""
    if isinstance(samples.inputs, torch.Tensor):
        rows = ids.clamp(min=0)
        inputs, targets = samples.inputs[rows], samples.targets[rows]
    else:
        read = samples.read(ids.cpu().numpy())
        inputs, targets = (torch.from_numpy(array).to(ids.device) for array in read[:2])
    return Batch(
        scale_bytes(inputs, samples.scaling), targets, (ids != batches.PADDING).float()
    )


def scale_bytes(inputs: torch.Tensor, scaling: OffsetScale) -> torch.Tensor:
    """uint8 images as float32, scaled; everything else as it is."""
    if inputs.dtype != torch.uint8:
        return inputs
    return (
        inputs.float()
        if scaling is None
        else (inputs.float() - scaling[0]) * scaling[1]
    )
