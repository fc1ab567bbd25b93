"""The frozen `Experiment` that the flags become, each field with its help text and
range.

The dataclass is the single definition: every field is an absl flag of the same name.
`main` builds one `Experiment` and hands it down; nothing else reads flags.
"""

import dataclasses

from jaxnn.experiment.flags.options import option

PRECISIONS = ("fp64", "fp32", "bf16", "fp16")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment. Without any flag it is the linear regression y = 2x + 1."""

    name: str = option(
        "linear_regression", "Name of the experiment; the default workdir carries it."
    )

    # Data.
    dataset: str = option(
        "linear",
        "Data set to train on.",
        choices=(
            "linear",
            "gates",
            "approximation",
            "iris",
            "breast_cancer",
            "wine",
            "diabetes",
            "digits",
            "sine",
            "text",
            "csv",
            "npz",
            "mnist",
            "fashion_mnist",
            "cifar10",
        ),
    )
    data_path: str = option(
        "",
        "File (csv, npz; text: else Python's help topics) or folder (mnist, "
        "fashion_mnist, cifar10: else downloaded) of the data. npz: .npz files of x "
        "and y, or folders of x.npy and y.npy or of x_000.npy, y_000.npy, x_001.npy, "
        "...; several, comma-separated or a glob, are one data set, sorted by name. "
        "From 256 MiB on x stays in its files, mapped into memory: .npy, and .npz "
        "that numpy.savez wrote, uncompressed.",
    )
    target: str = option("", "csv: the column to predict; empty: the last one.")
    task: str = option(
        "auto",
        "csv, npz: what the target is; auto: multiclass or binary where it is text "
        "or whole numbers of few values, else regression.",
        choices=("auto", "regression", "binary", "multiclass"),
    )
    gate: str = option(
        "xor", "gates: the truth table to learn.", choices=("and", "or", "nand", "xor")
    )
    function: str = option(
        "sine",
        "approximation: the function on [0, 1] to learn.",
        choices=("sine", "absolute", "square_wave", "runge"),
    )
    features: tuple[int, ...] = option(
        (),
        "Columns of a table to train on, counted from 0 without the target, "
        "comma-separated; empty: all.",
        minimum=0,
    )
    positive_class: str = option(
        "",
        "Class to tell from all others, which makes the task binary; empty: as it is.",
    )
    sequence_length: int = option(
        50, "sine, text: steps of a window, the context of the model.", minimum=1
    )
    num_samples: int = option(
        10_000,
        "Generated data sets: training samples to draw; sine: values of the series.",
        minimum=1,
    )
    test_fraction: float = option(
        0.2, "Share of the samples held out for testing.", above=0, below=1
    )
    validation_fraction: float = option(
        0.0,
        "Share of the training samples held out for validation.",
        minimum=0,
        below=1,
    )
    num_folds: int = option(
        0,
        "k-fold cross-validation: the number of folds, of which --fold is the test "
        "split; 0: one split by --test_fraction.",
        minimum=0,
    )
    fold: int = option(
        0, "k-fold cross-validation: the fold to test on, from 0.", minimum=0
    )
    split_seed: int = option(42, "Seed of the splits and of generated data.", minimum=0)
    preprocess: str = option(
        "none",
        "Input scaling, fitted on the training split alone. Images scale by channel.",
        choices=("none", "standardize", "min_max"),
    )

    # Model.
    model: str = option(
        "linear",
        "Network to train.",
        choices=(
            "linear",
            "perceptron",
            "logistic",
            "mlp",
            "cnn",
            "resnet",
            "rnn",
            "lstm",
            "gru",
            "transformer",
            "transformer_encoder",
        ),
    )
    hidden_sizes: tuple[int, ...] = option(
        (),
        "Units of each hidden layer (mlp, cnn after its convolutions) or recurrent "
        "layer, comma-separated.",
        minimum=1,
    )
    activation: str = option(
        "relu",
        "Activation of the hidden layers.",
        choices=(
            "linear",
            "step",
            "relu",
            "leaky_relu",
            "sigmoid",
            "tanh",
            "softmax",
            "gelu",
            "gelu_tanh",
        ),
    )
    leaky_relu_alpha: float = option(0.01, "Slope of leaky_relu below zero.", minimum=0)
    normalization: str = option(
        "none",
        "mlp, cnn: between each hidden layer and its activation.",
        choices=("none", "batch", "layer"),
    )
    sync_batch_norm: bool = option(
        True,
        "Batch normalization by the statistics of the whole batch; "
        "--nosync_batch_norm: of each device's own rows, the running ones averaged.",
    )
    dropout_rates: tuple[float, ...] = option(
        (),
        "Probability of dropping a unit after each hidden layer, comma-separated "
        "(transformers: one rate); empty: no dropout.",
        minimum=0,
        below=1,
    )
    channels: tuple[int, ...] = option(
        (),
        "cnn: channels of each convolution, comma-separated; a 2x2 pooling follows "
        "each.",
        minimum=1,
    )
    kernel_size: int = option(
        3, "cnn: height and width of the kernels, odd.", minimum=1
    )
    pool: str = option("max", "cnn: pooling.", choices=("max", "average"))
    resnet_depth: int = option(
        20, "resnet: 20 or 32 (CIFAR), 18 or 50 (ImageNet).", minimum=18
    )
    convolution: str = option(
        "auto",
        "How convolutions are computed: as matrix products of patches, by the "
        "compiler's own convolution (in training on a CPU 50 times slower), or "
        "(auto) the first on a CPU and the second elsewhere.",
        choices=("auto", "patches", "direct"),
    )
    num_layers: int = option(2, "transformers: blocks.", minimum=1)
    width: int = option(128, "transformers: features of a token.", minimum=1)
    num_heads: int = option(4, "transformers: attention heads.", minimum=1)
    mlp_width: int = option(
        0,
        "transformers: hidden units of a block's MLP; 0: four times --width.",
        minimum=0,
    )
    initializer: str = option(
        "lecun_normal",
        "Initial kernels; biases start at zero but for torch_default.",
        choices=(
            "zeros",
            "normal",
            "lecun_normal",
            "lecun_uniform",
            "glorot_normal",
            "glorot_uniform",
            "he_normal",
            "he_uniform",
            "orthogonal",
            "torch_default",
        ),
    )

    # Objective.
    loss: str = option(
        "mse",
        "Loss, averaged over the batch; the cross-entropies take logits.",
        choices=(
            "mse",
            "binary_cross_entropy",
            "cross_entropy",
            "hinge",
            "multiclass_hinge",
            "perceptron",
        ),
    )
    label_smoothing: float = option(
        0.0,
        "cross_entropy: share of a label spread over all classes.",
        minimum=0,
        below=1,
    )
    l1: float = option(
        0.0, "Adds l1 |w| to the objective, through the gradient.", minimum=0
    )
    l2: float = option(
        0.0,
        "Adds l2 w^2 / 2 to the objective, through the gradient: torch's "
        "weight_decay but for AdamW.",
        minimum=0,
    )
    weight_decay: float = option(
        0.0,
        "adamw: decoupled decay, a share of each weight per step and learning rate.",
        minimum=0,
    )
    decay_all: bool = option(
        True,
        "l1, l2 and weight decay act on every parameter, as in torch; --nodecay_all: "
        "not on biases and norms.",
    )
    clip_norm: float = option(
        0.0,
        "Largest global norm of the gradients, by DeepSpeed's formula; 0: no clipping.",
        minimum=0,
    )
    patience: int = option(
        0,
        "Epochs without a better validation loss before the run stops; the best "
        "parameters are restored. 0: no early stopping.",
        minimum=0,
    )
    min_delta: float = option(
        0.0,
        "Early stopping: how much lower the validation loss must be to count as "
        "better.",
        minimum=0,
    )

    # Optimizer.
    optimizer: str = option(
        "adam",
        "Optimizer.",
        choices=(
            "sgd",
            "momentum",
            "nesterov",
            "ema_momentum",
            "adam",
            "adamw",
            "rmsprop",
            "adagrad",
        ),
    )
    learning_rate: float = option(1e-3, "Peak step size, per optimizer step.", above=0)
    momentum: float = option(
        0.9,
        "momentum, nesterov, ema_momentum: what is kept of the last direction.",
        minimum=0,
        below=1,
    )
    adam_b1: float = option(
        0.9, "Adam's decay of the first moment, per step.", minimum=0, below=1
    )
    adam_b2: float = option(
        0.999, "Adam's decay of the second moment, per step.", minimum=0, below=1
    )
    adam_eps: float = option(
        1e-8, "Adam's eps, added to the root of the second moment.", above=0
    )
    rmsprop_decay: float = option(
        0.99, "RMSprop's decay of the mean square, per step.", minimum=0, below=1
    )
    rmsprop_eps: float = option(1e-8, "RMSprop's eps, added to the root.", above=0)
    adagrad_eps: float = option(1e-10, "AdaGrad's eps, added to the root.", above=0)
    adagrad_initial: float = option(
        0.0, "AdaGrad's accumulator before the first step.", minimum=0
    )
    accumulation_steps: int = option(
        1, "Parts that a batch is computed in, one after the other.", minimum=1
    )

    # Learning rate over the run.
    schedule: str = option(
        "constant",
        "Learning rate over the run.",
        choices=(
            "constant",
            "step",
            "exponential",
            "cosine",
            "linear_warmup",
            "warmup_cosine",
            "one_cycle",
            "warmup_lr",
            "warmup_decay_lr",
            "warmup_cosine_lr",
        ),
    )
    warmup_steps: int = option(
        0, "Schedules with a warm-up: optimizer steps until the peak.", minimum=0
    )
    warmup_type: str = option(
        "log",
        "warmup_lr, warmup_decay_lr, warmup_cosine_lr: DeepSpeed's warm-up curve.",
        choices=("log", "linear"),
    )
    min_learning_rate: float = option(
        0.0, "Where warm-ups start and cosines end.", minimum=0
    )
    final_learning_rate: float = option(
        0.0,
        "warmup_cosine_lr: where the cosine ends; 0: at --min_learning_rate.",
        minimum=0,
    )
    schedule_steps: int = option(
        0,
        "Schedules with an end: optimizer steps until there, at least the run's; 0: "
        "the run's, as if without --max_steps.",
        minimum=0,
    )
    decay_rate: float = option(
        0.1,
        "step, exponential: factor of the learning rate every --decay_steps.",
        above=0,
    )
    decay_steps: int = option(
        1000, "step, exponential: optimizer steps per factor --decay_rate.", minimum=1
    )

    # Run.
    epochs: int = option(30, "Passes over the training data.", minimum=1)
    max_steps: int = option(
        0, "Stop after that many optimizer steps; 0: no limit.", minimum=0
    )
    batch_size: int = option(
        32,
        "Samples per step, over all devices. A last, smaller batch is kept.",
        minimum=1,
    )
    seed: int = option(
        0,
        "Seed of the initial parameters, the batch order and the dropout masks.",
        minimum=0,
    )
    precision: str = option(
        "",
        "Number format of the forward and backward pass; master parameters stay fp32 "
        "(fp64 under fp64). Left out: fp32 in jaxnn.train, fp16 in torch_ref.train "
        "and parity.run.",
        choices=("", *PRECISIONS),
    )
    num_devices: int = option(0, "Devices to train on; 0: all of them.", minimum=0)
    device_cache_mb: int = option(
        4096,
        "MiB of each device's memory that the data may take. Larger data are "
        "streamed: chunks of many steps, the next one read while one is worked on; a "
        "signal to stop is obeyed after a chunk, not after an epoch.",
        minimum=1,
    )

    # Many hosts.
    coordinator_address: str = option(
        "",
        "HOST:PORT of process 0, where several processes meet that train together, "
        "each on its host's devices.",
        run_only=True,
    )
    num_processes: int = option(
        0, "Processes that meet at --coordinator_address.", minimum=0, run_only=True
    )
    process_id: int = option(
        0, "This process's number among them, from 0.", minimum=0, run_only=True
    )
    distributed: bool = option(
        False,
        "Join the cluster that the environment describes: SLURM, Open MPI, a TPU pod.",
        run_only=True,
    )
    initialization_timeout: int = option(
        120, "Seconds to wait for the other processes.", minimum=1, run_only=True
    )

    # FP16, as in DeepSpeed's fp16 block.
    initial_scale_power: int = option(
        16, "FP16: the loss scale starts at 2 to this power.", minimum=0, below=128
    )
    loss_scale_window: int = option(
        1000, "FP16: clean steps before the loss scale doubles.", minimum=1
    )
    hysteresis: int = option(
        2, "FP16: overflows before the loss scale halves.", minimum=1
    )
    min_loss_scale: float = option(
        1.0, "FP16: smallest loss scale; an overflow there ends the run.", above=0
    )
    consecutive_hysteresis: bool = option(
        False,
        "FP16: a clean step refills the hysteresis; only overflows in a row count.",
    )
    static_loss_scale: float = option(
        0.0,
        "FP16: a loss scale that never changes, in place of the dynamic one; 0: "
        "dynamic.",
        minimum=0,
    )

    # DeepSpeed.
    zero_stage: int = option(1, "DeepSpeed: ZeRO stage.", minimum=0, below=4)
    fused_adam: bool = option(
        True,
        "Adam as DeepSpeed's FusedAdam (compiled at first use), whose betas are "
        "float32; --nofused_adam: as torch's, in double.",
    )
    fp16_kernels: str = option(
        "any",
        "DeepSpeed on a CPU without FP16 instructions: any runs torch's software "
        "FP16 with a warning, native refuses.",
        choices=("any", "native"),
    )
    ds_config: str = option(
        "",
        "A DeepSpeed configuration (JSON) to take batch size, optimizer, schedule, "
        "precision, clipping, accumulation and ZeRO stage from.",
        run_only=True,
    )

    # Files.
    workdir: str = option(
        "", "Folder of this run's files; empty: a fresh one under runs/.", run_only=True
    )
    overwrite: bool = option(
        False, "Replace the run that the workdir holds.", run_only=True
    )
    resume: bool = option(
        False,
        "Continue the run that the workdir holds, from its last checkpoint.",
        run_only=True,
    )
    checkpoint_every: int = option(
        0, "Epochs between checkpoints; 0: none but on SIGTERM.", minimum=0
    )
    keep: int = option(2, "Checkpoints to keep, the newest.", minimum=1)
    evaluate_train: bool = option(
        False,
        "Evaluate the training split too, as the test split is, after each epoch.",
    )
    plots: bool = option(True, "Draw the workdir's plots at the end.")
    init_params: str = option(
        "",
        "A params.safetensors to start from instead of fresh parameters.",
        run_only=True,
    )
    record: str = option(
        "off",
        "Trace to write under the workdir: losses, + parameters and moments, or + "
        "activations and gradients.",
        choices=("off", "losses", "params", "full"),
        run_only=True,
    )
    record_steps: int = option(
        50, "Steps to record, from the first.", minimum=1, run_only=True
    )

    def replace(self, **changes) -> "Experiment":
        """A copy with some fields changed; not checked again."""
        return dataclasses.replace(self, **changes)
