"""The contract between features and model."""

import numpy as np
import pandas as pd

from ml.features import contract_differences, encode, learn_contract

KINDS = {"score": "number", "seen": "boolean", "kind": "category"}


def _frame(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame(columns)


TRAINING = _frame(
    score=[1.5, None, np.inf], seen=[1.0, 0.0, None], kind=["b", "a", None]
)


def test_missing_and_infinite_values_are_left_to_the_model() -> None:
    matrix = encode(TRAINING, learn_contract(TRAINING, KINDS))
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(
        matrix, np.array([[1.5, 1, 1], [np.nan, 0, 0], [np.nan, np.nan, np.nan]])
    )


def test_a_category_that_training_never_met_counts_as_missing() -> None:
    contract = learn_contract(TRAINING, KINDS)
    later = _frame(score=[1.0, 2.0], seen=[1.0, 1.0], kind=["c", "b"])
    assert np.isnan(encode(later, contract)[0, 2])
    assert encode(later, contract)[1, 2] == 1


def test_codes_do_not_depend_on_who_is_encoded() -> None:
    contract = learn_contract(TRAINING, KINDS)
    alone = encode(TRAINING.iloc[[0]], contract)
    np.testing.assert_array_equal(alone, encode(TRAINING, contract)[:1])


def test_each_difference_to_the_contract_is_named() -> None:
    contract = learn_contract(TRAINING, KINDS)
    assert contract_differences(contract, KINDS) == []
    found = contract_differences(
        contract, {"score": "category", "kind": "category", "extra": "number"}
    )
    assert found == [
        "seen is missing",
        "extra is new: the model was trained without it",
        "score is a category, it was a number",
    ]
