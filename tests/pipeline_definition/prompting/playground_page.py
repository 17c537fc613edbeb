"""The playground's page as a person uses it, through a real browser."""

import base64
import json
from dataclasses import dataclass
from types import SimpleNamespace

from tests.pipeline_definition.pages.chromium import Browser

# Gradio's boxes listen to input events; a value that is set by script must go past the framework's own setter.
TYPE = """
(() => {
  const box = [...document.querySelectorAll("label")].find(
    label => label.offsetParent && label.innerText.trim().startsWith(%s)).querySelector("textarea, input");
  const kind = box.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
  Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(box, %s);
  for (const event of ["input", "change", "blur"]) box.dispatchEvent(new Event(event, {bubbles: true}));
  return true;
})()
"""
HIDDEN = """
[...document.querySelectorAll(%s)].map(image => {
  const whole = image.getBoundingClientRect();
  let [left, top, right, bottom] = [0, 0, innerWidth, innerHeight];
  for (let frame = image.parentElement; frame; frame = frame.parentElement)
    if (getComputedStyle(frame).overflow !== "visible" && ![document.body, document.documentElement].includes(frame)) {
      const box = frame.getBoundingClientRect();
      [left, top] = [Math.max(left, box.left), Math.max(top, box.top)];
      [right, bottom] = [Math.min(right, box.right), Math.min(bottom, box.bottom)];
    }
  const seen = Math.max(0, Math.min(whole.right, right) - Math.max(whole.left, left))
             * Math.max(0, Math.min(whole.bottom, bottom) - Math.max(whole.top, top));
  return Math.round(1000 * (1 - seen / (whole.width * whole.height))) / 10;
})
"""
FETCH = """
fetch(%s).then(answer => answer.arrayBuffer()).then(
  bytes => btoa(String.fromCharCode(...new Uint8Array(bytes))))
"""


@dataclass(frozen=True)
class PlaygroundPage:
    """One page that is open."""

    tab: Browser
    url: str

    def open(self) -> None:
        self.tab.open(self.url, 1280)
        self.tab.wait_for("document.querySelector('#draw') !== null")

    def type(self, label: str, text: str) -> None:
        self.tab.wait_for(TYPE % (json.dumps(label), json.dumps(text)))

    def number(self, label: str, value: int) -> None:
        """Set the number beside a slider."""
        box = f"document.querySelector('input[aria-label=\"number input for {label}\"]')"
        self.tab.wait_for(f"""(() => {{ const box = {box};
            Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(box, "{value}");
            for (const event of ["input", "change", "blur"]) box.dispatchEvent(new Event(event, {{bubbles: true}}));
            return true; }})()""")

    def hidden(self, selector: str) -> list[float]:
        """Return the share of each picture's area that lies outside of the window, or of what frames it, in percent."""
        return list(self.tab.evaluate(HIDDEN % json.dumps(f"{selector} img")))

    def click(self, selector: str) -> None:
        self.tab.wait_for(f"(() => {{ document.querySelector({selector!r}).click(); return true; }})()")

    def click_text(self, selector: str, text: str) -> None:
        """Click the first of the elements that says so."""
        found = f"[...document.querySelectorAll({selector!r})].find(one => one.innerText.includes({text!r}))"
        self.tab.wait_for(f"(() => {{ {found}.click(); return true; }})()")

    def pictures(self, selector: str, count: int = 1) -> list[bytes]:
        """Wait for so many pictures that are fully there; return their files."""
        images = f"[...document.querySelectorAll('{selector} img')].filter(i => i.complete && i.naturalWidth > 0)"
        self.tab.wait_for(f"{images}.length >= {count}")
        addresses = self.tab.evaluate(f"{images}.map(image => image.src)")
        return [base64.b64decode(self.tab.evaluate(FETCH % json.dumps(address))) for address in addresses]

    def box(self, selector: str) -> SimpleNamespace:
        """Return the left, right, top and bottom of an element."""
        return SimpleNamespace(
            **self.tab.evaluate(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        )

    def text(self, selector: str) -> str:
        return str(self.tab.wait_for(f"document.querySelector({selector!r})?.innerText"))
