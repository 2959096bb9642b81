"""Writes what upstream's conformance suite said into docs/compatibility.md.

    python tools/compatibility.py REPORT.xml [REPORT.xml …]

The reports are the suite's own (ginkgo's JUnit XML). A spec that stands in several takes the last result; specs that
were not run do not appear. Everything between the two markers in the document is replaced.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "compatibility.md"
BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
_TAGS = re.compile(r"\s*\[[^]]*\]")
"""everything in brackets: groups, labels, requirements"""


def results(reports: list[str]) -> dict[str, dict[str, str]]:
    """Group → spec → `pass` or `fail`."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for report in reports:
        for case in ET.parse(report).getroot().iter("testcase"):
            name = case.get("name", "")
            status = {"passed": "pass", "failed": "fail", "timedout": "fail", "interrupted": "fail", "panicked": "fail"}
            verdict = status.get(case.get("status", ""))
            if verdict is None or "[Conformance]" not in name:
                continue
            group = re.search(r"\[(sig-[a-z-]+)\]", name)
            text = _TAGS.sub("", name).strip()
            found[group[1] if group else "other"][text] = verdict
    return found


def text(found: dict[str, dict[str, str]]) -> str:
    lines = ["| group | pass | fail |", "|---|---|---|"]
    for group in sorted(found):
        verdicts = list(found[group].values())
        lines.append(f"| {group} | {verdicts.count('pass')} | {verdicts.count('fail')} |")
    everything = [v for specs in found.values() for v in specs.values()]
    lines.append(f"| together | {everything.count('pass')} | {everything.count('fail')} |")
    for group in sorted(found):
        lines += ["", f"### {group}", "", "| spec | result |", "|---|---|"]
        order = sorted(found[group].items(), key=lambda item: (item[1] == "pass", item[0]))
        lines += [
            f"| {name.replace('|', chr(92) + '|')} | {'pass' if v == 'pass' else '**fail**'} |" for name, v in order
        ]
    return "\n".join(lines)


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    document = DOCUMENT.read_text()
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text(results(sys.argv[1:]))}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
