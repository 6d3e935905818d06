// Which view is shown, and whose token it is.
import { $, complain, el, keep, say, told, token } from "./api.js";
import * as enrol from "./enrol.js";
import * as ledger from "./ledger.js";
import * as speak from "./speak.js";
import * as voices from "./voices.js";
import "./check.js";

const VIEWS = { speak, enrol, check: null, voices, ledger };
let me = null;

async function turn(event) {
  const name = me ? (location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "speak") : "sign-in";
  for (const view of document.querySelectorAll(".view")) view.hidden = view.id !== name;
  document.querySelector("nav").hidden = $("leave").hidden = !me;
  $("who").textContent = me ? `${me.name}, ${me.role}` : "";
  for (const link of document.querySelectorAll("nav a"))
    link.hash === `#${name}` ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  const title = $(name).querySelector("h1").textContent;
  document.title = `${title} – Sayso, synthetic speech`;
  if (event) $("main").focus();
  try {
    await VIEWS[name]?.show(me);
  } catch (error) {
    if (error.status === 401) return leave(error);
    const box = $(name).querySelector(".error");
    if (box) complain(box, error);
  }
}

async function enter() {
  try {
    me = await told("/v1/me");
    $("sign-in").querySelector(".error")?.remove();
    await turn();
  } catch (error) {
    leave(error);
  }
}

function leave(error) {
  keep(null);
  me = null;
  $("sign-in").querySelector(".error")?.remove();
  if (error instanceof Error) {
    const box = el("div", { class: "error", role: "alert" });
    $("sign-in").append(box);
    complain(box, error);
  }
  turn();
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep($("token").value.trim());
  $("token").value = "";
  enter();
});
$("leave").addEventListener("click", () => leave());
window.addEventListener("hashchange", turn);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
token() ? enter() : turn();
