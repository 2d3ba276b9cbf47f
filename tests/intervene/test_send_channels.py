"""The ways out against real servers that fail in every way servers do."""

import json
import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from delivery_servers import MailServer, free_port, greeting_server, receiver
from delivery_servers import smtp_server as serve

from intervene.delivery.channels import (
    ChannelDown,
    FileChannel,
    HttpChannel,
    Letter,
    SmtpChannel,
    as_html,
    compose,
    make_channels,
)
from intervene.delivery.outbox import Outcome
from ml.settings import Settings

ID = "0123456789abcdef0123456789abcdef"
SETTINGS = {
    "smtp_host": "127.0.0.1",
    "smtp_security": "none",
    "mail_from": "Course team <advice@example.org>",
}


def letter(to="s1@example.org", body="Hi Ada,\n\nGo on.", channel="email"):
    return Letter(ID, "s1", channel, to, "A plan", body)


@pytest.fixture
def mails():
    return MailServer()


@pytest.fixture
def port(mails):
    with serve(mails) as port:
        yield port


@pytest.fixture
def channel(port):
    opened = SmtpChannel(Settings(**SETTINGS, smtp_port=port), timeout=0.7)
    opened.prepare()
    yield opened
    opened.close()


# ---------------------------------------------------------------- email


def test_an_accepted_email_is_text_and_html_with_what_mail_programs_need(
    channel, mails
):
    body = "Hi Ada <b>&co</b>,\n\n.a line with a dot\n- one\n- two <i>\n\næøå ñ ¿"
    assert channel.send(letter(body=body)).kind == "accepted"
    [mail] = mails.accepted
    assert mail["From"] == "Course team <advice@example.org>"
    assert mail["To"] == "s1@example.org"
    assert mail["Message-ID"] == f"<{ID}@example.org>"
    assert mail["List-Unsubscribe"] == (
        f"<mailto:advice@example.org?subject=unsubscribe%20{letter().message_id}>"
    )
    text, html = mail.iter_parts()
    assert text.get_content().strip().replace("\r", "") == body
    shown = html.get_content()
    assert "Hi Ada &lt;b&gt;&amp;co&lt;/b&gt;," in shown
    assert "<ul><li>one</li><li>two &lt;i&gt;</li></ul>" in shown


def test_unsubscribing_with_one_click():
    url = "https://example.org/stop?m={message_id}"
    sent = compose(letter(), Settings(**SETTINGS, unsubscribe_url=url)).decode()
    assert f"<https://example.org/stop?m={ID}>," in sent
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click" in sent


def test_html_of_nothing_special():
    assert as_html("a\nb") == (
        "<!doctype html>\n<html><body>\n<p>a<br>b</p>\n</body></html>\n"
    )


@pytest.mark.parametrize(
    ("how", "kind", "reason", "lost"),
    [
        ("rcpt-450", "temporary", "450 5.1.1 at RCPT", False),
        ("rcpt-550", "permanent", "550 5.1.1 at RCPT", False),
        ("rcpt-421", "temporary", "421 5.1.1 at RCPT", True),
        ("data-451", "temporary", "451 5.7.1 at final dot", False),
        ("data-554", "permanent", "554 5.7.1 at final dot", False),
        ("drop-rcpt", "temporary", "connection dropped at RCPT", True),
        ("drop-data", "temporary", "connection dropped at DATA", True),
        ("drop-reply", "unknown", "connection dropped at final dot", False),
        ("slow-reply", "unknown", "no answer in time at final dot", False),
    ],
)
def test_every_way_to_fail_is_told_apart(channel, mails, how, kind, reason, lost):
    mails.slow_seconds = 1.5
    outcome = channel.send(letter(f"{how}@example.org"))
    assert outcome == Outcome(kind, reason, lost=lost)
    assert bool(mails.accepted) == (kind == "unknown"), "it knows better than we do"
    channel.prepare()
    assert channel.send(letter()).kind == "accepted", "the next one goes out"


def test_a_line_cut_in_the_middle_of_the_text_is_known_not_to_be_accepted(
    channel, mails
):
    # More than the buffers of both sides hold.
    outcome = channel.send(letter("mid-data@example.org", body="x" * 60 + "\n"))
    assert outcome.kind == "unknown", "a short text has left before the line is cut"
    channel.prepare()
    long = ("x" * 900 + "\n") * 20_000
    outcome = channel.send(letter("mid-data@example.org", body=long))
    assert outcome == Outcome("temporary", "connection dropped at text", lost=True)
    assert mails.accepted == []


def test_a_sender_that_is_refused_is_not_the_students_fault(channel, mails):
    mails.refuse_senders = "550 5.7.1 not you"
    outcome = channel.send(letter())
    assert outcome == Outcome("temporary", "550 5.7.1 at MAIL", lost=True)


@pytest.mark.parametrize("words", [b"421 busy\r\n", b"554 go away\r\n", b""])
def test_a_server_that_turns_us_away_is_down(words):
    with greeting_server(words) as port:
        channel = SmtpChannel(Settings(**SETTINGS, smtp_port=port))
        with pytest.raises(ChannelDown, match="cannot be used"):
            channel.prepare()


def test_a_refused_connection_is_down_and_says_so():
    channel = SmtpChannel(Settings(**SETTINGS, smtp_port=free_port()))
    with pytest.raises(ChannelDown, match="connection refused"):
        channel.prepare()
    assert channel.send(letter()).kind == "temporary"


def test_starttls_and_sign_in(mails, tmp_path, monkeypatch):
    files = [str(tmp_path / name) for name in ("cert.pem", "key.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)

    def check(server, session, envelope, mechanism, data):
        from aiosmtpd.smtp import AuthResult

        known = (data.login, data.password) == (b"me", b"secret")
        return AuthResult(success=known, handled=False)

    options = {"tls_context": context, "authenticator": check, "auth_required": True}
    with serve(mails, **options) as port:
        signed = {**SETTINGS, "smtp_port": port, "smtp_security": "starttls"}
        signed |= {"smtp_user": "me", "smtp_password": "secret"}
        with pytest.raises(ChannelDown, match="TLS failed"):
            SmtpChannel(Settings(**signed)).prepare()
        monkeypatch.setenv("SSL_CERT_FILE", files[0])
        channel = SmtpChannel(Settings(**signed))
        channel.prepare()
        assert channel.send(letter()).kind == "accepted"
        channel.close()
        wrong = SmtpChannel(Settings(**signed | {"smtp_password": "wrong-word"}))
        with pytest.raises(ChannelDown, match="sign-in") as error:
            wrong.prepare()
    assert "wrong-word" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mail_from": ""}, "MAIL_FROM is empty"),
        ({"smtp_password": "x"}, "SMTP_USER is empty"),
        (
            {"smtp_password": "x", "smtp_user": "me", "smtp_host": "mail.example.org"},
            "clear text",
        ),
        ({"sms_target": "nonsense://{phone}"}, "SMS_TARGET is not a URL"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes, words):
    with pytest.raises(ChannelDown, match=words):
        make_channels(Settings(**SETTINGS | changes))


# ---------------------------------------------------------------- HTTP


@pytest.fixture
def app():
    with receiver() as server:
        yield server


def target(port):
    return (
        f"json://127.0.0.1:{port}/notes?rto=0.5&:to={{phone}}&:student={{student_id}}"
        "&+Idempotency-Key={message_id}"
    )


def sms(**changes):
    return letter(**{"to": "+4712345678", "channel": "sms"} | changes)


def test_a_request_names_whom_and_carries_the_key(app):
    channel = HttpChannel("sms", target(app.server_port))
    assert channel.send(sms()).kind == "accepted"
    [(path, headers, body)] = app.requests
    sent = json.loads(body)
    assert path == "/notes"
    assert headers["Idempotency-Key"] == ID
    assert (sent["to"], sent["student"]) == ("+4712345678", "s1")
    assert sent["message"] == "Hi Ada,\n\nGo on."


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        ("400", {}, Outcome("permanent", "HTTP 400")),
        ("404", {}, Outcome("permanent", "HTTP 404")),
        ("401", {}, Outcome("temporary", "HTTP 401", lost=True)),
        (
            "429",
            {"Retry-After": "90"},
            Outcome("temporary", "HTTP 429", timedelta(seconds=90), lost=True),
        ),
        ("503", {}, Outcome("temporary", "HTTP 503", lost=True)),
        ("504", {}, Outcome("unknown", "HTTP 504")),
        ("slow", {}, Outcome("unknown", "ReadTimeout after the request")),
        ("drop", {}, Outcome("unknown", "ConnectionError after the request")),
    ],
)
def test_every_answer_is_told_apart(app, status, headers, expected):
    app.answers = [(status, headers)]
    channel = HttpChannel("sms", target(app.server_port))
    assert channel.send(sms()) == expected
    assert len(app.requests) == 1, "nothing is tried again behind our back"


def test_retry_after_may_be_a_date(app):
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    app.answers = [("503", {"Retry-After": later})]
    outcome = HttpChannel("sms", target(app.server_port)).send(sms())
    assert timedelta(minutes=9) < outcome.retry_after <= timedelta(minutes=10)


def test_a_service_that_cannot_be_reached_has_nothing():
    outcome = HttpChannel("sms", target(free_port())).send(sms())
    assert outcome == Outcome("temporary", "no connection", lost=True)


def test_a_number_that_the_service_leaves_out_is_not_sent_to_its_default():
    """This service would write to its own number instead."""
    account = f"AC{'a' * 32}:{'b' * 32}"
    channel = HttpChannel("sms", f"twilio://{account}@14155550199/{{phone}}")
    outcome = channel.send(sms(to="+298123456"))
    assert outcome == Outcome("permanent", "the service does not take this number")


def test_apprise_logs_no_numbers(app, caplog):
    app.answers = [("400", {})]
    HttpChannel("sms", target(app.server_port)).send(sms())
    assert not [record for record in caplog.records if record.name == "apprise"]


# ---------------------------------------------------------------- files


def test_a_file_is_whole_private_and_the_same_when_written_again(tmp_path):
    channel = FileChannel(tmp_path / "drop")
    channel.prepare()
    for _ in range(2):
        assert channel.send(letter()).kind == "accepted"
    [path] = (tmp_path / "drop").iterdir()
    assert path.name == f"{ID}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["to"] == "s1@example.org"


def test_a_folder_that_cannot_be_written_keeps_the_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ChannelDown, match="DROP_FOLDER"):
        FileChannel(tmp_path / "file").prepare()
    outcome = FileChannel(tmp_path / "none").send(letter())
    assert (outcome.kind, outcome.lost) == ("temporary", True)


def test_the_folder_takes_what_has_no_way_out_of_its_own(tmp_path):
    found = make_channels(Settings(**SETTINGS, smtp_port=25, drop_folder=str(tmp_path)))
    kinds = {name: type(channel) for name, channel in found.items()}
    assert kinds == {"email": SmtpChannel, "sms": FileChannel, "in_app": FileChannel}
    assert make_channels(Settings()) == {}
