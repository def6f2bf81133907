// The status page: one look at /api/status a second, a way to load, unload and ask. Text only ever goes in as text.
"use strict";

const LOOK_MS = 1000;
const WORDS = {ready: "ready", starting: "starting", checking: "loading", draining: "answers end", stopping: "stopping",
               parking: "falling asleep", parked: "asleep", waking: "waking", gone: "not loaded", failed: "failed"};
const byId = id => document.getElementById(id);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function seconds(value) {
  return value < 90 ? `${Math.round(value)} s` : `${Math.round(value / 60)} min`;
}

function size(bytes) {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

function tone(state) {
  if (state === "ready" || state === "failed") return state;
  return state === "gone" || state === "parked" ? "" : "busy";
}

function bar(label, value, most) {
  const made = element("progress");
  made.max = most;
  if (value !== null && value !== undefined) made.value = value;
  made.setAttribute("aria-label", label);
  return made;
}

async function ask(path, model, button) {
  button.disabled = true;
  const answer = await fetch(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({model})});
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    byId("wait").textContent = body.error ? body.error.message : `cannot do this: HTTP ${answer.status}`;
  }
  look();
}

function card(model, instance, failure) {
  const made = element("li");
  const state = instance ? instance.state : failure ? "failed" : "gone";
  made.append(element("div", "name", model.name));
  made.append(element("div", `state ${tone(state)}`, (instance && instance.phase) || WORDS[state] || state));
  const facts = [model.engine];
  if (model.running) facts.push(`${model.running} running`);
  if (model.waiting) facts.push(`${model.waiting} waiting`);
  if (instance && instance.left_s !== null) facts.push(`about ${seconds(instance.left_s)} left`);
  if (model.pinned) facts.push("pinned");
  made.append(element("div", "fact", facts.join(" · ")));
  if (instance && tone(state) === "busy") made.append(bar(`${model.name} loads`, instance.percent, 100));
  if (failure && !instance) made.append(element("div", "cause", failure.cause));
  const actions = element("div", "actions");
  const load = element("button", "", "Load");
  load.disabled = state === "ready" || tone(state) === "busy";
  load.addEventListener("click", () => ask("/models/load", model.name, load));
  const unload = element("button", "", "Unload");
  unload.disabled = !instance || state === "stopping";
  unload.addEventListener("click", () => ask("/models/unload", model.name, unload));
  actions.append(load, unload);
  made.append(actions);
  return made;
}

function device(seen) {
  const made = element("li");
  made.append(element("span", "name", seen.name), element("span", "fact", seen.used === null ? size(seen.total) : `${size(seen.used)} of ${size(seen.total)}`));
  return made;
}

function keepFocus(list, makeAll) {
  const buttons = () => [...list.querySelectorAll("button")];
  const focused = buttons().indexOf(document.activeElement);
  list.replaceChildren(...makeAll());
  if (focused >= 0 && buttons()[focused]) buttons()[focused].focus();
}

let choices = "";

function show(status) {
  byId("about").textContent = `version ${status.router.version} · up ${seconds(status.router.uptime_s)} · ${status.router.address}`;
  const instanceOf = name => status.instances.find(i => i.model === name && i.state !== "gone") || null;
  const failureOf = name => status.failures.find(f => f.model === name) || null;
  keepFocus(byId("models"), () => status.models.map(m => card(m, instanceOf(m.name), failureOf(m.name))));
  byId("devices").replaceChildren(...status.devices.map(device));
  const names = status.models.map(m => m.name);
  if (names.join("\n") !== choices) {
    choices = names.join("\n");
    byId("model").replaceChildren(...names.map(name => new Option(name, name)));
  }
}

let timer = 0;

async function look() {
  clearTimeout(timer);
  try {
    const answer = await fetch("/api/status");
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    byId("about").textContent = `the router does not answer (${error.message})`;
  }
  timer = setTimeout(look, document.hidden ? 5 * LOOK_MS : LOOK_MS);
}

function takeIn(event) {
  if (!event.startsWith("data: ") || event === "data: [DONE]") return;
  const chunk = JSON.parse(event.slice(6));
  if (chunk.error) byId("wait").textContent = chunk.error.message;
  if (chunk.event && chunk.event.type === "status") byId("wait").textContent = chunk.event.data.hidden ? "" : chunk.event.data.description;
  const choice = chunk.choices && chunk.choices[0];
  if (choice && choice.delta && choice.delta.content) byId("answer").textContent += choice.delta.content;
}

async function chat(submitted) {
  submitted.preventDefault();
  const form = new FormData(submitted.target);
  byId("answer").textContent = "";
  byId("wait").textContent = "";
  const answer = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({model: form.get("model"), stream: true, messages: [{role: "user", content: form.get("prompt")}]}),
  });
  if (!answer.ok) {
    byId("wait").textContent = (await answer.json()).error.message;
    return;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const events = (held + read.value).split("\n\n");
    held = events.pop();
    events.forEach(takeIn);
  }
}

byId("try").addEventListener("submit", event => chat(event).catch(error => { byId("wait").textContent = error.message; }));
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
look();
