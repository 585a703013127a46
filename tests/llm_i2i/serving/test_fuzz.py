"""Requests made up from the OpenAPI document: none makes the service fail, and every answer is what the document says.

FUZZ_EXAMPLES=1050 makes more than 10,000 requests; pytest --log-cli-level=INFO tells how they were answered.
"""

import logging
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from llm_i2i.serving.app import Settings, create_app

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra dev)")
checks = pytest.importorskip("schemathesis.checks")
conformance = pytest.importorskip("schemathesis.specs.openapi.checks")

log = logging.getLogger(__name__)

CHECKS = [
    checks.not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "6"))


@pytest.fixture(scope="module")
def app(open_shop):
    """A service of one arm, in this process."""
    events = open_shop.root / "fuzzed"
    events.mkdir()
    made = create_app(Settings({"real": str(open_shop.store)}, {"real": 1.0}, str(events)))
    made.state.arms.refresh()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_every_answer_is_what_the_document_says(app, mode):
    asked: Counter[int] = Counter()
    for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        operation = found.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and not (operation.body or list(operation.iter_parameters())):
            continue  # nothing that could be wrong

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            response = case.call()
            asked[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        check()
    assert asked[200] > EXAMPLES if mode is schemathesis.GenerationMode.POSITIVE else asked[422] > EXAMPLES
    log.info("%s: %d requests, by status %s", mode, asked.total(), dict(sorted(asked.items())))
