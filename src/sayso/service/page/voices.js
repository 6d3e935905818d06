import { $, complain, day, el, save, say, time, told } from "./api.js";

export async function show() {
  complain($("voices-error"), null);
  const found = (await told("/v1/voices")).data;
  $("voice-list").replaceChildren(...(found.length ? found.map(card) : [el("p", {}, "There is no voice for this token yet.")]));
}

const words = (list) => (list.includes("*") ? "anything" : list.join(", "));
const people = (list) => (list.includes("*") ? "Anybody with a token here" : list.join(", "));

function plain(voice) {
  if (voice.state === "revoked") return [`Taken back on ${day(voice.revoked)}. It is silent, and its recordings were destroyed.`];
  if (voice.state !== "valid" && voice.state !== "expired") return [`Its receipt is not good (${voice.state}): it is silent.`];
  const nobody = voice.basis === "synthetic";
  const much = (used, most) => `${used}${most ? ` of ${most}` : ""}`;
  return [
    nobody ? "A voice that the model made up: nobody's consent is needed for it." : `${voice.speaker} allows ${voice.controller} to speak in this voice for ${words(voice.purposes)}.`,
    `${people(voice.users)} may use it. ${voice.may_alter ? "Its pitch may be changed." : "It may not be altered."}`,
    voice.state === "expired" ? `It holds from ${day(voice.issued)} to ${day(voice.expires)}, which is not now: it is silent.` : `It holds until ${day(voice.expires)}${voice.days_left < 3650 ? ` (${voice.days_left} days left)` : ""}.`,
    `Used so far: recordings ${much(voice.uses, voice.max_uses)}, letters ${much(voice.characters, voice.max_characters)}.`,
  ];
}

function card(voice) {
  const box = el("article", { class: "panel", "aria-label": `Voice ${voice.id}` });
  const more = el("div", {});
  const state = voice.state === "valid" ? "good" : "bad";
  box.append(el("h2", {}, voice.id, " ", el("span", { class: state }, voice.state)), ...plain(voice).map((line) => el("p", {}, line)));
  box.append(el("button", { onclick: () => open(voice, more) }, "Receipt and outputs"));
  if (voice.own && voice.state !== "revoked") box.append(el("button", { class: "danger", onclick: () => ask(voice) }, `Take back ${voice.id}`));
  box.append(more);
  return box;
}

async function open(voice, more) {
  try {
    const found = await told(`/v1/voices/${voice.id}/receipt`);
    more.replaceChildren(
      el("p", { class: "hint" }, `Signed statement: “${found.payload.processing.privacy_notice}”`),
      el("button", { onclick: () => save(`${voice.id}.jws`, found.receipt) }, "Download the receipt"),
      voice.own ? outputs(found.outputs) : el("p", { class: "hint" }, "What was made in it is told to its owner."),
    );
  } catch (error) {
    complain($("voices-error"), error);
  }
}

function outputs(made) {
  if (!made.length) return el("p", {}, "Nothing was made in it.");
  const cells = (row) => [time(row.time), row.purpose, row.user, row.ledger_id].map((value) => el("td", {}, value));
  const head = ["Time (UTC)", "For", "By", "Ledger"].map((name) => el("th", { scope: "col" }, name));
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...made.map((row) => el("tr", {}, ...cells(row)))));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Outputs" }, el("p", {}, `Made in it (${made.length}):`), table);
}

function ask(voice) {
  const dialog = $("revoke");
  $("revoke-title").textContent = `Take back the consent for ${voice.id}?`;
  dialog.returnValue = "keep";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "revoke") return;
    try {
      const done = await told(`/v1/voices/${voice.id}`, { method: "DELETE" });
      await show();
      const box = [...$("voice-list").children].find((each) => each.getAttribute("aria-label") === `Voice ${voice.id}`);
      box.append(outputs(done.outputs));
      say(`${voice.id} is taken back.`);
    } catch (error) {
      complain($("voices-error"), error);
    }
  };
  dialog.showModal();
}
