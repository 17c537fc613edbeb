"""What axe-core (https://github.com/dequelabs/axe-core) finds wrong on a page for people who use it in other ways."""

from axe_core_python.base import AXE_SCRIPT

from tests.pipeline_definition.pages.chromium import Browser

# A frame in which nothing may run is not looked into: axe would run there, too.
RUN = """
axe.run({resultTypes: ["violations"], iframes: false}).then(found => found.violations
  .filter(one => ["serious", "critical"].includes(one.impact))
  .flatMap(one => one.nodes.map(node => `${one.id}: ${node.target.join(" ")}: ${node.html.slice(0, 160)}`)))
"""


def serious(tab: Browser) -> list[str]:
    """Return the serious and critical findings."""
    if not tab.evaluate("'axe' in window"):
        tab.evaluate(AXE_SCRIPT)
    found = tab.evaluate(RUN)
    assert isinstance(found, list), "axe did not run"
    return found
