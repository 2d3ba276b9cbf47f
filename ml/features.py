"""What the model takes in: feature names, kinds and categories, fixed at training."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

NUMBER = "number"
BOOLEAN = "boolean"
CATEGORY = "category"


@dataclass(frozen=True)
class FeatureContract:
    """Names and kinds of the features in order, and what each category may be."""

    kinds: dict[str, str]
    categories: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        """Feature names in the order of the matrix."""
        return list(self.kinds)

    @property
    def xgboost_types(self) -> list[str]:
        """`c` for a category, `q` for a quantity, in the order of the matrix."""
        return ["c" if kind == CATEGORY else "q" for kind in self.kinds.values()]

    def to_json(self) -> dict[str, Any]:
        """The contract as the artifact keeps it."""
        return asdict(self)


def learn_contract(features: pd.DataFrame, kinds: dict[str, str]) -> FeatureContract:
    """Fix names, kinds and the categories met in training, in sorted order."""
    categories = {
        name: sorted(str(value) for value in features[name].dropna().unique())
        for name, kind in kinds.items()
        if kind == CATEGORY
    }
    return FeatureContract(kinds=dict(kinds), categories=categories)


def encode(features: pd.DataFrame, contract: FeatureContract) -> np.ndarray:
    """Return the matrix that XGBoost sees.

    A category that training never met counts as missing, as does infinity.

    Returns
    -------
    numpy.ndarray
        float32, one row per row of `features`, one column per feature of the
        contract; missing values are NaN.
    """
    matrix = np.empty((len(features), len(contract.names)), dtype=np.float32)
    for column, (name, kind) in enumerate(contract.kinds.items()):
        if kind == CATEGORY:
            codes = {text: n for n, text in enumerate(contract.categories[name])}
            # What is not in the table, and null, becomes NaN.
            found = features[name].astype("object").map(codes)
            matrix[:, column] = found.to_numpy(dtype=np.float64)
        else:
            matrix[:, column] = features[name].to_numpy(dtype=np.float64)
    matrix[~np.isfinite(matrix)] = np.nan
    return matrix


def contract_differences(contract: FeatureContract, kinds: dict[str, str]) -> list[str]:
    """Every way in which a feature table departs from the contract."""
    missing = [f"{name} is missing" for name in contract.kinds if name not in kinds]
    added = [
        f"{name} is new: the model was trained without it"
        for name in kinds
        if name not in contract.kinds
    ]
    changed = [
        f"{name} is a {kinds[name]}, it was a {kind}"
        for name, kind in contract.kinds.items()
        if name in kinds and kinds[name] != kind
    ]
    return missing + added + changed
