"""Small experiments to plant faults in, by name.

Together they have everything that a switch of `parity.semantics` acts on.
"""

# Name -> flags. Most bases lower the initial loss scale from 2^16 to 2^10: at 2^16
# "regression", "cnn" and "resnet" overflow and skip steps in FP16, at 2^10 none does.
BASES: dict[str, tuple[str, ...]] = {
    "mlp": (
        "--dataset=breast_cancer",
        "--preprocess=standardize",
        "--model=mlp",
        "--hidden_sizes=16,16",
        "--activation=leaky_relu",
        "--dropout_rates=0.2,0.2",
        "--loss=binary_cross_entropy",
        "--optimizer=adam",
        "--l2=0.01",
        "--schedule=linear_warmup",
        "--warmup_steps=4",
        "--clip_norm=0.2",
        "--batch_size=128",
    ),
    "normalized": (
        "--dataset=digits",
        "--model=mlp",
        "--hidden_sizes=32,32",
        "--activation=gelu",
        "--normalization=batch",
        "--loss=cross_entropy",
        "--optimizer=adamw",
        "--weight_decay=0.1",
        "--nodecay_all",
        "--accumulation_steps=2",
        "--learning_rate=0.01",
        "--batch_size=300",
    ),
    "regression": (
        "--dataset=approximation",
        "--num_samples=400",
        "--model=mlp",
        "--hidden_sizes=16",
        "--normalization=layer",
        "--loss=mse",
        "--optimizer=momentum",
        "--l2=0.01",
        "--learning_rate=0.01",
        "--batch_size=80",
        "--initial_scale_power=10",
    ),
    "cnn": (
        "--dataset=digits",
        "--model=cnn",
        "--channels=4,8",
        "--hidden_sizes=16",
        "--loss=cross_entropy",
        "--label_smoothing=0.1",
        "--optimizer=rmsprop",
        "--batch_size=300",
        "--initial_scale_power=10",
    ),
    "resnet": (
        "--dataset=digits",
        "--model=resnet",
        "--loss=cross_entropy",
        "--optimizer=nesterov",
        "--learning_rate=0.1",
        "--batch_size=50",
        "--initial_scale_power=10",
    ),
    "lstm": (
        "--dataset=sine",
        "--num_samples=400",
        "--sequence_length=12",
        "--model=lstm",
        "--hidden_sizes=8",
        "--initializer=torch_default",
        "--loss=mse",
        "--optimizer=adagrad",
        "--learning_rate=0.1",
        "--batch_size=80",
        "--initial_scale_power=10",
    ),
    "gru": (
        "--dataset=sine",
        "--num_samples=400",
        "--sequence_length=12",
        "--model=gru",
        "--hidden_sizes=8,8",
        "--dropout_rates=0.2,0.2",
        "--initializer=torch_default",
        "--loss=mse",
        "--optimizer=ema_momentum",
        "--schedule=warmup_lr",
        "--warmup_steps=4",
        "--learning_rate=0.1",
        "--batch_size=80",
        "--initial_scale_power=10",
    ),
    "transformer": (
        "--dataset=text",
        "--sequence_length=16",
        "--model=transformer",
        "--num_layers=1",
        "--width=16",
        "--num_heads=2",
        "--initializer=normal",
        "--loss=cross_entropy",
        "--optimizer=adamw",
        "--nofused_adam",
        "--weight_decay=0.01",
        "--clip_norm=0.1",
        "--batch_size=32",
        "--initial_scale_power=10",
    ),
    # At 2^22 most steps overflow: what is tested are skipped steps and the loss scale.
    "overflow": (
        "--dataset=breast_cancer",
        "--preprocess=standardize",
        "--model=mlp",
        "--hidden_sizes=16",
        "--clip_norm=0",
        "--loss=binary_cross_entropy",
        "--optimizer=sgd",
        "--learning_rate=0.1",
        "--schedule=linear_warmup",
        "--warmup_steps=20",
        "--batch_size=128",
        "--initial_scale_power=22",
    ),
    # Three clean steps double the loss scale, and at that step DeepSpeed has a fault of
    # its own (MISMATCHES D3).
    "growth": (
        "--dataset=breast_cancer",
        "--preprocess=standardize",
        "--model=logistic",
        "--loss=binary_cross_entropy",
        "--optimizer=sgd",
        "--learning_rate=0.1",
        "--batch_size=128",
        "--initial_scale_power=4",
        "--loss_scale_window=3",
    ),
    # DeepSpeed adds microbatches up in the compute dtype (MISMATCHES D23).
    "accumulation": (
        "--dataset=linear",
        "--num_samples=512",
        "--model=linear",
        "--loss=mse",
        "--optimizer=sgd",
        "--learning_rate=0.03",
        "--batch_size=512",
        "--accumulation_steps=512",
    ),
}

PRECISIONS = ("fp16", "fp32")
ONLY_PRECISIONS: dict[str, tuple[str, ...]] = {"accumulation": ("bf16",)}
"""Base -> precisions to plant in, if not PRECISIONS. bfloat16 counts to 256 one by one,
float16 to 2048."""

ONLY: dict[str, tuple[str, ...]] = {
    "growth": ("growth_step_halved", "scale_grows_early", "scale_is_static"),
    "accumulation": ("accumulated_in_half",),
}
"""Base -> faults to plant there, if not all. In "growth" and "accumulation"
DeepSpeed's own fault would come before any other."""
