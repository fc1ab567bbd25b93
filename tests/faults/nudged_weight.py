"""torch_ref.train whose first kernel's first weight grows by a ten-thousandth of itself
after step 3."""

from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param

from jaxnn.experiment.flags import command_line
from torch_ref import engine, train

plain_step = engine.step


def step(ds_engine, number: int) -> bool:
    skipped = plain_step(ds_engine, number)
    if number == 3:
        weight = next(ds_engine.module.parameters())
        value = safe_get_full_fp32_param(weight).clone()
        value.view(-1)[0] *= 1 + 1e-4
        safe_set_full_fp32_param(weight, value)
    return skipped


engine.step = step

if __name__ == "__main__":
    command_line.run(
        train.main,
        "",
        default_precision="fp16",
        define_more=train.define_launcher_flags,
    )
