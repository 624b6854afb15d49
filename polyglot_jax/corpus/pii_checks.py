"""Arithmetic that tells personal numbers from numbers of the same shape.

All functions take strings of ASCII digits.
"""

import datetime
import ipaddress

_RRN_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
_BRN_WEIGHTS = (1, 3, 7, 1, 3, 7, 1, 3, 5)
# Seventh digit of a resident registration number -> first year of the century of birth.
_CENTURIES = dict.fromkeys("1256", 1900) | dict.fromkeys("3478", 2000) | dict.fromkeys("90", 1800)


_LAST_BIRTH = 2030  # 880123-4... would be of 2088: the barcodes of Korean goods begin with 880


def is_date(year: int, month: int, day: int) -> bool:
    """Whether the Gregorian calendar has this day."""
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return True


def is_birth(front: str, century_digit: str) -> bool:
    """Whether six digits are a birth date in the century of the seventh (or of any, if masked)."""
    years = [_CENTURIES[century_digit]] if century_digit != "*" else [1900, 2000]
    yy, month, day = int(front[:2]), int(front[2:4]), int(front[4:])
    return any(
        century + yy <= _LAST_BIRTH and is_date(century + yy, month, day) for century in years
    )


def is_corporation(front: str, century_digit: str) -> bool:
    """Whether 6-7 digits are a corporate registration number rather than a person's.

    Theirs are four digits of the court, two of the kind of company (11: a stock corporation) and
    a serial number that begins with 0 all but always; the court of Seoul is 1101.
    """
    return front == "110111" or (front[4:] == "11" and century_digit == "0")


def has_rrn_digit(digits: str) -> bool:
    """Whether the 13th digit checks (the numbers issued since October 2020 have no check digit)."""
    total = sum(int(d) * w for d, w in zip(digits, _RRN_WEIGHTS, strict=False))
    return (11 - total % 11) % 10 == int(digits[12])


def has_luhn_digit(digits: str) -> bool:
    """Whether the last digit of a card number checks (ISO/IEC 7812-1)."""
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def has_brn_digit(digits: str) -> bool:
    """Whether the 10th digit of a business registration number checks."""
    total = sum(int(d) * w for d, w in zip(digits, _BRN_WEIGHTS, strict=False))
    total += int(digits[8]) * 5 // 10
    return (10 - total % 10) % 10 == int(digits[9])


def starts_with_date(digits: str) -> bool:
    """Whether digits begin with a day of 1900 to 2099 written YYYYMMDD."""
    return digits[:2] in ("19", "20") and is_date(
        int(digits[:4]), int(digits[4:6]), int(digits[6:8])
    )


def is_public_ip(text: str) -> bool:
    """Whether text is an IPv4 or IPv6 address that is routed on the internet."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False
