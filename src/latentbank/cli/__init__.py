"""The command line: one file per command, and one place where every error becomes a sentence.

Importing this package loads neither torch nor transformers; a command imports them when it runs.
"""

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from latentbank.cli import (
    ask,
    delete,
    demo,
    evaluate,
    inspect,
    models,
    train,
    verify,
    write,
)
from latentbank.cli.failures import INTERRUPTED, Failure, explain, report

__all__ = ["app", "main"]


class SafeGroup(TyperGroup):
    """The command group; whatever goes wrong inside ends as one sentence and an exit status."""

    def main(
        self,
        args: Any = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and exit; with `standalone_mode` False, errors are raised as usual."""
        words = sys.argv[1:] if args is None else list(args)
        options = {"prog_name": prog_name, "complete_var": complete_var, **extra}
        if not standalone_mode:
            return super().main(words, standalone_mode=False, **options)
        failure = None
        try:
            status = super().main(words, standalone_mode=False, **options)
            sys.stdout.flush()
            if status == INTERRUPTED:
                failure = Failure("interrupted", INTERRUPTED)
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("LATENTBANK_TRACEBACK"):
                raise
            failure = explain(error)
        if failure is not None:
            report(failure, as_json="--json" in words)
            status = failure.status
        sys.exit(status if isinstance(status, int) else 0)


app = typer.Typer(
    name="latentbank",
    cls=SafeGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A bounded, compressed memory bank for frozen language models.",
)
app.command("write")(write.write)
app.command("ask")(ask.ask)
app.command("inspect")(inspect.inspect)
app.command("verify")(verify.verify)
app.command("delete")(delete.delete)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("models")(models.models)
app.command("demo")(demo.demo)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from latentbank import __version__

        typer.echo(f"latentbank {__version__}")
        raise typer.Exit


def main() -> None:
    """The console script: runs `app` on the process's arguments."""
    app()
