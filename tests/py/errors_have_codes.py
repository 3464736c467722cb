"""What schemathesis checks of every answer: it is GraphQL, quick, and each error has a code that says
whose fault it is, which is never ours."""

import schemathesis
from hypothesis import strategies
from schemathesis.graphql import nodes

CODES = {
    "FORBIDDEN",
    "NOT_FOUND",
    "BAD_USER_INPUT",
    "CONFLICT",
    "UNAVAILABLE",
    "LIMIT_EXCEEDED",
    "GRAPHQL_PARSE_FAILED",
    "GRAPHQL_VALIDATION_FAILED",
}


schemathesis.graphql.scalar(
    "LogPosition",
    strategies.builds(
        "{}:{}".format, strategies.integers(0, 20), strategies.integers(-1, 2**64)
    ).map(nodes.String),
)


@schemathesis.check
def errors_have_codes(_context, response, _case):
    assert response.status_code in (200, 400), f"answered {response.status_code}: {response.text[:300]}"
    answer = response.json()
    assert answer.keys() & {"data", "errors"}, f"neither data nor errors: {response.text[:300]}"
    for error in answer.get("errors", []):
        code = error.get("extensions", {}).get("code")
        assert code in CODES, f"the code {code} is not one to expect: {error}"
