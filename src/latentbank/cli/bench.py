"""`latentbank bench`: the commands that measure and show what was measured."""

import typer

from latentbank.cli.bench_results import compare, report

bench_app = typer.Typer(no_args_is_help=True, help="Compare and show benchmark results.")
bench_app.command("compare")(compare)
bench_app.command("report")(report)
