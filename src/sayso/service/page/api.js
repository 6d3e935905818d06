// The service's own API, and small helpers of every view.
const KEPT = "sayso-token"; // of this tab alone

export const $ = (id) => document.getElementById(id);
export const token = () => sessionStorage.getItem(KEPT);
export const keep = (value) => (value ? sessionStorage.setItem(KEPT, value) : sessionStorage.removeItem(KEPT));

export class Refused extends Error {
  constructor(error, status) {
    super(error.message);
    Object.assign(this, { code: error.code, checks: error.checks, status });
  }
}

export async function ask(path, { method = "GET", json, form, signal } = {}) {
  const headers = { Authorization: `Bearer ${token()}` };
  if (json) headers["Content-Type"] = "application/json";
  const body = json ? JSON.stringify(json) : form;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused({ message: "The service does not answer: is it running?", code: "no-answer" }, 0);
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new Refused(told?.error ?? { message: "The service could not answer.", code: `http-${answer.status}` }, answer.status);
}

export const told = async (path, more) => (await ask(path, more)).json();

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function facts(list, pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value != null);
  list.replaceChildren(...shown.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

export function complain(box, error) {
  box.hidden = !error;
  if (error) box.replaceChildren(el("span", {}, error.message), " ", el("code", {}, error.code ?? ""));
}

export const say = (text) => ($("status").textContent = text);
export const day = (stamp) => new Date(stamp).toLocaleDateString("en", { dateStyle: "long", timeZone: "UTC" });
export const time = (stamp) => stamp.replace("T", " ").slice(0, 19);

// Shows that something goes on, and for how long it has.
export async function waiting(box, what, work) {
  const began = Date.now();
  const show = () => (box.lastElementChild.textContent = `${what} ${Math.round((Date.now() - began) / 1000)} s`);
  show();
  box.hidden = false;
  say(what);
  const timer = setInterval(show, 1000);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    box.hidden = true;
  }
}

export function save(name, data, type = "text/plain") {
  const link = el("a", { download: name, href: URL.createObjectURL(new Blob([data], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
