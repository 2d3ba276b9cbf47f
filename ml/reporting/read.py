"""What the report is made from, read in one go; the warehouse is closed before
anything is drawn."""

from dataclasses import dataclass
from typing import Any

import duckdb
import pandas as pd

from ml.dataset import FEATURES, KEY, TARGETS, headline_lead
from ml.explain import OTHER_FAMILY, family_of, read_feature_docs
from ml.settings import Settings, UserError
from ml.warehouse import (
    PipelineSettings,
    check_pipeline_settings,
    open_warehouse,
    require_tables,
    table_exists,
)

# Distributions and correlations are as good on this many evenly spaced points.
SAMPLE_ROWS = 30_000
SCORE_BINS = 20
MATURED = "is_training_point and label_status = 'matured'"
FAMILY_WORDS = {
    "window": "last {window} days",
    "velocity": "change within the last {window} days",
    "to_date": "since enrolling",
    "habit": "habits of study",
    "record": "record so far",
    "relative": "against peers",
    "context": "circumstances",
    "attribute": "attribute of the student",
}
NO_ROWS = pd.DataFrame()


@dataclass(frozen=True)
class FeatureName:
    """A feature in words."""

    column: str
    plain: str
    family: str
    description: str


@dataclass(frozen=True)
class Profile:
    """The data before any model.

    `statuses` counts points by lead and label_status, `balance` matured training
    points by course and lead, `months` those of `lead` by month. `missing` is the
    share of nulls by feature; `sample` holds at_risk and all features for evenly
    spaced matured points of `lead`.
    """

    students: int
    courses: int
    scoring_points: int
    lead: int | None
    statuses: pd.DataFrame
    balance: pd.DataFrame
    months: pd.DataFrame
    missing: pd.Series
    sample: pd.DataFrame
    quarantine: pd.DataFrame


@dataclass(frozen=True)
class Model:
    """One run with its tables; each is empty where nothing was written."""

    run: dict[str, Any]
    metrics: pd.DataFrame
    predictions: pd.DataFrame
    calibration: pd.DataFrame
    thresholds: pd.DataFrame
    importance: pd.DataFrame
    dependence: pd.DataFrame
    search: pd.DataFrame
    scores: pd.DataFrame


@dataclass(frozen=True)
class Facts:
    """Everything on the page. `model` is None where no run exists or is asked for."""

    built: PipelineSettings
    headline: int
    features: dict[str, FeatureName]
    profile: Profile
    runs: pd.DataFrame
    model: Model | None
    fairness: pd.DataFrame
    feature_drift: pd.DataFrame
    score_drift: pd.DataFrame


def read_facts(
    settings: Settings, explore: bool = False, run_id: str | None = None
) -> Facts:
    """Read the warehouse and let go of it.

    Parameters
    ----------
    explore
        Leave out everything that needs a model.
    run_id
        The run to show; None: the champion, else the newest run.

    Raises
    ------
    UserError
        There is no warehouse, it was built under other settings, or it has no such
        run.
    """
    with open_warehouse(settings.warehouse_path, read_only=True) as connection:
        built = check_pipeline_settings(connection, settings)
        require_tables(connection, [TARGETS, FEATURES])
        leads = tuple(int(lead) for lead in built.prediction_leads.split(","))
        headline = headline_lead(leads)
        columns = _feature_columns(connection)
        runs = NO_ROWS if explore else _read_runs(connection, built)
        run = _choose_run(runs, run_id)
        audit = {
            name: NO_ROWS if run is None else _read_audit(connection, name, run)
            for name in ("fairness_groups", "feature_drift", "score_drift")
        }
        return Facts(
            built=built,
            headline=headline,
            features=name_features(columns, built.observation_window_days),
            profile=_read_profile(connection, columns, headline),
            runs=runs,
            model=None if run is None else _read_model(connection, run, headline),
            fairness=_at_lead(audit["fairness_groups"], headline),
            feature_drift=audit["feature_drift"],
            score_drift=audit["score_drift"],
        )


# ---------------------------------------------------------------- features


def name_features(columns: list[str], window_days: int) -> dict[str, FeatureName]:
    """Plain names, families and descriptions of the feature columns."""
    docs = read_feature_docs()
    found = {}
    for column in columns:
        family = family_of(column, docs)
        words = FAMILY_WORDS.get(family, OTHER_FAMILY).format(window=window_days)
        name = column.removeprefix(f"{family}_").replace("_", " ")
        found[column] = FeatureName(
            column=column,
            plain=f"{name[:1].upper()}{name[1:]} ({words})",
            family=family,
            description=docs[column].description if column in docs else "",
        )
    return found


def _feature_columns(connection: duckdb.DuckDBPyConnection) -> list[str]:
    described = connection.execute(f"describe main.{FEATURES}").fetchall()
    return [row[0] for row in described if row[0] not in KEY]


# ---------------------------------------------------------------- profile


def _read_profile(
    connection: duckdb.DuckDBPyConnection, columns: list[str], headline: int
) -> Profile:
    students, courses, scoring_points = _row(
        connection,
        "select count(distinct student_id), count(distinct course_id),"
        f" count(case when is_scoring_point then 1 end) from main.{TARGETS}",
    )
    balance = connection.execute(
        "select course_id, lead_days, count(*) as points,"
        f" sum(at_risk)::bigint as failing from main.{TARGETS} where {MATURED}"
        " group by course_id, lead_days order by course_id, lead_days desc"
    ).df()
    lead = _nearest_lead(balance, headline)
    return Profile(
        students=students,
        courses=courses,
        scoring_points=scoring_points,
        lead=lead,
        statuses=connection.execute(
            "select lead_days, label_status, count(*) as points"
            f" from main.{TARGETS} where is_training_point"
            " group by lead_days, label_status"
            " order by lead_days desc, label_status"
        ).df(),
        balance=balance,
        months=connection.execute(
            "select date_trunc('month', as_of_date) as month, count(*) as points,"
            f" avg(at_risk) as failure_rate from main.{TARGETS}"
            f" where {MATURED} and lead_days = ? group by month order by month",
            [lead],
        ).df(),
        missing=_missing_shares(connection, columns),
        sample=_read_sample(connection, columns, lead),
        quarantine=_read_table(connection, "quarantine", "quarantine_summary"),
    )


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[int, ...]:
    found = connection.execute(query).fetchone()
    return tuple(int(value or 0) for value in found or ())


def _nearest_lead(balance: pd.DataFrame, headline: int) -> int | None:
    """The headline lead, or the nearest one that has labels (open sittings: 0)."""
    leads = [int(lead) for lead in balance["lead_days"].unique()]
    return min(leads, key=lambda lead: (abs(lead - headline), -lead), default=None)


def _missing_shares(
    connection: duckdb.DuckDBPyConnection, columns: list[str]
) -> pd.Series:
    shares = ", ".join(
        f"avg(case when {_quoted(name)} is null then 1.0 else 0.0 end)"
        for name in columns
    )
    found = connection.execute(f"select {shares} from main.{FEATURES}").fetchone()
    return pd.Series(dict(zip(columns, found or (), strict=True)), dtype=float)


def _read_sample(
    connection: duckdb.DuckDBPyConnection, columns: list[str], lead: int | None
) -> pd.DataFrame:
    """Evenly spaced points in key order, so that the same data give the same rows."""
    key = ", ".join(KEY)
    (points,) = _row(
        connection,
        f"select count(*) from main.{TARGETS}"
        f" where {MATURED} and lead_days = {'null' if lead is None else lead}",
    )
    step = max(1, -(-points // SAMPLE_ROWS))
    features = ", ".join(f"features.{_quoted(name)}" for name in columns)
    return connection.execute(
        f"with numbered as (select {key}, at_risk,"
        f" row_number() over (order by {key}) as number"
        f" from main.{TARGETS} where {MATURED} and lead_days = ?)"
        f" select numbered.at_risk, {features} from numbered"
        f" inner join main.{FEATURES} as features using ({key})"
        " where (numbered.number - 1) % ? = 0 order by numbered.number",
        [lead, step],
    ).df()


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


# ---------------------------------------------------------------- model


def _read_runs(
    connection: duckdb.DuckDBPyConnection, built: PipelineSettings
) -> pd.DataFrame:
    """Runs of this source and target, newest first, without the students' rows."""
    if not table_exists(connection, "model_runs", "ml"):
        return NO_ROWS
    return connection.execute(
        "select * from ml.model_runs where source_system = ? and target_definition = ?"
        " order by created_at desc, run_id",
        [built.source_system, built.target_definition],
    ).df()


def _choose_run(runs: pd.DataFrame, run_id: str | None) -> dict[str, Any] | None:
    if run_id is not None:
        chosen = runs[runs["run_id"] == run_id] if len(runs) else runs
        if chosen.empty:
            known = ", ".join(runs["run_id"]) if len(runs) else "none"
            raise UserError(
                f"There is no run {run_id} of this source and target. Known runs: "
                f"{known}."
            )
    elif runs.empty:
        return None
    else:
        champions = runs[runs["status"] == "champion"]
        chosen = champions if len(champions) else runs
    return {str(name): value for name, value in chosen.iloc[0].items()}


def _read_model(
    connection: duckdb.DuckDBPyConnection, run: dict[str, Any], headline: int
) -> Model:
    run_id = run["run_id"]

    def of_run(table: str, order: str, columns: str = "*", also: str = "") -> Any:
        if not table_exists(connection, table, "ml"):
            return NO_ROWS
        return connection.execute(
            f"select {columns} from ml.{table} where run_id = ? {also}"
            f" order by {order}",
            [run_id],
        ).df()

    return Model(
        run=run,
        metrics=of_run("model_metrics", "split, lead_days, segment, scorer, metric"),
        # No student leaves this query: the order alone needs their ids.
        predictions=of_run(
            "evaluation_predictions",
            ", ".join(KEY),
            "course_id, is_first_sitting, at_risk, risk_score, baseline_random,"
            " baseline_rule, baseline_course_rate, baseline_logistic",
            f"and lead_days = {int(headline)} and not contacted_before_due",
        ),
        calibration=of_run("calibration_curve", "split, lead_days, segment, bin"),
        thresholds=of_run("threshold_metrics", "lead_days, cut, cut_value"),
        importance=of_run("feature_importance", "importance_rank"),
        dependence=of_run("partial_dependence", "feature, place"),
        search=of_run("search_results", "rank_test_score, candidate"),
        scores=_read_scores(connection, run_id),
    )


def _read_scores(connection: duckdb.DuckDBPyConnection, run_id: str) -> pd.DataFrame:
    """How many points of the run's newest scored day fall into each bin and band."""
    if not table_exists(connection, "student_scores", "ml"):
        return NO_ROWS
    return connection.execute(
        "select as_of_date, risk_band,"
        f" least({SCORE_BINS - 1}, floor(risk_score * {SCORE_BINS}))::integer as bin,"
        " count(*) as points from ml.student_scores where run_id = ? and as_of_date ="
        " (select max(as_of_date) from ml.student_scores where run_id = ?)"
        " group by as_of_date, risk_band, bin order by bin, risk_band",
        [run_id, run_id],
    ).df()


def _read_audit(
    connection: duckdb.DuckDBPyConnection, name: str, run: dict[str, Any]
) -> pd.DataFrame:
    """A fairness or drift mart; of several runs, the rows of the one shown."""
    table = _read_table(connection, "main", name)
    if "run_id" in table.columns:
        table = table[table["run_id"] == run["run_id"]].drop(columns="run_id")
    return table.reset_index(drop=True)


def _at_lead(groups: pd.DataFrame, headline: int) -> pd.DataFrame:
    """Groups of students at the headline lead, where they were measured by lead."""
    if "lead_days" in groups.columns and headline in set(groups["lead_days"]):
        groups = groups[groups["lead_days"] == headline]
    return groups.reset_index(drop=True)


def split_pairs(groups: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Groups by one attribute, and by two at once (`gender x region`)."""
    pairs = groups["attribute"].astype(str).str.contains(" x ", regex=False)
    return groups[~pairs], groups[pairs]


def _read_table(
    connection: duckdb.DuckDBPyConnection, schema: str, name: str
) -> pd.DataFrame:
    """The whole of a small table, in a fixed order; empty where there is none."""
    if not table_exists(connection, name, schema):
        return NO_ROWS
    return connection.execute(f"select * from {schema}.{name} order by all").df()
