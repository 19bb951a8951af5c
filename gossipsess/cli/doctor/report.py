# Report: the findings, for people or for programs.
#
# Not here: what they mean.

import json
import shutil
import textwrap
from dataclasses import asdict, dataclass
from typing import Final

from gossipsess.cli.doctor.finding import Finding, reasons

REASONS_MAX: Final = 3
_MARKS: Final = {"ok": "ok", "info": "info", "warn": "warn", "fail": "FAIL"}
_INDENT: Final = 16
_WIDTH_MAX: Final = 118


@dataclass
class Report:
    """All that was found."""

    findings: list[Finding]
    cluster: str = ""
    key: str = ""
    """The id of the key, in hexadecimal."""
    refused: bool = False
    """The settings are refused, so nothing else was looked at."""

    @property
    def exit_code(self) -> int:
        """0: nothing keeps nodes apart; 1: something does; 2: the settings are refused."""
        return 2 if self.refused else int(any(one.verdict == "fail" for one in self.findings))


def print_report(report: Report, *, as_json: bool) -> int:
    """Print it, and return the exit code."""
    print(_json(report) if as_json else _text(report))
    return report.exit_code


def _json(report: Report) -> str:
    return json.dumps(
        {
            "well": report.exit_code == 0,
            "cluster": report.cluster,
            "key": report.key,
            "reasons": [asdict(one) for one in reasons(report.findings)],
            "findings": [asdict(one) for one in report.findings],
        }
    )


def _text(report: Report) -> str:
    width = min(shutil.get_terminal_size((_WIDTH_MAX, 24)).columns, _WIDTH_MAX)
    lines = [_wrapped(f"{_MARKS[one.verdict]:<5} {one.check:<9} ", one.text, width) for one in report.findings]
    wrong = reasons(report.findings)
    if not wrong:
        return "\n".join([*lines, "", "Nothing keeps nodes apart."])
    shown = wrong[:REASONS_MAX]
    titles = ["Most likely:", "Also:", "Also:"]
    if report.exit_code == 0:
        titles[0] = "All well, but:"
    for title, one in zip(titles, shown, strict=False):
        lines += ["", _wrapped(f"{title:<15} ", one.text, width)]
        if one.advice:
            lines.append(_wrapped(f"{'  what to do:':<15} ", one.advice, width))
    if wrong[REASONS_MAX:]:
        lines.append(f"{'':<{_INDENT}}... and {len(wrong) - REASONS_MAX} more above")
    return "\n".join(lines)


def _wrapped(head: str, text: str, width: int) -> str:
    return textwrap.fill(text, max(width, 2 * _INDENT), initial_indent=head, subsequent_indent=" " * _INDENT)
