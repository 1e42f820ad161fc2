"""The command line: one file per command, and one place where every error becomes a sentence.

Importing this package loads neither torch nor transformers; a command imports them when it runs.
"""

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from latentbank.cli.ask import ask as ask_command
from latentbank.cli.bank_copy import export as export_command
from latentbank.cli.bank_copy import import_ as import_command
from latentbank.cli.bank_copy import snapshot as snapshot_command
from latentbank.cli.bank_join import diff as diff_command
from latentbank.cli.bank_join import merge as merge_command
from latentbank.cli.bank_join import split as split_command
from latentbank.cli.bank_size import compact as compact_command
from latentbank.cli.bank_size import rebudget as rebudget_command
from latentbank.cli.bank_size import repair as repair_command
from latentbank.cli.bench import bench_app
from latentbank.cli.chat import chat as chat_command
from latentbank.cli.common import wait_passively
from latentbank.cli.compare import compare as compare_command
from latentbank.cli.delete import delete as delete_command
from latentbank.cli.demo import demo as demo_command
from latentbank.cli.evaluate import evaluate as evaluate_command
from latentbank.cli.evolve import evolve as evolve_command
from latentbank.cli.failures import INTERRUPTED, Failure, damage_as_lines, explain, report
from latentbank.cli.ingest import ingest as ingest_command
from latentbank.cli.inspect import inspect as inspect_command
from latentbank.cli.kb import kb_app
from latentbank.cli.migrate import migrate as migrate_command
from latentbank.cli.models import models as models_command
from latentbank.cli.serve import mcp as mcp_command
from latentbank.cli.serve import serve as serve_command
from latentbank.cli.train import train as train_command
from latentbank.cli.verify import verify as verify_command
from latentbank.cli.watch import watch as watch_command
from latentbank.cli.write import write as write_command

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
            with damage_as_lines():
                status = super().main(words, standalone_mode=False, **options)
            sys.stdout.flush()
            if status == INTERRUPTED:
                failure = Failure("interrupted", INTERRUPTED)
        except SystemExit as error:  # typer's answer to a closed pipe
            if not isinstance(error.__context__, OSError):
                raise
            failure = explain(error.__context__)
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
app.command("write")(write_command)
app.command("ingest")(ingest_command)
app.command("watch")(watch_command)
app.command("ask")(ask_command)
app.command("chat")(chat_command)
app.command("inspect")(inspect_command)
app.command("verify")(verify_command)
app.command("delete")(delete_command)
app.command("snapshot")(snapshot_command)
app.command("export")(export_command)
app.command("import")(import_command)
app.command("merge")(merge_command)
app.command("split")(split_command)
app.command("diff")(diff_command)
app.command("migrate")(migrate_command)
app.command("compact")(compact_command)
app.command("rebudget")(rebudget_command)
app.command("repair")(repair_command)
app.command("train")(train_command)
app.command("eval")(evaluate_command)
app.add_typer(bench_app, name="bench")
app.add_typer(kb_app, name="kb")
app.command("evolve")(evolve_command)
app.command("serve")(serve_command)
app.command("mcp")(mcp_command)
app.command("models")(models_command)
app.command("demo")(demo_command)
app.command("compare")(compare_command)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from latentbank import __version__

        typer.echo(f"latentbank {__version__}")
        raise typer.Exit
    wait_passively()


def main() -> None:
    """The console script: runs `app` on the process's arguments."""
    app()
