"""Switches on the optimizer's half of a step."""

import jax
import jax.numpy as jnp
import optax

from jaxnn import freezing, optimizers, precision
from jaxnn.experiment.catalogue import ADAM
from jaxnn.experiment.flags.config import Experiment
from jaxnn.experiment.patches import Patch
from jaxnn.experiment.traits import clips, decays_decoupled, is_adam, is_fp16, is_half
from jaxnn.optimizers import Optimizer
from jaxnn.precision import at_least_float32
from parity.inputs import Inputs
from parity.quantities import UPDATE
from parity.semantics.switch import StepContext, Switch

DECAYS = ("l1", "l2", "weight_decay")


def _with_rule(rule):
    """Patches an optimizer's rule; clipping, penalties and decay stay as they are.

    Args:
      rule: experiment -> optax transformation.
    """

    def make(plain):
        def build(experiment: Experiment) -> Optimizer:
            decay = experiment.weight_decay if experiment.optimizer == "adamw" else 0
            return plain(experiment)._replace(
                transform=optimizers.regularized(experiment, rule(experiment), decay)
            )

        return build

    return make


def _on(names: tuple[str, ...], rule) -> tuple[Patch, ...]:
    """Patches the rule of the optimizers of some names."""
    return tuple(Patch(optimizers.OPTIMIZERS, name, _with_rule(rule)) for name in names)


def _adam_eps_inside(experiment: Experiment) -> optax.GradientTransformation:
    b1, b2, eps = optimizers.adam_settings(experiment)
    return optax.scale_by_adam(b1, b2, eps=0.0, eps_root=eps)


def _rms_eps_inside(experiment: Experiment) -> optax.GradientTransformation:
    return optax.scale_by_rms(
        experiment.rmsprop_decay, experiment.rmsprop_eps, eps_in_sqrt=True
    )


def _adagrad_eps_inside(experiment: Experiment) -> optax.GradientTransformation:
    return optax.scale_by_rss(experiment.adagrad_initial, experiment.adagrad_eps)


def _adam_uncorrected(experiment: Experiment) -> optax.GradientTransformation:
    settings = optimizers.adam_settings(experiment)
    *_, eps = settings
    plain = optax.scale_by_adam(*settings)

    def update(updates, state, params=None):
        _, state = plain.update(updates, state, params)
        assert isinstance(state, optax.ScaleByAdamState)
        direction = jax.tree.map(
            lambda m, v: m / (jnp.sqrt(v) + eps), state.mu, state.nu
        )
        return direction, state

    return optax.GradientTransformation(plain.init, update)


def _one_update_more(inputs: Inputs, context: StepContext) -> Inputs:
    del context
    return inputs._replace(updates=inputs.updates + 1)


def _by_tensor(plain):
    def clip(grads, max_norm):
        return jax.tree.map(lambda g: plain([g], max_norm)[0], grads)

    return clip


def _by_value(plain):
    del plain

    def clip(grads, max_norm):
        return jax.tree.map(lambda g: jnp.clip(g, -max_norm, max_norm), grads)

    return clip


def _of_scaled_gradients(experiment: Experiment) -> Experiment:
    # A norm of scaled gradients is as large as the scale; so is the bound too small.
    scale = 2.0**experiment.initial_scale_power
    return experiment.replace(clip_norm=experiment.clip_norm / scale)


def _to_bound(plain):
    """Gives all gradients the norm of the bound, those below it too."""
    del plain

    def clip(grads, max_norm):
        squares = [
            jnp.sum(jnp.square(at_least_float32(g))) for g in jax.tree.leaves(grads)
        ]
        norm = jnp.sqrt(sum(squares))
        factor = 1 / ((norm + optimizers.CLIP_EPS) / max_norm)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads)

    return clip


def _rounded_masters(plain, experiment: Experiment):
    compute = precision.POLICIES[experiment.precision].compute

    def rounded(param):
        # In float64 nothing is rounded: the distance of the two is then the noise unit,
        # as wide as the rounding, which may fall to either side.
        if param.dtype != jnp.float32:
            return param
        return param.astype(compute).astype(param.dtype)

    def update(*args):
        params, state = plain(*args)
        return jax.tree.map(rounded, params), state

    return update


def _decay_without_rate(plain, experiment: Experiment):
    def update(params, state, grads, learning_rate):
        updated, state = plain(params, state, grads, learning_rate)
        # The plain update has decayed by learning_rate * weight_decay.
        more = experiment.weight_decay * (1 - learning_rate)

        def shrink(path, updated, param):
            if not optimizers.is_decayed(experiment, path):
                return updated
            return updated - more.astype(param.dtype) * param

        trees = (freezing.part(tree, grads) for tree in (updated, params))
        shrunk = jax.tree_util.tree_map_with_path(shrink, *trees)
        return freezing.merged(updated, shrunk), state

    return update


def _rate_inside(plain):
    """The heavy ball that adds lr g to its velocity, and subtracts that as it is."""

    def build(experiment: Experiment) -> Optimizer:
        def update(updates, state, params=None, **extra):
            del params
            rate = extra["learning_rate"]
            velocity = jax.tree.map(
                lambda v, g: experiment.momentum * v + rate.astype(g.dtype) * g,
                state.trace,
                updates,
            )
            return velocity, optax.TraceState(velocity)

        return _with_velocity(plain(experiment), experiment, update, rate_inside=True)

    return build


def _rate_outside(plain):
    """Sutskever's momentum that subtracts g, and multiplies the sum by the rate."""

    def build(experiment: Experiment) -> Optimizer:
        def update(updates, state, params=None, **extra):
            del params, extra
            velocity = jax.tree.map(
                lambda v, g: experiment.momentum * v - g, state.trace, updates
            )
            return jax.tree.map(jnp.negative, velocity), optax.TraceState(velocity)

        return _with_velocity(plain(experiment), experiment, update, rate_inside=False)

    return build


def _with_velocity(
    optimizer: Optimizer, experiment: Experiment, update, *, rate_inside: bool
) -> Optimizer:
    init = optax.trace(experiment.momentum).init
    rule = optax.GradientTransformationExtraArgs(init, update)
    return optimizer._replace(
        transform=optimizers.regularized(experiment, rule), rate_inside=rate_inside
    )


def _decays(experiment: Experiment) -> bool:
    return any(getattr(experiment, name) for name in DECAYS)


def _becomes(optimizer: str, **more):
    return lambda e: e.replace(optimizer=optimizer, **more)


SWITCHES = [
    Switch(
        "adam_eps",
        (UPDATE,),
        "Adam's eps is 100 times larger",
        "1e-8 in torch and optax, 1e-7 in Keras, 1e-6 in many recipes",
        is_adam,
        experiment=lambda e: e.replace(adam_eps=100 * e.adam_eps),
    ),
    Switch(
        "eps_inside_root",
        (UPDATE,),
        "eps is added inside the square root",
        "MISMATCHES O1, O2; optax.rmsprop",
        lambda e: e.optimizer in (*ADAM, "rmsprop", "adagrad"),
        patches=(
            *_on(ADAM, _adam_eps_inside),
            *_on(("rmsprop",), _rms_eps_inside),
            *_on(("adagrad",), _adagrad_eps_inside),
        ),
    ),
    Switch(
        "bias_correction_missing",
        (UPDATE,),
        "Adam's moments are not corrected for their start at zero",
        "BertAdam; DeepSpeed FusedAdam(bias_correction=False)",
        is_adam,
        patches=_on(ADAM, _adam_uncorrected),
    ),
    Switch(
        "bias_correction_late",
        (UPDATE,),
        "Adam's first update is corrected as its second",
        "MISMATCHES D2",
        is_adam,
        before=_one_update_more,
    ),
    Switch(
        "betas_in_double",
        (UPDATE,),
        "Adam's betas are double where FusedAdam's are float32, or the reverse",
        "DeepSpeed csrc/includes/cpu_adam.h",
        is_adam,
        experiment=lambda e: e.replace(fused_adam=not e.fused_adam),
    ),
    Switch(
        "adam_b2",
        (UPDATE,),
        "Adam's second decay is 0.98",
        "Vaswani et al. 2017 0.98, torch 0.999",
        lambda e: is_adam(e) and e.adam_b2 != 0.98,
        experiment=lambda e: e.replace(adam_b2=0.98),
    ),
    Switch(
        "rmsprop_decay",
        (UPDATE,),
        "RMSprop keeps 0.9 of its mean square",
        "MISMATCHES O1; optax 0.9, torch 0.99",
        lambda e: e.optimizer == "rmsprop" and e.rmsprop_decay != 0.9,
        experiment=lambda e: e.replace(rmsprop_decay=0.9),
    ),
    Switch(
        "l2_for_decoupled",
        (UPDATE,),
        "decay passes through Adam's moments",
        "MISMATCHES D6; Loshchilov & Hutter 2019",
        decays_decoupled,
        experiment=lambda e: e.replace(
            optimizer="adam", l2=e.weight_decay, weight_decay=0.0
        ),
    ),
    Switch(
        "decoupled_for_l2",
        (UPDATE,),
        "decay does not pass through Adam's moments",
        "MISMATCHES D6; DeepSpeed's 'Adam' is AdamW",
        lambda e: e.optimizer == "adam" and e.l2 > 0,
        experiment=lambda e: e.replace(optimizer="adamw", weight_decay=e.l2, l2=0.0),
    ),
    Switch(
        "decay_on_biases",
        (UPDATE,),
        "decay acts on biases and norms too",
        "torch's weight_decay without groups",
        lambda e: _decays(e) and not e.decay_all,
        experiment=lambda e: e.replace(decay_all=True),
    ),
    Switch(
        "decay_not_on_biases",
        (UPDATE,),
        "decay leaves biases and norms alone",
        "two parameter groups, as in GPT-2",
        lambda e: _decays(e) and e.decay_all,
        experiment=lambda e: e.replace(decay_all=False),
    ),
    Switch(
        "decay_missing",
        (UPDATE,),
        "nothing decays",
        "MISMATCHES O3, O4; optax.adam has no weight decay",
        _decays,
        experiment=lambda e: e.replace(**dict.fromkeys(DECAYS, 0.0)),
    ),
    Switch(
        "l2_doubled",
        (UPDATE,),
        "the penalty is l2 w^2, not l2 w^2 / 2",
        "a penalty that is added to the loss",
        lambda e: e.l2 > 0,
        experiment=lambda e: e.replace(l2=2 * e.l2),
    ),
    Switch(
        "decay_not_times_rate",
        (UPDATE,),
        "decoupled decay is not multiplied by the learning rate",
        "Loshchilov & Hutter 2019, Algorithm 2; torch and optax multiply",
        decays_decoupled,
        update=_decay_without_rate,
    ),
    Switch(
        "momentum_as_average",
        (UPDATE,),
        "the momentum is a moving average, (1 - mu) on the gradient",
        "MISMATCHES O5",
        lambda e: e.optimizer == "momentum",
        experiment=_becomes("ema_momentum"),
    ),
    Switch(
        "average_as_momentum",
        (UPDATE,),
        "the momentum is the heavy ball, without (1 - mu)",
        "MISMATCHES O5",
        lambda e: e.optimizer == "ema_momentum",
        experiment=_becomes("momentum"),
    ),
    Switch(
        "rate_inside_velocity",
        (UPDATE,),
        "the rate of each step is in the velocity, v = mu v + lr g, not in front of it",
        "MISMATCHES O6; Sutskever et al. 2013",
        lambda e: e.optimizer == "momentum",
        patches=(Patch(optimizers.OPTIMIZERS, "momentum", _rate_inside),),
    ),
    Switch(
        "rate_outside_velocity",
        (UPDATE,),
        "the rate of a step multiplies the whole velocity, lr v with v = mu v - g",
        "MISMATCHES O6; torch SGD, optax.sgd",
        lambda e: e.optimizer == "sutskever_momentum",
        patches=(Patch(optimizers.OPTIMIZERS, "sutskever_momentum", _rate_outside),),
    ),
    Switch(
        "nesterov_added",
        (UPDATE,),
        "the gradient is taken at the shifted point",
        "torch SGD(nesterov=True)",
        lambda e: e.optimizer == "momentum",
        experiment=_becomes("nesterov"),
    ),
    Switch(
        "nesterov_missing",
        (UPDATE,),
        "the momentum is the plain heavy ball",
        "torch SGD(nesterov=False)",
        lambda e: e.optimizer == "nesterov",
        experiment=_becomes("momentum"),
    ),
    Switch(
        "clip_missing",
        (UPDATE,),
        "gradients are not clipped",
        "ds_config gradient_clipping 0",
        clips,
        experiment=lambda e: e.replace(clip_norm=0.0),
    ),
    Switch(
        "clip_added",
        (UPDATE,),
        "gradients are clipped to a norm of 1",
        "MISMATCHES D14; DeepSpeed's default since 0.19.3",
        lambda e: not clips(e),
        experiment=lambda e: e.replace(clip_norm=1.0),
    ),
    Switch(
        "clip_without_eps",
        (UPDATE,),
        "the clipping factor is max_norm / norm, without eps",
        "MISMATCHES D7; optax.clip_by_global_norm",
        clips,
        patches=(Patch(optimizers, "CLIP_EPS", lambda plain: 0.0),),
    ),
    Switch(
        "clip_before_unscale",
        (UPDATE,),
        "the norm that is clipped by is of the scaled gradients",
        "clip_grad_norm_ before GradScaler.unscale_",
        lambda e: clips(e) and is_fp16(e),
        experiment=_of_scaled_gradients,
    ),
    Switch(
        "clip_by_tensor",
        (UPDATE,),
        "each tensor is clipped by its own norm",
        "optax.adaptive_grad_clip's scope; torch clip_grad_norm_ called per layer",
        clips,
        patches=(Patch(optimizers, "clip", _by_tensor),),
    ),
    Switch(
        "clip_by_value",
        (UPDATE,),
        "each entry is clipped to the norm's bound",
        "torch clip_grad_value_, optax.clip",
        clips,
        patches=(Patch(optimizers, "clip", _by_value),),
    ),
    Switch(
        "clip_normalizes",
        (UPDATE,),
        "gradients below the bound are scaled up to it",
        "max_norm / norm without the minimum with 1",
        clips,
        patches=(Patch(optimizers, "clip", _to_bound),),
    ),
    Switch(
        "half_precision_masters",
        (UPDATE,),
        "updated parameters are kept in the compute format",
        "model.half() without fp32 masters",
        is_half,
        update=_rounded_masters,
    ),
]
