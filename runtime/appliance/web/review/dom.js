// Elements are made here, and text only ever as text: nothing from the service is read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export const element = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);

export const drawn = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

export const byId = (id) => document.getElementById(id);

// Return a button. `options` are further attributes.
export const button = (text, act, options = {}) =>
  element("button", { type: "button", onclick: act, ...options }, text);

// Return a grade's badge, for use within text; the words beside it give its meaning.
export const badge = (grade) =>
  drawn("svg", { class: "symbol", viewBox: "-13 -13 26 26", "aria-hidden": "true" },
    drawn("use", { href: `#badge-${grade ?? "none"}`, x: -13, y: -13, width: 26, height: 26 }));

// Have a screen reader say something, and nothing else.
export function say(text) {
  byId("said").textContent = text;
}

// Show an error until something else is shown. `actions` are buttons for the next step.
export function alarm(title, error, ...actions) {
  const code = error.code ? element("span", { class: "code" }, ` (${error.code})`) : "";
  byId("alerts").replaceChildren(
    element("div", { class: "alarm" },
      element("p", {}, element("strong", {}, `${title} `), told(error), code),
      element("p", { class: "actions" }, actions, button("Close this message", calm))),
  );
}

// Return what happened and what to do next.
export function told(error) {
  const next = error.nextStep ? ` ${sentence(error.nextStep)}` : "";
  return sentence(error.detail ?? error.message) + next;
}

export function calm() {
  byId("alerts").replaceChildren();
}

export function sentence(text) {
  const whole = String(text).trim();
  const ended = /[.!?]$/.test(whole) ? whole : `${whole}.`;
  return ended.charAt(0).toUpperCase() + ended.slice(1);
}
