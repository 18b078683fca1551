"""Bodies are encoded as the documented functions of ``json`` encode them, whichever encoder there is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from printos_async._api.requests import make_json_encode

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "make_c_encoder",
    [
        pytest.param(getattr(json.encoder, "c_make_encoder", None), id="this Python's"),
        pytest.param(None, id="missing"),
        pytest.param(lambda: None, id="other arguments"),
    ],
)
@given(value=VALUES)
def test_a_body_is_encoded_as_json_dumps_does(make_c_encoder: Callable[..., Any] | None, value: Any) -> None:
    encode = make_json_encode(make_c_encoder)
    assert encode(value) == json.dumps(value, separators=(",", ":"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"ink": float("nan"), "value": value})
