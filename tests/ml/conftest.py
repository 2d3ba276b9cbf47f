"""Fixtures of the model's tests."""

from pathlib import Path

import pytest
from synthetic import Project, make_project

from ml.settings import Settings
from ml.train import run_train


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests must not reach them."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An untrained project, for tests that change it."""
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A trained project, for tests that only look at it."""
    project = make_project(tmp_path_factory.mktemp("trained"))
    run_train(project.settings)
    return project


@pytest.fixture
def trained(trained_once: Project, tmp_path: Path) -> Project:
    """A trained project, for tests that change it."""
    return trained_once.copy_to(tmp_path)
