"""Which errors end a task at once."""

import pytest
from airflow.sdk.exceptions import AirflowFailException

from nightshard.clusters.errors import LoginError, LoginFailure
from nightshard.core.errors import IncompleteRunError, UserError
from nightshard.orchestration.tasks import one_sentence

pytestmark = pytest.mark.unit

REFUSED = LoginError(LoginFailure.REFUSED, "Connections are refused")
CHANGED = LoginError(LoginFailure.HOST_KEY_CHANGED, "The host key HAS CHANGED")


def raiser(error: Exception):  # type: ignore[no-untyped-def]
    def step() -> None:
        raise error

    return step


@pytest.mark.parametrize("error", [UserError("Bad input"), IncompleteRunError("3 are missing")])
def test_what_a_retry_cannot_mend_fails_at_once_with_the_sentence_alone(error: Exception) -> None:
    with pytest.raises(AirflowFailException) as caught:
        one_sentence(raiser(error))()
    assert str(caught.value) == str(error)
    assert caught.value.__suppress_context__


def test_a_login_that_fails_is_said_at_once() -> None:
    with pytest.raises(AirflowFailException, match="Connections are refused"):
        one_sentence(raiser(REFUSED))()


def test_a_changed_host_key_is_never_tried_again() -> None:
    with pytest.raises(AirflowFailException, match="HAS CHANGED"):
        one_sentence(raiser(CHANGED))()


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        one_sentence(raiser(ZeroDivisionError()))()
