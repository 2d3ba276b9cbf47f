"""The report: what it says in every state, and how a real browser takes it."""

import re
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser
from sklearn.metrics import average_precision_score, roc_auc_score
from synthetic import Project, World, make_project
from typer.testing import CliRunner

from ml import report
from ml.report import app, build_report
from ml.reporting.decision_section import decisions
from ml.reporting.figures import curve, flagged_weights, group_shares, top_pairs
from ml.reporting.page import percent, with_interval
from ml.reporting.read import read_facts
from ml.reporting.verdict import give_verdict, reach_table
from ml.settings import UserError
from ml.train import run_train

WIDTHS = (390, 1280)
LARGEST_PAGE = 3_000_000
DATA_SECTIONS = ["data", "distributions", "balance", "missing", "correlations"]
MODEL_SECTIONS = ["ranking", "metrics", "calibration", "decisions", "leads", "scores"]
AUDIT_SECTIONS = ["importance", "search"]
# Names of courses come from whoever set up the platform.
NASTY = "$x_{$ <script>alert('x')</script> & " + "W" * 90
RULE_AHEAD = (
    "update ml.model_metrics set value = {value}, ci_low = {low}, ci_high = {high}"
    " where metric = '{metric}' and segment = 'all' and lead_days = 14"
)
AUDIT_TABLES = (
    "create table main.fairness_groups as select 'gender' as attribute, *"
    " from (values ('b', 300, 90, 0.4, 0.3, 0.5), ('a', 200, 60, 0.1, 0.05, 0.2),"
    " ('tiny', 3, 0, null, null, null)) as t(value, points, positives,"
    " false_negative_rate, false_negative_rate_low, false_negative_rate_high)",
    "create table main.feature_drift as select * from (values"
    " ('window_active_days', 0.31, 'shifted'), ('lead_days', null, 'unknown'))"
    " as t(feature, population_stability, level)",
    "create table main.score_drift as"
    " select 0.04 as population_stability, 'stable' as level",
)


# ---------------------------------------------------------------- reading a page


@pytest.fixture(scope="module")
def html(trained_once: Project) -> str:
    """The page of the trained project."""
    return build_report(trained_once.settings)


def text_of(html: str) -> str:
    """The page as one line of text."""
    plain = re.sub(r"<[^>]+>", "", html).replace("\N{NO-BREAK SPACE}", " ")
    return " ".join(plain.split())


def sections_of(html: str) -> list[str]:
    """Anchors of the sections in the order of the page."""
    return re.findall(r'<section id="([^"]+)"', html)


def headline_of(html: str) -> str:
    """The verdict in one sentence."""
    found = re.search(r'id="verdict">.*?<h2>(.*?)</h2>', html, re.DOTALL)
    assert found
    return found[1]


# ---------------------------------------------------------------- the whole page


def test_the_page_has_its_parts_in_order(html: str) -> None:
    assert html.index('id="verdict"') < html.index('<section id="data"')
    assert sections_of(html) == [
        *DATA_SECTIONS,
        *MODEL_SECTIONS,
        *AUDIT_SECTIONS,
        "run",
    ]
    assert headline_of(html) == "The model is better than the rule."
    assert len(html.encode()) < LARGEST_PAGE


def test_the_verdict_agrees_with_the_tables(trained_once: Project, html: str) -> None:
    text = text_of(html)
    figures = trained_once.rows(
        "select metric, value, ci_low, ci_high from ml.model_metrics where"
        " segment = 'all' and lead_days = 14 and scorer = 'model' and split = 'test'"
    ).set_index("metric")
    model, ahead = figures.loc["pr_auc"], figures.loc["pr_auc_minus_rule"]
    assert (
        f"Its PR-AUC is {model['value']:.3f} (95 % interval "
        f"{model['ci_low']:.3f} to {model['ci_high']:.3f})" in text
    )
    assert (
        f"It is {ahead['value']:.3f} ahead of the rule, which counts missed "
        f"assessments, more than chance ({ahead['ci_low']:+.3f} to "
        f"{ahead['ci_high']:+.3f})" in text
    )


def test_every_picture_can_be_read_without_seeing_it(html: str) -> None:
    pictures = re.findall(r"<figure>.*?</figure>", html, re.DOTALL)
    assert len(pictures) > 12
    for picture in pictures:
        assert re.search(r'<svg [^>]*role="img"[^>]*aria-label="[^"]{10,}"', picture)
        reading = re.search(r"<figcaption>(.*?)</figcaption>", picture, re.DOTALL)
        # One sentence: it ends once.
        assert reading and re.fullmatch(r"[^.]{20,}\.", reading[1].strip())
        assert "<table>" in picture


def test_nobody_is_on_the_page(trained_once: Project, html: str) -> None:
    students = trained_once.rows("select distinct student_id from student_targets")
    assert len(students) == 400
    assert not [name for name in students["student_id"] if name in html]


def test_equal_tables_give_an_equal_page(trained: Project, html: str) -> None:
    for table in (
        "main.student_targets",
        "main.student_features_14d",
        "ml.evaluation_predictions",
        "ml.model_metrics",
        "ml.search_results",
    ):
        trained.run(
            f"create table main.again as select * from {table} order by random()",
            f"drop table {table}",
            f"create table {table} as select * from main.again",
            "drop table main.again",
        )
    assert build_report(trained.settings) == html


def test_ids_in_pictures_are_unique(html: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', html))
    assert {first or second for first, second in used} <= set(ids)


def test_the_warehouse_is_closed_before_anything_is_drawn(
    trained_once: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def render_while_writing(page: object) -> str:
        # DuckDB refuses this while the same file is open read-only.
        with duckdb.connect(str(trained_once.settings.warehouse_path)) as connection:
            connection.execute("select 1")
        opened.append(page)
        return ""

    monkeypatch.setattr(report, "render", render_while_writing)
    build_report(trained_once.settings)
    assert len(opened) == 1


# ---------------------------------------------------------------- states


def test_explore_needs_no_model(project: Project) -> None:
    html = build_report(project.settings, explore=True)
    assert sections_of(html) == [*DATA_SECTIONS, "settings"]
    points, failing = project.rows(
        "select count(*) as points, sum(at_risk) as failing from student_targets"
        " where is_training_point and label_status = 'matured' and lead_days = 14"
    ).iloc[0]
    assert headline_of(html) == (
        f"{int(points):,} cases can be learned from; {percent(failing / points)} of "
        "them failed."
    )


def test_explore_leaves_out_a_model_that_is_there(trained_once: Project) -> None:
    html = build_report(trained_once.settings, explore=True)
    assert sections_of(html) == [*DATA_SECTIONS, "settings"]


def test_without_a_model_the_page_says_how_to_get_one(project: Project) -> None:
    html = build_report(project.settings)
    assert headline_of(html) == "No model has been trained yet."
    assert sections_of(html)[5:] == [*MODEL_SECTIONS, *AUDIT_SECTIONS, "settings"]
    parts = len(MODEL_SECTIONS) + len(AUDIT_SECTIONS)
    assert html.count("<code>python -m ml.train</code>") >= parts


@pytest.mark.parametrize(
    ("change", "headline", "tone"),
    [
        (
            "update ml.model_runs set status = 'refused', status_reason = 'Too weak.'",
            "The model was refused. Students are flagged by the rule instead.",
            "bad",
        ),
        (
            RULE_AHEAD.format(
                metric="pr_auc_minus_rule", value=-0.1, low=-0.2, high=-0.01
            ),
            "The model is behind the rule. Do not use it.",
            "bad",
        ),
        (
            RULE_AHEAD.format(
                metric="pr_auc_minus_rule", value=0.01, low=-0.02, high=0.03
            ),
            "It is not sure that the model is better than the rule.",
            "caution",
        ),
        (
            RULE_AHEAD.format(
                metric="pr_auc_minus_rule", value="'nan'", low="'nan'", high="'nan'"
            ),
            "There are no figures for this run at lead 14.",
            "caution",
        ),
        (
            RULE_AHEAD.format(
                metric="pr_auc_minus_logistic", value=-0.05, low=-0.08, high=-0.02
            ),
            "The model is better than the rule, but a plain logistic regression is "
            "better still.",
            "caution",
        ),
        (
            "delete from ml.model_metrics",
            "There are no figures for this run at lead 14.",
            "caution",
        ),
    ],
)
def test_the_verdict_follows_the_figures(
    trained: Project, change: str, headline: str, tone: str
) -> None:
    trained.run(change)
    verdict = give_verdict(read_facts(trained.settings), explore=False)
    assert verdict.headline == headline
    assert verdict.tone == tone


def test_a_refused_run_says_why_and_scores_nobody(trained: Project) -> None:
    trained.run(
        "update ml.model_runs set status = 'refused', status_reason = 'Too weak.'",
        "delete from ml.student_scores",
    )
    text = text_of(build_report(trained.settings))
    assert "Why. Too weak." in text
    assert "The run was refused, so nobody is scored by it" in text


@pytest.mark.parametrize("metric", ["pr_auc", "roc_auc"])
def test_too_good_to_be_true_is_called_a_leak(trained: Project, metric: str) -> None:
    assert not give_verdict(read_facts(trained.settings), explore=False).warnings
    trained.run(RULE_AHEAD.format(metric=metric, value=0.95, low=0.94, high=0.96))
    html = build_report(trained.settings)
    assert "0.950 is too good to be true. Look for a leak" in text_of(html)
    assert '<div class="verdict bad"' in html


def test_a_feature_that_tells_the_outcome_is_called_a_leak(project: Project) -> None:
    project.run(
        "alter table student_features_14d add column window_peek integer",
        "update student_features_14d as f set window_peek = t.at_risk"
        " from student_targets as t where t.student_id = f.student_id"
        " and t.assessment_id = f.assessment_id and t.as_of_date = f.as_of_date",
    )
    text = text_of(build_report(project.settings, explore=True))
    assert "Peek (last 14 days) tells the outcome almost by itself" in text


@pytest.mark.parametrize("gone", ["delete from ml.{}", "drop table ml.{}"])
def test_a_section_without_rows_says_what_to_do(trained: Project, gone: str) -> None:
    tables = {
        "ranking": "evaluation_predictions",
        "metrics": "model_metrics",
        "leads": "model_metrics",
        "calibration": "calibration_curve",
        "decisions": "threshold_metrics",
        "scores": "student_scores",
        "importance": "feature_importance",
        "search": "search_results",
    }
    trained.run(*(gone.format(table) for table in set(tables.values())))
    html = build_report(trained.settings)
    for section, table in tables.items():
        body = html.split(f'<section id="{section}"')[1].split("</section>")[0]
        assert re.search(r'class="missing">.*<code>python -m ml\.', body)
        assert table == "student_scores" or f"ml.{table}" in body
        assert "<svg" not in body


def test_one_lead_and_one_course(trained: Project) -> None:
    trained.run(
        *(
            f"delete from {table} where lead_days not in (14, -1)"
            for table in (
                "main.student_targets",
                "ml.model_metrics",
                "ml.evaluation_predictions",
            )
        ),
        "update main.pipeline_settings set prediction_leads = '14'",
        "delete from main.student_targets where course_id <> 'c0'",
        "delete from ml.evaluation_predictions where course_id <> 'c0'",
        *(
            f"delete from ml.{table} where segment in ('course=c1', 'course=c2')"
            for table in ("model_metrics", "calibration_curve")
        ),
    )
    html = build_report(trained.with_settings(prediction_leads=(14,)).settings)
    assert headline_of(html) == "The model is better than the rule."
    assert "There is one lead only, 14 days: no curve." in html
    assert "Course c0" in html and "Course c1" not in html


def test_a_warehouse_without_any_outcome(project: Project) -> None:
    project.run("update student_targets set at_risk = null, label_status = 'pending'")
    html = build_report(project.settings, explore=True)
    assert headline_of(html).startswith("There is nothing to learn from yet")
    assert "No case has a known outcome yet." in html


def test_a_warehouse_without_any_point(project: Project) -> None:
    project.run("delete from student_targets", "delete from student_features_14d")
    html = build_report(project.settings)
    assert headline_of(html) == "No model has been trained yet."
    assert html.count("No case has a known outcome yet.") == len(DATA_SECTIONS)


def test_the_champion_is_shown_and_a_newer_run_mentioned(trained: Project) -> None:
    (champion,) = trained.rows("select run_id from ml.model_runs")["run_id"]
    trained.run(
        "insert into ml.model_runs select * replace ('newer' as run_id,"
        " 'refused' as status, 'Noise.' as status_reason,"
        " created_at + interval 1 day as created_at) from ml.model_runs"
    )
    html = build_report(trained.settings)
    assert headline_of(html) == "The model is better than the rule."
    assert "Run newer is newer, and refused: Noise." in html
    assert headline_of(build_report(trained.settings, run_id="newer")).startswith(
        "The model was refused."
    )
    with pytest.raises(UserError, match=f"no run nobody.*newer, {champion}"):
        build_report(trained.settings, run_id="nobody")


def test_students_who_were_written_to_are_kept_apart(trained: Project) -> None:
    before = read_facts(trained.settings).model
    trained.run(
        "update ml.evaluation_predictions set contacted_before_due = true"
        " where course_id = 'c0' and lead_days = 14"
    )
    after = read_facts(trained.settings).model
    assert before is not None and after is not None
    assert set(before.predictions["course_id"]) == {"c0", "c1", "c2"}
    assert set(after.predictions["course_id"]) == {"c1", "c2"}


# ---------------------------------------------------------------- tables of others


def test_fairness_and_drift_only_where_somebody_measured_them(html: str) -> None:
    assert not {"fairness", "drift"} & set(sections_of(html))


def test_fairness_and_drift_are_shown(trained: Project) -> None:
    trained.run(*AUDIT_TABLES)
    html = build_report(trained.settings)
    text = text_of(html)
    assert (
        "By gender, it misses 40 % of the failing in group b and 10 % in group a."
        in text
    )
    fairness = html.split('<section id="fairness"')[1].split("</section>")[0]
    assert "tiny" in fairness and fairness.count("<figure>") == 1
    drift = html.split('<section id="drift"')[1].split("</section>")[0]
    assert "Active days (last 14 days)" in drift
    assert "Drift of the score" in drift and "no rows in" not in drift


def test_groups_that_may_differ_by_chance_are_not_named(trained: Project) -> None:
    trained.run(
        *AUDIT_TABLES, "update fairness_groups set false_negative_rate_low = 0.0"
    )
    verdict = give_verdict(read_facts(trained.settings), explore=False)
    assert not any("By gender" in text for _, text in verdict.paragraphs)


def test_empty_audit_tables_and_unmeasured_groups(trained: Project) -> None:
    trained.run(
        *AUDIT_TABLES,
        "delete from fairness_groups where value <> 'tiny'",
        "delete from feature_drift",
    )
    text = text_of(build_report(trained.settings))
    assert "No group of this attribute is large enough" in text
    assert "The warehouse has no rows in feature_drift." in text


def test_staleness_and_imbalance_only_where_measured(
    trained: Project, html: str
) -> None:
    assert "staleness" not in sections_of(html)
    like = "insert into ml.model_metrics select * replace ({}) from ml.model_metrics"
    at = " where split = 'test' and metric = 'pr_auc' and segment = 'all'"
    for age in (1, 2, 10):
        trained.run(
            like.format(f"'backtest' as split, 'age={age}' as segment") + at,
        )
    trained.run(
        like.format("'imbalance' as split, 'full ratio' as segment")
        + at
        + " and scorer = 'model' and lead_days = -1"
    )
    html = build_report(trained.settings)
    assert sections_of(html).index("staleness") == sections_of(html).index("leads") + 1
    assert sections_of(html).index("imbalance") == sections_of(html).index("search") - 1
    staleness = html.split('<section id="staleness"')[1].split("</section>")[0]
    ages = re.findall(r'<th scope="row">(\d+)</th>', staleness)
    assert list(dict.fromkeys(ages)) == ["1", "2", "10"]
    assert "full ratio" in html


# ---------------------------------------------------------------- decisions


def section_of(html: str, anchor: str) -> str:
    """One section as one line of text."""
    return text_of(html.split(f'<section id="{anchor}"')[1].split("</section>")[0])


def test_decisions_say_what_is_set_and_what_is_worth_most(
    trained_once: Project, html: str
) -> None:
    rows = trained_once.rows(
        "select * from ml.threshold_metrics where lead_days = 14"
    ).set_index("cut_value")
    best = rows[rows["is_recommended"]].iloc[0]
    current = rows[rows["is_current"]].iloc[0]
    text = section_of(html, "decisions")
    assert "The present settings: 50 students a week." in text
    assert f"That flagged {int(current['flagged']):,} cases" in text
    assert "an assumption until an experiment has measured it" in text
    assert (
        f"Its gain over the test period is {int(best['expected_gain']):,} "
        f"({int(best['expected_gain_low']):,} to {int(best['expected_gain_high']):,})"
    ) in text
    assert text.count("worth most") >= 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("expected_gain = -1, is_recommended = false", "no capacity pays."),
        (
            "expected_gain = null, is_recommended = false",
            "What flagging is worth was not computed: set CONTACT_COST",
        ),
        ("expected_gain_low = -1", "which may be none at all"),
    ],
)
def test_decisions_that_are_not_sure(trained: Project, change: str, told: str) -> None:
    trained.run(f"update ml.threshold_metrics set {change} where cut <> 'threshold'")
    facts = read_facts(trained.settings)
    assert facts.model is not None
    assert told in " ".join(decisions(facts, facts.model).paragraphs)


def test_calibration_is_shown_by_lead_and_by_course(html: str) -> None:
    text = section_of(html, "calibration")
    for words in ("risk by lead", "risk by course", "Course c2", "Lead 7", "Slope"):
        assert words in text


# ---------------------------------------------------------------- escaping, browser


def with_nasty_course(project: Project) -> Project:
    """Rename a course to what would be markup, a formula, and too wide at once."""
    name = NASTY.replace("'", "''")
    project.run(
        f"update main.student_targets set course_id = '{name}' where course_id = 'c1'",
        "update main.student_features_14d"
        f" set course_id = '{name}' where course_id = 'c1'",
        "update ml.evaluation_predictions"
        f" set course_id = '{name}' where course_id = 'c1'",
        "update ml.model_metrics"
        f" set segment = 'course={name}' where segment = 'course=c1'",
        f"update ml.model_runs set status_reason = '{name}'",
    )
    return project


def test_names_are_text_never_markup(trained: Project) -> None:
    html = build_report(with_nasty_course(trained).settings)
    assert "<script" not in html.lower()
    assert "&lt;script&gt;alert(" in html
    # As text of a picture too: matplotlib would take it for a formula.
    assert re.search(r"<text [^>]*>\$x_\{\$ &lt;script&gt;", html)


@dataclass(frozen=True)
class Visit:
    """What a browser made of a page."""

    requests: list[str]
    messages: list[str]
    page_width: int
    drawn: list[float]


def visit(browser: Browser, path: Path, width: int, media: str = "screen") -> Visit:
    """Open a file, unfold everything, and note what happens."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    requests: list[str] = []
    messages: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.emulate_media(media=media)
    page.goto(path.as_uri())
    page.wait_for_selector("footer")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = Visit(
        requests,
        messages,
        page.evaluate("document.documentElement.scrollWidth"),
        page.evaluate(
            "[...document.querySelectorAll('figure svg')]"
            ".map(svg => svg.getBoundingClientRect().height)"
        ),
    )
    page.close()
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("explore", [False, True])
def test_a_browser_needs_nothing_else(
    trained: Project, browser: Browser, tmp_path: Path, width: int, explore: bool
) -> None:
    with_nasty_course(trained).run(*AUDIT_TABLES)
    path = tmp_path / "report.html"
    path.write_text(build_report(trained.settings, explore), encoding="utf-8")
    found = visit(browser, path, width)
    assert found.requests == [path.as_uri()]
    assert found.messages == []
    assert found.page_width <= width
    assert len(found.drawn) > 5 and min(found.drawn) > 10


def test_it_fits_on_paper(html: str, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    # An A4 page less its margins, in CSS pixels; every table unfolded.
    assert visit(browser, path, 690, media="print").page_width <= 690


# ---------------------------------------------------------------- the command


@pytest.fixture
def command(trained: Project, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command in the environment of the trained project."""
    monkeypatch.setattr(report, "load_settings", lambda: trained.settings)
    return CliRunner()


def test_the_command_writes_beside_the_warehouse(
    trained: Project, command: CliRunner, html: str
) -> None:
    path = trained.folder / "report.html"
    done = command.invoke(app, [])
    assert done.exit_code == 0
    assert done.stdout.strip() == f"Report: {path}"
    assert path.read_text(encoding="utf-8") == html


def test_the_command_writes_where_it_is_told(
    command: CliRunner, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "page.html"
    done = command.invoke(app, ["--explore", "--out", str(path)])
    assert done.exit_code == 0
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_the_command_tells_what_is_wrong(command: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    target = tmp_path / "file" / "page.html"
    for arguments in (
        ["--out", str(target)],
        ["--explore", "--run", "x"],
        ["--run", "x"],
    ):
        done = command.invoke(app, arguments)
        assert done.exit_code == 1
        assert not isinstance(done.exception, UserError)


def test_it_refuses_other_settings_than_those_of_the_build(
    trained_once: Project,
) -> None:
    other = trained_once.with_settings(observation_window_days=7)
    with pytest.raises(UserError, match="OBSERVATION_WINDOW_DAYS"):
        build_report(other.settings)


# ---------------------------------------------------------------- arithmetic


def test_the_curve_encloses_the_areas_of_scikit_learn() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 150)
    scores = np.round(labels * 0.3 + random.random(150), 2)
    found = curve(labels, scores)
    steps = np.diff(found["recall"], prepend=0)
    area = np.trapezoid([0, *found["recall"]], [0, *found["false_positive_rate"]])
    assert (steps * found["precision"]).sum() == pytest.approx(
        average_precision_score(labels, scores)
    )
    assert area == pytest.approx(roc_auc_score(labels, scores))


def test_a_long_curve_is_thinned_and_one_class_has_none() -> None:
    random = np.random.default_rng(3)
    labels, scores = random.integers(0, 2, 5000), random.random(5000)
    assert len(curve(labels, scores)) == 200
    assert curve(labels, scores)["recall"].iloc[-1] == 1
    assert curve(np.ones(5, dtype=int), random.random(5)).empty


@pytest.mark.parametrize(
    ("scores", "flags", "expected"),
    [
        ([0.9, 0.5, 0.1], 1, [1, 0, 0]),
        ([1.0, 1.0, 1.0, 0.0], 1, [1 / 3, 1 / 3, 1 / 3, 0]),
        ([2.0, 1.0, 1.0], 2, [1, 0.5, 0.5]),
        ([2.0, 1.0], 0, [0, 0]),
        ([2.0, 1.0], 5, [1, 1]),
    ],
)
def test_a_tie_across_the_cut_is_shared(
    scores: list[float], flags: int, expected: list[float]
) -> None:
    assert flagged_weights(np.array(scores), flags) == pytest.approx(expected)


def test_whom_the_model_finds() -> None:
    predictions = pd.DataFrame(
        {
            "course_id": ["a", "a", "b", "b"],
            "is_first_sitting": [True, False, False, False],
            "at_risk": [1, 1, 0, 1],
            "risk_score": [0.1, 0.9, 0.8, 0.7],
            "baseline_rule": [0.0, 0.0, 0.0, 0.0],
        }
    )
    found = reach_table(predictions).set_index("group")
    assert found["reached"].to_dict() == pytest.approx(
        {
            "All cases": 2 / 3,
            "First assessment in the course (cold start)": 0,
            "Later assessments": 1,
            "Course a": 0.5,
            "Course b": 1,
        }
    )
    # Four equal scores, three flags: each case is flagged by three quarters.
    assert set(found["rule"]) == {0.75}


def test_groups_are_shares_of_their_own_class() -> None:
    values = pd.Series([0, 1, 1, 2, 50, None])
    outcome = pd.Series([1, 1, 0, 0, 0, 1])
    found = group_shares(values, outcome)
    assert found is not None
    _, groups = found
    assert groups["failed"].sum() == pytest.approx(1)
    # What lies beyond the last bin counts in it.
    assert groups["passed"].sum() == pytest.approx(1)
    assert group_shares(pd.Series([4, 4, None]), pd.Series([0, 1, 1])) is None


def test_top_pairs_are_the_strongest_of_either_sign() -> None:
    matrix = pd.DataFrame(
        [[1, 0.2, -0.9], [0.2, 1, np.nan], [-0.9, np.nan, 1]],
        index=list("abc"),
        columns=list("abc"),
    )
    assert top_pairs(matrix, 5) == [("a", "c", -0.9), ("a", "b", 0.2)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (0.004, "0.4 %"), (0.42, "42 %"), (0.991, "99.1 %"), (1.0, "100 %")],
)
def test_percentages_say_as_much_as_they_know(value: float, text: str) -> None:
    assert percent(value) == text


def test_a_figure_that_is_not_defined_is_a_dash() -> None:
    assert percent(None) == percent(float("nan")) == "\N{EN DASH}"
    assert with_interval(0.5, float("nan"), 0.6) == "0.500"


def test_noise_is_refused_and_said_so(tmp_path: Path) -> None:
    project = make_project(tmp_path, World(noise_labels=True))
    run_train(project.settings)
    html = build_report(project.settings)
    assert headline_of(html).startswith("The model was refused.")
    assert "is not better than" in html
