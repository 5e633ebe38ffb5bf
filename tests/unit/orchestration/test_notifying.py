"""Messages go out through Airflow's own notifiers: real ones, to a mail server and a web hook."""

import json
import socket
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message as Mail
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from support.web_hook import web_hook

from nightshard.core.errors import UserError
from nightshard.orchestration.notifying import read_wishes, tell
from nightshard.publish.message import Message

pytestmark = pytest.mark.unit

SMTP = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
SLACK = "airflow.providers.slack.notifications.slack_webhook.SlackWebhookNotifier"
MESSAGE = Message("worse", "org/a is worse", "MATH500: 0.5\nRun: https://airflow.example/r")


class Inbox:
    """Keeps what a mail server is given."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """A mail server on loopback that Airflow's connection leads to."""
    kept = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Controller(kept, hostname="127.0.0.1", port=port)
    server.start()
    connection = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": port,
        "extra": {"disable_ssl": True, "disable_tls": True, "from_email": "ns@example.org"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    yield kept
    server.stop()


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What reaches a web hook that Airflow's connection leads to."""
    with web_hook() as hook:
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", hook.connection)
        yield hook.posted


def wishes(tmp_path: Path, text: str) -> list[Any]:
    file = tmp_path / "notifications.yaml"
    file.write_text(text)
    return read_wishes(file)


MAIL = f"""
- notifier: {SMTP}
  arguments:
    to: team@example.org
    subject: "[{{event}}] {{title}}"
    html_content: "<pre>{{text}}</pre>"
    mime_subtype: mixed
"""
HOOK = f"""
- notifier: {SLACK}
  events: [worse, failed, attention]
  arguments: {{text: "*{{title}}*\\n{{text}}"}}
"""


def test_one_message_goes_to_each_that_wants_it(
    tmp_path: Path, inbox: Inbox, posted: list[Any]
) -> None:
    assert tell(MESSAGE, wishes(tmp_path, MAIL + HOOK), {}) == 2
    (mail,) = inbox.mails
    assert mail["subject"] == "[worse] org/a is worse"
    assert mail["to"] == "team@example.org"
    body = b"".join(part.get_payload(decode=True) or b"" for part in mail.walk())
    assert b"MATH500: 0.5" in body
    (said,) = posted
    assert said["text"] == f"*{MESSAGE.title}*\n{MESSAGE.text}"


def test_whoever_wants_other_events_is_left_alone(tmp_path: Path, posted: list[Any]) -> None:
    scored = Message("scored", "org/a scored", "")
    assert tell(scored, wishes(tmp_path, HOOK), {}) == 0
    assert posted == []


def test_one_deaf_receiver_does_not_silence_the_others(
    tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = {"conn_type": "slackwebhook", "host": "http://127.0.0.1:9", "password": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(nobody))
    with pytest.raises(Exception, match=r".+"):
        tell(MESSAGE, wishes(tmp_path, HOOK + MAIL), {})
    assert len(inbox.mails) == 1


def test_what_a_model_wrote_is_no_template(tmp_path: Path, posted: list[Any]) -> None:
    odd = Message("failed", "{{ 1 + 1 }}", "{{ conn.secret.password }}")
    tell(odd, wishes(tmp_path, HOOK), {})
    assert posted[0]["text"] == "*{{ 1 + 1 }}*\n{{ conn.secret.password }}"


def test_nobody_is_told_by_default(tmp_path: Path) -> None:
    assert read_wishes(tmp_path / "none.yaml") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("notifier: x", "begin each notifier with a dash"),
        ("- notifier: a.B\n  events: [never]", "events.0 cannot be used"),
        ("- notifier: rm -rf /", "notifier cannot be used"),
        ("- {", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        wishes(tmp_path, f"{text}\n")


def test_a_notifier_that_is_not_there_or_refuses_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Notifier is not installed"):
        tell(MESSAGE, wishes(tmp_path, "- notifier: not.there.Notifier\n"), {})
    with pytest.raises(UserError, match="refuses its arguments"):
        tell(MESSAGE, wishes(tmp_path, f"- notifier: {SLACK}\n  arguments: {{who: me}}\n"), {})
