"""Runs the server: uvicorn, its log as JSON lines, one stop for all.

Knows uvicorn and logging.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from typing import Any

from latentbank.errors import InputError
from latentbank.server.app import create_app
from latentbank.server.settings import Settings

__all__ = ["JsonLines", "serve"]


class JsonLines(logging.Formatter):
    """One JSON object for each record; no exception's text, which might quote a document."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        said: Any = record.getMessage()
        try:
            said = json.loads(said)
        except ValueError:
            said = {"message": said}
        line = {"time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"), "level": record.levelname}
        if record.exc_info and record.exc_info[2] is not None:
            trace = record.exc_info[2]
            while trace.tb_next is not None:
                trace = trace.tb_next
            code = trace.tb_frame.f_code
            line["at"] = f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno} {code.co_name}"
        return json.dumps({**line, "logger": record.name, **said}, ensure_ascii=False)


def serve(settings: Settings, started: Callable[[str], None], prepare: Any = None) -> None:
    """Serves until SIGTERM or Ctrl-C. `started` gets the address; `prepare` the application.

    Raises:
        InputError: the address cannot be listened on.
    """
    import uvicorn

    app = create_app(settings)
    if prepare is not None:
        prepare(app)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        raise InputError(
            f"The server cannot listen on {settings.host}:{settings.port}: "
            f"{error.strerror or error}; choose another --port."
        ) from error
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name in ("latentbank", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=settings.stop_seconds,
        h11_max_incomplete_event_size=64 * 1024,
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    started(f"http://{host}:{listening.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[listening])
