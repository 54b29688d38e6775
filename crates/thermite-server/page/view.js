// The log: messages of a conversation, or a text that a model writes on.

import { button, byId, element } from "./dom.js";
import { render } from "./markdown.js";

const log = byId("log");
const scroller = byId("scroller");
const toEnd = byId("to-end");

const REASONS = { length: "stopped at max tokens", stopped: "stopped", unfinished: "cut short" };
const REMEDY = { gone: "Try again", broken: "Try again", busy: "Try again", refused: "Try again", key: "Give a key", long: "New conversation" };

/** `again(message)`, `change(message, text)`, `rewrite(text)`, `goOn()`, `remedy(message)` and `copied()` are the page's. */
export function openView(page) {
  let nodes = new Map();
  let pinned = true; // whether the end is in sight, and is to stay so

  const atEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
  const follow = () => {
    if (pinned) scroller.scrollTop = scroller.scrollHeight;
    toEnd.hidden = pinned || atEnd();
  };
  scroller.addEventListener("scroll", () => { pinned = atEnd(); toEnd.hidden = pinned; }, { passive: true });
  toEnd.addEventListener("click", () => { pinned = true; follow(); });
  new ResizeObserver(follow).observe(scroller);

  /** A button that has the model write anew: not while it writes. */
  const changer = (name, label, onClick) => {
    const node = button(name, label, onClick);
    node.classList.add("changes");
    return node;
  };
  const copy = (text) => button("copy", "Copy", () => navigator.clipboard?.writeText(text()).then(page.copied, () => {}));

  const errorBox = (message) => {
    const { kind, text, detail } = message.error;
    const act = element("button", { type: "button" }, REMEDY[kind]);
    act.addEventListener("click", () => page.remedy(message));
    const box = element("div", { className: "error" }, element("p", {}, text), act);
    if (detail && detail !== text) box.append(element("small", {}, detail));
    box.setAttribute("role", "alert");
    return box;
  };

  /** A text to be changed, in place of `body`. */
  const edit = (body, text, commit) => {
    const field = element("textarea", { className: "edit", value: text });
    field.setAttribute("aria-label", "Edit");
    const close = () => { body.classList.remove("editing"); body.replaceChildren(...old); };
    const send = () => (field.value.trim() ? commit(field.value) : close());
    const save = element("button", { type: "button", className: "primary" }, "Send");
    const cancel = element("button", { type: "button" }, "Cancel");
    save.addEventListener("click", send);
    cancel.addEventListener("click", close);
    field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      const sends = event.key === "Enter" && !event.shiftKey;
      if (!sends && event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      sends ? send() : close();
    });
    const old = [...body.childNodes];
    body.classList.add("editing");
    body.replaceChildren(field, element("div", { className: "buttons" }, cancel, save));
    field.focus();
    return save;
  };

  const userTurn = (message) => {
    const body = element("div", { className: "body" }, message.content);
    const change = changer("edit", "Edit and send again", () => edit(body, message.content, (text) => page.change(message, text)));
    const node = element("article", { className: "turn user" }, body,
      element("div", { className: "foot" }, copy(() => message.content), change));
    node.setAttribute("aria-label", "You");
    return { node, update() {} };
  };

  const assistantTurn = (message) => {
    const body = element("div", { className: "body md" });
    const problem = element("div");
    const figures = element("span", { className: "figures" });
    const actions = [copy(() => message.content), changer("again", "Answer again", () => page.again(message))];
    const node = element("article", { className: "turn assistant" }, body, problem,
      element("div", { className: "foot" }, ...actions, figures));
    node.setAttribute("aria-label", "Assistant");
    const update = (running) => {
      render(body, message.content);
      node.classList.toggle("waiting", running && !message.content);
      node.classList.toggle("streaming", running);
      node.classList.toggle("failed", Boolean(message.error));
      node.setAttribute("aria-busy", running);
      problem.replaceChildren(...(message.error ? [errorBox(message)] : []));
      figures.textContent = figuresOf(message, running);
      for (const action of actions) action.hidden = running || !message.content;
    };
    return { node, update };
  };

  /** All messages as one text. */
  const wholeText = (conversation) => {
    const { messages } = conversation;
    const text = element("div", { className: "text" });
    const problem = element("div");
    const figures = element("span", { className: "figures" });
    const whole = () => messages.map((message) => message.content).join("");
    const change = changer("edit", "Edit the text", () => edit(text, whole(), page.rewrite).replaceChildren("Write on from here"));
    const actions = [
      changer("more", "Write on", page.goOn),
      changer("again", "Write the last part again", () => page.again(messages.at(-1))),
      copy(whole),
      change,
    ];
    const node = element("article", { className: "turn assistant" }, text, problem,
      element("div", { className: "foot" }, ...actions, figures));
    const spans = new Map();
    const update = (running) => {
      for (const message of messages) {
        if (!spans.has(message)) {
          const span = element("span", { className: message.role });
          spans.set(message, span);
          text.append(span);
        }
        const span = spans.get(message);
        if (span.textContent !== message.content) span.textContent = message.content;
        span.classList.toggle("now", running && message === messages.at(-1));
      }
      const last = messages.at(-1);
      text.classList.toggle("streaming", running);
      node.setAttribute("aria-busy", running);
      problem.replaceChildren(...(last.error ? [errorBox(last)] : []));
      figures.textContent = figuresOf(last, running);
      for (const action of actions) action.hidden = running;
    };
    return { node, update };
  };

  return {
    /** Shows a conversation from its first message on. */
    show(conversation, running) {
      nodes = new Map();
      if (conversation.kind === "text" && conversation.messages.length) {
        const text = wholeText(conversation);
        for (const message of conversation.messages) nodes.set(message, text);
      } else {
        for (const message of conversation.messages) nodes.set(message, message.role === "user" ? userTurn(message) : assistantTurn(message));
      }
      log.replaceChildren(...new Set([...nodes.values()].map(({ node }) => node)));
      for (const [message, { update }] of nodes) update(running === message);
      pinned = true;
      follow();
    },
    /** Shows what a message has become. */
    update(message, running) {
      nodes.get(message)?.update(running);
      follow();
    },
  };
}

/** Tokens, time to the first, and speed; what ended the text. */
function figuresOf({ figures, reason, role, error }, running) {
  if (role === "user") return "";
  const parts = [];
  if (running && figures?.note) return figures.note;
  if (figures?.tokens) parts.push(`${figures.tokens} ${figures.tokens === 1 ? "token" : "tokens"}`);
  if (figures?.rate) parts.push(`${figures.rate < 10 ? figures.rate.toFixed(1) : Math.round(figures.rate).toLocaleString("en")} tok/s`);
  if (figures?.first !== undefined) parts.push(`first after ${duration(figures.first)}`);
  if (!running && !error && REASONS[reason]) parts.push(REASONS[reason]);
  return parts.join(" · ");
}

const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
