// The list of conversations: open, rename, delete.

import { button, byId, element } from "./dom.js";
import { titleOf } from "./store.js";

/** `current()`, `isRunning(id)`, `open(id)`, `rename(id, title)` and `remove(id)` are the page's. */
export function openSidebar(store, page) {
  const list = byId("conversations");
  const narrow = matchMedia("(max-width: 48rem)");
  const opener = byId("open-sidebar");

  const drawer = (open) => {
    const isOpen = open && narrow.matches;
    document.body.classList.toggle("drawer", isOpen);
    opener.setAttribute("aria-expanded", isOpen);
    byId("main").inert = isOpen;
    if (isOpen) byId("new").focus();
  };
  opener.addEventListener("click", () => drawer(true));
  byId("shade").addEventListener("click", () => drawer(false));
  byId("close-sidebar").addEventListener("click", () => { drawer(false); opener.focus(); });
  narrow.addEventListener("change", () => drawer(false));

  const rename = (conversation, row) => {
    const field = element("input", { value: titleOf(conversation), maxLength: 120 });
    field.setAttribute("aria-label", "Title");
    let done = false;
    const finish = (keep) => {
      if (done) return;
      done = true;
      field.remove();
      if (keep && field.value.trim()) page.rename(conversation.id, field.value.trim());
      render();
      list.querySelector(`[data-id="${conversation.id}"] .open`)?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
      finish(event.key === "Enter");
    });
    field.addEventListener("blur", () => finish(true));
    row.replaceChildren(field);
    field.select();
  };

  const rowOf = (conversation) => {
    const { id } = conversation;
    const title = titleOf(conversation);
    const open = element("button", { type: "button", className: "open", title }, element("span", {}, title));
    open.addEventListener("click", () => { drawer(false); page.open(id); });
    const row = element("li", {}, open,
      button("edit", `Rename: ${title}`, () => rename(conversation, row)),
      button("delete", `Delete: ${title}`, () => page.remove(id)));
    row.dataset.id = id;
    open.classList.toggle("running", page.isRunning(id));
    if (id === page.current().id) {
      row.className = "current";
      open.setAttribute("aria-current", "true");
    }
    return row;
  };

  const render = () => {
    if (list.querySelector("input")) return; // a title is being typed
    const focused = document.activeElement?.closest?.("#conversations li")?.dataset.id;
    const all = store.all();
    list.replaceChildren(...all.map(rowOf));
    if (!all.length) list.append(element("li", { className: "none" }, "None yet"));
    if (focused) (list.querySelector(`[data-id="${focused}"] .open`) ?? byId("new")).focus();
    byId("export-all").disabled = byId("delete-all").disabled = !all.length;
  };

  return {
    render,
    isOpen: () => document.body.classList.contains("drawer"),
    close: () => { drawer(false); opener.focus(); },
    leave: () => drawer(false),
  };
}
