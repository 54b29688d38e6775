// The page: which conversation is open, and what its buttons do.

import { models as fetchModels } from "./api.js";
import { byId, element } from "./dom.js";
import { startRun } from "./run.js";
import { answer, openSettings } from "./settings.js";
import { openSidebar } from "./sidebar.js";
import { markdownOf, newConversation, openStore, titleOf } from "./store.js";
import { openView } from "./view.js";

const TEXT_TOKENS = 256; // of a text that nobody has set a limit for
const SUGGESTIONS = {
  chat: ["Explain how a kettle works to a child.", "Write a haiku about rust and metal.", "What makes a good question?", "Give me three names for a quiet café."],
  text: ["Once upon a time", "Lily found a small red key", "The old dog was tired, but", "One rainy day, Tom and his mom"],
};

const prompt = byId("prompt");
const select = byId("model");
const store = openStore((isFull) => (isFull
  ? toast("This browser's storage is full or closed: what is new is lost with this page. Export or delete conversations.", { action: "Close", stays: true })
  : hideToast()));
const settings = openSettings(store);
const runs = new Map(); // of conversations, by id
let models = [];
let current = newConversation();

const view = openView({ again, change, rewrite, goOn, remedy, copied: () => toast("Copied") });
const sidebar = openSidebar(store, { current: () => current, isRunning: (id) => runs.has(id), open: show, rename, remove });

// Models

const model = () => models.find(({ id }) => id === select.value);
const kindOf = (conversation) => conversation.kind ?? (model()?.chat === false ? "text" : "chat");

/** Asks the server for its models, and for a key where it wants one. */
async function loadModels() {
  try {
    models = await fetchModels(settings.key());
  } catch (error) {
    if (error.kind === "key" && await settings.askKey(error.detail)) return loadModels();
    byId("welcome-text").textContent = error.message;
    byId("suggestions").replaceChildren(labelled("Try again", loadModels));
    return undefined;
  }
  const wanted = current.model ?? store.settings().model;
  select.replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
  if (models.some(({ id }) => id === wanted)) select.value = wanted;
  select.disabled = models.length < 2;
  return showState();
}

select.addEventListener("change", () => {
  if (current.kind === "chat" && !model().chat) {
    toast(`${select.value} writes texts on and does not converse: this is a new one.`);
    show(undefined);
  }
  showState();
});

// Conversations

/** Opens a conversation, or a new one. The address says which is open, so that a reload and the back button find it. */
function show(id) {
  const address = id ? `#${id}` : location.pathname + location.search;
  if (location.hash.slice(1) !== (id ?? "")) history.pushState(null, "", address);
  display(store.get(id) ?? newConversation());
  focusPrompt();
}

function display(conversation) {
  current = conversation;
  if (current.model && models.some(({ id }) => id === current.model)) select.value = current.model;
  view.show(current, runs.get(current.id)?.message);
  showState();
}

/** Everything around the log, as it stands. */
function showState() {
  const kind = kindOf(current);
  const empty = current.messages.length === 0;
  const running = runs.has(current.id);
  document.title = empty ? "Thermite" : `${titleOf(current)} · Thermite`;
  byId("welcome").hidden = !empty;
  byId("send").hidden = running;
  byId("stop").hidden = !running;
  byId("log").classList.toggle("busy", running);
  byId("export").disabled = empty;
  settings.showSystem(kind === "chat");
  if (empty && models.length) {
    byId("welcome-title").textContent = kind === "chat" ? "What is on your mind?" : "How does it begin?";
    byId("welcome-text").textContent = kind === "chat"
      ? "The answers are computed by your own server."
      : `${select.value} does not converse: it writes on from where you stop.`;
    byId("suggestions").replaceChildren(...SUGGESTIONS[kind].map((text) => labelled(text, () => send(text))));
  }
  prompt.placeholder = kind === "chat" ? "Write a message" : empty ? "Begin a text" : "Go on, or press Enter and it will";
  byId("prompt-label").textContent = kind === "chat" ? "Message" : "Text";
  showSend();
  sidebar.render();
}

const mayGoOn = () => kindOf(current) === "text" && current.messages.length > 0;
const showSend = () => { byId("send").disabled = !prompt.value.trim() && !mayGoOn(); };

function rename(id, title) {
  store.save({ ...store.get(id), title });
  if (id === current.id) display(store.get(id));
}

function remove(id) {
  const conversation = store.get(id);
  runs.get(id)?.stop();
  store.remove(id);
  if (id === current.id) show(undefined);
  else sidebar.render();
  toast("Conversation deleted", {
    action: "Undo",
    onAction: () => { store.save(conversation); show(id); },
  });
}

function save(conversation) {
  conversation.changed = Date.now();
  store.save(conversation);
}

// Generating

function send(text) {
  if (runs.has(current.id) || !model()) return models.length ? undefined : loadModels();
  const kind = kindOf(current);
  if (!text.trim() && !mayGoOn()) return undefined;
  if (kind === "text") text = joined(textOf(current), text);
  if (text) current.messages.push({ role: "user", content: text });
  prompt.value = "";
  focusPrompt();
  return respond();
}

/** `text` as it goes behind `before`: words do not run into each other. */
const joined = (before, text) => (/\S$/.test(before) && /^[\p{L}\p{N}"“(]/u.test(text) ? ` ${text}` : text);

/** Has the model write the next message of the conversation that is open. */
function respond() {
  const conversation = current;
  const isNew = !store.get(conversation.id);
  conversation.kind = kindOf(conversation);
  conversation.model = select.value;
  settings.remember("model", select.value);
  const ended = conversation.messages.at(-1)?.reason === "stop";
  const message = { role: "assistant", content: "" };
  conversation.messages.push(message);
  const { kind } = conversation;
  const body = { model: select.value, ...settings.sampling() };
  if (kind === "chat") body.messages = turnsOf(conversation);
  else Object.assign(body, { prompt: textOf(conversation), max_tokens: body.max_tokens ?? TEXT_TOKENS });
  // where the model has come to an end, it would only do so again
  if (kind === "text" && ended) body.ignore_eos = true;

  const here = () => current.id === conversation.id;
  const run = startRun(message, {
    request: () => ({ chat: kind === "chat", body, key: settings.key() }),
    onChange: () => here() && view.update(message, true),
    onSave: () => store.get(conversation.id) && store.save(conversation),
  });
  runs.set(conversation.id, run);
  save(conversation);
  if (isNew) history.pushState(null, "", `#${conversation.id}`);
  announce("Generating");
  display(conversation);
  run.done.then(() => {
    runs.delete(conversation.id);
    if (store.get(conversation.id)) save(conversation);
    if (here()) {
      view.update(message, false);
      announce(message.error ? "" : message.content);
    }
    showState();
    if (message.error?.kind === "key") remedy(message);
  });
}

/** The messages as a template wants them: turn about, none of them empty. */
function turnsOf({ messages }) {
  const turns = settings.system() ? [{ role: "system", content: settings.system() }] : [];
  for (const { role, content } of messages) {
    if (!content) continue;
    if (turns.at(-1)?.role === role) turns.at(-1).content += `\n\n${content}`;
    else turns.push({ role, content });
  }
  return turns;
}

const textOf = ({ messages }) => messages.map(({ content }) => content).join("");

/** Drops a message and what follows, and generates anew. */
function again(message) {
  if (runs.has(current.id)) return;
  const { messages } = current;
  // a text's last part may be one that was typed
  const index = message.role === "assistant" ? messages.indexOf(message) : messages.length;
  messages.splice(index);
  respond();
}

function change(message, text) {
  if (runs.has(current.id)) return;
  current.messages.splice(current.messages.indexOf(message), Infinity, { role: "user", content: text });
  respond();
}

function rewrite(text) {
  if (runs.has(current.id)) return;
  current.messages = [{ role: "user", content: text }];
  respond();
}

function goOn() {
  send("");
}

/** What the button of an error does. */
async function remedy(message) {
  if (message.error.kind === "long") return show(undefined);
  if (message.error.kind === "key" && !await settings.askKey(message.error.detail ?? "")) return undefined;
  return again(message);
}

// The message box

const touch = matchMedia("(hover: none) and (pointer: coarse)");
/** Where typing goes on; a phone would cover half the page with its keyboard. */
function focusPrompt() {
  if (!touch.matches) prompt.focus();
}
const grow = () => {
  if (CSS.supports("field-sizing", "content")) return;
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
};
prompt.addEventListener("input", () => { grow(); showSend(); });
prompt.addEventListener("keydown", (event) => {
  // on a phone, the return key is the only way to a new line
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch.matches) return;
  event.preventDefault();
  send(prompt.value);
});
byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send(prompt.value);
  grow();
});
byId("stop").addEventListener("click", stop);

function stop() {
  runs.get(current.id)?.stop();
  focusPrompt();
}

// The rest of the page

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (sidebar.isOpen()) sidebar.close();
  else stop();
});
byId("new").addEventListener("click", () => { sidebar.leave(); show(undefined); });
byId("export").addEventListener("click", () => download(`${fileName(titleOf(current))}.md`, "text/markdown", markdownOf(current)));
byId("export-all").addEventListener("click", () => download("thermite-conversations.json", "application/json", JSON.stringify(store.all(), null, 2)));
byId("delete-all").addEventListener("click", async () => {
  const count = store.all().length;
  byId("confirm-text").textContent = `Delete ${count === 1 ? "the conversation" : `all ${count} conversations`} for good?`;
  if (await answer(byId("confirm")) !== "ok") return;
  for (const run of runs.values()) run.stop();
  for (const { id } of store.all()) store.remove(id);
  show(undefined);
});
addEventListener("popstate", () => display(store.get(location.hash.slice(1)) ?? newConversation()));
addEventListener("storage", (event) => {
  if (!store.follow(event, (id) => runs.has(id))) return;
  display(store.get(current.id) ?? (current.messages.length ? newConversation() : current));
});
addEventListener("pagehide", () => {
  for (const id of runs.keys()) if (store.get(id)) store.save(store.get(id));
});

function download(name, type, text) {
  const href = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

const fileName = (title) => title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "conversation";

function labelled(text, onClick) {
  const node = element("button", { type: "button" }, text);
  node.addEventListener("click", onClick);
  return node;
}

/** Tells those who listen to the page what it shows. */
function announce(text) {
  byId("status").textContent = text;
}

let toastTimer = 0;
function toast(text, { action = "", onAction = () => {}, stays = false } = {}) {
  const [label, act] = byId("toast").children;
  label.textContent = text;
  act.textContent = action;
  act.onclick = () => { hideToast(); onAction(); };
  byId("toast").hidden = false;
  clearTimeout(toastTimer);
  if (!stays) toastTimer = setTimeout(hideToast, action ? 8000 : 2500);
}
function hideToast() {
  byId("toast").hidden = true;
}

display(store.get(location.hash.slice(1)) ?? current);
loadModels();
focusPrompt();
