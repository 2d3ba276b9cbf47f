"""A stand-in for Gemini's REST interface, spoken to by the real client over HTTP.

`script` decides what each request gets; every body and every paid answer is kept.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DATA = ("<data>", "</data>")


@dataclass
class Request:
    """One request as it came in."""

    model: str
    raw: bytes
    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    number: int

    @property
    def prompt(self) -> str:
        return self.body["contents"][0]["parts"][0]["text"]

    @property
    def system(self) -> str:
        return self.body["systemInstruction"]["parts"][0]["text"]

    @property
    def data(self) -> dict[str, Any]:
        """What the prompt says about the student."""
        return json.loads(self.prompt.split(DATA[0])[1].split(DATA[1])[0])


@dataclass
class Reply:
    """What the server does with a request; `payload` None drops the connection."""

    payload: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


Script = Callable[[Request], Reply]


def good(request: Request, **changes: Any) -> Reply:
    """A message that passes every check, in the language that was asked for."""
    data, system = request.data, request.system
    days = data["days_left"]
    name = "{first_name}, " if "{first_name}, exactly so" in system else ""
    if "Norwegian" in system:
        when = f"Det er {days} dager til prøven." if days is not None else ""
        answer = {
            "subject": "En liten start",
            "opening": f"Hei {name}vi ville høre hvordan det går.",
            "observation": f"{when} Du kan fortsatt ta det igjen, så kom i gang.",
            "next_steps": ["Se på det du har lest, i dag."],
            "closing": "Svar oss hvis du vil ha hjelp.",
        }
    elif "Spanish" in system:
        when = f"Quedan {days} días para el examen." if days is not None else ""
        answer = {
            "subject": "Un pequeño comienzo",
            "opening": f"Hola, {name}queríamos saber cómo te va.",
            "observation": f"{when} Todavía puedes ponerte al día con nosotros.",
            "next_steps": ["Repasa hoy lo que has leído."],
            "closing": "Responde si quieres ayuda.",
        }
    else:
        when = f"There are {days} days left until the work is due."
        answer = {
            "subject": "A small start",
            "opening": f"Hi {name}we wanted to see how you are.",
            "observation": f"{when if days is not None else ''} You can catch up.",
            "next_steps": ["Look at what you have read, today."],
            "closing": "Reply if you want a hand.",
        }
    if data["weak_topics"]:
        answer["next_steps"][0] = f"{data['weak_topics'][0]}: {answer['next_steps'][0]}"
    return said(json.dumps(answer | changes))


def said(text: str, finish: str = "STOP") -> Reply:
    """A candidate with this text."""
    return Reply(
        {
            "candidates": [
                {
                    "content": {"role": "model", "parts": [{"text": text}]},
                    "finishReason": finish,
                }
            ],
            "usageMetadata": {
                "promptTokenCount": 1000,
                "candidatesTokenCount": 100,
                "totalTokenCount": 1100,
            },
        }
    )


def blocked() -> Reply:
    """The prompt was refused."""
    return Reply(
        {
            "promptFeedback": {"blockReason": "SAFETY"},
            "usageMetadata": {"promptTokenCount": 1000, "totalTokenCount": 1000},
        }
    )


def failed(status: int, wait: str | None = None, **headers: str) -> Reply:
    """An error as Google words it; `wait` is RetryInfo's delay, such as `0.5s`."""
    details = []
    if wait:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        details.append({"@type": kind, "retryDelay": wait})
    error = {"code": status, "message": "no", "status": "NO", "details": details}
    return Reply(
        {"error": error}, status, {k.replace("_", "-"): v for k, v in headers.items()}
    )


class GeminiServer:
    """Listens on a port of its own while it is open."""

    def __init__(self) -> None:
        self.script: Script = good
        self.requests: list[Request] = []
        self.paid = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """A client that was killed hangs up; that is no news."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["content-length"]))
        model = handler.path.split("/models/")[1].split(":")[0]
        with self._lock:
            request = Request(
                model,
                raw,
                json.loads(raw),
                {k.lower(): v for k, v in handler.headers.items()},
                time.monotonic(),
                len(self.requests),
            )
            self.requests.append(request)
        reply = self.script(request)
        time.sleep(reply.seconds)
        if reply.payload is None:
            handler.close_connection = True
            return
        if reply.status == 200:
            with self._lock:
                self.paid += 1
        body = json.dumps(reply.payload).encode()
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
