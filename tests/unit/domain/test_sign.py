"""The table of signs: each is met by a text that a real daemon has said."""

import pytest

from imagewright.domain.sign import SIGNS, Sign, read
from tests.unit.failure.test_buildkit import TEXTS as OF_BUILDKIT
from tests.unit.failure.test_engine import TEXTS as OF_ENGINES


def test_every_sign_is_given_by_some_text() -> None:
    given = {read(text) for text, _, _ in [*OF_BUILDKIT.values(), *OF_ENGINES.values()]}
    assert [sign.pattern.pattern for sign in SIGNS if sign not in given] == []


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.advice[:60])
def test_an_advice_is_a_sentence(sign: Sign) -> None:
    assert sign.advice.endswith(".")
    assert sign.advice[0].isupper()
