// The server's API: models, and streams of text.

const address = (path) => new URL(path, document.baseURI);

/** What went wrong, in words for a person; `kind` says what can be done about it. */
export class Failure extends Error {
  /** `kind`: gone, key, busy, long, broken or refused; `detail`: the server's own words. */
  constructor(kind, message, { detail = "", wait = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, detail, wait });
  }
}

async function call(path, { key, signal, body } = {}) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(address(path), {
      method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body), cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("gone", "The server cannot be reached. Is thermite serve still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** The failure that a response tells of. */
async function refusal(response) {
  const text = await response.text().catch(() => "");
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // not the server's own answer: a proxy's page, or nothing
  }
  const detail = error.message ?? "";
  switch (response.status) {
    case 401: case 403:
      return new Failure("key", "The server asks for an API key.", { detail });
    case 429: case 503:
      return new Failure("busy", response.status === 429 ? "The server has its hands full." : "The server is not ready.",
        { detail, wait: Math.min(Number(response.headers.get("Retry-After")) || 2, 60) });
    case 400: case 413: case 422:
      if (error.code === "context_length_exceeded" || response.status === 413) {
        return new Failure("long", "This is longer than the model can read. Begin a new conversation, or shorten this one.", { detail });
      }
      return new Failure("refused", detail || "The server does not understand this request.");
    case 404:
      return new Failure("refused", detail || "The server has no such model.");
    default:
      return new Failure("broken", `The server failed (${response.status}).`, { detail });
  }
}

/** The models that generate text: `[{id, chat}]`, `chat` being whether it has a chat template. */
export async function models(key) {
  const { data } = await (await call("v1/models", { key })).json();
  return data.map((model) => ({ id: model.id, chat: model.chat_template ?? true }));
}

/**
 * Generates: gives pieces of text as they come, `{text}`, and what is said of it: `{reason}` and `{usage}`. Ends with a
 * `Failure`, or as `signal` says.
 */
export async function* generate({ chat, body, key, signal }) {
  const path = chat ? "v1/chat/completions" : "v1/completions";
  const response = await call(path, { key, signal, body: { ...body, stream: true, stream_options: { include_usage: true } } });
  let ended = false;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") {
        ended = true;
        break;
      }
      const { error, choices, usage } = JSON.parse(data);
      if (error) throw new Failure("broken", "The server could not go on.", { detail: error.message });
      const choice = choices?.[0];
      const text = chat ? choice?.delta?.content : choice?.text;
      if (text) yield { text };
      if (choice?.finish_reason) yield { reason: choice.finish_reason };
      if (usage) yield { usage };
    }
  } catch (error) {
    if (error instanceof Failure || error.name === "AbortError") throw error;
    throw cutOff();
  }
  if (!ended) throw cutOff();
}

const cutOff = () => new Failure("broken", "The connection broke before the text was complete.");

/** The data of each server-sent event of a body. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) yield line.slice(5).trimStart();
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
