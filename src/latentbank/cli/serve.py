"""`latentbank serve` and `latentbank mcp`: a bank for applications and for agents.

Need the extra `serve` or `mcp`; everything heavy is imported when the command runs.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.cli.common import notice, print_json, quiet_libraries, wait_passively
from latentbank.cli.options import Json
from latentbank.errors import BankError, InputError

if TYPE_CHECKING:
    from latentbank.server.settings import Settings

BankFiles = Annotated[
    list[str] | None,
    typer.Option("--bank", "-b", metavar="FILE", help="Serve this bank, too; may be repeated."),
]
Config = Annotated[
    str | None, typer.Option(metavar="FILE", help="Settings, limits and tenants as TOML.")
]
Data = Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of the banks.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")]
Adapter = Annotated[
    str | None, typer.Option("--method", "-m", help="Method or adapter of new banks.")
]
BackboneName = Annotated[str | None, typer.Option("--backbone", help="Model of new banks.")]
DeviceName = Annotated[str | None, typer.Option("--device", help="Where the model runs.")]
DtypeName = Annotated[str | None, typer.Option("--dtype", help="auto, float32, bfloat16, float16.")]
EngineName = Annotated[str | None, typer.Option("--engine", help="auto, torch or openvino.")]
QualityName = Annotated[
    str | None, typer.Option("--quality", help="fast or best, where a question does not say.")
]


def serve(
    bank: BankFiles = None,
    config: Config = None,
    data: Data = None,
    host: Host = None,
    port: Port = None,
    method: Adapter = None,
    backbone: BackboneName = None,
    device: DeviceName = None,
    dtype: DtypeName = None,
    engine: EngineName = None,
    quality: QualityName = None,
    new_token: Annotated[
        str | None,
        typer.Option(metavar="TENANT", help="Make a token for a tenant, print it, and end."),
    ] = None,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray", help="Serve the banks, or a folder of them, as parts of one, with Ray Serve."
        ),
    ] = False,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that answer, with --ray.")] = 1,
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster, with --ray.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Serve banks: OpenAI-compatible endpoints, documents, a web page, MCP at /mcp.

    With --ray the banks are parts of one, such as `ingest --keep-parts` leaves. Each finds
    documents, and --replicas processes answer at /v1/chat/completions; nothing is written.
    """
    if new_token is not None:
        _print_token(new_token, json_output)
        return
    if ray:
        _serve_parts(bank, host, port, replicas, address, quality, json_output)
        return
    settings = _settings(
        bank,
        config,
        data=data,
        host=host,
        port=port,
        adapter=method,
        backbone=backbone,
        device=device,
        dtype=dtype,
        engine=engine,
        quality=quality,
    )
    _need("serve", "fastapi", "uvicorn", "prometheus_client")
    _prepare()
    from latentbank.server.run import serve as run

    def started(address: str) -> None:
        if json_output:
            print_json({"address": address}, indent=None)
        notice(f"latentbank serves {address} (page, /v1, /mcp); Ctrl-C stops it")

    run(settings, started, _mounted_mcp)


def _serve_parts(
    banks: list[str] | None,
    host: str | None,
    port: int | None,
    replicas: int,
    address: str | None,
    quality: str | None,
    json_output: bool,
) -> None:
    if not banks:
        raise InputError("serve --ray needs --bank: the parts, or the folder that they are in.")
    _need("serve", "fastapi")
    quiet_libraries()
    from latentbank.server.sharded import QUALITY, serve_parts

    def started(place: str) -> None:
        if json_output:
            print_json({"address": place}, indent=None)
        notice(f"latentbank serves {place} (/v1/chat/completions); Ctrl-C stops it")

    where = host or "127.0.0.1", 8000 if port is None else port
    serve_parts(banks, *where, replicas, started, address=address, quality=quality or QUALITY)


def mcp(
    bank: BankFiles = None,
    config: Config = None,
    data: Data = None,
    method: Adapter = None,
    backbone: BackboneName = None,
    device: DeviceName = None,
    dtype: DtypeName = None,
    engine: EngineName = None,
    budget: Annotated[
        str, typer.Option(help="Budget of the bank, where --bank names one to make.")
    ] = "8MiB",
    json_output: Annotated[
        bool, typer.Option("--json", help="Say errors as JSON; MCP is JSON in any case.")
    ] = False,
) -> None:
    """Serve banks to an agent or editor by MCP over standard input and output."""
    _need("mcp", "mcp")
    missing = [file for file in bank or () if not Path(file).exists()]
    found = [file for file in bank or () if Path(file).exists()]
    settings = _settings(
        [*found, *missing],
        config,
        missing_too=True,
        data=data,
        adapter=method,
        backbone=backbone,
        device=device,
        dtype=dtype,
        engine=engine,
    )
    _prepare()
    from latentbank.server.mcp import run_stdio

    run_stdio(settings, {Path(file).absolute(): budget for file in missing})


def _settings(
    banks: list[str] | None, config: str | None, missing_too: bool = False, **changes: Any
) -> Settings:
    from latentbank.server.settings import load_settings

    mounted = []
    for file in banks or ():
        if not Path(file).exists() and not missing_too:
            raise BankError(f"There is no bank at {file}.")
        mounted.append((Path(file).name.removesuffix(".bank"), file))
    if len({name for name, _ in mounted}) < len(mounted):
        raise InputError("Two banks have the same name; rename one of the files.")
    return load_settings(config, {**changes, "mounted": tuple(mounted)})


def _need(extra: str, *modules: str) -> None:
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            raise InputError(
                f"This command needs {module}, which is not installed; install it with: "
                f"pip install 'latentbank[{extra}]'"
            )


def _prepare() -> None:
    quiet_libraries()
    wait_passively()  # all cores: a server's start does not tell how busy they will be


def _mounted_mcp(app: Any) -> None:
    """Adds MCP at /mcp where its library is installed."""
    from importlib.util import find_spec

    if find_spec("mcp") is not None:
        from latentbank.server.mcp import mount

        mount(app)


def _print_token(tenant: str, as_json: bool) -> None:
    from latentbank.server.settings import hash_token

    token = f"lb_{secrets.token_urlsafe(32)}"
    if as_json:
        print_json({"tenant": tenant, "token": token, "hash": hash_token(token)})
        return
    typer.echo(f"token, shown this once: {token}")
    typer.echo("for the file of settings:")
    typer.echo(f'[tenants.{tenant}]\ntokens = ["{hash_token(token)}"]')
