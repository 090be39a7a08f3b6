"""The engine's property tests again, with many more graphs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine import test_properties as properties

pytestmark = pytest.mark.chaos


@pytest.mark.timeout(600)
@settings(max_examples=4000)
@given(properties.cases(), st.integers(0, 2**32))
def test_E1_to_E13_thousands_of_graphs_come_to_what_the_reference_says(case, order):
    expected, actual = properties.reference(case), properties.run(case, order)
    assert actual[0] == expected[0]
    if expected[0] == "ok":
        assert actual == expected
    else:
        assert actual[1] <= expected[1]
