"""The playground: a page with the sliders that people expect, on this machine, over any endpoint.

Reads endpoints, the bounds of their requests, playground.css and playground.html; writes pictures, as they came with
their provenance, into a folder that it is given. Nothing is sent anywhere but to the endpoints: no analytics, no fonts
or scripts from elsewhere.

    sd-pipeline playground --local --params params/local.yaml
"""

import hashlib
import html
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

# Before gradio is imported: it asks its maker's server for its newest version otherwise.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr

from params.programs import ServeArguments
from pipeline_definition.pages.html import fragment
from pipeline_definition.prompting.endpoint import (
    Answer,
    DrawnPicture,
    Endpoint,
    PromptError,
    draw_patiently,
    is_address,
)

MAX_SEED: Final = 2**32 - 1
MAX_GUIDANCE: Final = 20.0
MAX_HISTORY: Final = 48
# A person is waiting.
PATIENCE_S: Final = 30.0
SAMPLERS: Final[tuple[str, ...]] = get_args(ServeArguments.model_fields["sampler"].annotation)
STYLE: Final = Path(__file__).with_suffix(".css")
PICTURES: Final = Path(__file__).with_suffix(".html")
SHOW: Final = "() => document.querySelector('.tabitem:not([style*=none]) .whole')?.scrollIntoView({block: 'nearest'})"

History = list[tuple[str, str, dict[str, Any]]]
"""File, caption and request of each picture, newest first."""


@dataclass(frozen=True)
class Playground:
    endpoints: Sequence[Endpoint]
    limits: ServeArguments
    """Bounds and defaults of a request: the parameter set's."""
    folder: Path
    samplers: Sequence[str] = SAMPLERS
    examples: Sequence[str] = ()

    def blocks(self) -> gr.Blocks:
        page: gr.Blocks = gr.Blocks(title="sd-pipeline playground", analytics_enabled=False)
        with page:
            gr.Markdown("# Playground")
            history = gr.State([])
            label = "History: click one to have its settings again"
            shown = gr.Gallery(
                label=label, object_fit="contain", height=240, elem_id="history", preview=False, render=False
            )
            with gr.Tabs() as tabs:
                with gr.Tab("Draw", id="draw"):
                    restored = self._tab(("Endpoint",), "Draw", history, shown)
                with gr.Tab("Side by side"):
                    self._tab(("Left", "Right"), "Draw both", history, shown)
            shown.render()  # type: ignore[no-untyped-call]
            shown.select(_restore, [history], [tabs, *restored])
        return page

    def draw(self, sides: Sequence[tuple[str, Mapping[str, Any]]], history: History) -> tuple[Any, ...]:
        """Return each side's pictures as HTML, the refusal if there is one, the longer history and what it shows.

        What an endpoint refuses leaves the pictures and the history as they are.
        """
        named = {endpoint.name: endpoint for endpoint in self.endpoints}
        try:
            if not all(request["prompt"].strip() for _, request in sides):
                raise PromptError("What shall be drawn? Write a prompt first.")
            with ThreadPoolExecutor(len(sides)) as pool:
                answers = list(pool.map(lambda side: draw_patiently(named[side[0]], side[1], PATIENCE_S), sides))
        except PromptError as error:
            close = '<button onclick="this.parentElement.remove()" aria-label="Close">✕</button>'
            refusal = f'<div class="refusal" role="alert">{html.escape(str(error))} {close}</div>'
            return (*[gr.skip()] * len(sides), refusal, history, gr.skip())
        drawn = [self._keep(*side, answer) for side, answer in zip(sides, answers, strict=True)]
        longer = [*(entry for side in drawn for entry in side), *history][:MAX_HISTORY]
        pages = map(_figures, drawn, answers)
        return (*pages, "", longer, [(file, caption) for file, caption, _ in longer])

    def _keep(self, where: str, request: Mapping[str, Any], answer: Answer) -> History:
        """Write the files as they came, with their provenance inside; return what the history holds of them."""
        entries: History = []
        for picture in answer.pictures:
            file = self.folder / f"{hashlib.sha256(picture.content).hexdigest()[:24]}.{picture.form}"
            file.write_bytes(picture.content)
            same = {**request, "seed": picture.seed, "where": where}
            entries.append((str(file), f"{request['prompt']} (seed {picture.seed})", same))
        return entries

    def _tab(self, names: Sequence[str], label: str, history: gr.State, shown: gr.Gallery) -> list[Any]:
        """Make a tab that draws on one side or on two; return the boxes that a click on the history fills."""
        alone, most = len(names) == 1, self.limits.max_images
        with gr.Row() as controls, gr.Column(scale=2):
            prompt = gr.Textbox(label="Prompt", lines=2, placeholder="What to draw")
            negative = gr.Textbox(label="Negative prompt", placeholder="What to lead away from")
            if self.examples:
                gr.Examples(list(self.examples), prompt, label="Examples", examples_per_page=5)
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)
                chance = gr.Checkbox(True, label="A new seed each time")
            with gr.Row():
                width, height = self._side("Width"), self._side("Height")
            long = gr.Checkbox(False, label="Long prompts, and weights: (word:1.2), (word), [word]")
            images = gr.Slider(1, most, 1, step=1, label="Pictures", visible=alone and most > 1)
            button = gr.Button(label, variant="primary", elem_id="draw" if alone else "draw-both")
            refusal = gr.HTML()
        pictures, choices = [], []
        with controls if alone else gr.Row():
            for place, name in enumerate(names):
                with gr.Column(scale=3):
                    pictures.append(gr.HTML(elem_id="pictures" if alone else name.lower()))
                    choices.append([self._endpoint_choice(name, place), *self._sliders()])
        shared = [prompt, negative, seed, chance, width, height, long, images]

        def run(history: History, *values: Any) -> tuple[Any, ...]:
            (prompt, negative, seed, chance, *size), chosen = values[: len(shared)], values[len(shared) :]
            # Both sides start from one noise; a single one leaves the choice to the endpoint.
            start = (None if alone else int.from_bytes(os.urandom(4))) if chance else seed
            count = len(chosen) // len(names)
            split = [chosen[begin : begin + count] for begin in range(0, len(chosen), count)]
            return self.draw([(of[0], _request(prompt, negative, start, size, *of[1:])) for of in split], history)

        inputs = [history, *shared, *(box for side in choices for box in side)]
        outputs = [*pictures, refusal, history, shown]
        drawn = gr.on([button.click, prompt.submit], run, inputs, outputs, api_name=label.lower().replace(" ", "_"))
        drawn.then(None, js=SHOW)
        return [prompt, negative, seed, chance, width, height, long, *choices[0]]

    def _endpoint_choice(self, label: str, place: int = 0) -> gr.Dropdown:
        names = [endpoint.name for endpoint in self.endpoints]
        return gr.Dropdown(names, value=names[min(place, len(names) - 1)], label=label, visible=len(names) > 1)

    def _sliders(self) -> tuple[gr.Slider, gr.Slider, gr.Dropdown, gr.Textbox, gr.Slider]:
        limits = self.limits
        guidance = gr.Slider(0, MAX_GUIDANCE, limits.guidance_scale, step=0.5, label="Guidance scale")
        steps = gr.Slider(1, limits.max_inference_steps, limits.inference_steps, step=1, label="Steps")
        sampler = gr.Dropdown(list(self.samplers), value=limits.sampler, label="Sampler")
        adapter = gr.Textbox(limits.adapter, label="Adapter", placeholder="A LoRA by its name; empty: the default")
        return guidance, steps, sampler, adapter, gr.Slider(0, 2, 1, step=0.05, label="Adapter scale")

    def _side(self, label: str) -> gr.Slider:
        most, value = self.limits.max_size_px, self.limits.default_size_px
        smallest, fixed = min(64, most), most <= 64
        return gr.Slider(smallest, most + 8 * fixed, value, step=8, label=label, visible=not fixed)


def launch(playground: Playground, host: str, port: int, open_browser: bool, block: bool = True) -> tuple[Any, str]:
    """Serve the page; return gradio's application and the page's address.

    It listens on this machine alone unless `host` says otherwise, and never through a tunnel.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(playground.folder / "shown")
    page = playground.blocks()
    app, url, _ = page.queue(default_concurrency_limit=8).launch(
        server_name=host,
        server_port=port or None,
        inbrowser=open_browser,
        share=False,
        prevent_thread_lock=not block,
        quiet=not block,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        theme=gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
        css_paths=STYLE,
        allowed_paths=[str(playground.folder)],
    )
    return app, url


def _request(prompt: str, negative: str, seed: float | None, size: Sequence[float], *sliders: Any) -> dict[str, Any]:
    guidance, steps, sampler, adapter, scale = sliders
    chosen = {"adapter": adapter.strip(), "adapter_scale": float(scale)} if adapter.strip() else {}
    width, height, long, images = map(int, size)
    return {
        "prompt": prompt,
        "negative_prompt": negative or None,
        "seed": None if seed is None else int(seed),
        "guidance_scale": float(guidance),
        "steps": int(steps),
        "sampler": sampler,
        **chosen,
        **{"width": width, "height": height, "num_images": images},
        "long_prompts": bool(long) or None,
        "format": "png",
    }


def _restore(history: History, event: gr.SelectData) -> tuple[Any, ...]:
    """Return the settings of the picture that was clicked, with its own seed, and open the tab that shows them."""
    request = {"adapter": "", "adapter_scale": 1.0, **history[event.index][2], "a_new_seed": False}
    what = ("prompt", "negative_prompt", "seed", "a_new_seed", "width", "height", "long_prompts", "where")
    how = ("guidance_scale", "steps", "sampler", "adapter", "adapter_scale")
    return gr.Tabs(selected="draw"), *(request[name] for name in (*what, *how))


def _figures(entries: History, answer: Answer) -> str:
    """Return pictures that fit into the window, each with what it was drawn with and the code that draws it."""
    pictures = [
        (file, caption, _about(answer, picture), _asked(**request))
        for (file, caption, request), picture in zip(entries, answer.pictures, strict=True)
    ]
    return fragment(PICTURES, pictures=pictures)


def _asked(where: str, **request: Any) -> dict[str, Any]:
    """Return what code needs that has an endpoint, by its name or its address, draw one picture again."""
    body = json.dumps({name: value for name, value in request.items() if value is not None} | {"num_images": 1})
    if is_address(where):
        return {"body": body, "url": f"{where}/invocations", "name": "your-endpoint", "is_signed": False}
    name = where.partition("/")[0]
    url = f"https://runtime.sagemaker.$AWS_REGION.amazonaws.com/endpoints/{name}/invocations"
    return {"body": body, "url": url, "name": name, "is_signed": True}


def _about(answer: Answer, picture: DrawnPicture) -> str:
    settings = answer.settings
    how = [f"{settings['steps']} steps of {settings['sampler']}", f"guidance {settings['guidance_scale']:g}"]
    if adapter := settings.get("adapter"):
        how.append(f"adapter {adapter} at {settings['adapter_scale']:g}")
    how.append(f"{settings['width']} x {settings['height']}")
    notes = [f"seed {picture.seed}", *how, f"{answer.elapsed_s:.1f} s", f"model {answer.model}", *picture.notes]
    return " · ".join(notes)
