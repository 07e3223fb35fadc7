"""The result page of a contract: one HTML file that needs no network and no script.

Great Expectations' own page asks eleven addresses for its styles and scripts and shows one table;
here the sentences are its own, and all tables of a stage stand on one page.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jinja2 import Environment

if TYPE_CHECKING:
    from components.gates.check import CheckedTable

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}: {{ verdict }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
         color: #1c2128; background: #fff; }
  h1 { font-size: 1.5rem; margin-bottom: .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .25rem; }
  p { margin: .25rem 0 .75rem; color: #57606a; }
  table { border-collapse: collapse; width: 100%; }
  td, th { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
           border-bottom: 1px solid #d8dee4; }
  th { font-weight: 600; color: #57606a; }
  td.observed, th.observed { overflow-wrap: anywhere; width: 35%; }
  small { color: #57606a; font-family: ui-monospace, monospace; display: block; }
  .mark { white-space: nowrap; font-weight: 600; width: 7rem; }
  .passed { color: #1a7f37; } .critical { color: #cf222e; } .warning { color: #9a6700; }
  .info { color: #0969da; }
</style>
</head>
<body>
<h1>{{ title }}: <span class="{{ verdict_class }}">{{ verdict }}</span></h1>
<p>{{ num_passed }} of {{ num }} expectations hold. Great Expectations {{ version }}.</p>
{% for table in tables %}
<h2>{{ table.name }}</h2>
<p>Checked: {{ table.rule }}.</p>
<table>
<tr><th>Verdict</th><th>Expectation</th><th class="observed">Observed</th></tr>
{% for finding in table.findings %}
<tr>
<td class="mark {{ 'passed' if finding.success else finding.severity }}">
{{- '✓ holds' if finding.success else '✗ ' ~ finding.severity }}</td>
<td>{{ finding.sentence }}<small>{{ finding.expectation }}</small></td>
<td class="observed">{{ finding.observed }}</td>
</tr>
{% endfor %}
</table>
{% endfor %}
</body>
</html>
"""


def render_page(title: str, tables: Sequence["CheckedTable"]) -> str:
    """HTML of the verdict; every value is escaped."""
    from great_expectations import __version__

    findings = [finding for table in tables for finding in table.findings]
    failed = [finding for finding in findings if not finding.success]
    worst = next(
        (s for s in ("critical", "warning", "info") if any(f.severity == s for f in failed)), None
    )
    verdict = {
        None: "all expectations hold",
        "critical": "contract broken",
        "warning": "holds, with warnings",
        "info": "holds, with notes",
    }[worst]
    page = Environment(autoescape=True).from_string(_PAGE)
    return page.render(
        title=title,
        tables=tables,
        verdict=verdict,
        verdict_class=worst or "passed",
        num=len(findings),
        num_passed=len(findings) - len(failed),
        version=__version__,
    )
