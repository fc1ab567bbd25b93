"""`Experiment`: the frozen dataclass that the flags become.

The dataclass is the single definition of the flags: each field is an absl flag of the
same name, with its default, help text and range. `main` builds one `Experiment` and
passes it down; nothing else reads flags.
"""

import dataclasses

from jaxnn.experiment import catalogue
from jaxnn.experiment.flags.options import option

PRECISIONS = ("fp64", "fp32", "bf16", "fp16")
STEPS_BELOW = 50_000_000
"""Bound on the steps of a schedule, which is a table of learning rates."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment; the defaults are linear regression of y = 2x + 1.

    Fields marked `run_only` belong to one run: `experiment.flags` leaves them out, so
    that a run can be repeated from it in another folder or on other hosts.
    """

    name: str = option(
        "linear_regression",
        "Name of the experiment; part of the name of the default --workdir.",
    )

    # Data.
    dataset: str = option(
        "linear",
        "Data set to train on.",
        choices=(
            "linear",
            "gates",
            "approximation",
            "circles",
            "moons",
            "spirals",
            "xor_cloud",
            "iris",
            "breast_cancer",
            "wine",
            "diabetes",
            "digits",
            "sine",
            "blobs",
            "markov",
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
        "csv, npz, text: file to read (text: Python's help topics by default). mnist, "
        "fashion_mnist, cifar10: folder with the official files (downloaded by "
        "default). npz takes .npz files with arrays x and y, or folders with x.npy and "
        "y.npy or x_000.npy, y_000.npy, x_001.npy, ...; several of them, "
        "comma-separated or as a glob, form one data set in the order of their names. "
        "If the files total 256 MiB or more, x is memory-mapped, from .npy files and "
        "from .npz files that are not compressed (numpy.savez).",
        path=True,
    )
    target: str = option(
        "", "csv: name of the column to predict; empty: the last column."
    )
    delimiter: str = option(
        "",
        "csv: character between cells, or tab; empty: the comma, semicolon, tab or bar "
        "that fits the file.",
    )
    decimal: str = option(
        "",
        "csv: mark before decimals; empty: find out.",
        choices=("", ".", ","),
    )
    noheader: bool = option(
        False,
        "csv: the first line holds data, columns are named x0, x1, ...; otherwise it "
        "names the columns, unless it holds numbers as the lines below it do.",
    )
    task: str = option(
        "auto",
        "csv, npz: type of the target; auto: binary or multiclass for text or a few "
        "distinct whole numbers, else regression.",
        choices=("auto", "regression", "binary", "multiclass"),
    )
    gate: str = option(
        "xor", "gates: truth table to learn.", choices=("and", "or", "nand", "xor")
    )
    function: str = option(
        "sine",
        "approximation: function on [0, 1] to learn.",
        choices=("sine", "absolute", "square_wave", "runge"),
    )
    features: tuple[int, ...] = option(
        (),
        "Columns of a table to train on, comma-separated, counted from 0 without the "
        "target; empty: all columns.",
        minimum=0,
    )
    positive_class: str = option(
        "",
        "Class to separate from all others, which makes the task binary; empty: keep "
        "the classes.",
    )
    sample_shape: tuple[int, ...] = option(
        (),
        "blobs: shape of a sample: FEATURES, STEPS,FEATURES or HEIGHT,WIDTH,CHANNELS.",
        minimum=1,
    )
    num_classes: int = option(
        0,
        "blobs: classes, each of normal numbers around a mean; markov: tokens, three "
        "of four of which follow from the one before.",
        minimum=0,
        below=1_000_000,
    )
    noise: float = option(
        0.0,
        "circles, moons, spirals, xor_cloud: standard deviation of what is added to "
        "both coordinates.",
        minimum=0,
    )
    sequence_length: int = option(
        50,
        "sine, text, markov: steps per window, the context of the model.",
        minimum=1,
    )
    num_samples: int = option(
        10_000,
        "Generated data sets: number of training samples; sine: length of the series.",
        minimum=1,
    )
    test_fraction: float = option(
        0.2, "Fraction of the samples held out for testing.", above=0, below=1
    )
    validation_fraction: float = option(
        0.0,
        "Fraction of the training samples held out for validation.",
        minimum=0,
        below=1,
    )
    num_folds: int = option(
        0,
        "Number of folds of k-fold cross-validation, with --fold as the test split; 0: "
        "one split by --test_fraction.",
        minimum=0,
    )
    fold: int = option(
        0, "k-fold cross-validation: fold to test on, from 0.", minimum=0
    )
    split_seed: int = option(42, "Seed of splits and of generated data.", minimum=0)
    preprocess: str = option(
        "none",
        "Input scaling, fitted on the training split only; byte images: per channel.",
        choices=("none", "standardize", "min_max"),
    )
    random_crop: int = option(
        0,
        "Images: pixels of zeros put around each scaled training image, from which one "
        "of its size is cut at random, anew at every step; 0: off.",
        minimum=0,
    )
    random_flip: bool = option(
        False,
        "Images: mirror each training image left to right with probability 1/2, anew "
        "at every step.",
    )

    # Model.
    model: str = option(
        "linear",
        "Network to train. FILE.py:NAME is one of your own: FILE has a flax.linen "
        "class NAME, a torch class TorchNAME, and optionally convert(state_dict), "
        "which moves torch's parameters to flax's names and layouts; both stacks "
        "import all of FILE. See jaxnn/experiment/own_model.py.",
        choices=tuple(catalogue.MODELS),
        or_own=True,
        path=True,
    )
    hidden_sizes: tuple[int, ...] = option(
        (),
        "Units of each hidden layer (cnn: after the convolutions) or recurrent layer, "
        "comma-separated.",
        minimum=1,
    )
    activation: str = option(
        "relu",
        "Activation of the hidden layers.",
        choices=catalogue.ACTIVATIONS,
    )
    leaky_relu_alpha: float = option(
        0.01, "Slope of leaky_relu for negative inputs.", minimum=0
    )
    normalization: str = option(
        "none",
        "mlp, cnn: normalization between each hidden layer and its activation.",
        choices=("none", "batch", "layer"),
    )
    residual: bool = option(
        False,
        "mlp: add to what a hidden layer hands on what it was given, where both are as "
        "wide.",
    )
    sync_batch_norm: bool = option(
        True,
        "Batch normalization over the global batch; --nosync_batch_norm: over the rows "
        "of each device, with running statistics averaged over devices.",
    )
    use_bias: bool = option(
        True,
        "linear, perceptron, logistic, mlp, cnn: biases in dense layers and "
        "convolutions; --nouse_bias: none, but those of normalizations.",
    )
    dropout_rates: tuple[float, ...] = option(
        (),
        "Dropout probability after each hidden layer, comma-separated (transformers: "
        "one rate for all); empty: no dropout.",
        minimum=0,
        below=1,
    )
    channels: tuple[int, ...] = option(
        (),
        "cnn: output channels of each convolution, comma-separated; each is followed "
        "by 2x2 pooling.",
        minimum=1,
    )
    kernel_size: int = option(
        3, "cnn: height and width of the kernels, an odd number.", minimum=1
    )
    pool: str = option("max", "cnn: type of pooling.", choices=("max", "average"))
    resnet_depth: int = option(
        20,
        "resnet: number of layers, 20 or 32 (CIFAR), 18 or 50 (ImageNet).",
        minimum=18,
    )
    convolution: str = option(
        "auto",
        "Implementation of convolutions: patches (matrix products of patches), direct "
        "(XLA's convolution, up to 50 times slower in training on a CPU), or auto "
        "(patches on a CPU, direct elsewhere).",
        choices=("auto", "patches", "direct"),
    )
    num_layers: int = option(
        2, "transformers: number of blocks.", minimum=1, below=10_000
    )
    width: int = option(128, "transformers: embedding width of a token.", minimum=1)
    num_heads: int = option(4, "transformers: number of attention heads.", minimum=1)
    mlp_width: int = option(
        0,
        "transformers: hidden units of the MLP in a block; 0: four times --width.",
        minimum=0,
    )
    initializer: str = option(
        "lecun_normal",
        "Initializer of the kernels; biases start at zero except with torch_default.",
        choices=catalogue.INITIALIZERS,
    )

    # Objective.
    loss: str = option(
        "mse",
        "Loss, averaged over the batch; cross-entropies take logits.",
        choices=tuple(catalogue.LOSSES),
    )
    label_smoothing: float = option(
        0.0,
        "cross_entropy: probability mass of each label spread over all classes.",
        minimum=0,
        below=1,
    )
    # Regularizers act on the gradient and are not part of the reported loss, as
    # weight_decay in torch.optim.
    l1: float = option(
        0.0, "L1 regularization: adds the gradient of l1 |w|.", minimum=0
    )
    l2: float = option(
        0.0,
        "L2 regularization: adds the gradient of l2 w^2 / 2; weight_decay of torch's "
        "optimizers other than AdamW.",
        minimum=0,
    )
    weight_decay: float = option(
        0.0,
        "adamw: decoupled weight decay; each step subtracts learning_rate * "
        "weight_decay * w.",
        minimum=0,
    )
    decay_all: bool = option(
        True,
        "Apply l1, l2 and weight decay to every parameter, as torch does; "
        "--nodecay_all: leave out biases and normalization layers.",
    )
    clip_norm: float = option(
        0.0,
        "Maximum global norm of the gradients, by DeepSpeed's formula; 0: no clipping.",
        minimum=0,
    )
    freeze: str = option(
        "",
        "Regular expression: parameters in whose name (hidden_0/kernel) it is found "
        "are not trained: no gradient, no penalty or decay, no state of the optimizer; "
        "empty: all are trained.",
    )
    patience: int = option(
        0,
        "Early stopping: epochs without a better validation loss before training stops "
        "and the best parameters are restored; 0: off.",
        minimum=0,
    )
    min_delta: float = option(
        0.0,
        "Early stopping: minimum decrease of the validation loss to count as better.",
        minimum=0,
    )

    # Optimizer. Decays and eps default to torch's values; optax has others for RMSprop
    # and AdaGrad (MISMATCHES O1, O2).
    optimizer: str = option(
        "adam",
        "Optimizer.",
        choices=tuple(catalogue.OPTIMIZERS),
    )
    learning_rate: float = option(1e-3, "Peak step size, per optimizer step.", above=0)
    momentum: float = option(
        0.9,
        "All optimizers of momentum: decay of the velocity, per step.",
        minimum=0,
        below=1,
    )
    adam_b1: float = option(
        0.9, "Adam: decay of the first moment, per step.", minimum=0, below=1
    )
    adam_b2: float = option(
        0.999, "Adam: decay of the second moment, per step.", minimum=0, below=1
    )
    adam_eps: float = option(
        1e-8, "Adam: eps, added to the root of the second moment.", above=0
    )
    rmsprop_decay: float = option(
        0.99, "RMSprop: decay of the mean square, per step.", minimum=0, below=1
    )
    rmsprop_eps: float = option(
        1e-8, "RMSprop: eps, added to the root of the mean square.", above=0
    )
    adagrad_eps: float = option(
        1e-10, "AdaGrad: eps, added to the root of the accumulator.", above=0
    )
    adagrad_initial: float = option(
        0.0, "AdaGrad: initial value of the accumulator.", minimum=0
    )
    accumulation_steps: int = option(
        1,
        "Gradient accumulation: microbatches per optimizer step, which divide "
        "--batch_size.",
        minimum=1,
    )

    # Learning rate over the run; see schedules.py.
    schedule: str = option(
        "constant",
        "Learning rate schedule.",
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
        0,
        "Schedules with a warm-up: optimizer steps until the peak.",
        minimum=0,
    )
    warmup_type: str = option(
        "log",
        "warmup_lr, warmup_decay_lr, warmup_cosine_lr: curve of DeepSpeed's warm-up.",
        choices=("log", "linear"),
    )
    min_learning_rate: float = option(
        0.0, "Learning rate at which warm-ups start and cosines end.", minimum=0
    )
    final_learning_rate: float = option(
        0.0,
        "warmup_cosine_lr: learning rate at which the cosine ends; 0: "
        "--min_learning_rate.",
        minimum=0,
    )
    schedule_steps: int = option(
        0,
        "Schedules with an end: length in optimizer steps, at least that of the run; "
        "0: all steps of --epochs, even if --max_steps stops earlier.",
        minimum=0,
        below=STEPS_BELOW,
    )
    decay_rate: float = option(
        0.1,
        "step, exponential: factor of the learning rate per --decay_steps.",
        above=0,
    )
    decay_steps: int = option(
        1000,
        "step, exponential: optimizer steps per factor --decay_rate.",
        minimum=1,
    )

    # Run.
    epochs: int = option(30, "Passes over the training data.", minimum=1)
    max_steps: int = option(
        0, "Stop after this many optimizer steps; 0: no limit.", minimum=0
    )
    batch_size: int = option(
        32,
        "Global batch size: samples per optimizer step over all devices. A smaller "
        "last batch is kept.",
        minimum=1,
    )
    seed: int = option(
        0,
        "Seed of initial parameters, batch order and dropout masks.",
        minimum=0,
    )
    # Empty by default, because each program has its own: torch_ref.train is the FP16
    # reference.
    precision: str = option(
        "",
        "Dtype of the forward and backward pass; master parameters stay fp32 (fp64 "
        "with fp64). Default: fp32 in jaxnn.train, fp16 in torch_ref.train and "
        "parity.run.",
        choices=("", *PRECISIONS),
    )
    num_devices: int = option(
        0,
        "Devices to train on; 0: all of them, or as many cores of a CPU as a step's "
        "work pays for.",
        minimum=0,
    )
    device_cache_mb: int = option(
        4096,
        "Device memory for the data, in MiB per device. Larger data sets are streamed "
        "in chunks of many steps, with the next chunk read ahead; a stop signal then "
        "takes effect after a chunk instead of an epoch.",
        minimum=1,
    )

    # Several hosts.
    coordinator_address: str = option(
        "",
        "HOST:PORT of process 0, for several processes that train together, each on "
        "the devices of its host.",
        run_only=True,
    )
    num_processes: int = option(
        0, "Number of processes at --coordinator_address.", minimum=0, run_only=True
    )
    process_id: int = option(
        0, "Index of this process among them, from 0.", minimum=0, run_only=True
    )
    distributed: bool = option(
        False,
        "Join the cluster that the environment describes: SLURM, Open MPI or a TPU "
        "pod.",
        run_only=True,
    )
    initialization_timeout: int = option(
        120,
        "Seconds to wait for the other processes.",
        minimum=1,
        below=1_000_000,
        run_only=True,
    )

    # FP16 loss scaling: names and defaults of DeepSpeed's fp16 block. The scale is
    # float32, which overflows at 2**128.
    initial_scale_power: int = option(
        16, "FP16: log2 of the initial loss scale.", minimum=0, below=128
    )
    loss_scale_window: int = option(
        1000, "FP16: steps without overflow before the loss scale doubles.", minimum=1
    )
    hysteresis: int = option(
        2, "FP16: overflows before the loss scale is halved.", minimum=1
    )
    min_loss_scale: float = option(
        1.0, "FP16: minimum loss scale; an overflow there ends the run.", above=0
    )
    consecutive_hysteresis: bool = option(
        False,
        "FP16: a step without overflow resets the hysteresis, so that only consecutive "
        "overflows count.",
    )
    static_loss_scale: float = option(
        0.0,
        "FP16: constant loss scale; 0: dynamic loss scaling.",
        minimum=0,
    )

    # DeepSpeed.
    zero_stage: int = option(1, "DeepSpeed: ZeRO stage.", minimum=0, below=4)
    fused_adam: bool = option(
        True,
        "Compute Adam as DeepSpeed's FusedAdam (compiled at first use), with float32 "
        "betas; --nofused_adam: as torch.optim.Adam, with float64 betas.",
    )
    fp16_kernels: str = option(
        "any",
        "DeepSpeed on a CPU without FP16 instructions: any uses torch's software FP16 "
        "and prints a note, native refuses to run.",
        choices=("any", "native"),
    )
    ds_config: str = option(
        "",
        "DeepSpeed configuration (JSON or Hjson file) from which to take batch size, "
        "optimizer, schedule, precision, clipping, accumulation and ZeRO stage; it "
        "overrides a --flagfile.",
        run_only=True,
        path=True,
    )
    ds_auto: str = option(
        "",
        'What "auto" in --ds_config is without a flag. trainer: what Hugging Face\'s '
        "Trainer fills in by default; deepspeed: dropped, as if it were not there; "
        "empty: as trainer, and each is listed.",
        choices=("", "trainer", "deepspeed"),
        run_only=True,
    )
    ds_extra: str = option(
        "",
        "DeepSpeed: JSON object of further configuration about memory and "
        "communication, which JAX has no use for; --ds_config fills it in.",
    )

    # Files.
    workdir: str = option(
        "",
        "Folder for the files of the run; empty: a new folder under runs/.",
        run_only=True,
        path=True,
    )
    overwrite: bool = option(
        False, "Replace the run in --workdir, if there is one.", run_only=True
    )
    resume: bool = option(
        False, "Continue the run in --workdir from its last checkpoint.", run_only=True
    )
    checkpoint_every: int = option(
        0, "Epochs between checkpoints; 0: only on SIGTERM.", minimum=0
    )
    grace_seconds: float = option(
        600.0,
        "jaxnn.train: seconds in which SIGTERM or Ctrl-C is obeyed, SIGTERM by saving "
        "the state after the epoch; after them, or a second Ctrl-C, the process ends "
        "as it is. Raise it where an epoch or its compilation takes longer.",
        minimum=0,
        below=1_000_000,
        run_only=True,
    )
    keep: int = option(2, "Number of checkpoints to keep, the latest ones.", minimum=1)
    evaluate_train: bool = option(
        False,
        "Evaluate the training split too after each epoch, as the test split is.",
    )
    diagnose: bool = option(
        False,
        "Write diagnostics.csv and diagnostics.png: by epoch and layer, norms of "
        "gradients and updates, dead and saturated units, activations, and what FP16 "
        "loses of gradients; of one step of each epoch.",
    )
    tensorboard: bool = option(
        False,
        "Write event files for TensorBoard into --workdir, once an epoch, and the "
        "plots at the end; needs tensorboardX.",
        run_only=True,
    )
    wandb: bool = option(
        False,
        "Log to Weights & Biases, once an epoch, and the plots at the end: online with "
        "a key, else offline into --workdir; needs wandb.",
        run_only=True,
    )
    plots: bool = option(True, "Draw plots into --workdir at the end of the run.")
    init_params: str = option(
        "",
        "params.safetensors with the initial parameters; empty: initialize them.",
        run_only=True,
        path=True,
    )
    record: str = option(
        "off",
        "Trace to write to --workdir: losses; params: and parameters and moments; "
        "full: and activations and gradients.",
        choices=("off", "losses", "params", "full"),
        run_only=True,
    )
    record_steps: int = option(
        50, "Number of steps to record, from the first one.", minimum=1, run_only=True
    )

    def replace(self, **changes) -> "Experiment":
        """Returns a copy with some fields changed, without checking it again."""
        return dataclasses.replace(self, **changes)
