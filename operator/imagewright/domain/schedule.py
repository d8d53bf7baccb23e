"""When a schedule's times come: cron's five columns in a time zone, as Debian's cron reads them.

A time that a change of clocks skips comes right after the change; one that comes twice counts
once, unless the schedule names every hour or minute.
"""

from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MINUTE = timedelta(minutes=1)


class InvalidScheduleError(Exception):
    """The schedule has no times; the text is a sentence for its author."""


class Schedule:
    """A cron expression in a time zone. Raises InvalidScheduleError where it never comes."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self._expression = NAMED.get(expression, expression)
        self._zone = zone
        try:
            self.after(datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise InvalidScheduleError(
                f"spec.schedule {expression!r} cannot be read: {error}. Write minute, hour, day "
                "of month, month and day of week, such as '0 3 * * *'."
            ) from error
        except StopIteration as error:
            raise InvalidScheduleError(
                f"spec.schedule {expression!r} never comes: no year has such a day."
            ) from error

    def after(self, moment: datetime) -> datetime:
        """The first of its times after `moment`, in UTC."""
        return next(CronSim(self._expression, moment.astimezone(self._zone))).astimezone(UTC)

    def until(self, moment: datetime) -> datetime:
        """The last of its times up to `moment`, that moment included, in UTC."""
        beyond = (moment + _MINUTE).astimezone(self._zone).replace(second=0, microsecond=0)
        return next(CronSim(self._expression, beyond, reverse=True)).astimezone(UTC)

    def has(self, moment: datetime) -> bool:
        """Whether `moment` is one of its times."""
        return self.after(moment - _MINUTE) == moment.astimezone(UTC)
