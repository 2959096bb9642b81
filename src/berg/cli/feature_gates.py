"""`--feature-gates`, as every component takes it."""

from __future__ import annotations

import click

HELP = "Features to turn on or off: NAME=true,NAME=false."


def parsed(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, bool]:
    """name → on; what upstream would refuse is refused in its words."""
    if not given:
        return {}
    from berg.machinery.features import FeatureError, FeatureGates, parse

    try:
        found = parse(given)
        FeatureGates(found)
    except FeatureError as e:
        raise click.ClickException(str(e)) from None
    return found


def option() -> click.Option:
    return click.Option(["--feature-gates", "feature_gates"], multiple=True, callback=parsed, help=HELP)


feature_gates = click.option("--feature-gates", "feature_gates", multiple=True, callback=parsed, help=HELP)
