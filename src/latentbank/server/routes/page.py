"""`/`: the web page, files of one folder without a build step."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

__all__ = ["add_page"]


def add_page(app: FastAPI) -> None:
    """Serves the page and its files."""
    folder = Path(str(resources.files("latentbank.server").joinpath("static")))

    async def index() -> Response:
        return FileResponse(folder / "index.html", headers={"Cache-Control": "no-cache"})

    app.add_api_route("/", index, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=folder), name="static")
