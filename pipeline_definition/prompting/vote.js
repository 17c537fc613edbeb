// The vote's page: shows a pair, sends what was chosen, and goes on. A vote counts once the server has answered.
"use strict";

const part = (id) => document.getElementById(id);
const keys = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", 0: "neither", ArrowDown: "neither" };
const seen = [];
let voter = localStorage.getItem("voter") || "";
let pair = "";
let busy = false;

// Does one thing at a time: a key that is held down votes once.
async function once(work) {
  if (busy) return;
  busy = true;
  try {
    await work();
    part("trouble").hidden = true;
  } catch (error) {
    part("trouble").textContent = `No answer: ${error.message}. Is the vote still running? Start it again and reload: judged pairs stay judged.`;
    part("trouble").hidden = false;
  }
  busy = false;
}

async function ask(address, options) {
  const answer = await fetch(address, options);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.status === 204 ? null : answer.json();
}

async function show(name) {
  const next = await ask(`/pair?${new URLSearchParams({ voter, name })}`);
  for (const side of ["left", "right"]) {
    const image = part(side).firstElementChild;
    image.src = next.pair ? `/picture?${new URLSearchParams({ voter, name: next.pair, side })}` : "data:,";
    if (next.pair) await image.decode();
  }
  pair = next.pair;
  part("prompt").textContent = next.prompt || "";
  part("far").textContent = `${next.done} of ${next.all} pairs judged`;
  part("name").textContent = `voting as ${voter}: change`;
  part("who").hidden = true;
  part("vote").hidden = !pair;
  part("done").hidden = Boolean(pair);
  part("back").disabled = seen.length === 0;
}

const vote = (chosen) =>
  once(async () => {
    if (!pair) return;
    const body = JSON.stringify({ voter, pair, chosen });
    await ask("/vote", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    seen.push(pair);
    await show("");
  });

const back = () => once(async () => seen.length && show(seen.pop()));

part("who").addEventListener("submit", (event) => {
  event.preventDefault();
  voter = part("voter").value.trim();
  if (!voter) return;
  localStorage.setItem("voter", voter);
  once(() => show(""));
});
for (const side of ["left", "right"]) part(side).addEventListener("click", () => vote(side));
for (const button of document.querySelectorAll("[data-chosen]"))
  button.addEventListener("click", () => vote(button.dataset.chosen));
part("back").addEventListener("click", back);
part("name").addEventListener("click", () => {
  pair = "";
  seen.length = 0;
  part("who").hidden = false;
  part("vote").hidden = true;
  part("done").hidden = true;
  part("name").textContent = "";
  part("voter").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Backspace") back();
  else if (keys[event.key]) vote(keys[event.key]);
  else return;
  event.preventDefault();
});

if (voter) once(() => show(""));
else part("who").hidden = false;
