"use strict";
// A token, if the server has one, is in the address after '#token=': browsers do not send that part.
const given = new URLSearchParams(location.hash.slice(1));
const token = given.get("token");
const headers = token ? { Authorization: "Bearer " + token } : {};
const part = (id) => document.getElementById(id);
const keys = { ArrowLeft: "first", ArrowRight: "second", ArrowDown: "equal", s: "skip" };
const clips = new Map();  // of the pair that is shown and of the next one
let labeller = "", pair = null, busy = false;

async function ask(path, body) {
  const options = body === undefined ? { headers }
    : { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error((await answer.json()).message);
  return answer;
}

function clip(id, side) {
  const path = `/clips/${id}/${side}`;
  if (!clips.has(path)) clips.set(path, ask(path).then((a) => a.blob()).then((b) => URL.createObjectURL(b)));
  return clips.get(path);
}

function forget(kept) {
  for (const [path, url] of clips) {
    if (kept.includes(path.split("/")[2])) continue;
    clips.delete(path);
    url.then(URL.revokeObjectURL, () => {});
  }
}

async function show(standing) {
  pair = standing.pair;
  part("who").hidden = true;
  part("standing").textContent = `${labeller}: ${standing.n_done} of ${standing.n_pairs}`;
  part("undo").hidden = !standing.can_undo;
  part("pair").hidden = pair === null;
  part("message").textContent = pair === null ? "All pairs are labelled. Thank you." : "";
  forget([pair, standing.following]);
  if (pair === null) return;
  const urls = await Promise.all([clip(pair, 0), clip(pair, 1)]);  // both begin together
  part("clip0").src = urls[0];
  part("clip1").src = urls[1];
  if (standing.following) [0, 1].forEach((side) => clip(standing.following, side).catch(() => clips.clear()));
}

async function act(work) {
  if (busy) return;
  busy = true;
  document.querySelectorAll("button").forEach((button) => { button.disabled = true; });
  try {
    await show(await (await work()).json());
  } catch (error) {
    part("message").textContent = error.message;
  }
  busy = false;
  document.querySelectorAll("button").forEach((button) => { button.disabled = false; });
}

const label = (choice) => act(() => ask("/labels", { pair, labeller, choice }));
const undo = () => act(() => ask("/undo", { labeller }));

function begin() {
  labeller = part("name").value;
  act(() => ask("/next?labeller=" + encodeURIComponent(labeller)));
}

part("who").addEventListener("submit", (event) => { event.preventDefault(); begin(); });
document.querySelectorAll("[data-choice]").forEach((button) => {
  button.addEventListener("click", () => label(button.dataset.choice));
});
part("undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || !labeller) return;
  if (event.key.toLowerCase() === "u") return undo();
  const choice = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (choice && pair) { event.preventDefault(); label(choice); }
});
if (given.get("name")) {  // so that an address can be sent to each labeller
  part("name").value = given.get("name");
  begin();
}
