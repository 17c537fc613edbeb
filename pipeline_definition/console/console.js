// The console's page: asks for its parts as they stand now, and sends what the person decides.
"use strict";

const page = document.getElementById("console");
const told = document.getElementById("told");
const shown = new Map();
let step = "";
let troubled = "";

function tell(text, isTrouble) {
  told.textContent = text;
  told.classList.toggle("trouble", isTrouble);
  told.hidden = !text;
}

async function answered(answer) {
  if (answer.ok) return answer;
  const { detail } = await answer.json().catch(() => ({ detail: `the console answered ${answer.status}` }));
  throw new Error(typeof detail === "string" ? detail : JSON.stringify(detail));
}

// Shows a part where it has changed; a log stays at its end, and an answer being written stays.
async function refresh(place) {
  const name = place.dataset.part;
  const needsRun = ["run", "runs", "log"].includes(name);
  if ((needsRun && !page.dataset.run) || place.contains(document.activeElement?.closest("input"))) return;
  const about = new URLSearchParams({ run: page.dataset.run, step });
  const html = await (await answered(await fetch(`part/${name}?${about}`))).text();
  if (shown.get(name) === html) return;
  const before = place.querySelector("pre");
  const follows = !before || before.scrollTop + before.clientHeight >= before.scrollHeight - 30;
  const top = before?.scrollTop;
  const open = [...place.querySelectorAll("details")].map((one) => one.open);
  const chosen = place.querySelector("input:checked")?.value;
  shown.set(name, html);
  place.innerHTML = html;
  place.querySelectorAll("details").forEach((one, at) => (one.open = open[at] ?? one.open));
  place.querySelectorAll("input[type=radio]").forEach((one) => (one.checked = one.value === chosen || one.checked));
  const log = place.querySelector("pre");
  if (log) log.scrollTop = follows ? log.scrollHeight : top;
}

async function refreshAll(which) {
  for (const place of document.querySelectorAll(which)) {
    try {
      await refresh(place);
      if (troubled === place.dataset.part) tell((troubled = ""), false);
    } catch (error) {
      troubled = place.dataset.part;
      tell(`${troubled}: ${error.message}`, true);
    }
  }
}

async function send(action, content) {
  const buttons = [...document.querySelectorAll("button:not(:disabled):not(.tab)")];
  buttons.forEach((button) => (button.disabled = true));
  troubled = "";
  tell("…", false);
  try {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) };
    const done = await (await answered(await fetch(action, options))).json();
    tell(done.said, false);
    if (done.html) document.getElementById("pictures").innerHTML = done.html;
    if (done.run) location.search = new URLSearchParams({ run: done.run });
    if (done.go) location.reload();
  } catch (error) {
    tell(error.message, true);
  }
  buttons.forEach((button) => (button.disabled = false));
  document.activeElement?.blur();
  shown.clear();
  await refreshAll("[data-part]");
}

document.addEventListener("click", ({ target }) => {
  if (target.dataset?.post) send(target.dataset.post, "run" in target.dataset ? { run: page.dataset.run } : {});
  if (target.dataset?.step) {
    step = target.dataset.step;
    refreshAll("[data-part=log]");
  }
});

const changed = () => [...document.querySelectorAll("#start [name]")].filter((one) => one.value !== one.dataset.default);

document.getElementById("start")?.addEventListener("input", ({ target }) => {
  target.closest("label").classList.toggle("changed", target.value !== target.dataset.default);
  const names = changed().map((one) => one.name);
  document.getElementById("changes").textContent = names.length ? `changed: ${names.join(", ")}` : "nothing changed";
});

document.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  const values = Object.fromEntries(new FormData(form));
  if (form.id === "start") send("start", { changes: Object.fromEntries(changed().map((one) => [one.name, one.value])) });
  if (form.id === "draw") send("draw", { ...values, seed: values.seed ? Number(values.seed) : null });
  if (form.dataset.decide) send("decide", { package: form.dataset.decide, decision: event.submitter.value, reason: values.reason });
});

// One round after the other: a slow answer does not pile up questions.
async function follow(round) {
  if (!document.hidden) await refreshAll(round % 5 ? "[data-often]" : "[data-part]");
  setTimeout(follow, 1000 * Number(page.dataset.pollS), round + 1);
}
follow(0);
