"""The studies: on what each is trained and judged, what comes of it, and how often
the verdict is wrong by chance."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score
from synthetic import LEADS, TEST_FROM, Project, World, make_tables

from ml.backtest import cut_terms, known_before
from ml.boosting import margins, plain_matrix
from ml.calibrate import choose_bands
from ml.dataset import KEY, Points, Split, _split_at
from ml.estimates import _draw_judged, _draw_training
from ml.evaluate import _measure, judge
from ml.features import BOOLEAN, CATEGORY, NUMBER, encode, learn_contract
from ml.imbalance import PLAIN
from ml.refits import Ground, make_ground
from ml.registry import Artifact, RunInputs
from ml.search import SearchResult
from ml.studies import SPLITS, add_attributes, run_studies
from ml.train import RUN_TABLES, run_train
from ml.training import _fit, _fit_winner

HEADLINE = max(LEADS)
PARAMETERS = {"n_estimators": 20, "max_depth": 3, "learning_rate": 0.1}
STUDY_KEY = ["split", "lead_days", "segment", "scorer", "metric"]


def points_of(world: World) -> Points:
    """Matured training points of a synthetic world, as `read_points` gives them."""
    tables = make_tables(world)
    targets = tables.targets.sort_values(KEY).reset_index(drop=True)
    features = tables.features.sort_values(KEY).reset_index(drop=True).drop(columns=KEY)
    kinds = dict.fromkeys(features.columns, NUMBER)
    kinds |= {"opened_anything": BOOLEAN, "weekday_habit": CATEGORY}
    targets["as_of_date"] = pd.to_datetime(targets["as_of_date"])
    numbers = features.columns[[kind != CATEGORY for kind in kinds.values()]]
    features[numbers] = features[numbers].astype(float)
    chosen = targets["is_training_point"] & (targets["label_status"] == "matured")
    return Points(targets, features, kinds).take(chosen)


def trained_on(points: Points) -> tuple[Split, Artifact]:
    split = _split_at(points, TEST_FROM)
    contract = learn_contract(split.known.features, points.kinds)
    found = SearchResult(PARAMETERS, 0.0, pd.DataFrame())
    older = _fit(split.search, contract, PARAMETERS)
    return split, _fit_winner(split, contract, found, older, RunInputs("", "", "", {}))


def predict(artifact: Artifact, points: Points) -> np.ndarray:
    matrix = plain_matrix(encode(points.features, artifact.contract), artifact.contract)
    return artifact.calibration.apply(margins(artifact.model, matrix))


def random_attributes(points: Points) -> pd.DataFrame:
    students = np.unique(points.students)
    values = np.random.default_rng(5).choice(["a", "b"], len(students))
    return pd.DataFrame(
        {
            "student_id": students,
            "course_run_id": None,
            "attribute": "group",
            "value": values,
        }
    )


@pytest.fixture(scope="module")
def ground() -> Ground:
    points = points_of(World())
    split, artifact = trained_on(points)
    return make_ground(split, artifact, random_attributes(points), HEADLINE)


@pytest.fixture(scope="module")
def found(ground: Ground) -> pd.DataFrame:
    """The rows of all studies."""
    return run_studies(ground.split, ground.artifact, ground.attributes, HEADLINE)


def value_of(found: pd.DataFrame, split: str, segment: str, metric: str) -> pd.Series:
    rows = found[
        (found["split"] == split)
        & (found["lead_days"] == HEADLINE)
        & (found["segment"] == segment)
        & (found["metric"] == metric)
    ]
    assert len(rows) == 1, (split, segment, metric)
    return rows.iloc[0]


# ---------------------------------------------------------------- the table


def test_every_study_writes_rows_with_one_key_each(found: pd.DataFrame) -> None:
    assert set(found["split"]) == set(SPLITS)
    assert not found.duplicated(STUDY_KEY).any()


def test_the_same_inputs_give_the_same_figures(
    ground: Ground, found: pd.DataFrame
) -> None:
    again = run_studies(ground.split, ground.artifact, ground.attributes, HEADLINE)
    pd.testing.assert_frame_equal(again, found, check_exact=True)


def test_too_little_data_is_said_and_gives_no_rows(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    few = ground.points.take(ground.points.targets["student_id"] < "s00008")
    split, artifact = trained_on(few)
    with caplog.at_level("INFO"):
        rows = run_studies(split, artifact, ground.attributes.iloc[:0], HEADLINE)
    assert rows.empty
    assert list(rows.columns) == list(found_columns())
    for study in ("estimates", "backtest", "imbalance", "ablation", "attributes"):
        assert f"No study `{study}`" in caplog.text


def found_columns() -> list[str]:
    names = ["value", "ci_low", "ci_high", "rows", "positives"]
    return [*STUDY_KEY, *names]


# ---------------------------------------------------------------- estimates


def test_the_three_estimates_differ_only_in_what_they_were_trained_on(
    ground: Ground, found: pd.DataFrame
) -> None:
    judged = _draw_judged(ground)
    trained = _draw_training(ground, judged)
    students = ground.points.students
    own = set(students[judged])
    assert (ground.split.part[judged] == "test").all()
    assert not own & set(students[trained["grouped"]])
    assert not (trained["random"] & judged).any()
    assert own <= set(students[trained["random"]])
    assert trained["random"].sum() == trained["grouped"].sum()
    rows = found[found["split"].str.startswith("estimate_")]
    sizes = rows[rows["metric"] == "train_rows"].groupby("lead_days")["value"]
    assert (sizes.nunique() == 1).all()
    rates = rows[rows["metric"] == "base_rate"].groupby("lead_days")
    assert (rates["value"].nunique() == 1).all()
    assert (rates["rows"].nunique() == 1).all()


def test_knowing_the_same_sittings_flatters(found: pd.DataFrame) -> None:
    """Two leads of a sitting share its label: points at random give it away."""
    row = value_of(found, "estimate_random", "all", "pr_auc_minus_temporal")
    grouped = value_of(found, "estimate_grouped", "all", "pr_auc_minus_temporal")
    assert row["value"] > grouped["value"]


def test_the_honest_estimate_is_the_model_of_the_run(
    ground: Ground, found: pd.DataFrame
) -> None:
    judged = _draw_judged(ground) & (ground.points.targets["lead_days"] == HEADLINE)
    points = ground.points.take(judged)
    expected = average_precision_score(points.labels, predict(ground.artifact, points))
    row = value_of(found, "estimate_temporal", "all", "pr_auc")
    assert row["value"] == pytest.approx(expected)
    assert row["ci_low"] < row["value"] < row["ci_high"]


# ---------------------------------------------------------------- backtest


def test_a_term_is_scored_by_what_was_known_before_its_first_question(
    ground: Ground,
) -> None:
    targets = ground.points.targets
    terms = cut_terms(ground.points)
    assert 3 < len(terms) <= 6
    assert sum(term.rows.sum() for term in terms) == len(ground.points)
    for term in terms[1:]:
        known = known_before(ground.points, term.first_day)
        asked = targets.loc[term.rows, "as_of_date"]
        assert (targets.loc[known, "label_known_at"] < asked.min()).all()
        assert not (known & term.rows).any()
    # A day between question and answer: asked before is not yet known before.
    day = targets["as_of_date"].median() + pd.Timedelta(days=1)
    known = known_before(ground.points, day)
    assert (targets.loc[known, "label_known_at"] < day).all()
    assert (targets.loc[~known, "as_of_date"] < day).any()


def test_terms_are_the_starts_of_runs_where_these_are_few(ground: Ground) -> None:
    targets = ground.points.targets
    late = targets["run_started_at"] >= pd.Timestamp("2022-12-01")
    start = pd.Series(pd.Timestamp("2022-02-01"), targets.index)
    start = start.mask(late, pd.Timestamp("2022-12-01"))
    points = replace(ground.points, targets=targets.assign(run_started_at=start))
    assert [term.name for term in cut_terms(points)] == ["2022-02-01", "2022-12-01"]


def test_an_older_model_is_compared_on_the_same_term(found: pd.DataFrame) -> None:
    rows = found[(found["split"] == "backtest") & (found["metric"] == "pr_auc")]
    cells = rows["segment"].str.extract(r"trained_before=(.+),term=(.+)").dropna()
    assert (cells[0] <= cells[1]).all()
    value = dict(zip(rows["segment"], rows["value"], strict=True))
    model, term = cells[cells[0] < cells[1]].iloc[0]
    old = f"trained_before={model},term={term}"
    behind = value[old] - value[f"trained_before={term},term={term}"]
    row = value_of(found, "backtest", old, "pr_auc_minus_fresh")
    assert row["value"] == pytest.approx(behind)
    fresh = cells.index[cells[0] == cells[1]]
    mean = value_of(found, "backtest", "age=0", "pr_auc")["value"]
    assert mean == pytest.approx(rows.loc[fresh, "value"].mean())


# ---------------------------------------------------------------- imbalance


def test_cuts_are_tuned_before_the_test_and_counted_on_it(
    ground: Ground, found: pd.DataFrame
) -> None:
    test = ground.points.take(ground.judged("test", HEADLINE))
    flagged = predict(ground.artifact, test) >= ground.artifact.bands.best_f1_threshold
    right = (flagged & (test.labels == 1)).sum()
    precision = value_of(found, "imbalance", "winner", "precision")["value"]
    recall = value_of(found, "imbalance", "winner", "recall")["value"]
    assert precision == pytest.approx(right / flagged.sum())
    assert recall == pytest.approx(right / test.labels.sum())
    plain = {**PLAIN, "scale_pos_weight": 1.0}
    contract = learn_contract(ground.split.search.features, ground.points.kinds)
    calibration = ground.split.calibration
    matrix = plain_matrix(encode(calibration.features, contract), contract)
    risk = expit(margins(_fit(ground.split.search, contract, plain), matrix))
    tuned = value_of(found, "imbalance", "tuned_threshold", "threshold")["value"]
    assert tuned == choose_bands(risk, calibration.labels).best_f1_threshold
    light = value_of(found, "imbalance", "third_of_ratio", "recall")["value"]
    assert light < value_of(found, "imbalance", "ratio", "recall")["value"]


# ---------------------------------------------------------------- on later time


def test_families_are_judged_on_the_calibration_period(
    ground: Ground, found: pd.DataFrame
) -> None:
    rows = found[found["split"].isin(["ablation", "attributes", "learning_curve"])]
    judged = ground.points.take(ground.judged("calibration", HEADLINE))
    whole = rows[~rows["segment"].str.contains(":")]
    assert set(whole["rows"]) == {len(judged)}
    # The run's own model has seen these points: they are judged by an older one.
    contract = ground.artifact.contract
    older = _fit(ground.split.search, contract, PARAMETERS)
    rows_judged = plain_matrix(encode(judged.features, contract), contract)
    expected = average_precision_score(judged.labels, margins(older, rows_judged))
    for split, segment in (("ablation", "all"), ("learning_curve", "share=1.0")):
        row = value_of(found, split, segment, "pr_auc")
        assert row["value"] == pytest.approx(expected)


def test_the_family_that_carries_signal_is_missed(found: pd.DataFrame) -> None:
    """In the synthetic world the record tells the tendency, the course nothing."""
    lost = {
        family: value_of(found, "ablation", f"without={family}", "pr_auc_minus_all")
        for family in ("record", "context")
    }
    assert lost["record"]["value"] < lost["context"]["value"]
    alone = value_of(found, "ablation", "only=context", "pr_auc_minus_all")
    assert alone["ci_high"] < 0


def test_a_telling_attribute_has_a_price_and_a_random_one_none(
    ground: Ground, found: pd.DataFrame
) -> None:
    none = value_of(found, "attributes", "with", "pr_auc_minus_without")
    assert none["ci_low"] < 0.02
    labels = pd.Series(ground.points.labels).groupby(ground.points.students).mean()
    telling = ground.attributes.assign(
        value=np.where(labels[ground.attributes["student_id"]] > 0.3, "a", "b")
    )
    rows = run_studies(ground.split, ground.artifact, telling, HEADLINE)
    price = value_of(rows, "attributes", "with", "pr_auc_minus_without")
    assert price["ci_low"] > 0
    # Nothing else has changed, least of all the model that serves.
    others = found[found["split"] != "attributes"].reset_index(drop=True)
    same = rows[rows["split"] != "attributes"].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, others, check_exact=True)


def test_an_attribute_of_the_run_goes_before_one_of_every_run() -> None:
    points = points_of(World(students=3))
    first, second = np.unique(points.students)[:2]
    run = points.targets.loc[points.students == first, "course_run_id"].iloc[0]
    attributes = pd.DataFrame(
        [
            (first, None, "region", "everywhere"),
            (first, run, "region", "here"),
            (second, None, "region", "everywhere"),
        ],
        columns=["student_id", "course_run_id", "attribute", "value"],
    )
    added, kinds = add_attributes(points, attributes)
    assert kinds == {"attribute_region": CATEGORY}
    values = added.features["attribute_region"]
    assert set(values[points.students == first]) == {"here"}
    assert set(values[points.students == second]) == {"everywhere"}
    known = np.isin(points.students, [first, second])
    assert values[~known].isna().all()
    assert encode(added.features, learn_contract(added.features, added.kinds)).any()


# ---------------------------------------------------------------- the command


def test_a_run_without_studies_gets_them_later_and_once(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run_train(project.settings)
    assert "No studies (--no-studies)" in caplog.text
    run_id = project.rows("from ml.model_runs")["run_id"].item()
    refit = run_train(project.settings, with_refit=True).run["run_id"]
    figures = (
        "select * exclude (run_id) from ml.model_metrics where run_id = '{}'"
        " order by all"
    )
    query = figures.format(run_id)
    before = project.rows(query)
    assert not set(before["split"]) & set(SPLITS)
    run_train(project.settings, with_studies=True)
    after = project.rows(query)
    # A refit serves with the figures of its parent, whenever they are found.
    pd.testing.assert_frame_equal(project.rows(figures.format(refit)), after)
    # This warehouse has no attributes.
    assert set(SPLITS) - set(after["split"]) == {"attributes"}
    kept = after[~after["split"].isin(SPLITS)].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before, check_exact=True)
    others = [name for name in RUN_TABLES if name != "ml.model_metrics"]
    tables = {name: project.rows(f"from {name} order by all") for name in others}
    caplog.clear()
    run_train(project.settings, with_studies=True)
    assert "No study" not in caplog.text
    pd.testing.assert_frame_equal(project.rows(query), after, check_exact=True)
    for name in others:
        assert project.rows(f"from {name} order by all").equals(tables[name])


# ---------------------------------------------------------------- refusal

# At 1,200 students and 200 draws a good model was refused in none and noise accepted
# in none; at 400 students 11 and 1, because a lead of 0.13 over the rule is then only
# 3.6 standard errors. Fewer draws here, for time.
DRAWS = 50


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    """Test points at the headline lead with the scores of a good model."""
    points = points_of(World(students=800))
    _, artifact = trained_on(points)
    targets = points.targets
    test = points.take(
        (targets["as_of_date"] >= pd.Timestamp(TEST_FROM))
        & (targets["lead_days"] == HEADLINE)
    )
    random = np.random.default_rng(3)
    risk = predict(artifact, test)
    return test.targets[["student_id", "course_id"]].assign(
        at_risk=test.labels,
        risk_score=risk,
        baseline_random=random.random(len(test)),
        baseline_rule=test.features["record_assessments_missed"],
        baseline_course_rate=test.features["context_course_failure_rate"],
        baseline_logistic=np.clip(risk + random.normal(0, 0.2, len(test)), 0, 1),
    )


def is_refused(predictions: pd.DataFrame) -> bool:
    """The verdict, on the one part of the evaluation that it looks at."""
    return judge(_measure((HEADLINE, "all", predictions), 60), HEADLINE).refused


def test_a_good_model_is_hardly_ever_refused_by_chance(
    predictions: pd.DataFrame,
) -> None:
    random = np.random.default_rng(8)
    rows_of = list(predictions.groupby("student_id").indices.values())
    refused = 0
    for _ in range(DRAWS):
        drawn = [rows_of[n] for n in random.integers(0, len(rows_of), len(rows_of))]
        # Drawn twice, a student counts as two.
        names = np.repeat(np.arange(len(drawn)), [len(rows) for rows in drawn])
        sample = predictions.iloc[np.concatenate(drawn)]
        refused += is_refused(sample.assign(student_id=names.astype(str)))
    assert refused <= 0.04 * DRAWS


def test_scores_that_know_nothing_are_hardly_ever_accepted(
    predictions: pd.DataFrame,
) -> None:
    """Outcomes depend on the student alone, and every score on nothing."""
    random = np.random.default_rng(9)
    student, names = pd.factorize(predictions["student_id"])
    count, accepted = len(predictions), 0
    for _ in range(DRAWS):
        tendency = random.random(len(names))[student]
        noise = predictions.assign(
            at_risk=(random.random(count) < tendency).astype(int),
            risk_score=random.random(count),
            baseline_random=random.random(count),
        )
        accepted += not is_refused(noise)
    assert accepted <= 0.04 * DRAWS


def test_labels_of_other_students_are_refused_and_the_rule_takes_over(
    project: Project,
) -> None:
    """The whole path: every student's outcomes are given to another one."""
    students = np.unique(project.tables.targets["student_id"])
    other = np.random.default_rng(1).permutation(students)
    pairs = ", ".join(f"('{a}', '{b}')" for a, b in zip(students, other, strict=True))
    project.run(
        f"create temp table swapped as from (values {pairs}) as t(student_id, other);"
        " create or replace table student_targets as"
        " with numbered as (select *, row_number() over (partition by student_id,"
        " label_status order by as_of_date, assessment_id) as number"
        " from student_targets)"
        " select numbered.* exclude (number) replace (case when"
        " numbered.at_risk is null then null else coalesce(theirs.at_risk, 0) end"
        " as at_risk) from numbered inner join swapped using (student_id)"
        " left join numbered as theirs on theirs.student_id = swapped.other"
        " and theirs.number = numbered.number"
        " and theirs.label_status = numbered.label_status"
    )
    report = run_train(project.settings)
    assert report.run["status"] == "refused"
    (reason,) = project.rows("select status_reason from ml.model_runs")["status_reason"]
    assert "is not better than" in reason
    # Without a champion there are no scores, so that flags come from the rule.
    assert project.rows("select * from ml.student_scores").empty
