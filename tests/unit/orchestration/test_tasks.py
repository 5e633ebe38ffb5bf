"""Which errors end a task at once, and which are left to its retries."""

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from nightshard.clusters.errors import LoginError, LoginFailure
from nightshard.core.errors import IncompleteRunError, UserError
from nightshard.orchestration.tasks import one_sentence, patient

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


def test_a_login_node_that_is_down_is_left_to_the_retries() -> None:
    with pytest.raises(AirflowException, match="Connections are refused") as caught:
        one_sentence(patient(raiser(REFUSED)))()
    assert not isinstance(caught.value, AirflowFailException)


def test_before_a_run_has_begun_it_is_said_at_once() -> None:
    with pytest.raises(AirflowFailException, match="Connections are refused"):
        one_sentence(raiser(REFUSED))()


def test_a_changed_host_key_is_never_tried_again() -> None:
    with pytest.raises(AirflowFailException, match="HAS CHANGED"):
        one_sentence(patient(raiser(CHANGED)))()


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        one_sentence(patient(raiser(ZeroDivisionError())))()
