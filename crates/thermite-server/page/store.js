// What the browser keeps: conversations, one entry each, and settings. Where storage is closed or full, the page goes
// on from memory, and says so.

const PREFIX = "thermite.conversation.";
const SETTINGS = "thermite.settings";
const THEME = "thermite.theme";

/** Calls `onFull(isFull)` when saving begins to fail, and when it works again. */
export function openStore(onFull) {
  const memory = new Map();
  let failed = false;

  const attempt = (action) => {
    try {
      const result = action();
      if (failed) onFull((failed = false));
      return result;
    } catch {
      if (!failed) onFull((failed = true));
      return undefined;
    }
  };
  const parse = (text) => {
    try {
      return JSON.parse(text) ?? undefined;
    } catch {
      return undefined; // another program's entry, or half of one
    }
  };
  const read = (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };

  const load = () => {
    memory.clear();
    try {
      for (const key of Object.keys(localStorage)) {
        const conversation = key.startsWith(PREFIX) ? parse(localStorage.getItem(key)) : undefined;
        if (conversation?.id && Array.isArray(conversation.messages)) memory.set(conversation.id, conversation);
      }
    } catch {
      // storage is closed to this page
    }
  };
  load();

  return {
    /** All conversations, the latest first. */
    all: () => [...memory.values()].sort((a, b) => b.changed - a.changed),
    get: (id) => memory.get(id),
    save(conversation) {
      memory.set(conversation.id, conversation);
      attempt(() => localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation)));
    },
    remove(id) {
      memory.delete(id);
      try {
        localStorage.removeItem(PREFIX + id);
      } catch {
        // then it was never there
      }
    },
    /** Takes in what another tab has changed; `isBusy(id)` conversations stay as they are here. */
    follow(event, isBusy) {
      if (!event.key?.startsWith(PREFIX)) return false;
      const id = event.key.slice(PREFIX.length);
      if (isBusy(id)) return false;
      const conversation = event.newValue && parse(event.newValue);
      conversation ? memory.set(id, conversation) : memory.delete(id);
      return true;
    },
    settings: () => parse(read(SETTINGS)) ?? {},
    saveSettings: (settings) => attempt(() => localStorage.setItem(SETTINGS, JSON.stringify(settings))),
    theme: () => read(THEME) ?? "system",
    saveTheme: (theme) => attempt(() => localStorage.setItem(THEME, theme)),
  };
}

/** A conversation without a message. */
export function newConversation() {
  // randomUUID is there for secure origins alone; a server may be reached by its name in the house
  const id = Date.now().toString(36) + Math.random().toString(36).slice(2, 10);
  return { id, title: "", changed: Date.now(), messages: [] };
}

/** What a conversation is called. */
export function titleOf(conversation) {
  const first = conversation.messages.find((message) => message.content.trim());
  return conversation.title || first?.content.trim().split("\n")[0].slice(0, 80) || "New conversation";
}

/** A conversation as a Markdown document. */
export function markdownOf(conversation) {
  const heading = `# ${titleOf(conversation)}\n\n`;
  if (conversation.kind === "text") return heading + conversation.messages.map((m) => m.content).join("") + "\n";
  const name = { user: "You", assistant: "Assistant" };
  return heading + conversation.messages.map((m) => `## ${name[m.role]}\n\n${m.content}\n`).join("\n");
}
