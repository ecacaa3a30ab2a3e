"""`RandomForest`: trees grown by scikit-learn, whose disagreement is the score."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from scipy.spatial import cKDTree

from hpcmsm.errors import SetupError
from hpcmsm.surrogate.learner import CHUNK, Learner

TREES = 100
# Half the width between these quantiles of the trees' answers is the deviation.
LOW, HIGH = 0.05, 0.95
LEAF = -1
MISSING = (
    "surrogate.kind 'random_forest' needs scikit-learn, got none; "
    "install it with pip install 'hpcmsm[forest]', or choose another kind"
)
NAMES = ("feature", "threshold", "left", "right")


class RandomForest(Learner):
    """The mean of regression trees, each grown on a sample of the samples drawn with replacement.

    Far from all samples the trees agree, on the nearest leaf's value. So the distance to the nearest
    sample enters as well, as what outputs of unit deviation change by on the way, with unit slope.
    scikit-learn grows them; what is kept and asked are plain arrays of all nodes of all trees, so a
    stored forest is no program and answers without scikit-learn.
    Source: Breiman 2001, doi 10.1023/A:1010933404324; quantiles after Meinshausen 2006, Journal of
    Machine Learning Research 7.

    Raises:
        SetupError: scikit-learn is missing.
    """

    def __init__(self, inputs, outputs, comm, seed: int = 0, *, goal: float = 1e-4):
        if find_spec("sklearn") is None:
            raise SetupError(MISSING)
        super().__init__(inputs, outputs, comm, seed, goal=goal)

    def _learn(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        try:
            from sklearn.ensemble import RandomForestRegressor
        except ImportError:
            raise SetupError(MISSING) from None

        state = np.random.RandomState(np.random.MT19937(self.seed))
        forest = RandomForestRegressor(TREES, random_state=state, n_jobs=1).fit(
            x, z.squeeze(axis=1) if z.shape[1] == 1 else z
        )
        trees = [grown.tree_ for grown in forest.estimators_]
        first = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])])
        parts = {
            "feature": [tree.feature for tree in trees],
            "threshold": [tree.threshold for tree in trees],
            # Numbers of nodes count through all trees; a leaf leads to itself.
            "left": [_below(tree.children_left, n) for tree, n in zip(trees, first, strict=False)],
            "right": [_below(tree.children_right, n) for tree, n in zip(trees, first, strict=False)],
            "value": [tree.value[:, :, 0] for tree in trees],
        }
        depth = max(tree.max_depth for tree in trees)
        arrays = {name: np.concatenate(part) for name, part in parts.items()}
        return arrays | {
            "points": x,
            "first": first[:-1].astype(np.int64),
            "depth": np.array([depth], dtype=np.int64),
        }

    def _refresh(self) -> None:
        self._tree = cKDTree(self.arrays["points"])

    def _answer(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        feature, threshold, left, right = (self.arrays[name] for name in NAMES)
        node = np.repeat(self.arrays["first"][:, None], CHUNK, axis=1)
        cell = np.arange(CHUNK)
        for _ in range(int(self.arrays["depth"][0])):
            goes_left = x[np.maximum(feature[node], 0), cell] <= threshold[node]
            node = np.where(goes_left, left[node], right[node])
        answers = np.ascontiguousarray(self.arrays["value"][node].transpose(0, 2, 1))
        ordered = np.sort(answers, axis=0)
        low, high = (ordered[round(part * (len(ordered) - 1))] for part in (LOW, HIGH))
        distance = self._tree.query(np.ascontiguousarray(x.T))[0]
        return np.add.reduce(answers, axis=0) / len(answers), np.hypot(0.5 * (high - low), distance)


def _below(children: np.ndarray, first: int) -> np.ndarray:
    return np.where(children == LEAF, np.arange(len(children)), children) + first
