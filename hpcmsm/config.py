"""The case file: TOML through pydantic, checked as a whole before anything runs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, model_validator
from pydantic import Field as Key

from hpcmsm.errors import ConfigError
from hpcmsm.validation import closest, validate

# Units that a number may carry in a case file, as factors to the unit of the key.
UNITS = {
    "m": {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "km": 1e3},
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0},
}


def quantity(unit: str):
    """A validator for a number in `unit`, or a text such as "60 mm" in a unit of the same kind."""

    def read(value):
        if not isinstance(value, str):
            return value
        number, _, given = value.strip().partition(" ")
        factor = UNITS[unit].get(given.strip() or unit)
        if factor is None:
            raise ValueError(f"must be in {unit} (or {', '.join(u for u in UNITS[unit] if u != unit)})")
        try:
            return float(number) * factor
        except ValueError:
            raise ValueError(
                f"must be a number in {unit}, such as 0.5 or '5 {list(UNITS[unit])[2]}'"
            ) from None

    return BeforeValidator(read)


def read_tolerance(value) -> tuple[float, str | None]:
    """A tolerance as (number, unit): 2e-3 has no unit and is relative, "0.01 W/(m K)" is in that unit.

    Raises:
        ValueError: it is neither.
    """
    number, unit = value, None
    if isinstance(value, str):
        first, _, rest = value.strip().partition(" ")
        unit = " ".join(rest.split()) or None
        try:
            number = float(first) if unit else None
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError("must be a number, or a text of a number and a unit such as '0.01 W/(m K)'")
    if not number > 0:
        raise ValueError("must be greater than 0")
    if unit is None and not number < 1:
        raise ValueError("must be less than 1, being relative")
    return float(number), unit


def _checked_tolerance(value):
    """Unchanged, if every part of it can be read."""
    for part in value.values() if isinstance(value, dict) else (value,):
        read_tolerance(part)
    return value


Length = Annotated[float, quantity("m"), Key(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, quantity("s"), Key(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Key(ge=1, strict=True)]
Real = Annotated[float, Key(allow_inf_nan=False)]
Fraction = Annotated[float, Key(ge=0, le=1)]
Formula = str | Real
Component = Literal["xx", "yy", "zz", "yz", "xz", "xy"]


def _checked_angles(value):
    """Unchanged, if it is one number or three."""
    numbers = value if isinstance(value, list) and len(value) == 3 else [value]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise ValueError("must be an angle in degrees, or a list of three Euler angles")
    return value


# Degrees about z, or Bunge's Euler angles.
Angles = Annotated[Real | list[Real], BeforeValidator(_checked_angles)]

EXPLICIT = ("euler", "rk2", "rk3", "rk4", "rk5")
IMPLICIT = ("backward_euler", "bdf2", "arkimex2", "arkimex3", "arkimex4")
SPLIT = ("godunov", "strang")
CENTRAL = ("nessyahu_tadmor",)
# Schemes with an estimate of their error.
ADAPTIVE = ("rk2", "rk3", "rk5", "arkimex2", "arkimex3", "arkimex4")


class Section(BaseModel):
    """A table of the case file; unknown keys are refused, and a value of one type is not read as another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GridSection(Section):
    """Cells and side lengths along x[, y[, z]].

    centring: "cell": the cells fill the box; "vertex": their centres reach from side to side.
    """

    cells: list[Count] = Key(min_length=1, max_length=3)
    size: list[Length] = Key(min_length=1, max_length=3)
    centring: Literal["cell", "vertex"] = "cell"
    proc_shape: list[Count] | None = None

    @model_validator(mode="after")
    def same_dimension(self):
        if len(self.cells) != len(self.size):
            raise ValueError(
                f"grid.size must have one entry per entry of grid.cells, got {len(self.size)} "
                f"for {len(self.cells)}"
            )
        if self.proc_shape is not None and len(self.proc_shape) != len(self.cells):
            raise ValueError(
                "grid.proc_shape must have one entry per entry of grid.cells, got "
                f"{len(self.proc_shape)} for {len(self.cells)}"
            )
        if self.centring == "vertex" and min(self.cells) < 2:
            raise ValueError(
                f"grid.cells must be at least 2 for grid.centring 'vertex', got {min(self.cells)}"
            )
        return self


class TimeSection(Section):
    """Time stepping; step is the first step where it is adaptive."""

    scheme: Literal[EXPLICIT + IMPLICIT + SPLIT + CENTRAL] = "backward_euler"
    end: Seconds
    step: Seconds
    adaptive: bool = False
    tolerance: Annotated[float, Key(gt=0, lt=1)] = 1e-4
    max_steps: Count = 1_000_000

    @model_validator(mode="after")
    def adaptive_fits(self):
        if self.adaptive and self.scheme not in ADAPTIVE:
            raise ValueError(
                f"time.adaptive needs a scheme with an error estimate ({', '.join(ADAPTIVE)}), "
                f"got {self.scheme}"
            )
        return self


class CellField(Section):
    """A field of the cells that stays the same in time: a formula of x, y, z."""

    value: Formula
    unit: str = "1"


class Boundary(Section):
    """One side: what is given there, as formulas of t, x, y, z and (flux, ambient) the unknown.

    kind: "flux", "convection", "periodic"; the name of the unknown, whose value is then given; or, of
        waves, "fixed", "moving", "free".
    """

    kind: Literal["temperature", "concentration", "flux", "convection", "periodic", "fixed", "moving", "free"]
    temperature: Formula | None = None
    concentration: Formula | None = None
    flux: Formula | None = None
    coefficient: Formula | None = None
    ambient: Formula | None = None
    velocity: Formula | None = None

    @model_validator(mode="after")
    def has_its_keys(self):
        wanted = {
            "temperature": ("temperature",),
            "concentration": ("concentration",),
            "flux": ("flux",),
            "convection": ("coefficient", "ambient"),
            "moving": ("velocity",),
        }.get(self.kind, ())
        for name in ("temperature", "concentration", "flux", "coefficient", "ambient", "velocity"):
            given = getattr(self, name) is not None
            # A side with convection may take a given flux on top of it: a heated, cooled surface.
            if given and name not in wanted and not (self.kind == "convection" and name == "flux"):
                raise ValueError(f"'{self.kind}' does not take '{name}'")
            if not given and name in wanted:
                raise ValueError(f"'{self.kind}' needs '{name}'")
        return self


class MacroSection(Section):
    """The macro equation: keys that several have, and whatever options a model declares itself.

    initial: a formula, or a table of formulas by the name of the unknown's component.
    """

    model_config = ConfigDict(extra="allow")

    model: str = "heat"
    initial: Formula | dict[str, Formula] = 300.0
    source: Formula = 0.0
    heat_capacity: Formula | None = None
    coupling: Literal["lagged", "stage", "picard"] = "lagged"
    picard_tolerance: Annotated[float, Key(gt=0, lt=1)] = 1e-8
    max_iterations: Count = 50
    linear_tolerance: Annotated[float, Key(gt=0, lt=1)] = 1e-10
    boundary: dict[Literal["x_low", "x_high", "y_low", "y_high", "z_low", "z_high"], Boundary] = Key(
        default_factory=dict
    )
    petsc: dict[str, str | int | float | bool] = Key(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """The keys that only this model knows."""
        return dict(self.__pydantic_extra__ or {})


class MicroSection(BaseModel):
    """The fine-scale model: its name, and whatever options it declares itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str
    backend: Literal["cpu", "gpu"] = "cpu"

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside model and backend."""
        return dict(self.__pydantic_extra__ or {})


class SurrogateSection(Section):
    """The surrogate that is trained on the way; members and hidden are for networks alone.

    load: a model file (relative to the case) that an ensemble begins with; it brings its own sizes.
    swap_after: steps from the beginning of a training to the swap of versions. With 0 every rank waits
        for it; else, after the first training, the next steps go on meanwhile, and where the swap
        falls depends on no clock. Left out: a fifth of the steps since the training before.
    """

    enabled: bool = True
    load: str | None = None
    kind: Literal["ensemble", "laplace", "gaussian_process", "random_forest", "rbf", "isat"] = "ensemble"
    members: Annotated[int, Key(ge=2, le=64, strict=True)] = 5
    hidden: list[Count] = Key(default=[16, 16], min_length=1, max_length=4)
    capacity: Annotated[int, Key(ge=64, strict=True)] = 2048
    first_samples: Annotated[int, Key(ge=10, strict=True)] = 16
    growth: Annotated[float, Key(gt=0)] = 0.3
    swap_after: Annotated[int, Key(ge=0, le=10_000, strict=True)] | None = None

    @model_validator(mode="after")
    def model_is_of_networks(self):
        if self.load is not None and self.kind not in ("ensemble", "laplace"):
            raise ValueError(f"surrogate.load needs surrogate.kind 'ensemble' or 'laplace', got {self.kind}")
        return self

    @model_validator(mode="after")
    def buffer_holds_the_first_samples(self):
        if self.capacity < self.first_samples:
            raise ValueError(
                f"surrogate.capacity must be at least surrogate.first_samples ({self.first_samples}), "
                f"got {self.capacity}"
            )
        return self


class GateSection(Section):
    """When a surrogate's answer is good enough.

    tolerance: a number, relative to the size of the output; or a text with the output's unit, such as
    "0.01 W/(m K)"; or a table of these, one per output. blend: steps over which a cell goes over from one
    answer to another; 0 changes at once, as a macro_tolerance does. macro_tolerance: instead of tolerance,
    what all accepted errors together may change the goal by, in the unit of the unknown; goal: weights of
    x, y, z for a mean of it.
    """

    tolerance: Annotated[Any, PlainValidator(_checked_tolerance)] = 2e-3
    coverage: Annotated[float, Key(gt=0.5, lt=1)] = 0.99
    audit: Annotated[float, Key(gt=0, le=0.5)] = 0.01
    novelty: Annotated[float, Key(gt=0)] = 0.05
    blend: Annotated[int, Key(ge=0, le=1000, strict=True)] = 4
    macro_tolerance: Annotated[float, Key(gt=0, allow_inf_nan=False)] | None = None
    goal: Formula = 1.0


class Material(Section):
    """Properties of a phase, as formulas of temperature in K.

    conductivity: one formula, or one for each of the axes x, y[, z], or a table of the components of a
    tensor, { xx = ..., yy = ..., xy = ... }; those left out are 0. A composite has a micro model of its own
    in place of it, and with that a surrogate and a gate.
    angle: by which these axes, or those of the composite, are turned, in degrees: about z, from x towards y;
    or Bunge's three Euler angles (about z, the new x, the new z).
    axes: which axes of that model lie along x, y[, z] of the cell around it, such as "zx"; "xy[z]" if left
    out.
    """

    conductivity: (
        Formula | Annotated[list[Formula], Key(min_length=2, max_length=3)] | dict[Component, Formula] | None
    ) = None
    angle: Angles | None = None
    heat_capacity: Formula | None = None
    source: str = ""
    micro: MicroSection | None = None
    surrogate: SurrogateSection | None = None
    gate: GateSection | None = None
    axes: str | None = None

    @model_validator(mode="before")
    @classmethod
    def composite_has_all_tables(cls, tree):
        if isinstance(tree, dict) and "micro" in tree:
            tree = {"surrogate": {}, "gate": {}, **tree}
            if isinstance(tree["gate"], dict):
                tree["gate"] = {"blend": 0, **tree["gate"]}
        return tree

    @model_validator(mode="after")
    def conducts_somehow(self):
        if (self.conductivity is None) == (self.micro is None):
            raise ValueError("must have either a conductivity or a table micro")
        if isinstance(self.conductivity, dict) and {"xx", "yy"} - set(self.conductivity):
            raise ValueError("must have the components xx and yy of its conductivity")
        if self.angle is not None and self.micro is None and not isinstance(self.conductivity, list | dict):
            raise ValueError("must list what it conducts along its axes where it has an angle")
        for name in ("surrogate", "gate", "axes"):
            if self.micro is None and getattr(self, name) is not None:
                raise ValueError(f"must have a table micro where it has '{name}'")
        if self.micro is not None and self.heat_capacity is not None:
            raise ValueError("must leave out heat_capacity, the mean over the phases of its micro model")
        if self.gate is not None and self.gate.blend:
            # Blending remembers every cell from step to step, and not every cell asks below in every step.
            raise ValueError(f"must have gate.blend = 0 for a composite, got {self.gate.blend}")
        if self.gate is not None and self.gate.macro_tolerance is not None:
            raise ValueError("must leave out gate.macro_tolerance for a composite, which sees no macro field")
        if self.surrogate is not None and self.surrogate.load is not None:
            raise ValueError("must leave out surrogate.load for a composite; its surrogate is trained anew")
        return self


class CheckpointSection(Section):
    """How often, in steps, and how many are kept; every = 0 writes none but the last."""

    every: Annotated[int, Key(ge=0, strict=True)] = 50
    keep: Count = 2


class SnapshotSection(Section):
    """How often, in steps, fields are written for looking at; 0 writes the first and last only.

    fields: names of those to write, all where left out.
    """

    every: Annotated[int, Key(ge=0, strict=True)] = 0
    fields: list[str] | None = None


class Case(Section):
    """A whole case file."""

    title: str = ""
    seed: Annotated[int, Key(ge=0, lt=2**63, strict=True)] = 1
    grid: GridSection
    time: TimeSection
    fields: dict[str, CellField] = Key(default_factory=dict)
    materials: dict[str, Material] = Key(default_factory=dict)
    macro: MacroSection = Key(default_factory=MacroSection)
    micro: MicroSection
    surrogate: SurrogateSection = Key(default_factory=SurrogateSection)
    gate: GateSection = Key(default_factory=GateSection)
    checkpoint: CheckpointSection = Key(default_factory=CheckpointSection)
    snapshots: SnapshotSection = Key(default_factory=SnapshotSection)

    @model_validator(mode="after")
    def parts_fit(self):
        explicit = self.time.scheme in EXPLICIT
        if self.macro.coupling == "picard" and explicit:
            raise ValueError(f"macro.coupling 'picard' needs an implicit time.scheme, got {self.time.scheme}")
        if self.macro.coupling == "stage" and not explicit:
            raise ValueError(f"macro.coupling 'stage' needs an explicit time.scheme, got {self.time.scheme}")
        return self

    def to_toml(self) -> str:
        """The effective case, every default written out."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def load_case(path: str | Path, overrides: list[str] = ()) -> Case:
    """Read and check a case file.

    Args:
        path: the TOML file.
        overrides: texts "section.key=value", the value in TOML notation (a bare word is a text).
    Raises:
        ConfigError: the file or an override is wrong; the text names file, key, value and remedy.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"case file must be readable, got '{path}' ({reason}); check the path") from None
    return parse_case(text, path.name, overrides)


def parse_case(text: str, name: str, overrides: list[str] = ()) -> Case:
    """Check the text of a case file called `name`; see load_case."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"case file must be TOML, got '{name}' ({error}); correct that line") from None
    for override in overrides:
        apply_override(tree, override)
    for key, value in list(tree.get("fields", {}).items()) if isinstance(tree.get("fields"), dict) else ():
        if not isinstance(value, dict):
            tree["fields"][key] = {"value": value}
    case = validate(Case, tree, name)
    for key in case.macro.options:  # a slip in a common key is found before any model is asked
        close = closest(key, list(MacroSection.model_fields), "macro.", cutoff=0.8)
        if close:
            raise ConfigError(f"unknown key 'macro.{key}' ({name}); {close}")
    return case


# What a resumed run may change; anything else would make the past and the future different problems.
MAY_CHANGE = ("title", "time.", "checkpoint.", "snapshots.", "gate.", "macro.petsc.")
MAY_CHANGE += ("macro.max_iterations", "macro.picard_tolerance", "macro.linear_tolerance", "grid.proc_shape")
MUST_STAY = ("time.scheme",)


def check_resumable(before: Case, after: Case) -> None:
    """Refuse to resume a run as another problem.

    Raises:
        ConfigError: a key differs that the state of the run depends on.
    """
    old, new = (dict(_flat(case.model_dump())) for case in (before, after))
    for key in sorted(set(old) | set(new)):
        if old.get(key) != new.get(key) and (key in MUST_STAY or not key.startswith(MAY_CHANGE)):
            raise ConfigError(
                f"{key} must stay {old.get(key)!r} to resume this run, got {new.get(key)!r}; "
                "start a new run, or change only time, gate, checkpoint, snapshots or solver settings"
            )


def _flat(tree: dict, prefix: str = ""):
    """Keys with dots and their values."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def apply_override(tree: dict, override: str) -> None:
    """Set one key of a case given as "section.key=value"."""
    key, equals, value = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ConfigError(f"--set must be section.key=value, got '{override}'; write it like time.end=30")
    for part in parts[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set must name a key of a table, got '{override}'; '{part}' is a value")
    tree[parts[-1]] = _toml_value(value.strip())


def _toml_value(text: str):
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
