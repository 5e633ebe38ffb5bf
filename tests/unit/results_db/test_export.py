"""All scores as one table, and what docs/results.md does with it."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from support.recorded import recorded_run

from nightshard.cli.results import db
from nightshard.core.errors import UserError
from nightshard.core.settings import PROJECT_ROOT
from nightshard.results.database import open_database
from nightshard.results.export import SCHEMA, scores_table
from nightshard.results.write import record_run

pytestmark = pytest.mark.unit

PAGE = (PROJECT_ROOT / "docs" / "results.md").read_text()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """Two runs of one model and one of another; MATH500 and a subset of it."""
    url = f"sqlite:///{tmp_path}/results.db"
    monkeypatch.setenv("NIGHTSHARD_DB_URL", url)
    monkeypatch.chdir(tmp_path)
    made = open_database(url)
    for key, model, day, value in (
        ("old", "org/a", 1, 0.25),
        ("new", "org/a", 2, 0.5),
        ("other", "org/b", 1, 0.75),
    ):
        record_run(made, recorded_run(key, model=model, day=day, value=value))
    return made


def export(name: str) -> Any:
    return CliRunner().invoke(db, ["export", name], catch_exceptions=False)


@pytest.mark.parametrize(
    ("name", "read"), [("scores.parquet", pd.read_parquet), ("scores.csv", pd.read_csv)]
)
def test_every_score_is_a_row_with_its_run_and_model(
    engine: sa.Engine, name: str, read: Any
) -> None:
    assert "6 scores written" in export(name).output
    rows = read(name)
    assert list(rows.columns) == SCHEMA.names
    whole = rows[rows.subset.fillna("") == ""]
    assert list(whole.value) == [0.25, 0.5, 0.75]
    assert list(whole.run_key) == ["old", "new", "other"]
    assert set(whole.gpu_seconds) == {90}


def test_an_empty_database_gives_an_empty_table(tmp_path: Path) -> None:
    table = scores_table(open_database(f"sqlite:///{tmp_path}/empty.db"))
    assert (table.num_rows, table.schema) == (0, SCHEMA)


def test_another_kind_of_file_is_refused_with_a_sentence(engine: sa.Engine) -> None:
    with pytest.raises(UserError, match=r"scores\.xlsx is neither \.parquet nor \.csv"):
        export("scores.xlsx")
    with pytest.raises(UserError, match=r"none/scores\.csv cannot be written"):
        export("none/scores.csv")


def test_the_pandas_example_of_the_documentation_runs(engine: sa.Engine) -> None:
    export("scores.parquet")
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example, {})
    assert re.search(r"org/a\s+0\.50\s*\norg/b\s+0\.75", printed.getvalue())


def test_the_sql_example_of_the_documentation_runs(engine: sa.Engine) -> None:
    (example,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    with engine.connect() as connection:
        rows = connection.execute(sa.text(example)).all()
    assert [(row.name, row.value) for row in rows] == [
        ("org/a", 0.25),
        ("org/a", 0.5),
        ("org/b", 0.75),
    ]
