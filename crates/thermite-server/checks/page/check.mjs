// The page's checks: node check.mjs URL [FOLDER for screenshots]. The server at URL has a model that writes on, first,
// and one that converses, second.

import assert from "node:assert/strict";
import { answerWith, done, openBrowser, refusal, send, stream, throttle } from "./browser.mjs";

const [url, shots] = process.argv.slice(2);
const browser = await openBrowser(url);

const text = (page) => page.innerText(".text");
const answer = (page) => page.locator(".turn.assistant .body").last();
const shoot = (page, name) => shots && page.screenshot({ path: `${shots}/${name}.png` });
const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
const light = "rgb(251, 250, 248)";
const dark = "rgb(23, 21, 19)";

/** A page with the model that converses. */
async function talker(options) {
  const page = await browser.page(options);
  await page.selectOption("#model", { index: 1 });
  return page;
}

/** A value of the server's metrics. */
async function gauge(name) {
  const metrics = await (await fetch(new URL("/metrics", url))).text();
  return metrics.split("\n").filter((line) => line.startsWith(name)).reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

const checks = {
  async "a text streams, and its figures are shown"() {
    const page = await browser.page();
    await throttle(page, 6000);
    await send(page, "Once upon a time");
    const lengths = new Set();
    for (let i = 0; i < 60 && lengths.size < 4; i++) {
      lengths.add((await page.textContent("#log")).length);
      await page.waitForTimeout(50);
    }
    assert.ok(lengths.size >= 4, `lengths seen: ${[...lengths]}`);
    await shoot(page, "streaming");
    await throttle(page, -1);
    await done(page);
    assert.match(await text(page), /^Once upon a time\S* .{20}/s);
    assert.match(await page.innerText(".figures"), /\d+ tokens · [\d,.]+ tok\/s · first after [\d.]+ m?s/);
    await shoot(page, "text");
  },

  async "Escape stops a text, on the server too"() {
    const page = await browser.page();
    await throttle(page, 2000);
    await send(page, "Once upon a time");
    await page.waitForSelector(".text .assistant:not(:empty)");
    await page.keyboard.press("Escape");
    await done(page);
    assert.match(await page.innerText(".figures"), /stopped$/);
    const stopped = await text(page);
    await page.waitForTimeout(300);
    assert.equal(await text(page), stopped);
    for (let i = 0; i < 20 && await gauge("thermite_requests_running") > 0; i++) await page.waitForTimeout(100);
    assert.equal(await gauge("thermite_requests_running"), 0);
  },

  async "a text goes on, is written again, and is changed"() {
    const page = await browser.page();
    await send(page, "Lily had a red");
    await done(page);
    const first = await text(page);
    await page.press("#prompt", "Enter");
    await done(page);
    assert.ok((await text(page)).startsWith(first) && (await text(page)).length > first.length);
    await page.getByRole("button", { name: "Edit the text" }).click();
    await page.fill(".edit", "Tom saw a");
    await page.getByRole("button", { name: "Write on from here" }).click();
    await done(page);
    assert.match(await text(page), /^Tom saw a./s);
  },

  async "a reload finds the conversation, and the back button the one before"() {
    const page = await talker();
    await send(page, "The first one");
    await done(page);
    const said = await answer(page).innerText();
    await page.reload();
    await page.waitForSelector(".turn.assistant");
    assert.equal(await answer(page).innerText(), said);
    await page.click("#new");
    await send(page, "The second one");
    await done(page);
    assert.deepEqual(await page.locator("#conversations .open").allInnerTexts(), ["The second one", "The first one"]);
    await page.locator("#conversations .open").last().click();
    assert.equal(await page.innerText(".turn.user .body"), "The first one");
    await page.goBack();
    assert.equal(await page.innerText(".turn.user .body"), "The second one");
  },

  async "a message is sent again, changed, and answered anew"() {
    const page = await talker();
    const bodies = [];
    page.on("request", (request) => request.method() === "POST" && bodies.push(request.postDataJSON()));
    await page.click("#open-settings");
    await page.fill("[name=system]", "Be brief.");
    await page.fill("[name=temperature]", "0");
    await page.fill("[name=max_tokens]", "12");
    await page.fill("[name=seed]", "7");
    await page.keyboard.press("Escape");
    await send(page, "One");
    await done(page);
    const first = await answer(page).innerText();
    await page.getByRole("button", { name: "Answer again" }).click();
    await done(page);
    assert.equal(await answer(page).innerText(), first);
    await page.getByRole("button", { name: "Edit and send again" }).click();
    await page.fill(".edit", "Two");
    await page.press(".edit", "Enter");
    await done(page);
    assert.equal(await page.locator(".turn").count(), 2);
    const { messages, temperature, max_tokens, seed } = bodies.at(-1);
    assert.deepEqual(messages, [{ role: "system", content: "Be brief." }, { role: "user", content: "Two" }]);
    assert.deepEqual([temperature, max_tokens, seed], [0, 12, 7]);
    assert.match(await page.innerText(".figures"), /^12 tokens .* stopped at max tokens$/);
  },

  async "conversations are renamed, deleted, and brought back"() {
    const page = await talker();
    await send(page, "Plain title");
    await done(page);
    await page.getByRole("button", { name: "Rename: Plain title" }).click();
    await page.keyboard.type("A better one");
    await page.keyboard.press("Enter");
    assert.deepEqual(await page.locator("#conversations .open").allInnerTexts(), ["A better one"]);
    await page.getByRole("button", { name: "Delete: A better one" }).click();
    assert.equal(await page.locator("#conversations .open").count(), 0);
    await page.getByRole("button", { name: "Undo" }).click();
    assert.equal(await page.innerText(".turn.user .body"), "Plain title");
    const download = page.waitForEvent("download");
    await page.click("#export-all");
    assert.equal((await download).suggestedFilename(), "thermite-conversations.json");
    await page.click("#delete-all");
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.waitForSelector("#conversations .none");
    await page.reload();
    await page.waitForSelector("#conversations .none");
  },

  async "dark by the system, by the switch, and after a reload"() {
    const page = await browser.page({ colorScheme: "dark" });
    assert.equal(await background(page), dark);
    await page.click("#theme");
    assert.equal(await background(page), light);
    await page.reload();
    assert.equal(await background(page), light);
    await page.click("#theme");
    assert.equal(await background(page), dark);
    await shoot(page, "dark");
  },

  async "a phone: nothing is wider than it, and the list is a drawer"() {
    const page = await talker({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
    await answerWith(page, [stream(["A `wide` table:\n\n| a | b |\n|---|---|\n| ", "x".repeat(200), " | y |\n\n```\n", "y".repeat(200), "\n```"])]);
    await page.fill("#prompt", "Hello");
    await page.tap("#send");
    await done(page);
    await page.waitForSelector(".code");
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth && document.querySelector("#scroller").scrollWidth <= innerWidth));
    await shoot(page, "phone");
    await page.tap("#open-sidebar");
    await page.locator("#conversations .open").first().waitFor({ state: "visible" });
    assert.equal(await page.evaluate(() => document.activeElement.id), "new");
    await page.waitForTimeout(300);
    await shoot(page, "drawer");
    await page.keyboard.press("Escape");
    await page.locator("#conversations .open").first().waitFor({ state: "hidden" });
    assert.equal(await page.evaluate(() => document.activeElement.id), "open-sidebar");
  },

  async "everything by keyboard"() {
    const page = await talker();
    await answerWith(page, [stream(["An ", "answer."])]);
    await page.focus("#new");
    await page.keyboard.press("Shift+Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await page.keyboard.type("One");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("line more");
    assert.equal(await page.locator(".turn").count(), 0);
    await page.keyboard.press("Enter");
    await page.waitForSelector(".turn.assistant .body:not(:empty)");
    await done(page);
    assert.equal(await page.innerText(".turn.user .body"), "One\nline more");
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    assert.equal(await page.textContent("#status"), await page.evaluate(() => JSON.parse(localStorage[Object.keys(localStorage).find((key) => key.includes("conversation"))]).messages[1].content));
    // back from the box: the buttons of the answer, each with a ring
    const names = [];
    for (let i = 0; i < 3; i++) {
      await page.keyboard.press("Shift+Tab");
      names.push(await page.evaluate(() => document.activeElement.getAttribute("aria-label")));
      assert.equal(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "solid");
    }
    assert.deepEqual(names, ["Answer again", "Copy", "Edit and send again"]);
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.className), "edit");
    await page.keyboard.press("Escape");
    assert.equal(await page.innerText(".turn.user .body"), "One\nline more");
    await page.focus("#open-settings");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#settings[open]");
    await page.keyboard.press("Escape");
    assert.equal(await page.evaluate(() => document.activeElement.id), "open-settings");
  },

  async "nothing in an answer becomes markup"() {
    const page = await talker();
    const evil = ["<img src=x onerror=alert(1)><script>alert(2)</script>\n\n", "[a](javascript:alert(3)) [b](https://example.org) ![c](https://example.org/c.png)\n\n",
      "```html\n<b>bold</b>\n```\n\n| <i>x</i> | y |\n|---|---|\n| **z** | 1 |\n\n- one\n  - two\n\n> said"];
    await answerWith(page, [stream(evil)]);
    await send(page, "<b>me</b>");
    await done(page);
    await page.waitForSelector("blockquote");
    const found = await page.evaluate(() => ({
      foreign: document.querySelectorAll("#log img, #log script, #log i, #log b").length,
      links: [...document.querySelectorAll("#log a")].map((a) => [a.protocol, a.rel]),
      code: document.querySelector("#log pre").innerText,
      strong: document.querySelector("#log td strong")?.innerText,
      nested: document.querySelector("#log li li")?.innerText,
    }));
    assert.equal(found.foreign, 0);
    assert.deepEqual(found.links, [["https:", "noopener noreferrer"], ["https:", "noopener noreferrer"]]);
    assert.deepEqual([found.code.trim(), found.strong, found.nested], ["<b>bold</b>", "z", "two"]);
    await page.getByRole("button", { name: "Copy the code" }).click();
    assert.equal((await page.evaluate(() => navigator.clipboard.readText())).trim(), "<b>bold</b>");
  },

  async "errors are told as a person wants them"() {
    const page = await talker();
    await answerWith(page, [
      refusal(429, "64 requests wait", "queue_full", { "retry-after": "2" }), stream(["Back."]),
      refusal(400, "the prompt has 900 tokens, the context 512", "context_length_exceeded"),
      "gone", stream(["There", " again."]),
      { ...stream(["Half"]), body: stream(["Half"]).body.replace("data: [DONE]\n\n", "") },
    ]);
    await send(page, "Busy?");
    await page.getByText(/hands full. Trying again in \d s/).waitFor();
    await done(page);
    assert.equal(await answer(page).innerText(), "Back.");
    await send(page, "Long?");
    await page.getByText("longer than the model can read").waitFor();
    assert.match(await page.innerText(".error"), /900 tokens, the context 512/);
    await shoot(page, "error");
    await page.locator(".error button").click();
    await send(page, "Gone?");
    await page.getByText("The server cannot be reached").waitFor();
    await page.getByRole("button", { name: "Try again" }).click();
    await done(page);
    assert.equal(await answer(page).innerText(), "There again.");
    await send(page, "Broken?");
    await page.getByText("The connection broke").waitFor();
    assert.equal(await answer(page).innerText(), "Half");
  },

  async "a key is asked for, kept and sent"() {
    const page = await talker();
    const headers = await answerWith(page, [refusal(401, "no key", "invalid_api_key"), stream(["Welcome."])]);
    await send(page, "Hello");
    await page.waitForSelector("#key-dialog[open]");
    await page.keyboard.type("sk-secret");
    await page.keyboard.press("Enter");
    await answer(page).getByText("Welcome.").waitFor();
    assert.deepEqual(headers.map((h) => h.authorization), [undefined, "Bearer sk-secret"]);
    await page.reload();
    assert.equal(await page.inputValue("[name=key]"), "sk-secret");
  },

  async "a full storage is told of, and the conversation goes on"() {
    const page = await talker();
    await page.evaluate(() => {
      Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };
    });
    await send(page, "Hello");
    await page.getByText("storage is full").waitFor();
    await done(page);
    await send(page, "Go on");
    await done(page);
    assert.equal(await page.locator(".turn").count(), 4);
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    assert.deepEqual(browser.complaints.splice(0), [], "the console");
    console.log(`ok      ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${name}\n${error.stack}`);
  }
}
await browser.close();
console.log(`${Object.keys(checks).length - failed} of ${Object.keys(checks).length} passed`);
process.exitCode = failed ? 1 : 0;
