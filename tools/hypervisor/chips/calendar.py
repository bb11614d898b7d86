"""Dates as a clock chip has them: any numbers at all, over seconds since 1970."""

from __future__ import annotations

import time
from datetime import date

__all__ = ["civil", "next_match", "seconds_of"]

_DAY = 86400
_EPOCH = date(1970, 1, 1).toordinal()


def civil(seconds: int) -> tuple[int, int, int, int, int, int, int]:
    """Year, month, day, weekday (0 is Sunday), hour, minute and second, in UTC."""
    at = time.gmtime(seconds)
    weekday = (at.tm_wday + 1) % 7
    return at.tm_year, at.tm_mon, at.tm_mday, weekday, at.tm_hour, at.tm_min, at.tm_sec


def seconds_of(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """The inverse; numbers beyond their ranges carry over, as in mktime."""
    more, month0 = divmod(month - 1, 12)
    days = date(year + more, month0 + 1, 1).toordinal() - _EPOCH + day - 1
    return days * _DAY + hour * 3600 + minute * 60 + second


def next_match(after: int, hour: int | None, minute: int | None, second: int | None) -> int | None:
    """The first second later than ``after`` at that time of day; None in a place matches any.

    None when there is no such time of day.
    """
    if (hour or 0) > 23 or (minute or 0) > 59 or (second or 0) > 59:
        return None
    midnight = after // _DAY * _DAY
    now_hour, rest = divmod(after - midnight, 3600)
    now_minute, now_second = divmod(rest, 60)
    # With a part that matches any, the next match is in the present one, the next or the first.
    hours = [hour] if hour is not None else [now_hour, (now_hour + 1) % 24]
    minutes = [minute] if minute is not None else [now_minute, (now_minute + 1) % 60, 0]
    seconds = [second] if second is not None else [(now_second + 1) % 60, 0]
    times = [h * 3600 + m * 60 + s for h in hours for m in minutes for s in seconds]
    later = [midnight + one for one in times if midnight + one > after]
    return min(later) if later else midnight + _DAY + min(times)
