"""The playground: a page with the sliders that people expect, on this machine, over any endpoint.

Reads endpoints and the bounds of their requests; writes pictures, as they came with their provenance, into a folder
that it is given. Nothing is sent anywhere but to the endpoints: no analytics, no fonts or scripts from elsewhere.

    sd-pipeline playground --local --params params/local.yaml
"""

from __future__ import annotations

import hashlib
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
from pipeline_definition.prompting.endpoint import Answer, Endpoint, PromptError, draw_patiently

MAX_SEED: Final = 2**32 - 1
MAX_GUIDANCE: Final = 20.0
MAX_HISTORY: Final = 48
# A person is waiting.
PATIENCE_S: Final = 30.0
SAMPLERS: Final[tuple[str, ...]] = get_args(ServeArguments.model_fields["sampler"].annotation)
SYSTEM_FONTS: Final = ("system-ui", "sans-serif")
MONO_FONTS: Final = ("ui-monospace", "monospace")
# gradio lets a gallery's label cover its pictures, its frame cut them off, and a single one fill the width.
WHOLE_PICTURES: Final = """
#pictures .grid-wrap { max-height: none; }
#pictures .grid-container, #history .grid-container { padding-top: 32px; }
#history .grid-container { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)) !important; }
"""

History = list[tuple[str, str, dict[str, Any]]]
"""File, caption and request of each picture, newest first."""


@dataclass(frozen=True)
class Playground:
    """The page's parts and what they do."""

    endpoints: Sequence[Endpoint]
    limits: ServeArguments
    """Bounds and defaults of a request: the parameter set's."""
    folder: Path
    samplers: Sequence[str] = SAMPLERS

    def blocks(self) -> gr.Blocks:
        """Return the page."""
        page: gr.Blocks = gr.Blocks(title="sd-pipeline playground", analytics_enabled=False)
        with page:
            gr.Markdown("# Playground")
            history = gr.State([])
            with gr.Tab("Draw"):
                self._draw_tab(history)
            with gr.Tab("Side by side"):
                self._side_by_side_tab()
        return page

    def draw(self, where: str, request: Mapping[str, Any], history: History) -> tuple[list[str], str, History]:
        """Return the pictures' files, a line about them and the longer history.

        Raises gr.Error, which the page shows, where the endpoint refuses.
        """
        answer = self._ask(where, request)
        files = self._keep(answer)
        drawn = [
            (file, f"{request['prompt']} (seed {picture.seed})", {**request, "seed": picture.seed, "where": where})
            for file, picture in zip(files, answer.pictures, strict=True)
        ]
        return files, _about(answer), [*drawn, *history][:MAX_HISTORY]

    def compare(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, str]]:
        """Ask for one picture from each side at once; return each file with a line about it."""
        with ThreadPoolExecutor(len(requests)) as pool:
            answers = list(pool.map(lambda side: self._ask(*side), requests))
        return [(self._keep(answer)[0], _about(answer)) for answer in answers]

    def _ask(self, where: str, request: Mapping[str, Any]) -> Answer:
        endpoint = next(endpoint for endpoint in self.endpoints if endpoint.name == where)
        try:
            return draw_patiently(endpoint, request, PATIENCE_S)
        except PromptError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def _keep(self, answer: Answer) -> list[str]:
        """Write the files as they came, with their provenance inside."""
        names = [f"{hashlib.sha256(picture.content).hexdigest()[:24]}.{picture.form}" for picture in answer.pictures]
        for name, picture in zip(names, answer.pictures, strict=True):
            (self.folder / name).write_bytes(picture.content)
        return [str(self.folder / name) for name in names]

    def _draw_tab(self, history: gr.State) -> None:
        with gr.Row():
            with gr.Column(scale=2):
                prompt, negative = _prompt_boxes()
                where = self._endpoint_choice("Endpoint")
                sliders = self._sliders()
                with gr.Row():
                    width, height = self._side("Width"), self._side("Height")
                most = self.limits.max_images
                images = gr.Slider(1, most, 1, step=1, label="Pictures", visible=most > 1)
                seed, chance = _seed_boxes()
                button = gr.Button("Draw", variant="primary", elem_id="draw")
            with gr.Column(scale=3):
                gallery = gr.Gallery(label="Pictures", elem_id="pictures", object_fit="contain", height="auto")
                about = gr.Markdown(elem_id="about")
        label = "History: click one to have its settings again"
        shown = gr.Gallery(label=label, object_fit="contain", height=240, elem_id="history", preview=False)
        restored = [where, prompt, negative, seed, chance, *sliders, width, height]

        def run(
            where: str, prompt: str, negative: str, seed: float, chance: bool, guidance: float, steps: int,
            sampler: str, adapter: str, adapter_scale: float, width: int, height: int, images: int, history: History,
        ) -> tuple[list[str], str, History, list[tuple[str, str]]]:  # fmt: skip
            chosen = None if chance else seed
            request = _request(prompt, negative, chosen, guidance, steps, sampler, adapter, adapter_scale)
            request |= {"width": int(width), "height": int(height), "num_images": int(images)}
            files, line, longer = self.draw(where, request, history)
            return files, line, longer, [(file, caption) for file, caption, _ in longer]

        inputs, outputs = [*restored, images, history], [gallery, about, history, shown]
        gr.on([button.click, prompt.submit], run, inputs, outputs, api_name="draw")
        shown.select(_restore, [history], restored)

    def _side_by_side_tab(self) -> None:
        prompt, negative = _prompt_boxes()
        seed, chance = _seed_boxes()
        button = gr.Button("Draw both", variant="primary", elem_id="draw-both")
        inputs: list[Any] = [prompt, negative, seed, chance]
        outputs: list[Any] = []
        with gr.Row():
            for place, name in enumerate(("Left", "Right")):
                with gr.Column():
                    choice = self._endpoint_choice(name, place)
                    inputs += [choice, *self._sliders()]
                    image = gr.Image(label=name, type="filepath", interactive=False, elem_id=name.lower())
                    outputs += [image, gr.Markdown()]

        def run(prompt: str, negative: str, seed: float, chance: bool, *sides: Any) -> tuple[str, ...]:
            same = int.from_bytes(os.urandom(4)) if chance else seed
            requests = [
                (where, _request(prompt, negative, same, *sliders))
                for where, *sliders in (sides[: len(sides) // 2], sides[len(sides) // 2 :])
            ]
            return tuple(value for side in self.compare(requests) for value in side)

        gr.on([button.click, prompt.submit], run, inputs, outputs, api_name="compare")

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
        theme=gr.themes.Default(font=SYSTEM_FONTS, font_mono=MONO_FONTS),
        css=WHOLE_PICTURES,
    )
    return app, url


def _prompt_boxes() -> tuple[gr.Textbox, gr.Textbox]:
    prompt = gr.Textbox(label="Prompt", lines=2, placeholder="What to draw")
    return prompt, gr.Textbox(label="Negative prompt", placeholder="What to lead away from")


def _seed_boxes() -> tuple[gr.Number, gr.Checkbox]:
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)
        return seed, gr.Checkbox(True, label="A new seed each time")


def _request(prompt: str, negative: str, seed: float | None, *sliders: Any) -> dict[str, Any]:
    guidance, steps, sampler, adapter, scale = sliders
    chosen = {"adapter": adapter.strip(), "adapter_scale": float(scale)} if adapter.strip() else {}
    return {
        "prompt": prompt,
        "negative_prompt": negative or None,
        "seed": None if seed is None else int(seed),
        "guidance_scale": float(guidance),
        "steps": int(steps),
        "sampler": sampler,
        **chosen,
        "format": "png",
    }


def _restore(history: History, event: gr.SelectData) -> tuple[Any, ...]:
    """Return the settings of the picture that was clicked, with its own seed."""
    request = {"adapter": "", "adapter_scale": 1.0, **history[event.index][2], "a_new_seed": False}
    names = ("where", "prompt", "negative_prompt", "seed", "a_new_seed", "guidance_scale", "steps", "sampler")
    return tuple(request[name] for name in (*names, "adapter", "adapter_scale", "width", "height"))


def _about(answer: Answer) -> str:
    settings, seeds = answer.settings, ", ".join(str(picture.seed) for picture in answer.pictures)
    how = [f"{settings['steps']} steps of {settings['sampler']}", f"guidance {settings['guidance_scale']:g}"]
    if adapter := settings.get("adapter"):
        how.append(f"adapter {adapter} at {settings['adapter_scale']:g}")
    notes = [f"seed {seeds}", *how, f"{answer.elapsed_s:.1f} s", f"model `{answer.model}`"]
    if any(picture.truncated for picture in answer.pictures):
        notes.append("the model did not read the end of the prompt")
    if any(picture.flagged for picture in answer.pictures):
        notes.append("the safety checker replaced a picture")
    return " · ".join(notes)
