// The sheet of settings, the theme, and the question for an API key.

import { byId } from "./dom.js";

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

/** Settings of a page: an object that lives as long as the page does, kept in `store` as it changes. */
export function openSettings(store) {
  const settings = store.settings();
  const dialog = byId("settings");
  const remember = (name, value) => {
    settings[name] = value;
    store.saveSettings(settings);
  };
  const form = dialog.querySelector("form");
  const fields = form.elements;

  for (const name of [...NUMBERS, "system", "key"]) fields[name].value = settings[name] ?? "";
  form.addEventListener("input", ({ target }) => {
    if (target.name === "theme") return useTheme(target.value);
    if (!target.validity.valid) return undefined;
    return remember(target.name, NUMBERS.includes(target.name) && target.value ? target.valueAsNumber : target.value || undefined);
  });
  form.addEventListener("change", () => {
    const wrong = NUMBERS.map((name) => fields[name]).find((field) => !field.validity.valid);
    byId("range-note").textContent = wrong ? `${wrong.labels[0].firstChild.data.trim()}: ${wrong.validationMessage}` : "";
  });
  byId("open-settings").addEventListener("click", () => dialog.showModal());
  closeOnBackdrop(dialog);

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => store.theme() === "dark" || (store.theme() !== "light" && dark.matches);
  const useTheme = (theme) => {
    store.saveTheme(theme);
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    showTheme();
  };
  const showTheme = () => {
    fields.theme.value = store.theme();
    byId("theme").setAttribute("aria-pressed", isDark());
  };
  byId("theme").addEventListener("click", () => useTheme(isDark() ? "light" : "dark"));
  dark.addEventListener("change", showTheme);
  showTheme();

  return {
    /** What requests say of sampling: what is not set is the server's to choose. */
    sampling: () => Object.fromEntries(NUMBERS.filter((name) => settings[name] !== undefined).map((name) => [name, settings[name]])),
    system: () => settings.system?.trim(),
    key: () => settings.key,
    remember,
    /** Asks for the key; gives whether there is one now. */
    async askKey(note) {
      byId("key-note").textContent = settings.key ? `The one given is not right. ${note}` : note;
      if (await answer(byId("key-dialog")) !== "ok") return false;
      remember("key", (fields.key.value = byId("key").value.trim()));
      byId("key").value = "";
      return true;
    },
    /** The system prompt is for models that converse. */
    showSystem: (shown) => { byId("system-field").hidden = !shown; },
  };
}

/** Shows a dialog, and gives the value of the button that closed it. */
export function answer(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "cancel";
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    // not a button that submits: Enter would press the first of those
    dialog.querySelector("button[type=button]").onclick = () => dialog.close();
    dialog.showModal();
  });
}

function closeOnBackdrop(dialog) {
  dialog.addEventListener("pointerdown", (event) => {
    const box = dialog.getBoundingClientRect();
    if (event.target === dialog && (event.clientX < box.left || event.clientX > box.right)) dialog.close();
  });
}
