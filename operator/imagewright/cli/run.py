"""imagewright run: the operator."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import click
import structlog

from imagewright.domain.redact import redact
from imagewright.kube.identity import NoAccess
from imagewright.leadership import LostError
from imagewright.main import run as run_operator
from imagewright.settings import Settings, SettingsError, load_settings


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file (YAML).")
def run(config: Path | None) -> None:
    """Run the operator until it is told to stop."""
    try:
        settings = load_settings(config)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    configure_logs(settings)
    try:
        asyncio.run(run_operator(settings))
    except NoAccess as error:
        raise click.ClickException(error.message) from error
    except LostError:
        sys.exit(1)


def configure_logs(settings: Settings) -> None:
    """One line an event, as JSON or for a console, on stderr; libraries' lines go the same way."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redacted,
    ]
    last: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer()
    )
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # A line is one write: kopf's thread and the libraries' handler write to the same file.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


def _redacted(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """No credential reaches the log, whatever a library puts into its text."""
    return {
        key: redact(value) if isinstance(value, str) else value for key, value in event.items()
    }
