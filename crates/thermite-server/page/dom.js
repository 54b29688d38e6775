// Elements, in one line each.

/** The element of that id. */
export const byId = (id) => document.getElementById(id);

/** A new element with properties and children; a string is a text. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** A drawing of index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button that shows a drawing, and says what it does. */
export function button(name, label, onClick) {
  const node = element("button", { type: "button", className: "icon", title: label }, icon(name));
  node.setAttribute("aria-label", label);
  if (onClick) node.addEventListener("click", onClick);
  return node;
}
