"""The JSON of the result pages keeps to its own description, whatever a program asks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from support.evaluated import example_results

from nightshard.results.samples import Filter, Samples
from nightshard.web.serve import serving_app
from nightshard.web.source import Source

pytestmark = pytest.mark.integration

CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


def test_every_answer_is_one_that_the_description_knows(tmp_path: Path) -> None:
    results = example_results(tmp_path)
    app = serving_app(Source(results.database_url, results.store), "0.0.0.0", None)
    described = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == 8
    request_id = Samples(results.store).page("run-300", Filter()).rows[0]["request_id"]
    real = {"run_key": "run-300", "first": "run-100", "second": "run-300", "beside": "run-200"}
    real["request_id"] = request_id
    for operation in operations:
        assert 200 in asked_by_chance(operation, real), operation.label


def asked_by_chance(operation: Any, real: Mapping[str, str]) -> set[int]:
    """Ask in many ways, half of them for what is there; return the statuses that came."""
    seen = set()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(), known=st.booleans())
    def ask(case: Any, known: bool) -> None:
        if known:
            for asked in (case.path_parameters, case.query):
                asked.update({name: value for name, value in real.items() if name in asked})
        answer = case.call()
        case.validate_response(answer, checks=CHECKS)
        seen.add(answer.status_code)

    ask()
    return seen
