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
from collections.abc import Iterable
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "compatibility.md"
BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
_TAGS = re.compile(r"\s*\[[^]]*\]")
"""everything in brackets: groups, labels, requirements"""


Specs = dict[str, dict[str, str]]
"""group → spec → `pass` or `fail`"""


def results(reports: list[str]) -> tuple[Specs, Specs]:
    """Of conformance, and of the rest."""
    conformance: Specs = defaultdict(dict)
    rest: Specs = defaultdict(dict)
    for report in reports:
        for case in ET.parse(report).getroot().iter("testcase"):
            name = case.get("name", "")
            status = {"passed": "pass", "failed": "fail", "timedout": "fail", "interrupted": "fail", "panicked": "fail"}
            verdict = status.get(case.get("status", ""))
            group = re.search(r"\[(sig-[a-z-]+)\]", name)
            if verdict is None or not name.startswith("[It]"):
                continue
            text = _TAGS.sub("", name).strip()
            found = conformance if "[Conformance]" in name else rest
            found[group[1] if group else "other"][text] = verdict
    return conformance, rest


def text(conformance: Specs, rest: Specs) -> str:
    lines = ["| group | conformance: pass | fail | other specs: pass | fail |", "|---|---|---|---|---|"]
    for group in sorted(conformance.keys() | rest.keys()):
        lines.append(f"| {group} | {_counts([conformance.get(group, {})])} | {_counts([rest.get(group, {})])} |")
    lines.append(f"| together | {_counts(conformance.values())} | {_counts(rest.values())} |")
    for title, found in (("", conformance), (", other specs", rest)):
        for group in sorted(found):
            lines += ["", f"### {group}{title}", "", "| spec | result |", "|---|---|"]
            order = sorted(found[group].items(), key=lambda item: (item[1] == "pass", item[0]))
            lines += [
                f"| {name.replace('|', chr(92) + '|')} | {'pass' if v == 'pass' else '**fail**'} |" for name, v in order
            ]
    return "\n".join(lines)


def _counts(specs: Iterable[dict[str, str]]) -> str:
    verdicts = [v for group in specs for v in group.values()]
    return f"{verdicts.count('pass')} | {verdicts.count('fail')}"


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    document = DOCUMENT.read_text()
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text(*results(sys.argv[1:]))}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
