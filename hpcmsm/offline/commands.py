"""The commands collect, train, merge and explain; each imports what it needs when it is called."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from hpcmsm.errors import ConfigError
from hpcmsm.parallel import install_abort_hook, together, world


def _command(commands, function, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=function)
    return parser


def _start():
    comm = world()
    install_abort_hook(comm)
    return comm


def _say(comm, *lines) -> None:
    if comm.rank == 0:
        print(*lines, sep="\n")


def add_collect(commands) -> None:
    """The arguments of `hpcmsm collect`."""
    parser = _command(
        commands, collect, "collect", "Sample the micro model of a case, or harvest a run, into a dataset."
    )
    parser.add_argument("case", type=Path, nargs="?", help="case file (none with --from)")
    parser.add_argument("-n", type=int, default=512, dest="count", help="number of samples (default: 512)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="dataset to write (.h5)")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=LOWER:UPPER",
        help="narrow the declared range of an input",
    )
    parser.add_argument(
        "--from",
        type=Path,
        dest="run",
        metavar="RUN",
        help="take the samples of this run's newest checkpoint",
    )
    parser.add_argument(
        "--weigh-by",
        metavar="FIELD",
        help="with --from: weigh samples by V |grad u| of this macro field (train --weight weight uses it)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override section.key=value"
    )


def collect(options) -> int:
    """hpcmsm collect CASE -o DATA"""
    from hpcmsm.config import load_case
    from hpcmsm.io.dataset import write_dataset
    from hpcmsm.offline.collect import collect as collect_samples
    from hpcmsm.offline.collect import describe_dataset, harvest

    if (options.case is None) == (options.run is None):
        raise ConfigError(
            "CASE must be given, or --from RUN in its place, got both or none; give one of them"
        )
    if options.weigh_by and options.run is None:
        raise ConfigError("--weigh-by must go with --from RUN, got none; a sample of no run has no gradient")
    comm = _start()
    if options.run is not None:
        dataset = harvest(options.run, comm, options.weigh_by)
    else:
        with together(comm):
            case = load_case(options.case, options.set)
        dataset = collect_samples(case, options.case.parent, options.count, options.input, comm)
    write_dataset(comm, options.output, dataset)
    _say(comm, describe_dataset(dataset), f"{len(dataset.samples)} samples in {options.output}")
    return 0


def add_train(commands) -> None:
    """The arguments of `hpcmsm train`."""
    parser = _command(
        commands, train, "train", "Train a surrogate on datasets (under mpirun or srun for many ranks)."
    )
    parser.add_argument("data", type=Path, nargs="+", help="datasets of 'hpcmsm collect'")
    parser.add_argument("-o", "--output", type=Path, required=True, help="model to write (.h5)")
    parser.add_argument(
        "--kind",
        choices=("ensemble", "cnn", "fno"),
        default="ensemble",
        help="networks of the inputs (ensemble), or of images of the cells: convolutions (cnn), or a "
        "Fourier neural operator for the field in the cell (fno)",
    )
    parser.add_argument(
        "--bounds",
        type=float,
        default=0.0,
        metavar="W",
        help="cnn, fno: weight of leaving Wiener's bounds (0)",
    )
    parser.add_argument(
        "--weight",
        default="",
        metavar="FORMULA",
        help="weight of a sample in the loss, a formula of the inputs (and `weight`)",
    )
    parser.add_argument("--hidden", type=int, nargs="+", help="neurons of each hidden layer (default: 16 16)")
    parser.add_argument("--members", type=int, help="networks of the ensemble (default: 5)")
    parser.add_argument("--goal", type=float, default=1e-4, help="relative error that is enough (1e-4)")
    parser.add_argument("--epochs", type=int, help="most steps of a network (60; cnn, fno: 100 passes)")
    parser.add_argument("--seed", type=int, default=1, help="of the split and of the first weights (1)")
    parser.add_argument("--tune", type=int, default=0, metavar="N", help="try N recipes, take the best")
    parser.add_argument("--journal", type=Path, help="file of finished trials (default: OUTPUT.trials.json)")
    parser.add_argument("--from", type=Path, dest="start", metavar="MODEL", help="begin with another model")
    parser.add_argument(
        "--cheap", type=Path, nargs="+", metavar="DATA", help="datasets of a cheaper model of the same fields"
    )
    parser.add_argument(
        "--without-samples", action="store_true", help="leave the samples out of the model file"
    )


def train(options) -> int:
    """hpcmsm train DATA -o MODEL"""
    from hpcmsm.io.modelfile import write_model
    from hpcmsm.offline import train as training
    from hpcmsm.offline.pictures import write_learning_curve
    from hpcmsm.offline.tune import trial_table, tune

    comm = _start()
    with together(comm):
        recipe, start, dataset, samples, cheap = _read_inputs(options)
        render = _render(options, dataset)
    trials = []
    if options.tune:
        journal = options.journal or options.output.with_suffix(".trials.json")
        with together(comm):
            learns = training.split(samples, recipe.seed).training
        recipe, trials = tune(recipe, learns, dataset.inputs, dataset.outputs, options.tune, journal, comm)
        _say(comm, trial_table(trials))
    model = training.train(dataset, samples, recipe, comm, start, cheap, trials, render)
    write_model(comm, options.output, training.without_samples(model) if options.without_samples else model)
    with together(comm):
        files = write_learning_curve(options.output, model.history["curve"]) if comm.rank == 0 else []
    _say(
        comm, training.curve_table(model.history["curve"]), *(str(path) for path in (options.output, *files))
    )
    return 0


def _render(options, dataset):
    """Images of the cells of a dataset, for kinds that learn from them."""
    if options.kind == "ensemble":
        return None
    from hpcmsm.offline.collect import micro_of_text

    return micro_of_text(dataset.case, options.data[0].parent).images


def _read_inputs(options):
    """Recipe, model to start from, first dataset, its samples, and cheap samples."""
    from hpcmsm.io.modelfile import read_model
    from hpcmsm.offline import train as training

    recipe = _recipe(options)
    dataset, samples = training.read_datasets(options.data)
    if recipe.weight:
        samples = training.weighed(samples, dataset.inputs, recipe.weight)
    start, cheap = None, None
    if options.start is not None:
        if options.tune or options.hidden or options.members:
            raise ConfigError(
                "--from must go without --tune, --hidden and --members, got one of them; the model that "
                "training begins with brings its own networks"
            )
        start = read_model(options.start)
        if start.kind != options.kind:
            raise ConfigError(
                f"--from must name a model of --kind '{options.kind}', got '{start.kind}' in "
                f"{options.start.name}; give the same --kind"
            )
        training.check_fields(
            dataset, start, f"dataset {options.data[0].name}", f"model {options.start.name}"
        )
        if start.kind == "ensemble":
            recipe = replace(recipe, hidden=start.hidden, members=start.members)
    if options.cheap is not None:
        other, cheap = training.read_datasets(options.cheap)
        name = options.cheap[0].name
        training.check_fields(dataset, other, f"dataset {options.data[0].name}", f"dataset {name}")
        cheap = training.set_apart(cheap)
    return recipe, start, dataset, samples, cheap


def _recipe(options):
    """What the options say, checked."""
    from hpcmsm.offline.train import Recipe

    limits = {"goal": (0.0, 1.0), "epochs": (1, 10**6), "members": (2, 64), "seed": (0, 2**63 - 1)}
    limits |= {"tune": (0, 10**4), "bounds": (0.0, 1e6)}
    if options.kind != "ensemble" and (options.tune or options.hidden or options.members or options.cheap):
        raise ConfigError(
            f"--kind {options.kind} must go without --tune, --hidden, --members and --cheap, got one of "
            "them; leave it out"
        )
    if options.kind == "ensemble" and options.bounds:
        raise ConfigError("--bounds must go with --kind cnn or fno, got ensemble; leave it out")
    for name, (lower, upper) in limits.items():
        value = getattr(options, name)
        if value is not None and not lower <= value <= upper:
            raise ConfigError(f"--{name} must lie between {lower} and {upper}, got {value}; change it")
    hidden = tuple(options.hidden or Recipe.hidden)
    if not all(1 <= width <= 1024 for width in hidden) or len(hidden) > 4:
        raise ConfigError(f"--hidden must be 1 to 4 widths from 1 to 1024, got {list(hidden)}; try 16 16")
    sizes = (hidden, options.members or Recipe.members)
    rest = (options.kind, options.bounds, options.weight)
    epochs = options.epochs or (60 if options.kind == "ensemble" else 100)
    return Recipe(*sizes, options.goal, epochs, options.seed, *rest)


def add_merge(commands) -> None:
    """The arguments of `hpcmsm merge`."""
    parser = _command(
        commands, merge, "merge", "Average models trained from one common model where the data had to stay."
    )
    parser.add_argument("models", type=Path, nargs="+", help="models of 'hpcmsm train --from'")
    parser.add_argument("-o", "--output", type=Path, required=True, help="model to write (.h5)")


def merge(options) -> int:
    """hpcmsm merge A B -o C"""
    from hpcmsm.io.modelfile import write_model
    from hpcmsm.offline.merge import merge_files

    comm = _start()
    with together(comm):
        model = merge_files(options.models, comm)
    write_model(comm, options.output, model)
    _say(comm, f"{options.output}: mean of {len(options.models)} models, {model.nsample} samples")
    return 0


def add_explain(commands) -> None:
    """The arguments of `hpcmsm explain`."""
    parser = _command(
        commands, explain, "explain", "Show which inputs a model listens to, and which drive fallback."
    )
    parser.add_argument("model", type=Path, help="model of 'hpcmsm train'")
    parser.add_argument("data", type=Path, help="dataset to look at it with")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for tables and pictures")


def explain(options) -> int:
    """hpcmsm explain MODEL DATA -o DIR"""
    from hpcmsm.offline.explain import explain_files, explanation_table

    comm = _start()
    with together(comm):
        if comm.rank == 0:
            found, files = explain_files(options.model, options.data, options.output)
            print(explanation_table(found), *files, sep="\n")
    return 0


OFFLINE = (add_collect, add_train, add_merge, add_explain)
