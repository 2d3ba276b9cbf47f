"""The page itself: Flask behind waitress, without anything from elsewhere.

Every page works without script; `static/review.js` adds keys and keeps the focus.
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from getpass import getuser
from http import HTTPStatus
from typing import Any

import waitress
from flask import (
    Flask,
    Response,
    abort,
    g,
    redirect,
    render_template,
    request,
    url_for,
)
from jinja2 import StrictUndefined
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from intervene.drafting.draft import due_day
from intervene.handover import Contact
from intervene.review import actions
from intervene.review.access import LOOPBACK, Gate, Notice, Session, parse_tokens
from intervene.review.actions import ANOTHER, EditRefused, Result, Seen
from intervene.review.contacts import Contacts
from intervene.review.queue import VIEWS, Case, read_message, read_names, read_page
from intervene.store import IllegalMove, Store
from intervene.text import one_line
from ml.settings import Settings, UserError

COOKIE = "review_session"
LARGEST_REQUEST = 256 * 1024
LONGEST_NAME = 40
THREADS = 8
HEADERS = {
    # Nothing inline, nothing from elsewhere, in nobody's frame.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; "
    "script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, browsers would send `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
REASONS = (
    "Facts are wrong",
    "Tone does not fit",
    "Already in contact",
    "No help needed",
)
OPEN_TO_ANYBODY = ("sign_in", "sign_in_form", "static")
log = logging.getLogger("intervene.review")


def create_app(
    store: Store,
    source_system: str,
    contacts: Contacts,
    gate: Gate,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Flask:
    """The application; every message that it shows or touches is of one source."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST
    app.jinja_options = {
        # Flask would escape only files whose names end in .html.
        "autoescape": True,
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
    }
    app.jinja_env.filters |= {"day": _day, "moment": _moment, "words": _words}
    app.jinja_env.globals |= {"ANOTHER": ANOTHER, "REASONS": REASONS, "VIEWS": VIEWS}
    _guard(app, gate)
    _add_sign_in(app, gate)
    _add_pages(app, store, source_system, contacts, clock)
    _add_actions(app, store, source_system, contacts, clock)
    _add_errors(app)
    return app


def serve(
    store: Store,
    settings: Settings,
    host: str,
    port: int,
    announce: Callable[[str], None],
) -> None:
    """Serve until interrupted.

    Raises
    ------
    UserError
        The address cannot be listened on.
    """
    given = settings.review_tokens.get_secret_value()
    tokens, made = parse_tokens(given), secrets.token_urlsafe(24)
    if not tokens:
        tokens = {made: getuser()}
    gate = Gate(tokens, hosts=(host,), url=settings.review_url)
    app = create_app(store, settings.source_system, Contacts(settings), gate)
    try:
        server: Any = waitress.create_server(
            app, host=host, port=port, threads=THREADS, ident=None
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"Cannot listen on {host}, port {port}: {error}. "
            "Set REVIEW_HOST or REVIEW_PORT to another one."
        ) from None
    if host not in LOOPBACK:
        announce(
            f"Others can reach {host}. What they send and see is not encrypted unless "
            "a proxy before it speaks TLS; set REVIEW_URL to the proxy's address."
        )
    shown = f"[{host}]" if ":" in host else host
    url = settings.review_url or f"http://{shown}:{server.effective_port}"
    # After the #, so that it is in no request, no log and no Referer.
    announce(f"Review: {url}/" + ("" if given else f"sign-in#token={made}"))
    try:
        server.run()
    except KeyboardInterrupt:
        announce("Stopped.")
    finally:
        server.close()


# ---------------------------------------------------------------- who may


def _guard(app: Flask, gate: Gate) -> None:
    @app.before_request
    def look_at_request() -> AnyResponse | None:
        if not gate.knows_host(request.host):
            abort(HTTPStatus.BAD_REQUEST, "This page has another name. See REVIEW_URL.")
        g.session = gate.session(request.cookies.get(COOKIE))
        if request.method == "POST":
            _refuse_forged(gate)
        signed_in = g.session is not None and g.session.actor is not None
        if not signed_in and request.endpoint not in OPEN_TO_ANYBODY:
            return redirect(url_for("sign_in"), HTTPStatus.SEE_OTHER)
        return None

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return response

    @app.context_processor
    def everywhere() -> dict[str, Any]:
        session = g.get("session")
        return {"actor": session and session.actor, "csrf": session and session.csrf}


def _refuse_forged(gate: Gate) -> None:
    """A form that another page sent, or that no page of this session showed."""
    given = request.form.get("csrf", "")
    if not gate.is_own_origin(request.headers.get("Origin"), request.host):
        abort(HTTPStatus.FORBIDDEN, "The request did not come from this page.")
    if g.session is None or not secrets.compare_digest(
        given.encode(), g.session.csrf.encode()
    ):
        abort(
            HTTPStatus.FORBIDDEN,
            "The form is of a session that has ended. Open the page again.",
        )


def _add_sign_in(app: Flask, gate: Gate) -> None:
    def answer(session: Session, page: AnyResponse | str) -> AnyResponse:
        response = app.make_response(page)
        response.set_cookie(
            COOKIE, session.key, httponly=True, samesite="Strict", secure=gate.over_tls
        )
        return response

    @app.get("/sign-in")
    def sign_in() -> AnyResponse:
        if g.session and g.session.actor:
            return redirect(url_for("queue"), HTTPStatus.SEE_OTHER)
        g.session = g.session or gate.begin()
        return answer(g.session, render_template("sign_in.html.j2", problem=None))

    @app.post("/sign-in", endpoint="sign_in_form")
    def sign_in_form() -> AnyResponse:
        address = request.remote_addr or ""
        wait = gate.seconds_to_wait(address)
        actor = None if wait else gate.sign_in(request.form.get("token", ""), address)
        if actor is None:
            log.warning("A sign-in was refused.")
            problem = (
                f"Too many wrong tokens. Wait {wait} seconds."
                if wait
                else "Wrong token."
            )
            page = app.make_response(
                render_template("sign_in.html.j2", problem=problem)
            )
            page.status_code = HTTPStatus.TOO_MANY_REQUESTS if wait else 401
            if wait:
                page.headers["Retry-After"] = str(wait)
            return page
        gate.end(g.session)
        log.info("%s signed in.", actor)
        onward = redirect(url_for("queue"), HTTPStatus.SEE_OTHER)
        return answer(gate.begin(actor), onward)

    @app.post("/sign-out")
    def sign_out() -> AnyResponse:
        gate.end(g.session)
        response = redirect(url_for("sign_in"), HTTPStatus.SEE_OTHER)
        response.delete_cookie(COOKIE, httponly=True, samesite="Strict")
        return response


# ---------------------------------------------------------------- pages


def _add_pages(
    app: Flask,
    store: Store,
    source_system: str,
    contacts: Contacts,
    clock: Callable[[], datetime],
) -> None:
    def person(case: Case) -> dict[str, Any]:
        """What the page says of a student beside the snapshot."""
        contact = (contacts.known() or {}).get(case.student_id)
        days = None
        if case.due_at is not None:
            today = clock().astimezone(UTC).date()
            days = (due_day(case.due_at, contact) - today).days
        return {
            "name": one_line(contact.first_name, LONGEST_NAME) if contact else None,
            "opted_out": bool(contact and contact.opted_out_at),
            "days_left": days,
        }

    app.jinja_env.globals["person"] = person

    @app.get("/")
    def queue() -> str:
        place = _place(request.args)
        page = read_page(store, source_system, **place, now=clock())
        notice, g.session.notice = g.session.notice, None
        return render_template(
            "queue.html.j2",
            page=page,
            place=place | {"number": page.number},
            notice=notice,
            names_known=contacts.known() is not None,
        )

    @app.get("/messages/<message_id>")
    def message(message_id: str) -> str:
        return _message_page(
            store, source_system, message_id, clock(), _place(request.args)
        )


def _message_page(
    store: Store,
    source_system: str,
    message_id: str,
    now: datetime,
    place: dict[str, Any],
    **given: Any,
) -> str:
    """The page of one message; `given` is a text that was not stored, and why."""
    history = read_message(store, source_system, message_id, now)
    if history is None:
        abort(HTTPStatus.NOT_FOUND, "There is no such message.")
    row = history.message
    shown = {
        "subject": row["subject"] or "",
        "body": row["body"],
        "edits": row["edits"],
        "problems": (),
    }
    return render_template(
        "message.html.j2", history=history, text=shown | given, place=place
    )


def _place(values: Any) -> dict[str, Any]:
    """Where in which view somebody is; anything else in a request is ignored."""
    view = values.get("view", "")
    return {
        "view": view if view in VIEWS else "waiting",
        "number": values.get("number", 1, type=int),
        "student_id": values.get("student_id", "").strip()[:200],
    }


# ---------------------------------------------------------------- actions


def _add_actions(
    app: Flask,
    store: Store,
    source_system: str,
    contacts: Contacts,
    clock: Callable[[], datetime],
) -> None:
    def tell(notice: Notice) -> AnyResponse:
        g.session.notice = notice
        address = url_for("queue", **_place(request.form))
        return redirect(address, HTTPStatus.SEE_OTHER)

    def decided(verb: str, chosen: Sequence[Seen], result: Result) -> AnyResponse:
        names = read_names(store, [seen.message_id for seen in chosen])
        undo = tuple(result.done) if verb != "put back" else ()
        return tell(_describe(verb, result, names, undo))

    def mine() -> list[Seen]:
        """The chosen messages, of this source alone."""
        chosen = [_parse(value) for value in request.form.getlist("message")]
        known = read_names(store, [seen.message_id for seen in chosen], source_system)
        return [seen for seen in chosen if seen.message_id in known]

    @app.post("/approve")
    def approve() -> AnyResponse:
        chosen = mine()
        result = actions.approve(store, chosen, g.session.actor, clock())
        return decided("approved", chosen, result)

    @app.post("/reject")
    def reject() -> AnyResponse:
        chosen = mine()
        result = actions.reject(
            store,
            chosen,
            request.form.get("reason", ""),
            g.session.actor,
            clock(),
            contacts.known(),
        )
        return decided("rejected", chosen, result)

    @app.post("/undo")
    def undo() -> AnyResponse:
        chosen = mine()
        result = actions.undo(store, chosen, g.session.actor, clock())
        return decided("put back", chosen, result)

    @app.post("/messages/<message_id>")
    def edit(message_id: str) -> AnyResponse | tuple[str, int]:
        now, form = clock(), request.form
        history = read_message(store, source_system, message_id, now)
        if history is None:
            abort(HTTPStatus.NOT_FOUND, "There is no such message.")
        text = {"subject": form.get("subject", ""), "body": form.get("body", "")}
        edits = form.get("edits", -1, type=int)
        try:
            known = contacts.known()
            if known is None:
                raise IllegalMove(
                    "The text cannot be compared with the student's name, because the "
                    "warehouse is in use. Try again in a moment"
                )
            actions.edit(
                store,
                Seen(message_id, edits),
                **text,
                snapshot=history.case.snapshot,
                contact=known.get(history.case.student_id)
                or Contact(history.case.student_id),
                actor=g.session.actor,
                now=now,
            )
        except EditRefused as refused:
            found = [f"{_words(p.check)}: {p.reason}" for p in refused.problems]
        except IllegalMove as refused:
            found = [str(refused)]
        else:
            name = read_names(store, [message_id])[message_id]
            return tell(Notice(f"Saved the {name}. It passed its checks."))
        place, status = _place(form), HTTPStatus.UNPROCESSABLE_ENTITY
        given = text | {"edits": edits, "problems": found}
        page = _message_page(store, source_system, message_id, now, place, **given)
        return page, status


def _parse(value: str) -> Seen:
    """`id.edits`, as the page wrote it."""
    message_id, _, edits = value.partition(".")
    return Seen(message_id, int(edits) if edits.isascii() and edits.isdigit() else None)


def _describe(
    verb: str, result: Result, names: dict[str, str], undo: tuple[str, ...]
) -> Notice:
    problems = tuple(
        f"{names[message_id]}: {why}" for message_id, why in result.refused.items()
    )
    if not result.done and not problems:
        return Notice("Nothing was selected.")
    if len(result.done) == 1:
        text = f"{verb.capitalize()}: the {names[result.done[0]]}."
    else:
        text = f"{verb.capitalize()}: {len(result.done):,} messages."
    if problems:
        text = f"{text} " if result.done else ""
        text += f"{len(problems):,} could not be {verb}:"
    return Notice(text, problems, undo)


# ---------------------------------------------------------------- errors, words


def _add_errors(app: Flask) -> None:
    @app.errorhandler(HTTPException)
    def explain(error: HTTPException) -> tuple[str, int]:
        page = render_template(
            "error.html.j2", title=error.name, text=error.description
        )
        return page, error.code or 500

    @app.errorhandler(DBAPIError)
    def explain_store(error: DBAPIError) -> tuple[str, int]:
        # What was asked of the database may hold text of a message.
        log.error("The store refused: %s", type(error.orig).__name__)
        text = "The store of messages does not answer. Nothing was changed; try again."
        page = render_template("error.html.j2", title="Try again", text=text)
        return page, HTTPStatus.SERVICE_UNAVAILABLE


def _day(moment: datetime | date) -> str:
    """A day, with its time where it has one: midnight stands for none."""
    words = f"{moment:%a} {moment.day} {moment:%B %Y}"
    if isinstance(moment, datetime) and moment.time() != time(0):
        return f"{words}, {moment:%H:%M} UTC"
    return words


def _moment(moment: datetime) -> str:
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def _words(name: str) -> str:
    return name.replace("_", " ")
