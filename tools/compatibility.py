"""Writes what upstream's e2e suite said into docs/compatibility.md.

    python tools/compatibility.py REPORT.xml [REPORT.xml …]

The reports are the suite's own (ginkgo's JUnit XML). A spec that stands in several takes the last result; specs that
were not run do not appear, and those that were run and skipped themselves stand at the end, with the reason that they
gave. Specs of features that upstream has off by default are told apart, with the gates that they name. Everything
between the two markers in the document is replaced.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "compatibility.md"
BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
_TAGS = re.compile(r"\s*\[[^]]*\]")
"""everything in brackets: groups, labels, requirements"""
_GATES = re.compile(r"\[FeatureGate:(\w+)\]")
_FEATURES = {"CBOR": "CBORServingAndStorage", "StorageVersionAPI": "StorageVersionAPI"}
"""features whose specs name no gate, and what they need"""
_VERDICTS = {"passed": "pass", "failed": "fail", "timedout": "fail", "interrupted": "fail", "panicked": "fail"}
_REASON = 160


Specs = dict[str, dict[str, str]]
"""group → spec → `pass` or `fail`, or why it was skipped"""


def _specs() -> Specs:
    return defaultdict(dict)


@dataclass
class Results:
    conformance: Specs = field(default_factory=_specs)
    rest: Specs = field(default_factory=_specs)
    gated: Specs = field(default_factory=_specs)
    skipped: Specs = field(default_factory=_specs)
    gates: dict[str, str] = field(default_factory=dict)
    """spec → the gates it needs, for those in `gated`"""


def gates_of(name: str) -> list[str]:
    """The gates, off by default upstream, that a spec needs, from its full name."""
    found = [gate for feature, gate in _FEATURES.items() if f"[Feature:{feature}]" in name]
    if "[Feature:OffByDefault]" in name:
        found += dict.fromkeys(_GATES.findall(name))
    return found


def results(reports: list[str]) -> Results:
    all_ = Results()
    for report in reports:
        for case in ET.parse(report).getroot().iter("testcase"):
            name = case.get("name", "")
            if not name.startswith("[It]"):
                continue
            found = re.search(r"\[(sig-[a-z-]+)\]", name)
            group, text = found[1] if found else "other", _TAGS.sub("", name).strip()
            verdict = _VERDICTS.get(case.get("status", ""))
            if verdict is None:
                if reason := _why_skipped(case):
                    all_.skipped[group][text] = reason
                continue
            gates = gates_of(name)
            kind = all_.conformance if "[Conformance]" in name else all_.gated if gates else all_.rest
            kind[group][text] = verdict
            if gates:
                all_.gates[text] = ", ".join(gates)
    for group, specs in all_.skipped.items():  # another run may have had what was lacking
        for kind in (all_.conformance, all_.gated, all_.rest):
            for text in kind.get(group, ()):
                specs.pop(text, None)
    return all_


def _why_skipped(case: ET.Element) -> str:
    """Empty for specs that nobody asked for."""
    element = case.find("skipped")
    message = (element.get("message") or "") if element is not None else ""
    reason = message.removeprefix("skipped").removeprefix(" - ").splitlines()
    text = reason[0] if reason else ""
    return text if len(text) <= _REASON else f"{text[:_REASON]}…"


def text(all_: Results) -> str:
    kinds = (all_.conformance, all_.rest, all_.gated)
    head = "| group | conformance: pass | fail | other specs: pass | fail | behind gates: pass | fail |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for group in sorted({g for kind in kinds for g in kind}):
        lines.append(f"| {group} | {' | '.join(_counts([kind.get(group, {})]) for kind in kinds)} |")
    lines.append(f"| together | {' | '.join(_counts(kind.values()) for kind in kinds)} |")
    for title, kind in (("", all_.conformance), (", other specs", all_.rest)):
        for group in sorted(kind):
            lines += ["", f"### {group}{title}", "", "| spec | result |", "|---|---|"]
            lines += [f"| {_cell(name)} | {_shown(v)} |" for name, v in _ordered(kind[group])]
    for group in sorted(all_.gated):
        lines += ["", f"### {group}, behind feature gates", "", "| spec | gates | result |", "|---|---|---|"]
        lines += [f"| {_cell(name)} | {all_.gates[name]} | {_shown(v)} |" for name, v in _ordered(all_.gated[group])]
    if any(all_.skipped.values()):
        lines += ["", "### Skipped by themselves", "", "| group | spec | reason |", "|---|---|---|"]
        for group in sorted(all_.skipped):
            lines += [f"| {group} | {_cell(n)} | {_cell(why)} |" for n, why in sorted(all_.skipped[group].items())]
    return "\n".join(lines)


def _ordered(specs: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(specs.items(), key=lambda item: (item[1] == "pass", item[0]))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _shown(verdict: str) -> str:
    return "pass" if verdict == "pass" else "**fail**"


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
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text(results(sys.argv[1:]))}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
