"""`Tolerance`: how large an error of an answer may be, and the norm that errors are measured in."""

from __future__ import annotations

import copy
import difflib

import numpy as np

from hpcmsm.config import read_tolerance
from hpcmsm.errors import ConfigError
from hpcmsm.fields import Field, rows_of
from hpcmsm.surrogate import transform
from hpcmsm.surrogate.base import Surrogate

# A member of a surrogate is trained until it errs by the tolerance divided by this.
SHARPER = 10.0


class Tolerance:
    """What `gate.tolerance` says of the outputs.

    A plain number is relative: errors are those of `Surrogate.misfit`, and `limit` is the number. With
    units, or one tolerance per output, errors are parts of the tolerance, the largest over the outputs,
    and `limit` is 1. What is calibrated are relative errors all the same, as surrogates learn tensors by
    their logarithms; `allowed` says for each cell what is left of the tolerance then.

    Args:
        given: a number; a text such as "0.01 W/(m K)"; or a table of these by name of the output.
        outputs: fields of the closure.
    Raises:
        ConfigError: a unit is not that of the output, an output is missing, or there is none of a name.
    """

    def __init__(self, given: float | str | dict, outputs: tuple[Field, ...]):
        self.fields = tuple(outputs)
        self.sizes = np.ones(len(self.fields))
        self.relative = not isinstance(given, str | dict)
        self.limit = float(given) if self.relative else 1.0
        parts = given if isinstance(given, dict) else dict.fromkeys((f.name for f in outputs), given)
        self._check_names(parts)
        self.parts = [(field, *read_tolerance(parts[field.name])) for field in self.fields]
        for field, number, unit in self.parts:
            if unit not in (None, field.unit):
                raise ConfigError(
                    f"gate.tolerance of '{field.name}' must be in {field.unit}, got '{number:g} {unit}'; "
                    "convert it, or give a number without unit, relative to the size of the output"
                )

    def _check_names(self, given: dict) -> None:
        names = [field.name for field in self.fields]
        for name in given:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                advice = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}"
                raise ConfigError(
                    f"gate.tolerance must name outputs of the micro model, got '{name}'; {advice}"
                )
        for name in names:
            if name not in given:
                raise ConfigError(
                    f"gate.tolerance must name every output of the micro model, got none of '{name}'; "
                    f"add {name} = 2e-3, or whatever error you can bear"
                )

    @property
    def text(self) -> str:
        """For people: "0.002", or "conductivity 0.01 W/(m K), heat 0.001"."""
        if self.relative:
            return f"{self.limit:g}"
        return ", ".join(f"{f.name} {number:g}{f' {unit}' if unit else ''}" for f, number, unit in self.parts)

    def learn(self, outputs: np.ndarray) -> None:
        """Take the sizes of the outputs from true answers (noutput, n); does nothing where relative."""
        if self.relative or not outputs.shape[1]:
            return
        scales = transform.field_scales(self.fields, outputs)
        for number, (field, rows) in enumerate(
            zip(self.fields, _by_field(self.fields, outputs), strict=True)
        ):
            sizes = transform.size(field, scales[number], rows)
            self.sizes[number] = np.sqrt(np.mean(sizes * sizes))

    @property
    def goal(self) -> float:
        """Relative error that a surrogate is to be trained to."""
        if self.relative:
            return self.limit / SHARPER
        return min(1.0, 1.0 / self._weights().max()) / SHARPER

    def goal_of(self, outputs: np.ndarray) -> float:
        """What `goal` will be after `learn(outputs)`; nothing is learnt here."""
        other = copy.copy(self)
        other.sizes = self.sizes.copy()
        other.learn(outputs)
        return other.goal

    def error(self, surrogate: Surrogate, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Errors of answers (noutput, n) as they are calibrated, shape (n,); each relative to its size."""
        if self.relative:
            return surrogate.misfit(predicted, truth)
        return np.max(self._relative(predicted, truth) * self._weights()[:, None], axis=0)

    def score(self, score: np.ndarray) -> np.ndarray:
        """A surrogate's relative scores (n,), in the norm of `error`."""
        return score if self.relative else score * self._weights().max()

    def allowed(self, predicted: np.ndarray) -> np.ndarray:
        """What an `error` of these answers (noutput, n) may be at most, shape (n,).

        A relative error of a large tensor is more watts than one of a small tensor.
        """
        if self.relative:
            return np.full(predicted.shape[1], self.limit)
        return 1.0 / np.max(self._enlarged(predicted), axis=0)

    def told(self, surrogate: Surrogate, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Errors of answers (n,) in the words of the user: to be compared with `limit`."""
        if self.relative:
            return surrogate.misfit(predicted, truth)
        parts = self._relative(predicted, truth) * self._weights()[:, None] * self._enlarged(predicted)
        return np.max(parts, axis=0)

    def _relative(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Errors of every field relative to its size, shape (nfield, n)."""
        pairs = zip(_by_field(self.fields, predicted), _by_field(self.fields, truth), strict=True)
        return np.stack(
            [
                transform.misfit((field,), self.sizes[number : number + 1], *pair)
                for number, (field, pair) in enumerate(zip(self.fields, pairs, strict=True))
            ]
        )

    def _weights(self) -> np.ndarray:
        """What makes parts of the tolerance of relative errors, at the mean size, (nfield,)."""
        pairs = zip(self.parts, self.sizes, strict=True)
        return np.array([(size if unit else 1.0) / tolerated for (_, tolerated, unit), size in pairs])

    def _enlarged(self, predicted: np.ndarray) -> np.ndarray:
        """Size of a tensor in parts of the mean size where its tolerance is in units, else 1; (nfield, n)."""
        result = np.ones((len(self.fields), predicted.shape[1]))
        rows = _by_field(self.fields, predicted)
        for number, (field, _, unit) in enumerate(self.parts):
            if unit and field.spd:
                result[number] = transform.size(field, 1.0, rows[number]) / self.sizes[number]
        return result

    @property
    def norm(self) -> np.ndarray:
        """Numbers that tell this norm from that of another tolerance; none where it is relative."""
        if self.relative:
            return np.zeros(0)
        return np.array([[number, float(unit is None)] for _, number, unit in self.parts])


def _by_field(fields: tuple[Field, ...], array: np.ndarray) -> list[np.ndarray]:
    """The rows of each field, in memory of their own."""
    return [np.ascontiguousarray(array[row]) for row in rows_of(fields).values()]
