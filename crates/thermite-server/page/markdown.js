// Markdown to elements. Text only ever becomes text nodes, so nothing in it can become markup; links go to http, https
// and mailto alone, and pictures are never loaded.

import { button, element, icon } from "./dom.js";

const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const THOUGHT = /^\s*<think>([^]*?)(<\/think>|$)/;

/**
 * Shows `text` in `root`. Blocks that read as before keep their elements: a text that grows neither flickers nor loses
 * a selection, and costs its last block only.
 */
export function render(root, text) {
  const blocks = split(text);
  blocks.forEach((block, i) => {
    const key = block.kind + "\n" + block.lines.join("\n") + (block.open ? "" : "\n");
    const old = root.children[i];
    if (old?.source === key) return;
    const node = BUILD[block.kind](block, old);
    node.source = key;
    if (old !== node) old ? old.replaceWith(node) : root.append(node);
  });
  while (root.children.length > blocks.length) root.lastChild.remove();
  for (const child of root.children) child.classList.toggle("now", child === root.lastChild);
}

/** Cuts a text into blocks: `{kind, lines, …}`; `open` is a block whose end has not come yet. */
function split(text) {
  const blocks = [];
  const thought = THOUGHT.exec(text);
  if (thought?.[1].trim()) blocks.push({ kind: "thought", lines: thought[1].split("\n"), open: !thought[2] });
  const lines = text.slice(thought?.[0].length ?? 0).replace(/\r\n?/g, "\n").split("\n");
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    const fence = FENCE.exec(line);
    if (!line.trim()) {
      i++;
    } else if (fence) {
      const [, indent, mark, language] = fence;
      const end = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}\\s*$`);
      const code = [];
      for (i++; i < lines.length && !end.test(lines[i]); i++) {
        code.push(lines[i].startsWith(indent) ? lines[i].slice(indent.length) : lines[i]);
      }
      blocks.push({ kind: "code", language, lines: code, open: i >= lines.length });
      i++;
    } else if (HEADING.test(line)) {
      blocks.push({ kind: "heading", lines: [line] });
      i++;
    } else if (RULE.test(line)) {
      blocks.push({ kind: "rule", lines: [line] });
      i++;
    } else {
      const kind = QUOTE.test(line) ? "quote" : ITEM.test(line) ? "list" : isTable(lines, i) ? "table" : "paragraph";
      const from = i;
      for (i++; i < lines.length && CONTINUES[kind](lines, i); i++);
      blocks.push({ kind, lines: lines.slice(from, i) });
    }
  }
  return blocks;
}

const isTable = (lines, i) => lines[i].includes("|") && i + 1 < lines.length && DIVIDER.test(lines[i + 1]);
const begins = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line);

/** Whether line `i` belongs to the block of that kind that stands before it. */
const CONTINUES = {
  quote: (lines, i) => QUOTE.test(lines[i]),
  table: (lines, i) => lines[i].includes("|"),
  paragraph: (lines, i) => lines[i].trim() && !begins(lines[i]) && !ITEM.test(lines[i]) && !isTable(lines, i),
  // an item goes on over a blank line where what follows is indented, or the next item
  list: (lines, i) => {
    if (lines[i].trim()) return ITEM.test(lines[i]) || /^\s{2,}/.test(lines[i]) || (lines[i - 1].trim() && !begins(lines[i]));
    const next = lines.slice(i).find((line) => line.trim());
    return next !== undefined && (ITEM.test(next) || /^\s{2,}/.test(next));
  },
};

/** Block to element; `old` is what stood there before. */
const BUILD = {
  paragraph: ({ lines }) => inline(element("p"), lines.join("\n")),
  heading: ({ lines: [line] }) => {
    const [, marks, text] = HEADING.exec(line);
    return inline(element(`h${Math.min(marks.length, 4)}`), text);
  },
  rule: () => element("hr"),
  quote: ({ lines }) => nested(element("blockquote"), lines.map((line) => line.replace(QUOTE, ""))),
  list: ({ lines }) => list(lines),
  table: ({ lines }) => table(lines),
  code: ({ lines, language }, old) => code(lines.join("\n"), language, old),
  thought: ({ lines, open }, old) => {
    const node = element("details", {}, element("summary", {}, open ? "Thinking…" : "Thoughts"));
    node.open = old?.tagName === "DETAILS" && old.open;
    return nested(node, lines);
  },
};

/** Blocks within a block. */
function nested(node, lines) {
  for (const block of split(lines.join("\n"))) node.append(BUILD[block.kind](block));
  return node;
}

function code(text, language, old) {
  if (old?.classList.contains("code") && old.language === language) {
    old.querySelector("code").textContent = text;
    return old;
  }
  const copy = button("copy", "Copy the code");
  copy.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(node.querySelector("code").textContent);
    copy.replaceChildren(icon("check"));
    setTimeout(() => copy.replaceChildren(icon("copy")), 1500);
  });
  const node = element("div", { className: "code" },
    element("div", { className: "code-head" }, element("span", {}, language || "code"), copy),
    element("pre", { tabIndex: 0 }, element("code", {}, text)));
  node.language = language;
  return node;
}

function list(lines) {
  const [, margin, mark] = ITEM.exec(lines[0]);
  const root = element(/\d/.test(mark) ? "ol" : "ul");
  if (/\d/.test(mark) && parseInt(mark) !== 1) root.start = parseInt(mark);
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= margin.length + 1) items.push([item[3]]);
    else items.at(-1).push(line.replace(/^ {1,4}|^\t/, ""));
  }
  for (const item of items) {
    const node = element("li");
    for (const block of split(item.join("\n"))) {
      if (block.kind === "paragraph") inline(node, block.lines.join("\n"));
      else node.append(BUILD[block.kind](block));
    }
    root.append(node);
  }
  return root;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));
  const row = (line, tag) => element("tr", {}, ...cells(line).map((cell) => inline(element(tag), cell)));
  const [head, , ...body] = lines;
  return element("div", { className: "table" },
    element("table", {},
      element("thead", {}, row(head, "th")),
      element("tbody", {}, ...body.map((line) => row(line, "td")))));
}

// In the order in which they are tried at a place. What a mark encloses has a greatest length, so that a text of nothing but
// marks costs its length times that at most.
const INLINE = /\\([\\`*_{}[\]()#+\-.!|~<>])|(`+)([^`]|[^`][^]{0,1000}?[^`])\2(?!`)|!?\[([^[\]\n]{0,500})\]\(([^()\s]{1,2000})(?:\s+"[^"\n]{0,200}")?\)|\*\*(?=\S)([^]{0,1000}?\S)\*\*|(?<![\w_])__(?=\S)([^]{0,1000}?\S)__(?!\w)|\*(?=[^\s*])([^*]{0,1000}[^\s*])\*|(?<!\w)_(?=[^\s_])([^_]{0,1000}[^\s_])_(?!\w)|~~(?=\S)([^]{0,1000}?\S)~~|(https?:\/\/[^\s<>()"'`]{1,2000}[^\s<>()"'`.,;:!?*_~])/g;

/** Appends `text` to `node`, with what is emphasised, code or a link in elements of its own. */
function inline(node, text) {
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    node.append(text.slice(from, match.index));
    from = match.index + match[0].length;
    const [whole, escaped, , codeText, label, target, strong, strong2, em, em2, strike, url] = match;
    if (escaped !== undefined) node.append(escaped);
    else if (codeText !== undefined) node.append(element("code", {}, codeText.replace(/^ (.*\S.*) $/s, "$1")));
    else if (target !== undefined) node.append(link(target, label || target) ?? whole);
    else if (url !== undefined) node.append(link(url, url) ?? whole);
    else if ((strong ?? strong2) !== undefined) node.append(inline(element("strong"), strong ?? strong2));
    else if ((em ?? em2) !== undefined) node.append(inline(element("em"), em ?? em2));
    else node.append(inline(element("s"), strike));
  }
  node.append(text.slice(from));
  return node;
}

/** A link, or nothing where the address is none that a text may lead to. */
function link(target, text) {
  const url = URL.canParse(target) ? new URL(target) : undefined;
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) return undefined;
  return element("a", { href: url.href, target: "_blank", rel: "noopener noreferrer", title: url.href }, text);
}
