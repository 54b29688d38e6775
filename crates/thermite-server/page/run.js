// One generation: from a request to a message that grows, with its figures.

import { Failure, generate } from "./api.js";

const ATTEMPTS = 5;
const SAVE_EVERY = 1000; // ms

/**
 * Generates `message`. `request()` gives what `generate` takes; `onChange()` is called at most once a frame, `onSave()`
 * once a second; `stop()` ends it. `done` is fulfilled when all is over, and never rejected.
 */
export function startRun(message, { request, onChange, onSave }) {
  const controller = new AbortController();
  const { signal } = controller;
  let frame = 0;
  let saved = performance.now();
  const changed = () => {
    // a timer, as no frames come to a page that is not looked at
    frame ||= setTimeout(() => { frame = 0; onChange(); }, 16);
    if (performance.now() - saved > SAVE_EVERY) {
      saved = performance.now();
      onSave();
    }
  };

  const attempt = async () => {
    const figures = { tokens: 0 };
    message.figures = figures;
    const began = performance.now();
    let first = 0;
    const measure = (tokens) => {
      const passed = performance.now() - first;
      figures.tokens = tokens;
      // the first token is not part of the time that is measured, and a few milliseconds are no measurement
      if (tokens > 1 && passed > 10) figures.rate = (tokens - 1) / (passed / 1000);
    };
    for await (const { text, reason, usage } of generate({ ...request(), signal })) {
      if (text) {
        if (!first) figures.first = (first = performance.now()) - began;
        message.content += text;
        measure(figures.tokens + 1);
      }
      if (reason) message.reason = reason;
      if (usage) measure(usage.completion_tokens);
      changed();
    }
  };

  const all = async () => {
    message.reason = "unfinished";
    delete message.error;
    for (let left = ATTEMPTS; ; left--) {
      try {
        return await attempt();
      } catch (error) {
        if (error.kind !== "busy" || left === 1) throw error;
        await countDown(error);
      }
    }
  };
  const countDown = async ({ message: text, wait }) => {
    for (let seconds = wait; seconds > 0 && !signal.aborted; seconds--) {
      message.figures = { note: `${text} Trying again in ${seconds} s.` };
      changed();
      await pause(1000, signal);
    }
    signal.throwIfAborted();
  };

  const done = all().catch((error) => {
    if (error.name === "AbortError") {
      message.reason = "stopped";
      return;
    }
    if (!(error instanceof Failure)) console.error(error);
    const { kind = "broken", message: text, detail } = error;
    message.error = { kind, text, detail };
  }).finally(() => {
    clearTimeout(frame);
    delete message.figures?.note;
  });
  return { message, done, stop: () => controller.abort() };
}

/** Waits, or until `signal`. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
