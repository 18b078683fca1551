from typing import Annotated

import typer
from attrs import frozen
from typer.testing import CliRunner

from printos_async.cli.options.groups import with_option_groups


@frozen(kw_only=True)
class Place:
    host: Annotated[str, typer.Option(help="The host.")] = "here"


@frozen(kw_only=True)
class PlaceAndPort(Place):
    port: Annotated[int, typer.Option("--port-number", min=1)] = 80


def report(
    name: Annotated[str, typer.Argument()],
    *,
    loud: Annotated[bool, typer.Option("--loud")] = False,
    place: PlaceAndPort,
) -> None:
    """Report what was given."""
    typer.echo(f"{name} {loud} {place}")


def run(*args: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(with_option_groups(report))
    ended = CliRunner().invoke(app, args)
    return ended.exit_code, ended.output


def test_the_fields_of_a_group_are_options_of_the_command() -> None:
    assert run("x", "--port-number", "8", "--host", "there", "--loud") == (
        0,
        "x True PlaceAndPort(host='there', port=8)\n",
    )


def test_options_that_are_not_given_have_the_defaults_of_the_group() -> None:
    assert run("x") == (0, "x False PlaceAndPort(host='here', port=80)\n")


def test_limits_and_help_texts_of_a_group_apply() -> None:
    code, output = run("x", "--port-number", "0")
    assert code == 2
    assert "--port-number" in output
    code, output = run("--help")
    assert code == 0
    assert "The host." in output
    assert "Report what was given." in output
