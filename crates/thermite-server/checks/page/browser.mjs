// What the checks share: a browser, pages that complain, and answers that a server is made to give.

import { chromium } from "playwright-core";

/** Opens pages of `url`; what they print to the console as an error is kept in `complaints`. */
export async function openBrowser(url) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox"] });
  const complaints = [];
  return {
    complaints,
    close: () => browser.close(),
    /** A page with a storage of its own. */
    async page(options = {}) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
      await context.grantPermissions(["clipboard-read", "clipboard-write"]);
      const page = await context.newPage();
      page.setDefaultTimeout(15_000);
      page.on("pageerror", (error) => complaints.push(error.stack));
      page.on("console", (message) => {
        // a status that a check asks for is printed by the browser itself
        if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) complaints.push(message.text());
      });
      await page.goto(url);
      await page.waitForSelector("#suggestions button");
      return page;
    },
  };
}

/** Takes what comes to a page down to so many bytes a second: a fast model is seen to stream then. */
export async function throttle(page, bytes) {
  const session = await page.context().newCDPSession(page);
  await session.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: bytes, uploadThroughput: -1 });
}

/** Types a message and sends it. */
export async function send(page, text) {
  await page.fill("#prompt", text);
  await page.press("#prompt", "Enter");
}

/** Waits until nothing is generated any more. */
export const done = (page) => page.waitForSelector("#send:not([hidden])");

/** A stream of these pieces, as the server writes it. */
export function stream(pieces) {
  const event = (data) => `data: ${JSON.stringify(data)}\n\n`;
  const deltas = pieces.map((content) => event({ choices: [{ index: 0, delta: { content }, text: content, finish_reason: null }] }));
  const end = event({ choices: [{ index: 0, delta: {}, text: "", finish_reason: "stop" }] });
  const usage = event({ choices: [], usage: { prompt_tokens: 1, completion_tokens: pieces.length, total_tokens: 1 + pieces.length } });
  return { status: 200, contentType: "text/event-stream", body: deltas.join("") + end + usage + "data: [DONE]\n\n" };
}

/** An error, as the server writes it. */
export function refusal(status, message, code, headers = {}) {
  const body = JSON.stringify({ error: { message, type: "invalid_request_error", param: null, code } });
  return { status, headers: { "content-type": "application/json", ...headers }, body };
}

/** Answers the generating requests of a page: the first with the first of `answers`, and so on; gives their headers. */
export async function answerWith(page, answers) {
  const headers = [];
  await page.route(/\/v1\/(chat\/)?completions$/, async (route) => {
    headers.push(route.request().headers());
    const answer = answers[Math.min(headers.length, answers.length) - 1];
    await (answer === "gone" ? route.abort("connectionrefused") : route.fulfill(answer));
  });
  return headers;
}
